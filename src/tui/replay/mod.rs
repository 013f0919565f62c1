//! Replay: the same view on a recorded run.
//!
//! [`tape`] knows where every event lies in the file and keeps the fold at some of them, so that any moment is near one that is
//! known. [`player`] turns emulated time into events for the model, on a thread of its own. What the person asks of it is an
//! [`Order`]; what it says is [`News`].

mod bar;
mod player;
mod tape;

use std::path::Path;

use dtwn_model::units::Interval;

pub use bar::bar;
pub use player::{Player, Status};
pub use tape::{SPACING, Tape};

use super::data::Data;

/// Emulated seconds that an arrow key moves.
const LEAP_S: f64 = 5.0;
/// How slow and how fast a replay can be, emulated seconds a wall second.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.1..=100.0;

/// A moment of a recorded run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Emulated nanoseconds since the epoch.
    Time(i64),
    /// The end of a round, by its number.
    Round(u64),
    /// When so many events have happened.
    Event(usize),
}

/// What can be asked of a replay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// Go on, or stand still.
    Toggle,
    /// Go on.
    Play,
    /// Stand still.
    Pause,
    /// Emulated seconds a wall second.
    Speed(f64),
    /// The next higher or lower of the usual speeds.
    Shift(i8),
    /// To a moment.
    Seek(Target),
    /// So many emulated seconds on, or back.
    Leap(f64),
    /// So many events on, or back.
    Step(i64),
    /// To the end of the next round, or of the one before.
    Round(i8),
}

impl Order {
    /// An arrow key's leap.
    pub const fn leap(forward: bool) -> Self {
        Self::Leap(if forward { LEAP_S } else { -LEAP_S })
    }
}

/// What a replay says.
#[derive(Debug)]
pub enum News {
    /// The run as it was at another moment.
    Data(Box<Data>),
    /// Where it stands.
    At(Status),
    /// An order that makes no sense, or a file that cannot be read.
    Refused(String),
}

/// Reads a speed: `4`, `0.5x`.
///
/// # Errors
/// In one sentence, what is wrong with it.
pub fn speed(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches(['x', '×']).parse::<f64>().ok();
    number
        .filter(|speed| SPEEDS.contains(speed))
        .ok_or_else(|| format!("`{text}` is no speed: it is a number from 0.1 to 100, for example 4"))
}

/// Reads a moment: `12s`, `round 3`, `event 120`.
///
/// # Errors
/// In one sentence, what is wrong with it.
pub fn target(text: &str) -> Result<Target, String> {
    let wrong =
        || format!("`{text}` is no moment: it is a time (12s), `round 3`, `event 120`, `start` or `end`");
    let words: Vec<&str> = text.split([' ', ':', '=']).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        ["start"] => Ok(Target::Event(0)),
        ["end"] => Ok(Target::Event(usize::MAX)),
        ["round", number] => number.parse().map(Target::Round).map_err(|_| wrong()),
        ["event", number] => number.parse().map(Target::Event).map_err(|_| wrong()),
        [] | ["round" | "event", ..] => Err(wrong()),
        _ => {
            // A bare number can only be meant as seconds.
            let seconds = text.trim().parse::<f64>().ok().map(|seconds| format!("{seconds} s"));
            let interval = seconds.as_deref().unwrap_or(text).parse::<Interval>().map_err(|_| wrong())?;
            i64::try_from(interval.duration().as_nanos()).map(Target::Time).map_err(|_| wrong())
        }
    }
}

