//! What commands and viewers ask of a running session, over its control socket.
//!
//! A client sends [`Hello`], the session answers [`Response::Welcome`]; then one [`Response`] follows each [`Request`], in order.
//! After [`Request::Subscribe`] the session sends [`Response::Event`]s until the client goes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Exit, Fidelity, LinkCounters, LinkInfo, NodeCounters, TwinAge};

/// A client's first frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`] of the client.
    pub version: String,
    /// Refuse this connection everything that would change the run.
    pub read_only: bool,
}

/// What a client asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The state of the run now.
    Status,
    /// The events of the run: those so far from the file, then each as it happens.
    Subscribe {
        /// Send the events so far as well.
        history: bool,
    },
    /// The namespaces of a node: [`Response::Namespaces`], followed by the descriptors (`SCM_RIGHTS`).
    Enter {
        /// Which node.
        node: String,
    },
    /// Change properties of a link, live.
    SetLink {
        /// Sending station.
        from: String,
        /// Receiving station.
        to: String,
        /// What to change.
        change: LinkChange,
    },
    /// Keep groups of nodes from reaching each other, on top of partitions in force.
    Partition {
        /// The groups.
        groups: Vec<Vec<String>>,
        /// Only cut what goes from the first group to the others.
        one_way: bool,
    },
    /// Lift all partitions.
    Heal,
    /// Do something to the process of a node.
    Node {
        /// Which node.
        node: String,
        /// What to do.
        action: NodeAction,
    },
    /// Have a BS spoil its models from its next round on.
    Poison {
        /// Which BS.
        node: String,
        /// How, as `[learning.poison]` names it; `None`: not at all.
        kind: Option<String>,
    },
    /// Record packets as pcapng into the descriptor that follows (`SCM_RIGHTS`), until the client goes.
    Capture {
        /// What to record.
        of: CaptureOf,
    },
    /// End the run.
    Stop {
        /// The signal that made the client ask, if one did.
        signal: Option<i32>,
    },
}

impl Request {
    /// Whether a read-only connection may ask this.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Status | Self::Subscribe { .. })
    }
}

/// What to do to a node's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeAction {
    /// SIGKILL; the restart policy decides what follows.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// End it cleanly and start it again.
    Restart,
}

/// What to record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureOf {
    /// Every packet of the air.
    Everything,
    /// What a node sends and receives.
    Node(String),
    /// What passes a link.
    Link {
        /// Sending station.
        from: String,
        /// Receiving station.
        to: String,
    },
}

/// Changes to a link; what is `None` stays as it is. Times and rates are emulated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkChange {
    /// Puts everything back first to how the topology and the radio have it; what else is named comes on top.
    #[serde(default)]
    pub reset: bool,
    /// Propagation delay, milliseconds.
    pub delay_ms: Option<f64>,
    /// Jitter, milliseconds.
    pub jitter_ms: Option<f64>,
    /// Independent loss probability.
    pub loss: Option<f64>,
    /// Rate in bit/s; holds until a reset, instead of the radio's.
    pub rate_bps: Option<f64>,
    /// Duplication probability.
    pub duplicate: Option<f64>,
    /// Probability of a flipped bit.
    pub corrupt: Option<f64>,
    /// Probability of overtaking.
    pub reorder: Option<f64>,
    /// Queue length in bytes.
    pub queue_bytes: Option<u64>,
    /// Whether it carries anything at all.
    pub up: Option<bool>,
}

/// What the session answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Hello`].
    Welcome {
        /// [`crate::VERSION`] of the session.
        version: String,
        /// The run's name.
        name: String,
        /// Where it records.
        run_dir: PathBuf,
    },
    /// Done.
    Done,
    /// Refused, with the reason and what would be right.
    Refused(String),
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// Follows [`Request::Subscribe`].
    Event(Box<Event>),
    /// The viewer read too slowly: this many events were left out here.
    Skipped(u64),
    /// All events before the subscription were sent; what follows is live.
    Live,
    /// To [`Request::Enter`]: how many descriptors follow, and of which sort.
    Namespaces {
        /// Whether the first descriptor is a user namespace to enter before the others.
        user: bool,
        /// How many descriptors follow.
        count: usize,
    },
    /// To [`Request::Capture`]: packets are being recorded until the client shuts down its end of the connection;
    /// [`Response::Done`] follows when the last one is written.
    Capturing {
        /// The capture's number.
        id: u32,
    },
}

/// The state of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// Schema of this object.
    pub schema: u32,
    /// The run's name.
    pub name: String,
    /// Process id of the session.
    pub pid: u32,
    /// Where it records.
    pub run_dir: PathBuf,
    /// Emulated seconds since the epoch.
    pub emulated_s: f64,
    /// Wall seconds since the epoch.
    pub wall_s: f64,
    /// Wall time per emulated time.
    pub dilation: f64,
    /// Whether the figures can be trusted.
    pub fidelity: Fidelity,
    /// Rounds of the main job that ended.
    pub rounds: u64,
    /// Every node.
    pub nodes: Vec<NodeStatus>,
    /// Every link.
    pub links: Vec<LinkStatus>,
    /// Every twin that a BS has reported.
    #[serde(default)]
    pub twins: Vec<TwinStatus>,
    /// Partitions in force, as pairs of nodes of which the first cannot reach the second.
    pub blocked: Vec<(String, String)>,
}

/// A node, now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `mbs`, `bs` or `users`.
    pub role: String,
    /// Its main IPv4 address.
    pub address: String,
    /// `starting`, `ready`, `paused`, `restarting` or `exited`.
    pub state: String,
    /// Its process, while it has one.
    pub pid: Option<i32>,
    /// How its last process ended.
    pub exit: Option<Exit>,
    /// How often it was started again.
    pub restarts: u32,
    /// What its process has used.
    pub used: NodeCounters,
}

/// A twin, as its BS reported it last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TwinStatus {
    /// The BS.
    pub bs: String,
    /// Its age, and its last state.
    #[serde(flatten)]
    pub age: TwinAge,
}

/// A link, now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkStatus {
    /// What it is.
    #[serde(flatten)]
    pub info: LinkInfo,
    /// What it has counted.
    pub counters: LinkCounters,
}
