//! Opening a connection: the dialling side's handshake, and when to dial.

use super::config::Timing;
use super::link::{self, LinkError, LinkReceiver, LinkSender};
use super::seal::{self, Context, End, FrameKeys, Share};
use super::stats::Reject;
use dtwn_proto::bus::{Class, Envelope, Hello, NodeName, Welcome};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};

/// Dials of one lane that may be under way at once. New ones start while old ones still wait, for a first SYN lost on the
/// air is only repeated after a second.
const DIALS_MAX: usize = 16;

/// What both sides of every handshake need to know of this node.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) name: NodeName,
    pub(crate) boot: u64,
    pub(crate) key: Arc<SigningKey>,
}

/// A connection whose peer has proved itself, ready for frames.
pub(crate) struct Opened {
    pub(crate) sender: LinkSender,
    pub(crate) receiver: LinkReceiver,
    pub(crate) keys: FrameKeys,
    pub(crate) welcome: Welcome,
}

/// Why a dial led nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{0}")]
    Link(#[from] LinkError),
    #[error("the peer's answer is refused: {0:?}")]
    Refused(Reject),
    #[error("no answer in time")]
    Slow,
}

/// Dials, says hello and waits for the welcome.
async fn open(
    address: SocketAddr,
    me: &Identity,
    peer_key: &VerifyingKey,
    mut hello: Hello,
    connected: &AtomicBool,
) -> Result<Opened, DialError> {
    let stream = TcpStream::connect(address).await.map_err(LinkError::from)?;
    connected.store(true, Relaxed);
    let identity = format!("{}|{}|{}", me.name, me.boot, hello.dial);
    let (mut sender, mut receiver) = link::dealer(stream, identity.as_bytes()).await?;
    let share = Share::fresh();
    hello.share = share.public();
    let hello = seal::seal(&Envelope::Hello(hello), &Context::hello(), &me.key);
    sender.send(hello.clone()).await?;
    let sealed = tokio::select! {
        sealed = receiver.recv() => sealed?,
        verdict = sender.ended() => return Err(LinkError::Ended(verdict).into()),
    };
    match seal::open(&sealed, &Context::welcome(&hello), peer_key).map_err(DialError::Refused)? {
        Envelope::Welcome(welcome) => {
            let keys = FrameKeys::agree(End::Dialled, &share, welcome.share, &hello, &sealed);
            Ok(Opened { sender, receiver, keys: keys.map_err(DialError::Refused)?, welcome })
        }
        Envelope::Hello(_) | Envelope::Frame(_) => Err(DialError::Refused(Reject::Malformed)),
    }
}

/// The dials of one lane.
pub(crate) struct Dialler {
    me: Identity,
    peer: NodeName,
    peer_key: VerifyingKey,
    class: Class,
    addresses: Vec<SocketAddr>,
    timing: Timing,
    rng: ChaCha8Rng,
    /// Number of the next dial.
    dial: u64,
    /// Pauses since the last connection that held.
    misses: u32,
    next: Option<Instant>,
    running: JoinSet<Result<Opened, DialError>>,
    /// Handles of those running, oldest first, and whether TCP is connected.
    handles: Vec<(AbortHandle, Arc<AtomicBool>)>,
}

impl Dialler {
    pub(crate) fn new(
        me: Identity,
        peer: NodeName,
        peer_key: VerifyingKey,
        class: Class,
        addresses: Vec<SocketAddr>,
        timing: Timing,
        seed: u64,
    ) -> Self {
        Self {
            me,
            peer,
            peer_key,
            class,
            addresses,
            timing,
            rng: ChaCha8Rng::seed_from_u64(seed),
            dial: 0,
            misses: 0,
            next: None,
            running: JoinSet::new(),
            handles: Vec::new(),
        }
    }

    /// Whether this side dials at all.
    pub(crate) fn dials(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Starts a dial if one is due; when the next is. `pace` is the shortest pause worth making, about a round trip.
    pub(crate) fn poll(&mut self, now: Instant, pace: Duration) -> Instant {
        if let Some(next) = self.next
            && next > now
        {
            return next;
        }
        self.start();
        let pause = self.timing.redial_min.saturating_mul(1 << self.misses.min(16));
        let pause = pause.min(self.timing.redial_max).max(pace);
        self.misses = self.misses.saturating_add(1);
        let next = now + pause.mul_f64(self.rng.random_range(0.75..1.0));
        self.next = Some(next);
        next
    }

    fn start(&mut self) {
        self.handles.retain(|(handle, _)| !handle.is_finished());
        if self.handles.len() >= DIALS_MAX {
            // One that already has TCP is worth more than a new one.
            let Some(waiting) = self.handles.iter().position(|(_, connected)| !connected.load(Relaxed))
            else {
                return;
            };
            self.handles.remove(waiting).0.abort();
        }
        let address = self.addresses[self.dial as usize % self.addresses.len()];
        self.dial += 1;
        let hello = Hello {
            class: self.class,
            from: self.me.name.clone(),
            to: self.peer.clone(),
            boot: self.me.boot,
            dial: self.dial,
            // Made by the dial itself.
            share: [0; 32],
        };
        let (me, key, limit) = (self.me.clone(), self.peer_key, self.timing.handshake);
        let connected = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&connected);
        // The limit is around the whole dial, whose socket is thrown away with it; never around a send on a live one.
        let handle = self.running.spawn(async move {
            let opening = open(address, &me, &key, hello, &flag);
            tokio::time::timeout(limit, opening).await.unwrap_or(Err(DialError::Slow))
        });
        self.handles.push((handle, connected));
    }

    /// The next dial to finish, or what its peer was refused for, if that is why it failed. Pending while none runs.
    /// Cancel-safe.
    pub(crate) async fn finished(&mut self) -> Result<Opened, Option<Reject>> {
        match self.running.join_next().await {
            None => std::future::pending().await,
            Some(Ok(Ok(opened))) => Ok(opened),
            Some(Ok(Err(error))) => {
                tracing::trace!(peer = %self.peer, class = %self.class, %error, "dial failed");
                match error {
                    DialError::Refused(reject) | DialError::Link(LinkError::Ended(Some(reject))) => {
                        Err(Some(reject))
                    }
                    DialError::Link(_) | DialError::Slow => Err(None),
                }
            }
            Some(Err(_aborted)) => Err(None),
        }
    }

    /// Ends all dials: a connection is up. The pause goes on, so that one which breaks at once is not redialled at once.
    pub(crate) fn stop(&mut self) {
        self.running.abort_all();
        self.handles.clear();
    }

    /// A connection has held for a while: the next pause is short again.
    pub(crate) fn forgive(&mut self) {
        self.misses = 0;
    }
}
