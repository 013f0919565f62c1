//! What cannot be is refused before anything is built, in one message that says what would be right.

use std::fs;

use crate::{
    as_both,
    common::{Rig, Running},
};

/// A topology that is right, to be made wrong in one place.
const RIGHT: &str = r#"
[run]
name = "right"

[[bs]]
id = "bs1"
position_m = [100, 0]

[[bs]]
id = "bs2"
position_m = [0, 100]

[[users]]
id = "ug1"
count = 2
around = "bs1"
"#;

/// What is wrong: a name for it, the text, and words of the message.
fn wrong() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |addition: &str| format!("{RIGHT}\n{addition}\n").into_bytes();
    let changed = |from: &str, to: &str| {
        assert!(RIGHT.contains(from));
        RIGHT.replacen(from, to, 1).into_bytes()
    };
    vec![
        ("unknown-key", with("[radio]\nsubchanels = 4"), "subchannels"),
        ("unknown-table", with("[rodio]\nsubchannels = 4"), "rodio"),
        ("duplicate-id", changed("\"bs2\"", "\"bs1\""), "bs1"),
        ("duplicate-across-roles", changed("\"ug1\"", "\"bs1\""), "bs1"),
        ("around-nobody", changed("around = \"bs1\"", "around = \"bs7\""), "bs7"),
        ("link-to-nobody", with("[[link.override]]\nfrom = \"bs1\"\nto = \"bs7\"\nloss = \"5%\""), "bs7"),
        ("negative-delay", with("[link.uplink]\ndelay = \"-1 ms\""), "-1 ms"),
        ("nan-position", changed("[100, 0]", "[nan, 0]"), "nan"),
        ("infinite-position", changed("[100, 0]", "[inf, 0]"), "inf"),
        ("negative-count", changed("count = 2", "count = -2"), "-2"),
        ("loss-above-1", with("[link.access]\nloss = 1.5"), "1.5"),
        ("loss-above-100", with("[link.access]\nloss = \"150%\""), "150%"),
        ("nan-loss", with("[link.access]\nloss = nan"), "nan"),
        ("zero-subchannels", with("[radio]\nsubchannels = 0"), "subchannels"),
        ("negative-bandwidth", with("[radio]\nbandwidth = \"-3 MHz\""), "-3 MHz"),
        ("no-bs", b"[run]\nname = \"empty\"\n".to_vec(), "BS"),
        (
            "more-bs-than-addresses",
            with("[[bs]]\nid = \"b\"\ncount = 300\nring = { radius = \"1 km\" }"),
            "b",
        ),
        ("more-users-than-addresses", changed("count = 2", "count = 40000"), "40000"),
        ("not-toml", b"[run\nname = 3".to_vec(), "not-toml.toml"),
        ("not-utf8", b"[run]\nname = \"\xff\xfe\"\n".to_vec(), "UTF-8"),
        ("binary", (0..=255).collect(), "binary.toml"),
        ("empty", Vec::new(), "BS"),
        ("dilation-below-1", changed("name = \"right\"", "name = \"right\"\ndilation = 0.5"), "0.5"),
        ("number-without-unit", with("[link.uplink]\ndelay = 20"), "20"),
    ]
}

as_both!(wrong_topologies_are_refused);

fn wrong_topologies_are_refused(rig: &Rig) {
    let file = |name: &str| rig.path().join(format!("{name}.toml"));
    fs::write(file("right"), RIGHT).unwrap();
    rig.run(["validate", "right.toml"]).ok();
    for (name, text, words) in wrong() {
        fs::write(file(name), text).unwrap();
        let path = format!("{name}.toml");
        let validated = rig.run(["validate", &path]).code(96).says(words).says(&path);
        assert_eq!(validated.stdout, "", "{name}");
        assert!(!validated.stderr.contains("panicked"), "{name}: {}", validated.stderr);
        let up = rig.run(["up", &path, "--headless", "--json", "--out", "runs"]).code(96).says(words);
        assert_eq!(up.stdout, "", "{name}");
    }
    assert!(!rig.out().exists(), "a refused topology leaves a run directory");
    // One call checks all, and says of each what it is.
    let both = rig.run(["validate", "right.toml", "no-bs.toml", "small.toml"]).code(96);
    assert!(
        both.stdout.contains("right.toml: ok") && both.stdout.contains("small.toml: ok"),
        "{}",
        both.stdout
    );
}

