//! Captures, read back with Wireshark's own reader.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::{
    as_both,
    common::{Rig, Running, wait_for},
};

as_both!(captures_hold_the_packets_that_passed, a_capture_ends_with_its_session_and_is_whole);

/// The packets of a capture that a display filter lets through: one line each, the given fields.
#[track_caller]
fn packets(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = std::process::Command::new("tshark");
    command.arg("-r").arg(file).args(["-Y", filter, "-T", "fields"]);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let output =
        command.output().expect("this test reads captures with tshark: scripts/setup --test installs it");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !words.contains("cut short"), "tshark: {words}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn captures_hold_the_packets_that_passed(rig: &Rig) {
    let session = rig.up(&[]);
    session.silence();
    let file = |name: &str| rig.path().join(name);
    let capture = |arguments: &[&str]| {
        let all: Vec<_> = ["capture"].iter().chain(arguments).copied().collect();
        let running = Running::start(session.verb_command(&all));
        running.wait_to_say("recording");
        running
    };
    let node = capture(&["bs1", "-o", "node.pcapng"]);
    let link = capture(&["bs1:mbs", "-o", "link.pcapng"]);
    let all = capture(&["-o", "all.pcapng"]);
    session.exec("bs1", &["ping", "-c4", "-i0.05", "-s", "100", "mbs"]).ok();
    session.exec("bs3", &["ping", "-c2", "-i0.05", "mbs"]).ok();
    for running in [node, link, all] {
        running.signal(Signal::SIGINT);
        running.finish().ok();
    }

    // Both directions of the node, one of the link, everything of all.
    let fields = ["ip.src", "ip.dst", "ip.len"];
    let (out, back) = ("10.0.1.1\t10.0.0.1\t128".to_owned(), "10.0.0.1\t10.0.1.1\t128".to_owned());
    let count = |packets: &[String], line: &String| packets.iter().filter(|packet| *packet == line).count();
    let of_node = packets(&file("node.pcapng"), "icmp", &fields);
    assert_eq!((count(&of_node, &out), count(&of_node, &back), of_node.len()), (4, 4, 8), "{of_node:#?}");
    let of_link = packets(&file("link.pcapng"), "icmp", &fields);
    assert_eq!((count(&of_link, &out), of_link.len()), (4, 4), "{of_link:#?}");
    // Everything is seen where it enters the air and where it leaves it.
    assert_eq!(packets(&file("all.pcapng"), "icmp", &fields).len(), 2 * 12);
    // Times are those of the wall clock, in order.
    let times: Vec<f64> = packets(&file("node.pcapng"), "icmp", &["frame.time_epoch"])
        .iter()
        .map(|time| time.parse().unwrap())
        .collect();
    assert!(times.windows(2).all(|two| two[0] <= two[1]), "{times:?}");

    session.verb(&["capture", "bs7", "-o", "none.pcapng"]).code(1).says("there is no node `bs7`");
    session.verb(&["capture", "bs1:bs2", "-o", "none.pcapng"]).code(1).says("no link of its own");
    session.verb(&["capture", "bs1", "-o", "nowhere/none.pcapng"]).code(110).says("nowhere/none.pcapng");
    session.verb(&["capture", "--duration", "0.3s", "-o", "short.pcapng"]).ok();
    assert!(packets(&file("short.pcapng"), "icmp", &fields).is_empty());
}

fn a_capture_ends_with_its_session_and_is_whole(rig: &Rig) {
    let session = rig.up(&[]);
    let running = Running::start(session.verb_command(&["capture", "-o", "packets.pcapng"]));
    running.wait_to_say("recording");
    // A reader that goes away takes nothing with it.
    let mut pipe = session.rig.command("sh");
    pipe.arg("-c").arg(format!(
        "{} capture --session {} | head -c 100",
        rig.program().display(),
        session.name
    ));
    let pipe = Running::start(pipe);
    session.exec("bs2", &["ping", "-c20", "-i0.02", "bs4"]).ok();
    wait_for("the reader that goes away to end", || {
        session.exec("bs2", &["ping", "-c5", "-i0.02", "mbs"]).ok();
        (pipe.printed_bytes() >= 100).then_some(())
    });
    assert!(session.reaches("bs1", "mbs"));
    session.down();
    running.finish().ok();
    pipe.finish().ok();
    let file = rig.path().join("packets.pcapng");
    assert!(packets(&file, "icmp.type == 8 && ip.dst == 10.0.1.4", &["icmp.seq"]).len() >= 20);
}
