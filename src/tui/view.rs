//! The frame around the screens.
//!
//! ```text
//! small 1 Overview 2 Map 3 Links 4 Logs 5 Faults            12.3 s  fidelity ok
//! …the screen…
//! K kill  p pause  / filter  : command  ? help  q quit
//! ```

use dtwn_proto::event::Level;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Block, BorderType, Clear, Paragraph, Widget, Wrap},
};

use super::{
    command, format,
    keys::{Binding, GLOBAL, REPLAY},
    model::{Dialog, Feed, Form, Model},
    replay,
};

/// Below this size nothing but a line of state fits.
const TINY: (u16, u16) = (20, 5);

/// Characters of a run's name that always show beside tabs with names.
const NAME_MIN: usize = 4;

/// Something that the mouse can point at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// The tab of a screen.
    Tab(usize),
    /// A row of a list of the screen.
    Row(u8, usize),
    /// A column's header of a list.
    Header(u8, usize),
}

/// Where things were drawn.
#[derive(Debug, Clone, Default)]
pub struct Hits(Vec<(Rect, Zone)>);

impl Hits {
    /// Remembers a zone.
    pub fn add(&mut self, area: Rect, zone: Zone) {
        self.0.push((area, zone));
    }

    /// The zone at a place.
    pub fn at(&self, column: u16, row: u16) -> Option<Zone> {
        let hit = |area: &Rect| area.contains((column, row).into());
        self.0.iter().rev().find(|(area, _)| hit(area)).map(|(_, zone)| *zone)
    }
}

/// Draws everything; where what was drawn.
pub fn view(model: &Model, area: Rect, buf: &mut Buffer) -> Hits {
    let mut hits = Hits::default();
    if area.width < TINY.0 || area.height < TINY.1 {
        tiny(model, area, buf);
        return hits;
    }
    let top = Rect { height: 1, ..area };
    let bottom = Rect { y: area.bottom() - 1, height: 1, ..area };
    let mut body = Rect { y: area.y + 1, height: area.height - 2, ..area };
    if let Some(status) = &model.replay {
        body.height -= 1;
        replay::bar(status, Rect { y: body.bottom(), height: 1, ..area }, buf, model.theme);
    }
    title(model, top, buf, &mut hits);
    model.screen().view(&model.seen(), body, buf, &mut hits);
    footer(model, bottom, buf);
    dialog(model, area, body, buf);
    hits
}

fn tiny(model: &Model, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let run = &model.live.run;
    let text = format!("{} {:.0}s {}", model.name, run.now_ns as f64 / 1e9, run.fidelity.verdict);
    buf.set_stringn(area.x, area.y, text, area.width as usize, Style::new());
}

fn title(model: &Model, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
    let theme = model.theme;
    let state = state_of(model);
    let state_width = state.width() as u16;
    let mut x = area.x;
    let mut put = |text: &str, style: Style, zone: Option<Zone>, hits: &mut Hits| {
        let room = area.right().saturating_sub(x);
        let (end, _) = buf.set_stringn(x, area.y, text, room as usize, style);
        if let Some(zone) = zone {
            hits.add(Rect::new(x, area.y, end - x, 1), zone);
        }
        x = end;
    };
    let tabs_width = |style: &TabStyle| -> usize {
        model.screens.iter().map(|screen| tab(style, 0, screen.title()).len() + 1).sum()
    };
    let room = usize::from(area.width.saturating_sub(state_width + 1));
    let name_width = Span::raw(&model.name).width();
    let whole = TabStyle::ALL.into_iter().find(|style| name_width + tabs_width(style) <= room);
    // A long name shortens before the tabs become numbers; who has forgotten it finds it where the view is left.
    let for_name = room.saturating_sub(tabs_width(&TabStyle::Shorter));
    let (name, tab_style) = match whole {
        Some(TabStyle::Number) | None if for_name > NAME_MIN => {
            let kept: String = model.name.chars().take(for_name - 1).collect();
            (format!("{kept}…"), TabStyle::Shorter)
        }
        found => (model.name.clone(), found.unwrap_or(TabStyle::Number)),
    };
    put(&name, theme.title(), None, hits);
    for (index, screen) in model.screens.iter().enumerate() {
        let current = index == model.current;
        let style = if current { theme.selected() } else { theme.text() };
        put(" ", theme.text(), None, hits);
        let text = match (current, &tab_style) {
            (true, TabStyle::Number) => tab(&TabStyle::Tight, index, screen.title()),
            (_, style) => tab(style, index, screen.title()),
        };
        put(&text, style, Some(Zone::Tab(index)), hits);
    }
    if x + 1 + state_width <= area.right() {
        buf.set_line(area.right() - state_width, area.y, &state, state_width);
    }
}

/// How much of the screens' names there is room for.
#[derive(Debug, Clone, Copy)]
enum TabStyle {
    Roomy,
    Tight,
    Short,
    Shorter,
    Number,
}

