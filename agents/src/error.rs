//! What can go wrong on the torch side.

use std::path::PathBuf;

use tch::TchError;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// A CUDA device was asked for by name and this libtorch has none.
    #[error(
        "no CUDA device: libtorch {version} here finds none; use --device cpu, or set up again with \
         LIBTORCH_USE_PYTORCH=1 and a CUDA build of PyTorch"
    )]
    NoCuda {
        /// The libtorch in use.
        version: &'static str,
    },
    /// A flat parameter vector of another model.
    #[error("the model has {expected} parameters, not {found}")]
    ParameterCount {
        /// Parameters of the model.
        expected: usize,
        /// Length of the vector given.
        found: usize,
    },
    /// A parameter that is NaN or infinite.
    #[error("parameter {index} ({name}) is {value}, not a finite number")]
    NotFinite {
        /// Position in the flat vector.
        index: usize,
        /// The tensor that it belongs to.
        name: &'static str,
        /// What stood there.
        value: f32,
    },
    /// An argument outside its range.
    #[error("{name} is {value}; it must be at least {min}")]
    TooSmall {
        /// The argument.
        name: &'static str,
        /// What was given.
        value: i64,
        /// The least that is allowed.
        min: i64,
    },
    /// A sample that the data set does not have.
    #[error("there is no sample {sample} among {samples}")]
    NoSample {
        /// Its position.
        sample: u32,
        /// How many there are.
        samples: usize,
    },
    /// A policy that gave no decision, or a problem without an optimum.
    #[error(transparent)]
    Policy(#[from] dtwn_model::association::PolicyError),
    /// Data that cannot be had, or training that diverged.
    #[error(transparent)]
    Learning(#[from] dtwn_node::learning::learner::LearnerError),
    /// A topology that poses no association problem, or of which no network can be planned.
    #[error("{}: {reason}", path.display())]
    Topology {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A schedule of rounds that cannot be followed.
    #[error("{}: {reason}", path.display())]
    Schedule {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Progress that nobody takes.
    #[error("cannot report progress: {0}")]
    Report(#[source] std::io::Error),
    /// A training whose gradients are no numbers.
    #[error(
        "training diverged: {skipped} updates had no finite gradient by episode {episode}; try a lower learning rate"
    )]
    Diverged {
        /// The episode.
        episode: u32,
        /// Updates that were left out.
        skipped: u64,
    },
    /// A checkpoint that cannot be gone on from.
    #[error("{}: {reason}; delete it to start anew", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that cannot be used.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// "read" or "write".
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with what was being done to which file.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
