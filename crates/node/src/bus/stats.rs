//! What the bus has counted.

use dtwn_proto::bus::Class;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Frames and connections refused, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Not ZMTP, not an envelope, or an envelope out of place.
    pub malformed: u64,
    /// A frame or message longer than allowed.
    pub oversized: u64,
    /// An envelope seen before, or of an earlier incarnation or dial.
    pub replayed: u64,
    /// A signature or tag that is not the named sender's, or a sender nobody knows.
    pub bad_signature: u64,
}

/// One class of traffic with one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassStats {
    /// Whether a connection is up over which messages leave.
    pub connected: bool,
    /// Bytes queued until acknowledged, of at most [`queue_bytes`](super::ClassLimits::queue_bytes).
    pub queue_bytes: u64,
    /// Messages accepted by [`Bus::send`](super::Bus::send).
    pub sent: u64,
    /// Messages acknowledged as delivered.
    pub acked: u64,
    /// Messages that were superseded, expired or dropped with the peer.
    pub dropped: u64,
    /// Units sent again after a new connection.
    pub resent: u64,
    /// Messages handed to the application.
    pub received: u64,
    /// Times that a new connection took over from an earlier one, or from none.
    pub connects: u64,
    /// Smoothed round-trip time (RFC 6298 §2); zero until measured.
    pub rtt: Duration,
    /// What the peer's connections were refused for.
    pub rejected: Rejected,
}

/// One peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Control traffic.
    pub control: ClassStats,
    /// Bulk traffic.
    pub bulk: ClassStats,
}

impl PeerStats {
    /// The statistics of one class.
    pub fn of(&self, class: Class) -> &ClassStats {
        match class {
            Class::Control => &self.control,
            Class::Bulk => &self.bulk,
        }
    }
}

/// The whole bus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusStats {
    /// Each peer, sorted by name.
    pub peers: Vec<(dtwn_proto::bus::NodeName, PeerStats)>,
    /// What strangers, who never proved to be a peer, were refused for.
    pub strangers: Rejected,
    /// Connections that have not proved who they are, now.
    pub strangers_open: u64,
}

impl BusStats {
    /// Whether a connection to a peer is up. Of the classes, control counts: it is the first to be up and the first to be repaired.
    pub fn is_connected(&self, peer: &str) -> bool {
        self.peers.iter().any(|(name, stats)| name.as_str() == peer && stats.control.connected)
    }
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reject {
    Malformed,
    Oversized,
    Replayed,
    BadSignature,
}

/// Counters behind [`Rejected`].
#[derive(Debug, Default)]
pub(crate) struct RejectCounters([AtomicU64; 4]);

impl RejectCounters {
    pub(crate) fn add(&self, reject: Reject) {
        self.0[reject as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Rejected {
        let of = |reject: Reject| self.0[reject as usize].load(Relaxed);
        Rejected {
            malformed: of(Reject::Malformed),
            oversized: of(Reject::Oversized),
            replayed: of(Reject::Replayed),
            bad_signature: of(Reject::BadSignature),
        }
    }
}
