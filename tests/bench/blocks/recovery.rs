//! How soon blocks are final again after a partition into halves, and what the death of a producer costs.

use std::{thread::sleep, time::Duration};

use serde_json::{Value, json};

use super::finality::time;
use crate::{
    Bench, Network, Outcome, Result,
    common::report::{Report, Row},
};

/// After a 20 s partition; the HotStuff of the finality block took 7.6 s.
const RECOVERY_MS: f64 = 1000.0;
/// How long a network runs before the fault, and after it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(8);
/// From the death of the producer to its new start.
const DEAD: Duration = Duration::from_secs(2);

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let seconds: &[u64] = if bench.quick { &[3] } else { &[5, 20] };
    for &seconds in seconds {
        report.add(vec![partition(bench, seconds)?]);
    }
    report.add(vec![kill(bench)?]);
    Ok(())
}

fn partition(bench: &Bench, seconds: u64) -> Result<Row> {
    let outcome = bench.measure(&Network::default(), |session| {
        sleep(BEFORE);
        session.order(&["partition", "mbs,bs1,bs2", ":", "bs3,bs4"])?;
        sleep(Duration::from_secs(seconds));
        session.order(&["heal"])?;
        sleep(AFTER);
        Ok(())
    })?;
    let cut_ns = at(&outcome, "partitioned", |_| true)?;
    let healed_ns = at(&outcome, "healed", |_| true)?;
    let times = outcome.finalized_ns();
    // What was on its way when the network was cut may still arrive; nothing may be final later.
    let late = times.iter().filter(|at| (cut_ns + 500_000_000..healed_ns).contains(*at)).count();
    let first = times.iter().find(|at| **at >= healed_ns);
    let recovery_ms = first.map_or(f64::NAN, |at| (at - healed_ns) as f64 / 1e6);
    let met = late == 0 && (seconds < 20 || recovery_ms < RECOVERY_MS) && recovery_ms.is_finite();
    let mut row = outcome.row("recovery", format!("2-2 partition of {seconds} s"), Some(met));
    row.measured += &format!("final again after {} ({late} blocks while cut)", time(recovery_ms));
    row.reference = match seconds {
        20 => "7.6 s; < 1 s".to_owned(),
        _ => "none while cut".to_owned(),
    };
    row.figures["recovery_ms"] = json!(recovery_ms);
    row.figures["blocks_while_cut"] = json!(late);
    Ok(row)
}

fn kill(bench: &Bench) -> Result<Row> {
    let outcome = bench.measure(&Network::default(), |session| {
        sleep(BEFORE);
        session.order(&["kill", "bs2"])?;
        sleep(DEAD);
        session.order(&["restart", "bs2"])?;
        sleep(AFTER);
        Ok(())
    })?;
    let died_ns = at(&outcome, "node_exited", |what| what["node"] == "bs2")?;
    let back_ns = at(&outcome, "node_started", |what| what["node"] == "bs2" && what["restarts"] == 1)?;
    let times = outcome.finalized_ns();
    let around: Vec<u64> = times.iter().copied().filter(|at| *at + 1_000_000_000 >= died_ns).collect();
    let gap_ns = around.windows(2).map(|pair| pair[1] - pair[0]).max();
    let gap_ms = gap_ns.map_or(f64::NAN, |gap| gap as f64 / 1e6);
    let caught_up_ms = caught_up_ns(&outcome, back_ns).map_or(f64::NAN, |at| (at - back_ns) as f64 / 1e6);
    let met = gap_ms.is_finite() && caught_up_ms.is_finite();
    let mut row = outcome.row("recovery", "kill -9 of a producer, back after 2 s".to_owned(), Some(met));
    row.measured +=
        &format!("longest pause {}; caught up {} after its new start", time(gap_ms), time(caught_up_ms));
    row.reference = "goes on, and catches up".to_owned();
    row.figures["longest_pause_ms"] = json!(gap_ms);
    row.figures["caught_up_ms"] = json!(caught_up_ms);
    Ok(row)
}

/// When the restarted node first reported what the others had reported by then; reports come about four times a second.
fn caught_up_ns(outcome: &Outcome, back_ns: u64) -> Option<u64> {
    let mut most = 0;
    for event in outcome.of_type("chain_progress") {
        let at_ns = event["at_ns"].as_u64()?;
        let height = event["what"]["height"].as_u64()?;
        match event["node"] == "bs2" {
            true if at_ns > back_ns && height > 0 && height >= most => return Some(at_ns),
            true => {}
            false if at_ns <= back_ns => most = most.max(height),
            false => {}
        }
    }
    None
}

fn at(outcome: &Outcome, kind: &str, fits: impl Fn(&Value) -> bool) -> Result<u64> {
    let event = outcome.of_type(kind).find(|event| fits(&event["what"]));
    event.and_then(|event| event["at_ns"].as_u64()).ok_or_else(|| format!("no event {kind}").into())
}
