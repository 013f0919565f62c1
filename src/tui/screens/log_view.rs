//! Logs: what the nodes' processes print.
//!
//! ```text
//! all nodes  info and graver  "timeout" 3 matches        following
//! bs1      2026-01-01T00:00:01Z  INFO started
//! bs2      2026-01-01T00:00:02Z  WARN …
//! ```

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Reply, Screen, Seen, Sheet};
use crate::tui::{
    keys::{Action, Binding, bind},
    logs::{Gravity, LogLine},
    view::Hits,
};

const KEYS: &[Binding] = &[
    bind(&["/"], Action::Filter, "search", "search; matches stand out and are counted"),
    bind(&["n"], Action::NextMatch, "next", "the next match"),
    bind(&["N"], Action::PreviousMatch, "", "the match before"),
    bind(&["o"], Action::Only, "only", "show only lines that contain a text"),
    bind(&["v"], Action::Level, "level", "show only warnings, only errors, or all again"),
    bind(&["s"], Action::Source, "node", "lines of the next node, after the last those of all"),
    bind(&["f"], Action::Follow, "follow", "stay at the end while lines arrive"),
    bind(&["w"], Action::Wrap, "wrap", "break long lines"),
    bind(&["e"], Action::NextError, "error", "to the next error"),
];

/// The screen.
#[derive(Debug)]
pub struct LogView {
    /// One node's lines, or all.
    source: Option<String>,
    gravity: Gravity,
    only: String,
    search: String,
    /// The number of the line at the top; `None` follows the end.
    top: Option<u64>,
    /// The match or error that was gone to.
    mark: Option<u64>,
    wrap: bool,
    shift: usize,
}

impl Default for LogView {
    fn default() -> Self {
        Self {
            source: None,
            gravity: Gravity::Debug,
            only: String::new(),
            search: String::new(),
            top: None,
            mark: None,
            wrap: false,
            shift: 0,
        }
    }
}

impl Screen for LogView {
    fn title(&self) -> &'static str {
        "Logs"
    }

    fn keys(&self) -> &'static [Binding] {
        KEYS
    }

    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, _hits: &mut Hits) {
        if area.height < 2 {
            return;
        }
        let lines = self.shown(seen);
        buf.set_line(area.x, area.y, &self.headline(seen, &lines), area.width);
        let body = Rect { y: area.y + 1, height: area.height - 1, ..area };
        let place = self.top.map_or(lines.len(), |top| lines.partition_point(|(number, _)| *number < top));
        let first = place.min(self.last_first(&lines, body));
        let mut y = body.y;
        for (number, line) in lines.iter().skip(first) {
            if y >= body.bottom() {
                break;
            }
            y += self.draw_line(seen, *number, line, Rect { y, height: body.bottom() - y, ..body }, buf);
        }
        if lines.is_empty() {
            buf.set_stringn(body.x, body.y, "no lines", body.width as usize, seen.theme.dim());
        }
    }

    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply> {
        let lines = self.shown(seen);
        let page = usize::from(seen.height.saturating_sub(2)).max(1);
        let end = lines.len().saturating_sub(page);
        let here = match self.top {
            None => end,
            Some(top) => lines.partition_point(|(number, _)| *number < top).min(end),
        };
        let go = |to: usize| lines.get(to).map(|(number, _)| *number);
        match action {
            Action::Up => self.top = go(here.saturating_sub(1)),
            Action::PageUp => self.top = go(here.saturating_sub(page)),
            Action::Top => self.top = go(0),
            // Whoever reaches the end follows it again.
            Action::Down => self.top = if here + 1 >= end { None } else { go(here + 1) },
            Action::PageDown => self.top = if here + page >= end { None } else { go(here + page) },
            Action::Bottom => self.top = None,
            Action::Follow => self.top = if self.top.is_none() { go(here) } else { None },
            Action::NextMatch | Action::PreviousMatch => {
                let search = self.search.clone();
                let matches = |line: &LogLine| !search.is_empty() && contains(&line.text, &search);
                return self.jump(&lines, here, page, action == Action::NextMatch, matches, "no match");
            }
            Action::NextError => {
                let is_error = |line: &LogLine| line.gravity == Gravity::Error;
                return self.jump(&lines, here, page, true, is_error, "no error");
            }
            Action::Level => {
                self.gravity = match self.gravity {
                    Gravity::Debug => Gravity::Info,
                    Gravity::Info => Gravity::Warning,
                    Gravity::Warning => Gravity::Error,
                    Gravity::Error => Gravity::Debug,
                }
            }
            Action::Source => self.source = self.next_source(seen),
            Action::Wrap => self.wrap = !self.wrap,
            Action::Left => self.shift = self.shift.saturating_sub(10),
            Action::Right => self.shift = (self.shift + 10).min(400),
            Action::Back if !self.search.is_empty() => self.search.clear(),
            Action::Back => self.only.clear(),
            _ => {}
        }
        None
    }

    fn filter(&self) -> Option<&str> {
        Some(&self.search)
    }

    fn set_filter(&mut self, text: &str) {
        self.search = text.to_lowercase();
        self.mark = None;
    }

    fn only(&self) -> Option<&str> {
        Some(&self.only)
    }

    fn set_only(&mut self, text: &str) {
        self.only = text.to_lowercase();
    }

    fn wants_logs(&self) -> bool {
        true
    }

    fn sheet(&self, seen: &Seen<'_>) -> Option<Sheet> {
        let rows = self.shown(seen).into_iter();
        let rows =
            rows.map(|(_, line)| vec![line.node.clone(), line.gravity.as_str().into(), line.text.clone()]);
        Some((vec!["node", "level", "text"], rows.collect()))
    }
}

