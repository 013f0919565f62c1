//! Serialisation in logical time.

use std::time::Duration;

use super::*;

#[test]
fn a_perfect_wire_delivers_in_the_same_turn() {
    let mut world = World::star(2, &LinkProperties::default());
    world.send(5 * MS, 1, 2, 1, 100);
    assert_eq!(world.out, [(5 * MS, 2, udp(address(1), address(2), 1, 100))]);
    assert_eq!(world.core.next_deadline(), None);
    assert_eq!((world.link(0).delivered.packets, world.link(3).delivered.bytes), (1, 100));
}

#[test]
fn serialisation_is_exact_and_never_accumulates_error() {
    // 1500 B at 7 Mbit/s take 1714285.714… ns: no whole number.
    let mut world = World::star(1, &rate(7e6));
    for _ in 0..10_000 {
        world.send(0, 1, 0, 1, 1500);
    }
    world.run(u64::MAX / 4);
    let times = world.times();
    for (i, time) in times.iter().enumerate() {
        let exact = (i as f64 + 1.0) * 1500.0 * 8e9 / 7e6;
        // Fixed-point rounding of the time per byte: 2^-25 ns on each byte sent.
        assert!((*time as f64 - exact).abs() <= 1.0 + exact * 1e-9, "packet {i}: {time}, {exact}");
    }
    assert_eq!(times.len(), 10_000);
}

#[test]
fn a_late_caller_changes_no_time() {
    let run = |late: bool| {
        let properties = LinkProperties { delay: Duration::from_millis(3), ..rate(5e6) };
        let mut world = World::star(2, &properties);
        for i in 0..200u64 {
            world.send(i * MS, 1, 2, (i % 5) as u16, 200 + (i as usize * 37) % 1200);
        }
        if late {
            world.jump(10_000 * MS);
        } else {
            world.run(10_000 * MS);
        }
        world.out
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn an_idle_transmitter_starts_at_the_arrival() {
    let mut world = World::star(1, &rate(8e6));
    world.send(0, 1, 0, 1, 1000);
    world.send(10 * MS, 1, 0, 1, 1000);
    world.run(100 * MS);
    assert_eq!(world.times(), [MS, 11 * MS]);
    assert_eq!(world.link(0).busy_ns, 2 * MS);
}

#[test]
fn every_link_of_the_path_is_a_stage() {
    let properties = LinkProperties { delay: Duration::from_millis(2), ..rate(8e6) };
    let mut world = World::star(2, &properties);
    world.send(0, 1, 2, 1, 1000);
    world.run(100 * MS);
    assert_eq!(world.times(), [6 * MS]);
    assert_eq!((world.link(0).delay_sum_ns, world.link(3).delay_sum_ns), (3 * MS, 3 * MS));
}

/// All that a station sends shares its up link, whoever it is for.
#[test]
fn one_transmitter_serves_all_destinations() {
    let mut spec = star(1, 3, &LinkProperties::default());
    spec.links[0].properties = rate(8e6);
    let mut world = World::new(spec);
    for to in [0, 2, 3] {
        world.send(0, 1, to, 1, 1000);
    }
    world.run(100 * MS);
    assert_eq!(world.times(), [MS, 2 * MS, 3 * MS]);
}

#[test]
fn a_rate_change_rescales_the_packet_being_sent_and_the_queue() {
    let mut world = World::star(1, &rate(8e6));
    world.send(0, 1, 0, 1, 1000);
    world.send(0, 1, 0, 1, 1000);
    // Half of the first is sent; the other half takes 1 ms at half the rate.
    world.patch(MS / 2, 0, LinkPatch::rate(4e6));
    world.run(100 * MS);
    assert_eq!(world.times(), [3 * MS / 2, 7 * MS / 2]);
}

#[test]
fn a_transmitter_without_rate_waits_for_one() {
    let mut world = World::star(1, &rate(8e6));
    world.send(0, 1, 0, 1, 1000);
    world.patch(MS / 4, 0, LinkPatch::rate(0.0));
    world.send(MS, 1, 0, 1, 1000);
    world.run(1000 * MS);
    assert_eq!(world.times(), [] as [u64; 0]);
    assert_eq!(world.core.next_deadline(), None);
    world.patch(1000 * MS, 0, LinkPatch::rate(8e6));
    world.run(2000 * MS);
    assert_eq!(world.times(), [1000 * MS + 3 * MS / 4, 1001 * MS + 3 * MS / 4]);
}

#[test]
fn lifting_the_rate_limit_releases_the_queue_at_once() {
    let mut world = World::star(1, &rate(8e3));
    for _ in 0..5 {
        world.send(0, 1, 0, 1, 1000);
    }
    world.patch(MS, 0, LinkPatch { rate_bps: Some(None), ..LinkPatch::default() });
    assert_eq!(world.times(), [MS; 5]);
}
