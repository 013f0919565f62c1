//! Driving the real program: sessions that come up, run commands inside nodes, and go down with a verdict.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Result, machine};

/// The program under test, with a folder for what it records.
pub struct Dtwn {
    program: PathBuf,
    home: TempDir,
}

impl Dtwn {
    /// The program that was built with this benchmark.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn new() -> Result<Self> {
        Ok(Self { program: env!("CARGO_BIN_EXE_dtwn").into(), home: TempDir::with_prefix("dtwn-bench-")? })
    }

    /// A command line of the program.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Brings up the network that `topology` describes.
    ///
    /// # Errors
    /// With the program's own words when it does not come up.
    pub fn up(&self, topology: &str) -> Result<Session<'_>> {
        let path = self.home.path().join("topology.toml");
        fs::write(&path, topology)?;
        self.up_file(&path)
    }

    /// The same, with the learner that the topology asks for.
    ///
    /// # Errors
    /// With the program's own words when it does not come up.
    pub fn up_learning(&self, topology: &str) -> Result<Session<'_>> {
        let path = self.home.path().join("topology.toml");
        fs::write(&path, topology)?;
        self.bring_up(&path, &[])
    }

    /// The same, from a file.
    ///
    /// # Errors
    /// With the program's own words when it does not come up.
    pub fn up_file(&self, topology: &Path) -> Result<Session<'_>> {
        // What is measured here is the network; training would take its processors.
        self.bring_up(topology, &["--set", "learning.learner=traffic"])
    }

    fn bring_up(&self, topology: &Path, options: &[&str]) -> Result<Session<'_>> {
        let name = format!("bench-{}", std::process::id());
        let mut command = self.command(["up", "--detach", "--name", &name, "--out"]);
        command.arg(self.home.path().join("runs")).arg(topology).args(options);
        let (busy, begun) = (machine::busy()?, Instant::now());
        run(&mut command)?;
        let up = begun.elapsed();
        let up_cpu = machine::busy()?.saturating_sub(busy);
        let mut session =
            Session { dtwn: self, name, pid: 0, run_dir: PathBuf::new(), up, up_cpu, is_up: true };
        let status = session.status()?;
        session.pid = status["pid"].as_u64().ok_or("a status without a pid")?;
        session.run_dir = status["run_dir"].as_str().ok_or("a status without a run directory")?.into();
        Ok(session)
    }
}

/// A network that is up. Dropped, it goes down.
pub struct Session<'a> {
    dtwn: &'a Dtwn,
    /// Its name.
    pub name: String,
    /// The process that holds it.
    pub pid: u64,
    /// Where it records.
    pub run_dir: PathBuf,
    /// Wall time of `dtwn up --detach`.
    pub up: Duration,
    /// What the machine computed in that time.
    pub up_cpu: Duration,
    is_up: bool,
}

/// How a session went.
pub struct Ending {
    /// Wall time of `dtwn down`.
    pub down: Duration,
    /// What the machine computed in that time.
    pub down_cpu: Duration,
    /// `summary.json`.
    pub summary: Value,
}

impl Ending {
    /// The verdict on the run's fidelity.
    pub fn verdict(&self) -> &str {
        self.summary["verdict"].as_str().unwrap_or("?")
    }

    /// A link's counters over the whole run.
    pub fn link(&self, from: &str, to: &str) -> &Value {
        let links = self.summary["links"].as_array().map_or(&[][..], Vec::as_slice);
        links.iter().find(|link| link["from"] == from && link["to"] == to).unwrap_or(&Value::Null)
    }
}

impl Session<'_> {
    /// A command that runs a program at a node.
    pub fn exec<S: AsRef<OsStr>>(
        &self,
        node: &str,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.dtwn.command(["exec", "--session", &self.name, node, "--"]);
        command.arg(program).args(args);
        command
    }

    /// Gives the session an order: `["link", "set", …]`.
    ///
    /// # Errors
    /// With the program's own words.
    pub fn order(&self, args: &[&str]) -> Result<()> {
        run(self.dtwn.command(args).args(["--session", &self.name])).map(drop)
    }

    /// Stops the agents (SIGSTOP), so that nothing is on the air but what the benchmark sends.
    ///
    /// # Errors
    /// With the program's own words.
    pub fn silence(&self) -> Result<()> {
        let status = self.status()?;
        for node in status["nodes"].as_array().map_or(&[][..], Vec::as_slice) {
            self.order(&["pause", node["name"].as_str().unwrap_or_default()])?;
        }
        Ok(())
    }

    /// `dtwn status --json`.
    ///
    /// # Errors
    /// With the program's own words.
    pub fn status(&self) -> Result<Value> {
        let output = run(&mut self.dtwn.command(["status", "--json", &self.name]))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// CPU time of the session's process, the medium's thread included.
    ///
    /// # Errors
    /// When the session has gone.
    pub fn cpu(&self) -> Result<Duration> {
        machine::used_by(self.pid)
    }

    /// Takes the network down.
    ///
    /// # Errors
    /// With the program's own words.
    pub fn down(mut self) -> Result<Ending> {
        self.is_up = false;
        let (busy, begun) = (machine::busy()?, Instant::now());
        run(&mut self.dtwn.command(["down", &self.name]))?;
        let down = begun.elapsed();
        let down_cpu = machine::busy()?.saturating_sub(busy);
        let summary = serde_json::from_slice(&fs::read(self.run_dir.join("summary.json"))?)?;
        Ok(Ending { down, down_cpu, summary })
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.is_up {
            let _ = run(&mut self.dtwn.command(["down", &self.name]));
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// When it fails, with what it said.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [output.stderr, output.stdout].concat();
    Err(format!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&said).trim()).into())
}
