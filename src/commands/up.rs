//! `dtwn up`: starts a session from a topology file.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::SystemTime,
};

use dtwn_model::{
    Plan,
    association::check_deployed,
    topology::{self, Overrides, PolicyName},
};
use dtwn_node::learning::data::Cifar10;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{attach, headless, model, plan, wrap};
use crate::{
    agent_program,
    capacity::{self, Judgement},
    cli::{OverrideArgs, UpArgs},
    error::{Error, Result},
    exit, recording,
    registry::Registry,
    session::{Options, RunFiles, Started, own_program},
    tui,
};

/// The copy of a policy's file in a run directory.
const POLICY_COPY: &str = "policy";
/// Columns of a warning.
const WIDTH: usize = 80;

/// A session that has come up.
pub struct Launched {
    /// Its name.
    pub name: String,
    /// Where it records.
    pub run_dir: PathBuf,
    /// Its process.
    pub process: Child,
}

/// Starts a session, and stays with it unless told to detach.
///
/// # Errors
/// When the topology is wrong, the machine does not suffice, or the name is taken.
pub fn run(args: &UpArgs) -> Result<u8> {
    let file = topology_file(args)?;
    let loaded = topology::load(&file, &overrides(args)?)?;
    let plan = Plan::new(&loaded.topology)?;
    check_data(&plan)?;
    let origin = args.resume.as_ref().map(|run| model::origin(run, &args.out, &plan)).transpose()?;
    if let (Some(origin), Some(rounds)) = (&origin, args.rounds)
        && rounds <= origin.round
    {
        return Err(Error::Usage {
            what: format!("{} has done {} rounds already", origin.run_dir.display(), origin.round),
            help: format!("--rounds counts them too: give {} or more", origin.round + 1),
        });
    }
    if args.dry_run {
        plan::print(&plan, args.json)?;
        return Ok(exit::OK);
    }
    let policy_file = check_policy(&file, &plan)?;
    let name = args.name.clone().unwrap_or_else(|| loaded.topology.run.name.clone());
    check_name(&name)?;
    let to_watch = !args.detach && !args.headless;
    if to_watch {
        attach::need_terminal("run it with --headless, or with --detach")?;
    }
    if plan.topology().learning.trains() {
        agent_program::require()?;
    }
    if to_watch {
        tui::check_settings()?;
    }
    let run_dir = prepare_run_dir(&args.out, &name, &plan, policy_file.as_deref(), args, origin)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::file("start", "the runtime"))?;
    let code = runtime.block_on(async {
        let mut signals = headless::Signals::listen()?;
        let launched = launch(name.clone(), run_dir, &mut signals).await?;
        if to_watch {
            return Ok(None);
        }
        if args.detach {
            eprintln!("{} is up, recording in {}", launched.name, launched.run_dir.display());
            eprintln!("`dtwn status {0}` shows it, `dtwn down {0}` ends it", launched.name);
            return Ok(Some(exit::OK));
        }
        headless::stay(launched, args, signals).await.map(Some)
    })?;
    drop(runtime);
    match code {
        Some(code) => Ok(code),
        None => tui::run(&name, tui::Options { read_only: false, fps: args.view.fps }),
    }
}

/// The layers above a topology file that a command line and the environment give.
pub fn overrides_of(args: &OverrideArgs) -> Overrides {
    let mut overrides = Overrides::from_environment();
    args.set.iter().for_each(|assignment| overrides.set(assignment));
    overrides
}

/// Checks the data set that a network learns from, record by record.
///
/// # Errors
/// [`Error::Data`].
pub fn check_data(plan: &Plan) -> Result<()> {
    let learning = &plan.topology().learning;
    if let Some(dir) = learning.data.as_ref().filter(|_| learning.trains()) {
        Cifar10::for_network(Path::new(dir), plan)?;
    }
    Ok(())
}

fn overrides(args: &UpArgs) -> Result<Overrides> {
    let mut overrides = overrides_of(&args.overrides);
    let mut flag = |name: &str, key: &str, value: Option<String>| {
        if let Some(value) = value {
            overrides.flag(&format!("--{name} {value}"), key, &value);
        }
    };
    flag("duration", "run.duration", args.duration.clone());
    flag("seed", "run.seed", args.seed.map(|seed| seed.to_string()));
    flag("dilation", "run.dilation", args.dilation.map(|dilation| dilation.to_string()));
    if let Some(dir) = &args.data {
        // Nodes work in directories of their own.
        let dir = std::path::absolute(dir).map_err(Error::file("find", dir))?;
        let text = dir.to_str().ok_or_else(|| Error::Usage {
            what: format!("--data {} is not UTF-8, as topology files are", dir.display()),
            help: "give the folder another name".into(),
        })?;
        flag("data", "learning.data", Some(text.to_owned()));
    }
    Ok(overrides)
}

/// A session's name is part of file names and of other commands' arguments.
fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || name.starts_with(['.', '-']) || !name.chars().all(fine) {
        return Err(Error::Usage {
            what: format!("`{name}` cannot be a session's name"),
            help: "use up to 64 letters, digits, `-`, `_` and `.`, not starting with `.` or `-`".into(),
        });
    }
    Ok(())
}

/// The file that describes the network: the one that is named, or that of the run that is gone on from.
fn topology_file(args: &UpArgs) -> Result<PathBuf> {
    match (&args.topology, &args.resume) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(run)) => Ok(RunFiles::topology(&recording::find(run, &args.out)?)),
        (None, None) => Err(Error::Usage {
            what: "no network is named".into(),
            help: "name a topology file, such as topologies/paper.toml".into(),
        }),
    }
}

