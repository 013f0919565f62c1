//! Layers of settings: defaults < file < environment < `--set` < flags.
//!
//! `DTWN_RADIO__SUBCHANNELS=4` and `--set radio.subchannels=4` say the same: two underscores stand for a dot, and letters
//! of a variable become lower case. An entry of a list goes by its position or its id: `bs.0.cpu_hz`, `bs.bs1.cpu_hz`.
//! A value is read as TOML (`4`, `true`, `[0, 100]`, `{ min = 1, max = 2 }`) and, where it is none, as text (`10 ms`).

use super::error::Origin;
use config::{ConfigError, Map, Source, Value, ValueKind};
use std::fmt;

/// Variables that begin with `DTWN_` and are no settings of a topology.
pub const RESERVED_VARIABLES: &[&str] = &[
    "DTWN_AGENT",
    "DTWN_AGENT_FD",
    "DTWN_CONTROL",
    "DTWN_DATA",
    "DTWN_LOG",
    "DTWN_RUN_DIR",
    "DTWN_TEST",
    "DTWN_TORCH_VERSION",
];

const PREFIX: &str = "DTWN_";

/// One setting from outside the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assignment {
    /// Where it came from, for messages.
    pub(super) origin: Origin,
    /// The key, segments separated by dots.
    pub(super) key: String,
    /// The value as written.
    pub(super) value: String,
}

/// Settings from outside the file, each layer over the one before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    environment: Vec<Assignment>,
    set: Vec<Assignment>,
    flags: Vec<Assignment>,
}

impl Overrides {
    /// The `DTWN_*` variables of this process, without [`RESERVED_VARIABLES`].
    pub fn from_environment() -> Self {
        // A name or value that is not UTF-8 cannot be a setting.
        let all =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self::from_variables(all)
    }

    /// As [`from_environment`](Self::from_environment), from given variables.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment: Vec<Assignment> = variables
            .into_iter()
            .filter(|(name, _)| !RESERVED_VARIABLES.contains(&name.as_str()))
            .filter_map(|(name, value)| {
                let key = name.strip_prefix(PREFIX)?.to_lowercase().replace("__", ".");
                is_setting(&key).then_some(Assignment { origin: Origin::Environment(name), key, value })
            })
            .collect();
        // The environment has no order of its own; errors should have one.
        environment.sort_by(|a, b| a.key.cmp(&b.key));
        Self { environment, ..Self::default() }
    }

    /// Adds a `--set key=value`. One without `=` is reported when the topology is loaded.
    pub fn set(&mut self, assignment: &str) {
        let (key, value) = assignment.split_once('=').unwrap_or((assignment, ""));
        let origin = Origin::Set(assignment.to_owned());
        self.set.push(Assignment { origin, key: key.trim().to_owned(), value: value.trim().to_owned() });
    }

    /// Adds what a flag of the command line means: `flag("--seed 7", "run.seed", "7")`.
    pub fn flag(&mut self, flag: &str, key: &str, value: &str) {
        let origin = Origin::Flag(flag.to_owned());
        self.flags.push(Assignment { origin, key: key.to_owned(), value: value.to_owned() });
    }

    /// All settings, weakest first.
    pub(super) fn assignments(&self) -> impl Iterator<Item = &Assignment> {
        self.environment.iter().chain(&self.set).chain(&self.flags)
    }
}

/// Whether a variable's key can be meant as a setting: it names a section, or a section with one underscore too few,
/// which is reported rather than passed over.
fn is_setting(key: &str) -> bool {
    let section = key.split('.').next().unwrap_or(key);
    key.contains('.')
        || SECTIONS.iter().any(|known| {
            section.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        })
}

/// The keys of a file's top level.
pub(super) const SECTIONS: [&str; 13] = [
    "tcp",
    "run",
    "radio",
    "cost",
    "chain",
    "learning",
    "association",
    "maddpg",
    "twins",
    "mbs",
    "link",
    "bs",
    "users",
];

/// A layer over the file: one assignment. Its values carry `tag` as their origin.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) assignment: Assignment,
    pub(super) tag: String,
}

