//! One link: its transmitter in logical time, what propagates behind it, and its counters.

use std::collections::VecDeque;

use super::fate::Fate;
use super::queue::PacketQueue;
use super::schedule::NEVER;
use crate::meters::{LinkMeters, STRETCH_MIN_NS};
use crate::spec::{LinkPatch, LinkProperties, QueueBytes};

/// Fractional bits of a [`Logical`] time and of the time a byte takes.
const FRACTION: u32 = 24;

/// An auto-sized queue holds at least TCP's initial window of ten full packets (RFC 6928).
const QUEUE_BYTES_MIN: u64 = 15_000;

/// The least time by which a reordered packet is held back.
const HOLD_MIN_NS: u64 = 1_000_000;
/// Deliveries that are less late than this are in time, however short the link's delay.
const LATE_MIN_NS: u64 = 1_000_000;
/// An automatic queue holds at least what the link sends in this time.
const QUEUE_NS_MIN: u64 = 20_000_000;

/// A time on the transmitter's own clock, ns with a fraction: rounding each airtime to whole nanoseconds would add up
/// to a rate error on fast links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Logical {
    pub(super) ns: u64,
    fraction: u32,
}

impl Logical {
    fn at(ns: u64) -> Self {
        Self { ns, fraction: 0 }
    }

    fn plus(self, fixed: u128) -> Self {
        let sum = fixed + u128::from(self.fraction);
        let ns = u64::try_from(sum >> FRACTION).map_or(NEVER, |ns| self.ns.saturating_add(ns));
        Self { ns, fraction: (sum & ((1 << FRACTION) - 1)) as u32 }
    }
}

/// A packet being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    pub(super) packet: u32,
    /// When its airtime began.
    begin: Logical,
    finish: Logical,
    /// Bytes not yet sent at `left_from_ns`.
    bytes_left: f64,
    left_from_ns: u64,
    /// Up to when its airtime (and an ARQ turnaround before it) is credited to the backlogged stretch.
    credited_ns: u64,
}

/// A time in which packets were always waiting for the transmitter.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    since_ns: u64,
    settled_ns: u64,
    capacity_bytes: f64,
    served_bytes: f64,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) properties: LinkProperties,
    /// Time a byte takes, ns in fixed point; 0 without serialisation. Meaningless while stalled.
    byte_fixed: u64,
    bytes_per_ns: f64,
    stalled: bool,
    pub(super) queue_limit: u64,
    pub(super) queue: PacketQueue,
    pub(super) sending: Option<Sending>,
    last_finish: Logical,
    /// Packets under way, by time of arrival.
    air: VecDeque<(u64, u32)>,
    /// Arrival of the last packet that was not held back: later ones keep behind it.
    in_order_ns: u64,
    pub(super) fate: Fate,
    pub(super) meters: LinkMeters,
    stretch: Option<Stretch>,
    /// More packets for this link are known to wait in the TUN.
    fed: bool,
    /// Lateness beyond this counts as late.
    pub(super) late_ns: u64,
    /// Stretches constants of time; see [`AirSpec::dilation`](crate::AirSpec::dilation).
    dilation: f64,
}

impl Link {
    pub(super) fn new(properties: LinkProperties, fate: Fate, quantum: u32, dilation: f64) -> Self {
        let queue = PacketQueue::new(properties.queue.discipline, quantum);
        let mut link = Self {
            properties,
            byte_fixed: 0,
            bytes_per_ns: 0.0,
            stalled: false,
            queue_limit: 0,
            queue,
            sending: None,
            last_finish: Logical::default(),
            air: VecDeque::new(),
            in_order_ns: 0,
            fate,
            meters: LinkMeters::default(),
            stretch: None,
            fed: false,
            late_ns: 0,
            dilation,
        };
        link.derive();
        link
    }

