//! The pipeline under injected time.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::meters::{LinkMeters, Totals};
use crate::packet::tests::udp;
use crate::spec::{
    AddressMatch, Arq, Attachment, Discipline, EndpointSpec, LinkPatch, LinkProperties, Loss, Queue,
    QueueBytes, StationSpec,
};

const MS: u64 = 1_000_000;
const ROOT: u32 = 0x0a00_0001;

/// The address of station `i`.
fn address(station: u32) -> u32 {
    ROOT + station
}

/// A root and `leaves` stations below it, each an endpoint; leaf i (from 1) has up link 2(i−1) and down link 2(i−1)+1.
fn star(seed: u64, leaves: u32, properties: &LinkProperties) -> AirSpec {
    let endpoints = (0..=leaves).map(|i| EndpointSpec { name: format!("e{i}") }).collect();
    let stations = (0..=leaves)
        .map(|i| StationSpec {
            name: format!("s{i}"),
            endpoint: EndpointId(i as u16),
            addresses: vec![AddressMatch::host(address(i).into())],
            attachment: (i > 0).then(|| Attachment {
                parent: StationId(0),
                up: LinkId(2 * (i - 1)),
                down: LinkId(2 * (i - 1) + 1),
            }),
        })
        .collect();
    let links =
        (0..2 * leaves).map(|i| LinkSpec { name: format!("l{i}"), properties: properties.clone() }).collect();
    AirSpec { seed, endpoints, stations, links }
}

fn rate(rate_bps: f64) -> LinkProperties {
    LinkProperties {
        rate_bps: Some(rate_bps),
        queue: Queue { bytes: QueueBytes::Bytes(1 << 40), discipline: Discipline::Drr },
        ..LinkProperties::default()
    }
}

struct World {
    core: Core,
    buffer: Buffer,
    /// (due, endpoint, packet)
    out: Vec<(u64, u16, Vec<u8>)>,
}

impl World {
    fn new(spec: AirSpec) -> Self {
        let mut core = Core::new(spec, 1500, 1 << 30).unwrap();
        let buffer = core.read_buffer().unwrap();
        Self { core, buffer, out: Vec::new() }
    }

    fn star(leaves: u32, properties: &LinkProperties) -> Self {
        Self::new(star(1, leaves, properties))
    }

    fn send(&mut self, now: u64, from: u32, to: u32, port: u16, len: usize) {
        let packet = udp(address(from), address(to), port, len);
        self.send_bytes(now, from as u16, &packet);
    }

    fn send_bytes(&mut self, now: u64, endpoint: u16, packet: &[u8]) {
        self.buffer[..packet.len()].copy_from_slice(packet);
        self.core.ingress(EndpointId(endpoint), &mut self.buffer, packet.len(), now);
        self.collect();
    }

    /// Runs from deadline to deadline up to `until`, as a punctual driver does.
    fn run(&mut self, until: u64) {
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= until) {
            self.core.advance(at);
            self.collect();
        }
        self.core.advance(until);
        self.collect();
    }

    /// Runs in one late step.
    fn jump(&mut self, until: u64) {
        self.core.advance(until);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(delivery) = self.core.pop_delivery() {
            self.out.push((delivery.due_ns, delivery.endpoint.0, delivery.bytes().to_vec()));
            let due = delivery.due_ns;
            self.core.written(delivery, due, true);
        }
    }

    fn patch(&mut self, now: u64, link: u32, patch: LinkPatch) {
        self.core.patch_links(&[(LinkId(link), patch)], now).unwrap();
        self.collect();
    }

    fn link(&mut self, link: usize) -> LinkMeters {
        let now = self.core.now;
        self.core.snapshot(now).links[link]
    }

    fn totals(&mut self) -> Totals {
        let now = self.core.now;
        self.core.snapshot(now).totals
    }

    fn times(&self) -> Vec<u64> {
        self.out.iter().map(|(due, ..)| *due).collect()
    }
}

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

#[test]
fn patches_are_all_or_none() {
    let mut world = World::star(1, &rate(8e6));
    let good = (LinkId(0), LinkPatch::rate(1e6));
    let bad = (LinkId(1), LinkPatch { duplicate: Some(f64::NAN), ..LinkPatch::default() });
    let error = world.core.patch_links(&[good.clone(), bad], 0).unwrap_err();
    assert_eq!(error.to_string(), "link `l1`: duplicate = NaN; must be a probability from 0 to 1");
    assert!(world.core.patch_links(&[good.clone(), (LinkId(2), LinkPatch::default())], 0).is_err());
    assert_eq!(world.link(0).rate_bps, Some(8e6));
    world.core.patch_links(&[good], 0).unwrap();
    let mut changed = rate(8e6);
    changed.rate_bps = Some(1e6);
    assert_eq!(world.core.links[0].properties, changed);
    assert_eq!(world.core.links[1].properties, rate(8e6));
}

