//! The terminal view, driven in a real terminal: what a person sees, does, leaves and comes back to.

use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};

use crate::common::{Rig, Session, Terminal, wait_for};

/// A rig, a terminal, and a network opened in it by `dtwn up`.
fn open<'a>(rig: &'a Rig, columns: u16, rows: u16) -> (Terminal, Session<'a>) {
    let terminal = Terminal::open(columns, rows, rig.path());
    let name = rig.unique_name();
    let command = rig.up_command(&name, &["--duration", "600s"]);
    terminal.enter(&line(&command));
    terminal.wait_for("every node ready", |screen| {
        screen.matches(" ready ").count() >= 9 && !screen.contains("catching up")
    });
    (terminal, Session::find(rig, &name))
}

/// A command as a line for the shell. The session's lock and socket belong to whoever runs it.
fn line(command: &std::process::Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ")
}

/// The cells of the row that begins with a word.
fn row<'a>(screen: &'a str, first: &str) -> Option<Vec<&'a str>> {
    let cells = |line: &'a str| line.split_whitespace().collect::<Vec<_>>();
    screen.lines().map(cells).find(|cells| cells.first() == Some(&first))
}

/// Goes to a screen by its name, as a person who does not know its number would.
fn go(terminal: &Terminal, screen: &str) {
    terminal.type_text(":");
    terminal.enter(screen);
}

fn leave(terminal: &Terminal, how: &str) {
    terminal.type_text("q");
    terminal.wait_to_show("detach:");
    terminal.type_text(how);
}

#[test]
fn a_person_watches_disturbs_leaves_returns_and_stops() {
    let rig = Rig::as_caller();
    let (terminal, session) = open(&rig, 80, 24);
    for (key, shown) in [
        ("2", "links by load"),
        ("3", "bs1>mbs"),
        ("4", "Blocks, the newest first"),
        ("?", "Everywhere"),
        ("Escape", "Blocks, the newest first"),
        ("Tab", ""),
        ("1", "Last events"),
    ] {
        terminal.key(key);
        terminal.wait_to_show(shown);
    }
    for (screen, shown) in [("logs", "following"), ("faults", "Timeline, the newest first")] {
        go(&terminal, screen);
        terminal.wait_to_show(shown);
    }

    // Loss is ordered on the command line, told by the links' screen, and seen in what the link loses.
    let as_planned = session.link_settings("bs1>mbs");
    terminal.type_text(":");
    terminal.enter("link set bs1 mbs --loss 50% --rate '400 Mbit/s' --both");
    terminal.wait_to_show("done: link set bs1 mbs");
    go(&terminal, "links");
    terminal.wait_for("half of what bs1 sends lost", |screen| {
        row(screen, "bs1>mbs").is_some_and(|cells| {
            let at = cells.iter().position(|cell| *cell == "50%");
            let seen = at.and_then(|at| cells.get(at + 1)?.strip_suffix('%')?.parse::<f64>().ok());
            seen.is_some_and(|seen| seen > 0.0)
        })
    });
    assert_eq!(session.link("bs1>mbs")["loss"], 0.5);
    // What is in force can be undone where it is listed.
    go(&terminal, "faults");
    terminal.wait_to_show("In force (2)");
    terminal.key("l");
    terminal.key("u");
    terminal.wait_to_show("In force (1)");
    terminal.key("u");
    terminal.wait_to_show("nothing is disturbed");
    assert_eq!(session.link_settings("bs1>mbs"), as_planned);

    // A BS that nothing reaches misses its turns, which the chain's screen shows in its lane.
    terminal.type_text(":");
    terminal.enter("link set bs1 mbs --loss 100% --both");
    go(&terminal, "chain");
    let missed =
        |screen: &str| row(screen, "bs1").is_some_and(|cells| cells.iter().any(|cell| cell.contains('×')));
    terminal.wait_for("bs1 missing its turn", missed);
    terminal.type_text(":");
    terminal.enter("link reset bs1 mbs --both");
    terminal.wait_to_show("done: link reset bs1 mbs");
    assert_eq!(session.link_settings("bs1>mbs"), as_planned);

    leave(&terminal, "d");
    terminal.wait_to_show("goes on; `dtwn attach");
    terminal.wait_for_shell();
    terminal.is_as_before();
    assert!(session.is_alive());

    terminal.enter(&line(&rig.dtwn(["attach", &session.name])));
    // Keys that come before the rows choose none of them.
    terminal.wait_for("the nodes", |screen| row(screen, "ug4").is_some());
    terminal.key("Down");
    terminal.key("Down");
    terminal.type_text("K");
    terminal.wait_to_show("Kill bs2 (SIGKILL)?");
    terminal.type_text("y");
    // Any of the row's figures may be 1 before: what the session says comes first.
    wait_for("bs2's restart", || (session.node("bs2")["restarts"] == 1).then_some(()));
    let restarted = |screen: &str| {
        row(screen, "bs2").is_some_and(|cells| cells.contains(&"ready") && cells.contains(&"1"))
    };
    terminal.wait_for("bs2 back after one restart", restarted);

    leave(&terminal, "s");
    terminal.wait_to_show("is recorded in");
    terminal.wait_for_shell();
    wait_for("the session to end", || (!session.is_alive()).then_some(()));
    terminal.is_as_before();
    assert_eq!(session.summary()["ended"], "asked", "{}", session.summary());
}

