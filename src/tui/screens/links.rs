//! Links: every link of the air, sorted and filtered; one of them in detail.
//!
//! ```text
//! LINK↓     RATE CARRIED  USE  DELAY LOSS SEEN QUEUE DROPS LATE …
//! bs1>mbs   111M   12.3M  11%   1ms   5% 4.8%  1.2Ki  123    0
//! ─ bs1>mbs ──────────────────────────────────────────────
//! carried ▁▂▃▅▇   use ▁▂▃   lost ▁     drops by cause
//! ```

use dtwn_proto::event::LinkInfo;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Reply, Screen, Seen, Sheet, move_selection, section};
use crate::{
    state::LinkState,
    tui::{
        format,
        keys::{Action, Binding, bind},
        table::{self, Cell, Column, Marks},
        view::{Hits, Zone},
    },
};

const KEYS: &[Binding] = &[
    bind(&["e"], Action::Edit, "edit", "edit loss, delay, jitter, rate and state of the selected link"),
    bind(&["d"], Action::Toggle, "down/up", "take the selected link down, or up again"),
    bind(&["s"], Action::Sort, "sort", "sort by the next column; a click on a header sorts too"),
    bind(&["r"], Action::Reverse, "reverse", "turn the order around"),
    bind(&["enter"], Action::Detail, "detail", "show or hide the selected link's history"),
    bind(&["/"], Action::Filter, "filter", "show only links whose name or kind contains a text"),
];

const COLUMNS: [Column; 18] = [
    Column::left("LINK", 12, 0),
    Column::left("KIND", 11, 6),
    Column::right("RATE", 6, 1),
    Column::right("CARRIED", 8, 0),
    Column::right("USE", 5, 0),
    Column::right("DELAY", 7, 2),
    Column::right("LOSS", 6, 0),
    Column::right("SEEN", 6, 0),
    Column::right("QUEUE", 6, 2),
    Column::right("DROPS", 6, 1),
    Column::right("LATE", 5, 3),
    Column::right("SENT", 9, 7),
    Column::right("BY LOSS", 8, 8),
    Column::right("QUEUE", 7, 8),
    Column::right("DOWN", 6, 8),
    Column::right("PART", 6, 8),
    Column::right("HOST", 6, 8),
    Column::left("CARRIED, LAST 30", 30, 9),
];

/// Rows of the detail.
const DETAIL: u16 = 6;

/// The screen.
#[derive(Debug, Default)]
pub struct Links {
    selected: usize,
    sort: usize,
    down: bool,
    filter: String,
    detail: bool,
}

