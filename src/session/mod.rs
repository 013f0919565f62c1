//! The session: the process that holds a network.
//!
//! One task owns all state and takes [`Input`]s in turn; connections, agents, timers and signals only send it messages. What
//! happens leaves it as events, to the recorder and to viewers. The medium runs on a thread of its own, outside tokio, whose
//! timers are too coarse for it.

mod actor;
pub mod control;
pub mod fidelity;
pub mod manifest;
pub mod medium;
pub mod network;
pub mod processes;
pub mod recorder;
mod reports;
pub mod spawner;
pub mod summary;
mod verbs;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use dtwn_model::{
    plan::Plan,
    topology::{self, PolicyName},
};
use dtwn_proto::agent::FromAgent;
use dtwn_sys::userns::Privilege;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    capacity::Judgement,
    commands::model::Origin,
    error::{Error, Result},
    machine,
    registry::{Claim, Registry},
};

pub use actor::Session;

/// Inputs waiting at most; whoever sends more waits.
const INPUTS_MAX: usize = 1024;

/// Everything that moves a session.
pub enum Input {
    /// A command or viewer asks something.
    Question(control::Question),
    /// The client of a capture has gone.
    CaptureOver(u32),
    /// A frame of a node's agent: node index, boot count.
    Agent(usize, u64, Box<FromAgent>),
    /// A node's process has ended.
    Exited(usize, u64, std::process::ExitStatus),
    /// A node's backoff is over.
    RestartDue(usize, u64),
    /// A node that was asked to stop has had its time.
    StopOverdue(usize, u64),
    /// A signal reached the session.
    Signal(i32),
}

/// What a session is told by the command that starts it, in its run directory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Options {
    /// End after this many rounds.
    pub rounds: Option<u64>,
    /// What the command line was, for the manifest.
    pub command: Vec<String>,
    /// What the network offers beside what the medium carries.
    pub capacity: Option<Judgement>,
    /// The run that this one goes on from.
    #[serde(default)]
    pub resumed: Option<Origin>,
}

impl Options {
    /// Where they are kept.
    pub fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("options.json")
    }
}

/// The first line that a session writes to standard output: whether it runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// It does.
    Ready {
        /// From the session's start to a working network, wall milliseconds.
        bringup_ms: f64,
    },
    /// It does not.
    Failed {
        /// Why.
        message: String,
        /// What to do about it.
        help: String,
        /// The exit code that fits.
        code: u8,
    },
}

/// Where things are in a run directory.
pub struct RunFiles;

impl RunFiles {
    /// The topology as rendered.
    pub fn topology(run_dir: &Path) -> PathBuf {
        run_dir.join("topology.toml")
    }

    /// A node's log, or `session`'s.
    pub fn log(run_dir: &Path, node: &str) -> PathBuf {
        run_dir.join("logs").join(format!("{node}.log"))
    }

    /// What a node keeps.
    pub fn state(run_dir: &Path, node: &str) -> PathBuf {
        run_dir.join("state").join(node)
    }

    /// The copy of the policy's file that `dtwn up` has made, where the policy has one.
    pub fn policy(run_dir: &Path, plan: &Plan) -> Option<PathBuf> {
        let association = &plan.topology().association;
        let filed = matches!(association.policy, PolicyName::Static | PolicyName::Maddpg);
        association.file.as_ref().filter(|_| filed).map(|file| run_dir.join(file))
    }

    /// Names and addresses.
    pub fn hosts(run_dir: &Path) -> PathBuf {
        run_dir.join("hosts")
    }
}

/// Runs a session to its end. Must be called before the process has started any thread: the kernel lets only
/// single-threaded processes into new user namespaces.
///
/// # Errors
/// Whatever keeps the network from coming up; it was told to the starting command by then.
pub fn run(run_dir: &Path, name: &str) -> Result<()> {
    let begun = Instant::now();
    // Out of reach of the terminal: what its process group is sent, Ctrl-C included, is for the starting command. Fails
    // only for the leader of a group, which is not in anybody else's.
    let _ = nix::unistd::setsid();
    // Out of reach of the terminal's signals and its end. Agents stay in this session: one autogroup, so that their nice values count
    // against each other and the medium (sched(7)). A process group's leader may not do this, but then nobody's terminal is ours.
    let _ = nix::unistd::setsid();
    let result = prepare(run_dir, name).and_then(|prepared| hold(prepared, begun));
    if let Err(error) = &result {
        announce(&Started::Failed {
            message: error.to_string(),
            help: miette::Diagnostic::help(error).map(|help| help.to_string()).unwrap_or_default(),
            code: error.code(),
        });
    }
    result
}

