//! The terminal view: a client of a session like any other, which may come and go.
//!
//! [`model`] holds all that shows, [`update`] is the only thing that changes it, [`view`] draws it; none of them waits for
//! anything. Around them, here, threads turn the outside into messages: events of the session, keys, signals, log files, orders.
//! A frame is drawn when something changed, and at most so many times a second.

mod command;
pub mod data;
mod export;
#[cfg(test)]
pub mod fixture;
pub mod format;
mod keys;
mod line_input;
mod logs;
mod model;
pub mod replay;
mod screens;
mod settings;
mod sites;
mod svg;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;
mod update;
mod view;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use dtwn_proto::{
    control::{Request, Response},
    event::Level,
};
use nix::sys::signal::{SigSet, Signal};

use self::{
    logs::LogFiles,
    model::{Effect, Feed, Leave, Model, Msg},
    settings::Settings,
    sites::Sites,
    terminal::Screen,
};
use crate::{
    client::Client,
    error::{Error, Result},
    exit,
};

/// Messages waiting for the model at most; whoever sends more waits.
const MESSAGES_MAX: usize = 4096;
/// Orders waiting for the session at most.
const ORDERS_MAX: usize = 64;
/// How often log files are looked at while they show.
const LOG_PERIOD: Duration = Duration::from_millis(300);

/// How long a signal waits for the last frame.
const LAST_FRAME: Duration = Duration::from_secs(2);
/// Frames a second at most, where nobody says.
const FPS: u32 = 4;

/// Looks whether the person's settings can be read, before anything is started for them.
///
/// # Errors
/// When they cannot.
pub fn check_settings() -> Result<()> {
    Settings::load().map(drop)
}

/// How the view behaves.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Refuse everything that would change the run.
    pub read_only: bool,
    /// Frames a second at most; `None` leaves it to the person's settings.
    pub fps: Option<u32>,
}

/// Shows a session until the person leaves or the terminal goes; the exit code.
///
/// # Errors
/// When there is no such session, or the terminal cannot be used.
pub fn run(name: &str, options: Options) -> Result<u8> {
    let client = Client::connect(Some(name), true)?;
    let run_dir = client.run_dir.clone();
    show(name, &run_dir, Source::Live(client), options)
}

/// Shows a recorded run until the person leaves or the terminal goes; the exit code.
///
/// # Errors
/// When the terminal cannot be used.
pub fn replay(run_dir: &Path, player: replay::Player, options: Options) -> Result<u8> {
    show(&replay::name_of(run_dir), run_dir, Source::Recorded(Box::new(player)), options)
}

/// Where events come from.
enum Source {
    /// A session.
    Live(Client),
    /// An event file.
    Recorded(Box<replay::Player>),
}

fn show(name: &str, run_dir: &Path, source: Source, options: Options) -> Result<u8> {
    block_signals()?;
    let (messages, inbox) = sync_channel(MESSAGES_MAX);
    let wants_logs = Arc::new(AtomicBool::new(false));
    let settings = Settings::load()?;
    let screen = Screen::open(!settings.no_mouse)?;
    let size = screen.size();
    let mut model = Model::new(name.to_owned(), run_dir.to_owned(), options.read_only, size, settings.theme);
    model.keys = settings.keys;
    model.sites = Sites::read(run_dir);

    // A recorded run takes no orders: its end of the queue is gone at once.
    let mut orders = sync_channel(1).0;
    let mut player = None;
    let is_live = matches!(source, Source::Live(_));
    match source {
        Source::Live(client) => {
            orders = start_orders(name.to_owned(), options.read_only, &messages);
            start(&messages, "events", move |messages| follow(client, messages));
        }
        Source::Recorded(recorded) => {
            let (sender, asked) = sync_channel(ORDERS_MAX);
            player = Some(sender);
            model.replay = Some(replay::Status::default());
            start(&messages, "player", move |messages| recorded.run(&asked, messages));
        }
    }
    start(&messages, "keys", terminal::read_keys);
    start(&messages, "hangup", terminal::wait_for_hangup);
    start(&messages, "signals", wait_for_signals);
    let (flag, dir) = (Arc::clone(&wants_logs), run_dir.to_owned());
    start(&messages, "logs", move |messages| read_logs(&dir, &flag, messages));

    let frame = frame_time(options.fps.or(settings.fps).unwrap_or(FPS));
    let leave = Loop { model, screen, orders, messages, wants_logs, player, frame }.run(&inbox)?;
    conclude(name, is_live.then_some(run_dir), leave)
}

