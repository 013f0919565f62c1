//! The processes of nodes: killed from outside, by hand, stopped, and started again as the topology says.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    as_both,
    common::{Rig, Running, Session, wait_for},
};

as_both!(
    a_killed_agent_is_reported_and_started_again,
    crashes_in_a_row_wait_longer,
    with_policy_never_a_crash_fails_the_run,
    verbs_act_on_processes,
);

fn kill_agent(session: &Session, node: &str) -> i32 {
    let pid = session.node_pid(node);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    pid
}

fn is_of(node: &'static str) -> impl Fn(&Value) -> bool {
    move |what| what["node"] == node
}

fn a_killed_agent_is_reported_and_started_again(rig: &Rig) {
    let session = rig.up(&[]);
    let before = kill_agent(&session, "bs2");
    let exited = session.wait_for_event("node_exited", is_of("bs2"));
    assert_eq!(exited["what"]["exit"], json!({"signal": 9}));
    assert_eq!(exited["what"]["expected"], false);
    let last_log = exited["what"]["last_log"].as_array().unwrap();
    assert!(!last_log.is_empty(), "the crash report has no log lines");
    let started =
        session.wait_for_event("node_started", |what| what["node"] == "bs2" && what["restarts"] == 1);
    assert_ne!(started["what"]["pid"], before);
    wait_for("bs2 to work again", || (session.node("bs2")["state"] == "ready").then_some(()));
    assert_eq!(session.node("bs2")["restarts"], 1);
    assert!(session.reaches("mbs", "bs2"));
    let summary = session.down();
    let nodes = summary["nodes"].as_array().unwrap();
    let restarts: Vec<_> = nodes.iter().map(|node| node["restarts"].as_u64().unwrap()).collect();
    assert_eq!(restarts.iter().sum::<u64>(), 1, "{restarts:?}");
}

fn crashes_in_a_row_wait_longer(rig: &Rig) {
    let session = rig.up(&[]);
    let mut pauses = Vec::new();
    for crash in 1..=4 {
        wait_for("bs3 to work", || (session.node("bs3")["state"] == "ready").then_some(()));
        kill_agent(&session, "bs3");
        let started =
            session.wait_for_event("node_started", |what| what["node"] == "bs3" && what["restarts"] == crash);
        let exited = session.events().into_iter().rfind(|event| {
            event["what"]["type"] == "node_exited"
                && event["sequence"].as_u64() < started["sequence"].as_u64()
        });
        let ns = |event: &Value| event["wall_unix_ns"].as_u64().unwrap();
        pauses.push(Duration::from_nanos(ns(&started) - ns(&exited.unwrap())));
    }
    // Each is at least twice 100 ms more than the one before; a busy machine only ever makes them longer.
    for (pause, at_least_ms) in pauses.iter().zip([100, 200, 400, 800]) {
        assert!(*pause >= Duration::from_millis(at_least_ms), "{pauses:?}");
    }
}

fn with_policy_never_a_crash_fails_the_run(rig: &Rig) {
    let name = rig.unique_name();
    let run = Running::start(rig.up_command(&name, &["--headless", "--json", "--set", "run.restart=never"]));
    let session = wait_for("the network", || {
        let up = rig.run(["events", &name]).stdout.contains(" up ");
        up.then(|| Session::find(rig, &name))
    });
    kill_agent(&session, "bs4");
    let finished = run.finish().code(101).says("bs4 ended unexpectedly: signal 9").says("bs4 failed");
    let summary = finished.json();
    assert_eq!(summary["ended"], json!({"node_failed": "bs4"}));
    let nodes = summary["nodes"].as_array().unwrap();
    let bs4 = nodes.iter().find(|node| node["id"] == "bs4").unwrap();
    assert_eq!(bs4["exit"], json!({"signal": 9}));
}

fn verbs_act_on_processes(rig: &Rig) {
    let session = rig.up(&["--set", "run.restart=never"]);
    let state = |node: &str| session.node(node)["state"].as_str().unwrap().to_owned();
    let kernel_state = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };

    let pid = session.node_pid("ug1");
    session.verb(&["pause", "ug1"]).ok();
    wait_for("ug1 to stop", || (kernel_state(pid) == 'T').then_some(()));
    assert_eq!(state("ug1"), "paused");
    session.wait_for_event("node_paused", |what| what["node"] == "ug1" && what["paused"] == true);
    session.verb(&["resume", "ug1"]).ok();
    wait_for("ug1 to go on", || (kernel_state(pid) != 'T').then_some(()));
    assert_eq!(state("ug1"), "ready");

    session.verb(&["restart", "bs1"]).ok();
    session.wait_for_event("node_exited", |what| what["node"] == "bs1" && what["expected"] == true);
    wait_for("bs1 to work again", || (state("bs1") == "ready").then_some(()));
    assert_eq!(session.node("bs1")["restarts"], 1);

    // Killed by hand, a node stays down where the policy says so, and fails nothing.
    session.verb(&["kill", "bs2"]).ok();
    wait_for("bs2 to be gone", || (state("bs2") == "exited").then_some(()));
    session.verb(&["pause", "bs2"]).code(1).says("bs2 has no process now");
    session.verb(&["kill", "bs2"]).code(1).says("`dtwn restart bs2` starts one");
    session.verb(&["restart", "bs2"]).ok();
    wait_for("bs2 to work again", || (state("bs2") == "ready").then_some(()));
    assert_eq!(session.node("bs2")["restarts"], 1);

    // A stopped process cannot read its order to end.
    session.verb(&["pause", "bs3"]).ok();
    session.verb(&["restart", "bs3"]).ok();
    wait_for("bs3 to work again", || (state("bs3") == "ready").then_some(()));

    session.verb(&["kill", "bs9"]).code(1).says("there is no node `bs9`").says("did you mean `bs");
    assert_eq!(session.down()["ended"], "asked");
}

as_both!(a_network_whose_nodes_are_all_down_still_answers);

fn a_network_whose_nodes_are_all_down_still_answers(rig: &Rig) {
    let session = rig.up(&["--set", "run.restart=never"]);
    let nodes: Vec<String> = session.status()["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["name"].as_str().unwrap().to_owned())
        .collect();
    for node in &nodes {
        session.verb(&["kill", node]).ok();
    }
    wait_for("all nodes to be down", || {
        let status = session.status();
        status["nodes"].as_array().unwrap().iter().all(|node| node["state"] == "exited").then_some(())
    });
    // Namespaces and air belong to the session, not to the agents.
    assert!(session.reaches("bs1", "mbs"));
    session.down();
}
