//! The bus when connections, processes and applications fail.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/proxy.rs"]
mod proxy;

use common::{PATIENCE, config, name, peer, receive, start_again, stats, until, until_connected};
use dtwn_node::bus::{Bus, BusError, Class, Delivery, Incoming, Message, Ticket, Timing};
use proxy::through_proxy;
use std::time::Duration;

fn number(incoming: &Incoming) -> u32 {
    u32::from_be_bytes(incoming.body[..4].try_into().unwrap())
}

fn numbered(number: u32, bytes: usize) -> Vec<u8> {
    let mut body = vec![number as u8; bytes.max(4)];
    body[..4].copy_from_slice(&number.to_be_bytes());
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_again_and_again_lose_repeat_and_reorder_nothing() {
    let ((a, _from_b), (b, mut from_a), proxy) = through_proxy(Timing::default()).await;
    let (count, bytes) = (60u32, 400_000);
    let sending = tokio::spawn(async move {
        let mut tickets: Vec<Ticket> = Vec::new();
        for index in 0..count {
            a.send(&name("b"), Message::control(numbered(index, 100))).unwrap();
            let room = a.reserve(&name("b"), Class::Bulk, bytes).await.unwrap();
            tickets.push(room.send(Message::bulk(numbered(index, bytes))).unwrap());
        }
        for ticket in tickets {
            assert_eq!(ticket.await, Delivery::Delivered);
        }
        a
    });
    let mut next = [0u32; 2];
    while next != [count; 2] {
        let incoming = receive(&mut from_a).await;
        let class = incoming.class.index();
        assert_eq!(number(&incoming), next[class], "{}", incoming.class);
        if incoming.class == Class::Bulk {
            assert_eq!(incoming.body, numbered(next[class], bytes));
            if next[class] % 4 == 0 {
                proxy.cut();
            }
        }
        next[class] += 1;
    }
    let a = tokio::time::timeout(PATIENCE, sending).await.unwrap().unwrap();
    assert!(stats(&a, "b").bulk.connects > 2, "the proxy did cut: {:?}", stats(&a, "b").bulk);
    assert_eq!(stats(&b, "a").bulk.received, u64::from(count));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_silent_is_replaced_and_traffic_goes_on() {
    let ((a, _from_b), (_b, mut from_a), proxy) = through_proxy(Timing::default()).await;
    until_connected(&a, "b").await;
    for index in 0..10 {
        proxy.silence(true);
        let before = proxy.connections();
        let ticket = a.send(&name("b"), Message::control(numbered(index, 10))).unwrap();
        until("another dial", || proxy.connections() > before).await;
        proxy.silence(false);
        assert_eq!(number(&receive(&mut from_a).await), index);
        assert_eq!(ticket.await, Delivery::Delivered);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_killed_and_restarted_gets_what_it_had_not_acknowledged() {
    let (b, mut from_a) = Bus::start(config("b", Some("127.0.0.1:0"), vec![peer("a", &[])])).await.unwrap();
    let address = b.local_addr().unwrap();
    let (a, mut from_b) = Bus::start(config("a", None, vec![peer("b", &[address])])).await.unwrap();
    let acked = a.send(&name("b"), Message::control(numbered(1, 4))).unwrap();
    assert_eq!(acked.await, Delivery::Delivered);
    assert_eq!(number(&receive(&mut from_a).await), 1);
    drop((b, from_a));
    let waiting = a.send(&name("b"), Message::control(numbered(2, 4))).unwrap();
    let model = a.send(&name("b"), Message::bulk(numbered(3, 3_000_000))).unwrap();
    let mut reborn = config("b", Some(&address.to_string()), vec![peer("a", &[])]);
    reborn.boot = 2;
    let (b, mut from_a) = start_again(reborn).await;
    let mut numbers = [number(&receive(&mut from_a).await), number(&receive(&mut from_a).await)];
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3], "and not the first, which was acknowledged");
    assert_eq!((waiting.await, model.await), (Delivery::Delivered, Delivery::Delivered));

    // The side that dials dies as well: the other, which can only wait, delivers to its next incarnation.
    drop((a, from_b));
    let waiting = b.send(&name("a"), Message::control(numbered(4, 4))).unwrap();
    let mut reborn = config("a", None, vec![peer("b", &[address])]);
    reborn.boot = 2;
    let a = start_again(reborn).await;
    from_b = a.1;
    assert_eq!(number(&receive(&mut from_b).await), 4);
    assert_eq!(waiting.await, Delivery::Delivered);
    a.0.send(&name("b"), Message::control(numbered(5, 4))).unwrap();
    assert_eq!(number(&receive(&mut from_a).await), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_never_reads_fills_the_queue_and_nothing_else() {
    for class in Class::ALL {
        let ((a, _from_b), (b, mut from_a), _proxy) = through_proxy(Timing::default()).await;
        let bytes = 500_000;
        let mut tickets = Vec::new();
        let refusal = loop {
            match a.send(
                &name("b"),
                Message { class, ..Message::control(numbered(tickets.len() as u32, bytes)) },
            ) {
                Ok(ticket) => tickets.push(ticket),
                Err(refusal) => {
                    // What the peer's inbox takes leaves the queue; only when that is full does the queue stay full.
                    let before = stats(&b, "a").of(class).received;
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    if stats(&b, "a").of(class).received == before {
                        break refusal;
                    }
                }
            }
        };
        assert!(matches!(refusal, BusError::Full { .. }), "{refusal}");
        let limits = dtwn_node::bus::Limits::default();
        let most = limits.of(class).inbox_bytes + limits.of(class).queue_bytes;
        assert!(tickets.len() * bytes <= most, "{} messages accepted", tickets.len());
        assert!(stats(&a, "b").of(class).connected, "a slow application is not a dead peer");
        for index in 0..tickets.len() as u32 {
            assert_eq!(number(&receive(&mut from_a).await), index);
        }
        for ticket in tickets {
            assert_eq!(ticket.await, Delivery::Delivered);
        }
    }
}
