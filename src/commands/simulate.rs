//! `dtwn simulate chain`: the chain's rules under seeded faults, in virtual time.

use std::ops::Range;

use dtwn_chain::sim::{self, SimOptions, SimReport};

use super::{print_json, print_line};
use crate::{
    cli::SimulateChainArgs,
    error::{Error, Result},
    exit,
};

/// Runs the schedules of a range of seeds; exit code 100 when an invariant was broken.
///
/// # Errors
/// For options that cannot be simulated.
pub fn chain(args: &SimulateChainArgs) -> Result<u8> {
    let options = SimOptions {
        seeds: seeds_of(&args.seeds)?,
        nodes: args.nodes,
        byzantine: args.byzantine,
        loss: args.loss.as_deref().map(loss_of).transpose()?,
        views: args.views,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        ..SimOptions::default()
    };
    let report = sim::run(&options).map_err(|error| Error::Usage {
        what: error.to_string(),
        help: "see `dtwn simulate chain --help` for what each option takes".into(),
    })?;
    match args.json {
        true => print_json(&report)?,
        false => print(&report)?,
    }
    Ok(if report.violations.is_empty() { exit::OK } else { exit::CHECK_FAILED })
}

fn print(report: &SimReport) -> Result<()> {
    print_line(&format!(
        "{} schedules ({} of them for liveness), {} views, {} of them nullified",
        report.schedules, report.liveness_schedules, report.views, report.nullified_views
    ))?;
    print_line(&format!(
        "{} blocks, {} transactions, {} offences punished, {} epochs, {} restarts, {} messages",
        report.blocks, report.transactions, report.evidence, report.epochs, report.restarts, report.messages
    ))?;
    print_line(&format!(
        "worst time to finality once calm: {:.0} ms of virtual time ({:.1} message delays); under faults {:.0} ms",
        report.worst_finality_ms, report.worst_finality_delays, report.worst_faulty_finality_ms
    ))?;
    print_line(&format!("trace digest {:016x}", report.trace_digest))?;
    if report.short_schedules > 0 {
        print_line(&format!("{} schedules ended before their views were done", report.short_schedules))?;
    }
    print_line(&format!("{} violations", report.violations.len()))?;
    for violation in &report.violations {
        let text = serde_json::to_string_pretty(violation).map_err(|error| Error::Output(error.into()))?;
        print_line(&text)?;
    }
    Ok(())
}

/// `A..B`, B not included, as ranges are written in Rust and in the field.
fn seeds_of(text: &str) -> Result<Range<u64>> {
    let parsed = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    parsed.filter(|range: &Range<u64>| !range.is_empty()).ok_or_else(|| Error::Usage {
        what: format!("--seeds {text} is no range of seeds"),
        help: "write the first seed and the one after the last: --seeds 0..1000".into(),
    })
}

fn loss_of(text: &str) -> Result<f64> {
    let loss: dtwn_model::units::Probability = text.parse().map_err(|error| Error::Usage {
        what: format!("--loss {text}: {error}"),
        help: "write a probability from 0 to 0.5, or a percentage: --loss 20%".into(),
    })?;
    Ok(loss.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds() {
        assert_eq!(seeds_of("3..7").unwrap(), 3..7);
        for wrong in ["", "3", "7..3", "3..3", "a..b", "1..=2"] {
            assert!(seeds_of(wrong).is_err(), "{wrong}");
        }
    }
}
