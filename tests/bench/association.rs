//! How fast instances of the association problem come, how long decisions take, how far policies are from the optimum on networks
//! they have never seen, how long agents train to come close to it, and what each choice in that is worth. All quality is a ratio to the
//! optimum of the true state, on the same 200 held-out networks.

#[path = "deciding/ablations.rs"]
mod ablations;
mod common;
#[path = "deciding/environments.rs"]
mod environments;
#[path = "deciding/policies.rs"]
mod policies;
#[path = "deciding/trained.rs"]
mod trained;
#[path = "deciding/updates.rs"]
mod updates;

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use common::{
    Result,
    report::{Output, Report},
    session::Dtwn,
};

/// Measures association policies, by `dtwn compare` and by training agents. All of it takes half an hour on two cores.
#[derive(Debug, Parser)]
#[command(name = "association")]
struct Arguments {
    /// Only these blocks.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Block>,
    /// Seeds of each training.
    #[arg(long, default_value_t = 3)]
    seeds: u32,
    /// Episodes of a training; of the ablations half as many.
    #[arg(long, default_value_t = 100)]
    episodes: u32,
    #[command(flatten)]
    output: Output,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Block {
    /// Steps a second of environments.
    Environments,
    /// The policies that need no training: 3, 5 and 10 BSs, states 0, 1 and 2 slots old.
    Policies,
    /// Updates a second, beside Python's.
    Updates,
    /// Trained agents: 3, 5 and 10 BSs, fresh and old states.
    Trained,
    /// What choices in training are worth.
    Ablations,
}

/// What every block gets.
pub struct Bench {
    /// The program under test.
    pub dtwn: Dtwn,
    /// The one beside it that trains.
    pub agent: PathBuf,
    /// For topologies and policies.
    pub scratch: tempfile::TempDir,
    /// Less of everything.
    pub quick: bool,
    /// Seeds of each training.
    pub seeds: u32,
    /// Episodes of a training.
    pub episodes: u32,
}

impl Bench {
    /// Held-out networks that policies are compared on.
    pub fn instances(&self) -> u32 {
        if self.quick { 20 } else { 200 }
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
    let quick = arguments.output.quick;
    let bench = Bench {
        dtwn: Dtwn::new()?,
        agent,
        scratch: tempfile::TempDir::with_prefix("dtwn-bench-")?,
        quick,
        seeds: if quick { 1 } else { arguments.seeds.max(1) },
        episodes: if quick { 4 } else { arguments.episodes.max(2) },
    };
    let mut report = Report::new("association", quick);
    let mut failed = None;
    for block in blocks {
        let done = match block {
            Block::Environments => environments::measure(&bench, &mut report),
            Block::Policies => policies::measure(&bench, &mut report),
            Block::Updates => updates::measure(&bench, &mut report),
            Block::Trained => trained::measure(&bench, &mut report),
            Block::Ablations => ablations::measure(&bench, &mut report),
        };
        if let Err(error) = done {
            // What the blocks before it took half an hour to measure is not to be lost.
            failed = Some(format!("{block:?}: {error}"));
            break;
        }
    }
    report.finish(&arguments.output)?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// The paper's constants with another number of base stations, 100 twins of equal data among them, and the payload that Eq. 15 counts.
pub fn topology_of(bench: &Bench, stations: usize, payload: &str) -> Result<PathBuf> {
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies/paper.toml");
    let text = std::fs::read_to_string(paper)?;
    let head = text.split("[[bs]]").next().unwrap_or_default();
    let mut text = head
        .replace("payload = \"aggregate\"", &format!("payload = \"{payload}\""))
        .replace("policy = \"maddpg\"", "policy = \"fixed\"");
    if stations < 4 {
        text = text.replace("producers = 4", "enabled = false");
    }
    for i in 0..stations {
        let cpu = [2.6, 1.8, 3.6, 2.4, 2.4][i % 5];
        let turn = i as f64 / stations as f64 * std::f64::consts::TAU;
        let (x, y) = (200.0 * turn.cos(), 200.0 * turn.sin());
        let users = 100 / stations + usize::from(i < 100 % stations);
        text += &format!(
            "\n[[bs]]\nid = \"bs{i}\"\nposition_m = [{x:.1}, {y:.1}]\ncpu_hz = \"{cpu} GHz\"\n\
             [[users]]\nid = \"ug{i}\"\ncount = {users}\naround = \"bs{i}\"\nsamples = 500\n"
        );
    }
    let path = bench.scratch.path().join(format!("m{stations}-{payload}.toml"));
    std::fs::write(&path, text)?;
    Ok(path)
}
