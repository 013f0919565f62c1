//! Where in a file each key and value stands.

use super::error::{Origin, Problem};
use miette::NamedSource;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file's text with the place of everything in it.
#[derive(Debug, Clone)]
pub(super) struct SourceMap {
    name: String,
    text: Arc<String>,
    /// By path (`bs[0].cpu_hz`): the key, unless it is an array's element, and the value.
    places: HashMap<String, (Option<Range<usize>>, Range<usize>)>,
}

/// Which part of a `key = value` a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The key: it should not be there.
    Key,
    /// The value: it should be another.
    Value,
}

impl SourceMap {
    /// Parses a TOML text.
    ///
    /// # Errors
    /// Everything that is no TOML.
    pub(super) fn parse(name: &str, text: String) -> Result<Self, Vec<Problem>> {
        let text = Arc::new(text);
        let (table, errors) = DeTable::parse_recoverable(&text);
        let mut map = Self { name: name.to_owned(), text: Arc::clone(&text), places: HashMap::new() };
        if !errors.is_empty() {
            return Err(errors.iter().map(|error| map.syntax_problem(error)).collect());
        }
        map.add_table("", table.get_ref());
        Ok(map)
    }

    /// The file's text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the file itself has something at a path.
    pub(super) fn holds(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    fn add_table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            self.add_value(path, Some(key.span()), value);
        }
    }

    fn add_value(&mut self, path: String, key: Option<Range<usize>>, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(&path, table),
            DeValue::Array(array) => {
                for (i, element) in array.iter().enumerate() {
                    self.add_value(format!("{path}[{i}]"), None, element);
                }
            }
            _ => {}
        }
        self.places.insert(path, (key, value.span()));
    }

    /// A problem at a path. What the file does not hold is reported at the nearest thing around it.
    pub(super) fn problem(&self, path: &str, part: Part, message: String, help: Option<String>) -> Problem {
        let mut nearest = path;
        let span = loop {
            match self.places.get(nearest) {
                Some((Some(key), _)) if part == Part::Key || nearest != path => break key.clone(),
                Some((_, value)) => break value.clone(),
                None if nearest.is_empty() => break 0..0,
                None => nearest = parent(nearest),
            }
        };
        self.at(span, path, message, help)
    }

    fn syntax_problem(&self, error: &toml::de::Error) -> Problem {
        let help = "a topology is a TOML file: [section], then key = value; texts and quantities in quotes";
        self.at(
            error.span().unwrap_or(0..0),
            "",
            format!("not TOML: {}", error.message()),
            Some(help.to_owned()),
        )
    }

    fn at(&self, span: Range<usize>, path: &str, message: String, help: Option<String>) -> Problem {
        let (line, column) = self.line_and_column(span.start);
        Problem {
            message,
            key: path.to_owned(),
            origin: Origin::File { line, column },
            help,
            span: span.into(),
            source: NamedSource::new(&self.name, Arc::clone(&self.text)).with_language("TOML"),
        }
    }

    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A path with one more key.
pub(super) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// A path without its last key or index; empty for a top-level key.
pub(super) fn parent(path: &str) -> &str {
    path.rfind(['.', '[']).map_or("", |end| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_keys_values_and_the_nearest_thing_around() {
        let text = "[radio]\nsubchannels = 4\n\n[[bs]]\nid = \"bs1\"\nposition_m = [1, 2]\n";
        let map = SourceMap::parse("t.toml", text.to_owned()).unwrap();
        let spot = |path, part| {
            let span = map.problem(path, part, String::new(), None).span;
            &text[span.offset()..span.offset() + span.len()]
        };
        assert_eq!(spot("radio.subchannels", Part::Value), "4");
        assert_eq!(spot("radio.subchannels", Part::Key), "subchannels");
        assert_eq!(spot("bs[0].position_m[1]", Part::Value), "2");
        assert_eq!(spot("bs[0].cpu_hz", Part::Value), "[[bs]]");
        assert_eq!(spot("radio.bandwidth", Part::Value), "radio");
        let origin = map.problem("bs[0].id", Part::Value, String::new(), None).origin;
        assert_eq!(origin, Origin::File { line: 5, column: 6 });
    }
}
