//! The keys: one table that is searched when a key is pressed and printed in the footer and the help.

use std::collections::{BTreeMap, BTreeSet};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{replay::Order, screens};

/// What a key asks for. Screens answer to those that concern them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// Ask how to leave.
    Quit,
    /// Show all keys.
    Help,
    /// Go to the next screen.
    NextScreen,
    /// Go to the screen before.
    PreviousScreen,
    /// Go to a screen by its number, from 0.
    Screen(usize),
    /// Type a filter (in the logs: a search).
    Filter,
    /// Type a command.
    Command,
    /// Hold the picture still, or let it go.
    Freeze,
    /// Draw everything anew.
    Redraw,
    /// Leave a detail or clear the filter.
    Back,
    /// One up.
    Up,
    /// One down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the first.
    Top,
    /// To the last.
    Bottom,
    /// To the left, or the list before.
    Left,
    /// To the right, or the next list.
    Right,
    /// Open or close the detail of what is selected.
    Detail,
    /// Sort by the next column.
    Sort,
    /// Turn the order around.
    Reverse,
    /// Edit the selected link.
    Edit,
    /// Take the selected link down, or up again.
    Toggle,
    /// Kill the selected node.
    Kill,
    /// Pause the selected node, or let it go on.
    Pause,
    /// Restart the selected node.
    Restart,
    /// Begin a command that disturbs a link of the selected node.
    Disturb,
    /// Cut the selected node off.
    Partition,
    /// Lift all partitions.
    Heal,
    /// Put the selected fault right.
    Undo,
    /// Stay at the end.
    Follow,
    /// Break long lines.
    Wrap,
    /// Show only graver lines.
    Level,
    /// Which node's lines.
    Source,
    /// The next match.
    NextMatch,
    /// The match before.
    PreviousMatch,
    /// The next error.
    NextError,
    /// Type what lines must contain.
    Only,
    /// What the map is drawn with.
    Markers,
    /// What colours mean on the map.
    Colouring,
    /// Nearer.
    ZoomIn,
    /// Farther.
    ZoomOut,
    /// Something of a replay.
    Replay(Order),
}

impl Action {
    /// The name by which a configuration file means it: `next-screen`, `screen-1`, `replay-toggle`.
    pub fn name(self) -> String {
        if let Self::Screen(index) = self {
            return format!("screen-{}", index + 1);
        }
        // The variants' own names, in the form that settings have elsewhere.
        let mut name = String::new();
        for c in format!("{self:?}").replace("(-", "(back").replace(".0)", ")").chars() {
            match c {
                c if c.is_ascii_uppercase() || c.is_ascii_digit() => {
                    if !name.is_empty() && !name.ends_with('-') {
                        name.push('-');
                    }
                    name.push(c.to_ascii_lowercase());
                }
                c if c.is_ascii_alphanumeric() => name.push(c),
                _ if name.ends_with('-') || matches!(c, ')') => {}
                _ => name.push('-'),
            }
        }
        name
    }
}

impl Action {
    /// Whether it changes the run, which a recorded one does not allow.
    pub fn steers(self) -> bool {
        use Action::{Disturb, Edit, Heal, Kill, Partition, Pause, Restart, Toggle, Undo};
        matches!(self, Kill | Pause | Restart | Disturb | Partition | Heal | Undo | Edit | Toggle)
    }
}

/// A line of the key table.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// Names of keys, as [`name`] gives them.
    pub keys: &'static [&'static str],
    /// What they ask for.
    pub action: Action,
    /// One or two words for the footer; empty to leave it out there.
    pub hint: &'static str,
    /// A sentence for the help.
    pub help: &'static str,
}

/// Makes a [`Binding`].
pub const fn bind(
    keys: &'static [&'static str],
    action: Action,
    hint: &'static str,
    help: &'static str,
) -> Binding {
    Binding { keys, action, hint, help }
}

/// Keys of every screen; those of the screen itself win.
pub const GLOBAL: &[Binding] = &[
    bind(&["?", "f1"], Action::Help, "help", "show or hide this help"),
    bind(&["q", "ctrl-c"], Action::Quit, "quit", "leave: detach or stop the run"),
    bind(&[":"], Action::Command, "command", "type a command: kill bs1, link set bs1 mbs --loss 5% …"),
    bind(&["tab"], Action::NextScreen, "", "next screen; 1 to 9 choose one"),
    bind(&["backtab"], Action::PreviousScreen, "", "screen before"),
    bind(&["1"], Action::Screen(0), "", ""),
    bind(&["2"], Action::Screen(1), "", ""),
    bind(&["3"], Action::Screen(2), "", ""),
    bind(&["4"], Action::Screen(3), "", ""),
    bind(&["5"], Action::Screen(4), "", ""),
    bind(&["6"], Action::Screen(5), "", ""),
    bind(&["7"], Action::Screen(6), "", ""),
    bind(&["8"], Action::Screen(7), "", ""),
    bind(&["9"], Action::Screen(8), "", ""),
    bind(&["space"], Action::Freeze, "freeze", "hold the picture still; the run goes on"),
    bind(&["esc"], Action::Back, "", "close a detail, clear a filter"),
    bind(&["up", "k"], Action::Up, "", "one up"),
    bind(&["down", "j"], Action::Down, "", "one down"),
    bind(&["pageup", "ctrl-b"], Action::PageUp, "", "a page up"),
    bind(&["pagedown", "ctrl-f"], Action::PageDown, "", "a page down"),
    bind(&["home", "g"], Action::Top, "", "to the first"),
    bind(&["end", "G"], Action::Bottom, "", "to the last"),
    bind(&["left", "h"], Action::Left, "", "to the left, or the list before"),
    bind(&["right", "l"], Action::Right, "", "to the right, or the next list"),
    bind(&["ctrl-l"], Action::Redraw, "", "draw everything anew"),
];

