//! What a bus is started with.

use super::error::BusError;
use dtwn_proto::bus::{Class, NodeName, UNIT_BYTES};
use ed25519_dalek::{SigningKey, VerifyingKey};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Reads the emulated time; every timestamp of the bus comes from here.
pub trait Clock: Send + Sync + 'static {
    /// Emulated time since the epoch of the run, in nanoseconds.
    fn now_ns(&self) -> u64;
}

impl<F: Fn() -> u64 + Send + Sync + 'static> Clock for F {
    fn now_ns(&self) -> u64 {
        self()
    }
}

/// How to start a [`Bus`](super::Bus).
#[derive(Clone)]
pub struct BusConfig {
    /// Name of this node.
    pub me: NodeName,
    /// Incarnation of this node, below 2^48. It must grow with every restart: a peer refuses one lower than it has met.
    pub boot: u64,
    /// Key with which this node proves itself on every connection.
    pub signing_key: SigningKey,
    /// Where to accept peers; port 0 takes a free one. `None` accepts nobody, so every peer must be dialled.
    pub listen: Option<SocketAddr>,
    /// Neighbours known from the start.
    pub peers: Vec<PeerConfig>,
    /// Sizes.
    pub limits: Limits,
    /// Intervals, in wall time.
    pub timing: Timing,
    /// Seed of the backoff's jitter. Keys come from the operating system, not from here.
    pub seed: u64,
    /// Emulated time.
    pub clock: Arc<dyn Clock>,
}

/// A neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name.
    pub name: NodeName,
    /// Its verifying key.
    pub key: VerifyingKey,
    /// Where to dial it; tried in turn.
    ///
    /// Empty: never dialled. What this node sends then goes over the connections that the peer dialled. At least one side
    /// must dial; if both do, each direction has connections of its own.
    pub dial: Vec<SocketAddr>,
}

/// Limits on memory and message sizes. Both ends of a connection must use the same `window_bytes` and `message_bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Of control traffic.
    pub control: ClassLimits,
    /// Of bulk traffic.
    pub bulk: ClassLimits,
    /// Connections that have not yet proved who they are, in all; each peer's address may have a quarter of them.
    pub strangers: usize,
}

/// Limits of one class of traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassLimits {
    /// Longest message.
    pub message_bytes: usize,
    /// Most bytes queued for one peer, sent or not, until it acknowledges them.
    pub queue_bytes: usize,
    /// Most bytes on the way to one peer: sent and not yet acknowledged as stored.
    pub window_bytes: usize,
    /// Most bytes received from all peers together and not yet taken by the application, incomplete messages included.
    pub inbox_bytes: usize,
}

const MIB: usize = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            control: ClassLimits {
                message_bytes: MIB,
                queue_bytes: 4 * MIB,
                window_bytes: 2 * MIB,
                inbox_bytes: 32 * MIB,
            },
            bulk: ClassLimits {
                message_bytes: 64 * MIB,
                queue_bytes: 64 * MIB,
                window_bytes: 2 * MIB,
                inbox_bytes: 256 * MIB,
            },
            strangers: 256,
        }
    }
}

impl Limits {
    /// Refuses limits under which some message could never pass.
    pub(super) fn check(&self) -> Result<(), BusError> {
        for class in Class::ALL {
            let limits = self.of(class);
            let least = [
                ("message_bytes", limits.message_bytes, 1),
                ("queue_bytes", limits.queue_bytes, limits.message_bytes),
                ("inbox_bytes", limits.inbox_bytes, limits.message_bytes),
                ("window_bytes", limits.window_bytes, 2 * UNIT_BYTES),
            ];
            for (what, value, at_least) in least {
                if !(at_least..=u32::MAX as usize / 2).contains(&value) {
                    return Err(BusError::Limits(format!(
                        "{class} {what} is {value}, it must be {at_least} to 2^31"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The limits of one class.
    pub fn of(&self, class: Class) -> &ClassLimits {
        match class {
            Class::Control => &self.control,
            Class::Bulk => &self.bulk,
        }
    }
}

/// Intervals of the bus, in wall time. The defaults suit dilation 1; see [`Timing::dilated`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// A connection on which nothing was sent for so long sends a heartbeat.
    pub heartbeat: Duration,
    /// A peer that owes an acknowledgement, or a heartbeat, for so long is suspected, and a new connection is built beside
    /// the old one. Grows with the measured round-trip time.
    pub suspect: Duration,
    /// A connection that was silent for so long is dropped.
    pub dead: Duration,
    /// First pause between two dials.
    pub redial_min: Duration,
    /// Longest pause between two dials. Together with four round trips it bounds how long traffic takes to flow again after
    /// a link's return.
    pub redial_max: Duration,
    /// A dial, or a stranger's handshake, that takes longer is given up.
    pub handshake: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            suspect: Duration::from_millis(250),
            dead: Duration::from_secs(3),
            redial_min: Duration::from_millis(20),
            redial_max: Duration::from_millis(100),
            handshake: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// These intervals for an emulation `dilation` times slower than wall time.
    pub fn dilated(&self, dilation: f64) -> Self {
        let scaled = |interval: Duration| interval.mul_f64(dilation.max(1.0));
        Self {
            heartbeat: scaled(self.heartbeat),
            suspect: scaled(self.suspect),
            dead: scaled(self.dead),
            redial_min: scaled(self.redial_min),
            redial_max: scaled(self.redial_max),
            handshake: scaled(self.handshake),
        }
    }
}
