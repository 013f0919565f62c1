//! From a file and its overrides to a checked [`Topology`].

use super::error::{Origin, Problem, TopologyError};
use super::layers::{Assignment, Layer, NoPlace, Overrides};
use super::nodes::Generator;
use super::spans::{Part, SourceMap, parent};
use super::{Topology, resolve, validate};
use config::{Config, ConfigError, File, FileFormat, Value, ValueKind};
use miette::NamedSource;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A topology, checked, with what identifies it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Where it came from.
    pub path: PathBuf,
    /// The network.
    pub topology: Topology,
    /// [`Topology::render`]: a file that says the same with nothing left to defaults, environment or flags.
    pub rendered: String,
    /// [`Topology::hash`].
    pub hash: String,
}

/// Reads a topology file, puts the overrides on top, and checks the result.
///
/// # Errors
/// The file cannot be read, is not UTF-8 or not TOML, or says what cannot be: all such problems at once, each with its
/// place in the file, or the variable or argument that it came from.
pub fn load(path: impl AsRef<Path>, overrides: &Overrides) -> Result<Loaded, TopologyError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|cause| read_error(path, cause))?;
    let text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))?;
    parse(path, text, overrides)
}

/// As [`load`], from a text that goes by the name `path`.
///
/// # Errors
/// As [`load`], without those of reading.
pub fn parse(path: impl AsRef<Path>, text: String, overrides: &Overrides) -> Result<Loaded, TopologyError> {
    let path = path.as_ref();
    let invalid = |problems| TopologyError::Invalid { path: path.to_owned(), problems };
    let source = SourceMap::parse(&path.display().to_string(), text).map_err(&invalid)?;
    let topology = read(&source, overrides).map_err(&invalid)?;
    let rendered = topology.render()?;
    let hash = topology.hash()?;
    Ok(Loaded { path: path.to_owned(), topology, rendered, hash })
}