impl TabStyle {
    const ALL: [Self; 5] = [Self::Roomy, Self::Tight, Self::Short, Self::Shorter, Self::Number];
}

fn tab(style: &TabStyle, index: usize, title: &str) -> String {
    let number = index + 1;
    match style {
        TabStyle::Roomy => format!(" {number} {title} "),
        TabStyle::Tight => format!("{number} {title}"),
        TabStyle::Short => format!("{number} {title:.5}"),
        TabStyle::Shorter => format!("{number} {title:.4}"),
        TabStyle::Number => number.to_string(),
    }
}

/// Time and verdict, or what is out of the ordinary.
fn state_of(model: &Model) -> Line<'static> {
    let theme = model.theme;
    let mut spans = Vec::new();
    let mut add =
        |text: &str, style: Style| spans.extend([Span::raw(" "), Span::styled(text.to_owned(), style)]);
    if model.replay.is_some() {
        add("REPLAY", theme.title());
    } else if model.read_only {
        add("read-only", theme.dim());
    }
    match (&model.feed, &model.frozen) {
        (Feed::Closed(_), _) => add("OVER", theme.warning()),
        (_, Some(_)) => add("FROZEN", theme.warning()),
        (Feed::History, _) => add("catching up", theme.dim()),
        (Feed::Live, None) => {}
    }
    let run = &model.seen().data.run;
    add(&format::span(run.now_ns.max(0) as f64 / 1e9), theme.text());
    add(&run.fidelity.verdict.to_string(), theme.verdict(run.fidelity.verdict));
    Line::from(spans)
}

fn footer(model: &Model, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    match &model.dialog {
        Dialog::Command(line, _) => return line.draw(":", area, buf, theme),
        Dialog::Filter(line, _) => return line.draw("/", area, buf, theme),
        Dialog::Only(line, _) => return line.draw("only lines with: ", area, buf, theme),
        _ => {}
    }
    if let Some((level, text)) = &model.toast {
        buf.set_stringn(area.x, area.y, text, area.width as usize, theme.level(*level));
        return;
    }
    if model.pending > 0 {
        buf.set_stringn(area.x, area.y, "asking the session …", area.width as usize, theme.dim());
        return;
    }
    let mut x = area.x;
    // Help and quit are always there: whoever knows these two finds the rest.
    let (last, rest): (Vec<&Binding>, Vec<&Binding>) =
        GLOBAL.iter().filter(|b| !b.hint.is_empty()).partition(|b| matches!(b.hint, "help" | "quit"));
    let key = |binding: &Binding| model.keys.keys_of(binding).first().copied().unwrap_or_default();
    let wide = |binding: &Binding| (key(binding).len() + binding.hint.chars().count() + 3) as u16;
    let reserved: u16 = last.iter().map(|binding| wide(binding)).sum();
    let of_use = |binding: &Binding| model.replay.is_none() || !binding.action.steers();
    let screen = model.screen().keys().iter().filter(|binding| !binding.hint.is_empty() && of_use(binding));
    let mut shown: Vec<&Binding> = Vec::new();
    let mut used = reserved;
    let replayed = REPLAY.iter().filter(|binding| model.replay.is_some() && !binding.hint.is_empty());
    for binding in replayed.chain(screen).chain(rest) {
        if used + wide(binding) <= area.width {
            used += wide(binding);
            shown.push(binding);
        }
    }
    for binding in shown.into_iter().chain(last) {
        let room = |x: u16| area.right().saturating_sub(x) as usize;
        (x, _) = buf.set_stringn(x, area.y, key(binding), room(x), theme.title());
        (x, _) = buf.set_stringn(x, area.y, format!(" {}  ", binding.hint), room(x), theme.dim());
    }
}

fn dialog(model: &Model, area: Rect, body: Rect, buf: &mut Buffer) {
    match &model.dialog {
        Dialog::Help(top) => help(model, *top, body, buf),
        Dialog::Quit => {
            let text = vec![
                Line::raw(format!("d  detach: {} goes on; `dtwn attach {}` returns", model.name, model.name)),
                Line::raw(format!("s  stop: end {} for everybody", model.name)),
                Line::raw("esc  stay"),
            ];
            dialog_box(model, "Leave", text, area, buf);
        }
        Dialog::Confirm { question, .. } => {
            let text = vec![Line::raw(question.clone()), Line::raw("y yes   n no")];
            dialog_box(model, "Sure?", text, area, buf);
        }
        Dialog::Over => dialog_box(model, "The run is over", over(model), area, buf),
        Dialog::Form(form) => draw_form(model, form, area, buf),
        Dialog::Command(line, _) => candidates(model, &line.before_cursor(), area, buf),
        Dialog::None | Dialog::Filter(..) | Dialog::Only(..) => {}
    }
}