    /// Recomputes what follows from the properties.
    fn derive(&mut self) {
        let rate_bps = self.properties.rate_bps;
        self.stalled = rate_bps == Some(0.0);
        let ns_per_byte = rate_bps.filter(|r| *r > 0.0).map_or(0.0, |r| 8e9 / r);
        self.byte_fixed = (ns_per_byte * f64::from(1u32 << FRACTION)).round() as u64;
        self.bytes_per_ns = rate_bps.unwrap_or(0.0) / 8e9;
        let delay_ns = self.delay_ns();
        self.late_ns = (delay_ns / 20).max(self.stretched(LATE_MIN_NS));
        self.queue_limit = match self.properties.queue.bytes {
            QueueBytes::Bytes(bytes) => bytes,
            QueueBytes::Auto => {
                let span_ns = (4 * delay_ns).max(self.stretched(QUEUE_NS_MIN));
                ((self.bytes_per_ns * span_ns as f64) as u64).max(QUEUE_BYTES_MIN)
            }
        };
    }

    fn stretched(&self, ns: u64) -> u64 {
        (ns as f64 * self.dilation) as u64
    }

    fn delay_ns(&self) -> u64 {
        self.properties.delay.as_nanos() as u64
    }

    /// Without serialisation and with nothing ahead, a packet passes the transmitter at once.
    pub(super) fn passes_at_once(&self) -> bool {
        self.properties.rate_bps.is_none() && self.sending.is_none()
    }

    /// When the link next has something to do.
    pub(super) fn deadline(&self) -> u64 {
        let sent = self.sending.map_or(NEVER, |s| s.finish.ns);
        self.air.front().map_or(sent, |(due, _)| sent.min(*due))
    }

    /// Changes properties at `now`; what is being sent goes on at the new rate.
    pub(super) fn apply(&mut self, patch: &LinkPatch, now: u64) {
        let properties = patch.applied_to(&self.properties);
        let rate_changes = properties.rate_bps != self.properties.rate_bps;
        if rate_changes {
            self.settle(now);
            if let Some(sending) = &mut self.sending
                && now > sending.left_from_ns
            {
                let sent = (now - sending.left_from_ns) as f64 * self.bytes_per_ns;
                sending.bytes_left = (sending.bytes_left - sent).max(0.0);
                sending.left_from_ns = now;
            }
        }
        self.properties = properties;
        self.derive();
        if rate_changes {
            if let Some(mut sending) = self.sending {
                sending.finish = self.finish_of(sending.left_from_ns, sending.bytes_left);
                self.sending = Some(sending);
            }
            if self.properties.rate_bps.is_none() {
                self.end_stretch(now);
            }
        }
    }

    fn finish_of(&self, from_ns: u64, bytes_left: f64) -> Logical {
        if self.stalled {
            return Logical::at(NEVER);
        }
        Logical::at(from_ns).plus((bytes_left * self.byte_fixed as f64) as u128)
    }

    /// Starts to send a packet that came (or became ready) at `ready_ns`: then, or when the one before it is through.
    pub(super) fn start(&mut self, packet: u32, len: u32, ready_ns: u64) {
        let begin = if ready_ns > self.last_finish.ns { Logical::at(ready_ns) } else { self.last_finish };
        let finish = if self.stalled {
            Logical::at(NEVER)
        } else {
            begin.plus(u128::from(self.byte_fixed) * u128::from(len))
        };
        self.sending = Some(Sending {
            packet,
            begin,
            finish,
            bytes_left: f64::from(len),
            left_from_ns: begin.ns,
            credited_ns: begin.ns,
        });
    }

    /// Sends a packet again, `turnaround_ns` after its last transmission. The transmitter is not free in between, so
    /// that time counts as service of the backlog.
    pub(super) fn repeat(&mut self, packet: u32, len: u32, turnaround_ns: u64) {
        self.meters.retransmitted += 1;
        self.start(packet, len, self.last_finish.ns.saturating_add(turnaround_ns));
        if let Some(sending) = &mut self.sending {
            sending.credited_ns = self.last_finish.ns;
        }
    }

    /// Ends the airtime of the packet being sent; returns it and the time.
    pub(super) fn finish(&mut self, len: u32) -> Option<(u32, u64)> {
        let finish = self.sending?.finish;
        self.credit(finish.ns);
        let sent = self.sending.take()?;
        self.last_finish = finish;
        self.meters.carried.add(len);
        self.meters.busy_ns += finish.ns - sent.begin.ns;
        Some((sent.packet, finish.ns))
    }

    /// Takes the packet being sent off the air, as when the link goes down.
    pub(super) fn abort(&mut self, now: u64) -> Option<u32> {
        self.credit(now);
        let sent = self.sending.take()?;
        self.meters.busy_ns += now.saturating_sub(sent.begin.ns);
        self.last_finish = Logical::at(now);
        Some(sent.packet)
    }

