//! The bus's errors.

use dtwn_proto::bus::{Class, NodeName};
use std::net::SocketAddr;

/// Why the bus cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The address to listen on cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// No peer of this name.
    #[error("{0} is not a peer of this node")]
    UnknownPeer(NodeName),
    /// A peer of this name exists, or it is this node's own.
    #[error("{0} is already known to this node")]
    DuplicatePeer(NodeName),
    /// Neither side could ever open a connection.
    #[error("peer {0} has no address to dial, and this node accepts nobody")]
    Unreachable(NodeName),
    /// The message is longer than its class allows.
    #[error("a {class} message of {bytes} bytes is too long; the limit is {limit}")]
    TooLong {
        /// Its class.
        class: Class,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The peer's queue has no room for the message; nothing was queued.
    #[error("the {class} queue for {peer} is full ({limit} bytes unacknowledged)")]
    Full {
        /// The peer.
        peer: NodeName,
        /// The class.
        class: Class,
        /// The queue's limit in bytes.
        limit: usize,
    },
    /// A message does not fit its reservation.
    #[error("a message of {bytes} bytes does not fit the reservation of {reserved}, or is of another class")]
    Reservation {
        /// The message's length.
        bytes: usize,
        /// What was reserved.
        reserved: usize,
    },
    /// The limits contradict each other.
    #[error("bus limits: {0}")]
    Limits(String),
    /// The peer was removed or the bus stopped.
    #[error("the connection to {0} has been given up")]
    Closed(NodeName),
}
