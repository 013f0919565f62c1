//! The bus against peers and strangers that break the rules.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/proxy.rs"]
mod proxy;

use common::{config, name, pair, peer, receive, start_again, stats, until};
use dtwn_node::bus::{Bus, Delivery, Message, Receiver, Rejected, Timing};
use proxy::through_proxy;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeromq::util::PeerIdentity;
use zeromq::{DealerSocket, Socket, SocketOptions, SocketSend, ZmqMessage};

/// A ZMTP 3.0 NULL greeting and a DEALER's READY.
fn opening() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[0] = 0xFF;
    bytes[9] = 0x7F;
    bytes[10] = 3;
    bytes[12..16].copy_from_slice(b"NULL");
    let ready = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER";
    bytes.extend([4, ready.len() as u8]);
    bytes.extend(ready);
    bytes
}

fn long_frame(flags: u8, length: u64) -> Vec<u8> {
    [&[flags | 2][..], &length.to_be_bytes()].concat()
}

/// Sends raw bytes and waits until the other end has closed the connection.
async fn attack(target: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(target).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(common::PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the connection stays open after {bytes:?}");
}

async fn assert_traffic_flows(a: &Bus, from_a: &mut Receiver) {
    let ticket = a.send(&name("b"), Message::control("still here")).unwrap();
    assert_eq!(&receive(from_a).await.body[..], b"still here");
    assert_eq!(ticket.await, Delivery::Delivered);
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bytes_from_a_stranger_harm_the_node() {
    let ((a, _from_b), (b, mut from_a)) = pair().await;
    assert_traffic_flows(&a, &mut from_a).await;
    let target = b.local_addr().unwrap();
    let before = resident_kb();
    let oversized = [1 << 50, u64::MAX, 1 << 20, (1 << 63) - 1];
    for length in oversized {
        attack(target, &[opening(), long_frame(0, length)].concat()).await;
    }
    attack(target, &[&opening()[..64], &long_frame(4, 1 << 40)].concat()).await;
    let malformed = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xFF; 100_000],
        [opening(), vec![1, 5]].concat(),
        [opening(), vec![4, 3, 1, 2, 3]].concat(),
        [opening(), vec![0, 0]].concat(),
        [opening(), vec![0, 3, 1, 2, 3]].concat(),
        [opening(), long_frame(0, 400), vec![1; 400]].concat(),
    ];
    for bytes in &malformed {
        attack(target, bytes).await;
    }
    let expected = Rejected {
        malformed: malformed.len() as u64,
        oversized: oversized.len() as u64 + 1,
        ..Rejected::default()
    };
    until("every rejection", || b.stats().strangers == expected).await;
    assert_traffic_flows(&a, &mut from_a).await;
    assert!(resident_kb() < before + 65_536, "{before} kB grew to {} kB", resident_kb());
    assert_eq!(stats(&a, "b").control.connects, 1, "the peer's own connection was never touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_say_nothing_are_few_and_do_not_stay() {
    let mut listening = config("b", Some("127.0.0.1:0"), vec![peer("a", &[])]);
    listening.limits.strangers = 16;
    listening.timing.handshake = Duration::from_millis(300);
    let (b, mut from_a) = Bus::start(listening).await.unwrap();
    let target = b.local_addr().unwrap();
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(target).await.unwrap();
        let _ = stream.write_all(&opening()).await;
        idle.push(stream);
        assert!(b.stats().strangers_open <= 4, "a quarter for one address");
    }
    until("all strangers gone", || b.stats().strangers_open == 0).await;
    drop(idle);
    let (a, _from_b) = Bus::start(config("a", None, vec![peer("b", &[target])])).await.unwrap();
    assert_traffic_flows(&a, &mut from_a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_in_use_gives_nobody_anything() {
    let ((a, _from_b), (b, mut from_a)) = pair().await;
    assert_traffic_flows(&a, &mut from_a).await;
    let endpoint = format!("tcp://{}", b.local_addr().unwrap());
    let mut thieves = Vec::new();
    // The first control and bulk dials of `a` in its first incarnation are known to anyone on the path.
    for identity in ["a|65537|1", "a|65537|1", "a|65537|2"] {
        let mut options = SocketOptions::default();
        options.peer_identity(PeerIdentity::try_from(identity.as_bytes()).unwrap());
        let mut thief = DealerSocket::with_options(options);
        thief.connect(&endpoint).await.unwrap();
        assert_traffic_flows(&a, &mut from_a).await;
        thief.send(ZmqMessage::from(vec![7; 200])).await.unwrap();
        thieves.push(thief);
    }
    until("the thieves' rejection", || b.stats().strangers.malformed == 3).await;
    drop(thieves);
    assert_traffic_flows(&a, &mut from_a).await;
    assert_eq!(stats(&a, "b").control.connects, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impostors_and_unknown_nodes_get_nowhere() {
    let (b, mut from_a) = Bus::start(config("b", Some("127.0.0.1:0"), vec![peer("a", &[])])).await.unwrap();
    let target = b.local_addr().unwrap();
    let (unknown, _r) = Bus::start(config("c", None, vec![peer("b", &[target])])).await.unwrap();
    unknown.send(&name("b"), Message::control("let me in")).unwrap();
    let mut forged = config("a", None, vec![peer("b", &[target])]);
    forged.signing_key = common::key("not a");
    forged.boot = 99;
    let (impostor, _s) = Bus::start(forged).await.unwrap();
    impostor.send(&name("b"), Message::control("let me in")).unwrap();
    until("rejections", || b.stats().strangers.bad_signature >= 4).await;
    let (a, _from_b) = Bus::start(config("a", None, vec![peer("b", &[target])])).await.unwrap();
    assert_traffic_flows(&a, &mut from_a).await;
    assert!(!stats(&impostor, "b").control.connected && !stats(&unknown, "b").control.connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_answers_with_another_key_is_not_believed() {
    let mut forged = config("b", Some("127.0.0.1:0"), vec![peer("a", &[])]);
    forged.signing_key = common::key("not b");
    let (b, _r) = Bus::start(forged).await.unwrap();
    let (a, _s) = Bus::start(config("a", None, vec![peer("b", &[b.local_addr().unwrap()])])).await.unwrap();
    let ticket = a.send(&name("b"), Message::control("secret")).unwrap();
    until("a hello", || b.stats().strangers_open > 0 || stats(&b, "a").control.connects > 0).await;
    assert!(tokio::time::timeout(Duration::from_millis(500), ticket).await.is_err());
    assert!(!stats(&a, "b").control.connected && stats(&a, "b").control.rejected.bad_signature > 0);
    assert_eq!(stats(&b, "a").control.received, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_answers_with_absurd_lengths_harms_nobody() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, _r) =
        Bus::start(config("a", None, vec![peer("b", &[listener.local_addr().unwrap()])])).await.unwrap();
    let mut answer = opening();
    answer.extend(long_frame(0, 1 << 50));
    let answering = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = stream.write_all(&answer).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    until("refusals", || stats(&a, "b").control.rejected.oversized >= 5).await;
    assert!(!stats(&a, "b").control.connected);
    answering.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_connections_played_back_deliver_nothing_and_disturb_nobody() {
    let ((a, _from_b), (b, mut from_a), proxy) = through_proxy(Timing::default()).await;
    proxy.state.record.store(true, SeqCst);
    assert_traffic_flows(&a, &mut from_a).await;
    proxy.cut();
    assert_traffic_flows(&a, &mut from_a).await;
    let recorded = proxy.state.recorded.lock().unwrap().clone();
    let target = b.local_addr().unwrap();
    let before = stats(&b, "a").control.received;
    for bytes in recorded.iter().filter(|bytes| bytes.len() > 200) {
        attack(target, bytes).await;
    }
    let replayed = || {
        let peer = stats(&b, "a");
        peer.control.rejected.replayed + peer.bulk.rejected.replayed
    };
    until("replays noticed", || replayed() >= 2).await;
    assert_traffic_flows(&a, &mut from_a).await;
    assert_eq!(stats(&b, "a").control.received, before + 1);

    // A node that has restarted knows no dial yet; its fresh share still stops the frames.
    drop((a, b, from_a));
    let mut reborn = config("b", Some(&target.to_string()), vec![peer("a", &[])]);
    reborn.boot = 2;
    let (b, mut from_a) = start_again(reborn).await;
    for bytes in recorded.iter().filter(|bytes| bytes.len() > 200) {
        attack(target, bytes).await;
    }
    let forged = || stats(&b, "a").control.rejected.bad_signature;
    until("forgeries noticed", || forged() > 0).await;
    assert_eq!((stats(&b, "a").control.received, stats(&b, "a").control.connects), (0, 0));
    let (a, _from_b) = Bus::start(config("a", None, vec![peer("b", &[target])])).await.unwrap();
    assert_traffic_flows(&a, &mut from_a).await;
}

/// A TCP relay that repeats the last message of a connection once.
async fn repeat_last_frame(mut client: TcpStream, target: SocketAddr) {
    let mut server = TcpStream::connect(target).await.unwrap();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let forth = async {
        let mut buffer = vec![0; 65_536];
        let mut pieces = 0;
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            to_server.write_all(&buffer[..count]).await.unwrap();
            pieces += 1;
            // Greeting, READY and hello come first; from then on each small piece is one frame.
            if pieces > 4 && buffer[0] <= 2 {
                let _ = to_server.write_all(&buffer[..count]).await;
            }
        }
    };
    tokio::select! {
        () = forth => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_repeated_inside_a_connection_are_noticed_and_deliver_once() {
    let (b, mut from_a) = Bus::start(config("b", Some("127.0.0.1:0"), vec![peer("a", &[])])).await.unwrap();
    let target = b.local_addr().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let relays = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(repeat_last_frame(client, target));
        }
    });
    let (a, _from_b) = Bus::start(config("a", None, vec![peer("b", &[address])])).await.unwrap();
    for index in 0..20u8 {
        a.send(&name("b"), Message::control(vec![index])).unwrap();
        assert_eq!(receive(&mut from_a).await.body[..], [index]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(stats(&b, "a").control.rejected.replayed > 0, "{:?}", stats(&b, "a"));
    assert_eq!(stats(&b, "a").control.received, 20);
    relays.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_costs_a_bounded_queue() {
    // Accepts TCP and then does nothing at all.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut dialling = config("a", None, vec![peer("b", &[listener.local_addr().unwrap()])]);
    dialling.timing.handshake = Duration::from_millis(500);
    let (a, _r) = Bus::start(dialling).await.unwrap();
    let mut accepted = Vec::new();
    let mut refused = 0;
    let before = resident_kb();
    for _ in 0..40 {
        if let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await {
            accepted.push(connection);
        }
        for _ in 0..20 {
            refused += u32::from(a.send(&name("b"), Message::control(vec![0; 100_000])).is_err());
        }
    }
    assert!(refused > 700, "{refused} of 800 refused by a queue of 4 MiB");
    assert!(accepted.len() > 5, "dialled {} times", accepted.len());
    assert!(resident_kb() < before + 32_768, "{before} kB grew to {} kB", resident_kb());
}
