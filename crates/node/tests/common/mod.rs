//! Buses for tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use dtwn_node::bus::{
    Bus, BusConfig, Class, Incoming, Limits, NodeName, PeerConfig, PeerStats, Receiver, Timing,
};
use ed25519_dalek::SigningKey;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Far more than anything here takes on a busy machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// Each name has its key.
pub fn key(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

pub fn peer(name_: &str, dial: &[SocketAddr]) -> PeerConfig {
    PeerConfig { name: name(name_), key: key(name_).verifying_key(), dial: dial.to_vec() }
}

pub fn config(me: &str, listen: Option<&str>, peers: Vec<PeerConfig>) -> BusConfig {
    let epoch = Instant::now();
    BusConfig {
        me: name(me),
        boot: 1,
        signing_key: key(me),
        listen: listen.map(|address| address.parse().unwrap()),
        peers,
        limits: Limits::default(),
        timing: Timing::default(),
        seed: 1,
        clock: Arc::new(move || epoch.elapsed().as_nanos() as u64),
    }
}

/// `a` dials, `b` accepts.
pub async fn pair() -> ((Bus, Receiver), (Bus, Receiver)) {
    let b = Bus::start(config("b", Some("127.0.0.1:0"), vec![peer("a", &[])])).await.unwrap();
    let address = b.0.local_addr().unwrap();
    let a = Bus::start(config("a", None, vec![peer("b", &[address])])).await.unwrap();
    (a, b)
}

/// Starts a bus at an address that an earlier one has just given up; its listener closes a moment after it is dropped.
pub async fn start_again(config: BusConfig) -> (Bus, Receiver) {
    let end = Instant::now() + PATIENCE;
    loop {
        match Bus::start(config.clone()).await {
            Ok(started) => return started,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn receive(receiver: &mut Receiver) -> Incoming {
    tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("a message in time").expect("a running bus")
}

/// Waits for a condition by looking at it.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what} never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn stats(bus: &Bus, peer: &str) -> PeerStats {
    bus.stats().peers.into_iter().find(|(name, _)| name.as_str() == peer).expect("a known peer").1
}

pub async fn until_connected(bus: &Bus, peer: &str) {
    until("a connection", || Class::ALL.iter().all(|&class| stats(bus, peer).of(class).connected)).await;
}
