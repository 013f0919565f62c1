//! `dtwn exec`: runs a program inside a node's namespaces.

use std::{os::fd::OwnedFd, os::unix::process::ExitStatusExt, process::Command};

use dtwn_proto::control::{Request, Response};
use dtwn_sys::{fdpass, process::Placement};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{SigSet, Signal},
};

use crate::{
    cli::ExecArgs,
    client::Client,
    error::{Error, Result},
    exit,
};

/// Runs the program and ends with its exit code; with 128 + the signal when a signal ended it, with 127 when there is no such
/// program and with 126 when it may not be run, as shells do.
///
/// # Errors
/// When the session or the node does not exist, or its namespaces cannot be entered.
pub fn run(args: ExecArgs) -> Result<u8> {
    let mut client = Client::connect(args.session.session.as_deref(), false)?;
    let Response::Namespaces { user, count } = client.ask(&Request::Enter { node: args.node })? else {
        return Err(client.surprise());
    };
    let mut fds = fdpass::receive(client.socket())?;
    if fds.len() != count || count < 3 {
        return Err(client.surprise());
    }
    drop(client);
    let enter = |fd: OwnedFd, what: &str, kind| {
        setns(&fd, kind)
            .map_err(|source| dtwn_sys::SysError::Call { what: format!("enter the node's {what}"), source })
    };
    // Without privileges the right to the other namespaces comes with their user namespace.
    if user {
        enter(fds.remove(0), "user namespace", CloneFlags::CLONE_NEWUSER)?;
    }
    let network = fds.remove(0);
    enter(fds.remove(0), "PID namespace", CloneFlags::CLONE_NEWPID)?;
    let mounts = fds.remove(0);

    let mut words = args.command.into_iter();
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(words);
    let mut placement = Placement::new().namespace(network).namespace(mounts).die_with_parent();
    if let Ok(directory) = std::env::current_dir() {
        placement = placement.directory(&directory);
    }
    placement.apply(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("dtwn exec: {}: no such program", program.display());
            return Ok(127);
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            // A directory of PATH that may not be searched is reported like a program that may not be run.
            let there = is_there(&program);
            let why = if there { "may not be run" } else { "no such program" };
            eprintln!("dtwn exec: {}: {why}", program.display());
            return Ok(if there { 126 } else { 127 });
        }
        Err(source) => return Err(Error::File { what: "run", path: program.into(), source }),
    };
    // The terminal sends its signals to the program as well; what it makes of them is for the program to say.
    let mut terminal = SigSet::empty();
    terminal.add(Signal::SIGINT);
    terminal.add(Signal::SIGQUIT);
    let _ = terminal.thread_block();
    let status =
        child.wait().map_err(|source| Error::File { what: "wait for", path: program.into(), source })?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => exit::SIGNAL_BASE.wrapping_add(signal as u8),
        (None, None) => exit::FAILURE,
    })
}

/// Whether a program of that name exists, by its path or somewhere in PATH.
fn is_there(program: &std::ffi::OsStr) -> bool {
    let path = std::path::Path::new(program);
    if path.components().count() > 1 {
        return true;
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(path).is_file())
}
