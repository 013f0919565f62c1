//! The torch side of dtwn: the paper's CNN, the synthetic data set, and what the `dtwn-agent` binary does with them.
//!
//! Only this package links libtorch. A process that does pays for it before `main` (about 0.2 s and 113 MB), so nodes
//! that do not learn, and the controller, run without it.

pub mod central;
pub mod cnn;
mod error;
pub mod learner;
pub mod loops;
pub mod maddpg;
pub mod rounds;
pub mod runtime;
pub mod selftest;
pub mod synthetic;
pub mod training;

pub use error::Error;

/// The libtorch that this build is linked with, as `MAJOR.MINOR.PATCH`.
pub const TORCH_VERSION: &str = env!("DTWN_TORCH_VERSION");
