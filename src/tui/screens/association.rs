//! Association: which BS holds how many twins, trains on how much of them and sends on which subchannels, and what that was
//! worth.
//!
//! ```text
//! policy maddpg  round 12  T predicted 2.19s measured 2.41s  over optimum 1.02  migrations 3
//! ─ In force ──────────────┬─ τ: share of each subchannel ─
//! BS    K  b   OVER ROUNDS │ bs1 ░░▒▒██
//! ─ Rounds ────────────────┴───────────────────────────────
//! ROUND TRAIN BCAST BLOCK PREDICTED MEASURED RATIO MOVED
//! ```

use dtwn_proto::event::AssociationDecision;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Reply, Screen, Seen, Sheet, bs_names, move_selection, section};
use crate::{
    state::DecidedRound,
    tui::{
        data::clean,
        format,
        keys::{Action, Binding, bind},
        table::{self, Cell, Column, Marks},
        view::{Hits, Zone},
    },
};

const KEYS: &[Binding] =
    &[bind(&["f", "end", "G"], Action::Follow, "newest", "show the decision in force again")];

const BSS: [Column; 5] = [
    Column::left("BS", 8, 0),
    Column::right("K", 5, 0),
    Column::right("b", 6, 0),
    Column::right("KEPT", 4, 2),
    Column::left("OVER ROUNDS", 12, 1),
];

const ROUNDS: [Column; 10] = [
    Column::right("ROUND", 6, 0),
    Column::right("SLOT", 7, 4),
    Column::right("TRAIN", 8, 1),
    Column::right("BCAST", 8, 1),
    Column::right("BLOCK", 8, 1),
    Column::right("PREDICTED", 9, 0),
    Column::right("MEASURED", 8, 0),
    Column::right("OPTIMUM", 7, 2),
    Column::right("MOVED", 5, 3),
    Column::right("DECIDED IN", 10, 5),
];

/// The screen.
#[derive(Debug, Default)]
pub struct Association {
    /// Rounds back from the newest.
    back: usize,
}

impl Screen for Association {
    fn title(&self) -> &'static str {
        "Association"
    }

    fn keys(&self) -> &'static [Binding] {
        KEYS
    }

    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let Some(shown) = self.shown(seen) else {
            let text = "no association was decided: the topology's own stays ([association] in the topology)";
            buf.set_stringn(area.x, area.y, text, area.width as usize, seen.theme.dim());
            return;
        };
        let head = summary(seen, &shown.decision);
        for (row, line) in head.iter().take(usize::from(area.height)).enumerate() {
            buf.set_line(area.x, area.y + row as u16, line, area.width);
        }
        let used = (head.len() as u16).min(area.height);
        let rest = Rect { y: area.y + used, height: area.height - used, ..area };
        let height = (shown.decision.k.len() as u16 + 2).min(rest.height * 2 / 3);
        let left = Rect { width: rest.width / 2, height, ..rest };
        let right = Rect { x: left.right() + 1, width: rest.right() - left.right() - 1, ..left };
        draw_stations(seen, &shown.decision, left, buf, hits);
        draw_shares(seen, &shown.decision, right.intersection(rest), buf);
        self.rounds(seen, Rect { y: rest.y + height, height: rest.height - height, ..rest }, buf, hits);
    }

    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply> {
        match action {
            Action::Follow | Action::Back => self.back = 0,
            action => {
                move_selection(
                    &mut self.back,
                    seen.data.run.association.rounds.len(),
                    seen.height / 2,
                    action,
                );
            }
        }
        None
    }

    fn click(&mut self, _seen: &Seen<'_>, zone: Zone) {
        if let Zone::Row(1, index) = zone {
            self.back = index;
        }
    }

    fn sheet(&self, seen: &Seen<'_>) -> Option<Sheet> {
        let header = [
            "round",
            "policy",
            "slot",
            "observed_slot",
            "train_ms",
            "broadcast_ms",
            "block_ms",
            "predicted_ms",
            "measured_ms",
            "ratio_to_optimal",
            "migrations",
            "decision_us",
            "k",
            "b",
            "tau",
        ];
        fn list<T: ToString>(values: &[T]) -> String {
            values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let rows = seen.data.run.association.rounds.iter().rev().map(|round| {
            let decision = &round.decision;
            let [train, broadcast, block] = decision.predicted_ms;
            vec![
                decision.round.to_string(),
                decision.policy.clone(),
                decision.slot.to_string(),
                decision.observed_slot.to_string(),
                train.to_string(),
                broadcast.to_string(),
                block.to_string(),
                decision.predicted_total_ms().to_string(),
                number(round.measured_ms),
                number(decision.ratio_to_optimal),
                decision.migrations.to_string(),
                decision.decision_us.to_string(),
                list(&decision.k),
                list(&decision.b),
                list(&decision.tau),
            ]
        });
        Some((header.to_vec(), rows.collect()))
    }
}

impl Association {
    /// The round whose decision shows.
    fn shown<'a>(&self, seen: &Seen<'a>) -> Option<&'a DecidedRound> {
        let rounds = &seen.data.run.association.rounds;
        rounds.get(rounds.len().checked_sub(1)?.saturating_sub(self.back))
    }

    fn rounds(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        if area.height < 2 {
            return;
        }
        let inner = section("Rounds, the newest first: the terms of Eq. 17", area, buf, seen.theme);
        let rounds = &seen.data.run.association.rounds;
        let selected = self.back.min(rounds.len().saturating_sub(1));
        let marks = Marks { selected: Some(selected), list: 1, ..Marks::default() };
        table::draw(inner, buf, seen.theme, hits, &ROUNDS, &marks, rounds.len(), |index| {
            rounds.get(rounds.len() - 1 - index).map_or(Vec::new(), |round| round_cells(seen, round))
        });
    }
}

