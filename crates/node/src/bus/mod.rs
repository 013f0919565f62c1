//! The bus: authenticated messages between nodes, over ZeroMQ and TCP.
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
//! * **Authentication** is by signature, not by socket: the envelopes that open a connection (`dtwn_proto::bus`) are signed
//!   with their senders' ed25519 keys and agree on fresh keys, under which every later frame carries a tag. A frame is
//!   therefore good on one connection only, and its counter without gaps makes it good there only once.
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
mod conn;
mod dial;
mod error;
mod guard;
mod inbox;
mod lane;
mod link;
mod message;
mod outbox;
mod queue;
mod seal;
mod stats;
mod strangers;

pub use config::{BusConfig, ClassLimits, Clock, Limits, PeerConfig, Timing};
pub use dtwn_proto::bus::{Class, NodeName};
pub use error::BusError;
pub use message::{Delivery, Incoming, Key, Message, Receiver, Reservation, Ticket};
pub(crate) use seal::Context;
pub use stats::{BusStats, ClassStats, PeerStats, Rejected};

use conn::Event;
use dial::{Dialler, Identity};
use ed25519_dalek::VerifyingKey;
use inbox::Inbox;
use lane::{Lane, LaneParts, LinkState};
use message::Held;
use queue::LaneShared;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use strangers::{Acceptor, Directory, Strangers};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

/// Events that may wait for a lane; readers of its connections wait when there are more, and TCP with them.
const EVENTS_MAX: usize = 16;

/// Low bits of the incarnation on the wire: how often the peer has been added. The others are [`BusConfig::boot`].
const GENERATION_BITS: u32 = 16;

/// A node's end of the bus. Clones are the same bus; it stops when the last one is dropped.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    me: Identity,
    boot: u64,
    limits: Limits,
    timing: Timing,
    seed: u64,
    clock: Arc<dyn Clock>,
    local_addr: Option<SocketAddr>,
    registry: Arc<Registry>,
    strangers: Arc<Strangers>,
    sink: mpsc::UnboundedSender<Held>,
    /// Room for received messages, by class.
    room: [Arc<Semaphore>; 2],
    acceptor: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(acceptor) = &self.acceptor {
            acceptor.abort();
        }
        self.registry.peers().clear();
    }
}

/// The peers, shared with the accepting side.
#[derive(Default)]
struct Registry {
    peers: Mutex<BTreeMap<NodeName, Peer>>,
    /// How often each name has been added: what this node sends a peer that it adds again must not look like a repetition.
    generations: Mutex<BTreeMap<NodeName, u16>>,
}

impl Registry {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeName, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_generation(&self, peer: &NodeName) -> u16 {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = generations.entry(peer.clone()).or_default();
        *generation = generation.saturating_add(1);
        *generation
    }
}

impl Directory for Registry {
    fn look_up(&self, peer: &NodeName, class: Class) -> Option<(VerifyingKey, mpsc::Sender<Event>)> {
        let peers = self.peers();
        let peer = peers.get(peer)?;
        Some((peer.key, peer.lanes[class.index()].events.clone()))
    }
}

struct Peer {
    key: VerifyingKey,
    lanes: [LaneHandle; 2],
}

struct LaneHandle {
    shared: Arc<LaneShared>,
    events: mpsc::Sender<Event>,
    task: JoinHandle<()>,
}

impl Drop for LaneHandle {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.close();
    }
}

