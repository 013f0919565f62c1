//! Stores of the chain that are killed, damaged, truncated and doctored.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dtwn_chain::{
    block::SharedBlock, genesis::Registry, record::Record, state::State, store::Store,
    vote::SharedCertificate,
};
use dtwn_model::{Plan, topology};
use serde_json::Value;

use crate::{
    chain::{LOAD, chain, height, verify, wait_for_height},
    common::{Rig, Session, wait_for},
};

fn store(run_dir: &Path, node: &str) -> PathBuf {
    run_dir.join("state").join(node).join("chain.redb")
}

/// Changes one bit wherever the file has these bytes.
fn flip(path: &Path, needle: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - needle.len()).filter(|&place| bytes[place..].starts_with(needle)).collect();
    assert!(!places.is_empty(), "nothing to damage in {}", path.display());
    places.into_iter().for_each(|place| bytes[place + 5] ^= 0x10);
    fs::write(path, bytes).unwrap();
}

fn bytes_of(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn when_everything_is_killed_the_chains_are_whole() {
    let rig = Rig::as_caller();
    let session = rig.up(&LOAD);
    for node in ["bs1", "bs2", "bs3", "bs4", "mbs"] {
        wait_for_height(&session, node, 5);
    }
    session.kill();
    let run = session.run_dir.to_str().unwrap().to_owned();
    assert!(verify(&rig, &run, 5) >= 5);
    // Looking has changed nothing.
    let before = fs::read(store(&session.run_dir, "bs3")).unwrap();
    verify(&rig, &run, 5);
    assert_eq!(fs::read(store(&session.run_dir, "bs3")).unwrap(), before);
}

/// Damages the store of a node while it cannot write, and has it repaired after the node has said what is wrong.
fn damage_and_repair(session: &Session, node: &str, damage: impl Fn(&Path)) {
    let rig = session.rig;
    let path = store(&session.run_dir, node);
    session.verb(&["pause", node]).ok();
    damage(&path);
    session.verb(&["kill", node]).ok();
    let exited = session.wait_for_event("node_exited", |what| {
        what["node"] == node
            && what["expected"] == false
            && what["last_log"].to_string().contains("dtwn chain repair")
    });
    assert_eq!(exited["what"]["exit"]["code"], 1, "{exited:#}");
    let log = exited["what"]["last_log"].to_string();
    assert!(log.contains("chain.redb is damaged"), "{log}");
    let answer = chain(rig, "verify", &session.name, &["--json"]).code(100).json();
    let of_node = answer["nodes"].as_array().unwrap().iter().find(|entry| entry["node"] == node).unwrap();
    assert_eq!(of_node["result"], "invalid");
    assert!(of_node["problem"].as_str().unwrap().contains("is damaged"));

    let before = height(session, "bs1");
    let said = chain(rig, "repair", &session.name, &[node]).ok();
    assert!(said.stdout.contains("votes from epoch"), "{said:?}");
    // Its policy starts it again and again, or a person does.
    session.verb(&["restart", node]).ok();
    wait_for_height(session, node, before);
    let then = height(session, "bs1");
    wait_for_height(session, node, then + 3);
    let aside = fs::read_dir(path.parent().unwrap()).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains("damaged") && !name.to_string_lossy().ends_with("count")
    });
    assert_eq!(aside.count(), 1, "the damaged store was not kept");
}

#[test]
fn damaged_stores_are_refused_and_repaired() {
    let rig = Rig::as_caller();
    // A repaired node votes after two epochs at most: until then the others have to be a quorum.
    let session = rig.up(&[LOAD.as_slice(), &["--set", "chain.epoch=5"]].concat());
    for node in ["bs1", "bs3", "bs4"] {
        wait_for_height(&session, node, 5);
    }
    let block = chain(&rig, "show", &session.name, &["3", "--json"]).ok().json();
    damage_and_repair(&session, "bs3", |path| flip(path, &bytes_of(&block["state"])));
    let then = height(&session, "bs1");
    wait_for_height(&session, "bs3", then + 15);
    damage_and_repair(&session, "bs4", |path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    });
    let run = session.run_dir.to_str().unwrap().to_owned();
    assert_eq!(session.down()["chain"]["conflicts"], 0);
    verify(&rig, &run, 5);
}

