//! Links and partitions changed while the network runs: what packets make of it, and what the events say.

use serde_json::{Value, json};

use crate::{
    as_both,
    common::{Rig, Session, wait_for},
};

as_both!(link_changes_take_effect, partitions_cut_and_heal, what_makes_no_sense_is_refused);

/// Round-trip times of some echo requests in milliseconds.
fn round_trips_ms(session: &Session, from: &str, to: &str) -> Vec<f64> {
    let output = session.exec(from, &["ping", "-c5", "-i0.05", "-W5", to]).ok().stdout;
    let times = output.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok());
    times.collect()
}

fn is_cut(session: &Session, from: &str, to: &str) -> bool {
    let output = session.exec(from, &["ping", "-c3", "-i0.05", "-W1", to]);
    output.status.code() == Some(1) && output.stdout.contains("100% packet loss")
}

fn dropped(session: &Session, link: &str, cause: &str) -> u64 {
    session.link(link)["counters"]["dropped"][cause].as_u64().unwrap()
}

fn link_changes_take_effect(rig: &Rig) {
    let session = rig.up(&[]);
    session.silence();
    let minimum = |times: Vec<f64>| times.into_iter().fold(f64::INFINITY, f64::min);
    let planned = session.link_settings("bs1>mbs");

    // 2 ms each way by the topology, 60 ms more one way: never less, whatever the machine does.
    session.verb(&["link", "set", "bs1", "mbs", "--delay", "62ms"]).ok();
    let slow = minimum(round_trips_ms(&session, "bs1", "mbs"));
    assert!(slow >= 64.0, "{slow} ms");
    let changed = session.wait_for_event("link_changed", |what| what["link"] == "bs1>mbs");
    assert_eq!(changed["what"]["change"], "delay 62 ms");
    assert_eq!(changed["what"]["now"]["delay_ms"], 62.0);
    // One property was named, so all others are as before, and so are all other links.
    assert_eq!(changed["what"]["now"]["loss"], 0.0);
    assert_eq!(changed["what"]["now"]["rate_bps"], session.link("bs2>mbs")["rate_bps"]);
    assert_eq!(session.link("mbs>bs1")["delay_ms"], 2.0);

    session.verb(&["link", "set", "bs1", "mbs", "--delay", "2ms", "--loss", "100%"]).ok();
    assert!(is_cut(&session, "bs1", "mbs"), "everything is lost, yet an answer came");
    wait_for("losses to be counted", || (dropped(&session, "bs1>mbs", "loss") >= 3).then_some(()));
    session.verb(&["link", "set", "bs1", "mbs", "--loss", "0"]).ok();
    assert!(session.reaches("bs1", "mbs"));

    session.verb(&["link", "down", "bs1", "mbs", "--both"]).ok();
    assert!(is_cut(&session, "bs1", "mbs") && is_cut(&session, "mbs", "bs1"));
    assert!(session.reaches("bs2", "mbs"));
    wait_for("drops to be counted", || {
        (dropped(&session, "bs1>mbs", "down") >= 3 && dropped(&session, "mbs>bs1", "down") >= 3).then_some(())
    });
    assert_eq!(session.link("bs1>mbs")["up"], false);
    session.verb(&["link", "up", "bs1", "mbs", "--both"]).ok();
    assert!(session.reaches("bs1", "mbs"));
    let changes: Vec<String> = session
        .events()
        .iter()
        .filter(|event| event["what"]["type"] == "link_changed")
        .map(|event| format!("{} {}", event["what"]["link"].as_str().unwrap(), event["what"]["change"]))
        .collect();
    assert_eq!(
        changes[3..],
        [
            "bs1>mbs \"down\"".to_owned(),
            "mbs>bs1 \"down\"".to_owned(),
            "bs1>mbs \"up\"".to_owned(),
            "mbs>bs1 \"up\"".to_owned(),
        ]
    );
    // A rate set by hand is the rate: 84 bytes at 10 kbit/s take 67 ms.
    session.verb(&["link", "set", "bs1", "mbs", "--rate", "10kbit"]).ok();
    let slow = minimum(round_trips_ms(&session, "bs1", "mbs"));
    assert!(slow >= 67.0, "{slow} ms");
    // Until it is put back: the radio's again, whatever else was changed meanwhile.
    session.verb(&["link", "set", "bs1", "mbs", "--delay", "9ms", "--loss", "1%"]).ok();
    session.verb(&["link", "reset", "bs1", "mbs"]).ok();
    assert_eq!(session.link_settings("bs1>mbs"), planned);
    assert!(minimum(round_trips_ms(&session, "bs1", "mbs")) < slow);
    // Two BSs have no link of their own; what is set for them holds for their packets alone.
    session.verb(&["link", "set", "bs2", "bs3", "--loss", "100%"]).ok();
    assert!(is_cut(&session, "bs2", "bs3"));
    assert!(session.reaches("bs2", "mbs") && session.reaches("bs2", "bs4"));
}

