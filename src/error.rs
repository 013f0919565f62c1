//! Everything that ends a command with an error.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::exit;

/// Why a command failed. Each carries what to do about it, and decides the exit code.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The topology file or an override of it is wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Topology(#[from] dtwn_model::TopologyError),

    /// No network can be planned from the topology.
    #[error(transparent)]
    Plan(#[from] dtwn_model::PlanError),

    /// The network poses no association problem.
    #[error(transparent)]
    Problem(#[from] dtwn_model::association::ProblemError),

    /// An association policy does not fit the network, or decides nothing.
    #[error(transparent)]
    Policy(#[from] dtwn_model::association::PolicyError),

    /// A policy that cannot decide while this network runs.
    #[error(transparent)]
    #[diagnostic(help(
        "`association.policy = \"fixed\"` decides nothing; `dtwn compare` compares policies without a run"
    ))]
    Deploy(#[from] dtwn_model::association::DeployError),

    /// The machine lacks something that a network needs.
    #[error("{what}")]
    #[diagnostic(help("{help}"))]
    Machine {
        /// What is missing.
        what: String,
        /// How to mend it.
        help: String,
    },

    /// A system call failed.
    #[error(transparent)]
    #[diagnostic(help("`dtwn doctor` checks what this machine offers"))]
    System(#[from] dtwn_sys::SysError),

    /// The medium could not be started or changed.
    #[error(transparent)]
    Air(#[from] dtwn_air::AirError),

    /// A session of that name is running.
    #[error("a session called `{name}` is running already (pid {pid})")]
    #[diagnostic(help("choose another name with --name, or end it with `dtwn down {name}`"))]
    NameTaken {
        /// The name.
        name: String,
        /// Its process.
        pid: u32,
    },

    /// No session was found.
    #[error("{0}")]
    #[diagnostic(help("`dtwn ps` lists the sessions; `dtwn up TOPOLOGY` starts one"))]
    NoSession(String),

    /// An agent could not work.
    #[error(transparent)]
    Agent(#[from] dtwn_node::agent::AgentError),

    /// The data set to learn from.
    #[error(transparent)]
    #[diagnostic(help(
        "CIFAR-10's binary files are what --data and learning.data name; without either, a synthetic set is made"
    ))]
    Data(#[from] dtwn_node::learning::data::DataError),

    /// A checkpoint that cannot be used.
    #[error(transparent)]
    #[diagnostic(help("without --resume a run begins with an untrained model"))]
    Checkpoint(#[from] dtwn_node::learning::checkpoint::CheckpointError),

    /// What a base station noted of its twins and that cannot be gone on from.
    #[error(transparent)]
    #[diagnostic(help("without --resume every twin is where the topology has it"))]
    Twins(#[from] dtwn_node::twins::store::StoreError),

    /// A checkpoint of another network.
    #[error("cannot go on from a run of another network: {source}")]
    #[diagnostic(help("{differs}; leave the topology out to take that of the run"))]
    OtherNetwork {
        /// In which keys, in words.
        differs: String,
        /// What the checkpoint says.
        source: dtwn_node::learning::checkpoint::CheckpointError,
    },

    /// A chain's store or settings.
    #[error(transparent)]
    Chain(#[from] dtwn_chain::Error),

    /// A run's chain could not begin.
    #[error(transparent)]
    Genesis(#[from] dtwn_node::chain::ChainError),

    /// A run without a chain.
    #[error("{} keeps no chain", .0.display())]
    #[diagnostic(help("a chain needs at least 4 BSs and `chain.enabled` not false"))]
    NoChain(PathBuf),

    /// No such run is recorded.
    #[error("{0}")]
    #[diagnostic(help("`dtwn runs list` lists what is recorded; --out names another place for runs"))]
    NoRun(String),

    /// The session refused a request.
    #[error("{0}")]
    Refused(String),

    /// The conversation with a session broke down.
    #[error("the session {name} does not answer as it should: {source}")]
    #[diagnostic(help("see its log in the run directory, logs/session.log"))]
    Conversation {
        /// Which session.
        name: String,
        /// Why.
        source: dtwn_proto::frame::FrameError,
    },

    /// The session is of another version.
    #[error("the session {name} runs version {theirs}, this is dtwn {ours}")]
    #[diagnostic(help("use the program that started it, or end it with that program's `down`"))]
    OtherVersion {
        /// Which session.
        name: String,
        /// Its version.
        theirs: String,
        /// Our version.
        ours: &'static str,
    },

    /// A session could not start; its own words.
    #[error("the session could not start: {message}")]
    #[diagnostic(help("{help}"))]
    Start {
        /// Why.
        message: String,
        /// What to do about it.
        help: String,
        /// The exit code that the session asked for.
        code: u8,
    },

    /// Something on the command line does not make sense.
    #[error("{what}")]
    #[diagnostic(help("{help}"))]
    Usage {
        /// What is wrong.
        what: String,
        /// What would be right.
        help: String,
    },

    /// A file or directory of ours could not be used.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// "write", "read", "create" …
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },

    /// Output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] std::io::Error),

    /// An event file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Log {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: dtwn_proto::log::LogError,
    },

    /// A check failed; what it found was printed.
    #[error("{what}")]
    Check {
        /// Which check, in words.
        what: String,
        /// The exit code.
        code: u8,
    },
}

impl Error {
    /// Wraps an I/O error with what was being done to which file.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// The exit code that this error ends the program with.
    pub fn code(&self) -> u8 {
        match self {
            Self::Topology(_)
            | Self::Plan(_)
            | Self::Problem(_)
            | Self::Policy(_)
            | Self::Data(_)
            | Self::Checkpoint(_)
            | Self::Twins(_)
            | Self::OtherNetwork { .. }
            | Self::Deploy(_)
            | Self::Machine { .. }
            | Self::System(_)
            | Self::Air(_) => exit::CONFIGURATION,
            Self::Usage { .. } => exit::USAGE,
            Self::Output(_) => exit::OUTPUT,
            Self::File { what: "write" | "create", .. } => exit::OUTPUT,
            Self::Start { code, .. } | Self::Check { code, .. } => *code,
            _ => exit::FAILURE,
        }
    }
}

/// A result of a command.
pub type Result<T> = std::result::Result<T, Error>;
