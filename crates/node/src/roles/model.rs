//! Models as bodies: made, signed, sent, checked.

use bytes::Bytes;
use dtwn_proto::{
    bus::{Class, NodeName},
    node::{self, Header, ModelHeader, NodeMessageError},
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bus::{Bus, Context, Key, Message};

/// Only the newest model of an origin is worth sending: one key an origin.
fn key_of(origin: &str) -> Key {
    let digest = blake3::hash(origin.as_bytes());
    Key(u64::from_le_bytes(*digest.as_bytes().first_chunk().unwrap_or(&[0; 8])))
}

/// A model-sized body for a round, the same for the same seed, round and origin. Random bytes: nothing on the way can
/// compress or cache them.
pub fn body(seed: u64, round: u64, origin: &str, bytes: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("dtwn model-sized body v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&round.to_le_bytes());
    hasher.update(origin.as_bytes());
    let mut random = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
    let mut body = vec![0; bytes];
    random.fill_bytes(&mut body);
    body
}

/// The message that carries a model, signed with the key of its origin.
///
/// # Errors
/// When the header cannot be encoded.
pub fn message(
    key: &SigningKey,
    round: u64,
    origin: &str,
    sent_at_ns: u64,
    body: &[u8],
) -> Result<Bytes, NodeMessageError> {
    let digest = *blake3::hash(body).as_bytes();
    let mut header =
        ModelHeader { round, origin: origin.to_owned(), sent_at_ns, digest, signature: Default::default() };
    let signature = Context::model().sign(&signed_part(&header), key);
    let halves = signature.as_chunks::<32>().0.iter();
    header.signature.iter_mut().zip(halves).for_each(|(half, of)| *half = *of);
    node::encode(&Header::Model(header), body)
}

/// What the origin signs: all of the header. The time is in it because figures of the air are taken from it, and whoever passes a model on
/// is not to have a say in them.
fn signed_part(header: &ModelHeader) -> Vec<u8> {
    let mut part = Vec::with_capacity(48 + header.origin.len());
    part.extend_from_slice(&header.round.to_le_bytes());
    part.extend_from_slice(&header.sent_at_ns.to_le_bytes());
    part.extend_from_slice(&header.digest);
    // Last, as the only part whose length varies.
    part.extend_from_slice(header.origin.as_bytes());
    part
}

/// Whether a header is signed with this key.
pub fn is_signed(header: &ModelHeader, key: &VerifyingKey) -> bool {
    let mut signature = [0; 64];
    signature.as_chunks_mut::<32>().0.copy_from_slice(&header.signature);
    Context::model().is_signed(&signed_part(header), &signature, key)
}

/// Checks that a body is the one that its header describes.
///
/// # Errors
/// [`NodeMessageError::Digest`].
pub fn check(header: &ModelHeader, body: &[u8]) -> Result<(), NodeMessageError> {
    match *blake3::hash(body).as_bytes() == header.digest {
        true => Ok(()),
        false => Err(NodeMessageError::Digest),
    }
}

/// Queues a model for a peer as soon as there is room, on a task of its own; an older model of the same origin that still
/// waits gives way.
pub fn send(bus: &Bus, peer: NodeName, origin: &str, message: Bytes) {
    let (bus, key) = (bus.clone(), key_of(origin));
    tokio::spawn(async move {
        let sent = match bus.reserve(&peer, Class::Bulk, message.len()).await {
            Ok(room) => room.send(Message::bulk(message).superseding(key)).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!(%peer, %error, "a model was not sent");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_repeatable_and_checked() {
        let one = body(1, 2, "bs1", 1000);
        assert_eq!(one, body(1, 2, "bs1", 1000));
        assert_ne!(one, body(1, 3, "bs1", 1000));
        let bytes = message(&key(1), 2, "bs1", 5, &one).unwrap();
        let (Header::Model(header), received) = node::decode(&bytes).unwrap() else { panic!() };
        check(&header, &received).unwrap();
        let mut damaged = received.to_vec();
        damaged[500] ^= 1;
        assert!(check(&header, &damaged).is_err());
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn a_header_bears_its_origins_signature_on_all_that_it_says() {
        let bytes = message(&key(1), 2, "bs1", 5, b"model").unwrap();
        let (Header::Model(header), _) = node::decode(&bytes).unwrap() else { panic!() };
        let signer = key(1).verifying_key();
        assert!(is_signed(&header, &signer));
        assert!(!is_signed(&header, &key(2).verifying_key()));
        let changes: [fn(&mut ModelHeader); 6] = [
            |header| header.round += 1,
            |header| header.origin.push('1'),
            |header| header.sent_at_ns += 1,
            |header| header.digest[31] ^= 1,
            |header| header.signature[0][0] ^= 1,
            |header| header.signature[1][0] ^= 1,
        ];
        for change in changes {
            let mut changed = header.clone();
            change(&mut changed);
            assert!(!is_signed(&changed, &signer), "{changed:?}");
        }
    }
}