/// Refuses a policy that cannot decide for this network; gives its file, where it has one.
pub fn check_policy(topology_file: &Path, plan: &Plan) -> Result<Option<PathBuf>> {
    let association = &plan.topology().association;
    let filed = matches!(association.policy, PolicyName::Static | PolicyName::Maddpg);
    let beside = |file: &String| topology_file.parent().unwrap_or(Path::new("")).join(file);
    let file = association.file.as_ref().filter(|_| filed).map(beside);
    check_deployed(plan, file.as_deref())?;
    Ok(file)
}

fn prepare_run_dir(
    out: &Path,
    name: &str,
    plan: &Plan,
    policy_file: Option<&Path>,
    args: &UpArgs,
    origin: Option<model::Origin>,
) -> Result<PathBuf> {
    // A name that is taken should cost nothing: no directory, no process. The session itself claims it later.
    drop(Registry::open()?.claim(name)?);
    let capacity = judge(plan);
    let run_dir = create_run_dir(out, name)?;
    fs::create_dir(run_dir.join("logs")).map_err(Error::file("create", run_dir.join("logs")))?;
    let write = |path: PathBuf, text: String| fs::write(&path, text).map_err(Error::file("write", path));
    let mut topology = plan.topology().clone();
    if let Some(file) = policy_file {
        // The run keeps a copy: what it was decided by stays with it.
        let copy = run_dir.join(POLICY_COPY);
        fs::copy(file, &copy).map_err(Error::file("copy", file))?;
        topology.association.file = Some(POLICY_COPY.into());
    }
    write(RunFiles::topology(&run_dir), topology.render()?)?;
    if let Some(origin) = &origin {
        model::take_over(origin, &run_dir, plan)?;
    }
    let options = Options {
        rounds: args.rounds,
        command: std::env::args().collect(),
        capacity: Some(capacity),
        resumed: origin,
    };
    let text = serde_json::to_string_pretty(&options).map_err(|error| Error::Output(error.into()))?;
    write(Options::path(&run_dir), text)?;
    Ok(run_dir)
}

/// Compares what the network offers with what the medium carries here, and says so when that is too little.
fn judge(plan: &Plan) -> Judgement {
    let capacity = match capacity::known() {
        Ok(capacity) => Some(capacity),
        // What keeps it from being measured will most likely keep the session from starting, which tells more.
        Err(error) => {
            tracing::debug!(%error, "the medium's capacity is not known");
            None
        }
    };
    let judgement = Judgement::new(plan, capacity);
    if let Some(advice) = judgement.advice() {
        eprintln!("{}", wrap(&advice, WIDTH).join("\n"));
    }
    judgement
}

/// Makes `<out>/<name>-<UTC>`; a second run within the same second gets a number.
fn create_run_dir(out: &Path, name: &str) -> Result<PathBuf> {
    fs::create_dir_all(out).map_err(Error::file("create", out))?;
    let out = fs::canonicalize(out).map_err(Error::file("read", out))?;
    let stamp = utc_stamp(SystemTime::now());
    for attempt in 1.. {
        let suffix = if attempt == 1 { String::new() } else { format!("-{attempt}") };
        let path = out.join(format!("{name}-{stamp}{suffix}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::File { what: "create", path, source }),
        }
    }
    unreachable!("the loop only ends by returning")
}

fn utc_stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string().replace(['-', ':'], "")
}

async fn launch(name: String, run_dir: PathBuf, signals: &mut headless::Signals) -> Result<Launched> {
    let log_path = RunFiles::log(&run_dir, "session");
    let log = File::create(&log_path).map_err(Error::file("create", &log_path))?;
    let program = own_program()?;
    let mut process = Command::new(&program)
        .arg("__session")
        .arg("--run-dir")
        .arg(&run_dir)
        .arg("--name")
        .arg(&name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(Error::file("start", &program))?;
    let mut line = String::new();
    let mut stdout = process.stdout.take().map(BufReader::new);
    let read = async {
        match &mut stdout {
            Some(stdout) => stdout.read_line(&mut line).await,
            None => Ok(0),
        }
    };
    tokio::select! {
        result = read => result.map(drop).map_err(Error::file("read from", &program))?,
        signal = signals.next() => {
            // Nothing of a session that is not up yet is worth keeping.
            let _ = process.kill().await;
            let _ = fs::remove_dir_all(&run_dir);
            return Err(Error::Check {
                what: "interrupted before the network was up".into(),
                code: exit::SIGNAL_BASE + signal as u8,
            });
        }
    }
    match serde_json::from_str(&line) {
        Ok(Started::Ready { .. }) => Ok(Launched { name, run_dir, process }),
        Ok(Started::Failed { message, help, code }) => {
            // Before the first event there is nothing in the directory that would explain more than the message does.
            if !crate::session::recorder::Recorder::path(&run_dir).exists() {
                let _ = fs::remove_dir_all(&run_dir);
            }
            Err(Error::Start { message, help, code })
        }
        Err(_) => {
            let status = process.wait().await.map_err(Error::file("wait for", &program))?;
            let log = crate::session::processes::last_lines(&log_path, 5).join("\n");
            Err(Error::Start {
                message: format!("its process ended at once ({status})\n{log}"),
                help: format!("see {}", log_path.display()),
                code: exit::FAILURE,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn run_directories_sort_by_time() {
        let stamp = utc_stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        assert_eq!(stamp, "20010909T014640Z");
    }

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "-x", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        for name in ["paper", "small-2", "a.b_c"] {
            check_name(name).unwrap();
        }
    }
}
