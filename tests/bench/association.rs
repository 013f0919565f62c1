//! How fast instances of the association problem come, how long decisions take, and how far policies are from the optimum on
//! networks they have never seen: 3, 5 and 10 base stations, states 0, 1 and 2 slots old.

mod common;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Parser;
use common::{
    Result,
    load::Load,
    report::{Output, Report, Row},
    session::{Dtwn, run},
};
use dtwn_model::{
    Overrides, Plan,
    association::{Average, Environment, Geometry, Policy, Problem, Split},
    load,
};
use serde_json::{Value, json};

/// Measures association policies by `dtwn compare`.
#[derive(Debug, Parser)]
#[command(name = "association")]
struct Arguments {
    /// A trained policy for the paper's network, to be compared as well.
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// DESIGN: at most this far above the optimum, and at least so much of the way from the average policy closed.
const RATIO_MAX: f64 = 1.025;
const CLOSED_MIN: f64 = 0.95;
/// DESIGN: longest decision of a deployed policy.
const DECISION_US_MAX: f64 = 1000.0;
/// Environments that a training steps together.
const TOGETHER: u64 = 64;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let quick = arguments.output.quick;
    let dtwn = Dtwn::new()?;
    let scratch = tempfile::tempdir()?;
    let mut report = Report::new("association", quick);
    for stations in if quick { vec![5] } else { vec![3, 5, 10] } {
        let topology = topology_of(stations, scratch.path())?;
        report.add(environment(stations, &topology, if quick { 0.2 } else { 2.0 })?);
        for staleness in if quick { vec![0] } else { vec![0, 1, 2] } {
            // A policy file is for the paper's sizes.
            let trained = arguments.policy_file.as_deref().filter(|_| stations == 5);
            let study = compare(&dtwn, &topology, staleness, if quick { 20 } else { 200 }, trained)?;
            report.add(rows(stations, staleness, &study));
        }
    }
    report.finish(&arguments.output)
}

/// The paper's constants with another number of base stations, 100 twins among them, and the payload that Eq. 15 counts.
fn topology_of(stations: usize, dir: &Path) -> Result<PathBuf> {
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies/paper.toml");
    let text = std::fs::read_to_string(paper)?;
    let head = text.split("[[bs]]").next().unwrap_or_default();
    let mut text = head.replace("payload = \"aggregate\"", "payload = \"twins\"");
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
    let path = dir.join(format!("m{stations}.toml"));
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Steps a second of one environment, and of many in turn with a decision charged in each.
fn environment(stations: usize, topology: &Path, seconds: f64) -> Result<Vec<Row>> {
    let topology = load(topology, &Overrides::default())?.topology;
    let problem = Problem::new(&Plan::new(&topology)?)?;
    let new = |index| Environment::new(&problem, Geometry::Random, 1, Split::Train, index);
    let mut single = new(0);
    let single_per_s = per_second(seconds, || {
        single.step();
        1
    });
    let mut many: Vec<Environment> = (0..TOGETHER).map(new).collect();
    let mut charged_s = 0.0;
    let charged_per_s = per_second(seconds, || {
        for environment in &mut many {
            environment.step();
            let decision = Average.decide(&problem, environment.state()).unwrap_or_default();
            charged_s += problem.terms(environment.state(), &decision).total_s();
        }
        TOGETHER
    });
    let row = |what: &str, per_s: f64| Row {
        measured: format!("{:.0} k/s", per_s / 1e3),
        reference: "one thread".into(),
        figures: json!({ "stations": stations, "steps_per_s": per_s, "charged_s": charged_s }),
        ..Row::new("environment", Load::Idle, format!("{what}, {stations} BSs"))
    };
    Ok(vec![row("steps", single_per_s), row("steps charged, 64 in turn", charged_per_s)])
}

fn per_second(seconds: f64, mut work: impl FnMut() -> u64) -> f64 {
    let (began, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut done = 0;
    while began.elapsed() < limit {
        done += work();
    }
    done as f64 / began.elapsed().as_secs_f64()
}

fn compare(
    dtwn: &Dtwn,
    topology: &Path,
    staleness: u32,
    instances: u32,
    trained: Option<&Path>,
) -> Result<Value> {
    let mut command = dtwn.command(["compare"]);
    command.arg(topology).args(["--networks", "random", "--json"]);
    command.args(["--instances", &instances.to_string(), "--staleness", &staleness.to_string()]);
    let policies = "random,average,greedy,optimal";
    match trained {
        Some(file) => {
            command.arg("--policy-file").arg(file).args(["--policies", &format!("{policies},maddpg")]);
        }
        None => {
            command.args(["--policies", policies]);
        }
    }
    Ok(serde_json::from_slice(&run(&mut command)?.stdout)?)
}

fn rows(stations: usize, staleness: u32, study: &Value) -> Vec<Row> {
    let policies = study["policies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |policy: &Value| {
        let number = |key: &str| policy[key].as_f64().unwrap_or(f64::NAN);
        let (ratio, closed) = (number("ratio_to_optimal"), number("gap_closed"));
        let name = policy["policy"].as_str().unwrap_or_default();
        let (p50_us, p99_us) = (number("decision_us_p50"), number("decision_us_p99"));
        let trained = name == "maddpg";
        let fine = ratio <= RATIO_MAX && closed >= CLOSED_MIN && p99_us <= DECISION_US_MAX;
        Row {
            measured: format!(
                "{ratio:.4} ± {:.4} of the optimum, {:.1} % closed, decision {p50_us:.0} µs (p99 {p99_us:.0})",
                number("ratio_ci95"),
                closed * 100.0
            ),
            reference: match trained {
                true => format!("≤ {RATIO_MAX}, ≥ {:.0} % closed, ≤ 1 ms", CLOSED_MIN * 100.0),
                false => "the optimum, for the true state".into(),
            },
            met: (trained && staleness == 0).then_some(fine),
            figures: policy.clone(),
            ..Row::new("gap", Load::Idle, format!("{name}, {stations} BSs, state {staleness} slots old"))
        }
    };
    policies.iter().map(row).collect()
}
