//! Policies that need no training, and how any policy is compared.

use std::path::Path;

use serde_json::Value;

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
        session::run,
    },
    topology_of,
};

/// Three sizes, three ages of the state.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    for stations in if bench.quick { vec![5] } else { vec![3, 5, 10] } {
        let topology = topology_of(bench, stations, "twins")?;
        for staleness in if bench.quick { vec![0] } else { vec![0, 1, 2] } {
            let study = compare(bench, &topology, staleness, "random,average,greedy,optimal", None)?;
            report.add(study.iter().map(|policy| row(stations, staleness, policy)).collect());
        }
    }
    Ok(())
}

/// `dtwn compare` on random networks: what it says of each policy, those that it adds included.
pub fn compare(
    bench: &Bench,
    topology: &Path,
    staleness: u32,
    policies: &str,
    file: Option<&Path>,
) -> Result<Vec<Value>> {
    let mut command = bench.dtwn.command(["compare"]);
    command.arg(topology).args(["--networks", "random", "--json", "--policies", policies]);
    command.args(["--instances", &bench.instances().to_string(), "--staleness", &staleness.to_string()]);
    if let Some(file) = file {
        command.arg("--policy-file").arg(file);
    }
    let study: Value = serde_json::from_slice(&run(&mut command)?.stdout)?;
    study["policies"].as_array().cloned().ok_or_else(|| "a comparison without policies".into())
}

fn row(stations: usize, staleness: u32, policy: &Value) -> Row {
    let number = |key: &str| policy[key].as_f64().unwrap_or(f64::NAN);
    let name = policy["policy"].as_str().unwrap_or_default();
    Row {
        measured: format!(
            "{:.4} ± {:.4}, {:.1} % closed, decision {:.0} µs (p99 {:.0})",
            number("ratio_to_optimal"),
            number("ratio_ci95"),
            number("gap_closed") * 100.0,
            number("decision_us_p50"),
            number("decision_us_p99")
        ),
        reference: "the optimum of the true state".into(),
        figures: policy.clone(),
        ..Row::new("policies", Load::Idle, format!("{name}, {stations} BSs, state {staleness} slots old"))
    }
}