#[test]
fn specifications_are_checked() {
    let refused = |change: &dyn Fn(&mut AirSpec)| {
        let mut spec = star(1, 1, &LinkProperties::default());
        change(&mut spec);
        Core::new(spec, 1500, 1 << 20).unwrap_err().to_string()
    };
    assert_eq!(refused(&|s| s.links[1].name = "l0".to_owned()), "link name `l0` is given twice");
    let loss = refused(&|s| s.links[0].properties.loss = Loss::Bernoulli(1.5));
    assert_eq!(loss, "link `l0`: loss = 1.5; must be a probability from 0 to 1");
    let rate = refused(&|s| s.links[0].properties.rate_bps = Some(-1.0));
    assert_eq!(rate, "link `l0`: rate_bps = -1; must be a number from 0 to 1e12 bit/s");
    assert!(refused(&|s| s.links[0].properties.rate_bps = Some(f64::NAN)).contains("rate_bps = NaN"));
    assert!(refused(&|s| s.links[0].properties.delay = Duration::from_secs(4000)).contains("at most 3600 s"));
    let arq = Some(Arq { attempts_max: 0, turnaround: Duration::ZERO });
    assert!(refused(&|s| s.links[0].properties.arq = arq).contains("at least 1"));
}

/// The loss pattern of a link, as the ports of what arrives, when other things are or are not going on.
fn survivors(change: impl Fn(&mut World, u64)) -> Vec<u16> {
    let properties = LinkProperties { loss: Loss::Bernoulli(0.3), ..rate(8e6) };
    let mut world = World::star(2, &properties);
    for i in 0..400u64 {
        change(&mut world, i);
        world.send(i * 2 * MS, 1, 0, i as u16, 1000);
    }
    world.run(10_000 * MS);
    let mut ports: Vec<u16> = world
        .out
        .iter()
        .filter(|(_, _, p)| p[15] == 2)
        .map(|(_, _, p)| u16::from_be_bytes([p[20], p[21]]))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn changes_leave_other_properties_and_other_links_alone() {
    let plain = survivors(|_, _| {});
    assert!((200..360).contains(&plain.len()), "{}", plain.len());
    let patched = |patch: LinkPatch| {
        survivors(move |world, i| {
            if i == 100 {
                world.patch(i * 2 * MS, 0, patch.clone());
            }
        })
    };
    assert_eq!(plain, patched(LinkPatch::rate(6e6)));
    assert_eq!(plain, patched(LinkPatch { delay: Some(Duration::from_millis(7)), ..LinkPatch::default() }));
    assert_eq!(plain, patched(LinkPatch { duplicate: Some(0.5), ..LinkPatch::default() }));
    assert_eq!(plain, patched(LinkPatch { corrupt: Some(0.0), reorder: Some(0.4), ..LinkPatch::default() }));
    assert_ne!(plain, patched(LinkPatch { loss: Some(Loss::Bernoulli(0.1)), ..LinkPatch::default() }));
    // Traffic and changes on another link.
    let busy = survivors(|world, i| {
        world.send(i * 2 * MS, 2, 1, 7, 300);
        world.patch(i * 2 * MS, 2, LinkPatch { loss: Some(Loss::Bernoulli(0.7)), ..LinkPatch::default() });
    });
    assert_eq!(plain, busy);
}

/// One step of a random run.
#[derive(Clone, Debug)]
enum Action {
    Send { from: u32, to: u32, port: u16, len: usize },
    Patch { link: u32, patch: LinkPatch },
    Attach { station: u32, parent: u32 },
    Override { from: u32, to: u32, set: bool },
    Block { from: u16, to: u16 },
    Heal,
}

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        Just(Loss::None),
        (0.0..0.5).prop_map(Loss::Bernoulli),
        Just(Loss::GilbertElliott { p: 0.1, r: 0.3, loss_good: 0.01, loss_bad: 0.9 }),
    ]
}

fn patch() -> impl Strategy<Value = LinkPatch> {
    let rate = prop::option::of(prop_oneof![Just(None), Just(Some(0.0)), (1e5..1e8).prop_map(Some)]);
    let times = (prop::option::of(0u64..20), prop::option::of(0u64..10));
    let chances = (prop::option::of(0.0..0.5), prop::option::of(0.0..0.5), prop::option::of(0.0..0.5));
    let queue = prop::option::of((any::<bool>(), 500u64..20_000));
    let arq = prop::option::of(prop::option::of(1u8..5));
    (rate, times, prop::option::of(loss()), chances, queue, arq, prop::option::weighted(0.2, any::<bool>()))
        .prop_map(|(rate_bps, (delay, jitter), loss, (duplicate, corrupt, reorder), queue, arq, up)| {
            LinkPatch {
                rate_bps,
                delay: delay.map(Duration::from_millis),
                jitter: jitter.map(Duration::from_millis),
                loss,
                duplicate,
                corrupt,
                reorder,
                arq: arq.map(|a| {
                    a.map(|attempts_max| Arq { attempts_max, turnaround: Duration::from_micros(50) })
                }),
                queue: queue.map(|(fifo, bytes)| Queue {
                    bytes: QueueBytes::Bytes(bytes),
                    discipline: if fifo { Discipline::Fifo } else { Discipline::Drr },
                }),
                up,
            }
        })
}

