//! Signatures.
//!
//! Ed25519 with the verification rule of ZIP 215: the cofactored equation, canonical `s`, any encoding of `A` and
//! `R` that decompresses. Under this rule checking signatures one by one and in a batch accept exactly the same
//! set, which the cofactorless rules of RFC 8032 implementations do not promise; were they to differ, replicas
//! could disagree on a block's validity. Nobody but the holder of a key can turn one of its valid signatures into
//! another (`s` is canonical and `R` is hashed); since the holder can sign as often as it likes, identifiers of
//! transactions never include the signature.

use std::collections::HashMap;
use std::fmt;

use ed25519_zebra::{SigningKey, VerificationKey, VerificationKeyBytes, batch};
use rand::SeedableRng as _;

use crate::codec::{Decode, Encode, Reader};
use crate::error::{Error, Result};
use crate::types::{Digest, hex};

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// A signature over a canonical encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Digest(self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}

impl serde::Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl serde::Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl Encode for PublicKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

impl Decode for PublicKey {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(reader.array("public key")?))
    }
}

impl Encode for Signature {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

impl Decode for Signature {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(reader.array("signature")?))
    }
}

/// Signs with one replica's key.
pub trait Signer: Send + Sync {
    /// The key that verifies this signer's signatures.
    fn public_key(&self) -> PublicKey;
    /// Signs `message`.
    fn sign(&self, message: &[u8]) -> Signature;
}

/// One signature to check.
#[derive(Debug, Clone)]
pub struct Check {
    /// The signer's key.
    pub key: PublicKey,
    /// The bytes that were signed.
    pub message: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

/// Checks signatures.
pub trait Verifier: Send + Sync {
    /// True when `signature` is `key`'s over `message`.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool;

    /// True when every signature is valid; equal to [`Verifier::verify`] holding for each.
    fn verify_all(&self, checks: &[Check]) -> bool {
        checks.iter().all(|check| self.verify(&check.key, &check.message, &check.signature))
    }
}

/// An Ed25519 signing key.
pub struct Ed25519Signer(SigningKey);

impl Ed25519Signer {
    /// The signer with this 32-byte secret seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }
}

impl Signer for Ed25519Signer {
    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verification_key().into())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

/// Verifies Ed25519 signatures of a known set of keys.
pub struct Ed25519Verifier {
    keys: HashMap<PublicKey, VerificationKey>,
}

impl Ed25519Verifier {
    /// A verifier for `keys`, decompressed once.
    ///
    /// # Errors
    /// [`Error::Config`] when a key is not a curve point.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Result<Self> {
        let keys = keys
            .into_iter()
            .map(|key| match VerificationKey::try_from(key.0) {
                Ok(point) => Ok((key, point)),
                Err(_) => Err(Error::Config(format!("{key:?} is not an Ed25519 public key"))),
            })
            .collect::<Result<_>>()?;
        Ok(Self { keys })
    }
}

impl Verifier for Ed25519Verifier {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_zebra::Signature::from_bytes(&signature.0);
        self.keys.get(key).is_some_and(|key| key.verify(&signature, message).is_ok())
    }

    fn verify_all(&self, checks: &[Check]) -> bool {
        // Below this the batch's set-up costs more than it saves.
        if checks.len() < 3 {
            return checks.iter().all(|check| self.verify(&check.key, &check.message, &check.signature));
        }
        let mut batch = batch::Verifier::new();
        // The batch's coefficients must be unpredictable to whoever made the signatures; derived from all that is
        // checked (Fiat–Shamir) they are, without asking for randomness.
        let mut transcript = blake3::Hasher::new_derive_key("dtwn-chain ed25519 batch coefficients");
        for check in checks {
            transcript.update(&check.key.0);
            transcript.update(&check.signature.0);
            transcript.update(blake3::hash(&check.message).as_bytes());
            let signature = ed25519_zebra::Signature::from_bytes(&check.signature.0);
            batch.queue((VerificationKeyBytes::from(check.key.0), signature, &check.message));
        }
        let known = checks.iter().all(|check| self.keys.contains_key(&check.key));
        known && batch.verify(rand_chacha::ChaCha20Rng::from_seed(*transcript.finalize().as_bytes())).is_ok()
    }
}

