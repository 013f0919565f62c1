//! The screens. To add one: write its file with a type that is a [`Screen`], and give it an entry in [`all`].

mod association;
mod chain;
mod faults;
mod learning;
mod links;
mod log_view;
mod map;
mod overview;
mod twins;

use dtwn_proto::{control::Request, event::LinkInfo};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::Line,
    widgets::{Block, Borders, Widget},
};

use super::{
    data::Data,
    keys::{Action, Binding},
    logs::LogStore,
    sites::Sites,
    theme::Theme,
    view::{Hits, Zone},
};

/// Every screen, in the order of their numbers.
pub fn all() -> Vec<Box<dyn Screen>> {
    vec![
        Box::<overview::Overview>::default(),
        Box::<map::Map>::default(),
        Box::<links::Links>::default(),
        Box::<chain::Chain>::default(),
        Box::<learning::Learning>::default(),
        Box::<association::Association>::default(),
        Box::<log_view::LogView>::default(),
        Box::<faults::Faults>::default(),
    ]
}

/// What a screen may look at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The run.
    pub data: &'a Data,
    /// Where stations are.
    pub sites: &'a Sites,
    /// Log lines.
    pub logs: &'a LogStore,
    /// Colours.
    pub theme: Theme,
    /// Rows that a screen has.
    pub height: u16,
}

/// What a screen wants done.
#[derive(Debug)]
pub enum Reply {
    /// Send requests, after a question if there is one.
    Order {
        /// The question.
        confirm: Option<String>,
        /// In words.
        label: String,
        /// The requests.
        requests: Vec<Request>,
    },
    /// Open the command line with this on it.
    Command(String),
    /// Say something.
    Say(String),
}

/// A table for export: its header and its rows.
pub type Sheet = (Vec<&'static str>, Vec<Vec<String>>);

/// A screen.
pub trait Screen: std::fmt::Debug {
    /// Its name, in the tabs and as a command.
    fn title(&self) -> &'static str;
    /// Its own keys.
    fn keys(&self) -> &'static [Binding];
    /// Draws it.
    fn view(&self, seen: &Seen<'_>, area: Rect, buf: &mut Buffer, hits: &mut Hits);
    /// Takes an action.
    fn act(&mut self, seen: &Seen<'_>, action: Action) -> Option<Reply>;
    /// Takes a click into one of its zones.
    fn click(&mut self, _seen: &Seen<'_>, _zone: Zone) {}
    /// The selected node.
    fn node(&self, _seen: &Seen<'_>) -> Option<String> {
        None
    }
    /// The selected link.
    fn link(&self, _seen: &Seen<'_>) -> Option<LinkInfo> {
        None
    }
    /// What `/` has set, `None` where it does nothing.
    fn filter(&self) -> Option<&str> {
        None
    }
    /// Sets what `/` sets.
    fn set_filter(&mut self, _text: &str) {}
    /// What lines must contain; `None` where there are none.
    fn only(&self) -> Option<&str> {
        None
    }
    /// Sets what lines must contain.
    fn set_only(&mut self, _text: &str) {}
    /// Whether it shows log lines.
    fn wants_logs(&self) -> bool {
        false
    }
    /// What it shows, for CSV and JSON.
    fn sheet(&self, _seen: &Seen<'_>) -> Option<Sheet> {
        None
    }
}

/// The BSs in the order of the topology, by which coins, certificates and decisions count them.
fn bs_names<'a>(seen: &Seen<'a>) -> Vec<&'a str> {
    let nodes = seen.data.run.nodes.values().filter(|node| node.info.role == "bs");
    nodes.map(|node| node.info.name.as_str()).collect()
}

/// Draws a rule with a title; what is left below it.
pub fn section(title: &str, area: Rect, buf: &mut Buffer, theme: Theme) -> Rect {
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(theme.dim())
        .title(Line::styled(format!(" {title} "), theme.title()));
    let inner = block.inner(area);
    block.render(area, buf);
    inner
}

/// Moves a selection among `count` items as an action says; whether the action was one that moves.
pub fn move_selection(selected: &mut usize, count: usize, page: u16, action: Action) -> bool {
    let page = usize::from(page).max(1);
    let last = count.saturating_sub(1);
    *selected = match action {
        Action::Up => selected.saturating_sub(1),
        Action::Down => *selected + 1,
        Action::PageUp => selected.saturating_sub(page),
        Action::PageDown => *selected + page,
        Action::Top => 0,
        Action::Bottom => last,
        _ => return false,
    }
    .min(last);
    true
}
