//! `dtwn attach`: opens the terminal view of a running session.

use std::io::IsTerminal;

use crate::{
    cli::AttachArgs,
    error::{Error, Result},
    registry::Registry,
    tui,
};

/// Shows a session.
///
/// # Errors
/// When there is no such session, or no terminal.
pub fn run(args: &AttachArgs) -> Result<u8> {
    need_terminal("`dtwn status` and `dtwn events -f` show a session without one")?;
    let (name, _) = Registry::open()?.find(args.name.as_deref())?;
    tui::run(&name, tui::Options { read_only: args.read_only, fps: args.view.fps })
}

/// Refuses to open the view where there is no terminal to show it on.
///
/// # Errors
/// [`Error::Usage`], with `help`.
pub fn need_terminal(help: &str) -> Result<()> {
    match std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        true => Ok(()),
        false => Err(Error::Usage {
            what: "there is no terminal to show the network on".into(),
            help: help.into(),
        }),
    }
}
