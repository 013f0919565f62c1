//! `[tcp]`: how the kernel's TCP is set up inside the network.

use crate::units::{Bytes, Interval};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// `tcp = "kernel"`, or the table `[tcp]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Tcp {
    /// Everything stays as the kernel has it in a new namespace.
    Kernel,
    /// The values given.
    Tuned(TcpTuning),
}

impl Default for Tcp {
    fn default() -> Self {
        Self::Tuned(TcpTuning::default())
    }
}

/// `[tcp]`: route attributes and sysctls of every namespace (ip-route(8), tcp(7)).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpTuning {
    /// Route `rto_min`: the shortest retransmission timeout, emulated; the route gets it times the dilation.
    pub rto_min: Interval,
    /// Route `quickack`: acknowledge at once.
    pub quickack: bool,
    /// Route `congctl`: the congestion control by its kernel name, or `auto`: `bbr` where the kernel has it, else `cubic`.
    pub congctl: String,
    /// `net.ipv4.tcp_notsent_lowat`: how much unsent data a socket takes before it stops being writable.
    pub notsent_lowat: Bytes,
    /// `net.ipv4.tcp_thin_linear_timeouts`: no exponential back-off for streams with few packets in flight.
    pub thin_linear_timeouts: bool,
    /// `net.ipv4.tcp_retries2`: how many unanswered retransmissions end a connection.
    pub retries2: u32,
    /// `net.ipv4.tcp_no_metrics_save`: learn nothing from one connection for the next.
    pub no_metrics_save: bool,
}

impl Default for TcpTuning {
    fn default() -> Self {
        Self {
            // The kernel's 200 ms is dozens of round trips here: a lost tail would stall a vote for all of them.
            rto_min: Interval::from_millis(5),
            quickack: true,
            // What takes each loss for congestion is left with two packets in flight at a loss of 20 %.
            congctl: "auto".to_owned(),
            // Keeps what a stalled peer's socket swallows to tens of kB instead of MB.
            notsent_lowat: Bytes::new(16_384),
            thin_linear_timeouts: true,
            retries2: 8,
            no_metrics_save: true,
        }
    }
}

impl Serialize for Tcp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Kernel => serializer.serialize_str("kernel"),
            Self::Tuned(tuning) => tuning.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Tcp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TcpVisitor;
        impl<'de> Visitor<'de> for TcpVisitor {
            type Value = Tcp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"kernel\" or a table")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Tcp, E> {
                match text {
                    "kernel" => Ok(Tcp::Kernel),
                    other => Err(E::unknown_variant(other, &["kernel"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tcp, A::Error> {
                TcpTuning::deserialize(MapAccessDeserializer::new(map)).map(Tcp::Tuned)
            }
        }
        deserializer.deserialize_any(TcpVisitor)
    }
}
