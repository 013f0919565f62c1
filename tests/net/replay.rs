//! `dtwn replay`, driven in a real terminal.

use crate::common::{Rig, Session, Terminal, wait_for};

/// `dtwn replay RUN …` in a terminal.
fn open(rig: &Rig, run_dir: &std::path::Path, more: &str) -> Terminal {
    let terminal = Terminal::open(100, 30, rig.path());
    terminal.enter(&format!("'{}' replay '{}' {more}", rig.program().display(), run_dir.display()));
    terminal.wait_to_show("REPLAY");
    terminal
}

/// Leaves the view; the terminal must be as it was.
#[track_caller]
fn leave(terminal: &Terminal) {
    terminal.type_text("q");
    wait_for("the view to close", || (terminal.property("alternate_on") == "0").then_some(()));
    terminal.is_as_before();
}

/// Position and number of events, as the status line tells them.
fn position(screen: &str) -> Option<(usize, usize)> {
    let rest = screen.split("  event ").nth(1)?.split_whitespace().next()?;
    let (position, events) = rest.split_once('/')?;
    Some((position.parse().ok()?, events.parse().ok()?))
}

#[track_caller]
fn wait_for_position(terminal: &Terminal, what: &str, fits: impl Fn(usize, usize) -> bool) -> (usize, usize) {
    let screen = terminal.wait_for(what, |screen| position(screen).is_some_and(|(at, of)| fits(at, of)));
    position(&screen).unwrap()
}

fn recorded(rig: &Rig) -> Session<'_> {
    let session = rig.up(&[]);
    session.verb(&["pause", "ug2"]).ok();
    session.wait_for_event("node_paused", |what| what["node"] == "ug2");
    wait_for("some seconds of events", || {
        let samples = session.events().into_iter().filter(|event| event["what"]["type"] == "sample");
        (samples.count() >= 4).then_some(())
    });
    session
}

#[test]
fn a_recorded_run_is_played_searched_and_left() {
    let rig = Rig::as_caller();
    let session = recorded(&rig);
    let run_dir = session.run_dir.clone();
    session.down();
    let terminal = open(&rig, &run_dir, "--speed 100");
    // It plays to the end and stands still there.
    let (_, events) = wait_for_position(&terminal, "the end", |at, of| at == of && of > 0);
    terminal.wait_to_show("‖");
    terminal.wait_to_show("exited");
    // Before anything has happened no node is known.
    terminal.enter(":seek start");
    wait_for_position(&terminal, "the start", |at, _| at == 0);
    terminal.wait_for("no node", |screen| !screen.contains("exited") && !screen.contains("ready"));
    for step in 1..=3 {
        terminal.type_text("]");
        wait_for_position(&terminal, "a step", |at, _| at == step);
    }
    terminal.type_text("[");
    wait_for_position(&terminal, "a step back", |at, _| at == 2);
    terminal.enter(&format!(":seek event {}", events - 1));
    wait_for_position(&terminal, "the last event but one", |at, _| at == events - 1);
    terminal.enter(":seek round 99");
    terminal.wait_to_show("round");
    terminal.enter(&format!(":seek event {}", events + 1));
    terminal.wait_to_show("are recorded");
    // Nothing in it can be changed.
    terminal.enter(":kill bs1");
    terminal.wait_to_show("nothing in it can be changed");
    // Its logs are there, and the keys of a replay in the help.
    terminal.enter(":logs");
    terminal.wait_to_show("INFO");
    terminal.type_text("?");
    terminal.wait_to_show("In a replay");
    terminal.key("Escape");
    leave(&terminal);
}

#[test]
fn a_run_is_followed_while_it_is_written_and_ends_where_it_was_cut_off() {
    let rig = Rig::as_caller();
    let session = recorded(&rig);
    let terminal = open(&rig, &session.run_dir, "--from end");
    terminal.wait_to_show("recording");
    let (_, before) = wait_for_position(&terminal, "a position", |at, _| at > 0);
    wait_for_position(&terminal, "more events", |at, of| of > before && at > before);
    terminal.wait_to_show("paused");
    session.kill();
    terminal.wait_to_show("cut off");
    wait_for_position(&terminal, "the last event", |at, of| at == of);
    leave(&terminal);
}

#[test]
fn what_cannot_be_replayed_is_refused_before_the_screen_opens() {
    let rig = Rig::as_caller();
    rig.run(["replay", "nothing-of-the-kind"]).code(1).says("no run in runs");
    rig.run(["replay", "latest", "--speed", "1000"]).code(2).says("from 0.1 to 100");
    rig.run(["replay", "latest", "--from", "soon"]).code(2).says("is no moment");
}
