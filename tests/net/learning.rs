//! Real training from end to end: models trained by libtorch, sent over the air, attested on the chain; what is killed goes on.
//!
//! These need `dtwn-agent` beside `dtwn`, as a build of the whole workspace leaves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use dtwn_model::{
    Plan,
    topology::{self, Overrides},
};
use dtwn_node::learning::checkpoint::{Global, Identity, Shelf};
use safetensors::{SafeTensors, tensor::Dtype};
use serde_json::{Value, json};

use crate::{
    chain::verify,
    common::{Finished, Rig, Running, wait_for},
};

/// As little training as is still training, and models of a quarter of the bytes.
pub const FEW: [&str; 18] = [
    "--set",
    "learning.learner=torch",
    "--set",
    "learning.format=int8",
    "--set",
    "learning.fraction=0.04",
    "--set",
    "learning.test_samples=60",
    "--set",
    "learning.validation_samples=30",
    "--set",
    "learning.compute=native",
    "--set",
    "learning.tolerance=1",
    "--set",
    "learning.alignment=-1",
    "--set",
    "learning.mislabel_z=1000",
];

/// `dtwn up --headless --json` until so many rounds are over.
pub fn run(rig: &Rig, name: &str, rounds: &str, more: &[&str]) -> Finished {
    let arguments: Vec<&str> =
        FEW.iter().chain(&["--headless", "--json", "--rounds", rounds]).chain(more).copied().collect();
    Running::start(rig.up_command(name, &arguments)).finish()
}

/// The digest of each round's global model, among events of a run.
pub fn digests(events: &[Value]) -> BTreeMap<u64, String> {
    let globals = events.iter().map(|event| &event["what"]).filter(|what| what["type"] == "global_model");
    let mut found = BTreeMap::new();
    for global in globals {
        let (round, digest) = (global["round"].as_u64().unwrap(), global["digest"].as_str().unwrap());
        let before = found.insert(round, digest.to_owned());
        assert!(before.is_none_or(|before| before == digest), "round {round} has two models");
    }
    found
}

pub fn events_of(rig: &Rig, run_dir: &str) -> Vec<Value> {
    crate::common::parse_events(&rig.run(["events", run_dir, "--json"]).ok().stdout)
}

/// Where the run of a name was recorded; there must be one.
pub fn run_dir_of(rig: &Rig, name: &str) -> String {
    let mut dirs = fs::read_dir(rig.out()).unwrap().map(|entry| entry.unwrap().path());
    let found = dirs.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(name));
    found.unwrap().to_str().unwrap().to_owned()
}

#[test]
fn models_are_trained_attested_and_awarded_and_a_poisoner_is_found_out() {
    let rig = Rig::as_caller();
    let text = fs::read_to_string(rig.topology()).unwrap();
    let poisoned = text.replace("[learning]", "[learning]\npoison = { bs3 = \"nan\" }");
    assert_ne!(text, poisoned);
    fs::write(rig.topology(), poisoned).unwrap();
    let name = rig.unique_name();
    let summary = run(&rig, &name, "2", &[]).ok().json();
    let learned = &summary["learning"];
    has_all_figures(learned);
    assert_eq!((&learned["dataset"], &learned["rounds"]), (&json!("synthetic"), &json!(2)), "{learned:#}");
    assert_eq!((&learned["rejected_models"], &learned["late_bs"]), (&json!(2), &json!(0)), "{learned:#}");
    let run_dir = run_dir_of(&rig, &name);
    let events = events_of(&rig, &run_dir);
    for global in events.iter().map(|event| &event["what"]).filter(|what| what["type"] == "global_model") {
        if global["round"] != 0 {
            assert_eq!(global["accepted"], json!(["bs1", "bs2", "bs4"]), "{global:#}");
            assert_eq!(global["rejected"], json!(["bs3"]), "{global:#}");
        }
    }
    // Attested by its fellows, each good model of a round that is over has brought its BS coins.
    assert!(verify(&rig, &run_dir, 5) > 0);
    let coins: Vec<f64> =
        summary["chain"]["coins"].as_array().unwrap().iter().map(|coin| coin.as_f64().unwrap()).collect();
    for good in [0, 1, 3] {
        assert!(coins[good] > coins[2], "{coins:?}");
    }
}

