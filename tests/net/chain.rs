//! The chain of the base stations on real links: it grows, bears loss, the death of a producer and a partition, and can be looked
//! at while it runs and afterwards.

use serde_json::{Value, json};

use crate::{
    as_both,
    common::{Finished, Rig, Session, wait_for},
};

as_both!(the_chain_grows_and_can_be_looked_at);

/// Enough for a block every few milliseconds, little enough for a busy machine; nothing else is on the air.
pub const LOAD: [&str; 4] = ["--set", "chain.tx_rate=100", "--set", "learning.enabled=false"];

/// `dtwn chain VERB RUN_OR_SESSION MORE…`.
#[track_caller]
pub fn chain(rig: &Rig, verb: &str, run: &str, more: &[&str]) -> Finished {
    rig.run(["chain", verb, run].into_iter().chain(more.iter().copied()))
}

/// The height that a node of a live session has finalized; 0 while it has no store.
pub fn height(session: &Session, node: &str) -> u64 {
    let log = chain(session.rig, "log", &session.name, &["--node", node, "--last", "1", "--json"]);
    if log.status.success() { log.json()["height"].as_u64().unwrap() } else { 0 }
}

/// Waits until a node has finalized a height.
#[track_caller]
pub fn wait_for_height(session: &Session, node: &str, least: u64) -> u64 {
    wait_for(&format!("{node} to finalize height {least}"), || {
        let now = height(session, node);
        (now >= least).then_some(now)
    })
}

/// Every node's chain is valid, and none contradicts another; the height that all have finalized.
#[track_caller]
pub fn verify(rig: &Rig, run: &str, nodes: usize) -> u64 {
    let answer = chain(rig, "verify", run, &["--json"]).ok().json();
    let results: Vec<_> = answer["nodes"].as_array().unwrap().iter().map(|node| &node["result"]).collect();
    assert_eq!(results, vec!["valid"; nodes], "{answer:#}");
    assert_eq!(answer["conflicts"], 0, "{answer:#}");
    answer["common_height"].as_u64().unwrap()
}

fn the_chain_grows_and_can_be_looked_at(rig: &Rig) {
    // Beside the learning, which shares the links.
    let session = rig.up(&["--set", "chain.tx_rate=100"]);
    for node in ["bs1", "bs2", "bs3", "bs4", "mbs"] {
        wait_for_height(&session, node, 5);
    }
    look_at(rig, &session.name);
    assert!(verify(rig, &session.name, 5) >= 5);
    chain(rig, "repair", &session.name, &["bs1"]).code(1).says("the chain store of bs1 is not damaged");
    chain(rig, "repair", &session.name, &["bs1", "--force"]).code(1).says("another process has it open");
    let run_dir = session.run_dir.clone();
    let summary = session.down();
    let kept = &summary["chain"];
    assert_eq!(kept["conflicts"], 0, "{kept:#}");
    assert!(kept["tx_finalized"].as_u64().unwrap() > 0, "{kept:#}");
    assert!(kept["finality_ms_p50"].as_f64().unwrap() > 0.0, "{kept:#}");
    assert_eq!(kept["evidence"], json!([]), "{kept:#}");

    // And when nobody writes any more.
    let run = run_dir.to_str().unwrap();
    look_at(rig, run);
    let common = verify(rig, run, 5);
    // The summary counts what the nodes reported, about four times a second; the stores may have gone on since.
    assert!(kept["height"].as_u64().unwrap() >= 5 && common >= 5);
    chain(rig, "verify", rig.path().to_str().unwrap(), &[]).code(1).says("cannot read");
    chain(rig, "log", "nowhere", &[]).code(1).says("no session called `nowhere`");
}

