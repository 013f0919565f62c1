//! Transactions: what the base stations record.
//!
//! A transaction names its signer and a sequence number that the signer never uses twice; the pair is its place in
//! the signer's replay window (see [`crate::replay`]). Its identifier hashes everything but the signature.

use std::sync::Arc;

use serde::Serialize;

use crate::codec::{Decode, Encode, Reader, VERSION, encoded_fields, put_bytes, unknown_tag};
use crate::crypto::{Check, PublicKey, Signature, Signer};
use crate::error::Result;
use crate::types::{Digest, MicroCoins, ReplicaId, hex};
use crate::vote::Evidence;

/// Most bytes an action's payload may have.
pub const MAX_PAYLOAD_BYTES: usize = 65_536;

/// A verifier's finding on a training model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Held, well-formed and of sufficient quality.
    Passed,
    /// Held and found wanting.
    Failed,
}

/// A reference to a body kept beside the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BodyRef {
    /// BLAKE3 digest of the body.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
}
encoded_fields!(BodyRef { digest, size_bytes });

/// What a transaction records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Payload {
    /// The model of a digital twin, kept by the signer.
    TwinModel {
        /// Twin number.
        twin: u32,
        /// Training round.
        round: u64,
        /// The model.
        body: BodyRef,
    },
    /// A fingerprint of a digital twin's data, kept by the signer. Raw data never goes on the chain.
    TwinData {
        /// Twin number.
        twin: u32,
        /// Training round.
        round: u64,
        /// The data.
        body: BodyRef,
    },
    /// The model that the signer trained in a round. Rounds of one signer ascend.
    TrainingModel {
        /// Training round.
        round: u64,
        /// The model.
        body: BodyRef,
    },
    /// The signer's finding on another's training model.
    Attestation {
        /// Who trained the model.
        owner: ReplicaId,
        /// In which round.
        round: u64,
        /// The model that was checked.
        digest: Digest,
        /// The finding.
        verdict: Verdict,
    },
    /// From the next election on, the signer's coins vote for this candidate.
    Delegation {
        /// The candidate.
        candidate: ReplicaId,
    },
    /// Coins for a training model that a quorum attested.
    Award {
        /// Who trained the model.
        owner: ReplicaId,
        /// In which round.
        round: u64,
        /// The award that genesis sets.
        amount: MicroCoins,
    },
    /// Proof that somebody signed contradicting votes.
    Evidence(Box<Evidence>),
    /// An action taken for a round, such as the joint association; its content means nothing to the chain.
    Action {
        /// Training round.
        round: u64,
        /// Content, at most [`MAX_PAYLOAD_BYTES`].
        #[serde(serialize_with = "as_hex")]
        content: Vec<u8>,
    },
}

fn as_hex<S: serde::Serializer>(bytes: &[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(bytes))
}

impl Payload {
    /// The kind's name, as logs and summaries show it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TwinModel { .. } => "twin_model",
            Self::TwinData { .. } => "twin_data",
            Self::TrainingModel { .. } => "training_model",
            Self::Attestation { .. } => "attestation",
            Self::Delegation { .. } => "delegation",
            Self::Award { .. } => "award",
            Self::Evidence(_) => "evidence",
            Self::Action { .. } => "action",
        }
    }

    /// True for payloads after which others of the same kind may never be valid again, see
    /// [`crate::state::State::is_hopeless`].
    #[must_use]
    pub fn may_void_others(&self) -> bool {
        matches!(
            self,
            Self::Evidence(_) | Self::Award { .. } | Self::TrainingModel { .. } | Self::Attestation { .. }
        )
    }

    /// The body that the transaction refers to, if any.
    #[must_use]
    pub fn body(&self) -> Option<&BodyRef> {
        match self {
            Self::TwinModel { body, .. } | Self::TwinData { body, .. } | Self::TrainingModel { body, .. } => {
                Some(body)
            }
            _ => None,
        }
    }
}

