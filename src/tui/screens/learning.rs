//! Learning: rounds of the main job, what their bodies cost on the air, and how old the twins are.
//!
//! ```text
//! rounds 12  last 2.41s  duration ▁▂▃▅▇
//! ─ Transfers, measured beside predicted ──────────────────
//! ─ Twins ────────────────┬─ Rounds, the newest first ─────
//! BS    TWINS  p50  p99   │ ROUND TOOK PREDICTED MISSED BY
//! ```

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Reply, Screen, Seen, Sheet, move_selection, overview::transfers, section};
use crate::tui::{
    data::clean,
    format,
    keys::{Action, Binding},
    table::{self, Column, Marks},
    view::{Hits, Zone},
};

const TWINS: [Column; 4] = [
    Column::left("BS", 8, 0),
    Column::right("TWINS", 6, 0),
    Column::right("AGE p50", 8, 0),
    Column::right("AGE p99", 8, 1),
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
}

impl Screen for Learning {
    fn title(&self) -> &'static str {
        "Learning"
    }

    fn keys(&self) -> &'static [Binding] {
        &[]
    }

    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let data = seen.data;
        if data.rounds.is_empty() && data.run.transfers.is_empty() && data.run.twin_ages.is_empty() {
            let text =
                "no round has begun: learning is off, or has yet to start ([learning] in the topology)";
            buf.set_stringn(area.x, area.y, text, area.width as usize, seen.theme.dim());
            return;
        }
        if !area.is_empty() {
            buf.set_line(area.x, area.y, &headline(seen, area.width), area.width);
        }
        let rest = Rect { y: area.y + area.height.min(1), height: area.height.saturating_sub(1), ..area };
        let below = transfers(seen, rest, buf, hits);
        let left = Rect { width: (below.width * 2 / 5).max(33).min(below.width), ..below };
        let right =
            Rect { x: left.right() + 1, width: below.right().saturating_sub(left.right() + 1), ..below };
        draw_twins(seen, left, buf, hits);
        self.rounds(seen, right.intersection(below), buf, hits);
    }

    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply> {
        move_selection(&mut self.selected, seen.data.rounds.len(), seen.height / 2, action);
        None
    }

    fn click(&mut self, _seen: &Seen<'_>, zone: Zone) {
        if let Zone::Row(3, index) = zone {
            self.selected = index;
        }
    }

    fn sheet(&self, seen: &Seen<'_>) -> Option<Sheet> {
        let rows = seen.data.rounds.iter().rev().map(|round| {
            vec![
                round.round.to_string(),
                round.duration_ms.to_string(),
                predicted_ms(seen, round.round).map_or(String::new(), |ms| ms.to_string()),
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
            let predicted = predicted_ms(seen, round.round);
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

fn draw_twins(seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
    if area.height < 2 {
        return;
    }
    let theme = seen.theme;
    let inner = section("Twins, and how old they are", area, buf, theme);
    let ages: Vec<_> = seen.data.run.twin_ages.iter().collect();
    let marks = Marks { list: 2, ..Marks::default() };
    table::draw(inner, buf, theme, hits, &TWINS, &marks, ages.len(), |index| {
        let (bs, (twins, p50_ms, p99_ms)) = ages[index];
        vec![
            (bs.clone(), theme.text()),
            (twins.to_string(), theme.text()),
            (format::ms(*p50_ms), theme.text()),
            (format::ms(*p99_ms), theme.text()),
        ]
    });
}

/// T of Eq. 17 for a round that somebody decided on.
fn predicted_ms(seen: &Seen<'_>, round: u64) -> Option<f64> {
    let decided = seen.data.run.association.rounds.iter().rev().find(|d| d.decision.round == round)?;
    Some(decided.decision.predicted_total_ms())
}
