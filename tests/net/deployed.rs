//! Association policies that decide in live rounds, over the chain.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Rig, Session, wait_for};

/// The decision on a round.
fn decision(session: &Session, round: u64) -> Value {
    session.wait_for_event("association", |what| what["round"] == round)["what"].clone()
}

fn up<'a>(rig: &'a Rig, more: &[&str]) -> Session<'a> {
    rig.up(&[&["--set", "run.restart=never"], more].concat())
}

#[test]
fn decisions_reach_the_air_and_outlive_a_bs() {
    let rig = Rig::as_caller();
    let file = rig.path().join("decision.toml");
    let decided = "k = [4, 2, 1, 1]\nb = [0.3, 0.3, 0.3, 0.3]\n\
                   tau = [[0.75, 0.25], [0.25, 0.25], [0.0, 0.25], [0.0, 0.25]]\n";
    fs::write(&file, decided).unwrap();
    let file = format!("association.file={}", file.display());
    let more = ["--set", "association.policy=static", "--set", &file, "--set", "learning.deadline=3 s"];
    let session = up(&rig, &more);
    let first = decision(&session, 1);
    assert_eq!(
        (&first["policy"], &first["k"], &first["kept_by"]),
        (&json!("static"), &json!([4, 2, 1, 1]), &json!([]))
    );
    let serving: Vec<u64> = serde_json::from_value(first["serving"].clone()).unwrap();
    let keeps = |bs: u64| serving.iter().filter(|of| **of == bs).count();
    assert_eq!([keeps(0), keeps(1), keeps(2), keeps(3)], [4, 2, 1, 1]);
    // Two users a BS at first, in their order.
    let moved = serving.iter().enumerate().filter(|(user, bs)| *user as u64 / 2 != **bs).count() as u64;
    assert_eq!(first["migrations"], moved);
    assert!(moved >= 2);
    assert!(first["height"].as_u64().unwrap() > 0);
    assert!(first["ratio_to_optimal"].as_f64().unwrap() > 1.0);
    // τ·W·7.4 bit/s/Hz on two subchannels, where all had 111 Mbit/s.
    wait_for("the rates", || {
        let status = session.status();
        let rate = |bs: &str| {
            let links = status["links"].as_array().unwrap();
            let uplink = links.iter().find(|link| link["from"] == bs && link["to"] == "mbs");
            uplink.and_then(|link| link["rate_bps"].as_f64()).unwrap_or_default()
        };
        let near = |bs: &str, mbps: f64| (rate(bs) / 1e6 - mbps).abs() < 0.01;
        (near("bs1", 222.0) && near("bs2", 111.0) && near("bs3", 55.5)).then_some(())
    });

    // Users hear of it, and so does a BS that is gone: it keeps its last action, and the others go on.
    session.verb(&["kill", "bs4"]).ok();
    let kept = session.wait_for_event("association", |what| what["kept_by"] == json!(["bs4"]));
    assert_eq!((&kept["what"]["k"], &kept["what"]["migrations"]), (&json!([4, 2, 1, 1]), &json!(0)));
    let after = kept["what"]["round"].as_u64().unwrap() + 1;
    assert_eq!(decision(&session, after)["tau"], first["tau"]);
    let refused =
        |event: &Value| event["what"]["text"].as_str().is_some_and(|text| text.contains("refused an"));
    assert!(!session.events().iter().any(refused));
    let summary = session.down();
    let association = &summary["association"];
    assert_eq!((&association["k_by_bs"], &association["migrations"]), (&json!([4, 2, 1, 1]), &json!(moved)));
    assert!(association["decision_us"].as_f64().unwrap() > 0.0, "{association}");
    assert!(association["measured_terms_ms"][1].as_f64().unwrap() > 0.0, "{association}");
}

#[test]
fn the_same_seed_decides_the_same() {
    let rig = Rig::as_caller();
    let decisions = |seed: &str| {
        let session = up(&rig, &["--set", "association.policy=random", "--seed", seed]);
        let of = |round| {
            let what = decision(&session, round);
            assert_eq!(what["kept_by"], json!([]));
            [what["k"].clone(), what["b"].clone(), what["tau"].clone(), what["serving"].clone()]
        };
        let both = [of(1), of(2)];
        session.down();
        both
    };
    let one = decisions("4");
    assert_ne!(one[0], one[1]);
    assert_eq!(one, decisions("4"));
    assert_ne!(one, decisions("5"));
}

#[test]
fn policies_that_cannot_decide_are_refused_before_anything_starts() {
    let rig = Rig::as_caller();
    let untrained = rig.path().join("none.policy");
    let file = format!("association.file={}", untrained.display());
    let with = |more: &[&str]| {
        let name = rig.unique_name();
        let command = rig.up_command(&name, &[&["--headless"], more].concat());
        crate::common::Running::start(command).finish()
    };
    with(&["--set", "association.policy=maddpg", "--set", &file]).code(96).says("none.policy");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/paper.policy"), &untrained).unwrap();
    with(&["--set", "association.policy=maddpg", "--set", &file]).code(96).says("100 twins");
    with(&["--set", "association.policy=greedy", "--set", "chain.enabled=false"])
        .code(96)
        .says("needs the chain");
}
