//! Training models on the chain: who may attest them and what becomes of them.
//!
//! The producers of the epoch in which a model is recorded verify it. With M_p producers and f = ⌊(M_p − 1) / 3⌋ a
//! model passes with M_p − f findings in its favour, its owner's signature on the transaction being one of them if
//! it is a producer; so at least one honest producer other than the owner checked it. It fails with f + 1 findings
//! against it, of which at least one is honest. Whichever comes first stands.

use std::fmt;

use serde::Serialize;

use crate::codec::{Decode, Encode, Reader, put_sequence, unknown_tag};
use crate::election::ProducerSet;
use crate::error::Result;
use crate::state::MAX_VERIFIERS;
use crate::tx::{BodyRef, Verdict};
use crate::types::{Digest, ReplicaId};

/// What became of a training model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelStatus {
    /// Not enough findings either way.
    Pending,
    /// A quorum found it good; it counts and may earn coins.
    Passed,
    /// It stays out of the aggregate and earns nothing.
    Failed,
    /// Passed, and its owner has the coins.
    Awarded,
}

impl fmt::Display for ModelStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Awarded => "awarded",
        })
    }
}

/// A training model and the findings on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRecord {
    /// Training round.
    pub round: u64,
    /// The model.
    pub body: BodyRef,
    /// Who may attest it.
    pub verifiers: Vec<ReplicaId>,
    /// Who found it good, the owner included if it is a verifier.
    pub passed: Vec<ReplicaId>,
    /// Who found it wanting.
    pub failed: Vec<ReplicaId>,
    /// What follows.
    pub status: ModelStatus,
}

impl ModelRecord {
    /// The record of a model that `owner` submits while `producers` produce.
    #[must_use]
    pub fn new(round: u64, body: BodyRef, owner: ReplicaId, producers: &ProducerSet) -> Self {
        let verifiers = producers.members.clone();
        let passed = if producers.contains(owner) { vec![owner] } else { Vec::new() };
        Self { round, body, verifiers, passed, failed: Vec::new(), status: ModelStatus::Pending }
    }

    /// Counts a finding.
    ///
    /// # Errors
    /// Why the finding does not count, in words.
    pub fn attest(
        &mut self,
        verifier: ReplicaId,
        digest: &Digest,
        verdict: Verdict,
    ) -> std::result::Result<(), String> {
        if *digest != self.body.digest {
            return Err(format!("the model of that round is {}, not {digest}", self.body.digest));
        }
        if !self.verifiers.contains(&verifier) {
            return Err("the signer did not produce in the model's epoch".into());
        }
        if self.passed.contains(&verifier) || self.failed.contains(&verifier) {
            return Err("the signer's finding is already recorded".into());
        }
        let faults = (self.verifiers.len() - 1) / 3;
        let (list, enough, outcome) = match verdict {
            Verdict::Passed => (&mut self.passed, self.verifiers.len() - faults, ModelStatus::Passed),
            Verdict::Failed => (&mut self.failed, faults + 1, ModelStatus::Failed),
        };
        list.push(verifier);
        if self.status == ModelStatus::Pending && list.len() >= enough {
            self.status = outcome;
        }
        Ok(())
    }
}

impl Encode for ModelRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        self.round.encode(out);
        self.body.encode(out);
        put_sequence(out, &self.verifiers);
        put_sequence(out, &self.passed);
        put_sequence(out, &self.failed);
        (self.status as u8).encode(out);
    }
}

impl Decode for ModelRecord {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            round: u64::decode(reader)?,
            body: BodyRef::decode(reader)?,
            verifiers: reader.sequence(MAX_VERIFIERS, "verifiers")?,
            passed: reader.sequence(MAX_VERIFIERS, "verifiers")?,
            failed: reader.sequence(MAX_VERIFIERS, "verifiers")?,
            status: match u8::decode(reader)? {
                0 => ModelStatus::Pending,
                1 => ModelStatus::Passed,
                2 => ModelStatus::Failed,
                3 => ModelStatus::Awarded,
                tag => return Err(unknown_tag("model status", tag)),
            },
        })
    }
}