impl Encode for Payload {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::TwinModel { twin, round, body } | Self::TwinData { twin, round, body } => {
                u8::from(matches!(self, Self::TwinData { .. })).encode(out);
                twin.encode(out);
                round.encode(out);
                body.encode(out);
            }
            Self::TrainingModel { round, body } => {
                2u8.encode(out);
                round.encode(out);
                body.encode(out);
            }
            Self::Attestation { owner, round, digest, verdict } => {
                3u8.encode(out);
                owner.encode(out);
                round.encode(out);
                digest.encode(out);
                u8::from(*verdict == Verdict::Passed).encode(out);
            }
            Self::Delegation { candidate } => {
                4u8.encode(out);
                candidate.encode(out);
            }
            Self::Award { owner, round, amount } => {
                5u8.encode(out);
                owner.encode(out);
                round.encode(out);
                amount.encode(out);
            }
            Self::Evidence(evidence) => {
                6u8.encode(out);
                evidence.encode(out);
            }
            Self::Action { round, content } => {
                7u8.encode(out);
                round.encode(out);
                put_bytes(out, content);
            }
        }
    }
}

impl Decode for Payload {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match u8::decode(reader)? {
            tag @ (0 | 1) => {
                let (twin, round, body) =
                    (u32::decode(reader)?, u64::decode(reader)?, BodyRef::decode(reader)?);
                if tag == 0 {
                    Self::TwinModel { twin, round, body }
                } else {
                    Self::TwinData { twin, round, body }
                }
            }
            2 => Self::TrainingModel { round: u64::decode(reader)?, body: BodyRef::decode(reader)? },
            3 => Self::Attestation {
                owner: ReplicaId::decode(reader)?,
                round: u64::decode(reader)?,
                digest: Digest::decode(reader)?,
                verdict: match u8::decode(reader)? {
                    0 => Verdict::Failed,
                    1 => Verdict::Passed,
                    tag => return Err(unknown_tag("verdict", tag)),
                },
            },
            4 => Self::Delegation { candidate: ReplicaId::decode(reader)? },
            5 => Self::Award {
                owner: ReplicaId::decode(reader)?,
                round: u64::decode(reader)?,
                amount: u64::decode(reader)?,
            },
            6 => Self::Evidence(Box::new(Evidence::decode(reader)?)),
            7 => Self::Action {
                round: u64::decode(reader)?,
                content: reader.bytes(MAX_PAYLOAD_BYTES, "action content")?,
            },
            tag => return Err(unknown_tag("payload", tag)),
        })
    }
}

/// A signed transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transaction {
    /// Who signs.
    pub signer: ReplicaId,
    /// The signer's sequence number, from 1.
    pub sequence: u64,
    /// What is recorded.
    pub payload: Payload,
    /// Over [`Transaction::signing_bytes`].
    pub signature: Signature,
}
encoded_fields!(Transaction { signer, sequence, payload, signature });

/// A shared transaction.
pub type SharedTransaction = Arc<Transaction>;

impl Transaction {
    /// Signs a payload.
    #[must_use]
    pub fn sign(
        chain: &Digest,
        signer: ReplicaId,
        key: &dyn Signer,
        sequence: u64,
        payload: Payload,
    ) -> Self {
        let mut transaction = Self { signer, sequence, payload, signature: Signature([0; 64]) };
        transaction.signature = key.sign(&transaction.signing_bytes(chain));
        transaction
    }

