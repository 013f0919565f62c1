//! What the benchmarks share: driving dtwn, loading the machine, statistics and reports.

#![allow(dead_code, reason = "each benchmark uses its part")]

pub mod load;
pub mod machine;
pub mod probe;
pub mod report;
pub mod session;
pub mod stats;

/// A benchmark stops where it fails, and says why.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The program itself, started again as a sender, receiver or load by a name that comes first among its arguments.
pub fn itself() -> Result<std::path::PathBuf> {
    Ok(std::env::current_exe()?)
}