    /// When a packet that leaves the transmitter at `at` arrives, and keeps order unless it is held back.
    pub(super) fn arrival(&mut self, at: u64) -> u64 {
        let properties = &self.properties;
        let delay_ns = properties.delay.as_nanos() as u64;
        let due = at + delay_ns + self.fate.jitter_ns(properties.jitter);
        if self.fate.reordered(properties.reorder) {
            self.meters.reordered += 1;
            return due + delay_ns.max(self.stretched(HOLD_MIN_NS));
        }
        self.in_order_ns = self.in_order_ns.max(due);
        self.in_order_ns
    }

    pub(super) fn air_is_clear(&self) -> bool {
        self.air.is_empty()
    }

    /// Puts a packet on its way. Almost always it goes to the end; packets behind one that is held back do not.
    pub(super) fn launch(&mut self, due: u64, packet: u32) {
        let behind = self.air.iter().rev().take_while(|(other, _)| *other > due).count();
        self.air.insert(self.air.len() - behind, (due, packet));
    }

    /// The next packet that has arrived by `at`.
    pub(super) fn land(&mut self, at: u64) -> Option<u32> {
        self.air.front().filter(|(due, _)| *due <= at)?;
        self.air.pop_front().map(|(_, packet)| packet)
    }

    /// Packets wait for the transmitter from `now` on.
    pub(super) fn begin_stretch(&mut self, now: u64) {
        if self.stretch.is_none() && self.properties.rate_bps.is_some() {
            let stretch = Stretch { since_ns: now, settled_ns: now, capacity_bytes: 0.0, served_bytes: 0.0 };
            self.stretch = Some(stretch);
        }
    }

    /// The transmitter has nothing left to send; the stretch ends unless its TUN holds more.
    pub(super) fn idle(&mut self, now: u64) {
        if !self.fed && self.sending.is_none() {
            self.end_stretch(now);
        }
    }

    /// Says whether the TUN that feeds this link is known to hold more packets.
    pub(super) fn set_fed(&mut self, fed: bool, now: u64) {
        self.fed = fed;
        if fed { self.begin_stretch(now) } else { self.idle(now) }
    }

    /// Brings the stretch's integrals to `now`.
    fn settle(&mut self, now: u64) {
        self.credit(now);
        if let Some(stretch) = &mut self.stretch {
            let span = now.saturating_sub(stretch.settled_ns);
            stretch.capacity_bytes += span as f64 * self.bytes_per_ns;
            stretch.settled_ns = now;
        }
    }

    /// Credits the airtime up to `until`, as far as it lies in the stretch.
    fn credit(&mut self, until: u64) {
        let (Some(stretch), Some(sending)) = (&mut self.stretch, &mut self.sending) else { return };
        let until = until.min(sending.finish.ns);
        let from = sending.credited_ns.max(stretch.since_ns);
        stretch.served_bytes += until.saturating_sub(from) as f64 * self.bytes_per_ns;
        sending.credited_ns = sending.credited_ns.max(until);
    }

    fn end_stretch(&mut self, now: u64) {
        self.settle(now);
        if let Some(stretch) = self.stretch.take() {
            stretch.commit(&mut self.meters, now);
        }
    }

    /// The counters at `now`.
    pub(super) fn snapshot(&mut self, now: u64) -> LinkMeters {
        self.settle(now);
        let mut meters = self.meters;
        if let Some(stretch) = self.stretch {
            stretch.commit(&mut meters, now);
        }
        if let Some(sending) = self.sending {
            meters.busy_ns += now.min(sending.finish.ns).saturating_sub(sending.begin.ns);
        }
        meters.queue_bytes = self.queue.bytes();
        meters.queue_packets = self.queue.packets();
        meters.queue_limit_bytes = self.queue_limit;
        meters.rate_bps = self.properties.rate_bps;
        meters
    }
}

impl Stretch {
    fn commit(&self, meters: &mut LinkMeters, now: u64) {
        let span = now.saturating_sub(self.since_ns);
        if span >= STRETCH_MIN_NS {
            meters.backlogged_ns += span;
            meters.backlogged_bytes += self.served_bytes;
            meters.backlogged_capacity_bytes += self.capacity_bytes;
        }
    }
}
