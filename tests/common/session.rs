//! A running session, which ends with the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{Finished, Rig, Running, wait_for};

/// A session that is up.
pub struct Session<'a> {
    /// Who runs it.
    pub rig: &'a Rig,
    /// Its name.
    pub name: String,
    /// Where it records.
    pub run_dir: PathBuf,
    /// Its process.
    pub pid: i32,
}

impl<'a> Session<'a> {
    /// The session called `name`, which must be up.
    #[track_caller]
    pub fn find(rig: &'a Rig, name: &str) -> Self {
        let status = rig.run(["status", name, "--json"]).ok().json();
        Self {
            rig,
            name: name.to_owned(),
            run_dir: status["run_dir"].as_str().unwrap().into(),
            pid: status["pid"].as_i64().unwrap() as i32,
        }
    }

    /// What it says of itself.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.rig.run(["status", &self.name, "--json"]).ok().json()
    }

    /// A verb with `--session`, not started yet.
    pub fn verb_command(&self, verb: &[&str]) -> Command {
        self.rig.dtwn(verb.iter().copied().chain(["--session", &self.name]))
    }

    /// Runs a verb.
    #[track_caller]
    pub fn verb(&self, verb: &[&str]) -> Finished {
        Running::start(self.verb_command(verb)).finish()
    }

    /// `dtwn exec NODE -- PROGRAM …`, not started yet.
    pub fn exec_command(&self, node: &str, program: &[&str]) -> Command {
        self.rig
            .dtwn(["exec", "--session", &self.name, node, "--"].into_iter().chain(program.iter().copied()))
    }

    /// Runs a program at a node.
    #[track_caller]
    pub fn exec(&self, node: &str, program: &[&str]) -> Finished {
        Running::start(self.exec_command(node, program)).finish()
    }

    /// Whether at least one of some echo requests is answered.
    pub fn reaches(&self, node: &str, target: &str) -> bool {
        self.exec(node, &["ping", "-c5", "-i0.2", "-W2", target]).status.success()
    }

    /// The events so far.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        parse_events(&self.rig.run(["events", &self.name, "--json"]).ok().stdout)
    }

    /// Waits for an event of a type that fits.
    #[track_caller]
    pub fn wait_for_event(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("an event {kind}"), || {
            let fitting = |event: &Value| event["what"]["type"] == kind && fits(&event["what"]);
            self.events().into_iter().find(fitting)
        })
    }

    /// A node, from the status.
    #[track_caller]
    pub fn node(&self, name: &str) -> Value {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == name).cloned().unwrap()
    }

    /// A node's process.
    #[track_caller]
    pub fn node_pid(&self, name: &str) -> i32 {
        self.node(name)["pid"].as_i64().unwrap_or_else(|| panic!("{name} has no process")) as i32
    }

    /// A link, from the status.
    #[track_caller]
    pub fn link(&self, name: &str) -> Value {
        let status = self.status();
        let links = status["links"].as_array().unwrap();
        links.iter().find(|link| link["name"] == name).cloned().unwrap_or_else(|| panic!("no link {name}"))
    }

    /// What a link is, without what it has counted.
    #[track_caller]
    pub fn link_settings(&self, name: &str) -> Value {
        let mut link = self.link(name);
        link.as_object_mut().unwrap().remove("counters");
        link
    }

    /// Stops the agents, so that only what the test sends is on the air.
    #[track_caller]
    pub fn silence(&self) {
        for node in self.status()["nodes"].as_array().unwrap() {
            self.verb(&["pause", node["name"].as_str().unwrap()]).ok();
        }
        self.settle();
    }

    /// Waits until the counters hold all that was sent: until two samples of them are alike.
    #[track_caller]
    pub fn settle(&self) {
        let bytes = || {
            let status = self.status();
            let links = status["links"].as_array().unwrap();
            links.iter().map(|link| link["counters"]["sent"].as_u64().unwrap()).sum::<u64>()
        };
        let samples = || self.events().iter().filter(|event| event["what"]["type"] == "sample").count();
        let mut before = (samples(), bytes());
        wait_for("silence on the air", || {
            let now = (samples(), bytes());
            if now.0 < before.0 + 2 {
                return None;
            }
            let quiet = now.1 == before.1;
            before = now;
            quiet.then_some(())
        });
    }

    /// Ends it in order; the summary.
    #[track_caller]
    pub fn down(self) -> Value {
        self.rig.run(["down", &self.name]).ok();
        self.summary()
    }

    /// The summary of a session that has ended.
    #[track_caller]
    pub fn summary(&self) -> Value {
        read_json(&self.run_dir.join("summary.json"))
    }

    /// Kills it.
    pub fn kill(&self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
        wait_for("the session's process to be gone", || (!self.is_alive()).then_some(()));
    }

    /// Whether its process is there and no zombie.
    pub fn is_alive(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.run_dir.join("logs/session.log")).unwrap_or_default();
            eprintln!("log of the session {}:\n{log}", self.name);
        }
        if self.is_alive() {
            let _ = self.rig.dtwn(["down", &self.name]).output();
        }
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// One event a line.
#[track_caller]
pub fn parse_events(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON: {error}: {line}")))
        .collect()
}

/// A JSON file.
#[track_caller]
pub fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", path.display()))
}
