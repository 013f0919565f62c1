//! Log lines of all nodes: read from the files in the run directory, the newest kept.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::data::clean;

/// Lines kept; older ones stay in the files.
const LINES_MAX: usize = 20_000;
/// How much of a file's end is read at first.
const FIRST_BYTES: u64 = 256 * 1024;
/// How much of a file is read at a time.
const CHUNK_BYTES: u64 = 256 * 1024;

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// TRACE and DEBUG.
    Debug,
    /// INFO, and lines that do not say.
    Info,
    /// WARN.
    Warning,
    /// ERROR, and panics.
    Error,
}

impl Gravity {
    /// What a line says of itself.
    fn of(line: &str) -> Self {
        // The level stands behind the time in what agents write; a word further on is part of the message.
        let level = line.split_whitespace().take(3).find_map(|word| match word {
            "ERROR" => Some(Self::Error),
            "WARN" => Some(Self::Warning),
            "INFO" => Some(Self::Info),
            "DEBUG" | "TRACE" => Some(Self::Debug),
            _ => None,
        });
        match level {
            Some(level) => level,
            None if line.contains("panicked at") => Self::Error,
            None => Self::Info,
        }
    }

    /// The name in use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A line of a log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// Whose, or `session`.
    pub node: String,
    /// How grave it is.
    pub gravity: Gravity,
    /// What it says.
    pub text: String,
}

impl LogLine {
    /// A line as a file has it.
    pub fn new(node: &str, text: &str) -> Self {
        Self { node: node.to_owned(), gravity: Gravity::of(text), text: clean(text.trim_end()) }
    }
}

/// The newest lines; each has a number that stays when older ones go.
#[derive(Debug, Clone, Default)]
pub struct LogStore {
    lines: VecDeque<LogLine>,
    gone: u64,
}

impl LogStore {
    /// Adds lines.
    pub fn add(&mut self, lines: Vec<LogLine>) {
        for line in lines {
            if self.lines.len() == LINES_MAX {
                self.lines.pop_front();
                self.gone += 1;
            }
            self.lines.push_back(line);
        }
    }

    /// The lines with their numbers.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &LogLine)> {
        self.lines.iter().enumerate().map(|(index, line)| (self.gone + index as u64, line))
    }
}

/// Follows every file in a directory of logs.
#[derive(Debug)]
pub struct LogFiles {
    dir: PathBuf,
    files: HashMap<String, Tail>,
    started: bool,
}

#[derive(Debug, Default)]
struct Tail {
    offset: u64,
    partial: Vec<u8>,
}

impl LogFiles {
    /// Those of a run.
    pub fn new(run_dir: &Path) -> Self {
        Self { dir: run_dir.join("logs"), files: HashMap::new(), started: false }
    }

    /// What was written since the last call.
    pub fn read(&mut self) -> Vec<LogLine> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        paths.sort();
        let mut lines = Vec::new();
        for path in paths {
            let Some(node) = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else {
                continue;
            };
            // A file that cannot be read now may be readable next time.
            let _ = self.read_file(&path, &node, &mut lines);
        }
        if !self.started {
            self.started = true;
            sort_by_time(&mut lines);
        }
        lines
    }

    fn read_file(&mut self, path: &Path, node: &str, lines: &mut Vec<LogLine>) -> std::io::Result<()> {
        let length = std::fs::metadata(path)?.len();
        let tail = self
            .files
            .entry(node.to_owned())
            .or_insert_with(|| Tail { offset: length.saturating_sub(FIRST_BYTES), partial: Vec::new() });
        if length <= tail.offset {
            return Ok(());
        }
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(tail.offset))?;
        let mut bytes = std::mem::take(&mut tail.partial);
        tail.offset += file.take(CHUNK_BYTES).read_to_end(&mut bytes)? as u64;
        let mut rest = bytes.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&rest[..end]);
            if !line.trim().is_empty() {
                lines.push(LogLine::new(node, &line));
            }
            rest = &rest[end + 1..];
        }
        // A line without an end must not grow for ever.
        tail.partial = if rest.len() as u64 > CHUNK_BYTES { Vec::new() } else { rest.to_vec() };
        Ok(())
    }
}

/// Merges the pasts of several files. Lines start with their time; those that do not belong to the one before.
fn sort_by_time(lines: &mut Vec<LogLine>) {
    let mut time = String::new();
    let mut keyed: Vec<(String, LogLine)> = Vec::with_capacity(lines.len());
    let mut node = String::new();
    for line in lines.drain(..) {
        if line.node != node {
            node.clone_from(&line.node);
            time.clear();
        }
        if line.text.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            time = line.text.split_whitespace().next().unwrap_or_default().to_owned();
        }
        keyed.push((time.clone(), line));
    }
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    lines.extend(keyed.into_iter().map(|(_, line)| line));
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn files_are_merged_and_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        let write = |node: &str, text: &str| {
            let path = dir.path().join(format!("logs/{node}.log"));
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        write("bs1", "2026-01-01T00:00:01Z  INFO one\n  more\n2026-01-01T00:00:03Z ERROR three\n");
        write("bs2", "2026-01-01T00:00:02Z  WARN two\nhalf");
        let mut files = LogFiles::new(dir.path());
        let lines = files.read();
        let texts: Vec<_> = lines.iter().map(|line| line.text.split_whitespace().last().unwrap()).collect();
        assert_eq!(texts, ["one", "more", "two", "three"]);
        let gravities: Vec<_> = lines.iter().map(|line| line.gravity).collect();
        assert_eq!(gravities, [Gravity::Info, Gravity::Info, Gravity::Warning, Gravity::Error]);
        write("bs2", " a line\u{1b}[31m\n");
        let lines = files.read();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].node.as_str(), lines[0].text.as_str()), ("bs2", "half a line [31m"));
        assert!(files.read().is_empty());
    }
}
