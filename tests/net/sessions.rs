//! Several sessions, none, and the commands that find them.

use std::fs;

use crate::{
    as_both,
    common::{Rig, Running, Session},
};

as_both!(
    two_sessions_do_not_meet,
    a_name_is_taken_once,
    status_and_logs_and_runs_show_a_session,
    a_session_outlives_the_process_group_that_started_it,
);

fn two_sessions_do_not_meet(rig: &Rig) {
    let (one, two) = (rig.up(&[]), rig.up(&[]));
    one.verb(&["link", "down", "bs1", "mbs"]).ok();
    assert!(two.reaches("bs1", "mbs"), "a link of one session is another's");
    assert!(!one.exec("bs1", &["ping", "-c1", "-W1", "mbs"]).status.success());
    let listed = rig.run(["ps", "--json"]).ok().json();
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|session| session["name"].as_str().unwrap()).collect();
    assert!(names.contains(&one.name.as_str()) && names.contains(&two.name.as_str()), "{names:?}");
    // Without a name it is not clear which is meant.
    rig.run(["status"]).code(1).says("several sessions are running").says(&two.name);
    one.down();
    assert!(two.reaches("bs1", "mbs"), "ending one session hurt the other");
}

fn a_name_is_taken_once(rig: &Rig) {
    let session = rig.up(&[]);
    let runs = || fs::read_dir(rig.out()).unwrap().count();
    let before = runs();
    for mode in ["--detach", "--headless"] {
        let refused = Running::start(rig.up_command(&session.name, &[mode])).finish().code(1);
        refused.says(&format!("a session called `{}` is running already", session.name));
    }
    assert_eq!(runs(), before, "a refused run leaves no directory");
    assert!(session.is_alive() && session.reaches("bs1", "mbs"));
    let name = session.name.clone();
    session.down();
    rig.up_as(&name, &[]).down();
}

fn status_and_logs_and_runs_show_a_session(rig: &Rig) {
    let session = rig.up(&[]);
    let name = session.name.clone();
    let shown = rig.run(["status", &name]).ok().stdout;
    for word in [&name, "fidelity", "bs1>mbs", "ug4"] {
        assert!(shown.contains(word), "{word} is missing:\n{shown}");
    }
    assert!(rig.run(["ps"]).ok().stdout.contains(&name));
    assert!(session.verb(&["logs", "bs1"]).ok().stdout.contains("bs1"));
    session.verb(&["logs", "session"]).ok();
    session.verb(&["logs", "bs9"]).code(1).says("there is no node `bs9`").says("did you mean `bs");
    let out = rig.out();
    let list = || rig.run(["runs", "list", "--json", "--out", out.to_str().unwrap()]).ok().json();
    assert_eq!(list()[0]["state"], "running");
    // A run that is being recorded is never removed.
    rig.run(["runs", "prune", "--keep", "0", "--out", out.to_str().unwrap()]).ok();
    assert!(session.run_dir.join("topology.toml").exists());
    let mut followed = Running::start(session.verb_command(&["logs", "mbs", "-f"]));
    assert!(followed.is_running());
    let run_dir = session.run_dir.clone();
    session.down();
    followed.finish().ok();
    assert_eq!(list()[0]["state"], "ended");
    assert!(list()[0]["verdict"].is_string());
    for file in ["manifest.json", "topology.toml", "summary.json", "events.dtwn", "logs/bs1.log"] {
        assert!(run_dir.join(file).exists(), "{file} is missing");
    }
    rig.run(["runs", "prune", "--keep", "0", "--out", out.to_str().unwrap()]).ok();
    assert!(!run_dir.exists());
}

fn a_session_outlives_the_process_group_that_started_it(rig: &Rig) {
    use std::os::unix::process::CommandExt;
    let name = rig.unique_name();
    let mut command = rig.up_command(&name, &["--headless"]);
    command.process_group(0);
    let watching = Running::start(command);
    watching.wait_to_say("is up");
    let session = Session::find(rig, &name);
    // A terminal's end, and what Ctrl-C or an impatient job control does, go to the whole process group.
    for signal in [nix::sys::signal::Signal::SIGHUP, nix::sys::signal::Signal::SIGKILL] {
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(watching.pid()), signal);
    }
    watching.finish();
    assert!(session.reaches("bs1", "mbs"), "the network died with the terminal");
    assert!(rig.run(["events", &name]).ok().stdout.contains("session_started"));
    assert_eq!(session.down()["ended"], "asked");
}

#[test]
fn without_sessions_every_verb_says_so() {
    let rig = Rig::unprivileged();
    for verb in [
        &["status"][..],
        &["events"],
        &["down"],
        &["heal"],
        &["logs", "bs1"],
        &["kill", "bs1"],
        &["exec", "bs1", "--", "true"],
        &["link", "down", "bs1", "mbs"],
        &["capture", "-o", "packets"],
    ] {
        rig.run(verb.iter().copied()).code(1).says("no session is running");
    }
    rig.run(["status", "nobody"]).code(1).says("no session called `nobody`");
    assert_eq!(rig.run(["ps", "--json"]).ok().stdout.trim(), "[]");
    rig.run(["down", "--all"]).ok();
    assert!(!rig.path().join("packets").exists(), "a refused capture leaves no file");
}
