//! Events and faults: what happened, what is disturbed, and how to disturb more or put it right.
//!
//! ```text
//! ─ Nodes ────────────────┬─ In force ─────────────────────
//! bs1 ready               │ partition bs1 : mbs,bs2
//! ─ Timeline ─────────────┴────────────────────────────────
//!  12.345 ! bs1>mbs loss 5 %
//! ```

use dtwn_proto::control::{LinkChange, NodeAction, Request};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Reply, Screen, Seen, Sheet, move_selection, section};
use crate::tui::{
    data::{Entry, Fault},
    format,
    keys::{Action, Binding, NODE, bind},
    table::first_row,
    view::{Hits, Zone, level_mark},
};

const KEYS: &[Binding] = &[
    NODE[0],
    NODE[1],
    NODE[2],
    NODE[3],
    bind(&["u", "enter"], Action::Undo, "undo", "put the selected fault right"),
    bind(&["H"], Action::Heal, "heal", "lift all partitions"),
    bind(
        &["i"],
        Action::Disturb,
        "link fault",
        "begin a command that disturbs the links of the selected node",
    ),
    bind(&["left", "h"], Action::Left, "", "the list before"),
    bind(&["right", "l"], Action::Right, "", "the next list"),
    bind(&["/"], Action::Filter, "filter", "show only events that contain a text"),
];

/// Which list has the keys.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Pane {
    #[default]
    Nodes,
    InForce,
    Timeline,
}

/// The screen.
#[derive(Debug, Default)]
pub struct Faults {
    pane: Pane,
    node: usize,
    fault: usize,
    /// Entries scrolled back from the newest.
    back: usize,
    filter: String,
}

impl Screen for Faults {
    fn title(&self) -> &'static str {
        "Faults"
    }

    fn keys(&self) -> &'static [Binding] {
        KEYS
    }

    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let nodes = seen.data.run.nodes.len() as u16;
        let top = match area.height {
            0..9 => 0,
            height => (nodes + 1).clamp(4, height / 2),
        };
        if top > 0 {
            let left = Rect { width: (area.width / 3).clamp(16, 40), height: top, ..area };
            let right =
                Rect { x: left.right() + 1, width: area.right().saturating_sub(left.right() + 1), ..left };
            self.nodes(seen, left.intersection(area), buf, hits);
            self.in_force(seen, right.intersection(area), buf, hits);
        }
        self.timeline(seen, Rect { y: area.y + top, height: area.height - top, ..area }, buf);
    }

    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply> {
        match action {
            Action::Right => {
                self.pane = match self.pane {
                    Pane::Nodes => Pane::InForce,
                    Pane::InForce | Pane::Timeline => Pane::Timeline,
                }
            }
            Action::Left => {
                self.pane = match self.pane {
                    Pane::Timeline => Pane::InForce,
                    Pane::InForce | Pane::Nodes => Pane::Nodes,
                }
            }
            Action::Undo => return self.undo(seen),
            Action::Disturb => {
                let node = self.node(seen)?;
                // The first link that leaves the node; what follows is for the person to say.
                let link = seen.data.run.links.values().find(|link| {
                    link.info.from == node
                        || link.info.from.strip_prefix(&node).is_some_and(|rest| rest.starts_with('.'))
                })?;
                return Some(Reply::Command(format!("link set {} {} --loss ", link.info.from, link.info.to)));
            }
            Action::Back => self.filter.clear(),
            action => self.scroll(seen, action),
        }
        None
    }

    fn click(&mut self, _seen: &Seen<'_>, zone: Zone) {
        match zone {
            Zone::Row(0, index) => (self.pane, self.node) = (Pane::Nodes, index),
            Zone::Row(1, index) => (self.pane, self.fault) = (Pane::InForce, index),
            _ => {}
        }
    }

    fn node(&self, seen: &Seen<'_>) -> Option<String> {
        seen.data.run.nodes.get_index(self.node).map(|(name, _)| name.clone())
    }

    fn filter(&self) -> Option<&str> {
        Some(&self.filter)
    }

    fn set_filter(&mut self, text: &str) {
        self.filter = text.to_lowercase();
        self.back = 0;
    }

    fn sheet(&self, seen: &Seen<'_>) -> Option<Sheet> {
        let rows = self.shown(seen).map(|entry| {
            vec![
                format::seconds(entry.at_ns),
                format!("{:?}", entry.level).to_lowercase(),
                entry.subject.clone(),
                entry.text.clone(),
            ]
        });
        Some((vec!["emulated_s", "level", "subject", "text"], rows.collect()))
    }
}

