//! What a round waits for: training lasts as long as Eq. 12 says, and the deadline ends what lasts too long.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    common::Rig,
    learning::{FEW, digests, events_of, run, run_dir_of},
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

#[test]
fn training_that_no_round_waited_for_degrades_the_verdict_too() {
    let rig = Rig::as_caller();
    // Less than a second of training at the slowest, as Eq. 12 has it, in rounds of two that end before a machine is through with it.
    let more =
        ["learning.compute=paced", "learning.fraction=1", "learning.deadline=2 s", "learning.epochs=5"];
    let more: Vec<&str> =
        more.iter().chain(&["cost.cycles_per_sample=3e5"]).flat_map(|set| ["--set", set]).collect();
    let session = rig.up(&[&FEW[..], &more].concat());
    let abandoned =
        session.wait_for_event("training_abandoned", |what| what["overrun_ms"].as_f64() > Some(0.0));
    let late_ms = ms(&abandoned, "train_ms") - ms(&abandoned, "predicted_ms");
    assert!((ms(&abandoned, "overrun_ms") - late_ms).abs() < 1e-6, "{abandoned:#}");
    let samples = abandoned["what"]["samples"].as_u64().unwrap();
    assert!(samples > 0 && samples < 5 * 900, "it is that of a whole model: {abandoned:#}");
    let summary = session.down();
    assert!(summary["learning"]["compute_overruns"].as_u64() >= Some(1), "{:#}", summary["learning"]);
    assert_ne!(summary["verdict"], "ok", "{:#}", summary["fidelity"]);
}

#[test]
fn a_live_bs_that_misses_the_deadline_is_late_and_too_few_models_change_nothing() {
    let rig = Rig::as_caller();
    let more = ["learning.deadline=10 s", "learning.min_bs=3"];
    let more: Vec<&str> = more.iter().flat_map(|set| ["--set", set]).collect();
    let session = rig.up(&[&FEW[..], &more].concat());
    let global = |fits: &dyn Fn(&Value) -> bool| {
        session.wait_for_event("global_model", |what| fits(what))["what"].clone()
    };
    let number = |global: &Value| global["round"].as_u64().unwrap();
    let all = json!(["bs1", "bs2", "bs3", "bs4"]);
    let first = global(&|what| what["accepted"] == all);
    // A model takes over half a minute then, which is no reason to take its connection for dead.
    session.verb(&["link", "set", "bs2", "mbs", "--rate", "500kbit"]).ok();
    let without = global(&|what| {
        what["late"] == json!(["bs2"])
            && what["accepted"] == json!(["bs1", "bs3", "bs4"])
            && what["rejected"] == json!([])
    });
    assert!(number(&without) > number(&first));
    let round = session.wait_for_event("round", |what| what["round"] == without["round"]);
    assert_eq!(round["what"]["missed_by"], json!(["bs2"]));
    assert!(ms(&round, "duration_ms") >= 10000.0, "it was not waited for: {round:#}");

    // The two that are left are fewer than `min_bs`, and than it takes to attest models.
    session.verb(&["link", "set", "bs3", "mbs", "--rate", "500kbit"]).ok();
    let is_late = |what: &Value, bs: &str| what["late"].as_array().unwrap().contains(&json!(bs));
    let kept = global(&|what| is_late(what, "bs2") && is_late(what, "bs3"));
    assert_eq!(kept["accepted"], json!([]));
    let said = session.wait_for_event("notice", |what| {
        what["text"].as_str().unwrap().starts_with(&format!("round {} brought ", number(&kept)))
    });
    let said = said["what"]["text"].as_str().unwrap();
    assert!(said.contains("fewer than learning.min_bs = 3: the global model stays"), "{said}");

    // Nothing of the rounds that are over holds up later ones.
    session.verb(&["link", "reset", "bs2", "mbs"]).ok();
    session.verb(&["link", "reset", "bs3", "mbs"]).ok();
    let again = global(&|what| what["accepted"] == all && number(what) > number(&kept));
    let digests = digests(&session.events());
    let is_kept = |round: u64| digests[&round] == digests[&(round - 1)];
    assert!(is_kept(number(&kept)), "too few models made a global model: {digests:#?}");
    assert!(!is_kept(number(&without)) && !is_kept(number(&again)), "{digests:#?}");
    let exited = session.events().into_iter().filter(|event| event["what"]["type"] == "node_exited").count();
    assert_eq!(exited, 0);
    session.down();
}
