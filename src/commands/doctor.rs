//! `dtwn doctor`: what this machine offers.

use crate::{cli::JsonArgs, error::Result, exit};

/// Checks the machine.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(_args: &JsonArgs) -> Result<u8> {
    Ok(exit::FAILURE)
}

/// Tries in a process of its own what a session needs.
///
/// # Errors
/// When standard output cannot be written.
pub fn probe() -> Result<u8> {
    Ok(exit::FAILURE)
}
