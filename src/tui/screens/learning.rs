//! Learning: rounds of the main job, what their bodies cost on the air, and how old the twins are.
//!
//! ```text
//! rounds 12  the last took 2.41s ▁▂▃▅▇
//! accuracy 53.2% ▁▂▃▅▇  loss 1.234 ▇▅▃▂▁  synthetic, 2.1k samples/s
//! rejected 1  train 812ms/800ms  upload 206ms/157ms  broadcast 810ms/790ms  verify 10ms/12ms  block 2.5ms/90ms
//! twins 8  silent 1  moving 1  moved 3, 640ms each  age p50 500ms p99 900ms
//! ─ Transfers, measured beside predicted ──────────────────
//! ─ Base stations ────────┬─ Rounds, the newest first ─────
//! BS    TWINS  p50  LOSS ACC │ ROUND TOOK PREDICTED MISSED BY
//! ─ Twins ────────────────┤
//! TWIN   BS   AGE  MISSED  │
//! ```

use std::collections::VecDeque;

use dtwn_proto::event::Round;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Reply, Screen, Seen, Sheet, bs_names, move_selection, overview::transfers, section, twins};
use crate::tui::{
    data::clean,
    format,
    keys::{Action, Binding, bind},
    table::{self, Column, Marks},
    view::{Hits, Zone},
};

/// Rounds of a BS's accuracy that are drawn.
const CURVE: usize = 16;

const STATIONS: [Column; 13] = [
    Column::left("BS", 8, 0),
    Column::right("TWINS", 6, 0),
    Column::right("COMING", 6, 7),
    Column::right("CAME", 5, 8),
    Column::right("LEFT", 5, 8),
    Column::right("AGE p50", 8, 0),
    Column::right("AGE p99", 8, 5),
    Column::right("LOSS", 6, 1),
    Column::right("ACC", 5, 2),
    Column::left("CURVE", CURVE as u16, 6),
    Column::right("TRAINED", 8, 5),
    Column::right("ATTESTED", 8, 3),
    Column::left("FOUND BAD BY", 12, 4),
];

const ROUNDS: [Column; 5] = [
    Column::right("ROUND", 6, 0),
    Column::right("TOOK", 8, 0),
    Column::right("PREDICTED", 9, 1),
    Column::right("IN TIME", 7, 2),
    Column::left("MISSED BY", 24, 1),
];

/// The screen.
#[derive(Debug, Default)]
pub struct Learning {
    /// Rounds back from the newest.
    selected: usize,
    /// Whether all twins show in place of rounds and BSs, and the one that is selected.
    twins: Option<usize>,
}

const KEYS: &[Binding] =
    &[bind(&["enter"], Action::Detail, "twins", "show or hide the age and state of each twin")];

impl Screen for Learning {
    fn title(&self) -> &'static str {
        "Learning"
    }

    fn keys(&self) -> &'static [Binding] {
        KEYS
    }

    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let data = seen.data;
        let idle = data.rounds.is_empty() && !data.run.learning.is_on();
        if idle && data.run.transfers.is_empty() && data.run.twin_ages.is_empty() {
            let text =
                "no round has begun: learning is off, or has yet to start ([learning] in the topology)";
            buf.set_stringn(area.x, area.y, text, area.width as usize, seen.theme.dim());
            return;
        }
        let mut head = vec![headline(seen, area.width)];
        head.extend(quality(seen, area.width));
        head.extend(where_twins_are(seen));
        let used = (head.len() as u16).min(area.height);
        for (row, line) in head.iter().take(usize::from(used)).enumerate() {
            buf.set_line(area.x, area.y + row as u16, line, area.width);
        }
        let rest = Rect { y: area.y + used, height: area.height - used, ..area };
        if let Some(selected) = self.twins {
            return twins::draw(seen, rest, Some(selected), buf, hits);
        }
        let below = transfers(seen, rest, buf, hits);
        let left = Rect { width: (below.width / 2).max(33).min(below.width), ..below };
        let right =
            Rect { x: left.right() + 1, width: below.right().saturating_sub(left.right() + 1), ..below };
        let stations = Rect { height: (bs_names(seen).len() as u16 + 2).min(left.height), ..left };
        draw_stations(seen, stations, buf, hits);
        let free = Rect { y: stations.bottom(), height: left.height - stations.height, ..left };
        twins::draw(seen, free, None, buf, hits);
        self.rounds(seen, right.intersection(below), buf, hits);
    }

    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply> {
        match (action, &mut self.twins) {
            (Action::Detail, None) => self.twins = Some(0),
            (Action::Detail | Action::Back, _) => self.twins = None,
            (action, Some(selected)) => {
                move_selection(selected, seen.data.run.twins.len(), seen.height / 2, action);
            }
            (action, None) => {
                move_selection(&mut self.selected, seen.data.rounds.len(), seen.height / 2, action);
            }
        }
        None
    }

    fn click(&mut self, _seen: &Seen<'_>, zone: Zone) {
        match zone {
            Zone::Row(3, index) => self.selected = index,
            Zone::Row(4, index) if self.twins.is_some() => self.twins = Some(index),
            _ => {}
        }
    }

    fn sheet(&self, seen: &Seen<'_>) -> Option<Sheet> {
        if self.twins.is_some() {
            return Some(twins::sheet(seen));
        }
        let rows = seen.data.rounds.iter().rev().map(|round| {
            vec![
                round.round.to_string(),
                round.duration_ms.to_string(),
                predicted_ms(seen, round).map_or(String::new(), |ms| ms.to_string()),
                round.completed_by.join(" "),
                round.missed_by.join(" "),
            ]
        });
        Some((vec!["round", "duration_ms", "predicted_ms", "completed_by", "missed_by"], rows.collect()))
    }
}