impl Bus {
    /// Starts the bus on the current tokio runtime, which needs its I/O and time drivers.
    ///
    /// # Errors
    /// The address to listen on cannot be bound, a peer is named twice or could never be connected, or the limits
    /// contradict each other.
    pub async fn start(config: BusConfig) -> Result<(Self, Receiver), BusError> {
        config.limits.check()?;
        if config.boot >= 1 << (u64::BITS - GENERATION_BITS) {
            return Err(BusError::Limits(format!("boot is {}, it must be below 2^48", config.boot)));
        }
        let (sink, source) = mpsc::unbounded_channel();
        let registry = Arc::new(Registry::default());
        let strangers = Strangers::new(config.limits.strangers);
        let mut local_addr = None;
        let mut acceptor = None;
        if let Some(address) = config.listen {
            let refused = |source| BusError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(refused)?;
            local_addr = Some(listener.local_addr().map_err(refused)?);
            let accepting = Acceptor {
                me: config.me.clone(),
                listener,
                strangers: Arc::clone(&strangers),
                handshake: config.timing.handshake,
                directory: Arc::clone(&registry),
            };
            acceptor = Some(tokio::spawn(accepting.run()));
        }
        let inner = Inner {
            me: Identity { name: config.me, boot: config.boot, key: Arc::new(config.signing_key) },
            boot: config.boot,
            room: Class::ALL.map(|class| Arc::new(Semaphore::new(config.limits.of(class).inbox_bytes))),
            limits: config.limits,
            timing: config.timing,
            seed: config.seed,
            clock: config.clock,
            local_addr,
            registry,
            strangers,
            sink,
            acceptor,
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

    /// Adds a neighbour, as when an association changes. Must be called on the bus's runtime.
    ///
    /// # Errors
    /// [`BusError::DuplicatePeer`], [`BusError::Unreachable`].
    pub fn add_peer(&self, peer: PeerConfig) -> Result<(), BusError> {
        if peer.dial.is_empty() && self.inner.local_addr.is_none() {
            return Err(BusError::Unreachable(peer.name));
        }
        let mut peers = self.inner.registry.peers();
        if peers.contains_key(&peer.name) || peer.name == self.inner.me.name {
            return Err(BusError::DuplicatePeer(peer.name));
        }
        let generation = self.inner.registry.next_generation(&peer.name);
        let boot = self.inner.boot << GENERATION_BITS | u64::from(generation);
        let me = Identity { boot, ..self.inner.me.clone() };
        let (link, _) = watch::channel(LinkState::default());
        let lanes = Class::ALL.map(|class| self.start_lane(&peer, class, &me, link.clone()));
        peers.insert(peer.name, Peer { key: peer.key, lanes });
        Ok(())
    }

    fn start_lane(
        &self,
        peer: &PeerConfig,
        class: Class,
        me: &Identity,
        link: watch::Sender<LinkState>,
    ) -> LaneHandle {
        let inner = &self.inner;
        let limits = inner.limits.of(class);
        let shared = Arc::new(LaneShared::new(peer.name.clone(), class, limits));
        let (events, incoming_events) = mpsc::channel(EVENTS_MAX);
        // Each lane its own jitter, or all would dial in step.
        let salt = blake3::hash(format!("{} {class}", peer.name).as_bytes());
        let salt = salt.as_bytes()[..8].iter().fold(0, |salt, &byte| salt << 8 | u64::from(byte));
        let dialler = Dialler::new(
            me.clone(),
            peer.name.clone(),
            peer.key,
            class,
            peer.dial.clone(),
            inner.timing.clone(),
            inner.seed ^ salt,
        );
        let lane = Lane::new(LaneParts {
            shared: Arc::clone(&shared),
            inbox: Inbox::new(peer.name.clone(), class, limits),
            dialler,
            me: me.clone(),
            timing: inner.timing.clone(),
            clock: Arc::clone(&inner.clock),
            events: (events.clone(), incoming_events),
            sink: inner.sink.clone(),
            room: Arc::clone(&inner.room[class.index()]),
            link,
        });
        LaneHandle { shared, events, task: tokio::spawn(lane.run()) }
    }

    /// Removes a neighbour: its connections end, and what is queued for it is abandoned. Added again, it starts anew.
    ///
    /// # Errors
    /// [`BusError::UnknownPeer`].
    pub fn remove_peer(&self, peer: &NodeName) -> Result<(), BusError> {
        let removed = self.inner.registry.peers().remove(peer);
        removed.map(drop).ok_or_else(|| BusError::UnknownPeer(peer.clone()))
    }

    /// Everything counted so far.
    pub fn stats(&self) -> BusStats {
        let peers = self.inner.registry.peers();
        let of = |peer: &Peer| PeerStats {
            control: peer.lanes[0].shared.stats(),
            bulk: peer.lanes[1].shared.stats(),
        };
        BusStats {
            peers: peers.iter().map(|(name, peer)| (name.clone(), of(peer))).collect(),
            strangers: self.inner.strangers.rejected.read(),
            strangers_open: self.inner.strangers.open() as u64,
        }
    }

    /// Bytes queued for a peer in one class; 0 for nobody's.
    pub fn queued_bytes(&self, peer: &NodeName, class: Class) -> usize {
        self.lane(peer, class).map_or(0, |lane| lane.queued_bytes())
    }

    fn lane(&self, peer: &NodeName, class: Class) -> Result<Arc<LaneShared>, BusError> {
        let peers = self.inner.registry.peers();
        let found = peers.get(peer).map(|peer| Arc::clone(&peer.lanes[class.index()].shared));
        found.ok_or_else(|| BusError::UnknownPeer(peer.clone()))
    }
}
