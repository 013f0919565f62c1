//! Chain: how far every node has come, who led which block, and what did not become one.
//!
//! ```text
//! height 123  epoch 2  view 41  tx 412/s  finality p50 2.1ms p99 31.0ms  nullified 4 of 130 views
//! ─ Lanes ─────────────────────────────────────────────────
//! NODE  HEIGHT MISSED  COINS  LANE              ■ led  × missed  ─ has it
//! bs1      123      1  1.00M  ──■───■───×───■
//! ─ Blocks ────────────────────────────────────────────────
//! HEIGHT VIEW LEADER TXS SIZE FINAL CERTIFICATE
//! ```

use dtwn_proto::event::ChainBlock;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Reply, Screen, Seen, Sheet, bs_names, move_selection, section};
use crate::{
    state::ChainState,
    tui::{
        data::clean,
        format,
        keys::{Action, Binding, bind},
        table::{self, Cell, Column, Marks},
        view::{Hits, Zone},
    },
};

const KEYS: &[Binding] = &[
    bind(&["enter"], Action::Detail, "detail", "show or hide the selected block's certificate"),
    bind(&["e"], Action::NextError, "gap", "to the next older block behind a view without one"),
    bind(&["/"], Action::Filter, "filter", "show only blocks whose leader or digest contains a text"),
];

const LANES: [Column; 10] = [
    Column::left("NODE", 8, 0),
    Column::right("HEIGHT", 7, 0),
    Column::right("BEHIND", 6, 3),
    Column::right("EPOCH", 5, 6),
    Column::right("VIEW", 6, 4),
    Column::right("NULL", 5, 5),
    Column::right("MISSED", 6, 1),
    Column::right("POOL", 6, 2),
    Column::right("COINS", 6, 1),
    Column::left("TURN", 4, 2),
];

const BLOCKS: [Column; 10] = [
    Column::right("HEIGHT", 7, 0),
    Column::right("EPOCH", 5, 4),
    Column::right("VIEW", 6, 1),
    Column::left("LEADER", 8, 0),
    Column::right("TXS", 5, 0),
    Column::right("SIZE", 6, 1),
    Column::right("INTERVAL", 8, 3),
    Column::right("FINAL IN", 8, 2),
    Column::left("CERTIFICATE", 19, 2),
    Column::left("DIGEST", 16, 5),
];

/// Rows of the detail.
const DETAIL: u16 = 5;

/// The screen.
#[derive(Debug, Default)]
pub struct Chain {
    selected: usize,
    detail: bool,
    filter: String,
}

impl Screen for Chain {
    fn title(&self) -> &'static str {
        "Chain"
    }

    fn keys(&self) -> &'static [Binding] {
        KEYS
    }

    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let chain = &seen.data.run.chain;
        if !chain.is_on() {
            let text =
                "no node has reported a chain: it is off, or has yet to start ([chain] in the topology)";
            buf.set_stringn(area.x, area.y, text, area.width as usize, seen.theme.dim());
            return;
        }
        let head = summary(seen, area.width);
        for (row, line) in head.iter().take(usize::from(area.height)).enumerate() {
            buf.set_line(area.x, area.y + row as u16, line, area.width);
        }
        let used = (head.len() as u16).min(area.height);
        let rest = Rect { y: area.y + used, height: area.height - used, ..area };
        // Blocks get at least a third, so that a network of many BSs hides neither.
        let lanes = (chain.lanes.len() as u16 + 2).min(rest.height * 2 / 3);
        draw_lanes(seen, Rect { height: lanes, ..rest }, buf, hits);
        let below = Rect { y: rest.y + lanes, height: rest.height - lanes, ..rest };
        self.blocks(seen, below, buf, hits);
    }

    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply> {
        let blocks = self.shown(seen);
        match action {
            Action::Detail => self.detail = !self.detail,
            Action::NextError => {
                let gap = |block: &&ChainBlock| missing_before(&seen.data.run.chain, block) > 0;
                let next = blocks.iter().enumerate().skip(self.selected + 1).find(|(_, block)| gap(block));
                match next {
                    Some((index, _)) => self.selected = index,
                    None => return Some(Reply::Say("no older view without a block".into())),
                }
            }
            Action::Back if self.detail => self.detail = false,
            Action::Back => self.filter.clear(),
            action => {
                move_selection(&mut self.selected, blocks.len(), seen.height / 2, action);
            }
        }
        None
    }

    fn click(&mut self, _seen: &Seen<'_>, zone: Zone) {
        if let Zone::Row(1, index) = zone {
            self.detail = if index == self.selected { !self.detail } else { self.detail };
            self.selected = index;
        }
    }

    fn filter(&self) -> Option<&str> {
        Some(&self.filter)
    }

    fn set_filter(&mut self, text: &str) {
        self.filter = text.to_lowercase();
        self.selected = 0;
    }

    fn sheet(&self, seen: &Seen<'_>) -> Option<Sheet> {
        let header = [
            "height",
            "epoch",
            "view",
            "leader",
            "transactions",
            "bytes",
            "finalized_s",
            "finality_ms",
            "signers",
            "digest",
        ];
        let rows = self.shown(seen).into_iter().map(|block| {
            vec![
                block.height.to_string(),
                block.epoch.to_string(),
                block.view.to_string(),
                block.leader.clone(),
                block.transactions.to_string(),
                block.bytes.to_string(),
                format!("{:.6}", block.finalized_at_ns as f64 / 1e9),
                block.finality_ms.map_or(String::new(), |ms| ms.to_string()),
                signers(seen, block).join(" "),
                block.digest.clone(),
            ]
        });
        Some((header.to_vec(), rows.collect()))
    }
}

