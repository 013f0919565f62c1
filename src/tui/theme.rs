//! Colours, or the lack of them.

use dtwn_proto::event::{Level, Verdict};
use ratatui::style::{Color, Modifier, Style};

use crate::state::Phase;

/// The themes by name.
pub const NAMES: [&str; 5] = ["default", "light", "high-contrast", "colour-blind", "none"];

/// How things look. Without colour, weight and inversion carry what colour would.
#[derive(Debug, Clone, Copy)]
pub struct Theme(Option<&'static Palette>);

/// What colours mean.
#[derive(Debug)]
struct Palette {
    dim: Color,
    title: Color,
    good: Color,
    warning: Color,
    bad: Color,
    starting: Color,
    curve: Color,
    found: (Color, Color),
    /// Colours that tell neighbours apart, for the users of each BS.
    cells: [Color; 8],
}

/// For dark backgrounds, with the terminal's own sixteen colours.
const DEFAULT: Palette = Palette {
    dim: Color::DarkGray,
    title: Color::Cyan,
    good: Color::Green,
    warning: Color::Yellow,
    bad: Color::Red,
    starting: Color::Cyan,
    curve: Color::Cyan,
    found: (Color::Black, Color::Yellow),
    cells: [
        Color::Cyan,
        Color::Yellow,
        Color::Magenta,
        Color::Green,
        Color::LightBlue,
        Color::LightRed,
        Color::LightGreen,
        Color::LightMagenta,
    ],
};

/// For light backgrounds: dark colours of the 256, as a terminal's own yellow and cyan vanish on white.
const LIGHT: Palette = Palette {
    dim: Color::Indexed(243),
    title: Color::Indexed(25),
    good: Color::Indexed(28),
    warning: Color::Indexed(130),
    bad: Color::Indexed(160),
    starting: Color::Indexed(30),
    curve: Color::Indexed(25),
    found: (Color::Black, Color::Indexed(222)),
    cells: [
        Color::Indexed(25),
        Color::Indexed(130),
        Color::Indexed(90),
        Color::Indexed(28),
        Color::Indexed(30),
        Color::Indexed(160),
        Color::Indexed(58),
        Color::Indexed(126),
    ],
};

/// Nothing darker than it must be.
const HIGH_CONTRAST: Palette = Palette {
    dim: Color::Gray,
    title: Color::White,
    good: Color::LightGreen,
    warning: Color::LightYellow,
    bad: Color::LightRed,
    starting: Color::LightCyan,
    curve: Color::White,
    found: (Color::Black, Color::LightYellow),
    cells: [
        Color::LightCyan,
        Color::LightYellow,
        Color::LightMagenta,
        Color::LightGreen,
        Color::LightBlue,
        Color::LightRed,
        Color::White,
        Color::Cyan,
    ],
};

/// The colours of Okabe and Ito (2008), which people with any common colour blindness tell apart, as near as the 256 come.
const COLOUR_BLIND: Palette = Palette {
    dim: Color::Indexed(245),
    title: Color::Indexed(74),
    good: Color::Indexed(36),
    warning: Color::Indexed(178),
    bad: Color::Indexed(166),
    starting: Color::Indexed(74),
    curve: Color::Indexed(74),
    found: (Color::Black, Color::Indexed(178)),
    cells: [
        Color::Indexed(74),
        Color::Indexed(178),
        Color::Indexed(175),
        Color::Indexed(36),
        Color::Indexed(227),
        Color::Indexed(166),
        Color::Indexed(32),
        Color::Indexed(250),
    ],
};

impl Default for Theme {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Theme {
    /// The default theme, or none at all.
    pub fn new(colour: bool) -> Self {
        Self(colour.then_some(&DEFAULT))
    }

    /// A theme by its name.
    ///
    /// # Errors
    /// In one sentence, which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        Ok(Self(Some(match name {
            "default" => &DEFAULT,
            "light" => &LIGHT,
            "high-contrast" => &HIGH_CONTRAST,
            "colour-blind" | "color-blind" => &COLOUR_BLIND,
            "none" => return Ok(Self(None)),
            _ => {
                let near = dtwn_model::suggest(name, NAMES);
                let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                return Err(format!("there is no theme `{name}`, but {}{hint}", NAMES.join(", ")));
            }
        })))
    }

    fn fg(self, colour: impl Fn(&Palette) -> Color) -> Style {
        self.0.map_or(Style::new(), |palette| Style::new().fg(colour(palette)))
    }

    /// Ordinary text.
    pub fn text(self) -> Style {
        Style::new()
    }

    /// Labels, rules and what matters less.
    pub fn dim(self) -> Style {
        match self.0 {
            Some(palette) => Style::new().fg(palette.dim),
            None => Style::new().add_modifier(Modifier::DIM),
        }
    }

    /// Titles and headers.
    pub fn title(self) -> Style {
        self.fg(|palette| palette.title).add_modifier(Modifier::BOLD)
    }

    /// The selected row or tab.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// As it should be.
    pub fn good(self) -> Style {
        self.fg(|palette| palette.good)
    }

    /// Worth a look.
    pub fn warning(self) -> Style {
        self.fg(|palette| palette.warning).add_modifier(Modifier::BOLD)
    }

    /// Wrong.
    pub fn bad(self) -> Style {
        self.fg(|palette| palette.bad).add_modifier(Modifier::BOLD)
    }

    /// A search's matches.
    pub fn found(self) -> Style {
        match self.0 {
            Some(palette) => Style::new().fg(palette.found.0).bg(palette.found.1),
            None => Style::new().add_modifier(Modifier::UNDERLINED | Modifier::BOLD),
        }
    }

    /// Sparklines and curves.
    pub fn curve(self) -> Style {
        self.fg(|palette| palette.curve)
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
            Level::Warning => self.fg(|palette| palette.warning),
            Level::Error => self.bad(),
        }
    }

    /// What a node does.
    pub fn phase(self, phase: Phase) -> Style {
        match phase {
            Phase::Ready => self.good(),
            Phase::Starting => self.fg(|palette| palette.starting),
            Phase::Paused => self.warning(),
            Phase::Exited => self.bad(),
        }
    }

    /// A share of load or loss from 0 to 1, where `full` is as bad as it gets.
    pub fn heat(self, share: f64, full: f64) -> Style {
        match share / full {
            heat if heat >= 0.9 => self.bad(),
            heat if heat >= 0.5 => self.fg(|palette| palette.warning),
            heat if heat > 0.0 => self.good(),
            _ => self.text(),
        }
    }

    /// The colour of a BS's cell, for a canvas.
    pub fn cell(self, index: usize) -> Color {
        self.0.map_or(Color::Reset, |palette| palette.cells[index % palette.cells.len()])
    }

    /// A colour for a canvas, from a style above.
    pub fn ink(self, style: Style) -> Color {
        style.fg.unwrap_or(Color::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_has_a_name_and_none_has_no_colour() {
        for name in NAMES {
            let theme = Theme::named(name).unwrap();
            assert_eq!(theme.good().fg.is_some(), name != "none", "{name}");
            let told_apart = [theme.good(), theme.warning(), theme.bad()];
            if name != "none" {
                assert!(told_apart[0] != told_apart[1] && told_apart[1].fg != told_apart[2].fg, "{name}");
            }
        }
        assert!(Theme::named("solarized").unwrap_err().contains("high-contrast"));
    }
}
