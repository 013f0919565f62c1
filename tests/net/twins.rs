//! Digital twins in a live network: samples over the air, moves between base stations, and deaths in the middle of both.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    chain::verify,
    common::{Rig, Session, wait_for},
    learning::FEW,
};

fn kill_node(session: &Session, node: &str) {
    kill(Pid::from_raw(session.node_pid(node)), Signal::SIGKILL).unwrap();
}

/// Events of a type.
fn of_type(session: &Session, kind: &str) -> Vec<Value> {
    let events = session.events().into_iter().map(|event| event["what"].clone());
    events.filter(|what| what["type"] == kind).collect()
}

/// Users whose samples have arrived.
fn synced(session: &Session) -> Vec<String> {
    let all = of_type(session, "transfer").into_iter().filter(|what| what["kind"] == "twin-data");
    let mut users: Vec<String> = all.map(|what| what["from"].as_str().unwrap().to_owned()).collect();
    users.sort();
    users
}

#[test]
fn samples_cross_the_access_links_and_a_death_on_the_way_loses_none() {
    let rig = Rig::as_caller();
    // A user has 1 to 2 Mbit/s for its 12 Mbit.
    let session = rig.up(&[
        "--set",
        "twins.preload=false",
        "--set",
        "learning.learner=traffic",
        "--set",
        "learning.enabled=false",
        "--set",
        "link.access.rate=1.5 Mbit/s",
    ]);
    let data = session.run_dir.join("state/bs2/twins/2.data");
    let here = || fs::metadata(&data).map_or(0, |file| file.len());
    wait_for("a part of a twin's data", || (here() > 100_000).then_some(()));
    kill_node(&session, "bs2");
    let before = here();
    kill_node(&session, "ug3");
    let users: Vec<String> =
        (1..=4).flat_map(|group| (1..=2).map(move |user| format!("ug{group}.{user}"))).collect();
    wait_for("all samples", || {
        let mut there = synced(&session);
        there.dedup();
        (there == users).then_some(())
    });
    let sizes: Vec<u64> = (0..8)
        .map(|user| {
            let path = session.run_dir.join(format!("state/bs{}/twins/{user}.data", 1 + user / 2));
            fs::metadata(path).unwrap().len()
        })
        .collect();
    assert!(before >= 100_000 && sizes.iter().all(|size| *size == 500 * 3073), "{before} {sizes:?}");
}

#[test]
fn a_twin_moves_and_a_death_on_the_way_leaves_it_with_one_owner() {
    let rig = Rig::as_caller();
    let file = rig.path().join("decision.toml");
    fs::write(
        &file,
        "k = [3, 1, 2, 2]\nb = [0.272, 0.272, 0.272, 0.272]\n\
         tau = [[0.25, 0.25], [0.25, 0.25], [0.25, 0.25], [0.25, 0.25]]\n",
    )
    .unwrap();
    let policy_file = format!("association.file={:?}", file.to_str().unwrap());
    let session = rig.up(&[
        "--set",
        "association.policy=static",
        "--set",
        &policy_file,
        "--set",
        "learning.learner=traffic",
        // Slow enough to be caught on its way.
        "--set",
        "link.downlink.rate=4 Mbit/s",
    ]);
    let part = |_| {
        let dir = fs::read_dir(session.run_dir.join("state/bs1/twins")).ok()?;
        let mut files = dir.filter_map(|file| Some(file.ok()?.path()));
        files.find(|path| path.extension().is_some_and(|kind| kind == "move"))
    };
    wait_for("a twin on its way to bs1", || {
        part(()).filter(|path| fs::metadata(path).is_ok_and(|file| file.len() > 1000))
    });
    kill_node(&session, "bs1");
    kill_node(&session, "bs2");
    let moved = session.wait_for_event("twin_moved", |_| true)["what"].clone();
    assert_eq!((&moved["from"], &moved["to"], &moved["epoch"]), (&json!("bs2"), &json!("bs1"), &json!(2)));
    // The user has followed its twin, and its states arrive there.
    let user = moved["twin"].as_str().unwrap().to_owned();
    session.wait_for_event("transfer", |what| {
        what["kind"] == "twin-state" && what["from"] == user.as_str() && what["to"] == "bs1"
    });
    wait_for("three twins at bs1, and one at bs2", || {
        let ages = of_type(&session, "twin_ages").len();
        (ages > 0).then_some(())?;
        let status = session.events();
        let last = |bs: &str| {
            let mut of_bs =
                status.iter().filter(|event| event["node"] == bs && event["what"]["type"] == "twin_ages");
            of_bs.next_back().and_then(|event| event["what"]["twins"].as_u64())
        };
        (last("bs1") == Some(3) && last("bs2") == Some(1)).then_some(())
    });
    let summary = session.down();
    assert_eq!(summary["twins"]["moves"], 1);
    assert_eq!(summary["twins"]["by_bs"]["bs1"]["twins"], 3);
}