impl Chain {
    /// The blocks that pass the filter, the newest first.
    fn shown<'a>(&self, seen: &Seen<'a>) -> Vec<&'a ChainBlock> {
        let passes = |block: &&ChainBlock| {
            block.leader.to_lowercase().contains(&self.filter) || block.digest.contains(&self.filter)
        };
        seen.data.run.chain.blocks.values().rev().filter(passes).collect()
    }

    fn blocks(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        if area.height < 2 {
            return;
        }
        let blocks = self.shown(seen);
        let detail = if self.detail && area.height >= DETAIL + 4 { DETAIL } else { 0 };
        let title = match self.filter.is_empty() {
            true => "Blocks, the newest first".to_owned(),
            false => format!("Blocks /{}, {} of them", self.filter, blocks.len()),
        };
        let inner = section(&title, Rect { height: area.height - detail, ..area }, buf, seen.theme);
        let selected = self.selected.min(blocks.len().saturating_sub(1));
        let marks = Marks { selected: Some(selected), list: 1, ..Marks::default() };
        table::draw(inner, buf, seen.theme, hits, &BLOCKS, &marks, blocks.len(), |index| {
            block_cells(seen, blocks[index])
        });
        if blocks.is_empty() && inner.height > 1 {
            let text = if self.filter.is_empty() {
                "no block is final yet"
            } else {
                "no block matches; esc shows all"
            };
            buf.set_stringn(inner.x, inner.y + 1, text, inner.width as usize, seen.theme.dim());
        }
        if let (true, Some(block)) = (detail > 0, blocks.get(selected)) {
            draw_detail(seen, block, Rect { y: area.bottom() - detail, height: detail, ..area }, buf);
        }
    }
}

/// The chain in figures, and whatever must not be overlooked.
fn summary(seen: &Seen<'_>, width: u16) -> Vec<Line<'static>> {
    let (chain, theme) = (&seen.data.run.chain, seen.theme);
    let mut first = Vec::new();
    let pair = |spans: &mut Vec<Span<'static>>, label: &str, value: String| {
        spans.extend([Span::styled(format!("{label} "), theme.dim()), Span::raw(format!("{value}  "))]);
    };
    let ms = |value: Option<f64>| value.map_or("-".into(), format::ms);
    pair(&mut first, "height", chain.height().to_string());
    pair(&mut first, "finality p50", ms(chain.finality_ms(0.5)));
    pair(&mut first, "p99", ms(chain.finality_ms(0.99)));
    pair(
        &mut first,
        "tx",
        format!("{} ({}/s)", format::si(chain.transactions() as f64), format::si(chain.transactions_per_s())),
    );
    let mut second = Vec::new();
    pair(&mut second, "block p50", ms(chain.block_finality_ms(0.5)));
    let nullified = format!("{} of {} views  ", chain.nullified(), chain.views());
    second.push(Span::styled("nullified ", theme.dim()));
    second.push(Span::styled(nullified, if chain.nullified() > 0 { theme.warning() } else { theme.text() }));
    let intervals = intervals_ms(chain);
    pair(&mut second, "interval", intervals.last().map_or("-".into(), |interval| format::ms(*interval)));
    let used: usize = second.iter().map(Span::width).sum();
    let room = usize::from(width).saturating_sub(used).min(100);
    let tail = intervals.iter().skip(intervals.len().saturating_sub(room)).copied();
    second.push(Span::styled(format::spark(tail, None, false), theme.curve()));
    let mut lines = vec![Line::from(first), Line::from(second)];
    if chain.conflict_count > 0 {
        let last = chain
            .conflicts
            .back()
            .map_or(String::new(), |(height, text)| format!("; height {height}: {}", clean(text)));
        lines.push(Line::styled(format!("FORK: {} contradictions{last}", chain.conflict_count), theme.bad()));
    }
    if let Some(last) = chain.evidence.last() {
        let text = format!(
            "{} offences proved, the last: {} voted twice in epoch {} view {}",
            chain.evidence.len(),
            last.offender,
            last.epoch,
            last.view
        );
        lines.push(Line::styled(text, theme.bad()));
    }
    lines
}

