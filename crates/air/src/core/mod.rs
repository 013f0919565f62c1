//! The pipeline as a state machine: packets and times in, deliveries and deadlines out.
//!
//! The caller owns time (nanoseconds on any monotonic clock), packets' input and output:
//!
//! - [`Core::ingress`] hands in a packet that was read at some time;
//! - [`Core::advance`] lets all happen that is due by some time, each event at its own logical time, however late the
//!   call comes;
//! - [`Core::pop_delivery`] takes out what is to be written, [`Core::written`] reports back;
//! - [`Core::next_deadline`] says when to call again.
//!
//! The same seed and the same calls give the same fates and counters.

mod control;
mod fate;
mod link;
mod pool;
mod queue;
mod route;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};

use hdrhistogram::Histogram;

use self::fate::Fate;
use self::link::Link;
use self::pool::{NONE, Packet, Pool, Slab, Way};
use self::route::{Hash, Stations, Step};
use self::schedule::Schedule;
use crate::error::AirError;
use crate::meters::{DropCause, Drops, EndpointMeters};
use crate::packet::{self, NotRead};
use crate::spec::{AirSpec, EndpointId, LinkId, LinkSpec, StationId};

pub use self::pool::Buffer;

/// Watches packets at the points of their way; all times are the medium's.
pub trait Observer: Send {
    /// A packet passed `point` at `time_ns`.
    fn packet(&mut self, point: Point, time_ns: u64, bytes: &[u8]);
}

/// Where a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Read from an endpoint's TUN.
    Read(EndpointId),
    /// Written into an endpoint's TUN.
    Written(EndpointId),
    /// Refused where it was read, or where it should have been written.
    Refused(EndpointId, DropCause),
    /// Came to a link.
    Entered(LinkId),
    /// Dropped by a link.
    Dropped(LinkId, DropCause),
}

/// A packet that is to be written into a TUN.
#[derive(Debug)]
pub struct Delivery {
    /// Into this endpoint's TUN.
    pub endpoint: EndpointId,
    /// When it was due.
    pub due_ns: u64,
    read_ns: u64,
    waited_ns: u64,
    link: u32,
    len: u32,
    buffer: Buffer,
}

impl Delivery {
    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len as usize]
    }
}

#[derive(Debug, Default)]
struct Endpoint {
    meters: EndpointMeters,
    /// The link that its latest packet entered first.
    first_link: Option<u32>,
    /// The link that is taken to be fed by what still waits in its TUN.
    feeding: Option<u32>,
}

/// A distribution since the last snapshot and the one before that.
struct Times {
    interval: Histogram<u64>,
    before: Histogram<u64>,
}