/// `log` and `show` agree with each other, and refuse what there is not.
fn look_at(rig: &Rig, run: &str) {
    let log = chain(rig, "log", run, &["--json", "--last", "3"]).ok().json();
    let blocks = log["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 3);
    let block = &blocks[0];
    for (key, value) in block.as_object().unwrap() {
        assert!(key == "certificate" || !value.is_null(), "{key} of {block:#}");
    }
    let kinds = block["kinds"].as_object().unwrap();
    let count: u64 = kinds.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(block["transactions"], count);
    assert_eq!(blocks[1]["parent"], block["digest"]);

    let height = block["height"].to_string();
    let digest = block["digest"].as_str().unwrap();
    let by_height = chain(rig, "show", run, &[&height, "--json"]).ok().json();
    let by_digest = chain(rig, "show", run, &[&digest[..16], "--json"]).ok().json();
    for shown in [&by_height, &by_digest] {
        assert_eq!(shown["digest"], block["digest"]);
        let transactions = shown["transactions"].as_array().unwrap();
        assert_eq!(transactions.len() as u64, count);
        let bytes: u64 = transactions.iter().map(|tx| tx["bytes"].as_u64().unwrap()).sum();
        assert_eq!(shown["bytes"], bytes);
        let known = |tx: &Value| kinds.contains_key(tx["payload"]["kind"].as_str().unwrap());
        assert!(transactions.iter().all(|tx| known(tx) && tx["signer"].as_str().unwrap().starts_with("bs")));
    }
    let printed = chain(rig, "show", run, &[&height]).ok().stdout;
    assert!(printed.contains(digest), "{printed}");
    let printed = chain(rig, "log", run, &["--node", "mbs"]).ok().stdout;
    assert!(printed.lines().count() > 5 && printed.contains("LEADER"), "{printed}");

    chain(rig, "show", run, &["9999999"]).code(1).says("has no block 9999999");
    chain(rig, "show", run, &["0"]).code(1).says("has no block 0");
    chain(rig, "show", run, &["bs1"]).code(2).says("`bs1` names no block");
    chain(rig, "show", run, &["0000000000000000"]).code(1).says("digest begins with 0000000000000000");
    chain(rig, "log", run, &["--node", "bs5"]).code(1).says("no node `bs5` keeps the chain");
    chain(rig, "log", run, &["--node", "ug1"]).code(1).says("BSs and the MBS do");
    chain(rig, "repair", run, &["ug1"]).code(1).says("no node `ug1` keeps the chain");
}

as_both!(a_run_without_a_chain_says_so);

fn a_run_without_a_chain_says_so(rig: &Rig) {
    let session = rig.up(&["--set", "chain.enabled=false"]);
    for verb in ["log", "verify"] {
        chain(rig, verb, &session.name, &[]).code(1).says("keeps no chain");
    }
    assert_eq!(session.down()["chain"], Value::Null);
}

#[test]
fn blocks_are_final_although_every_fifth_packet_is_lost() {
    let rig = Rig::as_caller();
    // From BS to BS a packet passes one uplink and one downlink.
    let loss = ["--set", "link.uplink.loss=20%"];
    let session = rig.up(&[LOAD.as_slice(), &loss].concat());
    let begun = wait_for_height(&session, "bs1", 1);
    for node in ["bs1", "bs2", "bs3", "bs4", "mbs"] {
        wait_for_height(&session, node, begun + 10);
    }
    let dropped = |summary: &Value| -> u64 {
        let links = summary["links"].as_array().unwrap();
        links.iter().map(|link| link["dropped"]["loss"].as_u64().unwrap()).sum()
    };
    let run = session.run_dir.to_str().unwrap().to_owned();
    let summary = session.down();
    assert!(dropped(&summary) > 100, "the links lost nothing");
    assert_eq!(summary["chain"]["conflicts"], 0);
    verify(&rig, &run, 5);
}

#[test]
fn a_killed_producer_catches_up() {
    let rig = Rig::as_caller();
    let session = rig.up(&[LOAD.as_slice(), &["--set", "run.restart=never"]].concat());
    let before = wait_for_height(&session, "bs2", 3);
    session.verb(&["kill", "bs2"]).ok();
    wait_for("bs2 to be gone", || (session.node("bs2")["state"] == "exited").then_some(()));
    // Three of four are a quorum.
    let without = wait_for_height(&session, "bs1", before + 10);
    assert!(height(&session, "bs2") < without);
    session.verb(&["restart", "bs2"]).ok();
    wait_for_height(&session, "bs2", without);
    let then = height(&session, "bs1");
    wait_for_height(&session, "bs2", then + 5);
    let run = session.run_dir.to_str().unwrap().to_owned();
    assert_eq!(session.down()["chain"]["conflicts"], 0);
    verify(&rig, &run, 5);
}

#[test]
fn neither_half_of_a_split_network_finalizes() {
    let rig = Rig::as_caller();
    let session = rig.up(&LOAD);
    wait_for_height(&session, "bs1", 3);
    session.verb(&["partition", "mbs,bs1,bs2", ":", "bs3,bs4"]).ok();
    let heights = || ["bs1", "bs2", "bs3", "bs4", "mbs"].map(|node| height(&session, node));
    // What was on its way may still arrive; from then on all stays as it is.
    let mut held = heights();
    let mut still = 0;
    wait_for("the chain to stop", || {
        let now = heights();
        still = if now == held { still + 1 } else { 0 };
        held = now;
        (still >= 5).then_some(())
    });
    let most = held.into_iter().max().unwrap();
    session.verb(&["heal"]).ok();
    for node in ["bs1", "bs4", "mbs"] {
        wait_for_height(&session, node, most + 5);
    }
    let run = session.run_dir.to_str().unwrap().to_owned();
    let kept = session.down()["chain"].clone();
    assert_eq!(kept["conflicts"], 0);
    assert!(kept["nullified_views"].as_u64().is_some(), "{kept:#}");
    verify(&rig, &run, 5);
}