/// What was learned in a run of two rounds from its beginning, as `docs/learning.md` names it: every figure, and no other.
fn has_all_figures(learned: &Value) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let figures = [
        "dataset",
        "rounds",
        "test_accuracy",
        "test_loss",
        "first_round",
        "accuracy_by_round",
        "digest",
        "samples_per_s",
        "rejected_models",
        "late_bs",
        "compute_overruns",
        "twin_age_ms_p50",
        "twin_age_ms_p99",
        "phases_ms",
    ];
    assert_eq!(keys(learned), names(&figures));
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {learned:#}"));
    let accuracy: Vec<f64> = learned["accuracy_by_round"].as_array().unwrap().iter().map(number).collect();
    assert!(accuracy.iter().all(|share| (0.0..=1.0).contains(share)), "{learned:#}");
    assert_eq!((accuracy.len(), accuracy[2]), (3, number(&learned["test_accuracy"])), "{learned:#}");
    assert_eq!(learned["first_round"], 0, "{learned:#}");
    assert!(number(&learned["test_loss"]) > 0.0 && number(&learned["samples_per_s"]) > 0.0, "{learned:#}");
    let digest = learned["digest"].as_str().unwrap();
    assert!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()), "{learned:#}");
    for count in ["rounds", "rejected_models", "late_bs", "compute_overruns"] {
        assert!(learned[count].is_u64(), "{count} in {learned:#}");
    }
    let (p50, p99) = (number(&learned["twin_age_ms_p50"]), number(&learned["twin_age_ms_p99"]));
    assert!(0.0 < p50 && p50 <= p99, "{learned:#}");
    let phases = &learned["phases_ms"];
    let beside = ["train", "aggregate", "upload", "broadcast", "verify", "block"];
    let expected = beside.iter().flat_map(|phase| [(*phase).to_owned(), format!("{phase}_predicted")]);
    let wall = names(&["aggregate_wall", "verify_wall", "aggregate_global_wall"]);
    assert_eq!(keys(phases), expected.chain(wall).collect());
    for (phase, value) in phases.as_object().unwrap() {
        assert!(value.as_f64().is_some_and(|ms| ms > 0.0 && ms < 1e6), "{phase} in {phases:#}");
    }
}

#[test]
fn wrong_labels_are_found_out_from_the_first_round() {
    let rig = Rig::as_caller();
    let name = rig.unique_name();
    // As the topology has it, but for what takes time: rules that were loosened would let it pass.
    let set = ["learning.learner=torch", "learning.compute=native", "learning.test_samples=60"];
    let set = set.into_iter().chain(["learning.poison.bs3=label-flip"]).flat_map(|one| ["--set", one]);
    let arguments: Vec<&str> = ["--headless", "--json", "--rounds", "3"].into_iter().chain(set).collect();
    let summary = Running::start(rig.up_command(&name, &arguments)).finish().ok().json();
    let run_dir = run_dir_of(&rig, &name);
    let events = events_of(&rig, &run_dir);
    let globals = events.iter().map(|event| &event["what"]).filter(|what| what["type"] == "global_model");
    for global in globals.filter(|global| global["round"] != 0) {
        assert_eq!(global["accepted"], json!(["bs1", "bs2", "bs4"]), "{global:#}");
        assert_eq!(global["rejected"], json!(["bs3"]), "{global:#}");
    }
    let told = |what: &&Value| what["type"] == "verification" && what["owner"] == "bs3";
    let faults: Vec<&str> = events
        .iter()
        .map(|event| &event["what"])
        .filter(told)
        .filter_map(|what| what["fault"].as_str())
        .collect();
    assert!(faults.iter().any(|fault| fault.contains("other labels")), "{faults:?}");
    let coins: Vec<f64> =
        summary["chain"]["coins"].as_array().unwrap().iter().map(|coin| coin.as_f64().unwrap()).collect();
    assert!([0, 1, 3].iter().all(|good| coins[*good] > coins[2]), "{coins:?}");
}

