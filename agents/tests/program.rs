//! Drives the real `dtwn-agent`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

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