/// An assignment that has no place to go.
#[derive(Debug)]
pub(super) struct NoPlace {
    pub(super) tag: String,
    pub(super) message: String,
    pub(super) help: String,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for NoPlace {}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        // Only `collect_to` can tell positions and ids of lists that lie below.
        let mut cache = Value::new(None, Map::<String, Value>::new());
        self.collect_to(&mut cache)?;
        cache.into_table()
    }

    fn collect_to(&self, cache: &mut Value) -> Result<(), ConfigError> {
        let value = parse_value(&self.assignment.value, &self.tag);
        let mut place = cache;
        for segment in self.assignment.key.split('.') {
            place = step(place, segment, &self.tag).map_err(|(message, help)| {
                let key = &self.assignment.key;
                let message = format!("`{key}` names no setting: {message}");
                ConfigError::Foreign(Box::new(NoPlace { tag: self.tag.clone(), message, help }))
            })?;
        }
        *place = value;
        Ok(())
    }
}

/// The value that a segment names inside another; a table gets a new entry for an unknown name.
fn step<'a>(place: &'a mut Value, segment: &str, tag: &str) -> Result<&'a mut Value, (String, String)> {
    if segment.is_empty() {
        return Err((
            "part of it is empty".to_owned(),
            "write section.key=value, like run.seed=7".to_owned(),
        ));
    }
    if !matches!(place.kind, ValueKind::Table(_) | ValueKind::Array(_)) {
        // A table in place of a plain value, as in loss.good_to_bad over loss = 0.
        *place = Value::new(Some(&tag.to_owned()), Map::<String, Value>::new());
    }
    match &mut place.kind {
        ValueKind::Array(list) => {
            let count = list.len();
            let ids: Vec<String> = list.iter().filter_map(id_of).collect();
            let index = segment.parse().ok().filter(|i| *i < count);
            let index =
                index.or_else(|| list.iter().position(|entry| id_of(entry).as_deref() == Some(segment)));
            let help = if count == 0 {
                "the list is empty".to_owned()
            } else {
                format!("entries: 0 to {}{}", count - 1, or_ids(&ids))
            };
            let missing = || (format!("there is no entry {segment:?} in the list"), help);
            index.and_then(|i| list.get_mut(i)).ok_or_else(missing)
        }
        ValueKind::Table(table) => Ok(table.entry(segment.to_owned()).or_default()),
        _ => Err(("it leads into a plain value".to_owned(), "leave off the last part".to_owned())),
    }
}

fn or_ids(ids: &[String]) -> String {
    if ids.is_empty() { String::new() } else { format!(", or {}", ids.join(", ")) }
}

fn id_of(entry: &Value) -> Option<String> {
    match &entry.kind {
        ValueKind::Table(table) => table.get("id").and_then(|id| id.clone().into_string().ok()),
        _ => None,
    }
}

/// A value as TOML, or as text where it is none. So is `nan`, which no key takes as a number, but `learning.poison` as a name.
fn parse_value(text: &str, tag: &str) -> Value {
    let value = text.parse::<toml::Value>().ok();
    let value = value.filter(|value| !value.as_float().is_some_and(f64::is_nan));
    let value = value.unwrap_or_else(|| toml::Value::String(text.to_owned()));
    to_config(value, tag)
}

fn to_config(value: toml::Value, tag: &str) -> Value {
    let kind = match value {
        toml::Value::String(text) => ValueKind::String(text),
        toml::Value::Integer(n) => ValueKind::I64(n),
        toml::Value::Float(n) => ValueKind::Float(n),
        toml::Value::Boolean(b) => ValueKind::Boolean(b),
        toml::Value::Datetime(at) => ValueKind::String(at.to_string()),
        toml::Value::Array(list) => ValueKind::Array(list.into_iter().map(|v| to_config(v, tag)).collect()),
        toml::Value::Table(table) => {
            ValueKind::Table(table.into_iter().map(|(k, v)| (k, to_config(v, tag))).collect())
        }
    };
    Value::new(Some(&tag.to_owned()), kind)
}
