//! Runs without a screen: exit codes, summaries, signals, and the verdict on fidelity.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    as_both,
    common::{Rig, Running, Session, processes_with, wait_for},
};

as_both!(
    a_run_ends_with_a_summary_and_nothing_else_on_stdout,
    signals_end_a_run_in_order,
    a_second_signal_kills
);

/// Every field that scripts may rely on.
fn check_summary(summary: &Value, name: &str) {
    assert_eq!(summary["schema"], 1);
    assert_eq!(summary["name"], name);
    assert_eq!(summary["seed"], 4);
    assert!(["ok", "degraded", "invalid"].contains(&summary["verdict"].as_str().unwrap()));
    let fidelity = &summary["fidelity"];
    assert!(fidelity["reasons"].is_array());
    for figure in ["lateness_us_p50", "lateness_us_p99", "host_drops"] {
        assert!(fidelity[figure].is_number(), "{figure}");
    }
    for figure in ["bringup_ms", "teardown_ms"] {
        assert!(summary[figure].as_f64().unwrap() > 0.0, "{figure}");
    }
    let nodes = summary["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 9);
    for node in nodes {
        assert!(node["id"].is_string() && node["role"].is_string() && node["pid"].is_u64(), "{node}");
        assert!(node["restarts"].is_u64() && node["cpu_s"].is_number(), "{node}");
        assert!(node["rss_peak"].as_u64().unwrap() > 100_000, "{node}");
        assert_eq!(node["exit"], json!({"code": 0}), "{node}");
    }
    let links = summary["links"].as_array().unwrap();
    assert_eq!(links.len(), 24);
    for link in links {
        assert!(link["from"].is_string() && link["to"].is_string() && link["rate_bps"].is_number(), "{link}");
        for figure in ["sent", "delivered", "bytes"] {
            assert!(link[figure].is_u64(), "{figure}: {link}");
        }
        for cause in ["loss", "queue", "partition", "host"] {
            assert!(link["dropped"][cause].is_u64(), "{cause}: {link}");
        }
    }
    assert!(summary["transfers"].is_object());
}

fn a_run_ends_with_a_summary_and_nothing_else_on_stdout(rig: &Rig) {
    let name = rig.unique_name();
    let arguments = ["--headless", "--json", "--duration", "3s"];
    let finished = Running::start(rig.up_command(&name, &arguments)).finish().ok();
    let summary = finished.json();
    check_summary(&summary, &name);
    assert_eq!(summary["ended"], "finished");
    assert!(summary["emulated_s"].as_f64().unwrap() >= 3.0);
    finished.says(&format!("{name} is up")).says("fidelity");
    // Without --json standard output stays empty, and the file says the same.
    let name = rig.unique_name();
    let finished = Running::start(rig.up_command(&name, &["--headless", "--duration", "1s"])).finish().ok();
    assert_eq!(finished.stdout, "");
    rig.run(["status", &name]).code(1);
}

/// Starts a headless run and waits until it is up.
fn start<'a>(rig: &'a Rig, arguments: &[&str]) -> (Running, Session<'a>) {
    let name = rig.unique_name();
    let all: Vec<_> =
        ["--headless", "--json", "--duration", "600s"].iter().chain(arguments).copied().collect();
    let running = Running::start(rig.up_command(&name, &all));
    running.wait_to_say("is up");
    wait_for("the session to list itself", || rig.run(["status", &name]).status.success().then_some(()));
    let session = Session::find(rig, &name);
    (running, session)
}

fn signals_end_a_run_in_order(rig: &Rig) {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (running, session) = start(rig, &[]);
        running.signal(signal);
        let summary = running.finish().code(code).json();
        check_summary(&summary, &session.name);
        assert_eq!(summary["ended"], json!({"signal": signal as i32}));
        assert!(!session.is_alive());
    }
    // The session ends in order as well when the signal reaches itself.
    let (running, session) = start(rig, &[]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(session.pid), Signal::SIGTERM).unwrap();
    running.finish().code(143);
    // Ended by hand, a run is no failure.
    let (running, session) = start(rig, &[]);
    session.down();
    running.finish().ok();
    // A hangup takes the terminal away, not the run.
    let (running, session) = start(rig, &[]);
    running.signal(Signal::SIGHUP);
    running.finish().code(129);
    assert!(session.reaches("bs1", "mbs"));
    session.down();
}

