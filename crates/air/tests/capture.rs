//! Captures, read back by an independent reader.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod common;

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{LONG, SHORT, World};
use dtwn_air::{AirError, CaptureFilter, CaptureId, EndpointId, LinkId, LinkProperties, Loss};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};

/// A file in memory that the test can look into.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One captured packet as the reader sees it.
#[derive(Debug)]
struct Seen {
    interface: String,
    since_1970_ns: u128,
    bytes: Vec<u8>,
    comment: Option<String>,
    flags: Option<u32>,
}

fn read_back(file: &[u8]) -> Vec<Seen> {
    let mut reader = PcapNgReader::new(file).unwrap();
    let (mut names, mut seen) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                assert!(interface.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
                let name = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                names.push(name.unwrap());
            }
            Block::EnhancedPacket(packet) => {
                let comment = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                    _ => None,
                });
                let flags = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Flags(flags) => Some(*flags),
                    _ => None,
                });
                seen.push(Seen {
                    interface: names[packet.interface_id as usize].clone(),
                    since_1970_ns: packet.timestamp.as_nanos(),
                    bytes: packet.data.to_vec(),
                    comment,
                    flags,
                });
            }
            other => panic!("unexpected block {other:?}"),
        }
    }
    seen
}

#[test]
fn captures_record_what_their_filter_names() {
    let world = World::new(2, |link| LinkProperties {
        loss: if link == 3 { Loss::Bernoulli(1.0) } else { Loss::None },
        ..LinkProperties::default()
    });
    let (all, endpoint, link) = (Shared::default(), Shared::default(), Shared::default());
    let start = |filter, file: &Shared| world.medium.capture(filter, Box::new(file.clone())).unwrap();
    let ids = [
        start(CaptureFilter::All, &all),
        start(CaptureFilter::Endpoint(EndpointId(0)), &endpoint),
        start(CaptureFilter::Link(LinkId(3)), &link),
    ];
    let sockets: Vec<_> = (0..3).map(|node| world.udp(node, 9000)).collect();
    assert!(world.arrives(&sockets[1], &sockets[0], b"heard", LONG));
    assert!(!world.arrives(&sockets[1], &sockets[2], b"lost", SHORT));
    world.wait_for("the loss", |s| s.totals.drops.loss == 1);
    for id in ids {
        drop(world.medium.stop_capture(id).unwrap());
    }
    assert!(matches!(world.medium.stop_capture(ids[0]), Err(AirError::Capture(_))));
    // Nothing is recorded any more.
    assert!(world.arrives(&sockets[1], &sockets[0], b"unheard", LONG));

    let summary = |file: &Shared| -> Vec<_> {
        let seen = read_back(&file.0.lock().unwrap());
        seen.into_iter().map(|s| (s.interface, s.bytes[28..].to_vec(), s.comment, s.flags)).collect()
    };
    let entry = |interface: &str, text: &[u8], comment: Option<&str>, flags| {
        (interface.to_owned(), text.to_vec(), comment.map(str::to_owned), flags)
    };
    let (outbound, inbound) = (Some(2), Some(1));
    assert_eq!(
        summary(&all),
        [
            entry("node1", b"heard", None, outbound),
            entry("node0", b"heard", None, inbound),
            entry("node1", b"lost", None, outbound),
            entry("link3", b"lost", Some("dropped: loss"), None),
        ]
    );
    assert_eq!(summary(&endpoint), [entry("node0", b"heard", None, inbound)]);
    assert_eq!(
        summary(&link),
        [entry("link3", b"lost", None, None), entry("link3", b"lost", Some("dropped: loss"), None)]
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    for seen in read_back(&all.0.lock().unwrap()) {
        assert!(now - seen.since_1970_ns < 60_000_000_000, "{} of {now}", seen.since_1970_ns);
    }
}

#[test]
fn filters_that_name_nothing_are_refused() {
    let world = World::new(1, |_| LinkProperties::default());
    for filter in [CaptureFilter::Endpoint(EndpointId(2)), CaptureFilter::Link(LinkId(2))] {
        let refused = world.medium.capture(filter, Box::new(Shared::default()));
        assert!(matches!(refused, Err(AirError::Unknown { .. })), "{refused:?}");
    }
    assert!(matches!(world.medium.stop_capture(CaptureId(7)), Err(AirError::Capture(7))));
}

/// A writer that does not go on until it is let.
#[derive(Clone, Default)]
struct Stuck(Arc<(Mutex<bool>, Condvar)>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (lock, free) = &*self.0;
        drop(free.wait_while(lock.lock().unwrap(), |free| !*free).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_slow_writer_loses_records_but_no_packets() {
    let world = World::new(1, |_| LinkProperties::default());
    let stuck = Stuck::default();
    let id = world.medium.capture(CaptureFilter::All, Box::new(stuck.clone())).unwrap();
    let (from, to) = (world.udp(1, 9000), world.udp(0, 9000));
    let mut sent = 0;
    // Two records for each packet; the channel and the file's buffer hold some thousands.
    let snapshot = loop {
        from.send_to(b"probe", to.local_addr().unwrap()).unwrap();
        sent += 1;
        let snapshot = world.wait_for("the packet", |s| s.totals.written.packets == sent);
        if snapshot.totals.capture_missed > 0 {
            break snapshot;
        }
        assert!(sent < 20_000, "no record was missed after {sent} packets");
    };
    assert_eq!(snapshot.totals.drops.total(), 0);
    *stuck.0.0.lock().unwrap() = true;
    stuck.0.1.notify_all();
    drop(world.medium.stop_capture(id).unwrap());
}

#[test]
fn a_failing_writer_is_reported() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let world = World::new(1, |_| LinkProperties::default());
    let id = world.medium.capture(CaptureFilter::All, Box::new(Full)).unwrap();
    let (from, to) = (world.udp(1, 9000), world.udp(0, 9000));
    assert!(world.arrives(&from, &to, b"goes on", LONG));
    assert!(matches!(world.medium.stop_capture(id), Err(AirError::Io { .. })));
}
