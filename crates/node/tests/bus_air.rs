//! The bus between two network namespaces, over the air medium: outages and loss.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/air.rs"]
mod air;
mod common;

use air::{A, Air, B};
use common::{PATIENCE, config, name, peer};
use dtwn_air::{LinkPatch, LinkProperties, Loss};
use dtwn_node::bus::{Bus, Class, Delivery, Message, PeerStats, Receiver, Ticket};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const PORT: u16 = 7000;

/// Each end dials the other, as base stations do.
fn start(air: &Air) -> ((Bus, Receiver), (Bus, Receiver)) {
    let address = |ip| SocketAddr::new(std::net::IpAddr::V4(ip), PORT);
    let bus = |runtime: &tokio::runtime::Runtime, me: &'static str, here, other: &'static str, there| {
        let mut configured = config(me, None, vec![peer(other, &[address(there)])]);
        configured.listen = Some(address(here));
        // Spawned, so that it runs on the thread that is in the namespace.
        runtime.block_on(runtime.spawn(Bus::start(configured))).unwrap().unwrap()
    };
    (bus(&air.a, "a", A, "b", B), bus(&air.b, "b", B, "a", A))
}

/// Passes on when each message arrived, with its number.
fn watch(air: &Air, mut receiver: Receiver) -> mpsc::Receiver<(Instant, Class, u32)> {
    let (arrived, arrivals) = mpsc::channel();
    air.b.spawn(async move {
        while let Some(incoming) = receiver.recv().await {
            let number = u32::from_be_bytes(incoming.body[..4].try_into().unwrap());
            if arrived.send((Instant::now(), incoming.class, number)).is_err() {
                break;
            }
        }
    });
    arrivals
}

fn numbered(class: Class, number: u32, bytes: usize) -> Message {
    let mut body = vec![0; bytes.max(4)];
    body[..4].copy_from_slice(&number.to_be_bytes());
    Message { class, ..Message::control(body) }
}

fn link() -> LinkProperties {
    LinkProperties { rate_bps: Some(100e6), delay: Duration::from_millis(5), ..LinkProperties::default() }
}

fn stats(bus: &Bus, other: &str) -> PeerStats {
    common::stats(bus, other)
}

fn wait(air: &Air, ticket: Ticket) -> Delivery {
    let waiting = air.a.spawn(async move { tokio::time::timeout(PATIENCE, ticket).await });
    air.a.block_on(waiting).unwrap().expect("an outcome in time")
}

/// Takes the link down for `outage` while control messages are sent, and returns how long after its return the first one
/// of each class arrived.
fn resumption(outage: Duration) -> [Duration; 2] {
    let air = Air::new(&link());
    let ((a, _from_b), (_b, from_a)) = start(&air);
    let arrivals = watch(&air, from_a);
    for class in Class::ALL {
        let ticket = a.send(&name("b"), numbered(class, 0, 4)).unwrap();
        assert_eq!(wait(&air, ticket), Delivery::Delivered);
    }
    air.change(&LinkPatch { up: Some(false), ..LinkPatch::default() });
    let down = Instant::now();
    let mut tickets = Vec::new();
    let mut number = 1;
    while down.elapsed() < outage {
        tickets.push(a.send(&name("b"), numbered(Class::Control, number, 200)).unwrap());
        if number == 1 {
            tickets.push(a.send(&name("b"), numbered(Class::Bulk, 1, 500_000)).unwrap());
        }
        number += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    let early = arrivals.try_iter().filter(|&(at, _, number)| at > down && number > 0).count();
    assert_eq!(early, 0, "nothing passes a link that is down");
    let up = Instant::now();
    air.change(&LinkPatch { up: Some(true), ..LinkPatch::default() });
    let mut first = [None; 2];
    let mut next = 1;
    while next < number || first[1].is_none() {
        let (at, class, arrived) = arrivals.recv_timeout(PATIENCE).expect("traffic after the link's return");
        first[class.index()].get_or_insert(at - up);
        if class == Class::Control {
            assert_eq!(arrived, next, "in order and once");
            next += 1;
        }
    }
    for ticket in tickets {
        assert_eq!(wait(&air, ticket), Delivery::Delivered);
    }
    first.map(Option::unwrap)
}

#[test]
fn traffic_flows_again_after_an_outage() {
    for outage_ms in [300, 1_000, 4_000] {
        let [control, bulk] = resumption(Duration::from_millis(outage_ms));
        println!("outage of {outage_ms} ms: control after {control:?}, bulk after {bulk:?}");
    }
}

#[test]
#[ignore = "half a minute and more; the short outages take the same way"]
fn traffic_flows_again_after_half_a_minute() {
    let [control, bulk] = resumption(Duration::from_secs(30));
    println!("outage of 30 s: control after {control:?}, bulk after {bulk:?}");
}

#[test]
fn at_a_fifth_of_packets_lost_everything_acknowledged_arrives_once_and_in_order() {
    let air = Air::new(&LinkProperties { loss: Loss::Bernoulli(0.2), ..link() });
    let ((a, _from_b), (b, from_a)) = start(&air);
    let arrivals = watch(&air, from_a);
    let count = 100;
    let mut tickets = Vec::new();
    let mut sent = Vec::new();
    for number in 0..count {
        sent.push(Instant::now());
        tickets.push(a.send(&name("b"), numbered(Class::Control, number, 512)).unwrap());
        if number % 25 == 0 {
            tickets.push(a.send(&name("b"), numbered(Class::Bulk, number / 25, 100_000)).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut next = [0, 0];
    let mut delays = Vec::new();
    while next != [count, count / 25] {
        let (at, class, number) = arrivals.recv_timeout(PATIENCE).expect("a message in time");
        assert_eq!(number, next[class.index()], "{class}");
        next[class.index()] += 1;
        if class == Class::Control {
            delays.push(at - sent[number as usize]);
        }
    }
    for ticket in tickets {
        assert_eq!(wait(&air, ticket), Delivery::Delivered);
    }
    delays.sort();
    let (mine, theirs) = (stats(&a, "b"), stats(&b, "a"));
    println!("20 % loss: p50 {:?}, p90 {:?}, last {:?}", delays[50], delays[90], delays[99]);
    println!("sender: {mine:?}");
    assert_eq!(theirs.control.received, u64::from(count));
}
