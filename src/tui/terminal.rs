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
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    buffer::Buffer,
    layout::{Position, Rect},
};

use super::{model::Msg, view::Hits};
use crate::error::{Error, Result};

/// The screen while it is ours. Dropping it, or a panic anywhere, gives the terminal back as it was.
pub struct Screen {
    /// None only while this is dropped.
    terminal: Option<Terminal<CrosstermBackend<BufWriter<Stdout>>>>,
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
        Ok(Self { terminal: Some(terminal), mouse })
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
        let Some(terminal) = &mut self.terminal else { return Ok(hits) };
        queue!(terminal.backend_mut(), BeginSynchronizedUpdate)?;
        terminal.draw(|frame| hits = paint(frame.area(), frame.buffer_mut()))?;
        execute!(terminal.backend_mut(), EndSynchronizedUpdate)?;
        Ok(hits)
    }

    /// Forgets what the terminal shows: the next frame is drawn whole.
    pub fn forget(&mut self) {
        let Some(terminal) = &mut self.terminal else { return };
        // Not `Terminal::clear`: that asks the terminal where its cursor is, and the answer goes to the thread that reads keys,
        // so that each resize would wait for two seconds and then clear nothing. A terminal that cannot be cleared shows it at the
        // next frame.
        let _ = terminal.size().and_then(|size| terminal.resize(Rect::from((Position::ORIGIN, size))));
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
        if let Some(mut terminal) = self.terminal.take()
            && terminal.show_cursor().is_err()
        {
            // The terminal has gone. Dropping this would complain to standard error, which most often went with it, and panic
            // when that fails.
            std::mem::forget(terminal);
        }
    }
}

fn set_up(mouse: bool) -> std::io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
    if mouse { execute!(stdout(), EnableMouseCapture) } else { Ok(()) }
}

/// Gives back what can be without writing to the terminal, which may take nothing.
pub fn abandon() {
    let _ = disable_raw_mode();
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

#[cfg(test)]
mod tests {
    use std::{io::Read, process::Command};

    use nix::{
        fcntl::{FcntlArg, FdFlag, fcntl},
        pty::{Winsize, openpty},
        sys::termios::{LocalFlags, tcgetattr},
    };

    use super::*;

    /// What the test below runs in a terminal of its own.
    #[test]
    #[ignore = "takes the terminal and panics: only for the test that looks on"]
    fn takes_the_terminal_and_panics() {
        let mut screen = Screen::open(true).unwrap();
        screen.draw(|_, _| Hits::default()).unwrap();
        // Whatever thread it is, the hook gives the terminal back.
        let _ = std::thread::spawn(|| panic!("all is lost")).join();
        std::process::exit(3);
    }

    /// What the test below runs in a terminal that then goes.
    #[test]
    #[ignore = "takes the terminal: only for the test that looks on"]
    fn takes_the_terminal_and_loses_it() {
        let mut screen = Screen::open(true).unwrap();
        screen.draw(|_, _| Hits::default()).unwrap();
        let (messages, inbox) = std::sync::mpsc::sync_channel(1);
        wait_for_hangup(&messages);
        assert!(matches!(inbox.recv(), Ok(Msg::TerminalGone)));
        drop(screen);
        std::process::exit(3);
    }

    /// What the test below runs in a terminal that answers no question.
    #[test]
    #[ignore = "takes the terminal: only for the test that looks on"]
    fn takes_the_terminal_and_draws_twice() {
        let mut screen = Screen::open(true).unwrap();
        let mut draw = || {
            let paint = |area: Rect, buffer: &mut Buffer| {
                buffer.set_string(area.x, area.y, "shown", ratatui::style::Style::new());
                Hits::default()
            };
            screen.draw(paint).unwrap();
            screen.forget();
        };
        draw();
        draw();
        std::process::exit(3);
    }

    #[test]
    fn what_is_forgotten_is_drawn_again_without_asking_the_terminal() {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let input = || pty.slave.try_clone().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tui::terminal::tests::takes_the_terminal_and_draws_twice"])
            .args(["--ignored", "--nocapture"])
            .stdin(input())
            .stdout(input())
            .stderr(input())
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
        let mut bytes = vec![0; 64 * 1024];
        let count = std::fs::File::from(pty.master).read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..count]);
        assert_eq!(text.matches("shown").count(), 2, "{text:?}");
        assert!(!text.contains("\u{1b}[6n"), "{text:?}");
    }

    #[test]
    fn a_terminal_that_goes_is_left_without_a_word() {
        let pty = openpty(None, None).unwrap();
        // A child that holds the other end would keep the terminal from going.
        fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        let input = || pty.slave.try_clone().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tui::terminal::tests::takes_the_terminal_and_loses_it"])
            .args(["--ignored", "--nocapture"])
            .stdin(input())
            .stdout(input())
            .stderr(input())
            .spawn()
            .unwrap();
        let mut master = std::fs::File::from(pty.master);
        let (mut bytes, mut shown) = ([0; 4096], String::new());
        while !shown.contains("\u{1b}[?2026l") {
            let count = master.read(&mut bytes).unwrap();
            shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        drop(master);
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_speaks() {
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let input = || pty.slave.try_clone().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tui::terminal::tests::takes_the_terminal_and_panics"])
            .args(["--ignored", "--nocapture"])
            .stdin(input())
            .stdout(input())
            .stderr(input())
            .spawn()
            .unwrap();
        let mut master = std::fs::File::from(pty.master);
        // Less than a terminal keeps for its reader, so that the child waits for nobody.
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(3));
        let after = tcgetattr(&pty.slave).unwrap();
        assert_eq!(after.local_flags, before.local_flags);
        assert!(after.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        let mut bytes = vec![0; 64 * 1024];
        let count = master.read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..count]);
        let place = |part: &str| text.rfind(part).unwrap_or_else(|| panic!("no {part:?} in {text:?}"));
        let (taken, left) = (place("\u{1b}[?1049h"), place("\u{1b}[?1049l"));
        assert!(taken < left && left < place("all is lost"), "{text:?}");
        assert!(place("\u{1b}[?1000h") < place("\u{1b}[?1000l"), "{text:?}");
        assert!(place("\u{1b}[?25l") < place("\u{1b}[?25h"), "{text:?}");
    }
}