impl LogView {
    /// The lines that pass every filter, with their numbers.
    fn shown<'a>(&self, seen: &Seen<'a>) -> Vec<(u64, &'a LogLine)> {
        let passes = |line: &LogLine| {
            line.gravity >= self.gravity
                && self.source.as_ref().is_none_or(|source| *source == line.node)
                && (self.only.is_empty() || contains(&line.text, &self.only))
        };
        seen.logs.iter().filter(|(_, line)| passes(line)).collect()
    }

    fn headline(&self, seen: &Seen<'_>, lines: &[(u64, &LogLine)]) -> Line<'static> {
        let theme = seen.theme;
        let mut spans = vec![
            Span::styled(self.source.clone().unwrap_or("all nodes".into()), theme.title()),
            Span::raw(format!("  {} lines", lines.len())),
        ];
        if self.gravity > Gravity::Debug {
            spans.push(Span::styled(format!("  {} and graver", self.gravity.as_str()), theme.warning()));
        }
        if !self.only.is_empty() {
            spans.push(Span::styled(format!("  only \"{}\"", self.only), theme.warning()));
        }
        if !self.search.is_empty() {
            let matches: Vec<_> =
                lines.iter().filter(|(_, line)| contains(&line.text, &self.search)).collect();
            let at = matches.iter().position(|(number, _)| Some(*number) == self.mark);
            let at = at.map_or(String::new(), |at| format!("{} of ", at + 1));
            spans.push(Span::styled(
                format!("  \"{}\" {at}{} matches", self.search, matches.len()),
                theme.found(),
            ));
        }
        let end = if self.top.is_none() { "  following" } else { "  f follows" };
        spans.push(Span::styled(end, theme.dim()));
        Line::from(spans)
    }

    /// The first line of the last page.
    fn last_first(&self, lines: &[(u64, &LogLine)], body: Rect) -> usize {
        let mut rows = usize::from(body.height);
        let mut first = lines.len();
        while first > 0 {
            let wanted = self.rows_of(lines[first - 1].1, body.width);
            if wanted > rows {
                break;
            }
            rows -= wanted;
            first -= 1;
        }
        first.min(lines.len().saturating_sub(1))
    }

    fn rows_of(&self, line: &LogLine, width: u16) -> usize {
        let room = usize::from(width.saturating_sub(self.margin())).max(1);
        if self.wrap { line.text.chars().count().div_ceil(room).max(1) } else { 1 }
    }

    /// Columns of the node's name.
    fn margin(&self) -> u16 {
        if self.source.is_none() { 9 } else { 0 }
    }

    fn draw_line(&self, seen: &Seen<'_>, number: u64, line: &LogLine, area: Rect, buf: &mut Buffer) -> u16 {
        let theme = seen.theme;
        let margin = self.margin().min(area.width);
        if margin > 0 {
            buf.set_stringn(area.x, area.y, &line.node, usize::from(margin) - 1, theme.dim());
        }
        let style = match line.gravity {
            Gravity::Error => theme.bad(),
            Gravity::Warning => theme.warning(),
            Gravity::Info => theme.text(),
            Gravity::Debug => theme.dim(),
        };
        let text: Vec<char> = line.text.chars().collect();
        let room = usize::from(area.width - margin).max(1);
        let found = !self.search.is_empty() && contains(&line.text, &self.search);
        let rows: Vec<String> = match self.wrap {
            true => text.chunks(room).map(|row| row.iter().collect()).collect(),
            false => vec![text.iter().skip(self.shift).take(room).collect()],
        };
        for (row, text) in rows.iter().enumerate().take(usize::from(area.height)) {
            let spans = if found {
                highlight(text, &self.search, style, theme.found())
            } else {
                vec![Span::styled(text.clone(), style)]
            };
            buf.set_line(area.x + margin, area.y + row as u16, &Line::from(spans), area.width - margin);
        }
        if self.mark == Some(number) {
            buf.set_style(
                Rect { height: (rows.len().max(1) as u16).min(area.height), ..area },
                theme.selected(),
            );
        }
        (rows.len().max(1) as u16).min(area.height)
    }

    /// Goes to the next line, or the one before, that `wanted` accepts; around the end to the beginning.
    fn jump(
        &mut self,
        lines: &[(u64, &LogLine)],
        here: usize,
        page: usize,
        forward: bool,
        wanted: impl Fn(&LogLine) -> bool,
        none: &str,
    ) -> Option<Reply> {
        let from = match self.mark {
            Some(mark) => lines.partition_point(|(number, _)| *number < mark),
            None if forward => here.wrapping_sub(1),
            None => here,
        };
        let count = lines.len();
        let order = (1..=count).map(|step| match forward {
            true => from.wrapping_add(step) % count,
            false => (from + count * 2 - step) % count,
        });
        let mut order = order;
        let Some(found) = order.find(|index| wanted(lines[*index].1)) else {
            return Some(Reply::Say(none.into()));
        };
        let (mark, top) = (lines[found].0, lines[found.saturating_sub(page / 2)].0);
        self.mark = Some(mark);
        self.top = Some(top);
        None
    }

    fn next_source(&self, seen: &Seen<'_>) -> Option<String> {
        let mut names: Vec<_> = seen.data.run.nodes.keys().cloned().collect();
        names.push("session".into());
        match &self.source {
            None => names.into_iter().next(),
            Some(now) => names.iter().position(|name| name == now).and_then(|at| names.get(at + 1)).cloned(),
        }
    }
}