/// What the nodes of a run agreed on.
fn registry(run_dir: &Path) -> Arc<Registry> {
    let text = fs::read_to_string(run_dir.join("topology.toml")).unwrap();
    let loaded = topology::parse("topology.toml", text, &topology::Overrides::default()).unwrap();
    let plan = Plan::new(&loaded.topology).unwrap();
    let keys: Value = serde_json::from_slice(&fs::read(run_dir.join("keys.json")).unwrap()).unwrap();
    let keys = keys.as_object().unwrap().iter();
    let keys: Vec<_> = keys.map(|(node, key)| (node.clone(), bytes_of(key).try_into().unwrap())).collect();
    Registry::new(dtwn_node::chain::genesis(&plan, &keys).unwrap()).unwrap()
}

type Chain = Vec<(SharedBlock, Option<SharedCertificate>)>;

/// Puts another chain into a node's store, checksums and count included.
fn doctor(run_dir: &Path, node: &str, change: impl Fn(&Arc<Registry>, &mut Chain)) {
    let registry = registry(run_dir);
    let path = store(run_dir, node);
    let held = Store::inspect(&path, &registry).unwrap();
    let mut blocks: Chain =
        (1..=held.height()).map(|height| held.committed(height).unwrap().unwrap()).collect();
    drop(held);
    change(&registry, &mut blocks);
    for file in [path.clone(), path.with_extension("redb.count")] {
        fs::remove_file(file).unwrap();
    }
    let (mut store, _) = Store::open(&path, registry).unwrap();
    let records: Vec<_> =
        blocks.into_iter().map(|(block, certificate)| Record::Commit(block, certificate)).collect();
    store.append(&records).unwrap();
}

#[test]
fn doctored_stores_are_found() {
    let rig = Rig::as_caller();
    let session = rig.up(&LOAD);
    wait_for("blocks on all nodes", || {
        (height(&session, "bs2").min(height(&session, "bs3")) >= 8).then_some(())
    });
    let run_dir = session.run_dir.clone();
    session.down();
    let run = run_dir.to_str().unwrap();
    let result = |answer: &Value, node: &str| {
        let nodes = answer["nodes"].as_array().unwrap();
        nodes.iter().find(|entry| entry["node"] == node).unwrap().clone()
    };

    // A store that says the same passes: it is not the copying that is found.
    doctor(&run_dir, "bs2", |_, _| {});
    verify(&rig, run, 5);

    doctor(&run_dir, "bs2", |_, blocks| {
        let certificate = blocks.iter_mut().find_map(|(_, certificate)| certificate.as_mut()).unwrap();
        Arc::make_mut(certificate).signatures[1].1.0[9] ^= 1;
    });
    let answer = chain(&rig, "verify", run, &["--json"]).code(100).json();
    assert_eq!(result(&answer, "bs2")["result"], "invalid");
    let problem = result(&answer, "bs2")["problem"].to_string();
    assert!(problem.contains("a signature is not valid"), "{problem}");
    assert_eq!((&result(&answer, "bs3")["result"], &answer["conflicts"]), (&"valid".into(), &0.into()));

    // Another last block, valid in itself: only beside the others is it seen to be a fork.
    doctor(&run_dir, "bs3", |registry, blocks| {
        let kept = blocks.len() - 2;
        blocks.truncate(kept);
        let state = blocks
            .iter()
            .fold(State::genesis(registry), |state, (block, _)| state.apply(registry, block).unwrap());
        let (fork, _) = state.build(registry, state.view + 50, []);
        blocks.push((Arc::new(fork), None));
    });
    let answer = chain(&rig, "verify", run, &["--json"]).code(100).json();
    assert_eq!(answer["conflicts"], 1, "{answer:#}");
    let printed = chain(&rig, "verify", run, &[]).code(100).stdout;
    assert!(printed.contains("CONFLICT at height"), "{printed}");

    // One that cannot be read is neither.
    fs::remove_file(store(&run_dir, "bs4")).unwrap();
    let answer = chain(&rig, "verify", run, &["--json"]).json();
    assert_eq!(result(&answer, "bs4")["result"], "unreadable");
    // With it, and one more out of reach, nobody knows from when on a node may vote.
    fs::remove_file(store(&run_dir, "bs1")).unwrap();
    chain(&rig, "repair", run, &["bs2"]).code(1).says("at most 1 may be unreadable");
}