fn action() -> impl Strategy<Value = Action> {
    let send = || {
        (0u32..5, 0u32..5, 0u16..4, 28usize..1500).prop_map(|(from, to, port, len)| Action::Send {
            from,
            to,
            port,
            len,
        })
    };
    prop_oneof![
        12 => send(),
        2 => (0u32..8, patch()).prop_map(|(link, patch)| Action::Patch { link, patch }),
        1 => (1u32..5, 0u32..5).prop_map(|(station, parent)| Action::Attach { station, parent }),
        1 => (0u32..5, 0u32..5, any::<bool>()).prop_map(|(from, to, set)| Action::Override { from, to, set }),
        1 => (0u16..5, 0u16..5).prop_map(|(from, to)| Action::Block { from, to }),
        1 => Just(Action::Heal),
    ]
}

impl World {
    fn act(&mut self, now: u64, action: &Action) {
        let core = &mut self.core;
        match action.clone() {
            Action::Send { from, to, port, len } => self.send(now, from, to, port, len),
            Action::Patch { link, patch } => self.patch(now, link, patch),
            // Loops are refused and change nothing.
            Action::Attach { station, parent } => {
                let _ = core.attach(StationId(station), StationId(parent), now);
            }
            Action::Override { from, to, set: true } => {
                let link = LinkProperties { delay: Duration::from_millis(3), ..rate(1e6) };
                core.set_override(StationId(from), StationId(to), link, now).unwrap();
            }
            Action::Override { from, to, set: false } => {
                core.clear_override(StationId(from), StationId(to), now).unwrap();
            }
            Action::Block { from, to } => core.block(&[(EndpointId(from), EndpointId(to))], now).unwrap(),
            Action::Heal => core.heal(now),
        }
        self.collect();
    }

    /// Checks conservation of packets, at each link and over all.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let snapshot = self.core.snapshot(self.core.now);
        let overrides = snapshot.overrides.iter().map(|o| &o.meters);
        for link in snapshot.links.iter().chain(overrides) {
            prop_assert_eq!(
                link.offered.packets + link.duplicated,
                link.delivered.packets + link.drops.total() + link.in_flight
            );
            prop_assert!(link.queue_packets <= link.in_flight);
            prop_assert!(link.backlogged_bytes <= link.backlogged_capacity_bytes * (1.0 + 1e-9) + 1.0);
        }
        let totals = snapshot.totals;
        prop_assert_eq!(
            totals.read.packets + totals.duplicated,
            totals.written.packets + totals.drops.total() + totals.in_flight
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done to it, the medium loses no packet without counting it, never runs time backwards, empties when
    /// all links serve, and does the same again with the same seed, however late it is called.
    #[test]
    fn packets_are_conserved_and_runs_repeat(
        seed: u64,
        steps in prop::collection::vec((0u64..3 * MS, action()), 1..200),
    ) {
        let mut first = World::new(star(seed, 4, &rate(5e6)));
        let mut second = World::new(star(seed, 4, &rate(5e6)));
        let mut now = 0;
        for (gap, action) in &steps {
            now += gap;
            first.run(now);
            first.act(now, action);
            first.check()?;
            second.act(now, action);
        }
        for world in [&mut first, &mut second] {
            for link in 0..8 {
                let serve = LinkPatch { rate_bps: Some(Some(1e6)), up: Some(true), ..LinkPatch::default() };
                world.patch(now, link, serve);
            }
        }
        first.run(now + 100_000 * MS);
        second.jump(now + 100_000 * MS);
        prop_assert!(first.times().is_sorted());
        prop_assert_eq!(&first.out, &second.out);
        first.check()?;
        prop_assert_eq!(first.totals().in_flight, 0);
        prop_assert_eq!(first.core.packets.len(), 0);
    }

    /// With a fixed bound, the queue never holds more than it.
    #[test]
    fn the_queue_bound_is_never_exceeded(
        bytes in 200u64..20_000,
        sends in prop::collection::vec((0u64..2 * MS, 0u16..6, 28usize..1500), 1..200),
    ) {
        let mut properties = rate(4e6);
        properties.queue.bytes = QueueBytes::Bytes(bytes);
        let mut world = World::star(1, &properties);
        let mut now = 0;
        for (gap, port, len) in sends {
            now += gap;
            world.run(now);
            world.send(now, 1, 0, port, len);
            prop_assert!(world.link(0).queue_bytes <= bytes);
        }
        prop_assert!(world.link(0).queue_bytes_peak <= bytes);
    }
}