/// Says what follows; `recorded` is where, for a run that was live.
fn conclude(name: &str, recorded: Option<&Path>, leave: Leave) -> Result<u8> {
    match leave {
        Leave::Detach => {
            eprintln!("{name} goes on; `dtwn attach {name}` shows it again, `dtwn down {name}` ends it");
            Ok(exit::OK)
        }
        Leave::Over => {
            if let Some(run_dir) = recorded {
                eprintln!("{name} is recorded in {}", run_dir.display());
            }
            Ok(exit::OK)
        }
        Leave::Signal(number) => Ok(exit::SIGNAL_BASE.wrapping_add(number as u8)),
        Leave::TerminalGone => Ok(exit::SIGNAL_BASE.wrapping_add(Signal::SIGHUP as u8)),
        Leave::Broken(what) => {
            Err(Error::Check { what: format!("the terminal view failed: {what}"), code: exit::FAILURE })
        }
    }
}

/// The loop that owns model and screen.
struct Loop {
    model: Model,
    screen: Screen,
    orders: SyncSender<(String, Vec<Request>)>,
    messages: SyncSender<Msg>,
    wants_logs: Arc<AtomicBool>,
    player: Option<SyncSender<replay::Order>>,
    frame: Duration,
}

impl Loop {
    fn run(mut self, inbox: &Receiver<Msg>) -> Result<Leave> {
        let mut next_frame = Instant::now();
        let mut dirty = true;
        loop {
            let message = if dirty {
                match inbox.recv_timeout(next_frame.saturating_duration_since(Instant::now())) {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return Ok(Leave::TerminalGone),
                }
            } else {
                // Nothing changed, so nothing is drawn and nothing is woken for.
                inbox.recv().ok()
            };
            let Some(message) = message else {
                if self.draw().is_err() {
                    return Ok(Leave::TerminalGone);
                }
                next_frame = Instant::now() + self.frame;
                dirty = false;
                continue;
            };
            // A key is answered at once: only what happens by itself has to wait for its frame.
            if matches!(message, Msg::Key(_) | Msg::Mouse(_) | Msg::Paste(_) | Msg::Resize(..)) {
                next_frame = Instant::now();
            }
            // Events of the past come by the thousand; drawing each would only flicker.
            dirty |= !matches!(message, Msg::Event(_)) || self.model.feed != Feed::History;
            for effect in update::update(&mut self.model, message) {
                self.carry_out(effect)?;
            }
            self.wants_logs.store(self.model.wants_logs(), Ordering::Relaxed);
            if let Some(leave) = self.model.leave.take() {
                return Ok(leave);
            }
        }
    }

    fn draw(&mut self) -> std::io::Result<()> {
        let model = &mut self.model;
        let hits = self.screen.draw(|area, buffer| view::view(model, area, buffer))?;
        self.model.hits = hits;
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::Order { label, requests } => {
                if self.orders.try_send((label, requests)).is_err() {
                    self.model.pending = self.model.pending.saturating_sub(1);
                    self.model.toast = Some((Level::Error, "the session does not answer".into()));
                }
            }
            Effect::Replay(order) => {
                if self.player.as_ref().is_none_or(|player| player.try_send(order).is_err()) {
                    self.model.toast = Some((Level::Warning, "the replay is busy".into()));
                }
            }
            Effect::Export(path) => {
                let written = export::write(&self.model, path);
                update::update(&mut self.model, Msg::Exported(written));
            }
            Effect::Redraw => self.screen.forget(),
            Effect::Reopen => self.screen.reopen()?,
        }
        Ok(())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Threads that wait for the outside end with the process; this one must not outlive the screen's modes.
        self.wants_logs.store(false, Ordering::Relaxed);
        let _ = self.messages.try_send(Msg::TerminalGone);
    }
}