fn read_error(path: &Path, cause: std::io::Error) -> TopologyError {
    let help = match cause.kind() {
        std::io::ErrorKind::NotFound => "there is no such file; name one, like topologies/paper.toml",
        std::io::ErrorKind::PermissionDenied => "you may not read it",
        std::io::ErrorKind::IsADirectory => "that is a directory; name a file in it",
        _ => "name a file that can be read",
    };
    TopologyError::Read { path: path.to_owned(), cause, help }
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> TopologyError {
    let offset = error.utf8_error().valid_up_to();
    let text = Arc::new(String::from_utf8_lossy(error.as_bytes()).into_owned());
    TopologyError::NotUtf8 {
        path: path.to_owned(),
        offset,
        text: NamedSource::new(path.display().to_string(), text),
        at: (offset, char::REPLACEMENT_CHARACTER.len_utf8()).into(),
    }
}

fn read(source: &SourceMap, overrides: &Overrides) -> Result<Topology, Vec<Problem>> {
    let assignments: Vec<Assignment> = overrides.assignments().cloned().collect();
    let report = Report { source, assignments: &assignments };
    let merged = merge(&report)?;
    let mut set_by = Vec::new();
    let tree = to_toml(&merged, "", &mut set_by);
    let (topology, mut findings, places) = resolve::resolve(tree);
    let broken: Vec<String> = findings.iter().map(|finding| finding.path.clone()).collect();
    for finding in validate::validate(&topology) {
        let path = places.in_file(&finding.path);
        let finding = Finding { message: finding.message.replace(&finding.path, &path), path, ..finding };
        // What follows from a value that could not be read is not worth telling, nor the same slip of an entry again in
        // each of the BSs it stands for.
        let follows =
            |path: &String| related(path, &finding.path) || (hides_names(path) && refers(&finding.path));
        if !broken.iter().any(follows) && !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    if findings.is_empty() {
        return Ok(topology);
    }
    let mut problems: Vec<Problem> =
        findings.into_iter().map(|finding| report.problem(finding, &set_by)).collect();
    problems.sort_by_key(|problem| match &problem.origin {
        Origin::File { line, column } => (0, *line, *column),
        _ => (1, 0, 0),
    });
    Err(problems)
}

/// Whether one path is the other or lies inside it.
fn related(a: &str, b: &str) -> bool {
    let inside = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    inside(a, b) || inside(b, a)
}

/// Whether a problem at this path takes the name of a station out of sight: with its list, its entry or its id.
fn hides_names(path: &str) -> bool {
    let entry = path.split('.').next().unwrap_or(path);
    let stations = ["mbs", "bs", "users"].contains(&entry.split('[').next().unwrap_or(entry));
    let generator = entry.starts_with("bs[") && Generator::KEYS.iter().any(|key| path.ends_with(key));
    stations && (path == entry || path.ends_with(".id") || generator)
}

/// Whether what stands at this path names a station.
fn refers(path: &str) -> bool {
    [".around", ".from", ".to"].iter().any(|key| path.ends_with(key))
}

/// Something wrong at a path, before it is known where that was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) path: String,
    pub(super) part: Part,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Puts the layers over each other.
fn merge(report: &Report<'_>) -> Result<Value, Vec<Problem>> {
    let whole = |error: &dyn std::fmt::Display| {
        vec![report.source.problem("", Part::Value, format!("cannot be read: {error}"), None)]
    };
    let defaults = Topology::default().render().map_err(|e| whole(&e))?;
    let mut builder = Config::builder()
        .add_source(File::from_str(&defaults, FileFormat::Toml))
        .add_source(File::from_str(report.source.text(), FileFormat::Toml));
    let mut misplaced = Vec::new();
    for (i, assignment) in report.assignments.iter().enumerate() {
        if let Some(finding) = malformed(assignment) {
            misplaced.push(report.of_assignment(assignment, finding));
            continue;
        }
        builder = builder.add_source(Layer { assignment: assignment.clone(), tag: i.to_string() });
    }
    if !misplaced.is_empty() {
        return Err(misplaced);
    }
    builder.build().map(|config| config.cache).map_err(|error| match error {
        ConfigError::Foreign(inner) => match inner.downcast::<NoPlace>() {
            Ok(lost) => vec![report.no_place(*lost)],
            Err(other) => whole(&other),
        },
        other => whole(&other),
    })
}

fn malformed(assignment: &Assignment) -> Option<Finding> {
    let finding = |message, help: &str| Finding {
        path: assignment.key.clone(),
        part: Part::Key,
        message,
        help: Some(help.to_owned()),
    };
    match &assignment.origin {
        Origin::Set(text) if !text.contains('=') => {
            Some(finding(format!("`{text}` sets nothing"), "write --set key=value, like --set run.seed=7"))
        }
        Origin::Environment(name) if !assignment.key.contains('.') && assignment.key.contains('_') => {
            Some(finding(
                format!("`{name}` names no setting"),
                "section and key are joined by two underscores, like DTWN_RADIO__SUBCHANNELS",
            ))
        }
        _ => None,
    }
}

/// The merged tree as TOML, noting which paths came from which assignment.
fn to_toml(value: &Value, path: &str, set_by: &mut Vec<(String, usize)>) -> toml::Value {
    if let Some(index) = value.origin().and_then(|tag| tag.parse().ok()) {
        set_by.push((path.to_owned(), index));
    }
    match &value.kind {
        ValueKind::Boolean(b) => toml::Value::Boolean(*b),
        ValueKind::I64(n) => toml::Value::Integer(*n),
        ValueKind::Float(n) => toml::Value::Float(*n),
        ValueKind::String(text) => toml::Value::String(text.clone()),
        ValueKind::Array(list) => toml::Value::Array(
            list.iter().enumerate().map(|(i, v)| to_toml(v, &format!("{path}[{i}]"), set_by)).collect(),
        ),
        ValueKind::Table(table) => toml::Value::Table(
            table
                .iter()
                .map(|(key, v)| (key.clone(), to_toml(v, &super::spans::join(path, key), set_by)))
                .collect(),
        ),
        // TOML yields none of these; as text they meet the check of the key's own type.
        ValueKind::Nil => toml::Value::String(String::new()),
        ValueKind::U64(_) | ValueKind::I128(_) | ValueKind::U128(_) => toml::Value::String(value.to_string()),
    }
}

/// What turns findings into problems with a place.
struct Report<'a> {
    source: &'a SourceMap,
    assignments: &'a [Assignment],
}

impl Report<'_> {
    /// A finding at the place where its value was written last: the assignment that set it or something around it, else
    /// the file, else the assignment that made it by setting something inside.
    fn problem(&self, finding: Finding, set_by: &[(String, usize)]) -> Problem {
        let mut path = finding.path.as_str();
        if !self.source.holds(path)
            && let Some((_, index)) = set_by.iter().rev().find(|(set, _)| related(set, path))
            && let Some(assignment) = self.assignments.get(*index)
        {
            return self.of_assignment(assignment, finding);
        }
        loop {
            let setter = set_by.iter().rev().find(|(set, _)| set == path);
            if let Some(assignment) = setter.and_then(|(_, index)| self.assignments.get(*index)) {
                return self.of_assignment(assignment, finding);
            }
            if path.is_empty() {
                return self.source.problem(&finding.path, finding.part, finding.message, finding.help);
            }
            path = parent(path);
        }
    }

    fn of_assignment(&self, assignment: &Assignment, finding: Finding) -> Problem {
        let (name, text, span) = match &assignment.origin {
            Origin::Environment(variable) => {
                let text = format!("{variable}={}", assignment.value);
                ("environment", text, variable_part(variable.len(), &assignment.value, finding.part))
            }
            Origin::Set(text) => {
                let key = text.find('=').unwrap_or(text.len());
                ("--set", text.clone(), variable_part(key, text.get(key + 1..).unwrap_or(""), finding.part))
            }
            Origin::Flag(text) => ("command line", text.clone(), (0, text.len())),
            Origin::File { .. } => ("file", String::new(), (0, 0)),
        };
        Problem {
            message: finding.message,
            key: finding.path,
            origin: assignment.origin.clone(),
            help: finding.help,
            span: span.into(),
            source: NamedSource::new(name, Arc::new(text)),
        }
    }

    fn no_place(&self, lost: NoPlace) -> Problem {
        let finding =
            Finding { path: String::new(), part: Part::Key, message: lost.message, help: Some(lost.help) };
        match lost.tag.parse::<usize>().ok().and_then(|index| self.assignments.get(index)) {
            Some(assignment) => {
                let finding = Finding { path: assignment.key.clone(), ..finding };
                self.of_assignment(assignment, finding)
            }
            None => self.source.problem("", Part::Key, finding.message, finding.help),
        }
    }
}

/// Offset and length of the key or the value in `key=value`.
fn variable_part(key: usize, value: &str, part: Part) -> (usize, usize) {
    match part {
        Part::Key => (0, key),
        Part::Value => (key + 1, value.len()),
    }
}
