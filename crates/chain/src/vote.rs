//! Votes, certificates and proof that somebody voted twice.

use std::sync::Arc;

use serde::Serialize;

use crate::codec::{Decode, Encode, Reader, VERSION, encoded_fields, put_sequence, unknown_tag};
use crate::crypto::Signature;
use crate::error::{Error, Result};
use crate::types::{Digest, Epoch, Height, ReplicaId, View};

/// Most producers an epoch may have, and so the most signatures in a certificate.
pub const MAX_PRODUCERS: usize = 256;

/// A block put forward in a view. Usually the block was built for this view; an epoch's boundary block is put
/// forward again, unchanged, in later views until it is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Proposal {
    /// Epoch.
    pub epoch: Epoch,
    /// View within the epoch.
    pub view: View,
    /// View of the proposal that this one extends; 0 is the block before the epoch.
    pub parent_view: View,
    /// The block's height.
    pub height: Height,
    /// The block.
    pub block: Digest,
}
encoded_fields!(Proposal { epoch, view, parent_view, height, block });

/// What a vote says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Statement {
    /// The proposal is valid and its ancestry certified. The leader's own is the proposal's signature.
    Notarize(Proposal),
    /// The view should be left without a block.
    Nullify {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
    },
    /// The proposal is notarized and this voter has not nullified its view and never will.
    Finalize(Proposal),
}

impl Statement {
    /// Epoch and view that the statement is about.
    #[must_use]
    pub fn round(&self) -> (Epoch, View) {
        match self {
            Self::Notarize(proposal) | Self::Finalize(proposal) => (proposal.epoch, proposal.view),
            Self::Nullify { epoch, view } => (*epoch, *view),
        }
    }

    /// The proposal, if the statement is about one.
    #[must_use]
    pub fn proposal(&self) -> Option<&Proposal> {
        match self {
            Self::Notarize(proposal) | Self::Finalize(proposal) => Some(proposal),
            Self::Nullify { .. } => None,
        }
    }

    /// The bytes that a vote's signature covers: domain, version, chain and the statement.
    #[must_use]
    pub fn signing_bytes(&self, chain: &Digest) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(b"dtwn-chain vote");
        VERSION.encode(&mut out);
        chain.encode(&mut out);
        self.encode(&mut out);
        out
    }

    /// True when no replica that follows the rules makes both statements: two different proposals notarized or
    /// finalized in one view, or a view both finalized and nullified.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        if self.round() != other.round() {
            return false;
        }
        match (self, other) {
            (Self::Notarize(a), Self::Notarize(b)) | (Self::Finalize(a), Self::Finalize(b)) => a != b,
            (Self::Nullify { .. }, Self::Finalize(_)) | (Self::Finalize(_), Self::Nullify { .. }) => true,
            _ => false,
        }
    }
}

impl Encode for Statement {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Notarize(proposal) => {
                0u8.encode(out);
                proposal.encode(out);
            }
            Self::Nullify { epoch, view } => {
                1u8.encode(out);
                epoch.encode(out);
                view.encode(out);
            }
            Self::Finalize(proposal) => {
                2u8.encode(out);
                proposal.encode(out);
            }
        }
    }
}

impl Decode for Statement {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        match u8::decode(reader)? {
            0 => Proposal::decode(reader).map(Self::Notarize),
            1 => Ok(Self::Nullify { epoch: u64::decode(reader)?, view: u64::decode(reader)? }),
            2 => Proposal::decode(reader).map(Self::Finalize),
            tag => Err(unknown_tag("statement", tag)),
        }
    }
}

/// One replica's signed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Vote {
    /// What is said.
    pub statement: Statement,
    /// Who says it.
    pub signer: ReplicaId,
    /// Over [`Statement::signing_bytes`].
    pub signature: Signature,
}
encoded_fields!(Vote { statement, signer, signature });

/// A statement with the signatures of a quorum of its epoch's producers, in ascending order of signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// What the quorum says.
    pub statement: Statement,
    /// Who, and their signatures.
    pub signatures: Vec<(ReplicaId, Signature)>,
}

