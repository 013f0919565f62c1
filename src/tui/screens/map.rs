//! Map: where stations are, who serves whom, and what the links carry. Like Fig. 4 of the paper.
//!
//! ```text
//!        ·  ·   bs2                 │ bs2  bs  ready
//!     ·   · │ ·                     │ uplink   12M of 111M
//!   bs3 ───mbs──── bs1              │ users    ug2.1 ug2.2
//! n next  m markers  c colouring
//! ```

use std::collections::HashMap;

use dtwn_proto::event::LinkInfo;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Style},
    symbols::Marker,
    text::{Line, Span},
    widgets::{
        Widget,
        canvas::{Canvas, Circle, Context, Line as Stroke, Points},
    },
};

use super::{Reply, Screen, Seen, Sheet, section};
use crate::tui::{
    format,
    keys::{Action, Binding, NODE, bind},
    sites::{Kind, Site},
    view::Hits,
};

const KEYS: &[Binding] = &[
    bind(&["n", "down", "j"], Action::Down, "next", "select the next station"),
    bind(&["N", "up", "k"], Action::Up, "", "select the station before"),
    bind(&["c"], Action::Colouring, "colour", "colour links by load or by loss"),
    bind(&["m"], Action::Markers, "markers", "draw with braille, dots or plain ASCII"),
    bind(&["+", "="], Action::ZoomIn, "zoom", "nearer, around the selected station"),
    bind(&["-"], Action::ZoomOut, "", "farther"),
    NODE[0],
    NODE[1],
    NODE[2],
    NODE[3],
];

/// From this width on, the selected station is described at the side, else below.
const WIDE: u16 = 70;
/// Columns of the description.
const SIDE: u16 = 28;

/// What the map is drawn with.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Ink {
    #[default]
    Braille,
    Dots,
    Ascii,
}

/// The screen.
#[derive(Debug, Default)]
pub struct Map {
    selected: usize,
    ink: Ink,
    by_loss: bool,
    zoom: u8,
}

impl Screen for Map {
    fn title(&self) -> &'static str {
        "Map"
    }

    fn keys(&self) -> &'static [Binding] {
        KEYS
    }

    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, _hits: &mut Hits) {
        if seen.sites.all.is_empty() {
            let why = seen.sites.error.as_deref().unwrap_or("no positions are known");
            buf.set_stringn(area.x, area.y, why, area.width as usize, seen.theme.warning());
            return;
        }
        let selected = &seen.sites.all[self.selected.min(seen.sites.all.len() - 1)];
        let (map, side) = if area.width >= WIDE {
            let side = Rect { x: area.right() - SIDE, width: SIDE, ..area };
            (Rect { width: area.width - SIDE - 1, ..area }, side)
        } else {
            let height = if area.height >= 12 { 5 } else { 0 };
            let side = Rect { y: area.bottom() - height, height, ..area };
            (Rect { height: area.height - height, ..area }, side)
        };
        self.draw(seen, selected, map, buf);
        self.describe(seen, selected, side, buf);
    }

    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply> {
        let count = seen.sites.all.len().max(1);
        match action {
            Action::Down | Action::Right => self.selected = (self.selected + 1) % count,
            Action::Up | Action::Left => self.selected = (self.selected + count - 1) % count,
            Action::Top => self.selected = 0,
            Action::Bottom => self.selected = count - 1,
            Action::Markers => {
                self.ink = match self.ink {
                    Ink::Braille => Ink::Dots,
                    Ink::Dots => Ink::Ascii,
                    Ink::Ascii => Ink::Braille,
                }
            }
            Action::Colouring => self.by_loss = !self.by_loss,
            Action::ZoomIn => self.zoom = (self.zoom + 1).min(6),
            Action::ZoomOut => self.zoom = self.zoom.saturating_sub(1),
            Action::Back => self.zoom = 0,
            _ => {}
        }
        None
    }

    fn node(&self, seen: &Seen<'_>) -> Option<String> {
        seen.sites.all.get(self.selected).map(|site| site.node.clone())
    }

    fn sheet(&self, seen: &Seen<'_>) -> Option<Sheet> {
        let serving = serving(seen);
        let rows = seen.sites.all.iter().map(|site| {
            let bs = serving.get(site.name.as_str()).copied().unwrap_or_default();
            vec![site.name.clone(), site.at.x.to_string(), site.at.y.to_string(), bs.to_owned()]
        });
        Some((vec!["station", "x_m", "y_m", "served_by"], rows.collect()))
    }
}

