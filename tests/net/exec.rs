//! Programs run at nodes.

use crate::{
    as_both,
    common::{Rig, Running},
};

as_both!(exec_is_transparent, exec_places_a_program_at_its_node);

fn exec_is_transparent(rig: &Rig) {
    let session = rig.up(&[]);
    session.exec("bs1", &["true"]).ok();
    session.exec("bs1", &["sh", "-c", "exit 37"]).code(37);
    session.exec("bs1", &["sh", "-c", "kill -TERM $$"]).code(128 + 15);
    session.exec("bs1", &["sh", "-c", "kill -KILL $$"]).code(128 + 9);
    session.exec("bs1", &["no-such-program"]).code(127).says("no-such-program: no such program");
    session.exec("bs1", &["/etc/hosts"]).code(126);

    // Every byte, and the end of it, in both directions; streams stay apart.
    let input: Vec<u8> = (0..200_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let script = "sha256sum; echo on stderr >&2";
    let at_node =
        Running::start_with_input(session.exec_command("bs1", &["sh", "-c", script]), &input).finish().ok();
    let mut here = rig.command("sh");
    here.args(["-c", script]);
    let here = Running::start_with_input(here, &input).finish().ok();
    assert_eq!(at_node.stdout, here.stdout);
    assert_eq!(at_node.stderr, "on stderr\n");
    // Arguments arrive as they are, empty ones and those with dashes included.
    let printed = session.exec("bs1", &["printf", "[%s]", "", "a b", "--help", "-x"]).ok().stdout;
    assert_eq!(printed, "[][a b][--help][-x]");

    let refused = session.exec("bs11", &["true"]).code(1).says("there is no node `bs11`");
    refused.says("did you mean `bs1`?");
    session.exec("zzz", &["true"]).code(1).says("there is no node `zzz`");
}

fn exec_places_a_program_at_its_node(rig: &Rig) {
    let session = rig.up(&[]);
    let hosts = session.exec("bs1", &["cat", "/etc/hosts"]).ok().stdout;
    assert!(hosts.contains("10.0.0.1 mbs") && hosts.contains("ug4.2"), "{hosts}");
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains("ug4.2"), "the host's own file changed");
    // Nothing but the loopback and the air.
    let interfaces = session.exec("ug1", &["ls", "/sys/class/net"]).ok().stdout;
    let shown = session.exec("ug1", &["ip", "-br", "link"]).ok().stdout;
    assert_eq!(shown.lines().count(), 2, "{shown}{interfaces}");
    assert!(shown.contains("air0"), "{shown}");
    // Its own view of processes: the first is ours.
    let first = session.exec("bs1", &["cat", "/proc/1/cmdline"]).ok().stdout;
    assert!(first.contains("__init"), "{first}");
    // Where the caller is, as far as the node sees the same files.
    let place = session.exec("bs1", &["pwd"]).ok().stdout;
    assert_eq!(place.trim(), rig.path().to_str().unwrap());
    let addresses = session.exec("ug2", &["ip", "-4", "-br", "addr", "show", "air0"]).ok().stdout;
    assert!(addresses.contains("10.64.0.2/32") && addresses.contains("10.64.0.3/32"), "{addresses}");
}