/// The medium's state.
pub struct Core {
    seed: u64,
    dilation: f64,
    mtu: u16,
    stations: Stations,
    endpoints: Vec<Endpoint>,
    /// Those of the specification, then virtual ones.
    links: Vec<Link>,
    link_names: Vec<String>,
    overrides: HashMap<(StationId, StationId), u32, Hash>,
    /// Virtual links whose override is gone; reused when empty.
    retired: Vec<u32>,
    /// What reused virtual links had counted.
    retired_drops: Drops,
    retired_duplicated: u64,
    schedule: Schedule,
    packets: Slab,
    pool: Pool,
    blocked: HashSet<(EndpointId, EndpointId), Hash>,
    outbox: VecDeque<Delivery>,
    /// Deliveries taken out and not yet reported back.
    handed_out: u64,
    victims: Vec<u32>,
    lateness: Times,
    delay: Times,
    observer: Option<Box<dyn Observer>>,
    now: u64,
    /// Since when the packets that are being read are known to have been waiting.
    ready_ns: Option<u64>,
    started_ns: Option<u64>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("links", &self.links.len())
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Builds the medium that `spec` describes, for packets of up to `mtu` bytes, with at most `buffer_bytes_max` of
    /// packet memory.
    ///
    /// # Errors
    /// What is wrong in the specification.
    pub fn new(spec: AirSpec, mtu: u16, buffer_bytes_max: u64) -> Result<Self, AirError> {
        too_many("endpoints", spec.endpoints.len(), usize::from(u16::MAX))?;
        too_many("stations", spec.stations.len(), 1 << 24)?;
        too_many("links", spec.links.len(), 1 << 24)?;
        // One byte more than the MTU, so that a packet that is too long shows.
        let pool = Pool::new(usize::from(mtu) + 1, buffer_bytes_max);
        if buffer_bytes_max < pool.bytes_min() {
            return Err(AirError::Memory { given: buffer_bytes_max, least: pool.bytes_min(), mtu });
        }
        let stations = Stations::new(&spec)?;
        let mut names = HashSet::new();
        for link in &spec.links {
            link.properties.check(&link.name)?;
            if !names.insert(link.name.as_str()) {
                return Err(AirError::Duplicate { what: "link name", name: link.name.clone() });
            }
        }
        let mut core = Self {
            seed: spec.seed,
            dilation: spec.dilation.max(1.0),
            mtu,
            stations,
            endpoints: spec.endpoints.iter().map(|_| Endpoint::default()).collect(),
            links: Vec::with_capacity(spec.links.len()),
            link_names: Vec::with_capacity(spec.links.len()),
            overrides: HashMap::default(),
            retired: Vec::new(),
            retired_drops: Drops::default(),
            retired_duplicated: 0,
            schedule: Schedule::default(),
            packets: Slab::default(),
            pool,
            blocked: HashSet::default(),
            outbox: VecDeque::new(),
            handed_out: 0,
            victims: Vec::new(),
            lateness: Times::new()?,
            delay: Times::new()?,
            observer: None,
            now: 0,
            ready_ns: None,
            started_ns: None,
        };
        for LinkSpec { name, properties } in spec.links {
            let fate = Fate::new(core.seed, &name);
            core.links.push(Link::new(properties, fate, u32::from(mtu), core.dilation));
            core.link_names.push(name);
            core.schedule.push();
        }
        Ok(core)
    }

    /// A buffer to read a packet into, or `None` when packet memory is used up. It goes to [`Core::ingress`].
    pub fn read_buffer(&mut self) -> Option<Buffer> {
        self.pool.take_large()
    }

    /// Says that the TUNs that are read from now on were found ready at `now`: what waits in them until it is read is
    /// late by that time, which the packets' delay does not show.
    pub fn found_ready(&mut self, now: u64) {
        self.ready_ns = Some(now);
    }

    /// Takes in the packet that was read at `now` from an endpoint: the first `len` bytes of `buffer`, which came from
    /// [`Core::read_buffer`]. Afterwards `buffer` is free for the next packet (it may have been exchanged).
    pub fn ingress(&mut self, endpoint: EndpointId, buffer: &mut Buffer, len: usize, now: u64) {
        self.advance(now);
        let meters = &mut self.endpoints[endpoint.index()].meters;
        let header = match packet::read(&buffer[..len]) {
            Ok(header) if len <= usize::from(self.mtu) => header,
            Ok(_) | Err(NotRead::Malformed) => {
                meters.malformed += 1;
                return;
            }
            Err(NotRead::NotIpv4) => {
                meters.not_ipv4 += 1;
                return;
            }
        };
        meters.read.add(len as u32);
        let source = self.stations.find(header.source).filter(|s| self.stations.endpoint(*s) == endpoint);
        let (Some(source), Some(destination)) = (source, self.stations.find(header.destination)) else {
            return self.refuse(endpoint, DropCause::Unroutable, now, &buffer[..len]);
        };
        if source == destination || !self.stations.joined(source, destination) {
            return self.refuse(endpoint, DropCause::Unroutable, now, &buffer[..len]);
        }
        self.observe(Point::Read(endpoint), now, &buffer[..len]);
        let Some(stored) = self.store(buffer, len) else {
            return self.refuse(endpoint, DropCause::Host, now, &buffer[..len]);
        };
        let at = self.packets.insert(Packet {
            buffer: stored,
            len: len as u32,
            flow: header.flow,
            source,
            destination,
            station: source,
            way: Way::Up,
            link: NONE,
            attempts: 0,
            read_ns: now,
            waited_ns: self.ready_ns.map_or(0, |ready_ns| now.saturating_sub(ready_ns)),
            entered_ns: now,
            next: NONE,
        });
        self.travel(at, source, self.now);
        self.run_due();
    }

