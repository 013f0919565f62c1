//! The chain in the emulated network: the core of `dtwn-chain` driven by the bus, a store on disk, and emulated time.
//!
//! A node that keeps the chain runs one *driver* (`driver`), a task that owns the core. Around it are the store on a thread of
//! its own (`disk`), what goes to the bus and how (`post`), what is reported (`report`) and the load generator (`load`).
//! The rest of the node talks to it through a [`ChainHandle`].

mod disk;
mod driver;
mod genesis;
mod load;
mod post;
mod report;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dtwn_chain::{
    block::SharedBlock,
    bodies::Bodies,
    core::{Config, Core, Eager, Identity},
    crypto::Ed25519Signer,
    genesis::Registry,
    state::State,
    store::Store,
    tx::Payload,
    types::{Digest, Micros, ReplicaId},
    vote::SharedCertificate,
};
use dtwn_model::{
    ids::BsId,
    plan::Role,
    topology::{Chain as Settings, Switch},
    units::Interval,
};
use dtwn_proto::{bus::NodeName, node::ChainHeader};
use tokio::sync::{broadcast, mpsc, watch};

pub use genesis::genesis;
pub use post::{MESH_MAX, neighbours};

use crate::{
    agent::{AgentError, Node},
    association::{ground::is_deployed, records::Records},
    bus::{Bus, BusError},
};

/// The store of a node, in the directory in which it keeps its state.
pub const STORE_FILE: &str = "chain.redb";
/// Messages from other nodes that may wait for the driver; beyond, whoever hands them over waits, and the bus with it.
const MAIL_MAX: usize = 256;
/// What the rest of the node may have asked for and the driver not yet taken up.
const COMMANDS_MAX: usize = 4096;
/// Pieces of news that a subscriber may be behind before it loses the oldest.
const NEWS_MAX: usize = 1024;