/// All that can be done before threads start.
struct Prepared {
    claim: Claim,
    listener: std::os::unix::net::UnixListener,
    plan: Plan,
    topology: String,
    options: Options,
    privilege: Privilege,
    run_dir: PathBuf,
    name: String,
}

fn prepare(run_dir: &Path, name: &str) -> Result<Prepared> {
    let path = RunFiles::topology(run_dir);
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    // The environment and the command line have had their say when the file was rendered.
    let loaded = topology::parse(&path, text.clone(), &topology::Overrides::default())?;
    let plan = Plan::new(&loaded.topology)?;
    let path = Options::path(run_dir);
    let options = fs::read(&path).map_err(Error::file("read", &path))?;
    let options = serde_json::from_slice(&options).map_err(|error| Error::File {
        what: "read",
        path,
        source: error.into(),
    })?;
    write_hosts(run_dir, &plan)?;

    machine::check_tun()?;
    // The name is claimed under our own user id, before a user namespace shows us as root.
    let claim = Registry::open()?.claim(name)?;
    let listener = std::os::unix::net::UnixListener::bind(&claim.socket)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(Error::file("create", &claim.socket))?;
    let privilege = machine::enter_namespaces()?;
    raise_descriptor_limit();
    Ok(Prepared {
        claim,
        listener,
        plan,
        topology: text,
        options,
        privilege,
        run_dir: run_dir.to_owned(),
        name: name.to_owned(),
    })
}

fn hold(prepared: Prepared, begun: Instant) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::file("start", "the runtime"))?;
    let _context = runtime.enter();
    let hosts = RunFiles::hosts(&prepared.run_dir);
    let handle = runtime.handle().clone();
    // Init and the namespaces do not need each other, and each costs some milliseconds.
    let (spawner, network) = std::thread::scope(|scope| {
        let spawner = scope.spawn(|| spawner::Spawner::start(&hosts, handle));
        let network = network::build(&prepared.plan);
        (spawner.join(), network)
    });
    let (spawner, place) = spawner.map_err(|_| dtwn_sys::SysError::Thread("start processes"))??;
    let (inputs, queue) = mpsc::channel(INPUTS_MAX);
    let (claim, listener) = (prepared.claim, prepared.listener);
    let server = control::serve(
        tokio::net::UnixListener::from_std(listener).map_err(Error::file("listen on", &claim.socket))?,
        inputs.clone(),
        prepared.name.clone(),
        prepared.run_dir.clone(),
    );
    let session = Session::new(
        actor::Parts {
            plan: prepared.plan,
            topology: prepared.topology,
            options: prepared.options,
            privilege: prepared.privilege,
            run_dir: prepared.run_dir,
            name: prepared.name,
            begun,
        },
        network?,
        spawner,
        place,
        inputs,
    )?;
    let result = runtime.block_on(async move {
        tokio::spawn(server);
        session.run(queue).await
    });
    // The name is free again only when nothing of the session is left.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    drop(claim);
    result
}

/// Tells the starting command how it went, and lets go of its pipe.
pub fn announce(started: &Started) {
    if let Ok(line) = serde_json::to_string(started) {
        // The command may be gone; the session is not any worse for it.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
    }
}

fn write_hosts(run_dir: &Path, plan: &Plan) -> Result<()> {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (address, name) in plan.hosts() {
        text.push_str(&format!("{address} {name}\n"));
    }
    let path = RunFiles::hosts(run_dir);
    fs::write(&path, text).map_err(Error::file("write", path))
}

/// A network of 250 nodes holds about ten descriptors a node; a soft limit of 1,024 is common.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The program that is running: agents and init are other faces of it.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn own_program() -> Result<PathBuf> {
    // The path and not /proc/self/exe itself, which would show as the name of every process.
    std::env::current_exe().map_err(Error::file("find", "the program itself"))
}