impl Screen for Links {
    fn title(&self) -> &'static str {
        "Links"
    }

    fn keys(&self) -> &'static [Binding] {
        KEYS
    }

    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let links = self.shown(seen);
        let detail = if self.detail && area.height > DETAIL + 4 { DETAIL } else { 0 };
        let mut list = Rect { height: area.height - detail, ..area };
        if !self.filter.is_empty() && list.height > 2 {
            let text = format!("/{}  {} of {} links", self.filter, links.len(), seen.data.run.links.len());
            buf.set_stringn(list.x, list.y, text, list.width as usize, seen.theme.warning());
            list = Rect { y: list.y + 1, height: list.height - 1, ..list };
        }
        let selected = self.selected.min(links.len().saturating_sub(1));
        let marks = Marks { selected: Some(selected), sorted: Some((self.sort, self.down)), list: 0 };
        table::draw(list, buf, seen.theme, hits, &COLUMNS, &marks, links.len(), |index| {
            cells(seen, links[index])
        });
        if links.is_empty() && list.height > 1 {
            let text = if self.filter.is_empty() { "no links yet" } else { "no link matches; esc shows all" };
            buf.set_stringn(list.x, list.y + 1, text, list.width as usize, seen.theme.dim());
        }
        if let (true, Some(link)) = (detail > 0, links.get(selected)) {
            let place = Rect { y: area.bottom() - detail, height: detail, ..area };
            draw_detail(seen, link, place, buf);
        }
    }

    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply> {
        let count = self.shown(seen).len();
        match action {
            Action::Sort => self.sort = (self.sort + 1) % COLUMNS.len(),
            Action::Reverse => self.down = !self.down,
            Action::Detail => self.detail = !self.detail,
            Action::Back if self.detail => self.detail = false,
            Action::Back => self.filter.clear(),
            _ => {
                move_selection(&mut self.selected, count, seen.height.saturating_sub(2), action);
            }
        }
        None
    }

    fn click(&mut self, _seen: &Seen<'_>, zone: Zone) {
        match zone {
            Zone::Row(0, index) if index == self.selected => self.detail = !self.detail,
            Zone::Row(0, index) => self.selected = index,
            Zone::Header(0, column) if column == self.sort => self.down = !self.down,
            Zone::Header(0, column) => self.sort = column,
            _ => {}
        }
    }

    fn link(&self, seen: &Seen<'_>) -> Option<LinkInfo> {
        let links = self.shown(seen);
        links.get(self.selected.min(links.len().saturating_sub(1))).map(|link| link.info.clone())
    }

    fn filter(&self) -> Option<&str> {
        Some(&self.filter)
    }

    fn set_filter(&mut self, text: &str) {
        self.filter = text.to_lowercase();
    }

    fn sheet(&self, seen: &Seen<'_>) -> Option<Sheet> {
        let header = [
            "link",
            "kind",
            "rate_bps",
            "carried_bps",
            "utilisation",
            "delay_ms",
            "loss",
            "loss_seen",
            "up",
            "sent",
            "delivered",
            "dropped",
        ];
        let rows = self.shown(seen).into_iter().map(|link| {
            let (info, counters) = (&link.info, &link.counters);
            let history = seen.data.links.get(&info.name);
            let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            vec![
                info.name.clone(),
                info.kind.clone(),
                number(info.rate_bps),
                number(history.map(|history| history.carried_bps.last())),
                number(history.map(|history| history.busy.last())),
                info.delay_ms.to_string(),
                info.loss.to_string(),
                number(history.and_then(|history| history.loss_seen())),
                info.up.to_string(),
                counters.sent.to_string(),
                counters.delivered.to_string(),
                counters.dropped.total().to_string(),
            ]
        });
        Some((header.to_vec(), rows.collect()))
    }
}

impl Links {
    /// The links that pass the filter, in order.
    fn shown<'a>(&self, seen: &Seen<'a>) -> Vec<&'a LinkState> {
        let mut links: Vec<_> = seen
            .data
            .run
            .links
            .values()
            .filter(|link| {
                let name = link.info.name.to_lowercase();
                self.filter.is_empty() || name.contains(&self.filter) || link.info.kind.contains(&self.filter)
            })
            .collect();
        if self.sort == 0 {
            // The order of the topology says more than that of the alphabet.
            if self.down {
                links.reverse();
            }
            return links;
        }
        if self.sort == 1 {
            links.sort_by(|a, b| a.info.kind.cmp(&b.info.kind));
        } else {
            links.sort_by(|a, b| figure(seen, b, self.sort).total_cmp(&figure(seen, a, self.sort)));
        }
        if self.down {
            links.reverse();
        }
        links
    }
}

/// What a column is sorted by; the largest comes first.
fn figure(seen: &Seen<'_>, link: &LinkState, column: usize) -> f64 {
    let (info, counters) = (&link.info, &link.counters);
    let history = seen.data.links.get(&info.name);
    let drops = &counters.dropped;
    match column {
        2 => info.rate_bps.unwrap_or(0.0),
        4 => history.map_or(0.0, |history| history.busy.last()),
        5 => info.delay_ms,
        6 => {
            if info.up {
                info.loss
            } else {
                2.0
            }
        }
        7 => history.and_then(|history| history.loss_seen()).unwrap_or(0.0),
        8 => counters.queue_bytes as f64,
        9 => drops.total() as f64,
        10 => counters.late as f64,
        11 => counters.sent as f64,
        12 => drops.loss as f64,
        13 => drops.queue as f64,
        14 => drops.down as f64,
        15 => drops.partition as f64,
        16 => drops.host as f64,
        _ => history.map_or(0.0, |history| history.carried_bps.last()),
    }
}

