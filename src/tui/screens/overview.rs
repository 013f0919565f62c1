//! Overview: how the run is, in one look.
//!
//! ```text
//! 12.3 s emulated  24.6 s wall  dilation 2  seed 4  up in 93 ms  rounds 3
//! fidelity ok  late p99 45 us  session 3% CPU
//! air 12.3M bit/s ▁▂▃▅▇
//! chain height 123, a block every 250ms ▁▂▃▅▇  finality p50 2ms p99 31ms
//! round 3 took 2.41s, predicted 2.19s: ██████ train ▓▓ broadcast ░ block
//! ─ Nodes ─────────────────────────┬─ Transfers ──────────
//! NODE ROLE STATE PID CPU MEM …    │ KIND COUNT p50 …       (beside each other when wide)
//! ─ Notices ───────────────────────┴──────────────────────
//! ```

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Reply, Screen, Seen, Sheet, chain::intervals_ms, move_selection, section};
use crate::tui::{
    data::clean,
    format,
    keys::{Action, Binding, NODE},
    table::{self, Cell, Column, Marks},
    view::{Hits, Zone, level_mark},
};

/// From this width on, transfers stand beside the nodes.
const WIDE: u16 = 132;

const COLUMNS: [Column; 12] = [
    Column::left("NODE", 8, 0),
    Column::left("ROLE", 5, 3),
    Column::left("STATE", 8, 0),
    Column::right("PID", 7, 7),
    Column::right("CPU", 5, 1),
    Column::right("MEM", 6, 2),
    Column::right("RESTARTS", 8, 4),
    Column::right("QUEUE", 6, 3),
    Column::right("CHAIN", 6, 2),
    Column::right("TWINS", 5, 5),
    Column::right("AGE p50", 8, 6),
    Column::left("CPU TREND", 20, 8),
];

const TRANSFERS: [Column; 7] = [
    Column::left("TRANSFER", 11, 0),
    Column::right("COUNT", 6, 2),
    Column::right("BYTES", 7, 3),
    Column::right("p50", 8, 0),
    Column::right("PREDICTED", 9, 0),
    Column::right("p99", 8, 1),
    Column::right("PREDICTED", 9, 1),
];

/// The screen.
#[derive(Debug, Default)]
pub struct Overview {
    selected: usize,
}

impl Screen for Overview {
    fn title(&self) -> &'static str {
        "Overview"
    }

    fn keys(&self) -> &'static [Binding] {
        &NODE
    }

    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let lines = summary(seen, area.width);
        let head = (lines.len() as u16).min(area.height);
        for (index, line) in lines.iter().take(usize::from(head)).enumerate() {
            buf.set_line(area.x, area.y + index as u16, line, area.width);
        }
        let rest = Rect { y: area.y + head, height: area.height - head, ..area };
        if area.width >= WIDE {
            let half = Rect { width: area.width * 3 / 5, ..rest };
            let side = Rect { x: half.right() + 1, width: rest.right() - half.right() - 1, ..rest };
            self.nodes(seen, half, buf, hits);
            let below = transfers(seen, side, buf, hits);
            notices(seen, below, buf);
            return;
        }
        // Transfers and notices get what the nodes leave, but at least a third.
        let wanted = seen.data.run.nodes.len() as u16 + 2;
        let spare = if rest.height < 10 { 0 } else { rest.height / 3 };
        let height = wanted.min(rest.height - spare);
        self.nodes(seen, Rect { height, ..rest }, buf, hits);
        let below = Rect { y: rest.y + height, height: rest.height - height, ..rest };
        let below = transfers(seen, below, buf, hits);
        notices(seen, below, buf);
    }

    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply> {
        move_selection(&mut self.selected, seen.data.run.nodes.len(), seen.height / 2, action);
        None
    }

    fn click(&mut self, _seen: &Seen<'_>, zone: Zone) {
        if let Zone::Row(0, index) = zone {
            self.selected = index;
        }
    }

    fn node(&self, seen: &Seen<'_>) -> Option<String> {
        seen.data.run.nodes.get_index(self.selected).map(|(name, _)| name.clone())
    }

    fn sheet(&self, seen: &Seen<'_>) -> Option<Sheet> {
        let count = seen.data.run.nodes.len();
        let plain = |index| {
            node_cells(seen, index).into_iter().take(COLUMNS.len() - 1).map(|(text, _)| text).collect()
        };
        Some((
            COLUMNS[..COLUMNS.len() - 1].iter().map(|column| column.title).collect(),
            (0..count).map(plain).collect(),
        ))
    }
}

