//! The process of a node: its conversation with the session, its clock, and the role that it plays.

use std::{
    os::{fd::AsFd, unix::net::UnixStream as StdStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dtwn_model::{
    Plan,
    plan::{NodePlan, Role},
    topology::{self, Overrides, Poison},
};
use dtwn_proto::{
    VERSION,
    agent::{AgentConfig, FromAgent, ToAgent},
    bus::NodeName,
    event::What,
    frame::{self, FrameError},
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
};

use crate::{
    association::Holder,
    bus::{Bus, BusConfig, BusError, Limits, PeerConfig, Timing},
    learning::learner::MakeLearner,
    roles,
};

/// Port on which nodes accept each other.
pub const PORT: u16 = 4700;
/// Frames for the session waiting at most; events beyond that are lost, and their sequence numbers tell.
const REPORTS_MAX: usize = 4096;
/// How often the length of the send queues is reported, wall time.
const QUEUES_PERIOD: Duration = Duration::from_secs(1);

/// Why an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Standard input is no socket to a session.
    #[error("standard input is not a session's socket: agents are started by `dtwn up` ({0})")]
    NoSession(#[source] std::io::Error),
    /// The session speaks another language.
    #[error("the session does not speak as it should: {0}")]
    Session(#[from] FrameError),
    /// The topology that the session handed over is not one.
    #[error("the session's topology: {0}")]
    Topology(#[from] topology::TopologyError),
    /// Nothing can be planned from it.
    #[error("the session's topology: {0}")]
    Plan(#[from] dtwn_model::PlanError),
    /// The session named a node, or gave a key, that does not fit the topology.
    #[error("the session's instructions: {0}")]
    Instructions(String),
    /// The chain cannot go on.
    #[error("{0}")]
    Chain(#[source] Arc<crate::chain::ChainError>),
    /// Models cannot be trained or judged.
    #[error("learning: {0}")]
    Learning(String),
    /// Twins cannot be kept.
    #[error(transparent)]
    Twins(#[from] crate::twins::store::StoreError),
    /// The bus could not be started.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The runtime could not be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] std::io::Error),
}

/// Emulated time of this run: wall time since the epoch, divided by the dilation.
#[derive(Debug, Clone, Copy)]
pub struct EmulatedClock {
    epoch_ns: u64,
    dilation: f64,
}

impl EmulatedClock {
    /// Emulated nanoseconds since the epoch; 0 before it.
    pub fn now_ns(&self) -> u64 {
        let wall_ns = monotonic_ns().saturating_sub(self.epoch_ns);
        (wall_ns as f64 / self.dilation) as u64
    }

    /// How long a wall time is in emulated time.
    pub fn emulated(&self, wall: Duration) -> Duration {
        wall.div_f64(self.dilation)
    }

    /// The wall time that this much emulated time takes.
    pub fn wall(&self, emulated_s: f64) -> Duration {
        Duration::try_from_secs_f64(emulated_s * self.dilation).unwrap_or(Duration::MAX)
    }
}

/// Tells the session what happens; clones speak with one voice.
#[derive(Debug, Clone)]
pub struct Reporter {
    frames: mpsc::Sender<FromAgent>,
    sequence: Arc<AtomicU64>,
    clock: EmulatedClock,
}

impl Reporter {
    /// Reports an event. When the session is too slow the event is lost, which its sequence number shows.
    pub fn event(&self, what: What) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let at_ns = i64::try_from(self.clock.now_ns()).unwrap_or(i64::MAX);
        let _ = self.frames.try_send(FromAgent::Event { sequence, at_ns, what });
    }
}

/// What every role works with.
pub struct Node {
    /// The network.
    pub plan: Plan,
    /// Which of its nodes this is.
    pub index: usize,
    /// Emulated time.
    pub clock: EmulatedClock,
    /// The way to the session.
    pub reporter: Reporter,
    /// What makes this node's learner, in a program that can train.
    pub learner: Option<MakeLearner>,
    /// What this node does to the models that it sends; the topology says at first, then the session.
    pub poison: watch::Receiver<Option<Poison>>,
    /// The association in force, as far as this node knows.
    pub association: Arc<Holder>,
    config: AgentConfig,
    key: SigningKey,
}

impl Node {
    /// This node's part of the plan.
    pub fn me(&self) -> &NodePlan {
        &self.plan.nodes[self.index]
    }

    /// This node's key, with which it proves itself to the others.
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// The public keys of all nodes.
    pub fn verifying_keys(&self) -> &[(String, [u8; 32])] {
        &self.config.verifying_keys
    }

    /// The public key of a node.
    ///
    /// # Errors
    /// When the session gave none for it.
    pub fn verifying_key(&self, of: &str) -> Result<VerifyingKey, AgentError> {
        let bytes = self.config.verifying_keys.iter().find(|(node, _)| node == of).map(|(_, key)| key);
        bytes
            .and_then(|bytes| VerifyingKey::from_bytes(bytes).ok())
            .ok_or_else(|| AgentError::Instructions(format!("no key for {of}")))
    }

    /// The directory in which this node may keep state.
    pub fn state_dir(&self) -> &std::path::Path {
        &self.config.state_dir
    }

    /// How often this node was started before in this run.
    pub fn boot(&self) -> u64 {
        self.config.boot
    }

    /// The file of the association policy, where it has one.
    pub fn policy_file(&self) -> Option<&std::path::Path> {
        self.config.policy_file.as_deref()
    }

    /// Seed of every random choice of the run.
    pub fn seed(&self) -> u64 {
        self.plan.topology().run.seed
    }

    /// Starts a bus under `name` (this node's, or one of its users'), with the node's key.
    ///
    /// # Errors
    /// When the address cannot be bound or the peers contradict each other.
    pub async fn bus(
        &self,
        name: &str,
        listens: bool,
        peers: Vec<PeerConfig>,
    ) -> Result<(Bus, crate::bus::Receiver), AgentError> {
        let clock = self.clock;
        // Heartbeats of many peers add up: beyond a dozen, each peer gets fewer.
        let crowd = (peers.len() as f64 / 12.0).max(1.0);
        let config = BusConfig {
            me: node_name(name)?,
            boot: self.config.boot,
            signing_key: self.key.clone(),
            listen: listens.then(|| (std::net::Ipv4Addr::UNSPECIFIED, PORT).into()),
            peers,
            limits: Limits::default(),
            timing: Timing::default().dilated(self.clock.dilation * crowd),
            seed: self.seed(),
            clock: Arc::new(move || clock.now_ns()),
        };
        Ok(Bus::start(config).await?)
    }

    /// A peer of the bus: the node `of` speaks under `name`, at `dial` if it is for us to dial.
    ///
    /// # Errors
    /// When the session gave no key for that node.
    pub fn peer(
        &self,
        name: &str,
        of: &str,
        dial: Option<std::net::Ipv4Addr>,
    ) -> Result<PeerConfig, AgentError> {
        let key = self.verifying_key(of)?;
        let dial = dial.map(|address| (address, PORT).into()).into_iter().collect();
        Ok(PeerConfig { name: node_name(name)?, key, dial })
    }

    /// Reports readiness, and from then on the length of the send queues of these buses.
    pub fn ready(&self, buses: Vec<Bus>) {
        let frames = self.reporter.frames.clone();
        let _ = frames.try_send(FromAgent::Ready);
        tokio::spawn(async move {
            let mut period = tokio::time::interval(QUEUES_PERIOD);
            loop {
                period.tick().await;
                let queued = |bus: &Bus| -> u64 {
                    bus.stats().peers.iter().map(|(_, s)| s.control.queue_bytes + s.bulk.queue_bytes).sum()
                };
                let send_queue_bytes = buses.iter().map(queued).sum();
                if frames.send(FromAgent::Queues { send_queue_bytes }).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A name as the bus wants it.
///
/// # Errors
/// [`AgentError::Instructions`] for a name that the bus does not take.
pub fn node_name(name: &str) -> Result<NodeName, AgentError> {
    NodeName::new(name).map_err(|error| AgentError::Instructions(format!("{name}: {error}")))
}

/// Runs the node that the session on standard input names, until the session says stop or is gone. `program` is the name
/// under which the agent reports: `dtwn` or `dtwn-agent`; `learner` is given by one that can train.
///
/// # Errors
/// When the session speaks another language, or the node cannot work.
pub fn run(program: &str, learner: Option<MakeLearner>) -> Result<(), AgentError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AgentError::Runtime)?;
    runtime.block_on(converse(program, learner))
}

async fn converse(program: &str, learner: Option<MakeLearner>) -> Result<(), AgentError> {
    let descriptor = std::io::stdin().as_fd().try_clone_to_owned().map_err(AgentError::NoSession)?;
    let stream = StdStream::from(descriptor);
    stream.set_nonblocking(true).map_err(AgentError::NoSession)?;
    let (mut reader, writer) = UnixStream::from_std(stream).map_err(AgentError::NoSession)?.into_split();
    let (frames, queue) = mpsc::channel(REPORTS_MAX);
    tokio::spawn(write_frames(writer, queue));
    let hello = FromAgent::Hello { program: program.to_owned(), version: VERSION.to_owned() };
    let _ = frames.try_send(hello);
    let config = match read_frame(&mut reader).await? {
        ToAgent::Start(config) => *config,
        ToAgent::Stop => return Ok(()),
        ToAgent::Poison(_) => return Err(AgentError::Instructions("told something before the start".into())),
    };
    let node = prepare(config, frames)?;
    let (poison, poisoned) = watch::channel(*node.poison.borrow());
    let node = Node { learner, poison: poisoned, ..node };
    tracing::info!(node = node.me().name, boot = node.config.boot, "started");
    tokio::select! {
        result = play(node) => result,
        // Stop, or the session gone: either way there is nothing left to work for.
        result = take_orders(&mut reader, &poison) => result,
    }
}

pub(crate) fn prepare(config: AgentConfig, frames: mpsc::Sender<FromAgent>) -> Result<Node, AgentError> {
    let loaded = topology::parse("topology.toml", config.topology.clone(), &Overrides::default())?;
    let plan = Plan::new(&loaded.topology)?;
    let index = plan
        .nodes
        .iter()
        .position(|node| node.name == config.node)
        .ok_or_else(|| AgentError::Instructions(format!("no node {} in the topology", config.node)))?;
    let clock = EmulatedClock { epoch_ns: config.epoch_monotonic_ns, dilation: plan.dilation };
    let reporter = Reporter { frames, sequence: Arc::new(AtomicU64::new(0)), clock };
    let key = SigningKey::from_bytes(&config.signing_key);
    let association = Arc::new(Holder::new(&plan));
    let poison = watch::channel(plan.topology().learning.poison.get(&config.node).copied()).1;
    Ok(Node { plan, index, clock, reporter, learner: None, poison, association, config, key })
}

async fn play(node: Node) -> Result<(), AgentError> {
    match node.me().role {
        Role::Mbs => roles::mbs::run(node).await,
        Role::Bs(bs) => roles::bs::run(node, bs).await,
        Role::Users => roles::users::run(node).await,
    }
}

/// Follows the session's orders until it is told to stop, or nobody is there to tell.
async fn take_orders(
    reader: &mut OwnedReadHalf,
    poison: &watch::Sender<Option<Poison>>,
) -> Result<(), AgentError> {
    loop {
        match read_frame(reader).await {
            Ok(ToAgent::Poison(kind)) => drop(poison.send_replace(match kind {
                None => None,
                Some(name) => Some(Poison::live(&name).ok_or_else(|| {
                    AgentError::Instructions(format!("{name} is nothing that can be done to models"))
                })?),
            })),
            Ok(ToAgent::Stop) | Err(FrameError::Closed | FrameError::Io(_)) => return Ok(()),
            Ok(ToAgent::Start(_)) => {
                return Err(AgentError::Instructions("told to start a second time".into()));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn read_frame(reader: &mut OwnedReadHalf) -> Result<ToAgent, FrameError> {
    let mut prefix = [0; 4];
    if let Err(error) = reader.read_exact(&mut prefix).await {
        return Err(match error.kind() {
            std::io::ErrorKind::UnexpectedEof => FrameError::Closed,
            _ => FrameError::Io(error),
        });
    }
    let mut body = vec![0; frame::body_length(prefix)?];
    reader.read_exact(&mut body).await?;
    frame::decode(&body)
}

async fn write_frames(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<FromAgent>) {
    while let Some(message) = queue.recv().await {
        let Ok(bytes) = frame::encode(&message) else { continue };
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// CLOCK_MONOTONIC, which the session and its agents share.
fn monotonic_ns() -> u64 {
    // std's Instant is the same clock but does not show its value.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
