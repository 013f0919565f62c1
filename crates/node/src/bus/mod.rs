//! The bus: signed messages between nodes, over ZeroMQ and TCP.
//!
//! # What the application gets
//! [`Bus::send`] queues a message for a peer or refuses it ([`BusError::Full`]); its [`Ticket`] resolves to
//! [`Delivery::Delivered`] once the peer has handed the message to its application. What is acknowledged has been handed
//! over **exactly once** within the peer's incarnation, and messages of one peer and class come out in the order in which
//! they were sent (one that supersedes another takes that one's place). A message waits in its bounded queue through any
//! number of broken connections, and a transfer goes on where it stopped.
//!
//! Across a restart of either side delivery is **lossy**: queues live in memory, a peer that comes back has forgotten what
//! it received, and what it had not acknowledged is sent to it again. Whoever needs a thing asks again.
//!
//! # How it works
//! Each peer has two *lanes*, one per [`Class`], each with an outbox, an inbox and connections of its own. A connection is a
//! ZeroMQ DEALER on the side that dialled and a ZeroMQ ROUTER on the other. If both sides dial, each direction has its own.
//!
//! * **Authentication** is by signature, not by socket: every envelope (`dtwn_proto::bus`) is signed with its sender's
//!   ed25519 key over a context made of both sides' fresh nonces, so an envelope is good on one connection only, and carries
//!   a counter without gaps, so it is good there only once.
//! * **Acknowledgements** are cumulative: `stored` moves the window of at most `window_bytes` under way, `delivered`
//!   frees the queue. Both survive a change of connection.
//! * **Backlog.** A frame is handed to ZeroMQ only when little of the earlier ones still waits in front of the network, so
//!   what can still be superseded or can expire sits in the outbox.
//! * **Liveness.** Both ends send heartbeats. A peer that is silent too long or owes an acknowledgement too long is
//!   *suspected*: new connections are dialled beside the old one, and the first to finish its handshake takes over, unless
//!   the old one came back to life before. TCP's own retransmission backoff, the reason why a returned link stays slow, is
//!   never waited for. Pauses between dials grow to [`Timing::redial_max`].
//! * **Bounds.** Queues, windows, inboxes, strangers and dials are all bounded; see [`Limits`].
//!
//! # Why so much of it
//! The `zeromq` crate (0.7) neither reconnects a DEALER nor bounds a queue in bytes, a message or a frame header: 9 bytes
//! that announce 2^50 more end the process. A second connection with a live identity removes the first, and one ROUTER's
//! peers share its queue and its fate. Therefore every connection here has a ZeroMQ socket to itself, and between that and
//! the network stands a *guard* (module `guard`) that owns the TCP stream: it lets through nothing but well-formed ZMTP with frames of at most the
//! longest envelope, knows how much has left, and can end the connection from outside.

mod config;
mod error;
mod message;
mod outbox;
mod queue;
mod stats;

pub use config::{BusConfig, ClassLimits, Clock, Limits, PeerConfig, Timing};
pub use dtwn_proto::bus::{Class, NodeName};
pub use error::BusError;
pub use message::{Delivery, Incoming, Key, Message, Receiver, Reservation, Ticket};
pub use stats::{BusStats, ClassStats, PeerStats, Rejected};

use queue::LaneShared;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// A node's end of the bus. Clones are the same bus; it stops when the last one is dropped.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    me: NodeName,
    limits: Limits,
    clock: Arc<dyn Clock>,
    local_addr: Option<SocketAddr>,
    peers: Mutex<BTreeMap<NodeName, Peer>>,
}

struct Peer {
    lanes: [Arc<LaneShared>; 2],
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.lanes.iter().for_each(|lane| lane.close());
    }
}

impl Bus {
    /// Starts the bus on the current tokio runtime, which needs its I/O and time drivers.
    ///
    /// # Errors
    /// The address to listen on cannot be bound, a peer is named twice or could never be connected, or the limits
    /// contradict each other.
    pub async fn start(config: BusConfig) -> Result<(Self, Receiver), BusError> {
        let (_sink, source) = mpsc::unbounded_channel();
        let inner = Inner {
            me: config.me,
            limits: config.limits,
            clock: config.clock,
            local_addr: None,
            peers: Mutex::default(),
        };
        let bus = Self { inner: Arc::new(inner) };
        for peer in config.peers {
            bus.add_peer(peer)?;
        }
        Ok((bus, Receiver(source)))
    }

    /// Where this bus accepts peers, with the port that was chosen.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.inner.local_addr
    }

    /// Queues a message for a peer.
    ///
    /// # Errors
    /// [`BusError::Full`] if the queue has no room: nothing was queued. [`BusError::TooLong`], [`BusError::UnknownPeer`].
    pub fn send(&self, peer: &NodeName, message: Message) -> Result<Ticket, BusError> {
        self.lane(peer, message.class)?.push(message, None, self.inner.clock.now_ns())
    }

    /// Waits until the queue for a peer has room for a message of `bytes`: backpressure for senders that can wait.
    ///
    /// # Errors
    /// [`BusError::TooLong`], [`BusError::UnknownPeer`]; [`BusError::Closed`] if the peer is removed meanwhile.
    pub async fn reserve(
        &self,
        peer: &NodeName,
        class: Class,
        bytes: usize,
    ) -> Result<Reservation, BusError> {
        let lane = self.lane(peer, class)?;
        let room = lane.reserve(bytes).await?;
        Ok(Reservation { lane, room, bytes, clock: Arc::clone(&self.inner.clock) })
    }

    /// Adds a neighbour, as when an association changes.
    ///
    /// # Errors
    /// [`BusError::DuplicatePeer`], [`BusError::Unreachable`].
    pub fn add_peer(&self, peer: PeerConfig) -> Result<(), BusError> {
        let mut peers = self.peers();
        if peers.contains_key(&peer.name) || peer.name == self.inner.me {
            return Err(BusError::DuplicatePeer(peer.name));
        }
        let lanes = Class::ALL
            .map(|class| Arc::new(LaneShared::new(peer.name.clone(), class, self.inner.limits.of(class))));
        peers.insert(peer.name, Peer { lanes });
        Ok(())
    }

    /// Removes a neighbour: its connections end, and what is queued for it is abandoned.
    ///
    /// # Errors
    /// [`BusError::UnknownPeer`].
    pub fn remove_peer(&self, peer: &NodeName) -> Result<(), BusError> {
        let removed = self.peers().remove(peer);
        removed.map(drop).ok_or_else(|| BusError::UnknownPeer(peer.clone()))
    }

    /// Everything counted so far.
    pub fn stats(&self) -> BusStats {
        let peers = self.peers();
        let of = |peer: &Peer| PeerStats { control: peer.lanes[0].stats(), bulk: peer.lanes[1].stats() };
        BusStats {
            peers: peers.iter().map(|(name, peer)| (name.clone(), of(peer))).collect(),
            ..BusStats::default()
        }
    }

    fn lane(&self, peer: &NodeName, class: Class) -> Result<Arc<LaneShared>, BusError> {
        let peers = self.peers();
        let found = peers.get(peer).map(|peer| Arc::clone(&peer.lanes[class.index()]));
        found.ok_or_else(|| BusError::UnknownPeer(peer.clone()))
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeName, Peer>> {
        self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