impl Map {
    fn draw(&self, seen: &Seen<'_>, selected: &Site, area: Rect, buf: &mut Buffer) {
        if area.width < 4 || area.height < 2 {
            return;
        }
        let (x_bounds, y_bounds) = self.bounds(seen, selected, area);
        let marker = if self.ink == Ink::Braille { Marker::Braille } else { Marker::Dot };
        let paint = |context: &mut Context<'_>| self.paint(seen, selected, context);
        Canvas::default().x_bounds(x_bounds).y_bounds(y_bounds).marker(marker).paint(paint).render(area, buf);
        if self.ink == Ink::Ascii {
            for cell in
                (area.top()..area.bottom()).flat_map(|y| (area.left()..area.right()).map(move |x| (x, y)))
            {
                if let Some(cell) = buf.cell_mut(cell)
                    && !cell.symbol().is_ascii()
                {
                    cell.set_symbol(".");
                }
            }
        }
    }

    /// The rectangle shown, in metres, as high as it is wide in the terminal's cells of one to two.
    fn bounds(&self, seen: &Seen<'_>, selected: &Site, area: Rect) -> ([f64; 2], [f64; 2]) {
        let mut low = (f64::INFINITY, f64::INFINITY);
        let mut high = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for site in &seen.sites.all {
            let reach = if let Kind::Bs(coverage) = site.kind { coverage } else { 0.0 };
            low = (low.0.min(site.at.x - reach), low.1.min(site.at.y - reach));
            high = (high.0.max(site.at.x + reach), high.1.max(site.at.y + reach));
        }
        let zoom = 2_f64.powi(i32::from(self.zoom));
        let centre = match self.zoom {
            0 => ((low.0 + high.0) / 2.0, (low.1 + high.1) / 2.0),
            _ => (selected.at.x, selected.at.y),
        };
        let (width, height) = (f64::from(area.width), f64::from(area.height) * 2.0);
        let metres_per_cell =
            ((high.0 - low.0) / width).max((high.1 - low.1) / height).max(0.01) * 1.05 / zoom;
        let half = (width * metres_per_cell / 2.0, height * metres_per_cell / 2.0);
        ([centre.0 - half.0, centre.0 + half.0], [centre.1 - half.1, centre.1 + half.1])
    }

    fn paint(&self, seen: &Seen<'_>, selected: &Site, context: &mut Context<'_>) {
        let theme = seen.theme;
        let serving = serving(seen);
        let cells = cells(seen);
        let colour = |bs: &str| cells.get(bs).map_or(Color::Reset, |index| theme.cell(*index));
        for site in &seen.sites.all {
            if let Kind::Bs(radius) = site.kind {
                context.draw(&Circle { x: site.at.x, y: site.at.y, radius, color: theme.ink(theme.dim()) });
            }
        }
        context.layer();
        for site in &seen.sites.all {
            let bs = serving.get(site.name.as_str()).copied().unwrap_or_default();
            if let (Kind::User, Some(bs)) = (site.kind, seen.sites.get(bs)) {
                context.draw(&stroke(site, bs, theme.ink(theme.dim())));
            }
        }
        context.layer();
        if let Some(mbs) = seen.sites.all.iter().find(|site| site.kind == Kind::Mbs) {
            for bs in seen.sites.all.iter().filter(|site| matches!(site.kind, Kind::Bs(_))) {
                context.draw(&stroke(bs, mbs, theme.ink(self.link_style(seen, &bs.name, &mbs.name))));
            }
        }
        context.layer();
        for site in seen.sites.all.iter().filter(|site| site.kind == Kind::User) {
            let bs = serving.get(site.name.as_str()).copied().unwrap_or_default();
            let coords = [(site.at.x, site.at.y)];
            context.draw(&Points { coords: &coords, color: colour(bs) });
            context.print(site.at.x, site.at.y, Span::styled("•", Style::new().fg(colour(bs))));
        }
        for site in seen.sites.all.iter().filter(|site| site.kind != Kind::User) {
            let style = match seen.data.run.nodes.get(&site.node) {
                Some(node) if node.phase != crate::state::Phase::Ready => theme.phase(node.phase),
                _ if site.kind == Kind::Mbs => theme.title(),
                _ => Style::new().fg(colour(&site.name)).add_modifier(ratatui::style::Modifier::BOLD),
            };
            context.print(site.at.x, site.at.y, Span::styled(site.name.clone(), style));
        }
        context.print(selected.at.x, selected.at.y, Span::styled(selected.name.clone(), theme.selected()));
    }

