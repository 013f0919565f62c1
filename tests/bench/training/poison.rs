//! What one bad base station of five does to the global model, with verification and without.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    Bench,
    accuracy::{self, USERS},
    common::{
        Result,
        load::Load,
        report::{Report, Row},
    },
};

/// The target: verified, a bad BS costs at most so much accuracy.
const COST_MAX: f64 = 0.02;
/// What a BS has when the chain begins: `chain.coins` among five that hold as many samples (Eq. 6).
const FIRST_COINS: f64 = 200.0;
/// The bad one, the third.
const BAD: &str = "bs3";
/// How it is bad.
const KINDS: [&str; 4] = ["sign-flip", "noise", "label-flip", "nan"];

/// One run without a bad BS, then each kind of bad one, verified and not.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let topology = topology(bench)?;
    let rounds = bench.rounds.unwrap_or(if bench.quick { 2 } else { 6 });
    let run = |what: &str, set: &[String]| -> Result<Value> {
        eprintln!("{rounds} rounds {what}");
        let (summary, _) = bench.run(&topology, rounds, set)?;
        Ok(summary)
    };
    let clean = run("without a bad BS", &[])?;
    let reference = accuracy_of(&clean)?;
    report.add(vec![Row { reference: "-".into(), ..row("no bad BS".to_owned(), &clean)? }]);
    for kind in if bench.quick { &KINDS[..1] } else { &KINDS[..] } {
        for verify in [true, false] {
            let what = format!("{BAD}: {kind}, {}", if verify { "verified" } else { "not verified" });
            let set = [format!("learning.poison.{BAD}={kind}"), format!("learning.verify={verify}")];
            let summary = run(&what, &set)?;
            let cost = reference - accuracy_of(&summary)?;
            let found = Row { reference: format!("{:+.1} points", -100.0 * cost), ..row(what, &summary)? };
            report.add(vec![match verify {
                true => Row {
                    reference: format!("{}, at most {:.0} lost, no coins", found.reference, 100.0 * COST_MAX),
                    met: Some(cost <= COST_MAX && coins(&summary).is_some_and(|(bad, _)| bad <= FIRST_COINS)),
                    ..found
                },
                false => found,
            }]);
        }
    }
    Ok(())
}

fn row(what: String, summary: &Value) -> Result<Row> {
    let learned = &summary["learning"];
    let coins = coins(summary)
        .map_or(String::new(), |(bad, good)| format!(", coins {bad:.1}, the others' least {good:.1}"));
    Ok(Row {
        measured: format!(
            "{:.1} %, {} models refused{coins}",
            100.0 * accuracy_of(summary)?,
            learned["rejected_models"]
        ),
        verdict: summary["verdict"].as_str().map(str::to_owned),
        figures: json!({ "learning": learned, "coins": summary["chain"]["coins"] }),
        ..Row::new("poison", Load::Idle, what)
    })
}

/// What the bad BS has at the end, and the least that another has.
fn coins(summary: &Value) -> Option<(f64, f64)> {
    let coins: Vec<f64> = summary["chain"]["coins"].as_array()?.iter().filter_map(Value::as_f64).collect();
    let good = [0, 1, 3, 4].iter().filter_map(|bs| coins.get(*bs)).copied().fold(f64::INFINITY, f64::min);
    Some((*coins.get(2)?, good))
}

fn accuracy_of(summary: &Value) -> Result<f64> {
    Ok(summary["learning"]["test_accuracy"].as_f64().ok_or("nothing was trained")?)
}

/// Five BSs of 20 users over plain links, as fast as this machine goes; the data and the training of the accuracy.
fn topology(bench: &Bench) -> Result<PathBuf> {
    let each = accuracy::samples_each(bench)?;
    let users: String = (1..=5)
        .map(|bs| {
            let count = USERS / 5;
            format!("\n[[users]]\nid = \"ug{bs}\"\ncount = {count}\naround = \"bs{bs}\"\nsamples = {each}\n")
        })
        .collect();
    let text = format!(
        "[run]\nname = \"poison\"\nseed = 5\n\n[link.uplink]\nrate = \"100 Mbit/s\"\n\n[link.downlink]\n\
         rate = \"100 Mbit/s\"\n\n[[bs]]\nid = \"bs\"\ncount = 5\nring = \"100 m\"\n{users}\n{}compute = \
         \"native\"\n",
        accuracy::learning(bench)
    );
    let path = bench.scratch.path().join("poison.toml");
    fs::write(&path, text)?;
    Ok(path)
}
