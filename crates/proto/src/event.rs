//! All that happens in a run, as one stream of events.
//!
//! Views hold no other truth: the terminal, the headless progress, the summary and a replay are folds over this stream.

mod association;
mod chain;
mod learning;
mod twins;

use serde::{Deserialize, Serialize};

pub use association::AssociationDecision;
pub use chain::{ChainBlock, ChainElection, ChainOffence, ChainProgress, bucket};
pub use learning::{GlobalModel, LocalModel, TrainingAbandoned, Verification};
pub use twins::{TwinAge, TwinMoved};

/// The name under which the session itself reports.
pub const SESSION: &str = "session";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Who reports it: a node's name, or [`SESSION`].
    pub node: String,
    /// Count of that node's events since its process started, from 0; a gap means that events were lost.
    pub sequence: u64,
    /// Emulated nanoseconds since the run's epoch; negative before it.
    pub at_ns: i64,
    /// Wall-clock time, in nanoseconds since 1970-01-01 UTC.
    pub wall_unix_ns: u64,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// The session exists: everything that stays true for the run.
    SessionStarted(SessionStarted),
    /// The network is up: namespaces, air, and every agent started.
    Up {
        /// Wall milliseconds from the session's start to this moment.
        bringup_ms: f64,
    },
    /// A node's agent was started.
    NodeStarted {
        /// Which node.
        node: String,
        /// Its process id on the host.
        pid: i32,
        /// How many times it was restarted before.
        restarts: u32,
    },
    /// A node's agent reported that it is ready to work.
    NodeReady {
        /// Which node.
        node: String,
        /// `dtwn` or `dtwn-agent`, with its version.
        agent: String,
    },
    /// A node's agent ended.
    NodeExited {
        /// Which node.
        node: String,
        /// How it ended.
        exit: Exit,
        /// Whether the session had asked for it.
        expected: bool,
        /// The last lines that it logged.
        last_log: Vec<String>,
    },
    /// A node's agent was stopped or continued (SIGSTOP, SIGCONT).
    NodePaused {
        /// Which node.
        node: String,
        /// Whether it is stopped now.
        paused: bool,
    },
    /// A BS spoils its models from its next round on, or no longer does.
    NodePoisoned {
        /// Which node.
        node: String,
        /// How, as `[learning.poison]` names it; `None`: not at all.
        kind: Option<String>,
    },
    /// Properties of a link were changed by hand.
    LinkChanged {
        /// Which link.
        link: String,
        /// What was changed, in words: `loss 5%, delay 20 ms`.
        change: String,
        /// The link as it is now.
        now: LinkInfo,
    },
    /// Groups of nodes can no longer reach each other.
    Partitioned {
        /// The groups; nodes named in none of them are not affected.
        groups: Vec<Vec<String>>,
        /// Whether only what goes from the first group to the others is cut.
        #[serde(default)]
        one_way: bool,
    },
    /// All partitions were lifted.
    Healed,
    /// Rates followed the channel's fading or a new allocation; only links that changed.
    Rates {
        /// Coherence slot, from 0 at the epoch.
        slot: u64,
        /// Link and its rate in emulated bit/s.
        rates: Vec<(String, f64)>,
    },
    /// Counters of the air and of the processes, about once a second of wall time; cumulative, only what changed.
    Sample(Sample),
    /// A body went through the air.
    Transfer(Transfer),
    /// How old the twins that a BS holds are.
    TwinAges {
        /// Twins held.
        twins: u32,
        /// Twins on their way here.
        #[serde(default)]
        arriving: u32,
        /// Median age of those of whom a state has come, emulated milliseconds; `None` where none has.
        p50_ms: Option<f64>,
        /// 99th percentile of the same.
        p99_ms: Option<f64>,
        /// Each of them; where there are very many, some, and the next in the next report.
        #[serde(default)]
        each: Vec<TwinAge>,
    },
    /// A twin has a new owner.
    TwinMoved(TwinMoved),
    /// A round of the main job ended.
    Round(Round),
    /// How twins, data and subchannels are shared out in a round.
    Association(Box<AssociationDecision>),
    /// A BS has decided what it does in a round.
    Decided {
        /// The round.
        round: u64,
        /// Wall microseconds that its policy took.
        decision_us: f64,
        /// Coherence slot of the oldest part of the state that it saw.
        observed_slot: u64,
    },
    /// A BS has trained.
    LocalModel(LocalModel),
    /// A BS has abandoned training, as its round was over.
    TrainingAbandoned(TrainingAbandoned),
    /// A BS has checked another's model.
    Verification(Verification),
    /// The MBS has a new global model.
    GlobalModel(GlobalModel),
    /// How far a node's chain has come.
    ChainProgress(Box<ChainProgress>),
    /// Blocks were finalized, oldest first. The MBS reports all of them and a BS those that it built, so that a block may come
    /// twice.
    ChainBlocks {
        /// The blocks.
        blocks: Vec<ChainBlock>,
        /// How many more there were, too many to tell one by one.
        skipped: u64,
    },
    /// A node met a certificate that contradicts what it finalized: more producers are faulty than a chain bears.
    ChainConflict {
        /// The height.
        height: u64,
        /// What contradicts what, in words.
        text: String,
    },
    /// The verdict on the run's fidelity changed.
    Fidelity(Fidelity),
    /// Something a person should know.
    Notice {
        /// How grave it is.
        level: Level,
        /// In words.
        text: String,
    },
    /// The run is over; nothing follows but a summary.
    Ended {
        /// Why.
        reason: EndReason,
    },
}

