//! What the terminal view costs: bytes a second to the terminal and CPU, beside bottom (`btm`) where it is installed.

mod common;

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use common::{
    Result,
    load::Load,
    machine, probe,
    report::{Output, Report, Row},
    session::{Dtwn, Session},
};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

/// Measures the terminal view in a pty at 80x24 and 200x50: a silent network, and topologies/paper.toml at work.
#[derive(Debug, Parser)]
#[command(name = "tui")]
struct Arguments {
    #[command(flatten)]
    output: Output,
}

/// Sizes that are measured, columns and rows; the targets hold at the first.
const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];
/// Targets at 80x24: bytes a second of a silent network's view and of a busy one's, and the share of a core.
const SILENT_BYTES_MAX: f64 = 300.0;
const BUSY_BYTES_MAX: f64 = 3000.0;
const CPU_MAX: f64 = 0.01;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(result) = probe::play(&words) {
        return result;
    }
    let arguments = Arguments::parse();
    let (warm, length) = match arguments.output.quick {
        true => (Duration::from_secs(2), Duration::from_secs(5)),
        false => (Duration::from_secs(10), Duration::from_secs(60)),
    };
    let mut report = Report::new("tui", arguments.output.quick);
    let dtwn = Dtwn::new()?;
    let topology = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(name);

    let session = dtwn.up_file(&topology("small.toml"))?;
    session.silence()?;
    report.add(rows(&dtwn, &session, "silent", SILENT_BYTES_MAX, "", warm, length)?);
    session.down()?;

    let session = dtwn.up_file(&topology("paper.toml"))?;
    for screen in ["overview", "links", "chain"] {
        report.add(rows(&dtwn, &session, "paper.toml", BUSY_BYTES_MAX, screen, warm, length)?);
    }
    session.down()?;

    if Command::new("btm").arg("--version").output().is_ok_and(|output| output.status.success()) {
        let mut rows = Vec::new();
        for (columns, lines) in SIZES {
            let cost = Cost::of(&Command::new("btm"), (columns, lines), "", warm, length)?;
            let mut row = Row::new("reference", Load::Idle, format!("btm at {columns}x{lines}"));
            row.measured = cost.words();
            rows.push(row);
        }
        report.add(rows);
    } else {
        eprintln!("btm is not installed: no reference in this run");
    }
    report.finish(&arguments.output)
}

/// The cost of a view of `session` at each size, on a screen by its name.
fn rows(
    dtwn: &Dtwn,
    session: &Session<'_>,
    what: &'static str,
    bytes_max: f64,
    screen: &str,
    warm: Duration,
    length: Duration,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (columns, lines) in SIZES {
        let attach = dtwn.command(["attach", &session.name]);
        let typed = if screen.is_empty() { String::new() } else { format!(":{screen}\r") };
        let cost = Cost::of(&attach, (columns, lines), &typed, warm, length)?;
        let shown = if screen.is_empty() { "overview" } else { screen };
        let mut row = Row::new(what, Load::Idle, format!("{shown} at {columns}x{lines}"));
        row.measured = cost.words();
        if (columns, lines) == SIZES[0] {
            row.reference = format!("≤ {:.1} kB/s, ≤ {:.0} % of a core", bytes_max / 1000.0, CPU_MAX * 100.0);
            row.met = Some(cost.bytes_per_s <= bytes_max && cost.cpu <= CPU_MAX);
        }
        row.figures = json!({ "bytes_per_s": cost.bytes_per_s, "cpu_share": cost.cpu });
        rows.push(row);
    }
    Ok(rows)
}

/// What a program in a terminal costs.
struct Cost {
    bytes_per_s: f64,
    /// Share of one core.
    cpu: f64,
}

impl Cost {
    fn words(&self) -> String {
        format!("{:.2} kB/s, {:.2} % of a core", self.bytes_per_s / 1000.0, self.cpu * 100.0)
    }

    /// Runs a program in a terminal of its own, types something, and measures it once it has warmed up.
    fn of(
        program: &Command,
        (columns, lines): (u16, u16),
        typed: &str,
        warm: Duration,
        length: Duration,
    ) -> Result<Self> {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None)?;
        // A program that held the other end of its own terminal would never see it go, and outlive this benchmark.
        fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        let mut running = Running(start(program, pty.slave)?);
        let mut keyboard = File::from(pty.master);
        let bytes = count(keyboard.try_clone()?);
        thread::sleep(warm / 2);
        keyboard.write_all(typed.as_bytes())?;
        thread::sleep(warm / 2);
        let pid = u64::from(running.0.id());
        let (begun, cpu, before) = (Instant::now(), machine::used_by(pid)?, bytes.load(Ordering::Relaxed));
        thread::sleep(length);
        if let Some(status) = running.0.try_wait()? {
            return Err(format!("the program in the terminal ended: {status}").into());
        }
        let seconds = begun.elapsed().as_secs_f64();
        let used = machine::used_by(pid)?.saturating_sub(cpu);
        let sent = bytes.load(Ordering::Relaxed) - before;
        Ok(Self { bytes_per_s: sent as f64 / seconds, cpu: used.as_secs_f64() / seconds })
    }
}

/// A process that does not outlive its measurement.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Starts a program whose only terminal is this one: it would find another one's size by /dev/tty.
fn start(program: &Command, terminal: OwnedFd) -> Result<Child> {
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(program.get_program()).args(program.get_args());
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
    Ok(command.spawn()?)
}

/// Reads what a terminal is sent, and counts it.
fn count(mut terminal: File) -> Arc<AtomicU64> {
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&bytes);
    thread::spawn(move || {
        let mut buffer = [0; 64 * 1024];
        while let Ok(got @ 1..) = terminal.read(&mut buffer) {
            counted.fetch_add(got as u64, Ordering::Relaxed);
        }
    });
    bytes
}
