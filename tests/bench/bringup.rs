//! How long a network of 100 nodes takes to come up and to go down, beside Mininet in the same run.

mod common;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Parser, ValueEnum};
use common::{
    Result,
    load::Load,
    probe,
    report::{Output, Report, Row},
    session::{Dtwn, run},
    stats::{median, quantile, sorted},
};
use serde::Deserialize;
use serde_json::json;

/// Measures bringing up and tearing down `topologies/scale-100.toml`, beside Mininet where it is installed.
#[derive(Debug, Parser)]
#[command(name = "bringup")]
struct Arguments {
    /// How many times; Mininet takes every fourth turn.
    #[arg(long)]
    runs: Option<usize>,
    /// Only beside these loads.
    #[arg(long, value_enum)]
    load: Vec<Load>,
    #[command(flatten)]
    output: Output,
}

/// Base stations of the topology, hosts of Mininet's.
const NODES: u32 = 100;
/// DESIGN: below a second up, below half a second down, and five times as fast as Mininet.
const UP_S_MAX: f64 = 1.0;
const DOWN_S_MAX: f64 = 0.5;
const RATIO_MIN: f64 = 5.0;

/// One time up and down.
#[derive(Clone, Debug, Deserialize)]
struct Turn {
    up_s: f64,
    up_cpu_s: f64,
    down_s: f64,
    down_cpu_s: f64,
    #[serde(default)]
    lost_percent: f64,
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(result) = probe::play(&words) {
        return result;
    }
    let arguments = Arguments::parse();
    let runs = arguments.runs.unwrap_or(if arguments.output.quick { 3 } else { 10 });
    let loads = match (arguments.load.as_slice(), arguments.output.quick) {
        ([], true) => vec![Load::Idle],
        ([], false) => Load::value_variants().to_vec(),
        (chosen, _) => chosen.to_vec(),
    };
    let dtwn = Dtwn::new()?;
    let mut report = Report::new("bringup", arguments.output.quick);
    if !mininet_is_there() {
        eprintln!("Mininet is not installed: no reference in this run");
    }
    // The first session on a machine measures what it carries and keeps that; the others read it.
    turn_of_dtwn(&dtwn)?;
    for load in loads {
        let burning = load.start()?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 0..runs {
            ours.push(turn_of_dtwn(&dtwn)?);
            // Few turns of Mininet, as each takes seconds; among ours, so that both see the same machine.
            if run % 4 == 0 && mininet_is_there() {
                theirs.push(turn_of_mininet()?);
            }
        }
        drop(burning);
        report.add(rows(load, &ours, &theirs));
    }
    report.finish(&arguments.output)
}

fn turn_of_dtwn(dtwn: &Dtwn) -> Result<Turn> {
    let topology = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies/scale-100.toml");
    let session = dtwn.up_file(&topology)?;
    let (up_s, up_cpu_s) = (session.up.as_secs_f64(), session.up_cpu.as_secs_f64());
    // A network that carries nothing would be up in no time.
    run(&mut session.exec("bs100", "ping".as_ref(), ["-c", "1", "-W", "5", "mbs"]))?;
    let ending = session.down()?;
    Ok(Turn {
        up_s,
        up_cpu_s,
        down_s: ending.down.as_secs_f64(),
        down_cpu_s: ending.down_cpu.as_secs_f64(),
        lost_percent: 0.0,
    })
}

/// The system's own Python: that is where the Debian package puts Mininet.
const PYTHON: &str = "/usr/bin/python3";

fn mininet_is_there() -> bool {
    // Mininet only works for root; an ordinary user has no reference.
    nix::unistd::geteuid().is_root()
        && Command::new(PYTHON)
            .args(["-c", "import mininet.net"])
            .output()
            .is_ok_and(|output| output.status.success())
}

fn turn_of_mininet() -> Result<Turn> {
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/star_of_mininet.py");
    let output = run(Command::new(PYTHON).arg(script).args([NODES.to_string(), "10".to_owned()]))?;
    let turn: Turn = serde_json::from_slice(&output.stdout)?;
    if turn.lost_percent > 0.0 {
        return Err("Mininet's last host does not reach its first".into());
    }
    Ok(turn)
}

/// What is timed: its name, its time in a turn, its CPU time, and how long it may take.
type Phase = (&'static str, fn(&Turn) -> f64, fn(&Turn) -> f64, f64);

const PHASES: [Phase; 2] = [
    ("up", |turn| turn.up_s, |turn| turn.up_cpu_s, UP_S_MAX),
    ("down", |turn| turn.down_s, |turn| turn.down_cpu_s, DOWN_S_MAX),
];

fn rows(load: Load, ours: &[Turn], theirs: &[Turn]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (phase, time, cpu, target_s) in PHASES {
        let mut row = row_of("dtwn", phase, load, ours, time, cpu);
        row.reference = format!("< {target_s} s");
        row.met = Some(median(ours.iter().map(time)) < target_s);
        rows.push(row);
        if theirs.is_empty() {
            continue;
        }
        rows.push(row_of("Mininet", phase, load, theirs, time, cpu));
        let ratio = median(theirs.iter().map(time)) / median(ours.iter().map(time));
        rows.push(Row {
            measured: format!("{ratio:.1} times as fast"),
            reference: format!(">= {RATIO_MIN} times"),
            met: Some(ratio >= RATIO_MIN),
            figures: json!({ "ratio_of_medians": ratio }),
            ..Row::new("bringup", load, format!("{phase}, dtwn beside Mininet"))
        });
    }
    rows
}

fn row_of(
    who: &str,
    phase: &str,
    load: Load,
    turns: &[Turn],
    time: fn(&Turn) -> f64,
    cpu: fn(&Turn) -> f64,
) -> Row {
    let times = sorted(turns.iter().map(time));
    let (least, middle, most) = (quantile(&times, 0.0), median(times.iter().copied()), quantile(&times, 1.0));
    let cpu_s = median(turns.iter().map(cpu));
    // Beside a load the machine's CPU time is mostly the load's.
    let cpu_text = if load == Load::Idle { format!(", {cpu_s:.2} CPU s") } else { String::new() };
    Row {
        measured: format!("{middle:.3} s ({least:.3} to {most:.3}, {} runs){cpu_text}", turns.len()),
        reference: "-".to_owned(),
        figures: json!({ "seconds": times, "cpu_s_p50_of_machine": cpu_s }),
        ..Row::new("bringup", load, format!("{phase}, {NODES} nodes, {who}"))
    }
}