/// What stays true for the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionStarted {
    /// The run's name.
    pub name: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Wall time per emulated time.
    pub dilation: f64,
    /// Version of the program.
    pub version: String,
    /// The nodes, in the order of the topology.
    pub nodes: Vec<NodeInfo>,
    /// The links of the air.
    pub links: Vec<LinkInfo>,
}

/// A node of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// `mbs`, `bs` or `users`.
    pub role: String,
    /// Its main IPv4 address.
    pub address: String,
    /// Users that it stands for.
    pub users: u32,
}

/// A link of the air: one direction, one transmitter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// `bs1>mbs`.
    pub name: String,
    /// Sending station.
    pub from: String,
    /// Receiving station.
    pub to: String,
    /// `uplink`, `downlink`, `access-up`, `access-down` or `override`.
    pub kind: String,
    /// Emulated bit/s; `None` when the link does not serialise.
    pub rate_bps: Option<f64>,
    /// Propagation delay, emulated milliseconds.
    pub delay_ms: f64,
    /// Jitter, emulated milliseconds.
    pub jitter_ms: f64,
    /// Mean packet loss probability.
    pub loss: f64,
    /// Whether it carries anything at all.
    pub up: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Cumulative counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Links that carried or dropped something since the last sample.
    pub links: Vec<LinkCounters>,
    /// Every process.
    pub nodes: Vec<NodeCounters>,
    /// CPU seconds used by the session process, the medium included.
    pub session_cpu_s: f64,
    /// 99th percentile of the lateness of deliveries since the last sample, emulated microseconds.
    pub lateness_us_p99: f64,
}

/// What a link has counted since the run began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Which link.
    pub link: String,
    /// Packets that reached the link.
    pub sent: u64,
    /// Packets that it delivered.
    pub delivered: u64,
    /// Bytes of IP that it delivered.
    pub bytes: u64,
    /// Packets that it dropped, by cause.
    pub dropped: Drops,
    /// Packets delivered with a bit flipped.
    pub corrupted: u64,
    /// Bytes waiting now.
    pub queue_bytes: u64,
    /// Share of the time since the last sample that the transmitter was busy.
    pub utilisation: f64,
    /// Packets delivered over this link later than max(1 ms, 5 % of its delay).
    pub late: u64,
}

/// Dropped packets by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// By the link's loss model.
    pub loss: u64,
    /// For want of room in the queue.
    pub queue: u64,
    /// While the link was down.
    pub down: u64,
    /// By a partition.
    pub partition: u64,
    /// For an address that belongs to no station, or to one that sent it itself.
    pub unroutable: u64,
    /// By the host: a full ring or a failed write. Any of these spoils the run's fidelity.
    pub host: u64,
}

impl Drops {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.loss + self.queue + self.down + self.partition + self.unroutable + self.host
    }
}

/// What a node's process has used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeCounters {
    /// Which node.
    pub node: String,
    /// CPU seconds, user and system.
    pub cpu_s: f64,
    /// Resident memory now, bytes.
    pub rss_bytes: u64,
    /// Bytes waiting in the bus's send queues.
    pub send_queue_bytes: u64,
}

/// A body that went through the air, seen by its receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// `twin-state`, `twin-data`, `twin-move`, `model-down`, `model-up` or `model-relay`.
    pub kind: String,
    /// Sending node (for a user, its station: `ug1.7`).
    pub from: String,
    /// Receiving node.
    pub to: String,
    /// Payload bytes.
    pub bytes: u64,
    /// From the sender's first byte to the receiver's last, emulated milliseconds.
    pub measured_ms: f64,
    /// What Eq. 7, 8 or 15 predict for the rates in force, emulated milliseconds.
    pub predicted_ms: f64,
}

impl Transfer {
    /// All kinds.
    pub const KINDS: [&'static str; 6] =
        ["twin-state", "twin-data", "twin-move", "model-down", "model-up", "model-relay"];
}

/// A round of the main job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Which, from 1.
    pub round: u64,
    /// BSs whose models are in the global model that the round made; where nothing is trained, those whose body reached the MBS in time.
    pub completed_by: Vec<String>,
    /// BSs whose model was late, or found bad; one without twins is neither.
    pub missed_by: Vec<String>,
    /// Emulated milliseconds from the announcement to the end.
    pub duration_ms: f64,
    /// Eq. 17's terms for the association and rates at its beginning, emulated milliseconds: training, broadcast, block.
    #[serde(default)]
    pub predicted_ms: Option<[f64; 3]>,
}

/// Whether the run's figures can be trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The machine kept up.
    #[default]
    Ok,
    /// Some deliveries were late, or computing took longer than it should have.
    Degraded,
    /// The host dropped packets, or a transmitter was off its rate: figures are not those of the network described.
    Invalid,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Invalid => "invalid",
        })
    }
}

/// The verdict with its grounds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// The worst so far.
    pub verdict: Verdict,
    /// Why, one line a ground; empty when `ok`.
    pub reasons: Vec<String>,
    /// Median lateness of deliveries over the run, emulated microseconds.
    pub lateness_us_p50: f64,
    /// 99th percentile of the same.
    pub lateness_us_p99: f64,
    /// Packets that the host dropped.
    pub host_drops: u64,
}

/// How grave a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its duration was over, or its rounds were done.
    Finished,
    /// A person or script asked for it (`dtwn down`).
    Asked,
    /// A signal reached the session or the command that ran it.
    Signal(i32),
    /// A node failed and the topology says not to restart it.
    NodeFailed(String),
}