impl Learning {
    fn rounds(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        if area.height < 2 {
            return;
        }
        let (rounds, theme) = (&seen.data.rounds, seen.theme);
        let inner = section("Rounds, the newest first", area, buf, theme);
        let selected = self.selected.min(rounds.len().saturating_sub(1));
        let marks = Marks { selected: Some(selected), list: 3, ..Marks::default() };
        table::draw(inner, buf, theme, hits, &ROUNDS, &marks, rounds.len(), |index| {
            let Some(round) = rounds.get(rounds.len() - 1 - index) else { return Vec::new() };
            let predicted = predicted_ms(seen, round);
            let slow = predicted.is_some_and(|predicted| round.duration_ms > predicted * 1.5);
            vec![
                (round.round.to_string(), theme.title()),
                (format::ms(round.duration_ms), if slow { theme.warning() } else { theme.text() }),
                (predicted.map_or("-".into(), format::ms), theme.dim()),
                (round.completed_by.len().to_string(), theme.text()),
                (clean(&round.missed_by.join(" ")), theme.warning()),
            ]
        });
    }
}

fn headline(seen: &Seen<'_>, width: u16) -> Line<'static> {
    let (rounds, theme) = (&seen.data.rounds, seen.theme);
    let mut spans = vec![Span::styled("rounds ", theme.dim()), Span::raw(seen.data.run.rounds.to_string())];
    if let Some(last) = rounds.back() {
        spans.push(Span::styled("  the last took ", theme.dim()));
        spans.push(Span::raw(format!("{}  ", format::ms(last.duration_ms))));
        let used: usize = spans.iter().map(Span::width).sum();
        let room = usize::from(width).saturating_sub(used).min(100);
        let tail = rounds.iter().skip(rounds.len().saturating_sub(room)).map(|round| round.duration_ms);
        spans.push(Span::styled(format::spark(tail, None, false), theme.curve()));
    }
    Line::from(spans)
}

/// How good the models are and what making them takes; nothing while no node learns.
fn quality(seen: &Seen<'_>, width: u16) -> Vec<Line<'static>> {
    let (learning, theme) = (&seen.data.run.learning, seen.theme);
    let Some(last) = learning.last() else { return Vec::new() };
    let room = usize::from(width).saturating_sub(60).clamp(4, 100) / 2;
    let tail = || learning.globals.iter().skip(learning.globals.len().saturating_sub(room));
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    let curve =
        |values: Vec<f64>, top| Span::styled(format::spark(values.into_iter(), top, false), theme.curve());
    let said = |value: Option<f64>, show: fn(f64) -> String| value.map_or("-".to_owned(), show);
    let accuracy: Vec<f64> = tail().filter_map(|model| finite(model.test_accuracy)).collect();
    let loss: Vec<f64> = tail().filter_map(|model| finite(model.test_loss)).collect();
    let first = vec![
        Span::styled("accuracy ", theme.dim()),
        Span::raw(format!("{} ", said(finite(last.test_accuracy), format::percent))),
        curve(accuracy, Some(1.0)),
        Span::styled("  loss ", theme.dim()),
        Span::raw(format!("{} ", said(finite(last.test_loss), |loss| format!("{loss:.3}")))),
        curve(loss, None),
        Span::styled(format!("  {}", clean(&last.dataset)), theme.dim()),
        Span::raw(
            learning
                .samples_per_s()
                .map_or(String::new(), |rate| format!(", {} samples/s", format::si(rate))),
        ),
    ];
    let mut words = Vec::new();
    for (what, count) in [
        ("rejected", learning.outcomes.rejected),
        ("late", learning.outcomes.late),
        ("overruns", learning.overruns),
    ] {
        if count > 0 {
            words.push(vec![Span::styled(format!("{what} {count}"), theme.warning())]);
        }
    }
    // Eq. 4 is part of training.
    for (phase, measured, predicted) in
        learning.phases().into_iter().filter(|(phase, ..)| *phase != "aggregate")
    {
        if let Some(ms) = measured {
            let predicted = predicted.map_or(String::new(), |ms| format!("/{}", format::ms(ms)));
            words.push(vec![
                Span::styled(format!("{phase} "), theme.dim()),
                Span::raw(format::ms(ms)),
                Span::styled(predicted, theme.dim()),
            ]);
        }
    }
    [Line::from(first)].into_iter().chain(wrapped(words, width)).collect()
}

/// Words in as few lines as hold them, two at most.
fn wrapped(words: Vec<Vec<Span<'static>>>, width: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::<Line<'_>>::new();
    for word in words {
        let long: usize = word.iter().map(Span::width).sum();
        match lines.last_mut() {
            Some(line) if line.width() + 2 + long <= usize::from(width) => {
                line.push_span("  ");
                line.extend(word);
            }
            _ => lines.push(Line::from(word)),
        }
    }
    lines.truncate(2);
    lines
}

/// Where twins stand in the whole network, and how old those of the worst BS are; nothing before a BS has told.
fn where_twins_are(seen: &Seen<'_>) -> Option<Line<'static>> {
    let (ages, learning, theme) = (&seen.data.run.twin_ages, &seen.data.run.learning, seen.theme);
    if ages.is_empty() {
        return None;
    }
    let worst = |of: fn(&crate::state::TwinAges) -> Option<f64>| {
        ages.values().filter_map(of).reduce(f64::max).map_or("-".into(), format::ms)
    };
    let held: u64 = ages.values().map(|(twins, ..)| u64::from(*twins)).sum();
    let arriving: u64 = learning.arriving.values().map(|twins| u64::from(*twins)).sum();
    let moved = match learning.move_ms() {
        Some(ms) => format!("{}, {} each", learning.moved, format::ms(ms)),
        None => "0".to_owned(),
    };
    let age = format!("p50 {} p99 {}", worst(|age| age.1), worst(|age| age.2));
    let figures =
        [("twins", held.to_string()), ("moving", arriving.to_string()), ("moved", moved), ("age", age)];
    let spans = figures
        .into_iter()
        .flat_map(|(what, figure)| [Span::styled(format!("{what} "), theme.dim()), Span::raw(figure + "  ")]);
    let mut spans: Vec<_> = spans.collect();
    // Behind the count of twins, where the line is never cut: of all this it alone asks for a look.
    let silent = seen.data.run.twins.values().filter(|(_, twin)| twin.age_ms.is_none()).count();
    if silent > 0 {
        spans.insert(2, Span::styled(format!("silent {silent}  "), theme.warning()));
    }
    Some(Line::from(spans))
}

fn draw_stations(seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
    if area.height < 2 {
        return;
    }
    let theme = seen.theme;
    let inner = section("Base stations: twins and models", area, buf, theme);
    let (ages, learning) = (&seen.data.run.twin_ages, &seen.data.run.learning);
    let stations = bs_names(seen);
    let marks = Marks { list: 2, ..Marks::default() };
    table::draw(inner, buf, theme, hits, &STATIONS, &marks, stations.len(), |index| {
        let bs = stations[index];
        let (age, local) = (ages.get(bs), learning.locals.get(bs));
        let figure = |text: Option<String>| (text.unwrap_or_else(|| "-".into()), theme.text());
        let bad = learning.latest_findings(bs).filter(|(_, finding)| finding.fault.is_some());
        let bad: Vec<_> = bad.map(|(verifier, _)| verifier).collect();
        let checked = learning.latest_findings(bs).count();
        let attested = (checked > 0).then(|| format!("{}/{checked}", checked - bad.len()));
        let moved = learning.moved_by_bs.get(bs).copied().unwrap_or_default();
        let twins = age.map(|age| age.0).or(local.map(|local| local.twins));
        vec![
            (bs.to_owned(), if bad.is_empty() { theme.text() } else { theme.bad() }),
            figure(twins.map(|twins| twins.to_string())),
            figure(learning.arriving.get(bs).map(ToString::to_string)),
            figure(age.map(|_| moved.0.to_string())),
            figure(age.map(|_| moved.1.to_string())),
            figure(age.and_then(|age| age.1).map(format::ms)),
            figure(age.and_then(|age| age.2).map(format::ms)),
            figure(local.map(|local| format!("{:.3}", local.loss))),
            figure(local.and_then(|local| local.held_out_accuracy).map(format::percent)),
            (curve(learning.local_accuracy.get(bs)), theme.curve()),
            figure(local.map(|local| format::ms(local.train_ms))),
            figure(attested),
            (clean(&bad.join(" ")), theme.bad()),
        ]
    });
}

/// How the accuracy of a BS's models went lately.
fn curve(history: Option<&VecDeque<f64>>) -> String {
    let Some(history) = history else { return String::new() };
    format::spark(history.iter().skip(history.len().saturating_sub(CURVE)).copied(), Some(1.0), false)
}

/// T of Eq. 17 for a round: as decided on, or for the association that was in force.
fn predicted_ms(seen: &Seen<'_>, round: &Round) -> Option<f64> {
    let decided = seen.data.run.association.rounds.iter().rev().find(|d| d.decision.round == round.round);
    let decided = decided.map(|decided| decided.decision.predicted_total_ms());
    decided.or(round.predicted_ms.map(|terms| terms.iter().sum()))
}
