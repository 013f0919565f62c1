//! The model: all that the screen shows, and the messages that change it.

use std::path::PathBuf;

use crossterm::event::{KeyEvent, MouseEvent};
use dtwn_proto::{
    control::Request,
    event::{Event, Level, LinkInfo},
};

use super::{
    data::Data,
    keys::KeyMap,
    line_input::LineInput,
    logs::{LogLine, LogStore},
    replay::{self, News},
    screens::{self, Screen, Seen},
    sites::Sites,
    theme::Theme,
    view::Hits,
};

/// Commands remembered.
pub const COMMANDS_MAX: usize = 100;

/// What moves the model.
#[derive(Debug)]
pub enum Msg {
    /// A key.
    Key(KeyEvent),
    /// The mouse.
    Mouse(MouseEvent),
    /// Text pasted into the terminal.
    Paste(String),
    /// The terminal has this many columns and rows now.
    Resize(u16, u16),
    /// Something happened in the run.
    Event(Box<Event>),
    /// This viewer was too slow for so many events.
    Skipped(u64),
    /// The events so far are all here.
    Live,
    /// The session closed the stream; why, unless that was to be expected.
    Closed(Option<String>),
    /// Lines of log files.
    Logs(Vec<LogLine>),
    /// How an order went.
    Ordered {
        /// What was ordered.
        label: String,
        /// The session's refusal.
        result: Result<(), String>,
    },
    /// Word from a replay.
    Replay(News),
    /// How writing a file went.
    Exported(Result<PathBuf, String>),
    /// A signal that ends the program.
    Signal(i32),
    /// The terminal has gone.
    TerminalGone,
    /// The program was stopped and goes on: the terminal may be in any state.
    Continued,
    /// A thread of the interface panicked.
    Panicked(String),
}

/// What the model asks of the outside.
#[derive(Debug)]
pub enum Effect {
    /// Send requests to the session, in order, until one is refused.
    Order {
        /// In words.
        label: String,
        /// The requests.
        requests: Vec<Request>,
    },
    /// Ask something of the replay.
    Replay(replay::Order),
    /// Write the current view to a file; its ending says how.
    Export(PathBuf),
    /// Forget what the terminal shows.
    Redraw,
    /// Suspend the terminal's modes and set them up again.
    Reopen,
}

/// How the interface ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// The run goes on.
    Detach,
    /// The run is over.
    Over,
    /// By a signal.
    Signal(i32),
    /// The terminal has gone.
    TerminalGone,
    /// A fault of the interface itself.
    Broken(String),
}

/// Where the stream of events stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// Events of the past arrive.
    History,
    /// Events arrive as they happen.
    Live,
    /// The session has ended; how, when that was not by an [`dtwn_proto::event::What::Ended`].
    Closed(Option<String>),
}

/// What lies over the screen and takes the keys.
#[derive(Debug, Default)]
pub enum Dialog {
    /// Nothing.
    #[default]
    None,
    /// All keys, scrolled by so many lines.
    Help(usize),
    /// Detach, stop, or stay.
    Quit,
    /// A question before something is destroyed.
    Confirm {
        /// The question.
        question: String,
        /// What a yes does.
        effect: Effect,
    },
    /// A command line, and how far back in the past ones it looks.
    Command(LineInput, usize),
    /// A filter being typed, and what it was before.
    Filter(LineInput, String),
    /// What log lines must contain, and what it was before.
    Only(LineInput, String),
    /// A link's impairments.
    Form(Form),
    /// The run is over.
    Over,
}

/// A form for a link's impairments.
#[derive(Debug)]
pub struct Form {
    /// The link as it was when the form opened.
    pub link: LinkInfo,
    /// Flag, value, and the value that was there.
    pub fields: Vec<Field>,
    /// The field with the cursor.
    pub at: usize,
    /// What was wrong with the last try.
    pub error: Option<String>,
}

/// A field of a form.
#[derive(Debug)]
pub struct Field {
    /// What it is.
    pub label: &'static str,
    /// The flag of `dtwn link set`; empty for the state up or down.
    pub flag: &'static str,
    /// What it says.
    pub input: LineInput,
    /// What it said.
    pub before: String,
}

/// All that the screen shows.
#[derive(Debug)]
pub struct Model {
    /// The session's name.
    pub name: String,
    /// Where it records.
    pub run_dir: PathBuf,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Columns and rows.
    pub size: (u16, u16),
    /// The run, now.
    pub live: Data,
    /// The run when the picture was frozen.
    pub frozen: Option<Box<Data>>,
    /// The event stream.
    pub feed: Feed,
    /// Where a replay stands; `None` for a run that happens now.
    pub replay: Option<replay::Status>,
    /// Where stations are.
    pub sites: Sites,
    /// Log lines.
    pub logs: LogStore,
    /// Colours.
    pub theme: Theme,
    /// Which keys mean what.
    pub keys: KeyMap,
    /// The screens, in the order of their numbers.
    pub screens: Vec<Box<dyn Screen>>,
    /// The one that shows.
    pub current: usize,
    /// What lies over it.
    pub dialog: Dialog,
    /// A word about the last action, until the next key.
    pub toast: Option<(Level, String)>,
    /// Orders not answered yet.
    pub pending: usize,
    /// Whether the run is to be stopped and the interface to end with it.
    pub stopping: bool,
    /// Past command lines.
    pub commands: Vec<String>,
    /// Where things were drawn, for the mouse.
    pub hits: Hits,
    /// Set when the interface is to end.
    pub leave: Option<Leave>,
}

impl Model {
    /// A model of a run that nothing is known of yet.
    pub fn new(name: String, run_dir: PathBuf, read_only: bool, size: (u16, u16), theme: Theme) -> Self {
        Self {
            name,
            run_dir,
            read_only,
            size,
            live: Data::default(),
            frozen: None,
            feed: Feed::History,
            replay: None,
            sites: Sites::default(),
            logs: LogStore::default(),
            theme,
            keys: KeyMap::default(),
            screens: screens::all(),
            current: 0,
            dialog: Dialog::None,
            toast: None,
            pending: 0,
            stopping: false,
            commands: Vec::new(),
            hits: Hits::default(),
            leave: None,
        }
    }

    /// What the screens see.
    pub fn seen(&self) -> Seen<'_> {
        Seen {
            data: self.frozen.as_deref().unwrap_or(&self.live),
            sites: &self.sites,
            logs: &self.logs,
            theme: self.theme,
            height: self.size.1.saturating_sub(2 + u16::from(self.replay.is_some())),
        }
    }

    /// The screen that shows, with what it sees.
    pub fn screen_mut(&mut self) -> (&mut dyn Screen, Seen<'_>) {
        let seen = Seen {
            data: self.frozen.as_deref().unwrap_or(&self.live),
            sites: &self.sites,
            logs: &self.logs,
            theme: self.theme,
            height: self.size.1.saturating_sub(2 + u16::from(self.replay.is_some())),
        };
        (self.screens[self.current].as_mut(), seen)
    }

    /// The screen that shows.
    pub fn screen(&self) -> &dyn Screen {
        self.screens[self.current].as_ref()
    }

    /// Whether the session has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.feed, Feed::Closed(_))
    }

    /// Whether log files should be read.
    pub fn wants_logs(&self) -> bool {
        self.screen().wants_logs() && !self.is_over()
    }
}
