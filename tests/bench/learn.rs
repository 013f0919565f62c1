//! How fast base stations train beside the bare loop, what a round takes besides training and air, whether a base station's memory
//! stays as it is, how good federated models are beside a central one, what a bad base station does to them, and how often honest ones
//! are refused.

#[path = "training/accuracy.rs"]
mod accuracy;
mod common;
#[path = "training/memory.rs"]
mod memory;
#[path = "training/poison.rs"]
mod poison;
#[path = "training/refusals.rs"]
mod refusals;
#[path = "training/round.rs"]
mod round;
#[path = "training/speed.rs"]
mod speed;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::{Parser, ValueEnum};
use common::{
    Result,
    report::{Output, Report},
    session::{self, Dtwn},
};
use serde_json::Value;

/// Measures federated learning.
#[derive(Debug, Parser)]
#[command(name = "learn")]
struct Arguments {
    /// Only these blocks.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Block>,
    /// Folder with CIFAR-10's binary files, whole or a part, for accuracy and poison; without it, on the synthetic set.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Rounds of accuracy, poison and refusals in place of their own.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(2..=1000))]
    rounds: Option<u64>,
    #[command(flatten)]
    output: Output,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Block {
    /// Samples a second, beside the bare loop and Python's.
    Speed,
    /// What a round takes besides training and air.
    Round,
    /// The memory of a base station over rounds.
    Memory,
    /// Accuracy by round, beside central training.
    Accuracy,
    /// What one bad base station of five does to it.
    Poison,
    /// Honest models that are refused, and ones of other labels.
    Refusals,
}

/// What every block gets.
pub struct Bench {
    /// The program under test.
    pub dtwn: Dtwn,
    /// The one beside it that trains.
    pub agent: PathBuf,
    /// For topologies and runs.
    pub scratch: tempfile::TempDir,
    /// Less of everything.
    pub quick: bool,
    /// CIFAR-10's folder.
    pub data: Option<PathBuf>,
    /// Rounds of accuracy, poison and refusals in place of their own.
    pub rounds: Option<u64>,
}

impl Bench {
    /// The topology of the paper.
    pub fn paper() -> PathBuf {
        Self::shipped("paper")
    }

    /// A topology by its name.
    pub fn shipped(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("topologies/{name}.toml"))
    }

    /// A command line of the program that trains.
    pub fn train(&self, job: &str, topology: &Path) -> Command {
        let mut command = Command::new(&self.agent);
        command.arg(job).arg(topology).envs(dtwn_node::learning::ENVIRONMENT).stdin(Stdio::null());
        command
    }

    /// Runs a command that prints lines of JSON, and tells of each as progress.
    pub fn follow(&self, command: &mut Command, progress: impl Fn(&Value) -> String) -> Result<Vec<Value>> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut said = Vec::new();
        for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
            let line: Value = serde_json::from_str(&line?)?;
            eprintln!("{}", progress(&line));
            said.push(line);
        }
        match child.wait()? {
            status if status.success() => Ok(said),
            status => Err(format!("{command:?} ended with {status}").into()),
        }
    }

    /// Runs a network to the end of so many rounds; returns its summary and events.
    pub fn run(&self, topology: &Path, rounds: u64, set: &[String]) -> Result<(Value, Vec<Value>)> {
        let out = tempfile::tempdir_in(self.scratch.path())?;
        let name = format!("bench-{}", std::process::id());
        let mut command = self.dtwn.command(["up", "--headless", "--json", "--name", &name]);
        command.args(["--rounds", &rounds.to_string(), "--out"]).arg(out.path()).arg(topology);
        for assignment in set {
            command.args(["--set", assignment]);
        }
        let summary = serde_json::from_slice(&session::run(&mut command)?.stdout)?;
        let run_dir =
            std::fs::read_dir(out.path())?.filter_map(std::result::Result::ok).map(|entry| entry.path());
        let run_dir = run_dir.filter(|path| !path.is_symlink()).find(|path| path.is_dir());
        let run_dir = run_dir.ok_or("a run that recorded nothing")?;
        let output = session::run(self.dtwn.command(["events", "--json"]).arg(&run_dir))?;
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events = lines.map(serde_json::from_slice).collect::<std::result::Result<_, _>>()?;
        Ok((summary, events))
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let blocks = match arguments.only.as_slice() {
        [] => Block::value_variants().to_vec(),
        chosen => chosen.to_vec(),
    };
    let agent = Path::new(env!("CARGO_BIN_EXE_dtwn")).with_file_name("dtwn-agent");
    if !agent.exists() {
        return Err(format!("{} is missing: scripts/bench builds it", agent.display()).into());
    }
    let data = arguments.data.map(std::fs::canonicalize).transpose()?;
    let scratch = tempfile::TempDir::with_prefix("dtwn-bench-")?;
    let (quick, rounds) = (arguments.output.quick, arguments.rounds);
    let bench = Bench { dtwn: Dtwn::new()?, agent, scratch, quick, data, rounds };
    let mut report = Report::new("learn", bench.quick);
    for block in blocks {
        let done = match block {
            Block::Speed => speed::measure(&bench, &mut report),
            Block::Round => round::measure(&bench, &mut report),
            Block::Memory => memory::measure(&bench, &mut report),
            Block::Accuracy => accuracy::measure(&bench, &mut report),
            Block::Poison => poison::measure(&bench, &mut report),
            Block::Refusals => refusals::measure(&bench, &mut report),
        };
        done.map_err(|error| format!("{block:?}: {error}"))?;
    }
    report.finish(&arguments.output)
}
