//! Whatever is killed, nothing of a network stays behind.

use std::fs;

use crate::{
    as_both,
    common::{Namespaces, Rig, Running, Session, processes_with, wait_for},
};

as_both!(a_killed_session_leaves_nothing, an_ended_session_leaves_nothing);

/// Programs at a node that would like to stay: a child of `exec`, and a grandchild that left its parents and their session.
struct Guests {
    child: Running,
    /// What their command lines have in common.
    mark: String,
}

fn guests(session: &Session) -> Guests {
    // `sleep` takes fractions, which makes the number a mark that no other process bears.
    let mark = format!("36000.{}", session.pid);
    let script = format!("(setsid sleep {mark} & setsid setsid sleep {mark} &) & exec sleep {mark}");
    let child = Running::start(session.exec_command("bs2", &["sh", "-c", &script]));
    wait_for("the guests", || {
        let sleeping = processes_with(&format!("sleep {mark}"));
        // The script and the `dtwn exec` that started it have the words in their command lines as well.
        (sleeping.len() >= 4).then_some(())
    });
    Guests { child, mark }
}

/// All that belongs to a session, looked up while it lives.
struct Traces {
    namespaces: Namespaces,
    mark: String,
    name: String,
    run_dir: String,
}

impl Traces {
    fn of(session: &Session, guests: &Guests) -> Self {
        let status = session.status();
        let nodes = status["nodes"].as_array().unwrap();
        let mut pids: Vec<i32> = nodes.iter().map(|node| node["pid"].as_i64().unwrap() as i32).collect();
        assert_eq!(pids.len(), 9);
        pids.push(session.pid);
        pids.extend(processes_with(&guests.mark));
        let namespaces = Namespaces::of(&pids);
        // A namespace for each node, one for process ids, and mounts of the session and of its nodes.
        assert_eq!(namespaces.count("net"), 9, "{namespaces:?}");
        assert_eq!(namespaces.count("pid"), 1, "{namespaces:?}");
        assert!(namespaces.count("mnt") >= 2, "{namespaces:?}");
        assert!(!namespaces.holders().is_empty());
        Self {
            namespaces,
            mark: guests.mark.clone(),
            name: session.name.clone(),
            run_dir: session.run_dir.display().to_string(),
        }
    }

    /// Processes and holders of namespaces that are still there.
    fn left(&self) -> Vec<String> {
        let processes =
            [&self.mark, &self.name, &self.run_dir].into_iter().flat_map(|text| processes_with(text));
        let mut left: Vec<_> = processes.map(|pid| format!("process {pid}")).collect();
        left.extend(self.namespaces.holders());
        left
    }

    fn are_gone(&self) {
        let mut left = Vec::new();
        let start = std::time::Instant::now();
        while start.elapsed() < crate::common::PATIENCE {
            left = self.left();
            if left.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(left.is_empty(), "left behind: {left:#?}");
        // The TUNs were in the namespaces; none may have moved to ours.
        let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap();
        assert!(!interfaces.contains("air0"), "{interfaces}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.run_dir), "{mounts}");
    }
}

/// Files of a user below /tmp, apart from the test's own directory.
fn files_of(rig: &Rig, name: &str) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut folders = vec![std::path::PathBuf::from("/tmp"), rig.registry()];
    folders.extend(["/run", "/dev/shm", "/var/tmp"].map(Into::into));
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            let theirs = rig.is_other_user() && entry.metadata().is_ok_and(|m| m.uid() == rig.uid());
            let named = path.to_string_lossy().contains(name);
            // What was measured of the machine is kept from one run to the next.
            let kept = path == rig.registry().join("capacity.json");
            if (theirs || named) && !kept && path != rig.path() && path != rig.registry() {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn a_killed_session_leaves_nothing(rig: &Rig) {
    let session = rig.up(&[]);
    let guests = guests(&session);
    let traces = Traces::of(&session, &guests);
    session.kill();
    let Guests { child, .. } = guests;
    child.finish().code(137);
    traces.are_gone();

    // What may stay is the socket and its lock; any command of the user that looks for sessions reaps them.
    let registry = rig.registry();
    let stale = |ending| registry.join(format!("{}.{ending}", session.name)).display().to_string();
    let left = files_of(rig, &session.name);
    assert!(left.iter().all(|path| [stale("lock"), stale("sock")].contains(path)), "{left:?}");
    rig.run(["status", &session.name]).code(1).says(&format!("no session called `{}`", session.name));
    assert_eq!(files_of(rig, &session.name), Vec::<String>::new());

    // What was recorded is kept, and can be read.
    let run_dir = session.run_dir.to_str().unwrap();
    assert!(rig.run(["events", run_dir, "--json"]).ok().stdout.contains("session_started"));
    let runs = rig.run(["runs", "list", "--json", "--out", rig.out().to_str().unwrap()]).ok().json();
    assert_eq!(runs[0]["state"], "cut off");
    // The name is free.
    rig.up_as(&session.name, &[]).down();
}

fn an_ended_session_leaves_nothing(rig: &Rig) {
    let session = rig.up(&[]);
    let guests = guests(&session);
    let traces = Traces::of(&session, &guests);
    rig.run(["down", &session.name]).ok();
    // `down` comes back when all is over, so that what follows it in a script can rely on that.
    assert!(session.run_dir.join("summary.json").exists());
    assert_eq!(files_of(rig, &session.name), Vec::<String>::new());
    let Guests { child, .. } = guests;
    child.finish().code(137);
    traces.are_gone();
    assert_eq!(files_of(rig, &session.name), Vec::<String>::new());
    assert_eq!(session.summary()["ended"], "asked");
}

as_both!(a_session_killed_while_it_starts_leaves_nothing);

fn a_session_killed_while_it_starts_leaves_nothing(rig: &Rig) {
    for delay_ms in [0, 4, 8, 12, 16, 24] {
        let name = rig.unique_name();
        let starting = Running::start(rig.up_command(&name, &["--detach"]));
        let session = wait_for("the session's process", || {
            let pids = processes_with(&format!("--name {name}"));
            pids.into_iter().find(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.contains("__session"))
            })
        });
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(session), nix::sys::signal::Signal::SIGKILL);
        starting.finish();
        wait_for("everything to be gone", || processes_with(&name).is_empty().then_some(()));
        rig.run(["ps"]).ok();
        assert_eq!(files_of(rig, &name), Vec::<String>::new());
    }
}