impl Faults {
    fn nodes(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let inner = section("Nodes", area, buf, seen.theme);
        let count = seen.data.run.nodes.len();
        let first = first_row(Some(self.node), count, usize::from(inner.height));
        for (row, index) in (first..count).take(usize::from(inner.height)).enumerate() {
            let Some((name, node)) = seen.data.run.nodes.get_index(index) else { continue };
            let place = Rect { y: inner.y + row as u16, height: 1, ..inner };
            let mut line = Line::from(vec![
                Span::raw(format!("{name:<9} ")),
                Span::styled(node.phase.as_str(), seen.theme.phase(node.phase)),
            ]);
            if node.restarts > 0 {
                line.push_span(Span::styled(format!("  {} restarts", node.restarts), seen.theme.warning()));
            }
            buf.set_line(place.x, place.y, &line, place.width);
            self.mark(Pane::Nodes, index == self.node, seen, place, buf);
            hits.add(place, Zone::Row(0, index));
        }
    }

    fn in_force(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
        let faults = seen.data.faults();
        let inner = section(&format!("In force ({})", faults.len()), area, buf, seen.theme);
        if faults.is_empty() && inner.height > 0 {
            buf.set_stringn(inner.x, inner.y, "nothing is disturbed", inner.width as usize, seen.theme.dim());
        }
        let selected = self.fault.min(faults.len().saturating_sub(1));
        let first = first_row(Some(selected), faults.len(), usize::from(inner.height));
        for (row, (index, fault)) in
            faults.iter().enumerate().skip(first).take(usize::from(inner.height)).enumerate()
        {
            let place = Rect { y: inner.y + row as u16, height: 1, ..inner };
            buf.set_stringn(place.x, place.y, fault.describe(), place.width as usize, seen.theme.warning());
            self.mark(Pane::InForce, index == selected, seen, place, buf);
            hits.add(place, Zone::Row(1, index));
        }
    }

    fn timeline(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer) {
        let title = match (self.filter.is_empty(), self.back) {
            (true, 0) => "Timeline, the newest first".into(),
            (true, back) => format!("Timeline, {back} back"),
            (false, _) => format!("Timeline /{}", self.filter),
        };
        let inner = section(&title, area, buf, seen.theme);
        let shown = self.shown(seen).skip(self.back).take(usize::from(inner.height));
        for (row, entry) in shown.enumerate() {
            let style = seen.theme.level(entry.level);
            let line = Line::from(vec![
                Span::styled(format!("{:>9} ", format::seconds(entry.at_ns)), seen.theme.dim()),
                Span::styled(format!("{} ", level_mark(entry.level)), style),
                Span::raw(format!("{:<10} ", entry.subject)),
                Span::styled(entry.text.clone(), style),
            ]);
            buf.set_line(inner.x, inner.y + row as u16, &line, inner.width);
        }
    }

    fn mark(&self, pane: Pane, selected: bool, seen: &Seen<'_>, place: Rect, buf: &mut Buffer) {
        if selected && self.pane == pane {
            buf.set_style(place, seen.theme.selected());
        } else if selected && pane == Pane::Nodes {
            // The node stays the one that K, p, R and P are about.
            buf.set_style(
                place,
                ratatui::style::Style::new().add_modifier(ratatui::style::Modifier::UNDERLINED),
            );
        }
    }

    /// The entries that pass the filter, the newest first.
    fn shown<'a>(&'a self, seen: &Seen<'a>) -> impl Iterator<Item = &'a Entry> {
        let passes = |entry: &&Entry| {
            self.filter.is_empty()
                || entry.text.to_lowercase().contains(&self.filter)
                || entry.subject.to_lowercase().contains(&self.filter)
        };
        seen.data.timeline.iter().rev().filter(passes)
    }

    fn scroll(&mut self, seen: &Seen<'_>, action: Action) {
        let page = seen.height / 2;
        match self.pane {
            Pane::Nodes => move_selection(&mut self.node, seen.data.run.nodes.len(), page, action),
            Pane::InForce => move_selection(&mut self.fault, seen.data.faults().len(), page, action),
            Pane::Timeline => {
                let count = self.shown(seen).count();
                move_selection(&mut self.back, count, page, action)
            }
        };
    }

    fn undo(&self, seen: &Seen<'_>) -> Option<Reply> {
        let faults = seen.data.faults();
        let fault = faults.get(self.fault.min(faults.len().saturating_sub(1)))?;
        let node = |node: &str, action| Request::Node { node: node.to_owned(), action };
        let (confirm, request) = match fault {
            // The session lifts partitions all together.
            Fault::Partition(..) => {
                let several = seen.data.partitions.len() > 1;
                (
                    several.then(|| "Lift all partitions? They cannot be lifted one by one.".to_owned()),
                    Request::Heal,
                )
            }
            Fault::Paused(name) => (None, node(name, NodeAction::Resume)),
            Fault::Exited(name) => (None, node(name, NodeAction::Restart)),
            Fault::Poisoned(name, _) => (None, Request::Poison { node: name.clone(), kind: None }),
            Fault::Link(now, _) => {
                let change = LinkChange { reset: true, ..LinkChange::default() };
                (None, Request::SetLink { from: now.from.clone(), to: now.to.clone(), change })
            }
        };
        let label = format!("undone: {}", fault.describe());
        Some(Reply::Order { confirm, label, requests: vec![request] })
    }
}
