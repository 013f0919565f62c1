//! Loss, repetition, jitter, reordering, duplication, corruption.

use std::time::Duration;

use super::*;

#[test]
fn jitter_keeps_order_and_range() {
    let properties = LinkProperties {
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(5),
        ..LinkProperties::default()
    };
    let mut world = World::star(1, &properties);
    for i in 0..1000u64 {
        world.send(i * MS, 1, 0, i as u16, 100);
    }
    world.run(5000 * MS);
    let times = world.times();
    assert!(times.is_sorted());
    for (i, (due, _, packet)) in world.out.iter().enumerate() {
        assert_eq!(packet[20..22], (i as u16).to_be_bytes());
        assert!((10 * MS..=15 * MS).contains(&(due - i as u64 * MS)));
    }
    assert!(times.windows(2).any(|w| w[1] - w[0] != MS));
}

#[test]
fn reordering_holds_packets_back() {
    let properties =
        LinkProperties { delay: Duration::from_millis(10), reorder: 0.1, ..LinkProperties::default() };
    let mut world = World::star(1, &properties);
    for i in 0..1000u64 {
        world.send(i * MS, 1, 0, i as u16, 100);
    }
    world.run(5000 * MS);
    let ports: Vec<u16> = world.out.iter().map(|(_, _, p)| u16::from_be_bytes([p[20], p[21]])).collect();
    let reordered = world.link(0).reordered;
    assert!((60..140).contains(&reordered), "{reordered}");
    let late =
        world.out.iter().zip(&ports).filter(|((due, ..), port)| *due == u64::from(**port) * MS + 20 * MS);
    assert_eq!(late.count() as u64, reordered);
    assert!(!ports.is_sorted());
    assert_eq!(ports.len(), 1000);
}

#[test]
fn lost_packets_spend_their_airtime() {
    let properties = LinkProperties { loss: Loss::Bernoulli(1.0), ..rate(8e6) };
    let mut world = World::star(1, &properties);
    for _ in 0..10 {
        world.send(0, 1, 0, 1, 1000);
    }
    world.run(9 * MS + 1);
    let meters = world.link(0);
    assert_eq!((meters.drops.loss, meters.in_flight, meters.carried.packets), (9, 1, 9));
    assert_eq!(meters.busy_ns, 9 * MS + 1);
    world.patch(9 * MS + 1, 0, LinkPatch { loss: Some(Loss::None), ..LinkPatch::default() });
    world.run(100 * MS);
    assert_eq!(world.times(), [10 * MS]);
}

#[test]
fn arq_turns_loss_into_delay_and_airtime() {
    let arq = Some(Arq { attempts_max: 20, turnaround: Duration::from_millis(1) });
    let properties = LinkProperties { loss: Loss::Bernoulli(0.5), arq, ..rate(8e6) };
    let mut world = World::star(1, &properties);
    for port in 0..500 {
        world.send(0, 1, 0, port, 1000);
    }
    world.run(u64::MAX / 4);
    let meters = world.link(0);
    assert_eq!(world.out.len(), 500);
    assert!((400..600).contains(&meters.retransmitted), "{}", meters.retransmitted);
    assert_eq!(meters.carried.packets, 500 + meters.retransmitted);
    assert_eq!(meters.busy_ns, meters.carried.packets * MS);
    let last = (meters.carried.packets + meters.retransmitted) * MS;
    assert_eq!(world.times().last(), Some(&last));
    // The turnaround is not held against the transmitter.
    assert!((meters.backlogged_bytes / meters.backlogged_capacity_bytes - 1.0).abs() < 1e-6);
}

#[test]
fn arq_gives_up_after_its_attempts() {
    for rate_bps in [Some(8e6), None] {
        let arq = Some(Arq { attempts_max: 3, turnaround: Duration::ZERO });
        let properties =
            LinkProperties { rate_bps, loss: Loss::Bernoulli(1.0), arq, ..LinkProperties::default() };
        let mut world = World::star(1, &properties);
        for _ in 0..7 {
            world.send(0, 1, 0, 1, 1000);
        }
        world.run(1000 * MS);
        let meters = world.link(0);
        assert_eq!((meters.drops.loss, meters.carried.packets, meters.in_flight), (7, 21, 0));
    }
}

#[test]
fn duplicates_arrive_twice_and_are_accounted() {
    let properties =
        LinkProperties { duplicate: 1.0, delay: Duration::from_millis(1), ..LinkProperties::default() };
    let mut world = World::star(2, &properties);
    world.send(0, 1, 2, 1, 1000);
    world.run(10 * MS);
    assert_eq!(world.times(), [2 * MS; 4]);
    let totals = world.totals();
    assert_eq!(
        (totals.read.packets, totals.duplicated, totals.written.packets, totals.in_flight),
        (1, 3, 4, 0)
    );
    let mut wire = World::star(2, &LinkProperties { duplicate: 1.0, ..LinkProperties::default() });
    wire.send(0, 1, 2, 1, 1000);
    assert_eq!(wire.times(), [0; 4]);
}

#[test]
fn corruption_flips_one_payload_bit() {
    let properties = LinkProperties { corrupt: 1.0, ..LinkProperties::default() };
    let mut world = World::star(1, &properties);
    let sent = udp(address(1), address(0), 9, 200);
    for _ in 0..100 {
        world.send_bytes(0, 1, &sent);
    }
    for (_, _, got) in &world.out {
        assert_eq!(got[..20], sent[..20]);
        assert_eq!(got.iter().zip(&sent).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>(), 1);
    }
    assert_eq!((world.out.len(), world.link(0).corrupted), (100, 100));
}
