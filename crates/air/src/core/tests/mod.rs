//! The pipeline under injected time: here the small world that all tests use.

mod chance;
mod changes;
mod meters;
mod network;
mod random;
mod transmitter;

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
    AirSpec { seed, endpoints, stations, links, dilation: 1.0 }
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
fn a_stretched_network_keeps_its_automatic_queue_in_bytes() {
    let limit = |rate_bps, delay_ms, dilation| {
        let properties = LinkProperties {
            rate_bps: Some(rate_bps),
            delay: std::time::Duration::from_millis(delay_ms),
            ..LinkProperties::default()
        };
        let core = Core::new(AirSpec { dilation, ..star(1, 1, &properties) }, 1500, 1 << 24).unwrap();
        core.links[0].queue_limit
    };
    assert_eq!(limit(1e9, 1, 1.0), 2_500_000);
    assert_eq!(limit(1e8, 10, 10.0), limit(1e9, 1, 1.0));
}
