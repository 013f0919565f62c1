//! What a round of a real run takes besides training and air.

use serde_json::{Value, json};

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
        stats::{median, sorted},
    },
};

/// The target: at most so much of a round.
const OVERHEAD_MAX: f64 = 0.10;

/// Rounds of the paper's network, taken from their events. All times are emulated.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let rounds = if bench.quick { 3 } else { 6 };
    eprintln!("{rounds} rounds of topologies/paper.toml");
    let (summary, events) = bench.run(&Bench::paper(), rounds, &["learning.learner=torch".to_owned()])?;
    let found: Vec<Parts> = parts(&events);
    if found.is_empty() {
        return Err("the run has no two rounds after each other".into());
    }
    let of = |part: fn(&Parts) -> f64| median(found.iter().map(part));
    let shares = sorted(found.iter().map(Parts::overhead));
    let share = median(shares.iter().copied());
    let (low, high) = (shares[0], shares[shares.len() - 1]);
    let verdict = summary["verdict"].as_str().map(str::to_owned);
    let overruns = &summary["learning"]["compute_overruns"];
    let figures = json!({ "rounds": found.iter().map(Parts::json).collect::<Vec<_>>(), "learning": summary["learning"] });
    let part = |what: &str, ms: f64| Row {
        measured: format!("{ms:.0} ms"),
        reference: "-".into(),
        ..Row::new("round", Load::Idle, what)
    };
    report.add(vec![
        part("a round, from one end to the next", of(|parts| parts.round_ms)),
        part("model to the slowest BS", of(|parts| parts.down_ms)),
        part("training there", of(|parts| parts.train_ms)),
        part("model from there to MBS and verifiers", of(|parts| parts.up_ms)),
        Row {
            measured: format!(
                "{:.1} % of the round ({:.1} to {:.1}, {} rounds); {overruns} compute overruns",
                100.0 * share,
                100.0 * low,
                100.0 * high,
                shares.len()
            ),
            reference: format!("<= {:.0} %", 100.0 * OVERHEAD_MAX),
            met: Some(share <= OVERHEAD_MAX),
            verdict,
            figures,
            ..Row::new("round", Load::Idle, "all else: decision, aggregation, verification, blocks")
        },
    ]);
    Ok(())
}

/// Where a round's time went, along the base station that was done last. Emulated milliseconds.
struct Parts {
    round_ms: f64,
    down_ms: f64,
    train_ms: f64,
    up_ms: f64,
}

impl Parts {
    /// The share that was neither training nor air.
    fn overhead(&self) -> f64 {
        1.0 - (self.down_ms + self.train_ms + self.up_ms) / self.round_ms
    }

    fn json(&self) -> Value {
        let Self { round_ms, down_ms, train_ms, up_ms } = self;
        json!({ "round_ms": round_ms, "down_ms": down_ms, "train_ms": train_ms, "up_ms": up_ms })
    }
}

/// The rounds that have one before them.
fn parts(events: &[Value]) -> Vec<Parts> {
    let ends: Vec<i64> = events
        .iter()
        .filter(|event| event["what"]["type"] == "round")
        .filter_map(|event| event["at_ns"].as_i64())
        .collect();
    let round = |ends: &[i64]| {
        let (from, to) = (ends[0], ends[1]);
        let within: Vec<&Value> = events
            .iter()
            .filter(|event| event["at_ns"].as_i64().is_some_and(|at| from < at && at <= to))
            .map(|event| &event["what"])
            .collect();
        let transfer = |kind: &str, end: &str, bs: &str| {
            let found = within.iter().find(|what| what["kind"] == kind && what[end] == bs);
            found.and_then(|what| what["measured_ms"].as_f64())
        };
        let at_round = |event: &&Value| event["at_ns"].as_i64().is_some_and(|at| from < at && at <= to);
        let of_type = |kind: &'static str| {
            events.iter().filter(at_round).filter(move |event| event["what"]["type"] == kind)
        };
        // A model counts once the MBS has it and enough producers have seen that it is good: they get it by relays.
        let slowest_way = |owner: &str, round: &Value| {
            let verifiers: Vec<&str> = of_type("verification")
                .filter(|event| event["what"]["owner"] == owner && event["what"]["round"] == *round)
                .filter_map(|event| event["node"].as_str())
                .collect();
            let relays = within.iter().filter(|what| {
                what["kind"] == "model-relay"
                    && what["from"] == owner
                    && what["to"].as_str().is_some_and(|to| verifiers.contains(&to))
            });
            let relayed = relays.filter_map(|what| what["measured_ms"].as_f64());
            transfer("model-up", "from", owner).map(|up| relayed.fold(up, f64::max))
        };
        let paths = of_type("local_model").filter_map(|event| {
            let bs = event["node"].as_str()?;
            Some(Parts {
                round_ms: (to - from) as f64 / 1e6,
                down_ms: transfer("model-down", "to", bs)?,
                train_ms: event["what"]["train_ms"].as_f64()?,
                up_ms: slowest_way(bs, &event["what"]["round"])?,
            })
        });
        // The smallest overhead is along the way that took longest.
        paths.min_by(|a, b| a.overhead().total_cmp(&b.overhead()))
    };
    ends.windows(2).filter_map(round).collect()
}