fn frame_time(fps: u32) -> Duration {
    Duration::from_secs(1) / fps.clamp(1, 60)
}

/// Starts a thread that sends messages; its panic becomes one too.
fn start(
    messages: &SyncSender<Msg>,
    name: &'static str,
    work: impl FnOnce(&SyncSender<Msg>) + Send + 'static,
) {
    let messages = messages.clone();
    let guarded = move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&messages)));
        if result.is_err() {
            let _ = messages.send(Msg::Panicked(format!("the thread for {name} ended")));
        }
    };
    // Without threads there is no interface; the loop then ends by itself as its inbox closes.
    let _ = thread::Builder::new().name(name.into()).spawn(guarded);
}

fn follow(mut client: Client, messages: &SyncSender<Msg>) {
    let why = match client.send(&Request::Subscribe { history: true }) {
        Err(error) => Some(error.to_string()),
        Ok(()) => loop {
            let message = match client.receive() {
                Ok(Response::Event(event)) => Msg::Event(event),
                Ok(Response::Skipped(count)) => Msg::Skipped(count),
                Ok(Response::Live) => Msg::Live,
                Ok(_) => continue,
                Err(error) => break Some(error.to_string()),
            };
            if messages.send(message).is_err() {
                return;
            }
        },
    };
    let _ = messages.send(Msg::Closed(why));
}

/// Orders go over a connection of their own, so that neither they nor the events wait for each other.
fn start_orders(
    name: String,
    read_only: bool,
    messages: &SyncSender<Msg>,
) -> SyncSender<(String, Vec<Request>)> {
    let (orders, queue) = sync_channel::<(String, Vec<Request>)>(ORDERS_MAX);
    start(messages, "orders", move |messages| {
        let mut client = None;
        while let Ok((label, requests)) = queue.recv() {
            let result = order(&mut client, &name, read_only, &requests);
            if result.is_err() {
                client = None;
            }
            let result = result.map_err(|error| error.to_string());
            if messages.send(Msg::Ordered { label, result }).is_err() {
                return;
            }
        }
    });
    orders
}

fn order(client: &mut Option<Client>, name: &str, read_only: bool, requests: &[Request]) -> Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect(Some(name), read_only)?),
    };
    requests.iter().try_for_each(|request| client.order(request))
}

fn read_logs(run_dir: &Path, wanted: &AtomicBool, messages: &SyncSender<Msg>) {
    let mut files = LogFiles::new(run_dir);
    loop {
        thread::sleep(LOG_PERIOD);
        if !wanted.load(Ordering::Relaxed) {
            continue;
        }
        let lines = files.read();
        if !lines.is_empty() && messages.send(Msg::Logs(lines)).is_err() {
            return;
        }
    }
}

fn ending_signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGCONT].into_iter().collect()
}

/// Blocked before any thread starts, so that all inherit it and only [`wait_for_signals`] takes them.
fn block_signals() -> Result<()> {
    ending_signals().thread_block().map_err(|errno| Error::file("block", "signals")(errno.into()))
}

fn wait_for_signals(messages: &SyncSender<Msg>) {
    while let Ok(signal) = ending_signals().wait() {
        match signal {
            Signal::SIGCONT if messages.send(Msg::Continued).is_err() => return,
            Signal::SIGCONT => {}
            other => end_by(other, messages),
        }
    }
}

/// Has the loop end the view. A terminal that takes no output may hold the loop in the middle of a frame for ever: then this ends
/// the program in its place.
fn end_by(signal: Signal, messages: &SyncSender<Msg>) -> ! {
    let deadline = Instant::now() + LAST_FRAME;
    while messages.try_send(Msg::Signal(signal as i32)).is_err() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(deadline.saturating_duration_since(Instant::now()));
    terminal::abandon();
    std::process::exit(i32::from(exit::SIGNAL_BASE.wrapping_add(signal as u8)))
}
