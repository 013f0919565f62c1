//! A network comes up, its nodes reach each other by name, and its counters say what passed.

use crate::{
    as_both,
    common::{Rig, Running, Session, wait_for},
};

as_both!(nodes_reach_each_other_by_name, counters_hold_what_iperf3_sent, a_fixed_rate_is_not_exceeded);

fn nodes_reach_each_other_by_name(rig: &Rig) {
    let session = rig.up(&[]);
    let status = session.status();
    let states: Vec<_> = status["nodes"].as_array().unwrap().iter().map(|node| &node["state"]).collect();
    assert_eq!(states.len(), 9);
    assert!(states.iter().all(|state| *state == "ready"), "{states:?}");
    // Neighbours, a relayed pair, a user towards its own BS, and one in another cell.
    for (from, to) in [("bs1", "mbs"), ("mbs", "bs3"), ("bs1", "bs2"), ("ug1", "bs1"), ("ug1.2", "ug3.1")] {
        let node = from.split('.').next().unwrap();
        assert!(session.reaches(node, to), "{from} does not reach {to}");
    }
    // The second user of a group calls its BS by an alias of its own, and is the sender of what goes there.
    assert!(session.reaches("ug2", "10.128.3.2"), "ug2.2 does not reach bs2 by its alias");
    let link = || session.link("ug2.2>bs")["counters"]["delivered"].as_u64().unwrap();
    wait_for("packets of ug2.2", || (link() > 0).then_some(()));
}

/// Serves one iperf3 client at a node; waits until it listens.
fn iperf3_server(session: &Session, node: &str) -> Running {
    let server = Running::start(session.exec_command(node, &["iperf3", "-s", "-1"]));
    wait_for("iperf3 to listen", || {
        session.exec(node, &["ss", "-Hltn", "sport = :5201"]).stdout.contains("5201").then_some(())
    });
    server
}

fn counters_hold_what_iperf3_sent(rig: &Rig) {
    // iperf3 catches up in one burst when the machine was busy elsewhere: the queue must hold that.
    let session = rig.up(&["--set", "link.uplink.rate=20 Mbit/s", "--set", "link.uplink.queue=1 MB"]);
    session.silence();
    let server = iperf3_server(&session, "mbs");
    let before = session.link("bs1>mbs")["counters"].clone();
    let args = ["iperf3", "-c", "mbs", "-u", "-b", "4M", "-l", "1000", "-n", "500000", "-J"];
    let report = session.exec("bs1", &args).ok().json();
    server.finish().ok();
    let sent = &report["end"]["sum_sent"];
    let packets = sent["packets"].as_u64().unwrap();
    assert!(packets >= 500, "{sent}");
    // 1,000 bytes of payload, 8 of UDP, 20 of IP; iperf3's control connection adds some kilobytes of its own.
    let expected = packets * 1028;
    let figure = |name: &str| {
        let now = &session.link("bs1>mbs")["counters"];
        now[name].as_u64().unwrap() - before[name].as_u64().unwrap()
    };
    wait_for("the counters to hold all of it", || (figure("bytes") >= expected).then_some(()));
    let control = figure("bytes") - expected;
    assert!(control < 20_000, "{control} bytes more than the {packets} packets of iperf3");
    assert_eq!(figure("sent"), figure("delivered"));
    assert_eq!(report["end"]["sum"]["lost_packets"], 0, "{report}");
    let summary = session.down();
    let links = summary["links"].as_array().unwrap();
    let link = links.iter().find(|link| link["from"] == "bs1" && link["to"] == "mbs").unwrap();
    assert!(link["bytes"].as_u64().unwrap() >= expected, "{link}");
}

fn a_fixed_rate_is_not_exceeded(rig: &Rig) {
    let session = rig.up(&["--set", "link.uplink.rate=20 Mbit/s"]);
    session.silence();
    assert_eq!(session.link("bs1>mbs")["rate_bps"], 20e6);
    let server = iperf3_server(&session, "mbs");
    let before = session.link("bs1>mbs")["counters"]["bytes"].as_u64().unwrap();
    let report = session.exec("bs1", &["iperf3", "-c", "mbs", "-n", "4M", "-J"]).ok().json();
    server.finish().ok();
    let received = &report["end"]["sum_received"];
    let payload = received["bytes"].as_u64().unwrap();
    // A busy machine may make it slower, nothing may make it faster.
    assert!(received["bits_per_second"].as_f64().unwrap() < 20e6, "{received}");
    let carried = || session.link("bs1>mbs")["counters"]["bytes"].as_u64().unwrap() - before;
    wait_for("the counters to hold all of it", || (carried() > payload).then_some(()));
    // 52 bytes of headers for 1,448 of payload make 3.6 %; the rest is room for retransmissions.
    assert!((carried() as f64) < payload as f64 * 1.15, "{} for {payload}", carried());
}
