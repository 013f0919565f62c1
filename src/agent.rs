//! `dtwn __agent`: the process of a node that does not learn.

use crate::error::Result;

/// Runs the node that the session on standard input names, until the session says stop or goes.
///
/// # Errors
/// When the session speaks another language, or the node cannot work.
pub fn run() -> Result<()> {
    Ok(dtwn_node::agent::run("dtwn", None)?)
}
