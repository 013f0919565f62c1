//! A terminal that a test types into and reads: tmux with a server of its own.

use std::process::{Command, Output};

use super::wait_for;

/// A shell in a terminal.
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// A shell in a terminal of so many columns and rows, in this directory.
    #[track_caller]
    pub fn open(columns: u16, rows: u16, dir: &std::path::Path) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let terminal = Self { socket: format!("dtwn-test-{}-{number}", std::process::id()) };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let mut command = Command::new("tmux");
        command.args(["-L", &terminal.socket, "-f", "/dev/null", "new-session", "-d"]);
        command.args(["-x", &columns, "-y", &rows, "env", "PS1=$ ", "sh"]).current_dir(dir);
        command.env("HOME", dir).env_remove("DTWN_LOG").env_remove("TMUX").env_remove("NO_COLOR");
        let output =
            command.output().expect("the tests of the terminal view need tmux: scripts/setup --test");
        assert!(output.status.success(), "tmux: {}", String::from_utf8_lossy(&output.stderr));
        terminal.wait_to_show("$");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux").args(["-L", &self.socket]).args(arguments).output().unwrap()
    }

    /// Types text.
    pub fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// Types text and Enter.
    pub fn enter(&self, text: &str) {
        self.type_text(text);
        self.key("Enter");
    }

    /// Presses a key by tmux's name for it.
    pub fn key(&self, name: &str) {
        self.tmux(&["send-keys", name]);
    }

    /// Presses the left button at a place, counted from 0.
    pub fn click(&self, column: u16, row: u16) {
        // What a terminal sends for a press and a release in SGR mode (xterm, 1006).
        for end in ['M', 'm'] {
            self.type_text(&format!("\u{1b}[<0;{};{}{end}", column + 1, row + 1));
        }
    }

    /// Makes it larger or smaller.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What it shows.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// A property of the pane, by tmux's name for it.
    pub fn property(&self, name: &str) -> String {
        let output = self.tmux(&["display-message", "-p", &format!("#{{{name}}}")]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Waits until it shows something.
    #[track_caller]
    pub fn wait_to_show(&self, text: &str) -> String {
        self.wait_for(&format!("{text:?}"), |screen| screen.contains(text))
    }

    /// Waits until what it shows fits.
    #[track_caller]
    pub fn wait_for(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let last = std::cell::RefCell::new(String::new());
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(&format!("the terminal to show {what}"), || {
                let screen = self.screen();
                last.replace(screen.clone());
                fits(&screen).then_some(screen)
            })
        }));
        found.unwrap_or_else(|_| panic!("the terminal never showed {what}, but:\n{}", last.borrow()))
    }

    /// The program that the shell runs.
    fn child(&self) -> Option<i32> {
        let shell = self.property("pane_pid");
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// The process of the program that the shell runs.
    #[track_caller]
    pub fn program(&self) -> i32 {
        wait_for("the shell to have a child", || self.child())
    }

    /// Waits until the shell's program has ended.
    #[track_caller]
    pub fn wait_for_shell(&self) {
        wait_for("the program in the terminal to end", || self.child().is_none().then_some(()));
    }

    /// Expects the terminal to be as a shell wants it: no alternate screen, no mouse, a cursor, and lines that are edited.
    #[track_caller]
    pub fn is_as_before(&self) {
        for (name, value) in [("alternate_on", "0"), ("mouse_any_flag", "0"), ("cursor_flag", "1")] {
            assert_eq!(self.property(name), value, "{name}:\n{}", self.screen());
        }
        self.enter("clear; stty -a | tr ' ' '\\n' | grep -cxE 'icanon|echo|isig|icrnl;?'");
        self.wait_for("that lines are edited and echoed", |screen| screen.lines().any(|line| line == "4"));
    }

    /// Takes the terminal away, as a lost line does.
    pub fn close(&self) {
        self.tmux(&["kill-server"]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.close();
    }
}