/// Twins and samples of the models that a BS has trained, oldest first.
fn trained(session: &Session, bs: &str) -> Vec<(u64, u64)> {
    let of_bs = |event: &Value| event["node"] == bs && event["what"]["type"] == "local_model";
    let count = |event: &Value, what: &str| event["what"][what].as_u64().unwrap();
    session
        .events()
        .iter()
        .filter(|event| of_bs(event))
        .map(|event| (count(event, "twins"), count(event, "samples")))
        .collect()
}

#[test]
fn a_bs_trains_on_what_has_come_and_waits_where_nothing_has() {
    let rig = Rig::as_caller();
    let text = fs::read_to_string(rig.topology()).unwrap();
    // Nothing of its users reaches bs4, at first.
    let silent = "[[link.override]]\nfrom = \"ug4\"\nto = \"bs4\"\nloss = 1\n";
    fs::write(rig.topology(), format!("{text}\n{silent}")).unwrap();
    // 12 Mbit a user: some rounds begin on a part of them.
    let more = ["--set", "twins.preload=false", "--set", "link.access.rate=2 Mbit/s"];
    let session = rig.up(&[&FEW[..], &more].concat());
    let global = session.wait_for_event("global_model", |what| what["round"] == 2)["what"].clone();
    assert_eq!(global["late"], json!([]), "{global:#}");
    assert!(!global["accepted"].as_array().unwrap().contains(&json!("bs4")), "{global:#}");
    assert_eq!(trained(&session, "bs4"), []);
    for user in ["ug4.1", "ug4.2"] {
        session.verb(&["link", "set", user, "bs4", "--loss", "0%"]).ok();
    }
    // It had nothing, and goes on in the round that lasts; in the end all have trained on a part of all samples.
    wait_for("a model of bs4", || (!trained(&session, "bs4").is_empty()).then_some(()));
    let users: Vec<String> =
        (1..=4).flat_map(|group| (1..=2).map(move |user| format!("ug{group}.{user}"))).collect();
    wait_for("all samples", || (synced(&session) == users).then_some(()));
    let whole = wait_for("models of whole twins", || {
        let last = |bs| trained(&session, bs).last().copied();
        let newest = last("bs1")?;
        let alike = ["bs2", "bs3", "bs4"].into_iter().all(|bs| last(bs) == Some(newest));
        (alike && newest.0 == 2 && newest.1 > 30).then_some(newest)
    });
    for bs in ["bs1", "bs4"] {
        let first = trained(&session, bs)[0];
        assert!(first.1 < whole.1, "{bs} first trained on {first:?}, and on {whole:?} in the end");
    }
    for user in 0..8 {
        let path = session.run_dir.join(format!("state/bs{}/twins/{user}.data", 1 + user / 2));
        assert_eq!(fs::metadata(path).unwrap().len(), 500 * 3073);
    }
    let run_dir = session.run_dir.to_str().unwrap().to_owned();
    assert_eq!(session.down()["learning"]["late_bs"], 0);
    assert!(verify(&rig, &run_dir, 5) > 0);
}