#[test]
fn a_run_that_was_killed_goes_on_with_the_same_models() {
    let rig = Rig::as_caller();
    // Half the bytes of f32, and what is rounded off has to go on too.
    let f16 = ["--set", "learning.format=f16"];
    let whole = rig.unique_name();
    run(&rig, &whole, "3", &f16).ok();
    let expected = digests(&events_of(&rig, &run_dir_of(&rig, &whole)));
    assert_eq!(expected.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);

    let arguments: Vec<&str> = FEW.iter().chain(&f16).copied().collect();
    let session = rig.up(&arguments);
    session.wait_for_event("global_model", |what| what["round"] == 1);
    session.kill();
    let killed = session.run_dir.to_str().unwrap().to_owned();
    let name = rig.unique_name();
    refuse_others(&rig, &killed);
    export(&rig, &killed, &expected);

    let resumed = resume(&rig, &name, &["--resume", &killed, "--rounds", "3"]).ok();
    let summary = resumed.json();
    assert_eq!(summary["learning"]["digest"], expected[&3], "{:#}", summary["learning"]);
    let run_dir = run_dir_of(&rig, &name);
    let again = digests(&events_of(&rig, &run_dir));
    assert!(again.keys().next().is_some_and(|first| *first >= 1), "it began anew: {again:?}");
    for (round, digest) in &again {
        assert_eq!(digest, &expected[round], "round {round}");
    }
    // The chain goes on as well, from what was final when the run was killed.
    assert!(verify(&rig, &run_dir, 5) > 0);
    let manifest: Value =
        serde_json::from_slice(&fs::read(Path::new(&run_dir).join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["resumed"]["run_dir"], killed);
    resume(&rig, &name, &["--resume", &run_dir, "--rounds", "3"]).code(2).says("has done 3 rounds already");
}

#[test]
fn twins_that_moved_stay_where_they_are_when_a_run_goes_on() {
    let rig = Rig::as_caller();
    let file = rig.path().join("decision.toml");
    let decided = "k = [3, 1, 2, 2]\nb = [0.272, 0.272, 0.272, 0.272]\n\
                   tau = [[0.25, 0.25], [0.25, 0.25], [0.25, 0.25], [0.25, 0.25]]\n";
    fs::write(&file, decided).unwrap();
    let file = format!("association.file={}", file.display());
    let session = rig.up(&[&FEW[..], &["--set", "association.policy=static", "--set", &file]].concat());
    let moved = session.wait_for_event("twin_moved", |_| true)["what"].clone();
    assert_eq!((&moved["from"], &moved["to"]), (&json!("bs2"), &json!("bs1")));
    let from_round = moved["from_round"].as_u64().unwrap();
    session.wait_for_event("local_model", |what| {
        what["twins"] == 3 && what["round"].as_u64() >= Some(from_round)
    });
    session.wait_for_event("global_model", |what| what["round"].as_u64() > Some(from_round));
    session.kill();
    let killed = session.run_dir.to_str().unwrap().to_owned();
    let name = rig.unique_name();
    let rounds = (from_round + 4).to_string();
    let summary = resume(&rig, &name, &["--resume", &killed, "--rounds", &rounds]).ok().json();
    assert_eq!(summary["learning"]["rounds"], from_round + 4);
    assert_eq!(summary["twins"]["moves"], 0, "{:#}", summary["twins"]);
    assert_eq!(summary["twins"]["by_bs"]["bs1"]["twins"], 3, "{:#}", summary["twins"]);
    let events = events_of(&rig, &run_dir_of(&rig, &name));
    let trained = events.iter().filter(|event| event["what"]["type"] == "local_model");
    let by_bs: Vec<_> =
        trained.map(|event| (event["node"].clone(), event["what"]["twins"].clone())).collect();
    for (bs, twins) in [("bs1", 3), ("bs2", 1), ("bs3", 2), ("bs4", 2)] {
        assert!(by_bs.contains(&(json!(bs), json!(twins))), "{by_bs:?}");
        assert!(by_bs.iter().all(|(of, count)| *of != bs || *count == twins), "{by_bs:?}");
    }
    assert!(verify(&rig, &run_dir_of(&rig, &name), 5) > 0);
}

#[test]
fn a_run_in_which_a_policy_decides_goes_on() {
    let rig = Rig::as_caller();
    let greedy = ["--set", "association.policy=greedy"];
    let session = rig.up(&[&FEW[..], &greedy].concat());
    session.wait_for_event("global_model", |what| what["round"] == 2);
    session.kill();
    let killed = session.run_dir.to_str().unwrap().to_owned();
    let name = rig.unique_name();
    let summary = resume(&rig, &name, &["--resume", &killed, "--rounds", "5"]).ok().json();
    assert_eq!(summary["learning"]["rounds"], 5, "{:#}", summary["learning"]);
    assert_eq!(summary["learning"]["late_bs"], 0, "{:#}", summary["learning"]);
    assert_eq!(summary["association"]["policy"], "greedy");
    let events = events_of(&rig, &run_dir_of(&rig, &name));
    assert!(!events.iter().any(|event| event["what"]["level"] == "error"), "something was refused");
    for decision in events.iter().map(|event| &event["what"]).filter(|what| what["type"] == "association") {
        assert_eq!(decision["kept_by"], json!([]), "{decision:#}");
    }
}

#[test]
fn what_a_bs_has_rounded_off_outlives_its_process() {
    let rig = Rig::as_caller();
    // No round without it: its death must not change what is learned.
    let more = ["--set", "learning.min_bs=4"];
    let whole = rig.unique_name();
    run(&rig, &whole, "4", &more).ok();
    let expected = digests(&events_of(&rig, &run_dir_of(&rig, &whole)));
    let session = rig.up(&[&FEW[..], &more].concat());
    for round in 1..=3 {
        session.wait_for_event("global_model", |what| what["round"] == round);
        session.verb(&["kill", "bs2"]).ok();
        session.wait_for_event("node_ready", |what| what["node"] == "bs2");
    }
    session.wait_for_event("global_model", |what| what["round"] == 4);
    let digests = digests(&session.events());
    assert_eq!(digests.range(..=4).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    assert!(session.node("bs2")["restarts"].as_u64() >= Some(2));
    assert_eq!(session.down()["learning"]["late_bs"], 0);
}

/// `dtwn up --headless --json` without a topology file.
fn resume(rig: &Rig, name: &str, more: &[&str]) -> Finished {
    let out = rig.out();
    let fixed = ["up", "--headless", "--json", "--name", name, "--out", out.to_str().unwrap()];
    rig.run(fixed.iter().chain(more).copied())
}

/// Nothing that would learn something else goes on from a run.
fn refuse_others(rig: &Rig, killed: &str) {
    let refused = |more: &[&str]| {
        let all: Vec<&str> = ["--resume", killed].iter().chain(more).copied().collect();
        resume(rig, "other", &all).code(96)
    };
    refused(&["--seed", "9"]).says("its seed is 4, here it is 9");
    refused(&["--set", "learning.fraction=0.5"]).says("learning.fraction = 0.04 there");
    // A model with a bit that has turned is no model; with no other there is nothing to go on from.
    let copy = rig.path().join("damaged");
    let copied = rig.command("cp").args(["-r", killed]).arg(&copy).status().unwrap();
    assert!(copied.success());
    let folder = copy.join("state/mbs/checkpoints");
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let copy = copy.to_str().unwrap();
    resume(rig, "other", &["--resume", copy]).code(96).says("is damaged");
    fs::remove_dir_all(&folder).unwrap();
    resume(rig, "other", &["--resume", copy]).code(1).says("has no model");
    rig.run(["model", "export", copy]).code(1).says("has no model");
    // One of another model, whole and of this network, as far as it says.
    put_other_model(Path::new(copy));
    let runs = || fs::read_dir(rig.out()).unwrap().count();
    let before = runs();
    resume(rig, "other", &["--resume", copy]).code(96).says("one where it has shape [3, 2]");
    assert_eq!(runs(), before, "a run was made");
    rig.run(["model", "export", copy]).code(96).says("one where it has shape [3, 2]");
}

/// Puts a checkpoint among those of a run that the run could have written if its model had other tensors.
fn put_other_model(run_dir: &Path) {
    let loaded = topology::load(run_dir.join("topology.toml"), &Overrides::default()).unwrap();
    let identity = Identity::of(&Plan::new(&loaded.topology).unwrap()).unwrap();
    let layout = ["conv1.bias", "conv1.weight"].map(|name| (name.to_owned(), vec![3, 2])).to_vec();
    let model = Global { round: 9, parameters: vec![0.5; 12], residual: Vec::new() };
    Shelf::new(&run_dir.join("state/mbs"), identity, layout).save(&model).unwrap();
}

/// What `dtwn model export` writes is what plain PyTorch expects of this model.
fn export(rig: &Rig, run_dir: &str, digests: &BTreeMap<u64, String>) {
    let file = rig.path().join("model.safetensors");
    let said = rig.run(["model", "export", run_dir, "-o", file.to_str().unwrap(), "--json"]).ok().json();
    assert_eq!(said["digest"], digests[&said["round"].as_u64().unwrap()]);
    let bytes = fs::read(&file).unwrap();
    let model = SafeTensors::deserialize(&bytes).unwrap();
    let shapes: [(&str, &[usize]); 8] = [
        ("conv1.weight", &[32, 3, 5, 5]),
        ("conv1.bias", &[32]),
        ("conv2.weight", &[64, 32, 5, 5]),
        ("conv2.bias", &[64]),
        ("fc1.weight", &[512, 4096]),
        ("fc1.bias", &[512]),
        ("fc2.weight", &[10, 512]),
        ("fc2.bias", &[10]),
    ];
    assert_eq!(model.len(), shapes.len());
    for (name, shape) in shapes {
        let tensor = model.tensor(name).unwrap();
        assert_eq!((tensor.shape(), tensor.dtype()), (shape, Dtype::F32), "{name}");
    }
    let round = rig.run(["model", "export", run_dir, "--round", "77"]);
    round.code(1).says("keeps no model of round 77");
    rig.run(["model", "export", run_dir, "-o", "/proc/model"]).code(110).says("cannot write");
}

#[test]
fn learning_bears_the_death_of_the_mbs_and_of_a_bs() {
    let rig = Rig::as_caller();
    let session = rig.up(&FEW);
    let globals = |fits: &dyn Fn(&Value) -> bool| session.wait_for_event("global_model", |what| fits(what));
    globals(&|what| what["round"] == 1);
    session.verb(&["kill", "mbs"]).ok();
    let restored = globals(&|what| what["restored"] == true);
    let from = restored["what"]["round"].as_u64().unwrap();
    assert!(from >= 1, "{restored:#}");
    globals(&|what| what["round"].as_u64() > Some(from));
    // Killed while it trains, it trains again once it is back.
    let seen = session.events().len();
    session.verb(&["kill", "bs2"]).ok();
    wait_for("bs2 to learn again", || {
        let events = session.events();
        let later = events.iter().skip(seen);
        let back = later.skip_while(|event| event["what"]["type"] != "node_exited");
        let mut globals = back.filter(|event| event["what"]["type"] == "global_model");
        globals
            .any(|event| event["what"]["accepted"].as_array().unwrap().contains(&json!("bs2")))
            .then_some(())
    });
    // A model a round, in order, and none forgotten.
    let rounds: Vec<u64> = digests(&session.events()).keys().copied().collect();
    assert_eq!(rounds, (0..rounds.len() as u64).collect::<Vec<_>>());
    assert_eq!(session.node("mbs")["restarts"], 1);
    let late = session.down()["learning"]["late_bs"].as_u64().unwrap();
    assert!(late <= 4, "{late} models were late");
}

#[test]
fn rounds_do_not_wait_for_a_dead_bs_and_its_fellows_attest_without_it() {
    let rig = Rig::as_caller();
    // Waiting for it would outlast this test's patience.
    let more = ["--set", "learning.deadline=3600 s", "--set", "run.restart=never"];
    let session = rig.up(&[&FEW[..], &more].concat());
    session.wait_for_event("global_model", |what| what["round"] == 1);
    session.verb(&["kill", "bs2"]).ok();
    let without = |what: &Value| {
        what["accepted"] == json!(["bs1", "bs3", "bs4"])
            && what["late"] == json!(["bs2"])
            && what["rejected"] == json!([])
    };
    let first = session.wait_for_event("global_model", without)["what"]["round"].as_u64().unwrap();
    session.wait_for_event("global_model", |what| without(what) && what["round"] == first + 2);
    let missed = session.wait_for_event("round", |what| what["round"] == first + 1);
    assert_eq!(missed["what"]["missed_by"], json!(["bs2"]));
    session.down();
}

#[test]
fn rounds_do_not_wait_for_a_bs_without_twins() {
    let rig = Rig::as_caller();
    let file = rig.path().join("decision.toml");
    let decided = "k = [3, 3, 2, 0]\nb = [0.272, 0.272, 0.272, 0.272]\n\
                   tau = [[0.25, 0.25], [0.25, 0.25], [0.25, 0.25], [0.25, 0.25]]\n";
    fs::write(&file, decided).unwrap();
    let file = format!("association.file={}", file.display());
    let more = ["--set", "association.policy=static", "--set", &file, "--set", "learning.deadline=3600 s"];
    let session = rig.up(&[&FEW[..], &more].concat());
    // In the first rounds it trains those that are on their way to others, which Eq. 5 gives no weight.
    session.wait_for_event("global_model", |what| {
        what["round"] == 4 && what["accepted"] == json!(["bs1", "bs2", "bs3"])
    });
    let summary = session.down();
    assert_eq!(summary["learning"]["late_bs"], 0, "{:#}", summary["learning"]);
    assert_eq!(summary["twins"]["by_bs"]["bs4"]["twins"], 0, "{:#}", summary["twins"]);
}

#[test]
fn a_full_disk_costs_a_checkpoint_and_not_the_run() {
    let rig = Rig::as_caller();
    assert!(nix::unistd::geteuid().is_root(), "this test mounts a small disk: run it as root");
    let session = rig.up(&FEW);
    session.wait_for_event("global_model", |what| what["round"] == 1);
    // A disk of the MBS's own, with room for one model and what was rounded off it.
    let folder = session.run_dir.join("state/mbs/checkpoints");
    let pid = session.node_pid("mbs");
    let mount = ["-t", &pid.to_string(), "-m", "mount", "-t", "tmpfs", "-o", "size=20m", "small"];
    let mounted = std::process::Command::new("nsenter").args(mount).arg(&folder).status().unwrap();
    assert!(mounted.success(), "no disk could be mounted");
    let warning = session
        .wait_for_event("notice", |what| what["text"].as_str().unwrap().contains("No space left on device"));
    assert_eq!(warning["what"]["level"], "warning");
    let seen = digests(&session.events()).len();
    wait_for("the run to go on", || (digests(&session.events()).len() > seen + 1).then_some(()));
    let left = fs::read_dir(format!("/proc/{pid}/root{}", folder.display())).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.len() == 1 && left[0].ends_with(".safetensors"), "{left:?}");
    session.down();
}

#[test]
fn data_that_cannot_be_learned_from_is_refused_before_anything_starts() {
    const RECORD: usize = 3073;
    let rig = Rig::as_caller();
    let folder = rig.path().join("cifar");
    fs::create_dir(&folder).unwrap();
    let write = |name: &str, bytes: Vec<u8>| fs::write(folder.join(name), bytes).unwrap();
    let whole = |records: usize| vec![0; RECORD * records];
    let files =
        ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
    let up = |data: &str| {
        let name = rig.unique_name();
        let arguments = ["--headless", "--set", "learning.learner=torch", "--data", data];
        let finished = Running::start(rig.up_command(&name, &arguments)).finish().code(96);
        assert!(!rig.out().exists(), "a run was made");
        finished
    };
    up("nowhere").says("cannot read").says("scripts/cifar10");
    files.iter().for_each(|name| write(name, whole(100)));
    up("cifar").says("test_batch.bin");
    write("test_batch.bin", whole(10));
    up("cifar").says("the users hold 4000 samples together").says("has 500 for training");
    write("data_batch_4.bin", whole(5000)[1..].to_vec());
    up("cifar").says("data_batch_4.bin").says("whole records of 3073");
    let mut label = whole(5000);
    label[3 * RECORD] = 10;
    write("data_batch_4.bin", label);
    up("cifar").says("record 3 of").says("label 10");
    let set = format!("learning.data={}", folder.display());
    let topology = rig.topology();
    let validate = ["validate", topology.to_str().unwrap(), "--set", "learning.learner=torch", "--set", &set];
    rig.run(validate).code(96).says("label 10");
    write("data_batch_4.bin", whole(5000));
    rig.run(validate).ok();
}

#[test]
fn a_bs_can_be_poisoned_and_cured_while_the_run_goes_on() {
    let rig = Rig::as_caller();
    let session = rig.up(&[&FEW[..], &["--set", "learning.poison.bs4=label-flip"]].concat());
    session.wait_for_event("global_model", |what| what["round"] == 1);
    rig.run(["poison", "bs3", "label-flip", "-s", &session.name]).code(1).says("has to be in the topology");
    for kind in ["none", "noise"] {
        rig.run(["poison", "bs4", kind, "-s", &session.name]).code(1).says("no order changes that");
    }
    session.verb(&["poison", "bs3", "nan"]).ok();
    let told = session.wait_for_event("node_poisoned", |what| what["node"] == "bs3");
    assert_eq!(told["what"]["kind"], "nan");
    let bad = session.wait_for_event("global_model", |what| what["rejected"] == json!(["bs3"]));
    // What it was told outlives its process.
    session.verb(&["kill", "bs3"]).ok();
    let after = |round: &Value| round.as_u64() > bad["what"]["round"].as_u64();
    session
        .wait_for_event("global_model", |what| what["rejected"] == json!(["bs3"]) && after(&what["round"]));
    session.verb(&["poison", "bs3", "none"]).ok();
    let good =
        |what: &Value| what["accepted"] == json!(["bs1", "bs2", "bs3", "bs4"]) && after(&what["round"]);
    session.wait_for_event("global_model", good);
    session.down();
}
