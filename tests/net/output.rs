//! Where output cannot go: read-only directories, full disks, readers that have gone.

use std::{fs, os::unix::fs::PermissionsExt};

use nix::{sys::signal::Signal, unistd::geteuid};

use crate::{
    as_both,
    common::{Rig, Running, Session, wait_for},
};

as_both!(a_directory_that_cannot_be_used_is_refused, a_reader_that_has_seen_enough_is_no_error);

fn a_directory_that_cannot_be_used_is_refused(rig: &Rig) {
    let topology = rig.topology();
    let up = |out: &str| {
        let name = rig.unique_name();
        rig.run(["up", topology.to_str().unwrap(), "--detach", "--name", &name, "--out", out])
    };
    // A file stands where the directory should be.
    fs::write(rig.path().join("file"), "").unwrap();
    up("file").code(110).says("cannot create file");
    up("file/runs").code(110).says("cannot create file/runs");
    if rig.uid() != 0 {
        let closed = rig.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
        up("closed").code(110).says("Permission denied");
        assert_eq!(fs::read_dir(&closed).unwrap().count(), 0);
    }
    rig.run(["runs", "list", "--out", "nowhere"]).code(1).says("cannot read nowhere");
    rig.run(["events", "nowhere"]).code(1);
    rig.run(["man", "file"]).code(110);
    rig.run(["validate", "nowhere.toml"]).code(96).says("nowhere.toml");
    if rig.uid() != 0 {
        fs::set_permissions(&topology, fs::Permissions::from_mode(0o000)).unwrap();
        if rig.is_other_user() {
            std::os::unix::fs::chown(&topology, Some(0), Some(0)).unwrap();
        }
        rig.run(["validate", topology.to_str().unwrap()]).code(96).says("Permission denied");
    }
}

fn a_reader_that_has_seen_enough_is_no_error(rig: &Rig) {
    let session = rig.up(&[]);
    for verb in ["events", "status", "events -f --json"] {
        let mut command = rig.command("bash");
        let script =
            format!("set -o pipefail; {} {verb} {} | head -n1", rig.program().display(), session.name);
        command.args(["-c", &script]);
        // A follower notices when it prints the next event.
        let running = Running::start(command);
        wait_for("a line", || (running.printed_bytes() > 0).then_some(()));
        let finished = running.finish();
        assert_eq!(finished.stderr, "", "{verb}");
        assert_eq!(finished.stdout.lines().count(), 1);
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = rig.dtwn(["status", &session.name]);
    command.stdout(full);
    assert_eq!(command.output().unwrap().status.code(), Some(110));
}

/// `dtwn up` where the output directory is a small disk of its own, seen by nobody else.
fn up_on_small_disk(rig: &Rig, name: &str, size: &str) -> Running {
    assert!(geteuid().is_root(), "this test mounts a small disk: run it as root");
    fs::create_dir(rig.out()).unwrap();
    let up = rig.up_command(name, &["--headless", "--json", "--duration", "600s"]);
    let mount = format!("mount -t tmpfs -o size={size} small {} && exec \"$@\"", rig.out().display());
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(up.get_program()).args(up.get_args());
    command.current_dir(rig.path());
    Running::start(command)
}

#[test]
fn a_run_survives_a_full_disk_and_says_so() {
    let rig = Rig::as_caller();
    let name = rig.unique_name();
    let running = up_on_small_disk(&rig, &name, "2m");
    running.wait_to_say("is up");
    let session = Session::find(&rig, &name);
    assert!(session.reaches("bs1", "mbs"));
    // The session's view of the disk, from outside.
    let run_dir = format!("/proc/{}/root{}", session.pid, session.run_dir.display());
    let filler = fs::write(format!("{run_dir}/filler"), vec![0; 4 << 20]);
    assert_eq!(filler.unwrap_err().raw_os_error(), Some(nix::libc::ENOSPC));

    // What is recorded finds no room; agents that log on the full disk work on.
    wait_for("the recorder to notice", || {
        for _ in 0..20 {
            session.verb(&["link", "set", "bs1", "mbs", "--delay", "3ms"]).ok();
        }
        running.said().contains("could not be recorded").then_some(())
    });
    session.verb(&["restart", "bs1"]).ok();
    wait_for("bs1 to work again", || (session.node("bs1")["restarts"] == 1).then_some(()));
    wait_for("bs1 to work again", || (session.node("bs1")["state"] == "ready").then_some(()));
    assert!(session.reaches("bs1", "mbs"), "the run did not survive");
    running.signal(Signal::SIGTERM);
    let finished = running.finish().code(110);
    assert!(finished.stderr.contains("could not be recorded") && finished.stderr.contains("No space left"));
}

#[test]
fn a_disk_that_is_full_from_the_start_is_refused() {
    let rig = Rig::as_caller();
    let name = rig.unique_name();
    up_on_small_disk(&rig, &name, "4k").finish().code(110).says("No space left");
    rig.run(["status", &name]).code(1);
}
