//! `dtwn __init`: process 1 of a session's PID namespace.
//!
//! It prepares what every node sees (its own `/proc`, node names in `/etc/hosts`), adopts and reaps orphans, and ends when the session
//! does: with it the kernel kills all that runs in the namespace, grandchildren of `exec` included. A parent-death signal
//! alone would follow the spawning thread and miss grandchildren, which would then pin the network namespaces.

use std::{io::Read, path::PathBuf};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::error::Result;

/// What `__init` is told.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// A hosts file to show as `/etc/hosts`.
    #[arg(long)]
    hosts: PathBuf,
}

/// Runs until the session ends. Standard input is a pipe that the session holds; one line of JSON on standard output, a list
/// of warnings, says that the place is ready.
///
/// # Errors
/// When the namespace cannot be prepared.
pub fn run(args: &InitArgs) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(call("ask to die with the session"))?;
    dtwn_sys::userns::enter_mount_namespace()?;

    let mut warnings = Vec::new();
    let proc_flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(error) = mount(Some("proc"), "/proc", Some("proc"), proc_flags, None::<&str>) {
        // Containers that mask parts of /proc forbid a fresh one to unprivileged users.
        warnings.push(format!("nodes see the host's /proc: mounting a new one fails ({error})"));
    }
    if let Err(error) = mount(Some(&args.hosts), "/etc/hosts", None::<&str>, MsFlags::MS_BIND, None::<&str>) {
        warnings.push(format!("node names do not resolve: /etc/hosts cannot be covered ({error})"));
    }
    println!("{}", serde_json::Value::from(warnings));

    // Block SIGCHLD before reaping, so that none is lost between a wait and the next.
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&children), None).map_err(call("block SIGCHLD"))?;
    std::thread::spawn(|| {
        // The pipe closes when the session ends for whatever reason; a process 1 that returns takes all others with it.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    loop {
        let _ = children.wait();
        while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
    }
}

fn call(what: &'static str) -> impl FnOnce(nix::errno::Errno) -> crate::error::Error {
    move |source| dtwn_sys::SysError::Call { what: what.into(), source }.into()
}
