//! Queue bounds, drops and what the counters say.

use std::time::Duration;

use super::*;

#[test]
fn the_queue_bound_follows_rate_and_delay() {
    let auto = |rate_bps, delay_ms| {
        let properties = LinkProperties {
            rate_bps: Some(rate_bps),
            delay: Duration::from_millis(delay_ms),
            ..LinkProperties::default()
        };
        World::star(1, &properties).link(0).queue_limit_bytes
    };
    assert_eq!(auto(100e6, 0), 250_000);
    assert_eq!(auto(100e6, 50), 2_500_000);
    assert_eq!(auto(1e6, 0), 15_000);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let mut properties = rate(8e6);
    properties.queue.bytes = QueueBytes::Bytes(3000);
    let mut world = World::star(1, &properties);
    for _ in 0..10 {
        world.send(0, 1, 0, 1, 1000);
    }
    let meters = world.link(0);
    assert_eq!((meters.drops.queue, meters.queue_bytes, meters.queue_packets), (6, 3000, 3));
    assert_eq!((meters.queue_bytes_peak, meters.in_flight), (3000, 4));
    world.run(100 * MS);
    assert_eq!(world.out.len(), 4);
}

#[test]
fn exhausted_packet_memory_is_a_host_drop() {
    let mut world = World::star(1, &rate(8e3));
    world.core = Core::new(star(1, 1, &rate(8e3)), 1500, 10 * 1501).unwrap();
    world.buffer = world.core.read_buffer().unwrap();
    for _ in 0..20 {
        world.send(0, 1, 0, 1, 1500);
    }
    let totals = world.totals();
    assert_eq!((totals.in_flight, totals.drops.host), (9, 11));
    assert!(totals.buffer_bytes <= 10 * 1501);
    world.run(u64::MAX / 4);
    assert_eq!(world.out.len(), 9);
}

#[test]
fn a_refused_write_is_a_host_drop() {
    let mut world = World::star(1, &LinkProperties::default());
    let packet = udp(address(1), address(0), 1, 100);
    world.buffer[..100].copy_from_slice(&packet);
    world.core.ingress(EndpointId(1), &mut world.buffer, 100, 0);
    let delivery = world.core.pop_delivery().unwrap();
    assert_eq!(world.core.snapshot(0).totals.in_flight, 1);
    world.core.written(delivery, 0, false);
    let snapshot = world.core.snapshot(0);
    assert_eq!(
        (snapshot.endpoints[0].drops.host, snapshot.totals.drops.host, snapshot.totals.in_flight),
        (1, 1, 0)
    );
}

#[test]
fn time_spent_in_the_tun_is_late_unless_the_link_was_busy_anyway() {
    let properties = LinkProperties { delay: Duration::from_millis(10), ..rate(8e6) };
    let mut world = World::star(1, &properties);
    let mut core = world.core;
    core.found_ready(0);
    let packet = udp(address(1), address(0), 1, 1000);
    for read_at in [3 * MS, 3 * MS + 1] {
        world.buffer[..packet.len()].copy_from_slice(&packet);
        core.ingress(EndpointId(1), &mut world.buffer, packet.len(), read_at);
    }
    core.advance(100 * MS);
    while let Some(delivery) = core.pop_delivery() {
        let due_ns = delivery.due_ns;
        core.written(delivery, due_ns, true);
    }
    let snapshot = core.snapshot(100 * MS);
    assert_eq!((snapshot.links[0].written, snapshot.links[0].late), (2, 1));
    assert!((3 * MS..4 * MS).contains(&snapshot.lateness.overall.max_ns));
    assert_eq!(snapshot.lateness.overall.p50_ns, 0);
}

#[test]
fn lateness_is_judged_against_the_links_delay() {
    let properties = LinkProperties { delay: Duration::from_millis(100), ..LinkProperties::default() };
    let mut world = World::star(1, &properties);
    for late in [0, 4 * MS, 6 * MS] {
        world.buffer[..100].copy_from_slice(&udp(address(1), address(0), 1, 100));
        world.core.ingress(EndpointId(1), &mut world.buffer, 100, 0);
        world.core.advance(100 * MS);
        let delivery = world.core.pop_delivery().unwrap();
        world.core.written(delivery, 100 * MS + late, true);
        world.core.now = 0;
    }
    let snapshot = world.core.snapshot(100 * MS);
    assert_eq!((snapshot.links[0].written, snapshot.links[0].late), (3, 1));
    assert!((6 * MS..6 * MS + MS / 8).contains(&snapshot.lateness.overall.max_ns));
    assert!((100 * MS..102 * MS).contains(&snapshot.delay.interval.p50_ns));
    let next = world.core.snapshot(100 * MS);
    assert_eq!((next.lateness.interval.count, next.lateness.overall.count), (0, 3));
}

#[test]
fn a_backlogged_transmitter_is_at_its_rate_when_the_caller_is_punctual() {
    let mut world = World::star(1, &rate(8e6));
    for _ in 0..100 {
        world.send(0, 1, 0, 1, 1000);
    }
    world.patch(33 * MS, 0, LinkPatch::rate(4e6));
    world.run(50 * MS);
    let meters = world.link(0);
    assert_eq!(meters.backlogged_ns, 50 * MS);
    assert!((meters.backlogged_capacity_bytes - 41_500.0).abs() < 1.0);
    assert!((meters.backlogged_bytes - 41_500.0).abs() < 1.0, "{}", meters.backlogged_bytes);
    world.run(1000 * MS);
    let meters = world.link(0);
    assert_eq!(meters.backlogged_ns, 33 * MS + 134 * MS);
    assert!((meters.backlogged_bytes - 100_000.0).abs() < 1.0, "{}", meters.backlogged_bytes);
}

/// Packets that a link turns away do not make it backlogged, however many more wait to be read.
#[test]
fn a_link_that_turns_packets_away_is_not_backlogged() {
    for partition in [false, true] {
        let mut world = World::star(1, &rate(80e6));
        if partition {
            world.core.block(&[(EndpointId(1), EndpointId(0))], 0).unwrap();
        } else {
            world.patch(0, 0, LinkPatch { up: Some(false), ..LinkPatch::default() });
        }
        for i in 0..100 {
            world.send(i * MS, 1, 0, 1, 1000);
            world.core.set_backlogged(EndpointId(1), true, i * MS);
        }
        let meters = world.link(0);
        assert_eq!((meters.drops.total(), meters.backlogged_ns), (100, 0));
    }
}

/// A caller that reads the TUN more slowly than the link could send starves the transmitter: its own queue is empty,
/// yet it is off its rate.
#[test]
fn a_starved_transmitter_is_off_its_rate() {
    let mut world = World::star(1, &rate(80e6));
    for i in 0..100 {
        world.send(i * MS, 1, 0, 1, 1000);
        world.core.set_backlogged(EndpointId(1), true, i * MS);
    }
    world.core.set_backlogged(EndpointId(1), false, 100 * MS);
    world.run(200 * MS);
    let meters = world.link(0);
    assert_eq!(meters.backlogged_ns, 100 * MS);
    let share = meters.backlogged_bytes / meters.backlogged_capacity_bytes;
    assert!((share - 0.1).abs() < 0.001, "{share}");
}
