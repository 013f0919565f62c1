//! Models as bodies: made, sent, checked.

use bytes::Bytes;
use dtwn_proto::{
    bus::{Class, NodeName},
    node::{self, Header, ModelHeader, NodeMessageError},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bus::{Bus, Key, Message};

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

/// The message that carries a model.
///
/// # Errors
/// When the header cannot be encoded.
pub fn message(round: u64, origin: &str, sent_at_ns: u64, body: &[u8]) -> Result<Bytes, NodeMessageError> {
    let digest = *blake3::hash(body).as_bytes();
    let header = ModelHeader { round, origin: origin.to_owned(), sent_at_ns, digest };
    node::encode(&Header::Model(header), body)
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
        let bytes = message(2, "bs1", 5, &one).unwrap();
        let (Header::Model(header), received) = node::decode(&bytes).unwrap() else { panic!() };
        check(&header, &received).unwrap();
        let mut damaged = received.to_vec();
        damaged[500] ^= 1;
        assert!(check(&header, &damaged).is_err());
    }
}
