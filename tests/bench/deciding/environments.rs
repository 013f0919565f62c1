//! Steps a second of environments.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use dtwn_model::{
    Overrides, Plan,
    association::{Average, Environment, Geometry, Policy, Problem, Split},
    load,
};
use serde_json::json;

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
    },
    topology_of,
};

/// Environments that a training steps together.
const TOGETHER: u64 = 64;

/// One environment, and many in turn with a decision charged in each; one thread.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    for stations in if bench.quick { vec![5] } else { vec![3, 5, 10] } {
        let topology = topology_of(bench, stations, "twins")?;
        report.add(rows(stations, &topology, if bench.quick { 0.2 } else { 2.0 })?);
    }
    Ok(())
}

fn rows(stations: usize, topology: &Path, seconds: f64) -> Result<Vec<Row>> {
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
        ..Row::new("environments", Load::Idle, format!("{what}, {stations} BSs"))
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