fn a_second_signal_kills(rig: &Rig) {
    let (running, session) = start(rig, &[]);
    // A session that does not react at all is the worst case.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(session.pid), Signal::SIGSTOP).unwrap();
    running.signal(Signal::SIGINT);
    running.wait_to_say("once more to kill");
    running.signal(Signal::SIGINT);
    let finished = running.finish().code(130).says("the session was killed");
    assert_eq!(finished.stdout, "");
    assert!(!session.is_alive());
    wait_for("agents to be gone", || {
        processes_with(session.run_dir.to_str().unwrap()).is_empty().then_some(())
    });
}

/// Programs that leave nobody else much of the processor.
struct Hogs(Vec<std::process::Child>);

impl Hogs {
    fn start() -> Self {
        let cores = std::thread::available_parallelism().unwrap().get();
        // Each ends with the test, however that ends. Who may have real-time priority needs it to starve a medium that has it as well; the pauses keep the machine usable.
        let urgent = ["chrt", "-f", "90"];
        let mut probe = std::process::Command::new(urgent[0]);
        let may_be_urgent =
            probe.args(&urgent[1..]).arg("true").output().is_ok_and(|run| run.status.success());
        let spin =
            "while kill -0 $PPID; do i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done; sleep 0.02; done";
        let mut hogs = Vec::new();
        for core in 0..cores {
            if may_be_urgent {
                let mut command = std::process::Command::new("taskset");
                hogs.push(
                    command.args(["-c", &core.to_string()]).args(urgent).args(["sh", "-c", spin]).spawn(),
                );
            }
            for _ in 0..12 {
                // A session of its own each: the kernel shares out processors by terminal session first.
                let mut command = std::process::Command::new("setsid");
                hogs.push(command.args(["sh", "-c", "while kill -0 $PPID; do :; done"]).spawn());
            }
        }
        Self(hogs.into_iter().map(Result::unwrap).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
        }
        for hog in &mut self.0 {
            let _ = hog.wait();
        }
    }
}

as_both!(a_starved_machine_is_found_out);

fn a_starved_machine_is_found_out(rig: &Rig) {
    let (running, session) = start(rig, &["--strict-fidelity", "--set", "link.uplink.rate=40 Mbit/s"]);
    {
        let _hogs = Hogs::start();
        // Packets for the medium to be late with, for as long as it takes to notice; few at a time, as each waits long for
        // a core.
        wait_for("the verdict", || {
            session.exec("bs1", &["ping", "-q", "-c100", "-i0.002", "-W1", "mbs"]);
            (session.status()["fidelity"]["verdict"] != "ok").then_some(())
        });
    }
    session.wait_for_event("fidelity", |what| what["verdict"] != "ok");
    running.signal(Signal::SIGINT);
    // Whoever interrupts a run knows that it is not whole; the verdict decides where a run came to its end.
    let summary = running.finish().code(130).json();
    assert_ne!(summary["verdict"], "ok");
    assert!(!summary["fidelity"]["reasons"].as_array().unwrap().is_empty(), "a verdict without a reason");
}

#[test]
fn strict_fidelity_is_an_exit_code() {
    let rig = Rig::as_caller();
    let name = rig.unique_name();
    let arguments = ["--headless", "--json", "--strict-fidelity", "--duration", "600s"];
    let running = Running::start(rig.up_command(&name, &arguments));
    running.wait_to_say("is up");
    let session = Session::find(&rig, &name);
    {
        let _hogs = Hogs::start();
        wait_for("the verdict", || {
            session.exec("bs1", &["ping", "-q", "-c100", "-i0.002", "-W1", "mbs"]);
            (session.status()["fidelity"]["verdict"] != "ok").then_some(())
        });
    }
    session.down();
    let finished = running.finish().code(102);
    assert_ne!(finished.json()["verdict"], "ok");
    finished.says("because");
}

#[test]
fn an_idle_machine_is_ok() {
    let rig = Rig::as_caller();
    let mut verdicts = Vec::new();
    // The machine may not be idle for reasons that are none of ours; it is at one time or another.
    for _ in 0..5 {
        let name = rig.unique_name();
        let arguments =
            ["--headless", "--json", "--strict-fidelity", "--set", "run.dilation=4", "--duration", "2s"];
        let finished = Running::start(rig.up_command(&name, &arguments)).finish();
        let summary = finished.json();
        let verdict = summary["verdict"].as_str().unwrap().to_owned();
        finished.code(if verdict == "ok" { 0 } else { 102 });
        if verdict == "ok" {
            assert_eq!(summary["fidelity"]["reasons"], json!([]));
            return;
        }
        verdicts.push(summary["fidelity"].clone());
    }
    panic!("never ok: {verdicts:#?}");
}