/// Keys of screens that select a node.
pub const NODE: [Binding; 4] = [
    bind(&["K"], Action::Kill, "kill", "kill the selected node's process (SIGKILL)"),
    bind(&["p"], Action::Pause, "pause", "pause the selected node, or let it go on (SIGSTOP, SIGCONT)"),
    bind(&["R"], Action::Restart, "restart", "end the selected node's process cleanly and start it again"),
    bind(&["P"], Action::Partition, "cut off", "partition the selected node from all others"),
];

/// Keys of a replay; they win over all others.
pub const REPLAY: &[Binding] = &[
    bind(&["space"], Action::Replay(Order::Toggle), "play/pause", "play or pause; at the end, play again"),
    bind(&["left"], Action::Replay(Order::leap(false)), "−5 s", "5 emulated seconds back"),
    bind(&["right"], Action::Replay(Order::leap(true)), "+5 s", "5 emulated seconds on"),
    bind(&["["], Action::Replay(Order::Step(-1)), "step", "one event back, and pause"),
    bind(&["]"], Action::Replay(Order::Step(1)), "", "one event on, and pause"),
    bind(&["{"], Action::Replay(Order::Round(-1)), "", "to the end of the round before"),
    bind(&["}"], Action::Replay(Order::Round(1)), "round", "to the end of the next round"),
    bind(&["<", ","], Action::Replay(Order::Shift(-1)), "", "slower, down to 0.1"),
    bind(
        &[">", "."],
        Action::Replay(Order::Shift(1)),
        "faster",
        "faster, up to 100 emulated seconds a second",
    ),
];

/// Which keys mean what: the tables, and what a person has set in their place.
#[derive(Debug, Clone, Default)]
pub struct KeyMap {
    /// Actions by name, and their keys.
    chosen: BTreeMap<String, Vec<String>>,
}

impl KeyMap {
    /// The tables with other keys for some actions.
    ///
    /// # Errors
    /// In one sentence: an action or a key that is none, or a key with two meanings on one screen.
    pub fn new(chosen: BTreeMap<String, Vec<String>>) -> Result<Self, String> {
        let tables = || screens::all().into_iter().map(|screen| (screen.title(), screen.keys()));
        let bindings = || tables().flat_map(|(_, table)| table).chain(GLOBAL).chain(REPLAY);
        let known: BTreeSet<String> = bindings().map(|binding| binding.action.name()).collect();
        for (action, keys) in &chosen {
            if !known.contains(action) {
                let near = dtwn_model::suggest(action, known.iter().map(String::as_str));
                let known = || known.iter().cloned().collect::<Vec<_>>().join(", ");
                let hint = near.map_or_else(known, |near| format!("did you mean `{near}`?"));
                return Err(format!("keys.{action} is no action; {hint}"));
            }
            if keys.is_empty() {
                return Err(format!("keys.{action} has no key: name at least one"));
            }
            if let Some(bad) = keys.iter().find(|key| !is_key(key)) {
                return Err(format!(
                    "keys.{action}: `{bad}` is no key; a key is a character, ctrl-x, f1 to f12 or one of {}",
                    NAMED.join(", ")
                ));
            }
        }
        let map = Self { chosen };
        for (title, table) in tables() {
            let here: Vec<_> = table.iter().chain(GLOBAL).collect();
            for binding in &here {
                let mine = map.chosen.get(&binding.action.name()).into_iter().flatten();
                for key in mine {
                    let taken = |other: &&&Binding| {
                        other.action != binding.action && map.keys_of(other).contains(&key.as_str())
                    };
                    if let Some(other) = here.iter().find(taken) {
                        let (one, two) = (binding.action.name(), other.action.name());
                        return Err(format!("`{key}` would mean both {one} and {two} on {title}"));
                    }
                }
            }
        }
        Ok(map)
    }

