//! `dtwn graph`: draws a topology.

use crate::{cli::GraphArgs, error::Result, exit};

/// Draws a topology.
///
/// # Errors
/// When the topology is wrong or the output cannot be written.
pub fn run(_args: &GraphArgs) -> Result<u8> {
    Ok(exit::FAILURE)
}