#[test]
fn signals_end_the_view_and_not_the_run() {
    let rig = Rig::as_caller();
    let (terminal, session) = open(&rig, 80, 24);
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130)] {
        kill(Pid::from_raw(terminal.program()), signal).unwrap();
        terminal.wait_for_shell();
        terminal.enter("echo code $?");
        terminal.wait_to_show(&format!("code {code}"));
        terminal.is_as_before();
        terminal.enter(&line(&rig.dtwn(["attach", &session.name, "--read-only"])));
        terminal.wait_to_show("read-only");
    }
    terminal.type_text("K");
    leave(&terminal, "d");
    terminal.wait_for_shell();
    assert!(session.is_alive());
    let restarts = |node: &serde_json::Value| node["restarts"].as_u64().unwrap();
    assert_eq!(session.status()["nodes"].as_array().unwrap().iter().map(restarts).sum::<u64>(), 0);
    session.down();
}

#[test]
fn a_lost_line_ends_the_view_and_not_the_run() {
    let rig = Rig::as_caller();
    let (terminal, session) = open(&rig, 80, 24);
    let program = terminal.program();
    let other = Terminal::open(100, 30, rig.path());
    other.enter(&line(&rig.dtwn(["attach", &session.name])));
    other.wait_to_show("Last events");
    terminal.close();
    wait_for("the view to end with its terminal", || {
        let stat = std::fs::read_to_string(format!("/proc/{program}/stat"));
        stat.is_err().then_some(())
    });
    // Whoever else looks on goes on looking.
    go(&other, "links");
    other.wait_to_show("bs1>mbs");
    assert!(session.is_alive());
    session.down();
    other.wait_to_show("The run is over");
    other.type_text("q");
    other.wait_for_shell();
    other.is_as_before();
}

#[test]
fn any_size_will_do_and_the_mouse_points() {
    let rig = Rig::as_caller();
    let (terminal, session) = open(&rig, 80, 24);
    for (columns, rows) in [(40, 10), (12, 3), (200, 50), (1, 1), (81, 25), (10, 60), (100, 30)] {
        terminal.resize(columns, rows);
    }
    let screen = terminal.wait_to_show("3 Links");
    let column = screen.lines().next().unwrap().find("3 Links").unwrap() as u16;
    terminal.click(column, 0);
    let screen = terminal.wait_to_show("mbs>bs1");
    let line = screen.lines().position(|line| line.starts_with("mbs>bs1")).unwrap() as u16;
    terminal.click(2, line);
    terminal.key("Enter");
    terminal.wait_to_show("mbs>bs1 (downlink), mbs to bs1");
    leave(&terminal, "d");
    terminal.wait_for_shell();
    session.down();
}

#[test]
fn a_terminal_that_takes_nothing_holds_up_nobody() {
    let rig = Rig::as_caller();
    let session = rig.up(&[]);
    let size = Winsize { ws_row: 60, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let attach = rig.dtwn(["attach", &session.name, "--fps", "60"]);
    let mut command = rig.command("setsid");
    command.arg("--ctty").arg(attach.get_program()).args(attach.get_args());
    let input = || pty.slave.try_clone().unwrap();
    let mut view = command.stdin(input()).stdout(input()).stderr(input()).spawn().unwrap();
    let pid = view.id() as i32;
    wait_for("the view to wait for its terminal", || {
        let wait = std::fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
        let written = std::fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
        // write(2) is call 1 of x86-64 and 64 of the generic table.
        (wait.contains("write") || written.starts_with("1 ") || written.starts_with("64 ")).then_some(())
    });
    let samples = || session.events().iter().filter(|event| event["what"]["type"] == "sample").count();
    let before = samples();
    wait_for("the run to go on", || (samples() >= before + 3).then_some(()));
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let status = wait_for("the view to end", || view.try_wait().unwrap());
    assert_eq!(status.code(), Some(143));
    let modes = tcgetattr(&pty.slave).unwrap().local_flags;
    assert!(modes.contains(LocalFlags::ICANON | LocalFlags::ECHO), "{modes:?}");
    session.down();
}