/// Whether a text contains another, which is in lower case already.
fn contains(text: &str, lower: &str) -> bool {
    text.to_lowercase().contains(lower)
}

/// A text with every match set off.
fn highlight(text: &str, lower: &str, plain: Style, found: Style) -> Vec<Span<'static>> {
    let folded = text.to_lowercase();
    // Lower case may be longer than the text itself (İ): then places in one are none in the other.
    if folded.len() != text.len() {
        return vec![Span::styled(text.to_owned(), found)];
    }
    let mut spans = Vec::new();
    let mut at = 0;
    for (start, matched) in folded.match_indices(lower) {
        let (Some(before), Some(hit)) = (text.get(at..start), text.get(start..start + matched.len())) else {
            break;
        };
        spans.extend([Span::styled(before.to_owned(), plain), Span::styled(hit.to_owned(), found)]);
        at = start + matched.len();
    }
    spans.push(Span::styled(text.get(at..).unwrap_or_default().to_owned(), plain));
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_set_off_whatever_their_case() {
        let (plain, found) = (Style::new(), Style::new().bold());
        let texts = |text| -> Vec<(String, bool)> {
            highlight(text, "er", plain, found)
                .into_iter()
                .map(|s| (s.content.into_owned(), s.style == found))
                .collect()
        };
        assert_eq!(texts("an ERror"), [("an ".into(), false), ("ER".into(), true), ("ror".into(), false)]);
        assert_eq!(texts("İer").len(), 1);
    }
}
