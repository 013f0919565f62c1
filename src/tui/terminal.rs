//! The terminal itself: its modes, set up and always taken back.

use std::{
    io::{BufWriter, Stdout, Write, stdout},
    os::fd::AsFd,
    sync::mpsc::SyncSender,
};

use crossterm::{
    cursor,
    event::{
        self, DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture, Event,
    },
    execute, queue,
    terminal::{
        BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
        disable_raw_mode, enable_raw_mode, size,
    },
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::{Terminal, backend::CrosstermBackend, buffer::Buffer, layout::Rect};

use super::{model::Msg, view::Hits};
use crate::error::{Error, Result};

/// The screen while it is ours. Dropping it, or a panic anywhere, gives the terminal back as it was.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    mouse: bool,
}

impl Screen {
    /// Takes the terminal, and the mouse unless it is left to the terminal.
    ///
    /// # Errors
    /// When standard output is no terminal.
    pub fn open(mouse: bool) -> Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        set_up(mouse).map_err(Error::Output)?;
        let backend = CrosstermBackend::new(BufWriter::with_capacity(64 * 1024, stdout()));
        let terminal = Terminal::new(backend).map_err(Error::Output)?;
        Ok(Self { terminal, mouse })
    }

    /// Columns and rows.
    pub fn size(&self) -> (u16, u16) {
        size().unwrap_or((80, 24))
    }

    /// Draws a frame: only cells that changed are written, and the terminal shows them at once.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub fn draw(&mut self, paint: impl FnOnce(Rect, &mut Buffer) -> Hits) -> std::io::Result<Hits> {
        let mut hits = Hits::default();
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(|frame| hits = paint(frame.area(), frame.buffer_mut()))?;
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)?;
        Ok(hits)
    }

    /// Forgets what the terminal shows: the next frame is drawn whole.
    pub fn forget(&mut self) {
        // A terminal that cannot be cleared shows it at the next frame.
        let _ = self.terminal.clear();
    }

    /// Sets the modes up again after somebody else had the terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn reopen(&mut self) -> Result<()> {
        set_up(self.mouse).map_err(Error::Output)?;
        self.forget();
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn set_up(mouse: bool) -> std::io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
    if mouse { execute!(stdout(), EnableMouseCapture) } else { Ok(()) }
}

fn give_back() {
    // Each step on its own: where one fails, the others still help.
    let _ =
        execute!(stdout(), DisableBracketedPaste, DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
    let _ = stdout().flush();
}

/// Sends keys, mouse and sizes until the terminal goes.
pub fn read_keys(messages: &SyncSender<Msg>) {
    loop {
        let message = match event::read() {
            Ok(Event::Key(key)) => Msg::Key(key),
            Ok(Event::Mouse(mouse)) => Msg::Mouse(mouse),
            Ok(Event::Paste(text)) => Msg::Paste(text),
            Ok(Event::Resize(columns, rows)) => Msg::Resize(columns, rows),
            Ok(_) => continue,
            Err(_) => Msg::TerminalGone,
        };
        let over = matches!(message, Msg::TerminalGone);
        if messages.send(message).is_err() || over {
            return;
        }
    }
}

/// Waits for the other side of the terminal to close, which reading alone may not show.
pub fn wait_for_hangup(messages: &SyncSender<Msg>) {
    let input = std::io::stdin();
    // No event is asked for: hang-up and error are always told (poll(2)).
    let mut events = [PollFd::new(input.as_fd(), PollFlags::empty())];
    while let Err(nix::errno::Errno::EINTR) = poll(&mut events, PollTimeout::NONE) {}
    let _ = messages.send(Msg::TerminalGone);
}
