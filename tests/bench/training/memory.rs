//! The memory of a base station over rounds with minibatches of many sizes.

use std::{
    collections::BTreeMap,
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
        stats::median,
    },
};

/// Rounds at the beginning, in which libtorch and the allocator take what they need.
const WARM_UP: u64 = 10;
/// Rounds at either end that are compared.
const SPAN: u64 = 8;
/// Growth between them that counts as flat.
const GROWTH_MAX: f64 = 0.05;
/// After so long without a round the network is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often memory is read.
const PERIOD: Duration = Duration::from_millis(200);

/// Twins of 20 to 59 samples each, all of them in minibatches of 20: the last minibatch of a twin has any size from 1 to 20, and oneDNN
/// compiles its primitives anew for each.
const TOPOLOGY: &str = r#"
[run]
name = "memory"
seed = 3

[chain]
enabled = false

[learning]
learner = "torch"
fraction = 1.0
compute = "native"
test_samples = 100
validation_samples = 50

[link.uplink]
rate = "400 Mbit/s"

[link.downlink]
rate = "400 Mbit/s"

[[bs]]
id = "bs"
count = 2
ring = "100 m"

[[users]]
id = "ug1"
count = 24
around = "bs1"
samples = { min = 20, max = 59 }

[[users]]
id = "ug2"
count = 1
around = "bs2"
samples = 20
"#;

/// Lets the rounds pass, and reads what the kernel says of the process in the meantime.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let rounds = if bench.quick { WARM_UP + 2 * SPAN } else { 50 };
    eprintln!("{rounds} rounds with minibatches of all sizes from 1 to 20");
    let session = bench.dtwn.up_learning(TOPOLOGY)?;
    let mut by_round = BTreeMap::<u64, Vec<f64>>::new();
    let (mut round, mut since) = (0, Instant::now());
    while round < rounds {
        sleep(PERIOD);
        let status = session.status()?;
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let node = nodes.iter().find(|node| node["name"] == "bs1").ok_or("a network without bs1")?;
        let pid = node["pid"].as_i64().ok_or("bs1 does not run")?;
        by_round.entry(round).or_default().push(resident_mib(pid)?);
        let now = status["rounds"].as_u64().ok_or("a status without rounds")?;
        if now > round {
            if now / 10 > round / 10 {
                eprintln!("round {now}: {:.0} MiB", resident_mib(pid)?);
            }
            (round, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Err(format!("no round has ended for {} s", PATIENCE.as_secs()).into());
        }
    }
    let ending = session.down()?;
    let verdict = ending.verdict().to_owned();
    if ending.summary["learning"]["test_accuracy"].is_null() {
        return Err("nothing was trained".into());
    }
    let all: Vec<(u64, f64)> = by_round.into_iter().map(|(round, values)| (round, median(values))).collect();
    let between = |from: u64, to: u64| {
        median(all.iter().filter(|(round, _)| (from..to).contains(round)).map(|(_, mib)| *mib))
    };
    let (early, late) = (between(WARM_UP, WARM_UP + SPAN), between(rounds - SPAN, rounds));
    let growth = late / early - 1.0;
    report.add(vec![Row {
        measured: format!(
            "{early:.0} MiB in rounds {WARM_UP} to {}, {late:.0} MiB in the last {SPAN} of {rounds} ({:+.1} %)",
            WARM_UP + SPAN - 1,
            100.0 * growth
        ),
        reference: format!("flat: at most {:+.0} %", 100.0 * GROWTH_MAX),
        met: Some(growth <= GROWTH_MAX),
        verdict: Some(verdict),
        figures: json!({ "resident_mib_by_round": all }),
        ..Row::new("memory", Load::Idle, "resident memory of a BS, 24 twins, minibatches of 1 to 20")
    }]);
    Ok(())
}

/// Resident memory of a process.
fn resident_mib(pid: i64) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("a process without memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
