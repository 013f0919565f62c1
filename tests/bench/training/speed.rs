//! Samples a second.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
        session::run,
        stats::{median, sorted},
    },
};

/// DESIGN: a base station's samples a second over those of the bare loop.
const SHARE_MIN: f64 = 0.95;

/// The first base station of the paper's network, the bare loop, and Python's.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let turns = if bench.quick { 2 } else { 12 };
    eprintln!("training and the bare loop in turn, {turns} times each");
    let mut command = bench.train("loops", &Bench::paper());
    command.args(["--threads", "1", "--turns", &turns.to_string()]);
    let found: Value = serde_json::from_slice(&run(&mut command)?.stdout)?;
    let numbers = |key: &str| -> Vec<f64> {
        found[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let (station, bare) = (numbers("base_station"), numbers("bare"));
    // Of turns beside each other: what disturbs the machine for longer disturbs both.
    let share = median(station.iter().zip(&bare).map(|(station, bare)| station / bare));
    let what = format!(
        "{}, {} twins, {} samples, {} minibatches of {} and fewer, 1 thread",
        found["node"].as_str().unwrap_or("?"),
        found["twins"],
        found["samples"],
        found["steps"],
        found["batch"]
    );
    let python = python(found["batch"].as_u64().unwrap_or(20))?;
    let mut rows = vec![
        row("bare loop in tch, the same minibatches", &bare, "-", None, &found),
        Row {
            measured: format!("{}, {:.1} % of the bare loop", spread(&station), 100.0 * share),
            met: Some(share >= SHARE_MIN),
            ..row(&what, &station, &format!(">= {:.0} % of the bare loop", 100.0 * SHARE_MIN), None, &found)
        },
    ];
    match python {
        Some(python) => {
            let rate = python["samples_per_s"].as_f64().unwrap_or(f64::NAN);
            let version = python["torch"].as_str().unwrap_or("?");
            let ratio = median(station.iter().copied()) / rate;
            let share = format!("the base station has {:.0} % of it", 100.0 * ratio);
            let what = format!("bare loop in Python, PyTorch {version}");
            rows.push(row(&what, &[rate], &share, None, &python));
        }
        None => {
            eprintln!("speed: python3 has no torch here: going on without its loop to compare with");
        }
    }
    report.add(rows);
    Ok(())
}

fn row(what: &str, rates: &[f64], reference: &str, met: Option<bool>, figures: &Value) -> Row {
    Row {
        measured: spread(rates),
        reference: reference.to_owned(),
        met,
        figures: json!({ "samples_per_s": rates, "of": figures }),
        ..Row::new("speed", Load::Idle, what)
    }
}

fn spread(rates: &[f64]) -> String {
    let all = sorted(rates.iter().copied());
    let (low, high) = (all.first().copied().unwrap_or(f64::NAN), all.last().copied().unwrap_or(f64::NAN));
    format!("{:.0} samples/s ({low:.0} to {high:.0})", median(all.iter().copied()))
}

/// The same loop in Python; `None` where there is no PyTorch.
fn python(batch: u64) -> Result<Option<Value>> {
    let has_torch = Command::new("python3").args(["-c", "import torch"]).output();
    if !has_torch.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/training/loop_of_pytorch.py");
    let output = run(Command::new("python3").arg(script).args(["--batch", &batch.to_string()]))?;
    Ok(Some(serde_json::from_slice(&output.stdout)?))
}