impl Overview {
    fn nodes(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let inner = section("Nodes", area, buf, seen.theme);
        let count = seen.data.run.nodes.len();
        let marks = Marks { selected: Some(self.selected.min(count.saturating_sub(1))), ..Marks::default() };
        table::draw(inner, buf, seen.theme, hits, &COLUMNS, &marks, count, |index| node_cells(seen, index));
    }
}

fn summary(seen: &Seen<'_>, width: u16) -> Vec<Line<'static>> {
    let (data, theme) = (seen.data, seen.theme);
    let run = &data.run;
    let mut first = Vec::new();
    let pair = |spans: &mut Vec<Span<'static>>, label: &str, value: String| {
        spans.extend([Span::styled(format!("{label} "), theme.dim()), Span::raw(format!("{value}  "))]);
    };
    pair(&mut first, "emulated", format::span(run.now_ns.max(0) as f64 / 1e9));
    pair(&mut first, "wall", format::span(data.wall_s()));
    if let Some(started) = &run.started {
        pair(&mut first, "dilation", started.dilation.to_string());
        pair(&mut first, "seed", started.seed.to_string());
    }
    if let Some(bringup_ms) = run.bringup_ms {
        pair(&mut first, "up in", format::ms(bringup_ms));
    }
    if run.rounds > 0 {
        pair(&mut first, "rounds", run.rounds.to_string());
    }
    let mut second = vec![
        Span::styled("fidelity ", theme.dim()),
        Span::styled(run.fidelity.verdict.to_string(), theme.verdict(run.fidelity.verdict)),
        Span::raw("  "),
    ];
    pair(&mut second, "late p99", format!("{:.0} µs", data.lateness_us.last()));
    pair(&mut second, "session", format!("{} CPU", format::percent(data.session_cpu.last())));
    for reason in &run.fidelity.reasons {
        second.push(Span::styled(format!("{reason}  "), theme.verdict(run.fidelity.verdict)));
    }
    if run.events_lost + data.skipped > 0 {
        let text = format!("{} events lost, {} not shown", run.events_lost, data.skipped);
        second.push(Span::styled(text, theme.warning()));
    }
    let rate = format!("{:>9}bit/s ", format::si(data.carried_bps.last()));
    let room = usize::from(width).saturating_sub(rate.len() + 4).min(120);
    let bars = format::spark(data.carried_bps.tail(room), None, false);
    let third = vec![Span::styled("air ", theme.dim()), Span::raw(rate), Span::styled(bars, theme.curve())];
    let mut lines = vec![Line::from(first), Line::from(second), Line::from(third)];
    lines.extend(chain_line(seen, width));
    lines.extend(round_line(seen));
    lines
}

