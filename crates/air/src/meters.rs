//! What the medium counts, as plain data.
//!
//! Every counter grows from the start of the medium; a reader takes differences. Only the `interval` summaries
//! cover the time since the previous snapshot.

use serde::{Deserialize, Serialize};

use crate::spec::{LinkProperties, StationId};

/// Packets and their bytes (whole IP packets).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    pub(crate) fn add(&mut self, bytes: u32) {
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropCause {
    /// The link's random loss, after the airtime was spent.
    Loss,
    /// The link's queue was full.
    Queue,
    /// The link was down.
    Down,
    /// Its two endpoints are partitioned.
    Partition,
    /// No station has its source (behind this endpoint) or its destination, or no path joins them.
    Unroutable,
    /// This machine failed: the write into the TUN was refused, or the packet memory was used up.
    Host,
}

impl DropCause {
    /// The cause as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Queue => "queue",
            Self::Down => "down",
            Self::Partition => "partition",
            Self::Unroutable => "unroutable",
            Self::Host => "host",
        }
    }
}

impl DropCause {
    /// What a capture says of the packet.
    pub(crate) fn as_comment(self) -> &'static str {
        match self {
            Self::Loss => "dropped: loss",
            Self::Queue => "dropped: queue",
            Self::Down => "dropped: down",
            Self::Partition => "dropped: partition",
            Self::Unroutable => "dropped: unroutable",
            Self::Host => "dropped: host",
        }
    }
}

/// Dropped packets by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is documented by the DropCause of its name")]
pub struct Drops {
    pub loss: u64,
    pub queue: u64,
    pub down: u64,
    pub partition: u64,
    pub unroutable: u64,
    pub host: u64,
}

impl Drops {
    pub(crate) fn add(&mut self, cause: DropCause) {
        *match cause {
            DropCause::Loss => &mut self.loss,
            DropCause::Queue => &mut self.queue,
            DropCause::Down => &mut self.down,
            DropCause::Partition => &mut self.partition,
            DropCause::Unroutable => &mut self.unroutable,
            DropCause::Host => &mut self.host,
        } += 1;
    }

    /// Packets dropped for any cause.
    pub fn total(&self) -> u64 {
        self.loss + self.queue + self.down + self.partition + self.unroutable + self.host
    }
}

/// One link's counters. Conservation: `offered + duplicated = delivered + drops + in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkMeters {
    /// Packets that came to the link.
    pub offered: Count,
    /// Transmissions: packets whose airtime has been spent, each repetition by `arq` included.
    pub carried: Count,
    /// Packets that left the link towards the next one or a TUN, duplicates included.
    pub delivered: Count,
    /// Dropped at this link. (`unroutable` and `host` happen at endpoints and are 0 here.)
    pub drops: Drops,
    /// Copies made by `duplicate`.
    pub duplicated: u64,
    /// Packets that went on with a flipped bit.
    pub corrupted: u64,
    /// Packets that were held back so that others overtake them.
    pub reordered: u64,
    /// Repetitions by `arq`.
    pub retransmitted: u64,
    /// Packets now inside the link: queued, being sent or propagating.
    pub in_flight: u64,
    /// Bytes now queued (without the packet being sent).
    pub queue_bytes: u64,
    /// Packets now queued.
    pub queue_packets: u64,
    /// The queue's present bound in bytes.
    pub queue_limit_bytes: u64,
    /// The most bytes ever queued.
    pub queue_bytes_peak: u64,
    /// The present rate, bit/s; `None` without serialisation.
    pub rate_bps: Option<f64>,
    /// Time in which the transmitter was sending.
    pub busy_ns: u64,
    /// Wall time in backlogged stretches of at least [`STRETCH_MIN_NS`]: packets were waiting for the transmitter
    /// in its queue, or in the TUN that feeds it.
    pub backlogged_ns: u64,
    /// What was sent in those stretches.
    pub backlogged_bytes: f64,
    /// What the configured rate would have sent in them. `backlogged_bytes` more than 5 % away from this means
    /// that the machine did not keep the rate.
    pub backlogged_capacity_bytes: f64,
    /// Sum over delivered packets of the time from entering the link to leaving it.
    pub delay_sum_ns: u64,
    /// The longest of these times.
    pub delay_max_ns: u64,
    /// Packets written into a TUN by way of this link as the last one.
    pub written: u64,
    /// Of these, written later than scheduled by more than max(1 ms, 5 % of the link's delay). The link's p99
    /// lateness is above that threshold when `late > written / 100`.
    pub late: u64,
}

/// Backlogged stretches shorter than this are not judged: the end of each is seen late by a wake-up of the thread.
pub const STRETCH_MIN_NS: u64 = 10_000_000;

/// One endpoint's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointMeters {
    /// IPv4 packets read from its TUN.
    pub read: Count,
    /// Packets written into its TUN.
    pub written: Count,
    /// Packets from this endpoint that are `unroutable`; `host` for packets from it that found packet memory used
    /// up, and for writes into its TUN that failed.
    pub drops: Drops,
    /// Read packets that were not IPv4: ignored.
    pub not_ipv4: u64,
    /// Read packets with a broken IPv4 header, or longer than the MTU: ignored.
    pub malformed: u64,
}

/// Counters of an override, the virtual link between two stations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverrideMeters {
    /// Sending station.
    pub from: StationId,
    /// Receiving station.
    pub to: StationId,
    /// Its properties.
    pub properties: LinkProperties,
    /// Its counters.
    pub meters: LinkMeters,
}

/// Quantiles of a distribution of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeSummary {
    /// Samples.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Maximum.
    pub max_ns: u64,
}

/// A distribution since the previous snapshot and since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// Since the previous snapshot.
    pub interval: TimeSummary,
    /// Since the start.
    pub overall: TimeSummary,
}

/// The medium as a whole. Conservation: `read + duplicated = written + drops + in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// IPv4 packets read from all TUNs.
    pub read: Count,
    /// Packets written into all TUNs.
    pub written: Count,
    /// Drops at links and endpoints.
    pub drops: Drops,
    /// Copies made by `duplicate`.
    pub duplicated: u64,
    /// Packets now inside the medium.
    pub in_flight: u64,
    /// Memory held by packet buffers, bytes.
    pub buffer_bytes: u64,
    /// Packets that captures could not keep up with (they were not recorded; the packets themselves went on).
    pub capture_missed: u64,
}

/// The state of the medium's counters at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AirSnapshot {
    /// When, on CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// When the medium started, on CLOCK_MONOTONIC.
    pub started_ns: u64,
    /// CPU time that the medium's thread has used.
    pub cpu_ns: u64,
    /// By [`LinkId`](crate::LinkId).
    pub links: Vec<LinkMeters>,
    /// The overrides in force.
    pub overrides: Vec<OverrideMeters>,
    /// By [`EndpointId`](crate::EndpointId).
    pub endpoints: Vec<EndpointMeters>,
    /// All together.
    pub totals: Totals,
    /// Actual time of the write into the TUN minus the scheduled time of delivery, and the time for which the packet is
    /// known to have waited in its sender's TUN before it was read.
    pub lateness: Distribution,
    /// Scheduled time of delivery minus the time of reading: the delay that packets were given.
    pub delay: Distribution,
}
