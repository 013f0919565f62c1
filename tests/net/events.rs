//! The event stream: whole, in order, readable wherever it was cut, and never at the session's expense.

use std::{collections::HashMap, fs, os::unix::net::UnixStream};

use dtwn_proto::{
    VERSION,
    control::{Hello, LinkChange, Request, Response},
    frame,
};
use serde_json::Value;

use crate::{
    as_both,
    common::{Rig, Running, Session, parse_events, wait_for},
};

as_both!(
    every_line_parses_and_none_is_missing,
    followers_end_with_the_session,
    a_cut_file_is_read_up_to_the_tear
);

/// Checks that a stream of events is whole: sequences without gaps, from 0 at each start of a process.
#[track_caller]
fn assert_whole(events: &[Value]) {
    let mut next: HashMap<String, u64> = HashMap::new();
    for event in events {
        assert_eq!(event["schema"], dtwn_proto::EVENT_SCHEMA, "{event}");
        assert!(event["at_ns"].is_i64() && event["wall_unix_ns"].is_u64(), "{event}");
        assert!(event["what"]["type"].is_string(), "{event}");
        let node = event["node"].as_str().unwrap();
        let sequence = event["sequence"].as_u64().unwrap();
        let expected = next.entry(node.to_owned()).or_default();
        assert_eq!(sequence, *expected, "a gap of {node}: {event}");
        *expected += 1;
        if event["what"]["type"] == "node_started" {
            next.insert(event["what"]["node"].as_str().unwrap().to_owned(), 0);
        }
    }
}

fn every_line_parses_and_none_is_missing(rig: &Rig) {
    let session = rig.up(&[]);
    session.verb(&["restart", "bs1"]).ok();
    session.verb(&["link", "set", "bs1", "mbs", "--loss", "1%"]).ok();
    session.wait_for_event("sample", |_| true);
    wait_for("bs1 to work again", || (session.node("bs1")["state"] == "ready").then_some(()));
    let live = session.events();
    assert_whole(&live);
    let count = |kind: &str| live.iter().filter(|event| event["what"]["type"] == kind).count();
    assert_eq!((count("session_started"), count("up"), count("link_changed")), (1, 1, 1));
    assert_eq!((count("node_started"), count("node_exited")), (10, 1));
    let run_dir = session.run_dir.clone();
    let summary = session.down();
    assert_eq!(summary["events_lost"], 0);
    // The file is the same stream, gone on.
    let recorded = parse_events(&rig.run(["events", run_dir.to_str().unwrap(), "--json"]).ok().stdout);
    assert_whole(&recorded);
    assert_eq!(recorded[..live.len()], live[..]);
    assert_eq!(recorded.last().unwrap()["what"]["type"], "ended");
    // For people: one line each.
    let shown = rig.run(["events", run_dir.to_str().unwrap()]).ok().stdout;
    assert_eq!(shown.lines().count(), recorded.len());
}

fn followers_end_with_the_session(rig: &Rig) {
    let session = rig.up(&[]);
    let mut followers: Vec<_> =
        (0..3).map(|_| Running::start(rig.dtwn(["events", "-f", "--json", &session.name]))).collect();
    for i in 0..20 {
        session.verb(&["link", "set", "bs1", "mbs", "--delay", &format!("{i}ms")]).ok();
    }
    assert!(followers.iter_mut().all(Running::is_running));
    let run_dir = session.run_dir.clone();
    session.down();
    let recorded = rig.run(["events", run_dir.to_str().unwrap(), "--json"]).ok().stdout;
    for follower in followers {
        let followed = follower.finish().ok().stdout;
        assert_whole(&parse_events(&followed));
        assert_eq!(followed, recorded, "a follower saw another run than was recorded");
    }
}