impl Certificate {
    /// Checks everything that needs no cryptography: signers ascending (so distinct), members, a quorum of them.
    ///
    /// # Errors
    /// [`Error::Certificate`] naming what is wrong.
    pub fn check_shape(&self, members: &[ReplicaId], quorum: usize) -> Result<()> {
        if !self.signatures.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(self.error("signers are not in ascending order".into()));
        }
        if let Some((stranger, _)) = self.signatures.iter().find(|(signer, _)| !members.contains(signer)) {
            return Err(self.error(format!("{stranger} is not a producer of the epoch")));
        }
        if self.signatures.len() < quorum {
            return Err(self.error(format!("{} signatures, the quorum is {quorum}", self.signatures.len())));
        }
        Ok(())
    }

    /// An error about this certificate.
    pub(crate) fn error(&self, reason: String) -> Error {
        let (epoch, view) = self.statement.round();
        Error::Certificate { epoch, view, reason }
    }
}

impl Encode for (ReplicaId, Signature) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
}

impl Decode for (ReplicaId, Signature) {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok((ReplicaId::decode(reader)?, Signature::decode(reader)?))
    }
}

impl Encode for Certificate {
    fn encode(&self, out: &mut Vec<u8>) {
        self.statement.encode(out);
        put_sequence(out, &self.signatures);
    }
}

impl Decode for Certificate {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let statement = Statement::decode(reader)?;
        let signatures = reader.sequence(MAX_PRODUCERS, "certificate signatures")?;
        Ok(Self { statement, signatures })
    }
}

/// Two conflicting statements that one replica signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// One of the two.
    pub first: Vote,
    /// The other.
    pub second: Vote,
}
encoded_fields!(Evidence { first, second });

impl Evidence {
    /// Offender, epoch and view: the offence that this proves.
    #[must_use]
    pub fn offence(&self) -> (Epoch, View, ReplicaId) {
        let (epoch, view) = self.first.statement.round();
        (epoch, view, self.first.signer)
    }

    /// Checks all but the signatures.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check_shape(&self) -> std::result::Result<(), &'static str> {
        if self.first.signer != self.second.signer {
            return Err("the two votes have different signers");
        }
        if !self.first.statement.conflicts_with(&self.second.statement) {
            return Err("the two votes do not contradict each other");
        }
        Ok(())
    }
}

/// A shared certificate.
pub type SharedCertificate = Arc<Certificate>;

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(view: View, byte: u8) -> Proposal {
        Proposal { epoch: 1, view, parent_view: 0, height: 3, block: Digest([byte; 32]) }
    }

    #[test]
    fn conflicts_are_exactly_the_forbidden_pairs() {
        let (a, b) = (proposal(2, 1), proposal(2, 2));
        let nullify = Statement::Nullify { epoch: 1, view: 2 };
        assert!(Statement::Notarize(a).conflicts_with(&Statement::Notarize(b)));
        assert!(Statement::Finalize(a).conflicts_with(&Statement::Finalize(b)));
        assert!(Statement::Finalize(a).conflicts_with(&nullify));
        assert!(nullify.conflicts_with(&Statement::Finalize(a)));
        // A replica may notarize and then time out, and may finalize what others notarized.
        assert!(!Statement::Notarize(a).conflicts_with(&nullify));
        assert!(!Statement::Notarize(a).conflicts_with(&Statement::Finalize(b)));
        assert!(!Statement::Notarize(a).conflicts_with(&Statement::Notarize(a)));
        assert!(!Statement::Notarize(a).conflicts_with(&Statement::Notarize(proposal(3, 2))));
    }

    #[test]
    fn certificates_name_distinct_members_and_a_quorum() {
        let members: Vec<_> = (0..4).map(ReplicaId).collect();
        let sign = |ids: &[u16]| Certificate {
            statement: Statement::Nullify { epoch: 0, view: 1 },
            signatures: ids.iter().map(|&id| (ReplicaId(id), Signature([0; 64]))).collect(),
        };
        assert_eq!(sign(&[0, 1, 3]).check_shape(&members, 3), Ok(()));
        assert!(sign(&[0, 1]).check_shape(&members, 3).is_err());
        assert!(sign(&[0, 1, 1]).check_shape(&members, 3).is_err());
        assert!(sign(&[1, 0, 2]).check_shape(&members, 3).is_err());
        assert!(sign(&[0, 1, 9]).check_shape(&members, 3).is_err());
    }

    #[test]
    fn statements_survive_their_encoding() {
        for statement in [
            Statement::Notarize(proposal(9, 7)),
            Statement::Nullify { epoch: 4, view: 5 },
            Statement::Finalize(proposal(1, 0)),
        ] {
            assert_eq!(Statement::from_bytes(&statement.to_bytes()), Ok(statement));
        }
        assert!(Statement::from_bytes(&[3]).is_err());
    }
}
