//! The medium between real TUNs in real namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::{LONG, SHORT, World, address, node, star};
use dtwn_air::{
    AirError, EndpointId, LinkId, LinkPatch, LinkProperties, Loss, Medium, Options, Queue, QueueBytes,
    StationId,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

#[test]
fn packets_pass_both_ways_with_the_links_delay() {
    let delay = Duration::from_millis(20);
    let world = World::new(2, |_| LinkProperties { delay, ..LinkProperties::default() });
    let (one, two) = (world.udp(1, 9000), world.udp(2, 9000));
    let start = Instant::now();
    assert!(world.arrives(&one, &two, b"there", LONG));
    assert!(world.arrives(&two, &one, b"and back", LONG));
    // Two links each way; a machine may be slower than that, never faster.
    assert!(start.elapsed() >= 4 * delay, "{:?}", start.elapsed());
    let snapshot = world.medium.snapshot().unwrap();
    assert_eq!((snapshot.links[0].delivered.packets, snapshot.links[3].delivered.packets), (1, 1));
    assert!((40_000_000..42_000_000).contains(&snapshot.delay.overall.max_ns), "{:?}", snapshot.delay);
    let last = world.medium.stop().unwrap();
    assert_eq!(last.totals.written.packets, 2);
}

/// TCP through a link: what the link carried and how long it was busy must be its rate exactly, since serialisation
/// runs in logical time, however busy this machine is.
#[test]
fn tcp_runs_at_the_links_rate() {
    const RATE_BPS: f64 = 20e6;
    let world = World::new(1, |link| LinkProperties {
        rate_bps: (link == 0).then_some(RATE_BPS),
        ..LinkProperties::default()
    });
    let listener = world.nodes[0].run(|| Ok(TcpListener::bind((address(0), 5000)).unwrap())).unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let sent: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut stream = world.nodes[1].run(|| Ok(TcpStream::connect((address(0), 5000)).unwrap())).unwrap();
    stream.write_all(&sent).unwrap();
    drop(stream);
    assert_eq!(receiver.join().unwrap(), sent);
    let link = world.medium.snapshot().unwrap().links[0];
    assert!(link.carried.bytes > 2_000_000);
    let rate_bps = link.carried.bytes as f64 * 8e9 / link.busy_ns as f64;
    assert!((rate_bps / RATE_BPS - 1.0).abs() < 1e-6, "{rate_bps}");
    assert!(link.queue_bytes_peak <= link.queue_limit_bytes);
    assert!(link.backlogged_ns > 0);
}

#[test]
fn loss_changes_live_and_is_binomial() {
    let world = World::new(1, |_| LinkProperties::default());
    let (from, to) = (world.udp(1, 9000), world.udp(0, 9000));
    assert!(world.arrives(&from, &to, b"before", LONG));
    let loss = |p| LinkPatch { loss: Some(Loss::Bernoulli(p)), ..LinkPatch::default() };
    world.medium.patch_links(vec![(LinkId(0), loss(1.0))]).unwrap();
    assert!(!world.arrives(&from, &to, b"lost", SHORT));
    world.wait_for("the lost packet", |s| s.links[0].drops.loss == 1);
    world.medium.patch_links(vec![(LinkId(0), loss(0.1))]).unwrap();
    let before = world.medium.snapshot().unwrap().links[0];
    for _ in 0..20_000 {
        from.send_to(b"probe", to.local_addr().unwrap()).unwrap();
    }
    // The TUN's ring may overflow on a busy machine; what the medium did read is what counts.
    let mut read = 0;
    let after = loop {
        let links = world.wait_for("packets", |s| s.links[0].offered.packets > before.offered.packets).links;
        if links[0].offered.packets == read {
            break links[0];
        }
        read = links[0].offered.packets;
        std::thread::sleep(Duration::from_millis(50));
    };
    let offered = (after.offered.packets - before.offered.packets) as f64;
    let lost = (after.drops.loss - before.drops.loss) as f64;
    assert!(offered >= 5_000.0, "{offered}");
    assert!((lost - 0.1 * offered).abs() < 3.29 * (offered * 0.1 * 0.9).sqrt(), "{lost} of {offered}");
    world.medium.patch_links(vec![(LinkId(0), loss(0.0))]).unwrap();
    let to = world.udp(0, 9001);
    assert!(world.arrives(&from, &to, b"after", LONG));
}

/// The receiver's kernel sees a wrong checksum and drops the datagram.
#[test]
fn corruption_is_found_by_the_receivers_checksum() {
    let world = World::new(1, |_| LinkProperties { corrupt: 1.0, ..LinkProperties::default() });
    let (from, to) = (world.udp(1, 9000), world.udp(0, 9000));
    assert!(!world.arrives(&from, &to, b"to be corrupted", SHORT));
    let snapshot = world.wait_for("the corrupted packet", |s| s.totals.written.packets == 1);
    assert_eq!((snapshot.links[0].corrupted, snapshot.totals.drops.total()), (1, 0));
    let patch = LinkPatch { corrupt: Some(0.0), ..LinkPatch::default() };
    world.medium.patch_links(vec![(LinkId(0), patch)]).unwrap();
    assert!(world.arrives(&from, &to, b"whole", LONG));
}

#[test]
fn duplicates_arrive_twice() {
    let world = World::new(1, |_| LinkProperties { duplicate: 1.0, ..LinkProperties::default() });
    let (from, to) = (world.udp(1, 9000), world.udp(0, 9000));
    assert!(world.arrives(&from, &to, b"twice", LONG));
    assert_eq!(to.recv(&mut [0; 10]).unwrap(), 5);
}

#[test]
fn a_partition_cuts_and_heals() {
    let world = World::new(2, |_| LinkProperties::default());
    let sockets: Vec<_> = (0..3).map(|node| world.udp(node, 9000)).collect();
    let (one, two) = (EndpointId(1), EndpointId(2));
    world.medium.block(vec![(one, two), (two, one)]).unwrap();
    assert!(!world.arrives(&sockets[1], &sockets[2], b"cut", SHORT));
    assert!(!world.arrives(&sockets[2], &sockets[1], b"cut", SHORT));
    assert!(world.arrives(&sockets[1], &sockets[0], b"open", LONG));
    world.wait_for("two partition drops", |s| s.totals.drops.partition == 2);
    world.medium.heal().unwrap();
    assert!(world.arrives(&sockets[1], &sockets[2], b"healed", LONG));
}

#[test]
fn links_go_down_and_up() {
    let world = World::new(1, |_| LinkProperties::default());
    let (from, to) = (world.udp(1, 9000), world.udp(0, 9000));
    let up = |up| vec![(LinkId(0), LinkPatch { up: Some(up), ..LinkPatch::default() })];
    world.medium.patch_links(up(false)).unwrap();
    assert!(!world.arrives(&from, &to, b"down", SHORT));
    world.wait_for("the drop", |s| s.links[0].drops.down == 1);
    world.medium.patch_links(up(true)).unwrap();
    assert!(world.arrives(&from, &to, b"up", LONG));
}

#[test]
fn overrides_and_attachments_change_live() {
    let world = World::new(2, |_| LinkProperties::default());
    let (one, two) = (world.udp(1, 9000), world.udp(2, 9000));
    let lossy = LinkProperties { loss: Loss::Bernoulli(1.0), ..LinkProperties::default() };
    world.medium.set_override(StationId(1), StationId(2), lossy).unwrap();
    assert!(!world.arrives(&one, &two, b"lost", SHORT));
    assert!(world.arrives(&two, &one, b"other way", LONG));
    let snapshot = world.wait_for("the loss", |s| s.totals.drops.loss == 1);
    assert_eq!(snapshot.overrides[0].meters.drops.loss, 1);
    world.medium.clear_override(StationId(1), StationId(2)).unwrap();
    assert!(world.arrives(&one, &two, b"clear", LONG));
    // Station 2 under station 1: one link instead of two.
    let before = world.medium.snapshot().unwrap().links[0].offered.packets;
    world.medium.attach(StationId(2), StationId(1)).unwrap();
    assert!(world.arrives(&one, &two, b"direct", LONG));
    assert_eq!(world.medium.snapshot().unwrap().links[0].offered.packets, before);
    let cycle = world.medium.attach(StationId(1), StationId(2));
    assert!(matches!(cycle, Err(AirError::Cycle { .. })), "{cycle:?}");
}

#[test]
fn a_full_queue_drops_and_bounds_memory() {
    let queue = Queue { bytes: QueueBytes::Bytes(10_000), ..Queue::default() };
    let world = World::new(1, |_| LinkProperties { rate_bps: Some(1e5), queue, ..LinkProperties::default() });
    let (from, to) = (world.udp(1, 9000), world.udp(0, 9000));
    for _ in 0..200 {
        from.send_to(&[7; 1000], to.local_addr().unwrap()).unwrap();
    }
    let snapshot = world.wait_for("all packets", |s| s.totals.read.packets == 200);
    assert!(snapshot.links[0].drops.queue > 150, "{:?}", snapshot.links[0].drops);
    assert!(snapshot.links[0].queue_bytes_peak <= 10_000);
    assert_eq!(snapshot.totals.drops.host, 0);
}

/// A descriptor that has come to its end, as a TUN's does when its interface is deleted, is given up; the others go on.
#[test]
fn a_vanished_endpoint_does_not_disturb_the_others() {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).unwrap();
    let (nodes, mut tuns): (Vec<_>, Vec<_>) = (0..3).map(|i| node(address(i))).unzip();
    tuns.push(ours);
    let spec = star(3, |_| LinkProperties::default());
    let world = World { medium: Medium::start(spec, tuns, Options::default()).unwrap(), nodes };
    let (one, two) = (world.udp(1, 9000), world.udp(2, 9000));
    one.send_to(b"somebody", (address(3), 9000)).unwrap();
    world.wait_for("the first packet", |s| s.endpoints[3].written.packets == 1);
    drop(theirs);
    one.send_to(b"nobody", (address(3), 9000)).unwrap();
    world.wait_for("the refused write", |s| s.endpoints[3].drops.host == 1);
    assert!(world.arrives(&one, &two, b"still here", LONG));
    let before = world.medium.snapshot().unwrap().cpu_ns;
    std::thread::sleep(Duration::from_millis(200));
    let spent_ns = world.medium.snapshot().unwrap().cpu_ns - before;
    assert!(spent_ns < 100_000_000, "the medium spins: {spent_ns} ns of CPU in 200 ms of idleness");
}