    /// Lets everything happen that is due by `now`.
    pub fn advance(&mut self, now: u64) {
        self.started_ns.get_or_insert(now);
        self.now = self.now.max(now);
        self.run_due();
    }

    /// When [`Core::advance`] next has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        self.schedule.first().map(|(at, _)| at)
    }

    /// The next packet to write, in order of delivery.
    pub fn pop_delivery(&mut self) -> Option<Delivery> {
        let delivery = self.outbox.pop_front()?;
        self.handed_out += 1;
        Some(delivery)
    }

    /// Reports the write of a delivery at `now`, and whether the TUN took it.
    pub fn written(&mut self, delivery: Delivery, now: u64, taken: bool) {
        self.handed_out -= 1;
        let endpoint = delivery.endpoint;
        if taken {
            self.endpoints[endpoint.index()].meters.written.add(delivery.len);
            let late_ns = delivery.waited_ns + now.saturating_sub(delivery.due_ns);
            self.lateness.interval.saturating_record(late_ns);
            self.delay.interval.saturating_record(delivery.due_ns - delivery.read_ns);
            let link = &mut self.links[delivery.link as usize];
            link.meters.written += 1;
            link.meters.late += u64::from(late_ns > link.late_ns);
            self.observe(Point::Written(endpoint), now, delivery.bytes());
        } else {
            self.refuse(endpoint, DropCause::Host, now, delivery.bytes());
        }
        self.pool.give(delivery.buffer);
    }

    /// Says whether an endpoint's TUN is known to hold more packets than have been read: its latest packet's link is
    /// then backlogged, though its own queue may be empty.
    pub fn set_backlogged(&mut self, endpoint: EndpointId, backlogged: bool, now: u64) {
        let endpoint = &mut self.endpoints[endpoint.index()];
        let feeding = endpoint.first_link.filter(|_| backlogged);
        let before = std::mem::replace(&mut endpoint.feeding, feeding);
        if before != feeding {
            self.advance(now);
            if let Some(link) = before {
                self.links[link as usize].set_fed(false, now);
            }
            if let Some(link) = feeding {
                self.links[link as usize].set_fed(true, now);
            }
        }
    }

    /// Sets or removes the observer; returns the one before.
    pub fn set_observer(&mut self, observer: Option<Box<dyn Observer>>) -> Option<Box<dyn Observer>> {
        std::mem::replace(&mut self.observer, observer)
    }

    fn run_due(&mut self) {
        while let Some((at, link)) = self.schedule.first()
            && at <= self.now
        {
            if let Some(packet) = self.links[link].land(at) {
                self.reschedule(link);
                let here = self.leave(link, packet, at);
                self.travel(packet, here, at);
            } else {
                self.finish_sending(link);
            }
        }
    }

    fn reschedule(&mut self, link: usize) {
        self.schedule.set(link, self.links[link].deadline());
    }

    /// Moves a packet on from the station that it has reached, through every link that does not hold it.
    fn travel(&mut self, at: u32, mut here: StationId, now: u64) {
        loop {
            let packet = &mut self.packets[at];
            let link = match self.stations.step(here, packet.destination) {
                _ if packet.way == Way::Override => return self.deliver(at, now),
                Step::Link { link, station, way } => {
                    packet.station = station;
                    packet.way = way;
                    link.0
                }
                Step::Arrived => match self.overrides.get(&(packet.source, packet.destination)) {
                    Some(&link) => {
                        packet.way = Way::Override;
                        link
                    }
                    None => return self.deliver(at, now),
                },
                Step::NoPath => {
                    let endpoint = self.stations.endpoint(packet.source);
                    let buffer = self.packets.remove(at);
                    self.endpoints[endpoint.index()].meters.drops.add(DropCause::Unroutable);
                    return self.pool.give(buffer);
                }
            };
            if packet.link == NONE {
                self.endpoints[self.stations.endpoint(packet.source).index()].first_link = Some(link);
            }
            packet.link = link;
            packet.attempts = 0;
            packet.entered_ns = now;
            if !self.enter(link as usize, at, now) {
                return;
            }
            here = self.leave(link as usize, at, now);
        }
    }

    /// Brings a packet to a link. True when it passes through at once.
    fn enter(&mut self, index: usize, at: u32, now: u64) -> bool {
        let len = self.packets[at].len;
        if let Some(observer) = &mut self.observer {
            observer.packet(Point::Entered(LinkId(index as u32)), now, self.packets[at].bytes());
        }
        let blocked = !self.blocked.is_empty() && self.is_blocked(at);
        let link = &mut self.links[index];
        link.meters.offered.add(len);
        link.meters.in_flight += 1;
        if blocked || !link.properties.up {
            let cause = if blocked { DropCause::Partition } else { DropCause::Down };
            self.turn_away(index, at, cause, now);
        } else if link.passes_at_once() {
            return self.pass_unserialised(index, at, now);
        } else if link.sending.is_none() {
            link.start(at, len, now);
            self.reschedule(index);
        } else {
            self.enqueue(index, at, now);
        }
        false
    }

    /// Drops a packet at the entry of a link. What waits in its endpoint's TUN is then no backlog of that link.
    fn turn_away(&mut self, index: usize, at: u32, cause: DropCause, now: u64) {
        let source = self.stations.endpoint(self.packets[at].source);
        let first = &mut self.endpoints[source.index()].first_link;
        *first = first.filter(|link| *link as usize != index);
        self.drop_packet(index, at, cause, now);
    }

    fn is_blocked(&self, at: u32) -> bool {
        let packet = &self.packets[at];
        let from = self.stations.endpoint(packet.source);
        self.blocked.contains(&(from, self.stations.endpoint(packet.destination)))
    }

    fn enqueue(&mut self, index: usize, at: u32, now: u64) {
        let mut victims = std::mem::take(&mut self.victims);
        // Behind others its departure does not depend on when exactly it came.
        self.packets[at].waited_ns = 0;
        let link = &mut self.links[index];
        link.begin_stretch(self.now);
        link.queue.push(at, link.queue_limit, &mut self.packets, |victim, _| victims.push(victim));
        link.meters.queue_bytes_peak = link.meters.queue_bytes_peak.max(link.queue.bytes());
        for victim in victims.drain(..) {
            self.drop_packet(index, victim, DropCause::Queue, now);
        }
        self.victims = victims;
    }

    /// A link without serialisation: airtime is nothing, but chance and repetition remain.
    fn pass_unserialised(&mut self, index: usize, at: u32, now: u64) -> bool {
        let link = &mut self.links[index];
        let packet = &mut self.packets[at];
        let mut sent_ns = now;
        loop {
            link.meters.carried.add(packet.len);
            packet.attempts = packet.attempts.saturating_add(1);
            if !link.fate.lost(link.properties.loss) {
                return self.propagate(index, at, now, sent_ns);
            }
            match link.properties.arq {
                Some(arq) if packet.attempts < arq.attempts_max => {
                    link.meters.retransmitted += 1;
                    sent_ns += arq.turnaround.as_nanos() as u64;
                }
                _ => {
                    self.drop_packet(index, at, DropCause::Loss, now);
                    return false;
                }
            }
        }
    }

    /// The airtime of the packet being sent is spent: decides its fate and starts the next.
    fn finish_sending(&mut self, index: usize) {
        let link = &mut self.links[index];
        let Some(len) = link.sending.map(|s| self.packets[s.packet].len) else {
            return self.reschedule(index);
        };
        let Some((at, now)) = link.finish(len) else { return self.reschedule(index) };
        let packet = &mut self.packets[at];
        packet.attempts = packet.attempts.saturating_add(1);
        let lost = link.fate.lost(link.properties.loss);
        if lost
            && let Some(arq) = link.properties.arq
            && packet.attempts < arq.attempts_max
        {
            link.repeat(at, len, arq.turnaround.as_nanos() as u64);
            return self.reschedule(index);
        }
        match link.queue.pop(&self.packets) {
            Some(next) => link.start(next, self.packets[next].len, now),
            None => link.idle(self.now),
        }
        if lost {
            self.drop_packet(index, at, DropCause::Loss, now);
            self.reschedule(index);
        } else {
            let passes = self.propagate(index, at, now, now);
            self.reschedule(index);
            if passes {
                let here = self.leave(index, at, now);
                self.travel(at, here, now);
            }
        }
    }

    /// Sends a packet whose transmission at `sent_ns` succeeded on its way. True when it arrives at once, at `now`.
    fn propagate(&mut self, index: usize, at: u32, now: u64, sent_ns: u64) -> bool {
        let link = &mut self.links[index];
        let packet = &mut self.packets[at];
        if link.properties.corrupt > 0.0 {
            let bits = packet::payload_bits(packet.bytes());
            if let Some(bit) = link.fate.corrupted(link.properties.corrupt, bits) {
                packet::flip(packet.bytes_mut(), bit);
                link.meters.corrupted += 1;
            }
        }
        let copies = link.fate.duplicated(link.properties.duplicate);
        let due = link.arrival(sent_ns);
        if !copies && due == now && link.air_is_clear() {
            return true;
        }
        link.launch(due, at);
        if copies {
            self.duplicate(index, at, due);
        }
        self.reschedule(index);
        false
    }

    /// Lets a packet arrive a second time at `due`. Without memory for the copy there is none.
    fn duplicate(&mut self, index: usize, at: u32, due: u64) {
        let Some(mut buffer) = self.pool.take(self.packets[at].len as usize) else { return };
        let packet = &self.packets[at];
        buffer[..packet.len as usize].copy_from_slice(packet.bytes());
        let copy = Packet { buffer, ..*packet };
        let copy = self.packets.insert(copy);
        let link = &mut self.links[index];
        link.meters.duplicated += 1;
        link.meters.in_flight += 1;
        link.launch(due, copy);
    }

    /// Takes a packet out of a link; returns the station that it has reached.
    fn leave(&mut self, index: usize, at: u32, now: u64) -> StationId {
        let packet = &self.packets[at];
        let meters = &mut self.links[index].meters;
        meters.delivered.add(packet.len);
        meters.in_flight -= 1;
        let delay_ns = now.saturating_sub(packet.entered_ns);
        meters.delay_sum_ns += delay_ns;
        meters.delay_max_ns = meters.delay_max_ns.max(delay_ns);
        match packet.way {
            Way::Up => self.stations.parent(packet.station),
            Way::Down => packet.station,
            Way::Override => packet.destination,
        }
    }

    fn deliver(&mut self, at: u32, now: u64) {
        let Packet { len, read_ns, waited_ns, link, destination, .. } = self.packets[at];
        let buffer = self.packets.remove(at);
        let endpoint = self.stations.endpoint(destination);
        self.outbox.push_back(Delivery { endpoint, due_ns: now, read_ns, waited_ns, link, len, buffer });
    }

    fn drop_packet(&mut self, index: usize, at: u32, cause: DropCause, now: u64) {
        if let Some(observer) = &mut self.observer {
            observer.packet(Point::Dropped(LinkId(index as u32), cause), now, self.packets[at].bytes());
        }
        let meters = &mut self.links[index].meters;
        meters.drops.add(cause);
        meters.in_flight -= 1;
        let buffer = self.packets.remove(at);
        self.pool.give(buffer);
    }

    fn refuse(&mut self, endpoint: EndpointId, cause: DropCause, now: u64, bytes: &[u8]) {
        self.endpoints[endpoint.index()].meters.drops.add(cause);
        self.observe(Point::Refused(endpoint, cause), now, bytes);
    }

    fn observe(&mut self, point: Point, now: u64, bytes: &[u8]) {
        if let Some(observer) = &mut self.observer {
            observer.packet(point, now, bytes);
        }
    }

    /// A buffer with the packet in it: a short packet is copied, a long one's buffer is exchanged for a fresh one.
    fn store(&mut self, buffer: &mut Buffer, len: usize) -> Option<Buffer> {
        if Pool::is_small(len) {
            let mut small = self.pool.take(len)?;
            small[..len].copy_from_slice(&buffer[..len]);
            return Some(small);
        }
        let fresh = self.pool.take_large()?;
        Some(std::mem::replace(buffer, fresh))
    }
}

fn too_many(what: &'static str, count: usize, max: usize) -> Result<(), AirError> {
    if count <= max { Ok(()) } else { Err(AirError::TooMany { what, count, max }) }
}