    /// The worse of a link's two directions.
    fn link_style(&self, seen: &Seen<'_>, a: &str, b: &str) -> Style {
        let theme = seen.theme;
        let mut style = theme.dim();
        let mut worst = 0.0;
        for link in seen.data.run.links.values() {
            let info = &link.info;
            let ends = (info.from.as_str(), info.to.as_str());
            if info.kind == "override" || (ends != (a, b) && ends != (b, a)) {
                continue;
            }
            if !info.up {
                return theme.bad();
            }
            let history = seen.data.links.get(&info.name);
            let (share, full) = match self.by_loss {
                true => (history.and_then(|h| h.loss_seen()).unwrap_or(0.0).max(info.loss), 0.2),
                false => (history.map_or(0.0, |history| history.busy.last()), 1.0),
            };
            if share > worst {
                worst = share;
                style = theme.heat(share, full);
            }
        }
        style
    }

    fn describe(&self, seen: &Seen<'_>, site: &Site, area: Rect, buf: &mut Buffer) {
        if area.height < 2 {
            return;
        }
        let theme = seen.theme;
        let inner = section(&site.name, area, buf, theme);
        let pair = |label: &str, value: String, style: Style| {
            Line::from(vec![Span::styled(format!("{label:<9}"), theme.dim()), Span::styled(value, style)])
        };
        let mut lines = Vec::new();
        if let Some(node) = seen.data.run.nodes.get(&site.node) {
            let state = format!("{} {}", site.node, node.phase.as_str());
            lines.push(pair("node", state, theme.phase(node.phase)));
        }
        let what = if self.by_loss { "loss" } else { "load" };
        lines.push(pair("colour", format!("links by {what}"), theme.text()));
        lines.push(pair("position", format!("{:.0}, {:.0} m", site.at.x, site.at.y), theme.text()));
        for link in links_of(seen, &site.name).take(8) {
            let (info, history) = (&link.0, link.1);
            let text = match info.up {
                true => format!(
                    "{} of {}, {} lost",
                    format::bps(history.map_or(0.0, |h| h.carried_bps.last())),
                    info.rate_bps.map_or("-".into(), format::bps),
                    history.and_then(|h| h.loss_seen()).map_or("-".into(), format::percent)
                ),
                false => "down".into(),
            };
            lines.push(Line::raw(info.name.clone()));
            lines.push(Line::styled(format!("  {text}"), if info.up { theme.text() } else { theme.bad() }));
        }
        if let Kind::Bs(coverage) = site.kind {
            let serving = serving(seen);
            let mut users: Vec<_> =
                serving.iter().filter(|(_, bs)| **bs == site.name).map(|(user, _)| *user).collect();
            users.sort_unstable();
            lines.push(pair("covers", format!("{coverage:.0} m"), theme.text()));
            lines.push(pair("serves", format!("{} users", users.len()), theme.text()));
            lines.extend(users.iter().map(|user| Line::raw(format!("  {user}"))));
        }
        for (row, line) in lines.iter().take(usize::from(inner.height)).enumerate() {
            buf.set_line(inner.x, inner.y + row as u16, line, inner.width);
        }
    }
}

type LinkNow<'a> = (&'a LinkInfo, Option<&'a crate::tui::data::LinkHistory>);

/// The links at a station, other than those of the users that it serves.
fn links_of<'a>(seen: &Seen<'a>, station: &'a str) -> impl Iterator<Item = LinkNow<'a>> {
    let data = seen.data;
    let is_user = seen.sites.get(station).is_some_and(|site| site.kind == Kind::User);
    let all = data.run.links.values().map(|link| &link.info);
    all.filter(move |info| info.from == station || info.to == station)
        .filter(move |info| is_user || !info.kind.starts_with("access"))
        .map(move |info| (info, data.links.get(&info.name)))
}

/// Which BS serves which user: where its access link leads.
fn serving<'a>(seen: &Seen<'a>) -> HashMap<&'a str, &'a str> {
    let links = seen.data.run.links.values().filter(|link| link.info.kind == "access-up");
    links.map(|link| (link.info.from.as_str(), link.info.to.as_str())).collect()
}

/// The number of each BS, for its colour.
fn cells<'a>(seen: &Seen<'a>) -> HashMap<&'a str, usize> {
    let stations = seen.sites.all.iter().filter(|site| matches!(site.kind, Kind::Bs(_)));
    stations.enumerate().map(|(index, site)| (site.name.as_str(), index)).collect()
}

fn stroke(from: &Site, to: &Site, color: Color) -> Stroke {
    Stroke { x1: from.at.x, y1: from.at.y, x2: to.at.x, y2: to.at.y, color }
}