/// A stand-in for Ed25519 in simulations: a hash of key and message. Whoever knows the public key can sign, so it
/// proves nothing outside a simulator, where only the code of each actor decides what it signs.
pub(crate) struct StubSigner(pub(crate) PublicKey);

/// Verifies [`StubSigner`]'s signatures.
pub(crate) struct StubVerifier;

impl StubVerifier {
    fn tag(key: &PublicKey, message: &[u8]) -> Signature {
        let tag = blake3::keyed_hash(&key.0, message);
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(tag.as_bytes());
        Signature(bytes)
    }
}

impl Signer for StubSigner {
    fn public_key(&self) -> PublicKey {
        self.0
    }

    fn sign(&self, message: &[u8]) -> Signature {
        StubVerifier::tag(&self.0, message)
    }
}

impl Verifier for StubVerifier {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        Self::tag(key, message) == *signature
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(count: u8) -> (Ed25519Verifier, Vec<Check>) {
        let signers: Vec<_> = (0..count).map(|seed| Ed25519Signer::from_seed([seed; 32])).collect();
        let verifier = Ed25519Verifier::new(signers.iter().map(Ed25519Signer::public_key)).unwrap();
        let checks = signers
            .iter()
            .enumerate()
            .map(|(index, signer)| {
                let message = vec![u8::try_from(index).unwrap(); 40];
                Check { key: signer.public_key(), signature: signer.sign(&message), message }
            })
            .collect();
        (verifier, checks)
    }

    #[test]
    fn batch_and_single_agree_on_every_damaged_signature() {
        let (verifier, good) = checks(5);
        assert!(verifier.verify_all(&good));
        for byte in 0..64 {
            let mut bad = good.clone();
            bad[2].signature.0[byte] ^= 0x20;
            let single = bad.iter().all(|c| verifier.verify(&c.key, &c.message, &c.signature));
            assert!(!single);
            assert_eq!(verifier.verify_all(&bad), single, "byte {byte}");
        }
    }

    #[test]
    fn batch_and_single_agree_on_small_order_points() {
        // Signatures whose R is one of the points of order dividing 8 and whose s is 0: cofactorless rules split
        // on such values, the cofactored one does not.
        let small_order = [
            [0u8; 32],
            {
                let mut one = [0; 32];
                one[0] = 1;
                one
            },
            {
                let mut minus_one = [0xff; 32];
                minus_one[0] = 0xec;
                minus_one[31] = 0x7f;
                minus_one
            },
        ];
        let (verifier, good) = checks(4);
        for point in small_order {
            let mut bad = good.clone();
            bad[1].signature.0[..32].copy_from_slice(&point);
            bad[1].signature.0[32..].fill(0);
            let single = bad.iter().all(|c| verifier.verify(&c.key, &c.message, &c.signature));
            assert_eq!(verifier.verify_all(&bad), single);
        }
    }

    #[test]
    fn adding_the_group_order_to_s_is_refused() {
        let (verifier, good) = checks(3);
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut bad = good.clone();
        let mut carry = 0u16;
        for (index, byte) in order.iter().enumerate() {
            let sum = u16::from(bad[0].signature.0[32 + index]) + u16::from(*byte) + carry;
            bad[0].signature.0[32 + index] = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert!(!verifier.verify(&bad[0].key, &bad[0].message, &bad[0].signature));
        assert!(!verifier.verify_all(&bad));
    }

    #[test]
    fn unknown_keys_are_refused_alone_and_in_a_batch() {
        let (_, good) = checks(4);
        let verifier = Ed25519Verifier::new(good[1..].iter().map(|c| c.key)).unwrap();
        assert!(!verifier.verify(&good[0].key, &good[0].message, &good[0].signature));
        assert!(!verifier.verify_all(&good));
    }
}