/// Emulated milliseconds from each finalized block to the next, the oldest first.
pub fn intervals_ms(chain: &ChainState) -> Vec<f64> {
    let blocks: Vec<_> = chain.blocks.values().collect();
    let adjacent = blocks.windows(2).filter(|pair| pair[0].height + 1 == pair[1].height);
    adjacent
        .map(|pair| pair[1].finalized_at_ns.saturating_sub(pair[0].finalized_at_ns) as f64 / 1e6)
        .collect()
}

/// How many views before a block's own have no block in the chain, as far as the blocks at hand tell.
fn missing_before(chain: &ChainState, block: &ChainBlock) -> u64 {
    let parent = block.height.checked_sub(1).and_then(|height| chain.blocks.get(&height));
    // Views count from the beginning of each epoch.
    match parent.filter(|parent| parent.epoch == block.epoch) {
        Some(parent) => block.view.saturating_sub(parent.view).saturating_sub(1),
        None => 0,
    }
}

fn signers(seen: &Seen<'_>, block: &ChainBlock) -> Vec<String> {
    let names = bs_names(seen);
    let name =
        |signer: &u16| names.get(usize::from(*signer)).map_or(format!("#{signer}"), ToString::to_string);
    block.signers.iter().map(name).collect()
}

fn draw_lanes(seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
    let (chain, theme) = (&seen.data.run.chain, seen.theme);
    let title = format!(
        "Lanes: ■ led  × missed  ─ has it; epoch {} elects {}",
        chain.election.epoch,
        chain.election.producers.join(" ")
    );
    let inner = section(&title, area, buf, theme);
    // The table takes at most what leaves the lanes a third of the width.
    let kept = table::fit(&LANES, inner.width - inner.width / 3);
    let width: u16 = kept.iter().map(|index| LANES[*index].width + 1).sum();
    let columns: Vec<Column> = kept.iter().map(|index| LANES[*index]).collect();
    let left = Rect { width: width.min(inner.width), ..inner };
    table::draw(left, buf, theme, hits, &columns, &Marks::default(), chain.lanes.len(), |index| {
        let cells = lane_cells(seen, index);
        kept.iter().filter_map(|column| cells.get(*column).cloned()).collect()
    });
    let right = Rect { x: inner.x + left.width, width: inner.width - left.width, ..inner };
    let slots = slots(chain, usize::from(right.width));
    for (row, (name, lane)) in
        chain.lanes.iter().enumerate().take(usize::from(inner.height).saturating_sub(1))
    {
        let spans = slots.iter().map(|slot| match slot {
            Slot::Block { height, .. } if *height > lane.height => Span::raw(" "),
            Slot::Block { leader, fork: true, .. } if leader == name => Span::styled("■", theme.bad()),
            Slot::Block { leader, .. } if leader == name => Span::styled("■", theme.good()),
            Slot::Block { .. } => Span::styled("─", theme.dim()),
            Slot::Missed(Some(leader)) if leader == name => Span::styled("×", theme.warning()),
            Slot::Missed(_) => Span::styled("╌", theme.dim()),
        });
        buf.set_line(right.x, right.y + 1 + row as u16, &Line::from_iter(spans), right.width);
    }
}

/// A column of the lanes.
enum Slot {
    /// A block.
    Block { height: u64, leader: String, fork: bool },
    /// A view without one, and whose turn it was, where the schedule of its epoch is known.
    Missed(Option<String>),
}

/// The newest views, the oldest first, at most `count`.
fn slots(chain: &ChainState, count: usize) -> Vec<Slot> {
    let mut slots = Vec::new();
    for block in chain.blocks.values().rev() {
        let fork = chain.conflicts.iter().any(|(height, _)| *height == block.height);
        slots.push(Slot::Block { height: block.height, leader: block.leader.clone(), fork });
        let missing = missing_before(chain, block).min(count as u64);
        for step in 1..=missing {
            let view = block.view - step;
            let producers = &chain.election.producers;
            let known = chain.election.epoch == block.epoch && !producers.is_empty();
            slots.push(Slot::Missed(
                known.then(|| producers[(view % producers.len() as u64) as usize].clone()),
            ));
        }
        if slots.len() >= count {
            break;
        }
    }
    slots.truncate(count);
    slots.reverse();
    slots
}

