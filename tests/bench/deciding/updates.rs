//! Updates a second of one training alone, beside the same networks and minibatches in Python.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
        session::run,
    },
    topology_of,
    trained::train,
};

/// A short training of one seed, then Python's, where it is installed.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let topology = topology_of(bench, 5, "twins")?;
    let trained = train(bench, &topology, &[], 1, if bench.quick { 3 } else { 20 })?;
    let ours = trained.first().map_or(f64::NAN, |one| one.median("updates_per_s"));
    let steps = trained.first().map_or(f64::NAN, |one| one.median("steps_per_s"));
    let row = |what: &str, measured: String, reference: String, figures: Value| Row {
        measured,
        reference,
        figures,
        ..Row::new("updates", Load::Idle, what)
    };
    let python = python()?;
    let mut rows = vec![row(
        "in training, 5 BSs, minibatches of 256, 1 thread, their drawing included",
        format!("{ours:.0} updates/s, {:.0} k environment steps/s", steps / 1e3),
        "-".into(),
        json!({ "updates_per_s": ours, "steps_per_s": steps }),
    )];
    match python {
        Some(python) => {
            let theirs = python["updates_per_s"].as_f64().unwrap_or(f64::NAN);
            rows.push(row(
                &format!("Python, PyTorch {}, minibatches ready", python["torch"].as_str().unwrap_or("?")),
                format!("{theirs:.0} updates/s"),
                format!("dtwn has {:.0} % of it", 100.0 * ours / theirs),
                python,
            ));
        }
        None => eprintln!("updates: python3 has no torch here: going on without its loop to compare with"),
    }
    report.add(rows);
    Ok(())
}

/// The same in Python; `None` where there is no PyTorch.
fn python() -> Result<Option<Value>> {
    let has_torch = Command::new("python3").args(["-c", "import torch"]).output();
    if !has_torch.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/deciding/updates_of_pytorch.py");
    let output = run(Command::new("python3").arg(script))?;
    Ok(Some(serde_json::from_slice(&output.stdout)?))
}
