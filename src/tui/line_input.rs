//! A line that a person types.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::theme::Theme;

/// The longest line accepted.
const CHARS_MAX: usize = 500;

/// A line with a cursor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LineInput {
    text: Vec<char>,
    cursor: usize,
}

impl LineInput {
    /// A line that says `text` already, the cursor behind it.
    pub fn new(text: &str) -> Self {
        let mut line = Self::default();
        line.insert(text);
        line
    }

    /// What it says.
    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// What stands before the cursor.
    pub fn before_cursor(&self) -> String {
        self.text[..self.cursor].iter().collect()
    }

    /// Types or pastes.
    pub fn insert(&mut self, text: &str) {
        for c in text.chars().filter(|c| !c.is_control()) {
            if self.text.len() < CHARS_MAX {
                self.text.insert(self.cursor, c);
                self.cursor += 1;
            }
        }
    }

    /// Acts on a key by its name; whether the key was one that edits.
    pub fn key(&mut self, name: &str) -> bool {
        match name {
            "backspace" if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            "delete" if self.cursor < self.text.len() => {
                self.text.remove(self.cursor);
            }
            "left" => self.cursor = self.cursor.saturating_sub(1),
            "right" => self.cursor = (self.cursor + 1).min(self.text.len()),
            "home" | "ctrl-a" => self.cursor = 0,
            "end" | "ctrl-e" => self.cursor = self.text.len(),
            "ctrl-u" => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            "ctrl-w" => {
                let is_space = |c: &char| c.is_whitespace();
                while self.cursor > 0 && is_space(&self.text[self.cursor - 1]) {
                    self.cursor -= 1;
                    self.text.remove(self.cursor);
                }
                while self.cursor > 0 && !is_space(&self.text[self.cursor - 1]) {
                    self.cursor -= 1;
                    self.text.remove(self.cursor);
                }
            }
            "space" => self.insert(" "),
            name if name.chars().count() == 1 => self.insert(name),
            _ => return false,
        }
        true
    }

    /// Draws prompt and line, scrolled so that the cursor shows.
    pub fn draw(&self, prompt: &str, area: Rect, buf: &mut Buffer, theme: Theme) {
        if area.is_empty() {
            return;
        }
        let (x, _) = buf.set_stringn(area.x, area.y, prompt, area.width as usize, theme.title());
        let room = (area.right().saturating_sub(x)) as usize;
        if room == 0 {
            return;
        }
        let skip = (self.cursor + 1).saturating_sub(room);
        let shown: String = self.text.iter().skip(skip).collect();
        buf.set_stringn(x, area.y, &shown, room, Style::new());
        let at = x + (self.cursor - skip) as u16;
        if at < area.right() {
            buf.set_style(Rect::new(at, area.y, 1, 1), theme.selected());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_edited() {
        let mut line = LineInput::new("kill bs1");
        line.key("ctrl-w");
        line.insert("bs2");
        assert_eq!(line.text(), "kill bs2");
        line.key("home");
        line.key("delete");
        line.key("K");
        assert_eq!((line.text().as_str(), line.before_cursor().as_str()), ("Kill bs2", "K"));
        assert!(!line.key("f5"));
        line.insert("\u{1b}[31m\n");
        assert_eq!(line.text(), "K[31mill bs2");
    }
}