fn lane_cells(seen: &Seen<'_>, index: usize) -> Vec<Cell> {
    let (chain, theme) = (&seen.data.run.chain, seen.theme);
    let Some((name, lane)) = chain.lanes.get_index(index) else { return Vec::new() };
    let behind = chain.height().saturating_sub(lane.height);
    let missed = chain.missed().get(name).copied().unwrap_or(0);
    let coins = bs_names(seen).iter().position(|bs| bs == name).and_then(|at| chain.coins.get(at));
    let turn = chain.election.producers.iter().position(|producer| producer == name);
    let mark = |count: u64| {
        (
            if count == 0 { "-".into() } else { count.to_string() },
            if count == 0 { theme.dim() } else { theme.warning() },
        )
    };
    vec![
        (name.clone(), theme.text()),
        (lane.height.to_string(), theme.title()),
        mark(behind),
        (lane.epoch.to_string(), theme.text()),
        (lane.view.to_string(), theme.text()),
        (lane.nullified.to_string(), theme.text()),
        mark(missed),
        (lane.mempool_transactions.to_string(), theme.text()),
        (coins.map_or("-".into(), |coins| format::si(*coins as f64 / 1e6)), theme.text()),
        (turn.map_or("-".into(), |turn| format!("#{turn}")), theme.dim()),
    ]
}

fn block_cells(seen: &Seen<'_>, block: &ChainBlock) -> Vec<Cell> {
    let (chain, theme) = (&seen.data.run.chain, seen.theme);
    let fork = chain.conflicts.iter().any(|(height, _)| *height == block.height);
    let missing = missing_before(chain, block);
    let style: Style = if fork { theme.bad() } else { theme.text() };
    let before = block.height.checked_sub(1).and_then(|height| chain.blocks.get(&height));
    let interval =
        before.map(|before| block.finalized_at_ns.saturating_sub(before.finalized_at_ns) as f64 / 1e6);
    let names = signers(seen, block);
    let certificate = match names.len() {
        0 => "a later block's".to_owned(),
        count => format!("{count}: {}", names.join(" ")),
    };
    let view = if missing > 0 { format!("+{} {}", missing, block.view) } else { block.view.to_string() };
    vec![
        (block.height.to_string(), if fork { theme.bad() } else { theme.title() }),
        (block.epoch.to_string(), theme.text()),
        (view, if missing > 0 { theme.warning() } else { style }),
        (clean(&block.leader), style),
        (block.transactions.to_string(), style),
        (format::bytes(block.bytes), style),
        (interval.map_or("-".into(), format::ms), theme.text()),
        (block.finality_ms.map_or("-".into(), format::ms), theme.text()),
        (certificate, theme.dim()),
        (clean(&block.digest), theme.dim()),
    ]
}

fn draw_detail(seen: &Seen<'_>, block: &ChainBlock, area: Rect, buf: &mut Buffer) {
    let theme = seen.theme;
    let title = format!(
        "Block {} of epoch {}, view {}, by {}",
        block.height,
        block.epoch,
        block.view,
        clean(&block.leader)
    );
    let inner = section(&title, area, buf, theme);
    let missing = missing_before(&seen.data.run.chain, block);
    let names = signers(seen, block);
    let certificate = match names.is_empty() {
        true => "final by the certificate of a later block".to_owned(),
        false => format!("final by the votes of {} BSs: {}", names.len(), names.join(", ")),
    };
    let time = format!(
        "final at {} s, {} after its proposal",
        format::seconds(block.finalized_at_ns as i64),
        block.finality_ms.map_or("an unknown time".into(), format::ms)
    );
    let gap = match missing {
        0 => "the view before has a block".to_owned(),
        1 => "the view before this one was nullified".to_owned(),
        count => format!("the {count} views before this one were nullified"),
    };
    let lines = [
        Line::raw(format!(
            "digest {}…  {} transactions in {} bytes",
            clean(&block.digest),
            block.transactions,
            block.bytes
        )),
        Line::raw(certificate),
        Line::raw(time),
        Line::styled(gap, if missing > 0 { theme.warning() } else { theme.dim() }),
    ];
    for (row, line) in lines.iter().take(usize::from(inner.height)).enumerate() {
        buf.set_line(inner.x, inner.y + row as u16, line, inner.width);
    }
}
