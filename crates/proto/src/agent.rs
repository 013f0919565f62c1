//! What the session and a node's agent say to each other over the socket pair that the agent inherits.

use serde::{Deserialize, Serialize};

use crate::event::What;

/// The file descriptor on which an agent finds its socket to the session.
pub const SOCKET_FD_VARIABLE: &str = "DTWN_AGENT_FD";

/// From the session to an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToAgent {
    /// The first frame: all that the agent has to know.
    Start(Box<AgentConfig>),
    /// From the next round on, do this to the models that are sent, as `[learning.poison]` names it; `None`: nothing.
    Poison(Option<String>),
    /// End cleanly: flush what is pending and exit with code 0.
    Stop,
}

/// From an agent to the session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromAgent {
    /// The first frame.
    Hello {
        /// `dtwn` or `dtwn-agent`.
        program: String,
        /// [`crate::VERSION`] of that program.
        version: String,
    },
    /// The agent has bound its sockets and works.
    Ready,
    /// Something happened.
    Event {
        /// Count of this agent's events, from 0.
        sequence: u64,
        /// Emulated nanoseconds since the epoch.
        at_ns: i64,
        /// What.
        what: What,
    },
    /// Bytes waiting in the send queues of the bus.
    Queues {
        /// Over all peers.
        send_queue_bytes: u64,
    },
}

/// All that an agent has to know.
#[derive(Clone, Serialize, Deserialize)]
pub struct AgentConfig {
    /// The node that it is.
    pub node: String,
    /// The rendered topology, as TOML.
    pub topology: String,
    /// CLOCK_MONOTONIC of the run's epoch, nanoseconds.
    pub epoch_monotonic_ns: u64,
    /// Distinguishes this process from those that ran the node before: 0, 1, 2 …
    pub boot: u64,
    /// Secret Ed25519 key of this node.
    pub signing_key: [u8; 32],
    /// Public Ed25519 keys of every node.
    pub verifying_keys: Vec<(String, [u8; 32])>,
    /// Directory in which the node may keep state.
    pub state_dir: std::path::PathBuf,
    /// The file of a `static` or `maddpg` policy.
    #[serde(default)]
    pub policy_file: Option<std::path::PathBuf>,
}

impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret key stays out of logs.
        f.debug_struct("AgentConfig")
            .field("node", &self.node)
            .field("boot", &self.boot)
            .finish_non_exhaustive()
    }
}
