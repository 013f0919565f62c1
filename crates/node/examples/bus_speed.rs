//! Throughput and latency of the bus over loopback, beside those of bare ZeroMQ sockets.
//!
//! `cargo run --release -p dtwn-node --example bus_speed`
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot go on may stop")]

use dtwn_node::bus::{Bus, BusConfig, Class, Limits, Message, NodeName, PeerConfig, Receiver, Timing};
use ed25519_dalek::SigningKey;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeromq::{DealerSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

const SMALL_BYTES: usize = 512;
const SMALL_COUNT: usize = 100_000;
const LARGE_BYTES: usize = 8 << 20;
const LARGE_COUNT: usize = 40;
const ECHOES: usize = 5_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

async fn start(me: &str, listen: bool, other: &str, dial: Vec<SocketAddr>) -> (Bus, Receiver) {
    let epoch = Instant::now();
    let seed = |name: &str| name.as_bytes()[0];
    let peer =
        PeerConfig { name: NodeName::new(other).unwrap(), key: key(seed(other)).verifying_key(), dial };
    let config = BusConfig {
        me: NodeName::new(me).unwrap(),
        boot: 1,
        signing_key: key(seed(me)),
        listen: listen.then(|| "127.0.0.1:0".parse().unwrap()),
        peers: vec![peer],
        limits: Limits::default(),
        timing: Timing::default(),
        seed: 1,
        clock: Arc::new(move || epoch.elapsed().as_nanos() as u64),
    };
    Bus::start(config).await.unwrap()
}

async fn flood(
    bus: &Bus,
    to: &NodeName,
    receiver: &mut Receiver,
    message: Message,
    count: usize,
) -> Duration {
    let started = Instant::now();
    let (sender, to) = (bus.clone(), to.clone());
    let sending = tokio::spawn(async move {
        for _ in 0..count {
            let room = sender.reserve(&to, message.class, message.body.len()).await.unwrap();
            room.send(message.clone()).unwrap();
        }
    });
    for _ in 0..count {
        receiver.recv().await.unwrap();
    }
    sending.await.unwrap();
    started.elapsed()
}

fn report_latency(what: &str, mut samples: Vec<Duration>) {
    samples.sort();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    println!("{what}: echo of {SMALL_BYTES} B p50 {:?}, p99 {:?}", at(0.5), at(0.99));
}

async fn measure_bus() {
    let (b, mut from_a) = start("b", true, "a", vec![]).await;
    let (a, mut from_b) = start("a", false, "b", vec![b.local_addr().unwrap()]).await;
    let (to_a, to_b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
    let small = Message::control(vec![1; SMALL_BYTES]);
    let mut samples = Vec::new();
    for _ in 0..ECHOES {
        let sent = Instant::now();
        a.send(&to_b, small.clone()).unwrap();
        let request = from_a.recv().await.unwrap();
        b.send(&to_a, Message::control(request.body)).unwrap();
        from_b.recv().await.unwrap();
        samples.push(sent.elapsed());
    }
    report_latency("bus", samples);
    let took = flood(&a, &to_b, &mut from_a, small, SMALL_COUNT).await;
    println!("bus: {:.0} messages/s of {SMALL_BYTES} B", SMALL_COUNT as f64 / took.as_secs_f64());
    let large = Message { class: Class::Bulk, ..Message::control(vec![1; LARGE_BYTES]) };
    let took = flood(&a, &to_b, &mut from_a, large, LARGE_COUNT).await;
    println!(
        "bus: {:.0} MB/s in messages of 8 MiB",
        (LARGE_BYTES * LARGE_COUNT) as f64 / took.as_secs_f64() / 1e6
    );
}

async fn raw_flood(
    dealer: &mut DealerSocket,
    router: &mut RouterSocket,
    bytes: usize,
    count: usize,
) -> Duration {
    let started = Instant::now();
    let body = bytes::Bytes::from(vec![1; bytes]);
    let sending = async {
        for _ in 0..count {
            dealer.send(ZmqMessage::from(body.clone())).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let receiving = async {
        for _ in 0..count {
            router.recv().await.unwrap();
        }
    };
    tokio::join!(sending, receiving);
    started.elapsed()
}

async fn measure_raw() {
    let mut router = RouterSocket::new();
    let endpoint = router.bind("tcp://127.0.0.1:0").await.unwrap();
    let mut dealer = DealerSocket::new();
    dealer.connect(&endpoint.to_string()).await.unwrap();
    let body = bytes::Bytes::from(vec![1; SMALL_BYTES]);
    let mut samples = Vec::new();
    for _ in 0..ECHOES {
        let sent = Instant::now();
        dealer.send(ZmqMessage::from(body.clone())).await.unwrap();
        let request = router.recv().await.unwrap();
        router.send(request).await.unwrap();
        dealer.recv().await.unwrap();
        samples.push(sent.elapsed());
    }
    report_latency("bare zeromq", samples);
    let took = raw_flood(&mut dealer, &mut router, SMALL_BYTES, SMALL_COUNT).await;
    println!("bare zeromq: {:.0} messages/s of {SMALL_BYTES} B", SMALL_COUNT as f64 / took.as_secs_f64());
    let took = raw_flood(&mut dealer, &mut router, LARGE_BYTES, LARGE_COUNT).await;
    println!(
        "bare zeromq: {:.0} MB/s in messages of 8 MiB",
        (LARGE_BYTES * LARGE_COUNT) as f64 / took.as_secs_f64() / 1e6
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    measure_bus().await;
    measure_raw().await;
}