/// Why a node's chain cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The session gave no key for a BS.
    #[error("no public key for {0}, which is a base station of the chain")]
    NoKey(String),
    /// The chain, or its store, says why.
    #[error(transparent)]
    Chain(#[from] dtwn_chain::Error),
    /// A name that the bus does not take.
    #[error("{0} cannot be a node of the chain: its name is not one for the bus")]
    Name(String),
    /// The thread that writes the store could not be started, or has ended.
    #[error("the thread that writes the chain's store {0}")]
    Disk(String),
    /// The bus does not know a neighbour of the chain.
    #[error("the chain's bus: {0}")]
    Bus(#[from] BusError),
}

/// What happened to the chain, for the rest of the node.
#[derive(Debug, Clone)]
pub enum ChainNews {
    /// A block was finalized.
    Committed {
        /// The block.
        block: SharedBlock,
        /// The state after it.
        state: Arc<State>,
        /// The certificate, on the last of the blocks that it finalized together.
        certificate: Option<SharedCertificate>,
    },
    /// A body that was wanted is here and matches its digest.
    Body {
        /// Which.
        digest: Digest,
        /// Its bytes.
        bytes: Arc<[u8]>,
    },
    /// A payload that was submitted here cannot be recorded.
    Rejected {
        /// The payload.
        payload: Arc<Payload>,
        /// Why.
        reason: String,
    },
}

/// What the rest of the node asks of the driver.
enum Command {
    Submit { payload: Payload, at_us: Micros },
    PutBody(Arc<[u8]>),
    WantBody(Digest, u64),
    ForgetBody(Digest),
}

/// A message of another node.
struct Mail {
    from: NodeName,
    spread: Option<u16>,
    body: Bytes,
}

/// The driver has too much to do to take another payload or body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chain has more to do than it can queue")]
pub struct Busy;

/// The rest of the node's way to the chain. Clones lead to the same one; it ends when the node's role ends.
#[derive(Clone)]
pub struct ChainHandle {
    commands: mpsc::Sender<Command>,
    mail: mpsc::Sender<Mail>,
    news: broadcast::Sender<ChainNews>,
    state: watch::Receiver<Arc<State>>,
    failure: watch::Receiver<Option<Arc<ChainError>>>,
    dropped: Arc<AtomicU64>,
    clock: crate::agent::EmulatedClock,
    id: Option<ReplicaId>,
    registry: Arc<Registry>,
    /// What the store had of the association when this node began.
    past: Arc<Mutex<Option<Records>>>,
}

impl ChainHandle {
    /// The records of the association in the blocks of the store, once: those that come later are news.
    #[must_use]
    pub fn past_records(&self) -> Option<Records> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// This node as the chain knows it; `None` at the MBS, which follows without a vote.
    #[must_use]
    pub fn id(&self) -> Option<ReplicaId> {
        self.id
    }

    /// The agreed start of the chain and its checks.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Signs a payload and has it recorded. [`ChainNews::Rejected`] tells when that cannot be; it is recorded once a
    /// [`ChainNews::Committed`] block holds it.
    ///
    /// # Errors
    /// [`Busy`]: nothing was submitted.
    pub fn submit(&self, payload: Payload) -> Result<(), Busy> {
        let command = Command::Submit { payload, at_us: self.clock.now_ns() / 1000 };
        self.commands.try_send(command).map_err(|_| {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            Busy
        })
    }

    /// Keeps a body and offers it to the others; returns its digest, for a transaction to name.
    ///
    /// # Errors
    /// [`Busy`]: it is not kept.
    pub fn put_body(&self, bytes: impl Into<Arc<[u8]>>) -> Result<Digest, Busy> {
        let bytes = bytes.into();
        let digest = Digest::of_body(&bytes);
        self.commands.try_send(Command::PutBody(bytes)).map(|()| digest).map_err(|_| Busy)
    }

    /// Has a body fetched from whoever holds it; [`ChainNews::Body`] tells when it is here, which may be at once.
    ///
    /// # Errors
    /// [`Busy`]: it is not asked for.
    pub fn want_body(&self, digest: Digest, size_bytes: u64) -> Result<(), Busy> {
        self.commands.try_send(Command::WantBody(digest, size_bytes)).map_err(|_| Busy)
    }

    /// Gives up a wanted body.
    ///
    /// # Errors
    /// [`Busy`]: it is still wanted.
    pub fn forget_body(&self, digest: Digest) -> Result<(), Busy> {
        self.commands.try_send(Command::ForgetBody(digest)).map_err(|_| Busy)
    }

    /// News from now on. A subscriber that falls behind loses the oldest, which its receiver tells; it then reads
    /// [`ChainHandle::state`].
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<ChainNews> {
        self.news.subscribe()
    }

    /// The state after the last finalized block.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// Hands over a message of the chain that came over the bus; waits while the driver has too much to do.
    pub async fn deliver(&self, from: NodeName, header: ChainHeader, body: Bytes) {
        // A driver that has ended tells so through `failed`.
        let _ = self.mail.send(Mail { from, spread: header.spread, body }).await;
    }

    /// Waits until the chain cannot go on, and says why.
    pub async fn failed(&self) -> Arc<ChainError> {
        let mut failure = self.failure.clone();
        let gone = || Arc::new(ChainError::Disk("is gone with its driver".into()));
        match failure.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }
}

/// Whether this node keeps the chain: BSs and the MBS do, where there is one.
#[must_use]
pub fn is_kept_by(node: &Node) -> bool {
    let plan = &node.plan;
    plan.topology().chain.is_on(plan.bs_count()) && !matches!(node.me().role, Role::Users)
}

/// Starts the chain of a node that keeps one.
///
/// # Errors
/// As [`start`].
pub fn join(node: &Node, bus: &Bus) -> Result<Option<ChainHandle>, AgentError> {
    if !is_kept_by(node) {
        return Ok(None);
    }
    start(node, bus).map(Some).map_err(|error| AgentError::Chain(Arc::new(error)))
}

/// Hands a message over to the chain; where there is none, it is refused.
pub async fn take(chain: Option<&ChainHandle>, from: NodeName, header: ChainHeader, body: Bytes) {
    match chain {
        Some(chain) => chain.deliver(from, header, body).await,
        None => tracing::warn!(%from, "refused a message of the chain: this node keeps none"),
    }
}

/// Waits until the chain cannot go on; for ever where there is none.
pub async fn failure(chain: Option<&ChainHandle>) -> Arc<ChainError> {
    match chain {
        Some(chain) => chain.failed().await,
        None => std::future::pending().await,
    }
}

/// Starts the chain of a BS, or of the MBS, which follows without a vote.
///
/// # Errors
/// The store is damaged, cannot be written or belongs to another chain; a key is missing.
pub fn start(node: &Node, bus: &Bus) -> Result<ChainHandle, ChainError> {
    let settings = &node.plan.topology().chain;
    let registry = Registry::new(genesis(&node.plan, node.verifying_keys())?)?;
    let (store, recovered) = open(node.state_dir(), &registry)?;
    let id = match node.me().role {
        Role::Bs(BsId(index)) => Some(ReplicaId(u16::try_from(index).unwrap_or(u16::MAX))),
        Role::Mbs | Role::Users => None,
    };
    let identity = id
        .map(|id| Identity { id, signer: Box::new(Ed25519Signer::from_seed(node.signing_key().to_bytes())) });
    let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
    let (mail, mail_queue) = mpsc::channel(MAIL_MAX);
    let (news, _) = broadcast::channel(NEWS_MAX);
    let (state_sender, state) = watch::channel(recovered.state.clone());
    let (failure_sender, failure) = watch::channel(None);
    let dropped = Arc::new(AtomicU64::new(0));
    let past = past(node, &store)?;
    let handle = ChainHandle {
        commands,
        mail,
        news: news.clone(),
        state,
        failure,
        dropped: Arc::clone(&dropped),
        clock: node.clock,
        id,
        registry: Arc::clone(&registry),
        past: Arc::new(Mutex::new(past)),
    };
    let (disk, done) = disk::Disk::start(store)?;
    let names = node.plan.nodes.iter().filter(|node| matches!(node.role, Role::Bs(_)));
    let names: Vec<String> = names.map(|node| node.name.clone()).collect();
    let report = report::Report::new(node.reporter.clone(), names.clone(), id, &recovered.state, dropped);
    let now_us = node.clock.now_ns() / 1000;
    let core = Core::new(registry, config(settings), identity, recovered, now_us);
    let driver = driver::Driver {
        core,
        bodies: Bodies::new(body_limits()),
        clock: node.clock,
        disk,
        post: post::Post::new(bus.clone(), &names, &node.plan.nodes[0].name, id, node.clock)?,
        report,
        news,
        state: state_sender,
        pending: 0,
        body_horizon: settings.body_horizon,
    };
    tokio::spawn(async move {
        let error = driver.run(command_queue, mail_queue, done).await;
        if let Some(error) = error {
            failure_sender.send_replace(Some(Arc::new(error)));
        }
    });
    if id.is_some() && settings.tx_rate > 0.0 {
        tokio::spawn(load::generate(handle.clone(), load::Load::of(node)));
    }
    Ok(handle)
}

/// The records of the association in a store; `None` where no policy decides.
fn past(node: &Node, store: &Store) -> Result<Option<Records>, ChainError> {
    if !is_deployed(&node.plan) {
        return Ok(None);
    }
    let subchannels = node.plan.topology().radio.subchannels as usize;
    let mut records = Records::new(node.plan.bs_count(), subchannels);
    for height in 1..=store.height() {
        if let Some((block, _)) = store.committed(height)?
            && !records.take(height, &block)
        {
            tracing::warn!(height, "the store has a gap below this block");
        }
    }
    Ok(Some(records))
}

fn open(
    state_dir: &Path,
    registry: &Arc<Registry>,
) -> Result<(Store, dtwn_chain::core::Recovered), ChainError> {
    Ok(Store::open(state_dir.join(STORE_FILE), Arc::clone(registry))?)
}

fn micros(time: Interval) -> Micros {
    u64::try_from(time.duration().as_micros()).unwrap_or(Micros::MAX)
}

fn config(settings: &Settings) -> Config {
    Config {
        slot_us: micros(settings.slot),
        idle_us: micros(settings.idle),
        timeout_min_us: micros(settings.timeout_min),
        timeout_max_us: micros(settings.timeout_max),
        retry_min_us: micros(settings.retry),
        eager_certificates: match settings.eager_certificates {
            Switch::On => Eager::Always,
            Switch::Auto => Eager::Slow,
            Switch::Off => Eager::Never,
        },
        gossip_us: 1_000,
        ..Config::default()
    }
}

/// Chunks share the links with models of whole rounds: patience costs nothing, asking twice costs airtime.
fn body_limits() -> dtwn_chain::bodies::BodyLimits {
    let timeout_us = u64::try_from(Duration::from_secs(3).as_micros()).unwrap_or(Micros::MAX);
    dtwn_chain::bodies::BodyLimits { timeout_us, ..Default::default() }
}

#[cfg(test)]
mod tests;
