//! `dtwn replay`: opens the terminal view on a recorded run.

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
    let mut player = Player::new(tape, speed, Box::new(move || recording::is_live(&dir)));
    if let Some(target) = from {
        player.start_at(target)?.map_err(usage)?;
    }
    tui::replay(&run_dir, player, tui::Options { read_only: true, fps: args.view.fps })
}
