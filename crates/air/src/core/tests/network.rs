//! Links going down, partitions, routes, overrides.

use std::time::Duration;

use super::*;

#[test]
fn links_that_go_down_drop_what_they_hold_but_not_what_is_under_way() {
    let properties = LinkProperties { delay: Duration::from_millis(10), ..rate(8e6) };
    let mut world = World::star(1, &properties);
    for _ in 0..5 {
        world.send(0, 1, 0, 1, 1000);
    }
    world.run(2 * MS);
    world.patch(5 * MS / 2, 0, LinkPatch { up: Some(false), ..LinkPatch::default() });
    world.send(5 * MS, 1, 0, 1, 1000);
    world.run(50 * MS);
    assert_eq!(world.times(), [11 * MS, 12 * MS]);
    assert_eq!(world.link(0).drops.down, 4);
    world.patch(50 * MS, 0, LinkPatch { up: Some(true), ..LinkPatch::default() });
    world.send(50 * MS, 1, 0, 1, 1000);
    world.run(100 * MS);
    assert_eq!(world.times().last(), Some(&(61 * MS)));
}

#[test]
fn partitions_are_directed_and_judge_source_and_destination() {
    let mut world = World::star(3, &LinkProperties::default());
    world.core.block(&[(EndpointId(1), EndpointId(2))], 0).unwrap();
    world.send(0, 1, 2, 1, 100);
    assert_eq!(world.out.len(), 0);
    for (from, to) in [(2, 1), (1, 3), (3, 2), (1, 0)] {
        world.send(0, from, to, 1, 100);
    }
    assert_eq!(world.out.len(), 4);
    assert_eq!(world.totals().drops.partition, 1);
    world.core.heal(0);
    world.send(0, 1, 2, 1, 100);
    assert_eq!(world.out.len(), 5);
    assert!(world.core.block(&[(EndpointId(1), EndpointId(9))], 0).is_err());
}

#[test]
fn what_cannot_be_routed_is_counted_at_its_endpoint() {
    let mut world = World::star(2, &LinkProperties::default());
    world.send(0, 1, 9, 1, 100);
    // A forged source: station 2's address from endpoint 1.
    world.send_bytes(0, 1, &udp(address(2), address(0), 1, 100));
    world.send(0, 1, 1, 1, 100);
    let mut ipv6 = udp(address(1), address(0), 1, 100);
    ipv6[0] = 0x60;
    world.send_bytes(0, 1, &ipv6);
    world.send_bytes(0, 1, &udp(address(1), address(0), 1, 1501));
    let snapshot = world.core.snapshot(0);
    let endpoint = snapshot.endpoints[1];
    assert_eq!((endpoint.drops.unroutable, endpoint.not_ipv4, endpoint.malformed), (3, 1, 1));
    assert_eq!((snapshot.totals.read.packets, snapshot.totals.drops.total()), (3, 3));
    assert!(world.out.is_empty());
}

#[test]
fn overrides_come_last_on_their_pair_only() {
    let mut world = World::star(2, &rate(8e6));
    let slow = LinkProperties { delay: Duration::from_millis(100), ..LinkProperties::default() };
    world.core.set_override(StationId(1), StationId(2), slow.clone(), 0).unwrap();
    world.send(0, 1, 2, 1, 1000);
    world.send(0, 2, 1, 1, 1000);
    world.run(1000 * MS);
    assert_eq!(world.times(), [2 * MS, 102 * MS]);
    let snapshot = world.core.snapshot(1000 * MS);
    assert_eq!(snapshot.overrides.len(), 1);
    assert_eq!(
        (snapshot.overrides[0].meters.delivered.packets, &snapshot.overrides[0].properties),
        (1, &slow)
    );
    world.send(1000 * MS, 1, 2, 1, 1000);
    world.run(1050 * MS);
    world.core.clear_override(StationId(1), StationId(2), 1050 * MS).unwrap();
    world.send(1050 * MS, 1, 2, 1, 1000);
    world.run(2000 * MS);
    // The packet inside goes on; the next one no longer passes the override.
    assert_eq!(world.times()[2..], [1052 * MS, 1102 * MS]);
    world.core.set_override(StationId(2), StationId(1), slow, 2000 * MS).unwrap();
    assert_eq!(world.core.links.len(), 5, "the retired link is reused");
    assert_eq!(world.totals().in_flight, 0);
}

#[test]
fn packets_under_way_follow_a_station_to_its_new_parent() {
    // 0 root; 1 and 2 below it; 3 below 1.
    let mut spec = star(1, 3, &rate(8e6));
    spec.stations[3].attachment.as_mut().unwrap().parent = StationId(1);
    let mut world = World::new(spec);
    world.send(0, 0, 3, 1, 1000);
    world.run(MS / 2);
    // Handed over while the packet is on the root's down link to station 1: back up, then down by 2.
    world.core.attach(StationId(3), StationId(2), MS / 2).unwrap();
    world.run(100 * MS);
    assert_eq!(world.times(), [4 * MS]);
    assert_eq!((world.link(0).delivered.packets, world.link(3).delivered.packets), (1, 1));
}