fn over(model: &Model) -> Vec<Line<'static>> {
    let run = &model.live.run;
    let how = match (&run.ended, &model.feed) {
        (Some(reason), _) => format::end_reason(reason),
        (None, Feed::Closed(Some(why))) => format!("without a word: {why}"),
        (None, _) => "without a word".into(),
    };
    vec![
        Line::raw(format!(
            "{} {how} after {} (emulated).",
            model.name,
            format::span(run.now_ns as f64 / 1e9)
        )),
        Line::raw(format!("Recorded in {}", model.run_dir.display())),
        Line::raw("q or Enter leaves, any other key looks around."),
    ]
}

/// A box in the middle; what is inside.
fn frame(model: &Model, title: &str, width: u16, height: u16, area: Rect, buf: &mut Buffer) -> Rect {
    let (width, height) = ((width + 4).min(area.width), (height + 2).min(area.height));
    let place =
        Rect::new(area.x + (area.width - width) / 2, area.y + (area.height - height) / 2, width, height);
    Clear.render(place, buf);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(model.theme.title())
        .title(format!(" {title} "));
    let inner = block.inner(place);
    block.render(place, buf);
    Rect { x: inner.x + inner.width.min(1), width: inner.width.saturating_sub(2), ..inner }
}

fn dialog_box(model: &Model, title: &str, text: Vec<Line<'_>>, area: Rect, buf: &mut Buffer) {
    let widest = text.iter().map(Line::width).max().unwrap_or(0).min(area.width.saturating_sub(4) as usize);
    let room = widest.max(1);
    let rows: usize = text.iter().map(|line| line.width().div_ceil(room).max(1)).sum();
    let inner = frame(model, title, widest as u16, rows as u16 + 1, area, buf);
    // Words move to the next line whole, which may take one more row than the letters need.
    Paragraph::new(text).wrap(Wrap { trim: false }).render(inner, buf);
}

fn help(model: &Model, top: usize, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let mut lines = Vec::new();
    let entries = |table: &[Binding]| -> Vec<Line<'static>> {
        let of_use = |binding: &&Binding| model.replay.is_none() || !binding.action.steers();
        let shown = table.iter().filter(|binding| !binding.help.is_empty()).filter(of_use);
        shown
            .map(|binding| {
                let keys = model.keys.keys_of(binding).join(" ");
                Line::from(vec![
                    Span::styled(format!("{keys:>18}  "), theme.title()),
                    Span::raw(binding.help),
                ])
            })
            .collect()
    };
    if model.replay.is_some() {
        lines.push(Line::styled("In a replay", theme.warning()));
        lines.extend(entries(REPLAY));
    }
    lines.push(Line::styled(format!("On {}", model.screen().title()), theme.warning()));
    lines.extend(entries(model.screen().keys()));
    lines.push(Line::styled("Everywhere", theme.warning()));
    lines.extend(entries(GLOBAL));
    let widest = lines.iter().map(Line::width).max().unwrap_or(0) as u16;
    let count = lines.len() as u16;
    let inner = frame(model, "Keys (any other key closes)", widest, count, area, buf);
    let top = (top as u64).min(u64::from(count.saturating_sub(inner.height))) as u16;
    Paragraph::new(lines).scroll((top, 0)).render(inner, buf);
}

fn draw_form(model: &Model, form: &Form, area: Rect, buf: &mut Buffer) {
    let theme = model.theme;
    let rows = form.fields.len() as u16;
    let inner = frame(model, &form.link.name, 46, rows + 2, area, buf);
    for (index, field) in form.fields.iter().enumerate() {
        let place = Rect { y: inner.y + index as u16, height: 1, ..inner }.intersection(inner);
        let prompt = format!("{:<8}", field.label);
        if index == form.at {
            field.input.draw(&prompt, place, buf, theme);
        } else if !place.is_empty() {
            let text = format!("{prompt}{}", field.input.text());
            buf.set_stringn(place.x, place.y, text, place.width as usize, theme.text());
        }
    }
    let last = Rect { y: inner.y + rows + 1, height: 1, ..inner }.intersection(inner);
    if !last.is_empty() {
        let (text, style) = match &form.error {
            Some(error) => (error.as_str(), theme.bad()),
            None => ("Enter applies, Esc leaves all as it is", theme.dim()),
        };
        buf.set_stringn(last.x, last.y, text, last.width as usize, style);
    }
}

/// What Tab would offer, above the command line.
fn candidates(model: &Model, before: &str, area: Rect, buf: &mut Buffer) {
    let titles: Vec<_> = model.screens.iter().map(|screen| screen.title()).collect();
    let candidates = command::completions(before, &titles, &model.live, model.replay.is_some());
    if candidates.is_empty() || area.height < 3 {
        return;
    }
    let place = Rect { y: area.bottom() - 2, height: 1, ..area };
    Clear.render(place, buf);
    buf.set_stringn(place.x, place.y, candidates.join("  "), place.width as usize, model.theme.dim());
}

/// The style of a level, for screens that list what happened.
pub fn level_mark(level: Level) -> &'static str {
    match level {
        Level::Info => " ",
        Level::Warning => "!",
        Level::Error => "✗",
    }
}