fn a_cut_file_is_read_up_to_the_tear(rig: &Rig) {
    let session = rig.up(&[]);
    let run_dir = session.run_dir.clone();
    session.down();
    let whole = fs::read(run_dir.join("events.dtwn")).unwrap();
    let read = |name: &str, bytes: &[u8]| {
        let dir = rig.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("events.dtwn"), bytes).unwrap();
        rig.run(["events", dir.to_str().unwrap(), "--json"])
    };
    let all = read("whole", &whole).ok().stdout;
    assert_whole(&parse_events(&all));

    // Where records begin: after the header of 12 bytes each has its length, a checksum and a body.
    let mut borders = vec![12];
    while let Some(length) = whole.get(borders[borders.len() - 1]..).filter(|rest| rest.len() >= 8) {
        let body = u32::from_le_bytes(length[..4].try_into().unwrap()) as usize;
        borders.push(borders[borders.len() - 1] + 8 + body);
    }
    assert_eq!(borders.len() - 1, all.lines().count());
    let middle = borders[borders.len() / 2];
    let around = |border: usize| (border - 2)..(border + 11);
    for cut in (12..24).chain(around(middle)).chain(whole.len() - 9..=whole.len()) {
        let finished = read("cut", &whole[..cut]).ok();
        let kept = borders.iter().filter(|border| **border <= cut).count() - 1;
        assert_eq!(finished.stdout.lines().count(), kept, "cut at {cut}");
        assert!(all.starts_with(&finished.stdout), "cut at {cut}");
        if !borders.contains(&cut) {
            finished.says(&format!("torn at byte {}", borders[kept]));
        }
    }
    // A damaged byte ends it there as well.
    let mut damaged = whole.clone();
    damaged[middle + 20] ^= 0x10;
    let finished = read("damaged", &damaged).ok().says(&format!("torn at byte {middle}"));
    assert!(all.starts_with(&finished.stdout));
    // What is no event file is an error, and so is a directory without one.
    read("short", &whole[..11]).code(1).says("not an event file");
    read("other", b"something else entirely").code(1).says("not an event file");
    let empty = rig.path().join("empty");
    fs::create_dir(&empty).unwrap();
    rig.run(["events", empty.to_str().unwrap()]).code(1).says("events.dtwn");
}

/// A connection that speaks the control protocol itself. Only the session's own user gets one.
pub fn connect(session: &Session, read_only: bool) -> UnixStream {
    let socket = session.rig.registry().join(format!("{}.sock", session.name));
    let mut stream = UnixStream::connect(socket).unwrap();
    frame::write(&mut stream, &Hello { version: VERSION.into(), read_only }).unwrap();
    let welcome: Response = frame::read(&mut stream).unwrap();
    assert!(matches!(welcome, Response::Welcome { .. }), "{welcome:?}");
    stream
}

fn resident_mib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_viewer_that_stops_reading_holds_up_nobody_and_learns_what_it_missed() {
    let rig = Rig::as_caller();
    let session = rig.up(&[]);
    let mut stuck = connect(&session, true);
    frame::write(&mut stuck, &Request::Subscribe { history: true }).unwrap();
    let before_mib = resident_mib(session.pid);

    // Far more events than any queue or socket on the way holds.
    let changes = 20_000;
    let mut steering = connect(&session, false);
    for i in 0..changes {
        let change = LinkChange { delay_ms: Some(f64::from(i % 10)), ..LinkChange::default() };
        let request = Request::SetLink { from: "bs1".into(), to: "mbs".into(), change };
        frame::write(&mut steering, &request).unwrap();
        let answer: Response = frame::read(&mut steering).unwrap();
        assert!(matches!(answer, Response::Done), "{answer:?}");
    }
    let growth_mib = resident_mib(session.pid).saturating_sub(before_mib);
    assert!(growth_mib < 32, "{growth_mib} MiB more for a viewer that does not read");
    assert!(session.reaches("bs1", "mbs"));

    // It reads on: what was kept for it, then how many are missing, then what happens from now.
    let reading = std::thread::spawn(move || {
        let (mut events, mut skipped) = (0_u64, 0_u64);
        loop {
            match frame::read::<Response>(&mut stuck) {
                Ok(Response::Event(_)) => events += 1,
                Ok(Response::Skipped(count)) => skipped += count,
                Ok(Response::Live) => {}
                Ok(other) => panic!("{other:?}"),
                Err(frame::FrameError::Closed) => return (events, skipped),
                Err(error) => panic!("{error}"),
            }
        }
    });
    let run_dir = session.run_dir.clone();
    session.wait_for_event("sample", |_| true);
    session.down();
    let (events, skipped) = reading.join().unwrap();
    let recorded = rig.run(["events", run_dir.to_str().unwrap(), "--json"]).ok().stdout;
    assert!(skipped > 0, "all of {events} events were kept for a viewer that did not read");
    assert_eq!(events + skipped, recorded.lines().count() as u64, "{skipped} left out");
    assert_whole(&parse_events(&recorded));
}
