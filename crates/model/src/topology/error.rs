//! What is wrong with a topology, and where it was written.

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Why there is no topology. All but `Invalid` are about the file as a whole.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum TopologyError {
    /// The file cannot be read at all.
    #[error("cannot read the topology {}: {cause}", path.display())]
    #[diagnostic(code(topology::read), help("{help}"))]
    Read {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        cause: std::io::Error,
        /// What would be right.
        help: &'static str,
    },
    /// The file holds something else than text.
    #[error("{} is not UTF-8 text: byte {offset} cannot be read", path.display())]
    #[diagnostic(code(topology::utf8), help("save the file in UTF-8; a topology is a TOML text file"))]
    NotUtf8 {
        /// Its path.
        path: PathBuf,
        /// Where the first byte that is none stands, from 0.
        offset: usize,
        /// The text, with a replacement character for what cannot be read.
        #[source_code]
        text: NamedSource<Arc<String>>,
        /// The first replacement character.
        #[label("not UTF-8 from here")]
        at: SourceSpan,
    },
    /// The text is not TOML, or not a topology: every problem that was found, at least one.
    #[error("{}", summary(path, problems))]
    #[diagnostic(code(topology::invalid))]
    Invalid {
        /// Where the topology came from.
        path: PathBuf,
        /// The problems, in the order of the file, then those of the environment and the command line.
        #[related]
        problems: Vec<Problem>,
    },
    /// A hand-made topology that TOML cannot hold.
    #[error("cannot write the topology as TOML: {message}")]
    #[diagnostic(code(topology::render))]
    Render {
        /// The serializer's words.
        message: String,
    },
}

impl TopologyError {
    /// The problems found, when the file could be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            _ => &[],
        }
    }
}

/// One line for people who see no diagnostics: the count, and the problem itself when there is only one.
fn summary(path: &std::path::Path, problems: &[Problem]) -> String {
    match problems {
        [one] => format!("{}: {one}", path.display()),
        many => format!("{}: {} problems", path.display(), many.len()),
    }
}

/// Where an offending value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The file, at a line and column from 1.
    File {
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A `--set key=value` as given.
    Set(String),
    /// A command-line flag as given.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { line, column } => write!(f, "line {line}, column {column}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Set(text) => write!(f, "--set {text}"),
            Self::Flag(text) => f.write_str(text),
        }
    }
}

/// One thing that is wrong, with the text it is about.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What is wrong, a sentence.
    pub message: String,
    /// The key it is about, as in `bs[0].cpu_hz`; empty for the file as a whole.
    pub key: String,
    /// Where it was written.
    pub origin: Origin,
    /// What would be right.
    pub help: Option<String>,
    /// The offending bytes of `source`.
    pub span: SourceSpan,
    /// The file, or the assignment that stands in for it.
    pub source: NamedSource<Arc<String>>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.origin)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = if self.key.is_empty() { "here".to_owned() } else { self.key.clone() };
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(label), self.span))))
    }
}
