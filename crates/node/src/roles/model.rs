//! Models as bodies: made, signed, sent, checked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use dtwn_proto::{
    bus::{Class, NodeName},
    node::{self, Header, ModelHeader, NodeMessageError},
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bus::{Bus, BusError, Context, Key, Message};

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

/// Sends models as soon as there is room for them in a peer's queue. For room waits one message of an origin and peer at most, the newest,
/// so that a peer that does not read costs a bounded amount of memory. Clones are the same.
#[derive(Clone)]
pub struct Courier {
    bus: Bus,
    waiting: Arc<Mutex<HashMap<(NodeName, Key), Bytes>>>,
}

impl Courier {
    /// Over this bus.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), waiting: Arc::default() }
    }

    /// Queues a model for a peer as soon as there is room, on a task of its own; an older model of the same origin that still
    /// waits gives way.
    pub fn send(&self, peer: NodeName, origin: &str, message: Bytes) {
        let place = (peer, key_of(origin));
        if self.waiting().insert(place.clone(), message).is_some() {
            // The task that waited with the older one sends this.
            return;
        }
        let courier = self.clone();
        tokio::spawn(async move {
            if let Err(error) = courier.carry(&place).await {
                courier.waiting().remove(&place);
                tracing::warn!(peer = %place.0, %error, "a model was not sent");
            }
        });
    }

    async fn carry(&self, place: &(NodeName, Key)) -> Result<(), BusError> {
        loop {
            let Some(bytes) = self.waiting().get(place).map(Bytes::len) else { return Ok(()) };
            let room = self.bus.reserve(&place.0, Class::Bulk, bytes).await?;
            let mut waiting = self.waiting();
            let fits = |message: &Bytes| message.len() <= bytes;
            if waiting.get(place).is_some_and(fits)
                && let Some(message) = waiting.remove(place)
            {
                return room.send(Message::bulk(message).superseding(place.1)).map(drop);
            }
            // A longer one took its place meanwhile, and needs more room.
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<(NodeName, Key), Bytes>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::*;
    use crate::bus::{BusConfig, Limits, PeerConfig, Receiver, Timing};

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

    /// A bus that knows one peer, whose key is the next; a queue takes one message of 800 bytes.
    async fn bus(me: u8, peer: u8, dial: Vec<SocketAddr>) -> (Bus, Receiver) {
        let name = |seed: u8| NodeName::new(&format!("bs{seed}")).unwrap();
        let mut limits = Limits::default();
        (limits.bulk.message_bytes, limits.bulk.queue_bytes) = (1000, 1000);
        let config = BusConfig {
            me: name(me),
            boot: 1,
            signing_key: key(me),
            listen: Some(([127, 0, 0, 1], 0).into()),
            peers: vec![PeerConfig { name: name(peer), key: key(peer).verifying_key(), dial }],
            limits,
            timing: Timing::default(),
            seed: 1,
            clock: Arc::new(|| 0),
        };
        Bus::start(config).await.unwrap()
    }

    #[tokio::test]
    async fn for_a_peer_that_does_not_read_the_newest_message_of_each_origin_waits_and_no_other() {
        let (sender, _nothing) = bus(1, 2, Vec::new()).await;
        let courier = Courier::new(&sender);
        let peer = || NodeName::new("bs2").unwrap();
        courier.send(peer(), "mbs", vec![0; 800].into());
        // What was sent first is in the queue, and fills it.
        while !courier.waiting().is_empty() {
            tokio::task::yield_now().await;
        }
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        for number in 1..=100 {
            // A longer one needs more room than the one whose place it takes.
            let length = if number > 50 { 900 } else { 800 };
            courier.send(peer(), "bs3", vec![number; length].into());
            courier.send(peer(), "bs4", vec![100 + number; length].into());
            tokio::task::yield_now().await;
        }
        let held: usize = courier.waiting().values().map(Bytes::len).sum();
        assert_eq!((courier.waiting().len(), held, tasks() - before), (2, 1800, 2));

        let (_reader, mut received) = bus(2, 1, vec![sender.local_addr().unwrap()]).await;
        let mut firsts = Vec::new();
        while firsts.len() < 3 {
            let incoming = tokio::time::timeout(Duration::from_secs(60), received.recv());
            firsts.push(incoming.await.unwrap().unwrap().body[0]);
        }
        firsts.sort_unstable();
        assert_eq!(firsts, [0, 100, 200]);
        assert!(courier.waiting().is_empty());
        // A peer that is not known costs nothing.
        courier.send(NodeName::new("bs9").unwrap(), "bs3", vec![0; 800].into());
        while !courier.waiting().is_empty() {
            tokio::task::yield_now().await;
        }
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
