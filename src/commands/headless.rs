//! Staying with a session without a screen: progress on standard error, the summary at the end, an exit code.

use std::{fs, io::IsTerminal, time::Duration};

use dtwn_model::units::Interval;
use dtwn_proto::{
    VERSION,
    control::{Hello, Request, Response},
    event::{EndReason, Event, Level, Verdict, What},
    frame::{self, FrameError},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{
    net::UnixStream,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::Instant,
};

use super::{print_line, up::Launched};
use crate::{
    cli::UpArgs,
    error::{Error, Result},
    exit,
    registry::Registry,
    session::{
        control::{read_frame, send},
        summary,
    },
    state::RunState,
};

/// Wall time between two lines of progress where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// The signals that end a run.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Starts to listen; from then on these signals do not end the process by themselves.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(Error::file("listen for", "signals"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.hangup.recv() => SignalKind::hangup().as_raw_value(),
        }
    }
}

/// Shows a session's progress until it ends.
///
/// # Errors
/// When the session dies without a word, a check fails, or output cannot be written.
pub async fn stay(mut launched: Launched, args: &UpArgs, mut signals: Signals) -> Result<u8> {
    let mut messages = read_on(subscribe(&launched).await?);
    let mut progress = Progress::new(&launched, args);
    let mut state = RunState::default();
    let mut stopping = None;
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(Ok(Response::Event(event))) => {
                    state.apply(&event);
                    progress.show(&event, &state);
                }
                Some(Ok(_)) => {}
                None | Some(Err(FrameError::Closed | FrameError::Io(_))) => break,
                Some(Err(source)) => return Err(Error::Conversation { name: launched.name, source }),
            },
            number = signals.next() => {
                if number == SignalKind::hangup().as_raw_value() {
                    // The terminal is gone; the run is not.
                    return Ok(exit::SIGNAL_BASE + number as u8);
                }
                if stopping.is_some() {
                    let _ = launched.process.start_kill();
                } else {
                    progress.say("stopping; once more to kill");
                    // Not waited for: a session that hangs must not keep the second signal from being heard.
                    tokio::spawn(ask_to_stop(launched.name.clone(), number));
                }
                stopping = Some(number);
            }
        }
    }
    progress.finish();
    let _ = launched.process.wait().await;
    conclude(&launched, args, &state, stopping)
}

async fn subscribe(launched: &Launched) -> Result<UnixStream> {
    let broken = |source| Error::Conversation { name: launched.name.clone(), source };
    let socket = Registry::open()?.socket(&launched.name);
    let mut stream = UnixStream::connect(&socket).await.map_err(|error| broken(error.into()))?;
    send(&mut stream, &Hello { version: VERSION.into(), read_only: true }).await.map_err(broken)?;
    read_frame::<Response>(&mut stream, frame::BODY_BYTES_MAX).await.map_err(broken)?;
    send(&mut stream, &Request::Subscribe { history: true }).await.map_err(broken)?;
    Ok(stream)
}

/// Reads on in a task of its own: a read that a signal interrupts half-way would lose its place in the stream.
fn read_on(mut stream: UnixStream) -> mpsc::Receiver<std::result::Result<Response, FrameError>> {
    let (sender, messages) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let message = read_frame::<Response>(&mut stream, frame::BODY_BYTES_MAX).await;
            let over = message.is_err();
            if sender.send(message).await.is_err() || over {
                return;
            }
        }
    });
    messages
}

async fn ask_to_stop(name: String, signal: i32) {
    let request = async {
        let socket = Registry::open()?.socket(&name);
        let broken = |source| Error::Conversation { name: name.clone(), source };
        let mut stream = UnixStream::connect(&socket).await.map_err(|error| broken(error.into()))?;
        let hello = Hello { version: VERSION.into(), read_only: false };
        send(&mut stream, &hello).await.map_err(broken)?;
        send(&mut stream, &Request::Stop { signal: Some(signal) }).await.map_err(broken)?;
        // Until it is answered, the connection has to stay.
        while read_frame::<Response>(&mut stream, frame::BODY_BYTES_MAX).await.is_ok() {}
        Ok::<_, Error>(())
    };
    if let Err(error) = request.await {
        eprintln!("the session could not be asked to stop: {error}");
    }
}