/// A run's own name, for the title; the directory's where its events do not say.
pub fn name_of(run_dir: &Path) -> String {
    let name =
        run_dir.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    name.unwrap_or_else(|| run_dir.display().to_string())
}

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use ratatui::{buffer::Buffer, layout::Rect};

    use super::*;
    use crate::tui::{
        fixture,
        model::{Effect, Leave, Model, Msg},
        theme::Theme,
        update::update,
        view::view,
    };

    fn replaying(size: (u16, u16)) -> Model {
        let mut model = Model::new("small".into(), "/nowhere".into(), true, size, Theme::new(true));
        update(&mut model, Msg::Replay(News::Data(Box::new(fixture::data()))));
        let status = Status {
            playing: true,
            speed: 2.0,
            position: 12,
            events: 48,
            now_ns: 12_000_000_000,
            first_ns: 0,
            last_ns: 48_000_000_000,
            end: player::End::CutOff,
        };
        update(&mut model, Msg::Replay(News::At(status)));
        model
    }

    fn press(model: &mut Model, key: KeyCode) -> Vec<Effect> {
        update(model, Msg::Key(KeyEvent::new(key, KeyModifiers::NONE)))
    }

    fn draw(model: &mut Model) -> String {
        let mut buffer = Buffer::empty(Rect::new(0, 0, model.size.0, model.size.1));
        model.hits = view(model, buffer.area, &mut buffer);
        let row = |y| (0..model.size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..model.size.1).map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_status_line_says_where_it_stands_at_any_size() {
        let text = draw(&mut replaying((80, 24)));
        for part in ["REPLAY", "▶ 12.0 s / 48.0 s  2×  event 12/48", "━", "cut off", "play/pause"] {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
        assert!(!text.contains("kill"), "a recorded run offers what it refuses:\n{text}");
        for width in [0, 1, 20, 30, 47, 60, 200] {
            for height in [0, 1, 4, 5, 6, 24] {
                let mut model = replaying((width, height));
                for key in ['1', '2', '3', '4', '5', '6', '?', ':'] {
                    press(&mut model, KeyCode::Char(key));
                    draw(&mut model);
                }
            }
        }
    }

    #[test]
    fn keys_and_commands_go_to_the_replay_and_nothing_to_a_session() {
        let mut model = replaying((80, 24));
        let mut asked = |key| match press(&mut model, key).as_slice() {
            [Effect::Replay(order)] => Some(*order),
            [] => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(asked(KeyCode::Char(' ')), Some(Order::Toggle));
        assert_eq!(asked(KeyCode::Left), Some(Order::Leap(-5.0)));
        assert_eq!(asked(KeyCode::Char(']')), Some(Order::Step(1)));
        // On every screen, whatever it would do to a session that runs.
        for screen in '1'..='8' {
            asked(KeyCode::Char(screen));
            for key in ['K', 'p', 'R', 'P', 'H', 'd', 'e', 'u', 'y'] {
                assert_eq!(asked(KeyCode::Char(key)), None, "{key} on {screen}");
                asked(KeyCode::Esc);
            }
        }
        for (line, order) in [
            (":seek round 3", Some(Order::Seek(Target::Round(3)))),
            (":speed 0.5", Some(Order::Speed(0.5))),
            (":pause", Some(Order::Pause)),
            (":kill bs1", None),
            (":stop", None),
            (":seek", None),
        ] {
            line.chars().for_each(|c| assert_eq!(asked(KeyCode::Char(c)), None));
            assert_eq!(asked(KeyCode::Enter), order, "{line}");
        }
        press(&mut model, KeyCode::Char('q'));
        assert_eq!(model.leave, Some(Leave::Over));
    }

    #[test]
    fn moments_and_speeds_are_read() {
        assert_eq!(target("12s"), Ok(Target::Time(12_000_000_000)));
        assert_eq!(target("1.5"), Ok(Target::Time(1_500_000_000)));
        assert_eq!(target("250 ms"), Ok(Target::Time(250_000_000)));
        assert_eq!(target("round 3"), Ok(Target::Round(3)));
        assert_eq!(target("event:120"), Ok(Target::Event(120)));
        assert_eq!(target("end"), Ok(Target::Event(usize::MAX)));
        for wrong in ["", "round", "round x", "event -1", "soon", "-3s", "nan"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
        assert_eq!(speed("0.1"), Ok(0.1));
        assert_eq!(speed("100x"), Ok(100.0));
        for wrong in ["0", "0.09", "101", "fast", "NaN", "-1", ""] {
            assert!(speed(wrong).is_err(), "{wrong}");
        }
    }
}