fn summary(seen: &Seen<'_>, decision: &AssociationDecision) -> Vec<Line<'static>> {
    let (association, theme) = (&seen.data.run.association, seen.theme);
    let pair = |label: &str, value: String| {
        [Span::styled(format!("{label} "), theme.dim()), Span::raw(format!("{value}  "))]
    };
    let mut first = Vec::from(pair("policy", clean(&decision.policy)));
    first.extend(pair("round", decision.round.to_string()));
    first.extend(pair(
        "state of slot",
        format!("{}, in force from {}", decision.observed_slot, decision.slot),
    ));
    first.extend(pair("twins moved", association.migrations.to_string()));
    let mut second = Vec::from(pair(
        "mean T",
        match association.mean_ms() {
            Some((predicted, measured)) => format!(
                "predicted {} measured {} ({:.2}x)",
                format::ms(predicted),
                format::ms(measured),
                measured / predicted.max(f64::MIN_POSITIVE)
            ),
            None => "not measured yet".into(),
        },
    ));
    let ratio = |ratio: f64| format!("{ratio:.3} of the optimum");
    second.extend(pair("", association.ratio_to_optimal().map_or("optimum not computed".into(), ratio)));
    let mut lines = vec![Line::from(first), Line::from(second)];
    if !decision.kept_by.is_empty() {
        let late =
            format!("kept their last action, as none came in time: {}", clean(&decision.kept_by.join(" ")));
        lines.push(Line::styled(late, theme.warning()));
    }
    lines
}

fn draw_stations(
    seen: &Seen<'_>,
    decision: &AssociationDecision,
    area: Rect,
    buf: &mut Buffer,
    hits: &mut Hits,
) {
    let theme = seen.theme;
    let names = bs_names(seen);
    let inner = section("In force", area, buf, theme);
    let rounds = &seen.data.run.association.rounds;
    let most = rounds.iter().flat_map(|round| &round.decision.k).max().copied().unwrap_or(0);
    table::draw(inner, buf, theme, hits, &BSS, &Marks::default(), decision.k.len(), |index| -> Vec<Cell> {
        let name = names.get(index).map_or(format!("#{index}"), ToString::to_string);
        let over_rounds = rounds.iter().skip(rounds.len().saturating_sub(12));
        let over_rounds =
            over_rounds.map(|round| f64::from(round.decision.k.get(index).copied().unwrap_or(0)));
        let kept = decision.kept_by.contains(&name);
        vec![
            (name, theme.text()),
            (decision.k[index].to_string(), theme.title()),
            (decision.b.get(index).map_or("-".into(), |b| format!("{b:.3}")), theme.text()),
            (if kept { "kept" } else { "" }.into(), theme.warning()),
            (format::spark(over_rounds, Some(f64::from(most)), false), theme.curve()),
        ]
    });
}

/// The heat map of τ: BSs down, subchannels across.
fn draw_shares(seen: &Seen<'_>, decision: &AssociationDecision, area: Rect, buf: &mut Buffer) {
    const SHADES: [&str; 5] = [" ", "░", "▒", "▓", "█"];
    let stations = decision.k.len();
    if area.width < 12 || area.height < 2 || stations == 0 {
        return;
    }
    let theme = seen.theme;
    let subchannels = decision.tau.len() / stations;
    let inner = section(&format!("τ: BS by subchannel ({subchannels})"), area, buf, theme);
    let names = bs_names(seen);
    let room = usize::from(inner.width.saturating_sub(9 + 5));
    let cell = (room / subchannels.max(1)).clamp(1, 6);
    let header: String =
        (1..=subchannels).map(|number| format!("{:<cell$.cell$}", number.to_string())).collect();
    buf.set_stringn(inner.x + 9, inner.y, format!("{header} Σ"), room + 2, theme.title());
    let rows = usize::from(inner.height.saturating_sub(1));
    for (index, shares) in decision.tau.chunks(subchannels.max(1)).enumerate().take(rows) {
        let name = names.get(index).copied().unwrap_or_default();
        let mut line = Line::from(Span::raw(format!("{name:<8.8} ")));
        for share in shares.iter().take(room / cell) {
            let shade = SHADES[((share.clamp(0.0, 1.0) * 4.0).ceil() as usize).min(4)];
            line.push_span(Span::styled(shade.repeat(cell), theme.curve()));
        }
        line.push_span(Span::styled(format!(" {:.2}", shares.iter().sum::<f64>()), theme.dim()));
        buf.set_line(inner.x, inner.y + 1 + index as u16, &line, inner.width);
    }
}

fn round_cells(seen: &Seen<'_>, round: &DecidedRound) -> Vec<Cell> {
    let theme = seen.theme;
    let decision = &round.decision;
    let predicted = decision.predicted_total_ms();
    let [train, broadcast, block] = decision.predicted_ms;
    let off = |measured: f64| if measured > predicted * 1.5 { theme.warning() } else { theme.text() };
    vec![
        (decision.round.to_string(), theme.title()),
        (decision.slot.to_string(), theme.text()),
        (format::ms(train), theme.text()),
        (format::ms(broadcast), theme.text()),
        (format::ms(block), theme.text()),
        (format::ms(predicted), theme.text()),
        (round.measured_ms.map_or("-".into(), format::ms), round.measured_ms.map_or(theme.dim(), off)),
        (decision.ratio_to_optimal.map_or("-".into(), |ratio| format!("{ratio:.3}")), theme.text()),
        (decision.migrations.to_string(), theme.text()),
        (format!("{:.0} µs", decision.decision_us), theme.text()),
    ]
}
