//! What can go wrong on the torch side.

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
}
