//! Colours, or the lack of them.

use dtwn_proto::event::{Level, Verdict};
use ratatui::style::{Color, Modifier, Style};

use crate::state::Phase;

/// How things look. Without colour, weight and inversion carry what colour would.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    colour: bool,
}

/// Colours that tell neighbours apart, for the users of each BS.
const CELLS: [Color; 8] = [
    Color::Cyan,
    Color::Yellow,
    Color::Magenta,
    Color::Green,
    Color::LightBlue,
    Color::LightRed,
    Color::LightGreen,
    Color::LightMagenta,
];

impl Theme {
    /// With or without colours.
    pub fn new(colour: bool) -> Self {
        Self { colour }
    }

    /// What <https://no-color.org> asks for: any non-empty value turns colours off.
    pub fn from_environment() -> Self {
        Self::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    fn fg(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// Ordinary text.
    pub fn text(self) -> Style {
        Style::new()
    }

    /// Labels, rules and what matters less.
    pub fn dim(self) -> Style {
        if self.colour { self.fg(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    /// Titles and headers.
    pub fn title(self) -> Style {
        self.fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// The selected row or tab.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// As it should be.
    pub fn good(self) -> Style {
        self.fg(Color::Green)
    }

    /// Worth a look.
    pub fn warning(self) -> Style {
        self.fg(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// Wrong.
    pub fn bad(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// A search's matches.
    pub fn found(self) -> Style {
        match self.colour {
            true => Style::new().fg(Color::Black).bg(Color::Yellow),
            false => Style::new().add_modifier(Modifier::UNDERLINED | Modifier::BOLD),
        }
    }

    /// Sparklines and curves.
    pub fn curve(self) -> Style {
        self.fg(Color::Cyan)
    }

    /// A verdict on fidelity.
    pub fn verdict(self, verdict: Verdict) -> Style {
        match verdict {
            Verdict::Ok => self.good(),
            Verdict::Degraded => self.warning(),
            Verdict::Invalid => self.bad(),
        }
    }

    /// A notice.
    pub fn level(self, level: Level) -> Style {
        match level {
            Level::Info => self.text(),
            Level::Warning => self.fg(Color::Yellow),
            Level::Error => self.bad(),
        }
    }

    /// What a node does.
    pub fn phase(self, phase: Phase) -> Style {
        match phase {
            Phase::Ready => self.good(),
            Phase::Starting => self.fg(Color::Cyan),
            Phase::Paused => self.warning(),
            Phase::Exited => self.bad(),
        }
    }

    /// A share of load or loss from 0 to 1, where `full` is as bad as it gets.
    pub fn heat(self, share: f64, full: f64) -> Style {
        match share / full {
            heat if heat >= 0.9 => self.bad(),
            heat if heat >= 0.5 => self.fg(Color::Yellow),
            heat if heat > 0.0 => self.good(),
            _ => self.text(),
        }
    }

    /// The colour of a BS's cell, for a canvas.
    pub fn cell(self, index: usize) -> Color {
        if self.colour { CELLS[index % CELLS.len()] } else { Color::Reset }
    }

    /// A colour for a canvas, from a style above.
    pub fn ink(self, style: Style) -> Color {
        style.fg.unwrap_or(Color::Reset)
    }
}