fn partitions_cut_and_heal(rig: &Rig) {
    let session = rig.up(&[]);
    session.silence();
    session.verb(&["partition", "bs1,bs2", ":", "bs3,bs4"]).ok();
    assert!(is_cut(&session, "bs1", "bs3") && is_cut(&session, "bs4", "bs2"));
    assert!(session.reaches("bs1", "bs2") && session.reaches("bs3", "mbs"));
    let event = session.wait_for_event("partitioned", |_| true);
    assert_eq!(event["what"]["groups"], json!([["bs1", "bs2"], ["bs3", "bs4"]]));
    assert_eq!(session.status()["blocked"].as_array().unwrap().len(), 8);
    wait_for("drops to be counted", || {
        let status = session.status();
        let count = |link: &Value| link["counters"]["dropped"]["partition"].as_u64().unwrap();
        let dropped: u64 = status["links"].as_array().unwrap().iter().map(count).sum();
        (dropped >= 6).then_some(())
    });
    session.verb(&["heal"]).ok();
    session.wait_for_event("healed", |_| true);
    assert!(session.reaches("bs1", "bs3") && session.reaches("bs4", "bs2"));
    assert_eq!(session.status()["blocked"], json!([]));

    // One way: requests of bs1 are cut; those of bs2 arrive, and only their answers are.
    session.verb(&["partition", "--one-way", "bs1:bs2"]).ok();
    assert_eq!(session.status()["blocked"], json!([["bs1", "bs2"]]));
    session.settle();
    let received = || session.link("mbs>bs1")["counters"]["delivered"].as_u64().unwrap();
    let before = received();
    assert!(is_cut(&session, "bs2", "bs1"));
    wait_for("the requests to arrive", || (received() >= before + 3).then_some(()));
    let before = session.link("mbs>bs2")["counters"]["delivered"].as_u64().unwrap();
    assert!(is_cut(&session, "bs1", "bs2"));
    session.settle();
    assert_eq!(session.link("mbs>bs2")["counters"]["delivered"].as_u64().unwrap(), before);
    session.verb(&["heal"]).ok();
    assert!(session.reaches("bs1", "bs2"));
}

fn what_makes_no_sense_is_refused(rig: &Rig) {
    let session = rig.up(&[]);
    let refused = |code: i32, words: &str, verb: &[&str]| {
        session.verb(verb).code(code).says(words);
    };
    refused(1, "nothing is trained in this run", &["poison", "bs1", "noise"]);
    refused(1, "ug1 is no base station", &["poison", "ug1", "noise"]);
    refused(1, "nothing to change", &["link", "set", "bs1", "mbs"]);
    refused(1, "no link to itself", &["link", "down", "bs1", "bs1"]);
    refused(1, "did you mean `bs", &["link", "down", "bs9", "mbs"]);
    refused(2, "--loss 200%", &["link", "set", "bs1", "mbs", "--loss", "200%"]);
    refused(2, "--loss nan", &["link", "set", "bs1", "mbs", "--loss", "nan"]);
    refused(2, "--delay 20", &["link", "set", "bs1", "mbs", "--delay", "20"]);
    refused(2, "--delay -5ms", &["link", "set", "bs1", "mbs", "--delay=-5ms"]);
    refused(2, "--rate fast", &["link", "set", "bs1", "mbs", "--rate", "fast"]);
    refused(2, "two groups", &["partition", "bs1,bs2"]);
    refused(2, "two groups", &["partition", "bs1,bs2:"]);
    refused(1, "bs1 is named twice", &["partition", "bs1:bs2,bs1"]);
    refused(1, "there is no node `bs7`", &["partition", "bs1:bs7"]);
    session.verb(&["link", "set", "bs1", "mbs", "--rate", "0"]).says("--rate 0");
    assert!(session.reaches("bs1", "mbs"), "a refused change changed something");
    let events = session.events();
    assert!(
        !events.iter().any(|event| event["what"]["type"] == "link_changed"),
        "a refused change is an event"
    );
}