/// The last round: what it took, and what Eq. 17 predicted for it, its terms stacked.
fn round_line(seen: &Seen<'_>) -> Option<Line<'static>> {
    /// Cells of the stack.
    const CELLS: f64 = 16.0;
    let theme = seen.theme;
    let round = seen.data.run.last_round.as_ref()?;
    let mut spans = vec![
        Span::styled("round ", theme.dim()),
        Span::raw(format!("{} took {}", round.round, format::ms(round.duration_ms))),
    ];
    let decided = seen.data.run.association.rounds.iter().rev().find(|d| d.decision.round == round.round);
    if let Some(decided) = decided {
        let total = decided.decision.predicted_total_ms();
        spans.push(Span::raw(format!(", predicted {}: ", format::ms(total))));
        let names =
            [("train", "█", theme.curve()), ("broadcast", "▓", theme.warning()), ("block", "░", theme.dim())];
        for ((name, shade, style), ms) in names.into_iter().zip(decided.decision.predicted_ms) {
            let share = if total > 0.0 { (ms / total).clamp(0.0, 1.0) } else { 0.0 };
            spans.push(Span::styled(shade.repeat((share * CELLS).round() as usize), style));
            spans.push(Span::styled(format!(" {name} "), theme.dim()));
        }
    }
    if !round.missed_by.is_empty() {
        let missed = format!(" missed by {}", clean(&round.missed_by.join(" ")));
        spans.push(Span::styled(missed, theme.warning()));
    }
    Some(Line::from(spans))
}

/// The chain in one line; none while no node reports one.
fn chain_line(seen: &Seen<'_>, width: u16) -> Option<Line<'static>> {
    let (chain, theme) = (&seen.data.run.chain, seen.theme);
    if !chain.is_on() {
        return None;
    }
    let ms = |value: Option<f64>| value.map_or("-".into(), format::ms);
    let intervals = intervals_ms(chain);
    let every = ms(intervals.last().copied());
    let finality =
        format!("  finality p50 {} p99 {}", ms(chain.finality_ms(0.5)), ms(chain.finality_ms(0.99)));
    let mut spans = vec![
        Span::styled("chain ", theme.dim()),
        Span::raw(format!("height {}, a block every {every} ", chain.height())),
    ];
    let used: usize = spans.iter().map(Span::width).sum::<usize>() + finality.len() + 2;
    let room = usize::from(width).saturating_sub(used).min(100);
    let tail = intervals.iter().skip(intervals.len().saturating_sub(room)).copied();
    spans.push(Span::styled(format::spark(tail, None, false), theme.curve()));
    spans.push(Span::raw(finality));
    if chain.conflict_count > 0 {
        spans.push(Span::styled("  FORK", theme.bad()));
    }
    Some(Line::from(spans))
}

fn node_cells(seen: &Seen<'_>, index: usize) -> Vec<Cell> {
    let theme = seen.theme;
    let Some((name, node)) = seen.data.run.nodes.get_index(index) else { return Vec::new() };
    let cpu = seen.data.nodes.get(name);
    let alive = node.pid.is_some();
    let figure = |text: String| (if alive { text } else { "-".into() }, theme.text());
    let restarts = if node.restarts > 0 { theme.warning() } else { theme.dim() };
    let queue = node.used.send_queue_bytes;
    let chain = seen.data.run.chain.lanes.get(name);
    let twins = seen.data.run.twin_ages.get(name);
    let of_twins = |text: Option<String>| (text.unwrap_or_else(|| "-".into()), theme.text());
    vec![
        (name.clone(), theme.text()),
        (node.info.role.clone(), theme.dim()),
        (node.phase.as_str().into(), theme.phase(node.phase)),
        (node.pid.map_or("-".into(), |pid| pid.to_string()), theme.dim()),
        figure(cpu.map_or("-".into(), |history| format!("{:.0}%", history.cpu.last() * 100.0))),
        figure(format::bytes(node.used.rss_bytes)),
        (node.restarts.to_string(), restarts),
        figure(format::bytes(queue)),
        (chain.map_or("-".into(), |lane| lane.height.to_string()), theme.text()),
        of_twins(twins.map(|(count, ..)| count.to_string())),
        of_twins(twins.and_then(|(_, p50_ms, _)| p50_ms.map(format::ms))),
        (cpu.map_or(String::new(), |h| format::spark(h.cpu.tail(20), Some(1.0), false)), theme.curve()),
    ]
}

/// Draws transfers, if there were any; what is left below.
pub(super) fn transfers(seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) -> Rect {
    let transfers = &seen.data.run.transfers;
    let height = (transfers.len() as u16 + 2).min(area.height);
    if transfers.is_empty() || height < 3 {
        return area;
    }
    let inner = section("Transfers, measured beside predicted", Rect { height, ..area }, buf, seen.theme);
    let rows: Vec<_> = transfers.iter().collect();
    let marks = Marks { list: 1, ..Marks::default() };
    table::draw(inner, buf, seen.theme, hits, &TRANSFERS, &marks, rows.len(), |index| {
        let (kind, stats) = rows[index];
        let (p50, p50_predicted) = stats.quantile_ms(0.5);
        let (p99, p99_predicted) = stats.quantile_ms(0.99);
        let off = |measured: f64, predicted: f64| match measured > predicted * 1.5 {
            true => seen.theme.warning(),
            false => seen.theme.text(),
        };
        vec![
            (clean(kind), seen.theme.text()),
            (stats.count.to_string(), seen.theme.text()),
            (format::bytes(stats.bytes), seen.theme.text()),
            (format::ms(p50), off(p50, p50_predicted)),
            (format::ms(p50_predicted), seen.theme.dim()),
            (format::ms(p99), off(p99, p99_predicted)),
            (format::ms(p99_predicted), seen.theme.dim()),
        ]
    });
    Rect { y: area.y + height, height: area.height - height, ..area }
}

fn notices(seen: &Seen<'_>, area: Rect, buf: &mut Buffer) {
    if area.height < 2 {
        return;
    }
    let inner = section("Last events", area, buf, seen.theme);
    let shown = seen.data.timeline.iter().rev().take(usize::from(inner.height));
    for (row, entry) in shown.enumerate() {
        let style = seen.theme.level(entry.level);
        let line = Line::from(vec![
            Span::styled(format!("{:>9} ", format::seconds(entry.at_ns)), seen.theme.dim()),
            Span::styled(format!("{} ", level_mark(entry.level)), style),
            Span::styled(format!("{:<9} ", entry.subject), seen.theme.text()),
            Span::styled(entry.text.clone(), style),
        ]);
        buf.set_line(inner.x, inner.y + row as u16, &line, inner.width);
    }
}
