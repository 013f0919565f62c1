//! How often verifiers refuse what is honest, and whether they refuse what was trained on other labels, in the networks as they are.

use serde_json::{Value, json};

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
    },
};

/// The one that is bad, where one is.
const BAD: &str = "bs3";
/// Base stations of few twins, and ones of many that train on unlike parts of them.
const NETWORKS: [&str; 2] = ["small", "paper"];

/// Runs each network without a bad base station, and with one.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let rounds = bench.rounds.unwrap_or(if bench.quick { 3 } else { 16 });
    for network in if bench.quick { &NETWORKS[..1] } else { &NETWORKS[..] } {
        let topology = Bench::shipped(network);
        for bad in [None, Some(BAD)] {
            let what = match bad {
                None => format!("{network}.toml, no bad BS"),
                Some(bad) => format!("{network}.toml, {bad}: label-flip"),
            };
            eprintln!("{rounds} rounds of {what}");
            // Pacing changes when models are made and not what is in them.
            let mut set = vec!["learning.learner=torch".to_owned(), "learning.compute=native".to_owned()];
            set.extend(bad.map(|bad| format!("learning.poison.{bad}=label-flip")));
            let (summary, events) = bench.run(&topology, rounds, &set)?;
            report.add(vec![row(what, bad, &summary, &events)?]);
        }
    }
    Ok(())
}

/// Refused ones of all, of models or of pairs of a verifier and a model.
#[derive(Default)]
struct Count {
    refused: u64,
    all: u64,
}

impl Count {
    fn add(&mut self, refused: bool) {
        self.refused += u64::from(refused);
        self.all += 1;
    }

    fn json(&self) -> Value {
        json!({ "refused": self.refused, "all": self.all })
    }
}

fn row(what: String, bad: Option<&str>, summary: &Value, events: &[Value]) -> Result<Row> {
    let (mut honest, mut flipped, mut pairs) = (Count::default(), Count::default(), Count::default());
    for event in events {
        let what = &event["what"];
        let is_bad = |bs: &Value| bad.is_some() && bs.as_str() == bad;
        match what["type"].as_str() {
            Some("global_model") if what["round"] != 0 => {
                for (list, refused) in [("accepted", false), ("rejected", true)] {
                    let models = what[list].as_array().into_iter().flatten();
                    models.for_each(|bs| if is_bad(bs) { &mut flipped } else { &mut honest }.add(refused));
                }
            }
            // What a bad one finds is not for it to be trusted with; nor does it see its samples as others do.
            Some("verification") if !is_bad(&event["node"]) && !is_bad(&what["owner"]) => {
                pairs.add(what["fault"].is_string());
            }
            _ => {}
        }
    }
    if honest.all == 0 || pairs.all == 0 {
        return Err(format!("{what}: no model was judged").into());
    }
    let of_bad =
        bad.map_or(String::new(), |bad| format!("{} of {} of {bad}, ", flipped.refused, flipped.all));
    let dataset = &summary["learning"]["dataset"];
    Ok(Row {
        measured: format!(
            "{of_bad}{} of {} honest models refused ({} of {} findings)",
            honest.refused, honest.all, pairs.refused, pairs.all
        ),
        reference: "-".into(),
        verdict: summary["verdict"].as_str().map(str::to_owned),
        figures: json!({
            "dataset": dataset, "honest": honest.json(), "bad": flipped.json(), "findings_on_honest": pairs.json(),
        }),
        ..Row::new("refusals", Load::Idle, what)
    })
}
