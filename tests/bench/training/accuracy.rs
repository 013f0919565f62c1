//! Accuracy by round, beside central training that sees as many samples.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
    },
};

/// The target: within so much of central training.
const GAP_MAX: f64 = 0.03;
/// Users of the paper's network.
pub const USERS: u64 = 100;
/// A record of CIFAR-10's binary layout.
const RECORD_BYTES: u64 = 3073;
/// Samples of a user on the synthetic set.
const SYNTHETIC_EACH: u64 = 80;
/// Values of a curve that are told.
const TOLD: usize = 12;
/// Rounds of the real network that are set beside those without one.
const NETWORKED: u64 = 2;
/// How twins train here. Of what was tried on CIFAR-10's images, this came furthest with as many samples: five passes a round with
/// minibatches of 10 and steps of 0.1 came to 52 %, and steps of 0.08 in place of 0.05 ended in NaN after 98 rounds.
const LEARNING: &str = "learner = \"torch\"\nfraction = 1.0\nepochs = 1\nbatch = 5\nlearning_rate = 0.05\n\
                        momentum = 0.0\ntest_samples = 10000\ndeadline = \"10 min\"\n";
/// What becomes of that in central training: its own best, so that it is no straw man.
const CENTRAL: [&str; 4] = ["--set", "learning.batch=50", "--set", "learning.learning_rate=0.05"];

/// Trains by rounds without a network, then centrally, then some rounds of the real network.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let rounds = bench.rounds.unwrap_or(if bench.quick { 2 } else { 120 });
    let each = samples_each(bench)?;
    let topology = topology(bench, each)?;
    let told = |line: &Value| {
        format!(
            "round {}: {:.2} % right after {} samples",
            line["round"],
            100.0 * line["test_accuracy"].as_f64().unwrap_or(f64::NAN),
            line["samples"]
        )
    };
    let count = rounds.to_string();
    eprintln!("{rounds} rounds of 5 BSs and {USERS} users of {each} samples, without a network");
    let federated = bench.follow(
        bench
            .train("train-federated", &topology)
            .args(["--json", "--rounds", &count])
            // Base stations judge their models, which costs time and changes nothing here.
            .args(["--set", "learning.validation_samples=10"]),
        told,
    )?;
    eprintln!("centrally, as many samples");
    let central = bench.follow(
        bench
            .train("train-central", &topology)
            .args(["--json", "--threads", "2", "--rounds", &count])
            .args(CENTRAL),
        told,
    )?;
    eprintln!("{NETWORKED} rounds of the network");
    let (summary, events) = bench.run(&topology, NETWORKED, &[])?;
    report.add(rows(&federated, &central, &summary, &events)?);
    Ok(())
}

fn rows(federated: &[Value], central: &[Value], summary: &Value, events: &[Value]) -> Result<Vec<Row>> {
    let accuracies = |lines: &[Value]| -> Vec<f64> {
        lines.iter().filter_map(|line| line["test_accuracy"].as_f64()).collect()
    };
    let (ours, theirs) = (accuracies(federated), accuracies(central));
    let (Some(last), Some(reference)) = (ours.last(), theirs.last()) else {
        return Err("a training that told of no accuracy".into());
    };
    let dataset = federated[0]["dataset"].as_str().unwrap_or("?");
    let samples = federated.last().map_or(&Value::Null, |line| &line["samples"]);
    let row = |what: String, curve: &[f64]| Row {
        measured: describe(curve),
        reference: "-".into(),
        figures: json!({ "accuracy_by_round": curve, "dataset": dataset, "samples": samples }),
        ..Row::new("accuracy", Load::Idle, what)
    };
    let gap = last - reference;
    Ok(vec![
        row(format!("central, {dataset}, {samples} samples seen"), &theirs),
        Row {
            reference: format!("at most {:.0} points below ({:+.1})", 100.0 * GAP_MAX, 100.0 * gap),
            met: Some(gap >= -GAP_MAX),
            ..row(format!("5 BSs, {USERS} users, IID, as many samples"), &ours)
        },
        networked(federated, summary, events),
    ])
}

/// Whether the models of the real network are those of the rounds without one, bit by bit.
fn networked(federated: &[Value], summary: &Value, events: &[Value]) -> Row {
    let of_network: Vec<(u64, &str)> = events
        .iter()
        .map(|event| &event["what"])
        .filter(|what| what["type"] == "global_model")
        .filter_map(|what| Some((what["round"].as_u64()?, what["digest"].as_str()?)))
        .collect();
    let same = |(round, digest): &&(u64, &str)| {
        federated.iter().any(|line| line["round"] == *round && line["digest"] == *digest)
    };
    let equal = of_network.iter().filter(same).count();
    let all = usize::try_from(NETWORKED).unwrap_or(0) + 1;
    Row {
        measured: format!("{equal} of the first {all} models have the same digest"),
        reference: "all of them".into(),
        met: Some(equal >= all && equal == of_network.len()),
        verdict: summary["verdict"].as_str().map(str::to_owned),
        figures: json!({ "digests": of_network, "learning": summary["learning"] }),
        ..Row::new("accuracy", Load::Idle, "the same over the air, verified by the chain")
    }
}

fn describe(curve: &[f64]) -> String {
    let percent = |value: &f64| format!("{:.1}", 100.0 * value);
    // Round 0 is the untrained model.
    let trained = curve.get(1..).unwrap_or_default();
    let best = trained.iter().copied().fold(f64::NAN, f64::max);
    let every = trained.len().div_ceil(TOLD).max(1);
    let some: Vec<String> = trained.iter().skip(every - 1).step_by(every).map(percent).collect();
    let last = trained.last().map_or("?".to_owned(), percent);
    format!("{last} % (best {}; after each {every} rounds {})", percent(&best), some.join(" "))
}

/// The paper's network with as many samples for each user, and how they are trained on.
fn topology(bench: &Bench, each: u64) -> Result<PathBuf> {
    let paper = fs::read_to_string(Bench::paper())?;
    let ours = "samples = { min = 300, max = 700, total = 10000 }";
    let text = paper.replace(ours, &format!("samples = {each}"));
    if text == paper {
        return Err(format!("{} has changed: no users with {ours}", Bench::paper().display()).into());
    }
    // In place of its own section, where it has one.
    let (before, after) = match text.split_once("[learning]\n") {
        Some((before, rest)) => (before, rest.find("\n[").map_or("", |end| &rest[end..])),
        None => (text.as_str(), ""),
    };
    // All samples of every twin in every round, as in central training.
    let after = after.replace("policy = \"maddpg\"", "policy = \"fixed\"");
    let path = bench.scratch.path().join("accuracy.toml");
    fs::write(&path, format!("{before}\n{after}\n{}", learning(bench)))?;
    Ok(path)
}

/// How twins train here, and on what.
pub fn learning(bench: &Bench) -> String {
    let data = bench.data.as_ref().map(|dir| format!("data = {:?}\n", dir.display().to_string()));
    format!("[learning]\n{LEARNING}{}", data.unwrap_or_default())
}

/// Samples of each user.
pub fn samples_each(bench: &Bench) -> Result<u64> {
    bench.data.as_ref().map_or(Ok(SYNTHETIC_EACH), |dir| Ok(records(dir)? / USERS))
}

/// Training samples in a folder of CIFAR-10's files.
fn records(dir: &Path) -> Result<u64> {
    let mut count = 0;
    for batch in 1..=5 {
        let path = dir.join(format!("data_batch_{batch}.bin"));
        let length = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.len();
        count += length / RECORD_BYTES;
    }
    Ok(count)
}
