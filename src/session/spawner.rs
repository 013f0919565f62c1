//! Starts processes in a session's PID namespace.
//!
//! A PID namespace belongs to the children of the *thread* that asked for it, so one thread does all the starting. It lives
//! as long as the session, which also makes it the thread whose end the kernel reports to init as the parent's death.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use dtwn_sys::{process::Placement, userns};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// What every process of a session shares: the namespaces that init holds together.
#[derive(Debug)]
pub struct Place {
    /// Namespace of process ids.
    pub pid: OwnedFd,
    /// Namespace of mounts.
    pub mounts: OwnedFd,
    /// What is not as it should be, in words.
    pub warnings: Vec<String>,
}

/// A process to start.
pub struct Job {
    /// The program and its arguments.
    pub command: Command,
    /// The network namespace that it lives in.
    pub network: OwnedFd,
    /// The mount namespace that it lives in.
    pub mounts: OwnedFd,
    /// Directory that it starts in.
    pub directory: PathBuf,
}

/// Agents give way to the medium: late packets would spoil what the agents measure. The kernel weighs this nice value at a tenth
/// of the medium's (sched(7)), so that a dozen busy agents on two cores still leave it most of one.
const NICE: i32 = 10;

type Answer = oneshot::Sender<std::io::Result<tokio::process::Child>>;

/// A handle to the thread that starts processes.
#[derive(Debug, Clone)]
pub struct Spawner {
    jobs: mpsc::SyncSender<(Job, Answer)>,
}

/// Jobs waiting at most; a caller then waits its turn.
const JOBS_MAX: usize = 64;

impl Spawner {
    /// Starts the thread and, as its first child, the init of a new PID namespace that shows `hosts` as `/etc/hosts`.
    ///
    /// # Errors
    /// When namespaces cannot be made, or init fails; with its own words.
    pub fn start(hosts: &Path, runtime: tokio::runtime::Handle) -> Result<(Self, Place)> {
        let (jobs, queue) = mpsc::sync_channel::<(Job, Answer)>(JOBS_MAX);
        let (ready, started) = mpsc::sync_channel(1);
        let hosts = hosts.to_owned();
        let work = move || {
            let mut init = match start_init(&hosts) {
                Ok((init, place)) => {
                    let _ = ready.send(Ok(place));
                    init
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _context = runtime.enter();
            while let Ok((job, answer)) = queue.recv() {
                let _ = answer.send(start(job));
            }
            // Killing init ends whatever still runs in the namespace.
            let _ = init.kill();
            let _ = init.wait();
        };
        thread::Builder::new().name("spawner".into()).spawn(work).map_err(|source| Error::File {
            what: "start",
            path: "a thread".into(),
            source,
        })?;
        let place = started.recv().map_err(|_| dtwn_sys::SysError::Thread("start processes"))??;
        Ok((Self { jobs }, place))
    }

    /// Starts a process.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub async fn spawn(&self, job: Job) -> std::io::Result<tokio::process::Child> {
        let (answer, answered) = oneshot::channel();
        let gone = || std::io::Error::other("the thread that starts processes is gone");
        self.jobs.try_send((job, answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn start(job: Job) -> std::io::Result<tokio::process::Child> {
    let mut command = job.command;
    Placement::new()
        .namespace(job.network)
        .namespace(job.mounts)
        .directory(&job.directory)
        .new_group()
        .nice(NICE)
        .apply(&mut command);
    tokio::process::Command::from(command).spawn()
}

fn start_init(hosts: &Path) -> Result<(Child, Place)> {
    userns::unshare_pid_for_children()?;
    let program = super::own_program()?;
    let mut init = Command::new(&program)
        .arg("__init")
        .arg("--hosts")
        .arg(hosts)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::file("start", &program))?;
    let mut line = String::new();
    let stdout = init.stdout.take().map(BufReader::new);
    let read = stdout.map(|mut stdout| stdout.read_line(&mut line)).transpose();
    let warnings = match (read, serde_json::from_str::<Vec<String>>(&line)) {
        (Ok(_), Ok(warnings)) => warnings,
        _ => {
            let status = init.wait().map_err(Error::file("wait for", &program))?;
            return Err(Error::Machine {
                what: format!("the first process of the network's PID namespace failed ({status})"),
                help: "see logs/session.log in the run directory; `dtwn doctor` checks this machine".into(),
            });
        }
    };
    let pid = init.id();
    let namespace = |kind: &str| {
        let path = PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
        File::open(&path).map(OwnedFd::from).map_err(Error::file("open", path))
    };
    let place = Place { pid: namespace("pid")?, mounts: namespace("mnt")?, warnings };
    Ok((init, place))
}