/// Prints the summary and finds the exit code.
fn conclude(launched: &Launched, args: &UpArgs, state: &RunState, stopping: Option<i32>) -> Result<u8> {
    let path = summary::path(&launched.run_dir);
    let Some(reason) = &state.ended else {
        let code = stopping.map_or(exit::FAILURE, |signal| exit::SIGNAL_BASE + signal as u8);
        return Err(Error::Check {
            what: format!("the session was killed; what it recorded is in {}", launched.run_dir.display()),
            code,
        });
    };
    let text = fs::read_to_string(&path).map_err(|source| Error::File { what: "write", path, source })?;
    if args.json {
        print_line(text.trim_end())?;
    }
    eprintln!(
        "{}: {:.1} s emulated, {} rounds, fidelity {}; recorded in {}",
        launched.name,
        state.now_ns as f64 / 1e9,
        state.rounds,
        state.fidelity.verdict,
        launched.run_dir.display()
    );
    for reason in &state.fidelity.reasons {
        eprintln!("  because {reason}");
    }
    if state.chain.conflict_count > 0 {
        eprintln!(
            "the chains of two nodes contradict each other; see `dtwn chain verify {}`",
            launched.run_dir.display()
        );
        return Ok(exit::CHECK_FAILED);
    }
    Ok(match reason {
        EndReason::NodeFailed(node) => {
            eprintln!("{node} failed; see logs/{node}.log there");
            exit::NODE_FAILED
        }
        EndReason::Signal(number) => exit::SIGNAL_BASE + *number as u8,
        _ if summary_names_recorder_failure(&text) => exit::OUTPUT,
        _ if args.strict_fidelity && state.fidelity.verdict != Verdict::Ok => exit::FIDELITY,
        EndReason::Finished | EndReason::Asked => exit::OK,
    })
}

fn summary_names_recorder_failure(text: &str) -> bool {
    let summary: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    summary.get("recorder_failure").is_some_and(|failure| !failure.is_null())
}

/// Progress: a bar on a terminal, lines otherwise.
struct Progress {
    bar: Option<ProgressBar>,
    next_line: Instant,
    duration_s: Option<f64>,
    bytes: u64,
}

impl Progress {
    fn new(launched: &Launched, args: &UpArgs) -> Self {
        eprintln!("{} is up, recording in {}", launched.name, launched.run_dir.display());
        eprintln!("watch it from elsewhere with `dtwn status {0}` or `dtwn events -f {0}`", launched.name);
        let duration_s =
            args.duration.as_ref().and_then(|text| text.parse::<Interval>().ok()).map(Interval::seconds);
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = match duration_s {
                Some(seconds) => ProgressBar::new((seconds * 10.0) as u64),
                None => ProgressBar::new_spinner(),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(4));
            let template = if duration_s.is_some() { "{bar:24} {msg}" } else { "{spinner} {msg}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, next_line: Instant::now(), duration_s, bytes: 0 }
    }

    fn show(&mut self, event: &Event, state: &RunState) {
        match &event.what {
            What::Notice { level, text } if *level >= Level::Warning => self.say(text),
            What::NodeExited { node, exit, expected: false, last_log } => {
                self.say(&format!("{node} ended unexpectedly: {exit}"));
                last_log.iter().for_each(|line| self.say(&format!("  {node} | {line}")));
            }
            What::Fidelity(fidelity) if fidelity.verdict > Verdict::Ok => {
                self.say(&format!("fidelity {}: {}", fidelity.verdict, fidelity.reasons.join("; ")));
            }
            What::Sample(_) => self.progress(state),
            _ => {}
        }
    }

    fn progress(&mut self, state: &RunState) {
        let bytes: u64 = state.links.values().map(|link| link.counters.bytes).sum();
        let carried = bytes.saturating_sub(self.bytes);
        let text = format!(
            "{:.1} s, round {}, carried {:.1} MB, fidelity {}",
            state.now_ns as f64 / 1e9,
            state.rounds,
            bytes as f64 / 1e6,
            state.fidelity.verdict
        );
        match &self.bar {
            Some(bar) => {
                if self.duration_s.is_some() {
                    bar.set_position((state.now_ns.max(0) / 100_000_000) as u64);
                }
                bar.set_message(text);
            }
            None if Instant::now() >= self.next_line => {
                self.next_line = Instant::now() + LINE_PERIOD;
                eprintln!("{text} (+{:.1} MB)", carried as f64 / 1e6);
                self.bytes = bytes;
            }
            None => {}
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