fn cells(seen: &Seen<'_>, link: &LinkState) -> Vec<Cell> {
    let theme = seen.theme;
    let (info, counters) = (&link.info, &link.counters);
    let history = seen.data.links.get(&info.name);
    let drops = &counters.dropped;
    let busy = history.map_or(0.0, |history| history.busy.last());
    let lost = history.and_then(|history| history.loss_seen());
    let count = |value: u64| (if value == 0 { "-".into() } else { format::si(value as f64) }, theme.text());
    let alarm = |value: u64| {
        (
            if value == 0 { "-".into() } else { format::si(value as f64) },
            if value == 0 { theme.dim() } else { theme.bad() },
        )
    };
    let set = match info.up {
        true => (format::percent(info.loss), theme.heat(info.loss, 0.2)),
        false => ("down".into(), theme.bad()),
    };
    vec![
        (info.name.clone(), if info.up { theme.text() } else { theme.bad() }),
        (info.kind.clone(), theme.dim()),
        (info.rate_bps.map_or("-".into(), format::bps), theme.text()),
        (history.map_or("-".into(), |history| format::bps(history.carried_bps.last())), theme.text()),
        (format!("{:.0}%", busy * 100.0), theme.heat(busy, 1.0)),
        (format::ms(info.delay_ms), theme.text()),
        set,
        (lost.map_or("-".into(), format::percent), theme.heat(lost.unwrap_or(0.0), 0.2)),
        (format::bytes(counters.queue_bytes), theme.text()),
        count(drops.total()),
        count(counters.late),
        count(counters.sent),
        count(drops.loss),
        count(drops.queue),
        count(drops.down),
        count(drops.partition),
        alarm(drops.host),
        (
            history.map_or(String::new(), |h| format::spark(h.carried_bps.tail(30), None, false)),
            theme.curve(),
        ),
    ]
}

fn draw_detail(seen: &Seen<'_>, link: &LinkState, area: Rect, buf: &mut Buffer) {
    let theme = seen.theme;
    let (info, counters) = (&link.info, &link.counters);
    let inner =
        section(&format!("{} ({}), {} to {}", info.name, info.kind, info.from, info.to), area, buf, theme);
    let history = seen.data.links.get(&info.name).cloned().unwrap_or_default();
    let room = usize::from(inner.width).saturating_sub(22).min(300);
    let curve = |label: &str, value: String, bars: String| {
        Line::from(vec![
            Span::styled(format!("{label:<8}"), theme.dim()),
            Span::raw(format!("{value:>12} ")),
            Span::styled(bars, theme.curve()),
        ])
    };
    let drops = &counters.dropped;
    let lines = [
        curve(
            "carried",
            format!("{}bit/s", format::si(history.carried_bps.last())),
            format::spark(history.carried_bps.tail(room), None, false),
        ),
        curve(
            "use",
            format::percent(history.busy.last()),
            format::spark(history.busy.tail(room), Some(1.0), false),
        ),
        curve(
            "lost",
            format!("{} pkt", history.lost().last()),
            format::spark(history.lost().tail(room), None, false),
        ),
        Line::raw(format!(
            "sent {}  delivered {}  corrupted {}  late {}  jitter {}",
            counters.sent,
            counters.delivered,
            counters.corrupted,
            counters.late,
            format::ms(info.jitter_ms)
        )),
        Line::raw(format!(
            "drops: loss {}  queue {}  down {}  partition {}  unroutable {}  host {}",
            drops.loss, drops.queue, drops.down, drops.partition, drops.unroutable, drops.host
        )),
    ];
    for (row, line) in lines.iter().take(usize::from(inner.height)).enumerate() {
        buf.set_line(inner.x, inner.y + row as u16, line, inner.width);
    }
}