#[test]
fn an_error_shows_file_line_text_and_what_would_be_right() {
    let rig = Rig::as_caller();
    let text = RIGHT.replace("count = 2", "cuont = 2");
    let line = text.lines().position(|line| line.contains("cuont")).unwrap() + 1;
    fs::write(rig.path().join("typo.toml"), text).unwrap();
    let finished = rig.run(["validate", "typo.toml"]).code(96);
    for words in [format!("typo.toml:{line}"), "cuont = 2".into(), "count".into()] {
        assert!(finished.stderr.contains(&words), "{words} is missing:\n{}", finished.stderr);
    }
}

#[test]
fn overrides_are_checked_as_files_are() {
    let rig = Rig::as_caller();
    let dry = |arguments: &[&str]| {
        let all = ["validate", "small.toml"].iter().chain(arguments).copied();
        rig.run(all)
    };
    dry(&["--set", "radio.subchannels=4"]).ok();
    dry(&["--set", "radio.subchannels=0"]).code(96).says("subchannels");
    dry(&["--set", "radio.subchanels=4"]).code(96).says("subchanels");
    dry(&["--set", "nonsense"]).code(96).says("nonsense");
    let mut command = rig.dtwn(["validate", "small.toml"]);
    command.env("DTWN_RADIO__SUBCHANNELS", "0");
    assert!(!Running::start(command).finish().status.success());
}

#[test]
fn command_lines_that_make_no_sense_are_usage_errors() {
    let rig = Rig::as_caller();
    for arguments in [
        &["frobnicate"][..],
        &["up"],
        &["up", "small.toml", "--headless", "--detach"],
        &["exec", "bs1"],
        &["link", "set", "bs1"],
        &["runs", "prune", "--keep", "many"],
    ] {
        rig.run(arguments.iter().copied()).code(2);
    }
    rig.run(["up", "small.toml", "--detach", "--name", "../x"]).code(2).says("cannot be a session's name");
}

/// Runs `dtwn up` after a shell script has changed what it sees of the machine, in namespaces of its own.
fn up_where(rig: &Rig, unshare: &[&str], script: &str) -> crate::common::Finished {
    let name = rig.unique_name();
    let up = rig.up_command(&name, &["--detach"]);
    let mut command = std::process::Command::new("unshare");
    command.args(unshare).args(["sh", "-ec", &format!("{script} \"$@\""), "sh"]);
    command.arg(up.get_program()).args(up.get_args()).current_dir(rig.path());
    Running::start(command).finish()
}

#[test]
fn a_missing_or_closed_tun_device_is_refused() {
    let rig = Rig::as_caller();
    // As root in a mount namespace of our own, with privileges or without.
    let unshare =
        if nix::unistd::geteuid().is_root() { &["--mount"][..] } else { &["--mount", "--user", "-r"][..] };
    let missing = up_where(&rig, unshare, "mount -t tmpfs none /dev/net; exec").code(96);
    missing.says("/dev/net/tun cannot be opened").says("modprobe tun");
    assert_eq!(fs::read_dir(rig.out()).map_or(0, Iterator::count), 0, "a refused start leaves a directory");
}

#[test]
fn an_unprivileged_user_is_told_to_have_the_tun_device_opened() {
    assert!(nix::unistd::geteuid().is_root(), "this test closes /dev/net/tun to one user: run it as root");
    let rig = Rig::unprivileged();
    let script = "touch closed; chmod 0600 closed; mount --bind closed /dev/net/tun; exec";
    let closed = up_where(&rig, &["--mount"], script).code(96);
    closed.says("/dev/net/tun cannot be opened").says("chmod 0666 /dev/net/tun");
}

#[test]
fn a_machine_without_user_namespaces_is_refused() {
    let rig = Rig::unprivileged();
    // Inside a user namespace whose own limit is none, without capabilities, nobody can make another.
    let user = format!("--map-user={}", rig.uid());
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; \
                  exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all --";
    let name = rig.unique_name();
    let up = rig.up_command(&name, &["--detach"]);
    let arguments = up.get_args().skip_while(|argument| *argument != "up");
    let mut command = rig.command("unshare");
    command.args(["--user", &user, "--keep-caps"]).args(["sh", "-ec", &format!("{script} \"$@\""), "sh"]);
    command.arg(rig.program()).args(arguments);
    Running::start(command)
        .finish()
        .code(96)
        .says("no namespaces for an unprivileged user")
        .says("max_user_namespaces");
}
