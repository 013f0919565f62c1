//! `dtwn replay`: opens the terminal view on a recorded run.

use std::time::{Duration, Instant};

use crate::{
    cli::ReplayArgs,
    commands::attach::need_terminal,
    error::{Error, Result},
    recording,
    tui::{
        self,
        replay::{self, Player, Tape},
    },
};

/// How often it is asked whether a run is still recorded.
const LIVE_PERIOD: Duration = Duration::from_secs(2);

/// Shows a recorded run.
///
/// # Errors
/// When there is no such run, its events cannot be read, or there is no terminal.
pub fn run(args: &ReplayArgs) -> Result<u8> {
    let usage = |what| Error::Usage { what, help: "see `dtwn replay --help`".into() };
    let speed = replay::speed(&args.speed).map_err(usage)?;
    let from = args.from.as_deref().map(replay::target).transpose().map_err(usage)?;
    let run_dir = recording::find(&args.recorded.run, &args.recorded.out)?;
    let tape = Tape::open(&run_dir, replay::SPACING)?;
    need_terminal("`dtwn report` and `dtwn events` show a recorded run without one")?;
    let dir = run_dir.clone();
    // Asking sessions costs both sides something; a run that ends says so in its events, and only one that is killed does not.
    let mut asked: Option<Instant> = None;
    let is_live = move || {
        if asked.is_some_and(|asked| asked.elapsed() < LIVE_PERIOD) {
            return true;
        }
        asked = Some(Instant::now());
        recording::is_live(&dir)
    };
    let player = Player::new(tape, speed, from, Box::new(is_live));
    tui::replay(&run_dir, player, tui::Options { read_only: true, fps: args.view.fps })
}
