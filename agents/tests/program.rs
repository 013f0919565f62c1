//! Drives the real `dtwn-agent`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::BufRead;
use std::process::{Command, Output};

fn agent(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dtwn-agent"));
    // The program must find libtorch and set oneDNN's variable by itself.
    command.env_remove("LD_LIBRARY_PATH").env_remove("ONEDNN_PRIMITIVE_CACHE_CAPACITY");
    command.args(arguments).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn version_says_what_the_session_compares() {
    let output = agent(&["version", "--json"]);
    assert!(output.status.success());
    let said = json(&output);
    assert_eq!(said["name"], "dtwn-agent");
    assert_eq!(said["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(said["torch_version"].as_str().unwrap().split('.').count(), 3);
    assert!(said["cuda"].is_boolean());
}

#[test]
fn selftest_repeats_itself_and_reports_the_papers_model() {
    let arguments =
        ["selftest", "--steps", "40", "--batch", "16", "--seed", "2", "--device", "cpu", "--json"];
    let [first, second] = [agent(&arguments), agent(&arguments)];
    assert!(first.status.success(), "{first:?}");
    let [first, second] = [json(&first), json(&second)];
    assert_eq!(first["parameters"], 2_156_490);
    assert_eq!(first["threads"], 1);
    assert!(first["loss_after"].as_f64() < first["loss_before"].as_f64());
    assert!(first["samples_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(first["digest"], second["digest"]);
}

#[test]
fn training_that_does_not_lower_the_loss_fails() {
    // One step on one sample teaches its class and forgets the rest.
    let output = agent(&["selftest", "--steps", "1", "--batch", "1", "--seed", "1", "--device", "cpu"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("the loss went from"), "{text}");
}

#[test]
fn wrong_arguments_are_refused() {
    for arguments in [
        &["selftest", "--steps", "0"][..],
        &["selftest", "--threads", "-1"],
        &["selftest", "--device", "tpu"],
    ] {
        let output = agent(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn a_missing_cuda_device_is_named() {
    if json(&agent(&["version", "--json"]))["cuda"] == true {
        let output = agent(&["selftest", "--steps", "40", "--device", "cuda", "--json"]);
        assert_eq!(json(&output)["device"], "cuda:0");
    } else {
        let output = agent(&["selftest", "--device", "cuda"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no CUDA device"), "{output:?}");
    }
}

/// A topology of two base stations with three users each, 24 samples a user, in a folder that is removed with the first of the pair.
fn network() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.toml");
    let text = "[learning]\nfraction = 0.5\nepochs = 2\nbatch = 8\ntest_samples = 50\n\
                [[bs]]\nid = \"bs\"\ncount = 2\nring = \"100 m\"\n\
                [[users]]\nid = \"ug1\"\ncount = 3\naround = \"bs1\"\nsamples = 24\n\
                [[users]]\nid = \"ug2\"\ncount = 3\naround = \"bs2\"\nsamples = 24\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

fn rounds(arguments: &[&str]) -> Vec<serde_json::Value> {
    let output = agent(arguments);
    assert!(output.status.success(), "{output:?}");
    output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

#[test]
fn rounds_without_a_network_repeat_themselves_and_central_training_sees_as_many_samples() {
    let (_dir, path) = network();
    let federated = |jobs| rounds(&["train-federated", &path, "--rounds", "2", "--jobs", jobs, "--json"]);
    let central = rounds(&["train-central", &path, "--rounds", "2", "--json"]);
    let (one, two) = (federated("1"), federated("2"));
    assert_eq!((one.len(), two.len(), central.len()), (3, 3, 3));
    for round in 0..3 {
        assert_eq!(one[round]["digest"], two[round]["digest"]);
        // Half of 6 · 24 samples, twice, a round.
        assert_eq!(one[round]["samples"], 144 * round);
        assert_eq!(central[round]["samples"], 144 * round);
        assert!(central[round]["test_accuracy"].is_f64() && one[round]["dataset"] == "synthetic");
    }
    assert_eq!(one[0]["digest"], central[0]["digest"]);
    assert_ne!(one[2]["digest"], central[2]["digest"]);
    let other = rounds(&["train-federated", &path, "--rounds", "1", "--set", "run.seed=99", "--json"]);
    assert_ne!(other[1]["digest"], one[1]["digest"]);
}

#[test]
fn every_way_of_learning_learns_something_else_and_repeats_itself() {
    let (_dir, path) = network();
    let learned = |jobs: &str, settings: &[&str]| {
        let mut arguments = vec!["train-federated", &path, "--rounds", "1", "--jobs", jobs, "--json"];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let said = rounds(&arguments).pop().unwrap();
        for figure in ["train_loss", "test_loss", "test_accuracy"] {
            let value = said[figure].as_f64().filter(|value| value.is_finite() && *value >= 0.0);
            assert!(value.is_some(), "{figure} of {settings:?}: {said}");
        }
        assert_eq!(said["round"], 1);
        said["digest"].as_str().unwrap().to_owned()
    };
    let mut digests = vec![learned("2", &[])];
    for settings in [
        &["learning.proximal_mu=0.5"][..],
        &["learning.aggregation=median"],
        &["learning.partition=dirichlet", "learning.alpha=0.3"],
        &["learning.partition=shards", "learning.shards=2"],
        &["learning.augment=true"],
    ] {
        let digest = learned("1", settings);
        assert_eq!(digest, learned("2", settings), "{settings:?}");
        assert!(!digests.contains(&digest), "{settings:?} learns what another way learns");
        digests.push(digest);
    }
}

#[test]
fn training_without_data_says_what_is_missing() {
    let (dir, path) = network();
    let set = format!("learning.data={}", dir.path().display());
    for job in ["train-federated", "train-central"] {
        let output = agent(&[job, &path, "--set", &set]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text.contains("scripts/cifar10"), "{text}");
    }
}