    /// The keys of a line of a table.
    pub fn keys_of<'a>(&'a self, binding: &Binding) -> Vec<&'a str> {
        match self.chosen.get(&binding.action.name()) {
            Some(keys) => keys.iter().map(String::as_str).collect(),
            None => binding.keys.to_vec(),
        }
    }

    /// The action of a key in one table.
    pub fn find(&self, table: &[Binding], key: &str) -> Option<Action> {
        let means = |binding: &&Binding| match self.chosen.is_empty() {
            true => binding.keys.contains(&key),
            false => self.keys_of(binding).contains(&key),
        };
        table.iter().find(means).map(|binding| binding.action)
    }

    /// The action of a key on a screen.
    pub fn action(&self, screen: &[Binding], key: &str) -> Option<Action> {
        self.find(screen, key).or_else(|| self.find(GLOBAL, key))
    }
}

/// Keys with a name; all others are characters.
const NAMED: [&str; 15] = [
    "space",
    "enter",
    "esc",
    "tab",
    "backtab",
    "backspace",
    "delete",
    "up",
    "down",
    "left",
    "right",
    "home",
    "end",
    "pageup",
    "pagedown",
];

/// Whether [`name`] could give this.
fn is_key(text: &str) -> bool {
    let single = |text: &str| text.chars().count() == 1 && !text.contains(|c: char| c.is_whitespace());
    let function = |text: &str| text.parse::<u8>().is_ok_and(|number| (1..=12).contains(&number));
    single(text)
        || NAMED.contains(&text)
        || text.strip_prefix("ctrl-").is_some_and(|key| single(key) && key.to_lowercase() == key)
        || text.strip_prefix('f').is_some_and(function)
}

/// A key's name: the character itself, `ctrl-c`, `enter`, `f1` …; `None` for keys that nothing here uses.
pub fn name(event: &KeyEvent) -> Option<String> {
    let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
    if event.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::SUPER) {
        return None;
    }
    Some(match event.code {
        KeyCode::Char(' ') => "space".into(),
        KeyCode::Char(c) if ctrl => format!("ctrl-{}", c.to_ascii_lowercase()),
        KeyCode::Char(c) => c.to_string(),
        KeyCode::F(n) => format!("f{n}"),
        KeyCode::Enter => "enter".into(),
        KeyCode::Esc => "esc".into(),
        KeyCode::Tab => "tab".into(),
        KeyCode::BackTab => "backtab".into(),
        KeyCode::Backspace => "backspace".into(),
        KeyCode::Delete => "delete".into(),
        KeyCode::Up => "up".into(),
        KeyCode::Down => "down".into(),
        KeyCode::Left => "left".into(),
        KeyCode::Right => "right".into(),
        KeyCode::Home => "home".into(),
        KeyCode::End => "end".into(),
        KeyCode::PageUp => "pageup".into(),
        KeyCode::PageDown => "pagedown".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::screens;

    #[test]
    fn no_key_means_two_things_on_one_screen() {
        for screen in screens::all() {
            for table in [screen.keys(), GLOBAL, REPLAY] {
                let keys: Vec<_> = table.iter().flat_map(|binding| binding.keys).collect();
                for (index, key) in keys.iter().enumerate() {
                    assert!(!keys[..index].contains(key), "{key} twice on {}", screen.title());
                }
            }
        }
    }

    #[test]
    fn every_action_has_a_name_of_its_own() {
        let mut names = std::collections::BTreeMap::new();
        for binding in screens::all().iter().flat_map(|screen| screen.keys()).chain(GLOBAL).chain(REPLAY) {
            let before = names.insert(binding.action.name(), binding.action);
            assert!(before.is_none_or(|before| before == binding.action), "{:?}", binding.action);
        }
        let guide = include_str!("../../docs/terminal.md");
        for name in names.keys().filter(|name| !name.starts_with("screen-")) {
            assert!(guide.contains(&format!("`{name}`")), "docs/terminal.md does not name {name}");
        }
        assert_eq!(Action::NextScreen.name(), "next-screen");
        assert_eq!(Action::Screen(0).name(), "screen-1");
        assert_eq!(Action::Replay(Order::Toggle).name(), "replay-toggle");
        assert_eq!(Action::Replay(Order::Step(-1)).name(), "replay-step-back-1");
        assert_eq!(Action::Replay(Order::leap(true)).name(), "replay-leap-5");
    }

    #[test]
    fn keys_have_the_names_that_the_table_uses() {
        let event = |code, modifiers| name(&KeyEvent::new(code, modifiers));
        assert_eq!(event(KeyCode::Char('G'), KeyModifiers::SHIFT).as_deref(), Some("G"));
        assert_eq!(event(KeyCode::Char('c'), KeyModifiers::CONTROL).as_deref(), Some("ctrl-c"));
        assert_eq!(event(KeyCode::Char(' '), KeyModifiers::NONE).as_deref(), Some("space"));
        assert_eq!(event(KeyCode::Char('x'), KeyModifiers::ALT), None);
    }
}
