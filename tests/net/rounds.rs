//! What a round waits for: training lasts as long as Eq. 12 says.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    common::Rig,
    learning::{events_of, run, run_dir_of},
};

/// One round in which training a sample takes so many cycles; its summary and its events.
fn one_round(compute: &str, cycles: f64) -> (Value, Vec<Value>) {
    let rig = Rig::as_caller();
    let name = rig.unique_name();
    let (compute, cycles) =
        (format!("learning.compute={compute}"), format!("cost.cycles_per_sample={cycles}"));
    let set = ["--set", &compute, "--set", &cycles, "--set", "learning.deadline=3600 s"];
    let summary = run(&rig, &name, "1", &set).ok().json();
    (summary, events_of(&rig, &run_dir_of(&rig, &name)))
}

/// The models of the first round, as BSs told of them. A round needs three of the four; the run may be over before the last is told.
fn models(events: &[Value]) -> Vec<&Value> {
    let fits = |event: &&Value| event["what"]["type"] == "local_model" && event["what"]["round"] == 1;
    let models: Vec<&Value> = events.iter().filter(fits).collect();
    assert!(models.len() >= 3, "{models:#?}");
    models
}

/// Milliseconds that Eq. 12 says for a BS's model, by the processors of `small.toml`.
fn eq_12_ms(model: &Value, cycles: f64) -> f64 {
    let ghz = BTreeMap::from([("bs1", 2.6), ("bs2", 1.8), ("bs3", 2.4), ("bs4", 2.4)]);
    let samples = model["what"]["samples"].as_f64().unwrap();
    samples * cycles / (ghz[model["node"].as_str().unwrap()] * 1e6)
}

fn ms(event: &Value, key: &str) -> f64 {
    event["what"][key].as_f64().unwrap_or_else(|| panic!("no {key}: {event:#}"))
}

#[test]
fn paced_training_lasts_as_long_as_its_processor_would_take() {
    // 40 samples a BS: 4 s at the slowest.
    let cycles = 1.8e8;
    let (_, events) = one_round("paced", cycles);
    let models = models(&events);
    let begun = events.iter().find(|event| event["what"]["type"] == "global_model").unwrap();
    let since_begun_ms =
        |event: &Value| (event["at_ns"].as_f64().unwrap() - begun["at_ns"].as_f64().unwrap()) / 1e6;
    for model in &models {
        let predicted_ms = ms(model, "predicted_ms");
        assert!((predicted_ms - eq_12_ms(model, cycles)).abs() < 1.0, "{model:#}");
        assert!(ms(model, "train_ms") >= predicted_ms, "{model:#}");
        // It is told once the wait is over, and the round opened after the first global model was told.
        assert!(since_begun_ms(model) >= predicted_ms, "{model:#} after {}", since_begun_ms(model));
    }
    // And it is the MBS that waits for them.
    let slowest_ms = models.iter().map(|model| eq_12_ms(model, cycles)).fold(0.0, f64::max);
    let round = events.iter().find(|event| event["what"]["type"] == "round").unwrap();
    assert!(slowest_ms > 2500.0 && ms(round, "duration_ms") >= slowest_ms, "{round:#}");
}

#[test]
fn native_training_does_not_wait() {
    // Five hours at the slowest.
    let cycles = 8.1e11;
    let (summary, events) = one_round("native", cycles);
    for model in models(&events) {
        assert!((ms(model, "predicted_ms") - eq_12_ms(model, cycles)).abs() < 1000.0, "{model:#}");
        assert!(ms(model, "train_ms") < ms(model, "predicted_ms"), "{model:#}");
        assert_eq!(ms(model, "overrun_ms"), 0.0, "{model:#}");
    }
    assert_eq!(summary["learning"]["compute_overruns"], 0);
}

#[test]
fn training_that_is_slower_than_its_processor_degrades_the_verdict() {
    let (summary, events) = one_round("paced", 1.0);
    for model in models(&events) {
        let late_ms = ms(model, "train_ms") - ms(model, "predicted_ms");
        assert!(
            ms(model, "overrun_ms") > 0.0 && (ms(model, "overrun_ms") - late_ms).abs() < 1e-6,
            "{model:#}"
        );
    }
    assert!(summary["learning"]["compute_overruns"].as_u64() >= Some(3), "{:#}", summary["learning"]);
    let fidelity = &summary["fidelity"];
    assert_ne!(fidelity["verdict"], "ok", "{fidelity:#}");
    let blamed = |reason: &Value| reason.as_str().unwrap().contains("took longer than Eq. 12 allows");
    assert!(fidelity["reasons"].as_array().unwrap().iter().any(blamed), "{fidelity:#}");
}
