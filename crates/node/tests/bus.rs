//! The bus over loopback: what it promises when nothing goes wrong, and its bounds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{config, name, pair, peer, receive, stats, until, until_connected};
use dtwn_node::bus::{Bus, BusError, Class, Delivery, Key, Message};

fn body(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 31 + seed * 7) % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_both_classes_arrive_whole_and_in_order_in_both_directions() {
    let ((a, mut from_b), (b, mut from_a)) = pair().await;
    let lengths = [0, 1, 512, 65_536, 65_537, 700_000];
    for class in Class::ALL {
        for (bus, to, source, receiver) in [(&a, "b", "a", &mut from_a), (&b, "a", "b", &mut from_b)] {
            let message = |index: usize| Message { class, ..Message::control(body(lengths[index], index)) };
            let mut tickets = Vec::new();
            for index in 0..lengths.len() {
                tickets.push(bus.send(&name(to), message(index)).unwrap());
            }
            for (index, &length) in lengths.iter().enumerate() {
                let incoming = receive(receiver).await;
                assert_eq!((incoming.from.as_str(), incoming.class), (source, class));
                assert_eq!(incoming.body, body(length, index), "{class}, {length} bytes to {to}");
            }
            for ticket in tickets {
                assert_eq!(ticket.await, Delivery::Delivered);
            }
            let counted = *stats(bus, to).of(class);
            assert_eq!((counted.sent, counted.acked, counted.queue_bytes), (6, 6, 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_both_dial_have_connections_of_their_own_in_each_direction() {
    let (a, mut from_b) = Bus::start(config("a", Some("127.0.0.1:0"), vec![])).await.unwrap();
    let (b, mut from_a) = Bus::start(config("b", Some("127.0.0.1:0"), vec![])).await.unwrap();
    a.add_peer(peer("b", &[b.local_addr().unwrap()])).unwrap();
    b.add_peer(peer("a", &[a.local_addr().unwrap()])).unwrap();
    for round in 0..100u32 {
        a.send(&name("b"), Message::control(round.to_be_bytes().to_vec())).unwrap();
        b.send(&name("a"), Message::bulk(round.to_be_bytes().to_vec())).unwrap();
    }
    for round in 0..100u32 {
        assert_eq!(&receive(&mut from_a).await.body[..], round.to_be_bytes());
        assert_eq!(&receive(&mut from_b).await.body[..], round.to_be_bytes());
    }
    until_connected(&a, "b").await;
    until_connected(&b, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misuse_is_refused_with_the_reason() {
    let ((a, _from_b), _b) = pair().await;
    assert!(matches!(a.send(&name("c"), Message::control("x")), Err(BusError::UnknownPeer(_))));
    let long = vec![0; (1 << 20) + 1];
    assert!(matches!(a.send(&name("b"), Message::control(long)), Err(BusError::TooLong { .. })));
    let reservation = a.reserve(&name("b"), Class::Bulk, 10).await.unwrap();
    assert!(matches!(reservation.send(Message::bulk(vec![0; 11])), Err(BusError::Reservation { .. })));
    assert!(matches!(a.add_peer(peer("b", &[])), Err(BusError::Unreachable(_))));
    assert!(matches!(
        a.add_peer(peer("b", &["127.0.0.1:1".parse().unwrap()])),
        Err(BusError::DuplicatePeer(_))
    ));
    let mut bad = config("c", None, vec![]);
    bad.limits.bulk.queue_bytes = 10;
    assert!(matches!(Bus::start(bad).await.map(|_| ()), Err(BusError::Limits(_))));
    let taken = _b.0.local_addr().unwrap().to_string();
    let listen = Bus::start(config("c", Some(&taken), vec![])).await;
    assert!(matches!(listen.map(|_| ()), Err(BusError::Listen { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nobody_listens_newer_messages_supersede_older_ones() {
    let (a, _from_b) =
        Bus::start(config("a", None, vec![peer("b", &["127.0.0.1:1".parse().unwrap()])])).await.unwrap();
    let first = a.send(&name("b"), Message::control("old").superseding(Key(7))).unwrap();
    let other = a.send(&name("b"), Message::control("other").superseding(Key(8))).unwrap();
    let second = a.send(&name("b"), Message::control("new").superseding(Key(7))).unwrap();
    assert_eq!(first.await, Delivery::Superseded);
    a.remove_peer(&name("b")).unwrap();
    assert_eq!((other.await, second.await), (Delivery::Abandoned, Delivery::Abandoned));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_removed_and_added_again_starts_anew() {
    let ((a, _from_b), (b, mut from_a)) = pair().await;
    for round in 0..5u8 {
        assert_eq!(a.send(&name("b"), Message::control(vec![round])).unwrap().await, Delivery::Delivered);
        assert_eq!(receive(&mut from_a).await.body[..], [round]);
        a.remove_peer(&name("b")).unwrap();
        a.add_peer(peer("b", &[b.local_addr().unwrap()])).unwrap();
    }
    until("a connection", || stats(&a, "b").control.connected).await;
}
