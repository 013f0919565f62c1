//! `dtwn-agent`, the program of nodes that learn: where it is, and whether it fits this one.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    machine,
    session::own_program,
};

const NAME: &str = "dtwn-agent";
/// How long it may take to load libtorch; a cold disk needs seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `dtwn-agent version --json` says.
#[derive(Debug, Deserialize)]
pub struct Version {
    /// Its own version.
    pub version: String,
    /// That of the libtorch it is linked to.
    pub torch_version: String,
    /// Whether libtorch can use a GPU here.
    pub cuda: bool,
}

/// The program: what `DTWN_AGENT` names, else the one beside this program, else the first on PATH.
pub fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("DTWN_AGENT") {
        return Some(named.into());
    }
    let beside = own_program().ok().and_then(|program| Some(program.parent()?.join(NAME)));
    beside.filter(|path| machine::is_program(path)).or_else(|| machine::on_path(NAME))
}

/// Asks it for its versions.
///
/// # Errors
/// When it cannot be started, says nothing within a minute, or something else.
pub fn version(program: &Path) -> Result<Version> {
    let mut command = Command::new(program);
    command.args(["version", "--json"]);
    machine::ask(command, PATIENCE)
}

/// What to say where there is none.
pub fn missing() -> Error {
    Error::Machine {
        what: "nodes that learn run `dtwn-agent`, which is neither beside dtwn nor on PATH".into(),
        help: "run scripts/setup, then `cargo build --workspace` (with --release if dtwn is); or name it in \
               DTWN_AGENT; or learn nothing: --set learning.learner=traffic"
            .into(),
    }
}

/// The program, after making sure that it works and is of this program's version.
///
/// # Errors
/// What is missing, and how to get it.
pub fn require() -> Result<PathBuf> {
    let program = find().ok_or_else(missing)?;
    let said = version(&program)?;
    if said.version != dtwn_proto::VERSION {
        return Err(Error::Machine {
            what: format!(
                "{} is of version {}, dtwn of {}",
                program.display(),
                said.version,
                dtwn_proto::VERSION
            ),
            help: "build both from the same sources: `cargo build --workspace`".into(),
        });
    }
    Ok(program)
}