    /// The bytes that the signature covers: domain, version, chain, signer, sequence number and payload.
    #[must_use]
    pub fn signing_bytes(&self, chain: &Digest) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(b"dtwn-chain transaction");
        VERSION.encode(&mut out);
        chain.encode(&mut out);
        self.signer.encode(&mut out);
        self.sequence.encode(&mut out);
        self.payload.encode(&mut out);
        out
    }

    /// Identifies the transaction: the digest of [`Transaction::signing_bytes`].
    #[must_use]
    pub fn id(&self, chain: &Digest) -> Digest {
        Digest::in_domain("transaction id", &self.signing_bytes(chain))
    }

    /// The signature as something to check.
    #[must_use]
    pub fn check(&self, chain: &Digest, key: PublicKey) -> Check {
        Check { key, message: self.signing_bytes(chain), signature: self.signature }
    }

    /// Length of the canonical encoding in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let payload = match &self.payload {
            Payload::TwinModel { .. } | Payload::TwinData { .. } => 52,
            Payload::TrainingModel { .. } => 48,
            Payload::Attestation { .. } => 43,
            Payload::Delegation { .. } => 2,
            Payload::Award { .. } => 18,
            Payload::Evidence(evidence) => evidence.to_bytes().len(),
            Payload::Action { content, .. } => 12 + content.len(),
        };
        2 + 8 + 1 + payload + 64
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::StubSigner;
    use crate::vote::{Proposal, Statement, Vote};

    fn body() -> impl Strategy<Value = BodyRef> {
        (any::<[u8; 32]>(), any::<u64>())
            .prop_map(|(digest, size_bytes)| BodyRef { digest: Digest(digest), size_bytes })
    }

    pub(crate) fn vote() -> impl Strategy<Value = Vote> {
        (0u8..3, any::<[u64; 4]>(), any::<[u8; 32]>(), any::<u16>()).prop_map(
            |(kind, [a, b, c, d], block, signer)| {
                let proposal =
                    Proposal { epoch: a, view: b, parent_view: c, height: d, block: Digest(block) };
                let statement = match kind {
                    0 => Statement::Notarize(proposal),
                    1 => Statement::Nullify { epoch: a, view: b },
                    _ => Statement::Finalize(proposal),
                };
                Vote { statement, signer: ReplicaId(signer), signature: Signature([kind; 64]) }
            },
        )
    }

    pub(crate) fn payload() -> impl Strategy<Value = Payload> {
        prop_oneof![
            (any::<u32>(), any::<u64>(), body()).prop_map(|(twin, round, body)| Payload::TwinModel {
                twin,
                round,
                body
            }),
            (any::<u32>(), any::<u64>(), body()).prop_map(|(twin, round, body)| Payload::TwinData {
                twin,
                round,
                body
            }),
            (any::<u64>(), body()).prop_map(|(round, body)| Payload::TrainingModel { round, body }),
            (any::<u16>(), any::<u64>(), any::<[u8; 32]>(), any::<bool>()).prop_map(
                |(owner, round, digest, passed)| {
                    let verdict = if passed { Verdict::Passed } else { Verdict::Failed };
                    Payload::Attestation { owner: ReplicaId(owner), round, digest: Digest(digest), verdict }
                }
            ),
            any::<u16>().prop_map(|candidate| Payload::Delegation { candidate: ReplicaId(candidate) }),
            any::<(u16, u64, u64)>().prop_map(|(owner, round, amount)| Payload::Award {
                owner: ReplicaId(owner),
                round,
                amount
            }),
            (vote(), vote())
                .prop_map(|(first, second)| Payload::Evidence(Box::new(Evidence { first, second }))),
            (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..600))
                .prop_map(|(round, content)| Payload::Action { round, content }),
        ]
    }

    proptest! {
        #[test]
        fn encoding_is_canonical_and_its_length_known(payload in payload(), sequence: u64) {
            let signer = StubSigner(PublicKey([7; 32]));
            let tx = Transaction::sign(&Digest([1; 32]), ReplicaId(3), &signer, sequence, payload);
            let bytes = tx.to_bytes();
            prop_assert_eq!(bytes.len(), tx.encoded_len());
            prop_assert_eq!(Transaction::from_bytes(&bytes), Ok(tx));
        }

        #[test]
        fn arbitrary_bytes_decode_to_themselves_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(tx) = Transaction::from_bytes(&bytes) {
                prop_assert_eq!(tx.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn another_chain_means_another_signature_and_id() {
        let signer = StubSigner(PublicKey([7; 32]));
        let payload = Payload::Delegation { candidate: ReplicaId(1) };
        let [a, b] = [1, 2].map(|chain| {
            let chain = Digest([chain; 32]);
            let tx = Transaction::sign(&chain, ReplicaId(3), &signer, 1, payload.clone());
            (tx.id(&chain), tx.signature)
        });
        assert_ne!(a, b);
    }

    #[test]
    fn transactions_can_be_shown() {
        let signer = StubSigner(PublicKey([7; 32]));
        let payload = Payload::Action { round: 2, content: vec![0xab, 1] };
        let tx = Transaction::sign(&Digest::default(), ReplicaId(3), &signer, 1, payload);
        let shown = serde_json::to_value(&tx).unwrap();
        assert_eq!(shown["payload"], serde_json::json!({"kind": "action", "round": 2, "content": "ab01"}));
        assert_eq!(
            (&shown["signer"], shown["signature"].as_str().unwrap().len()),
            (&serde_json::json!(3), 128)
        );
    }
}
