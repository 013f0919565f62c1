//! Throughput and time to finality under 1,000 transactions a second of 512 B, over loss, added delay and BSs.

use std::{thread::sleep, time::Duration};

use crate::{
    Bench, Network, Outcome, Result, Steady,
    common::report::{Report, Row},
};

/// Loss in per cent, what the reference reached there, and what of it is to be met.
type Reference = (u32, &'static str, fn(&Steady) -> bool);

/// A public Rust HotStuff in 4 network namespaces, loss by nft, no added delay, kernel-default TCP, the same class of machine and
/// the same offered load.
const REFERENCES: [Reference; 6] = [
    (0, "960 tx/s, p50 2 to 3 ms", |seen| seen.tx_per_s >= 960.0 && seen.p50_ms <= 3.0),
    (1, "-", |_| true),
    (5, "p99 256 to 450 ms", |seen| seen.p99_ms <= 256.0),
    (10, "p50 72 to 243 ms", |seen| seen.p50_ms <= 72.0),
    (20, "353 to 608 tx/s, p50 1.1 to 12 s", |seen| seen.tx_per_s >= 608.0 && seen.p50_ms < 1000.0),
    (30, "finalizes nothing", |seen| seen.tx_per_s > 0.0),
];

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let losses: &[u32] = if bench.quick { &[0, 20] } else { &[0, 1, 5, 10, 20, 30] };
    let delays: &[u32] = if bench.quick { &[0] } else { &[0, 10] };
    let sizes: &[usize] = if bench.quick { &[4] } else { &[4, 10] };
    for &stations in sizes {
        for &delay_ms in delays {
            for &loss_percent in losses {
                let network = Network { stations, delay_ms, loss_percent, ..Network::default() };
                report.add(vec![one(bench, &network)?]);
            }
        }
    }
    Ok(())
}

/// Runs a network under load for some seconds.
pub fn under_load(bench: &Bench, network: &Network<'_>) -> Result<Outcome> {
    let seconds = if bench.quick { 4 } else { 10 };
    bench.measure(network, |_| {
        sleep(Duration::from_secs(seconds));
        Ok(())
    })
}

fn one(bench: &Bench, network: &Network<'_>) -> Result<Row> {
    let outcome = under_load(bench, network)?;
    let Network { stations, delay_ms, loss_percent, .. } = network;
    let comparable = *stations == 4 && *delay_ms == 0;
    let reference = REFERENCES.iter().find(|(loss, ..)| comparable && loss == loss_percent);
    let met = reference.filter(|(_, text, _)| *text != "-").map(|(.., met)| met(&outcome.steady));
    let mut row = outcome.row("finality", format!("{stations} BSs, +{delay_ms} ms, {loss_percent} %"), met);
    row.measured += &figures(&outcome);
    row.reference = reference.map_or("-", |(_, text, _)| text).to_owned();
    Ok(row)
}

/// The figures of a run, for people.
pub fn figures(outcome: &Outcome) -> String {
    format!(
        "{:.0} tx/s, p50 {}, p99 {}, {:.0} of {:.0} views nullified",
        outcome.steady.tx_per_s,
        time(outcome.steady.p50_ms),
        time(outcome.steady.p99_ms),
        outcome.chain("nullified_views"),
        outcome.chain("views"),
    )
}

/// Milliseconds with as many digits as mean something.
pub fn time(ms: f64) -> String {
    match ms {
        ms if ms.is_nan() => "-".to_owned(),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}
