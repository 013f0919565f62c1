//! Recorded runs: which directory is meant, and its event file, readable from any record on.

use std::{
    fs::File,
    io::{BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use dtwn_proto::{
    event::Event,
    log::{HEADER_BYTES, LogError, Reader},
};

use crate::{
    commands::runs::{live_runs, runs_in},
    error::{Error, Result},
    session::recorder::Recorder,
};

/// The directory of a recorded run: `run` is a directory, a name in `out` or the beginning of one (the newest counts), or
/// `latest`.
///
/// # Errors
/// [`Error::NoRun`] when there is none such.
pub fn find(run: &str, out: &Path) -> Result<PathBuf> {
    let path = Path::new(run);
    if path.is_dir() && Recorder::path(path).is_file() {
        return Ok(path.to_owned());
    }
    if path.is_file() {
        return Err(Error::NoRun(format!(
            "{run} is a file; a run is the directory that events.dtwn lies in"
        )));
    }
    let runs = if out.is_dir() { runs_in(out)? } else { Vec::new() };
    let recorded = runs.into_iter().filter(|path| Recorder::path(path).is_file());
    let mut fitting = recorded.filter(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        run == "latest" || name.starts_with(run)
    });
    fitting.next().ok_or_else(|| {
        Error::NoRun(match run {
            _ if path.is_dir() => format!("{run} is no recorded run: there is no events.dtwn in it"),
            "latest" => format!("no run is recorded in {}", out.display()),
            _ => format!("there is no directory {run}, and no run in {} whose name begins so", out.display()),
        })
    })
}

/// Whether a session records into this directory at this moment.
pub fn is_live(run_dir: &Path) -> bool {
    let own = std::fs::canonicalize(run_dir);
    let theirs = live_runs().unwrap_or_default();
    own.is_ok_and(|own| theirs.iter().any(|path| std::fs::canonicalize(path).is_ok_and(|path| path == own)))
}

/// An event file that is read from any record on, also while it grows.
#[derive(Debug, Clone)]
pub struct EventFile {
    path: PathBuf,
}

/// Reads events one after another.
pub type Events = Reader<BufReader<File>>;

impl EventFile {
    /// That of a run, once its header was found good.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Log`].
    pub fn open(run_dir: &Path) -> Result<Self> {
        let file = Self { path: Recorder::path(run_dir) };
        let header = File::open(&file.path).map_err(Error::file("read", &file.path))?;
        Reader::new(BufReader::new(header)).map_err(|error| file.wrap(error))?;
        Ok(file)
    }

    /// Its first record.
    pub fn start(&self) -> u64 {
        HEADER_BYTES as u64
    }

    /// Its length now, in bytes; 0 when it has gone.
    pub fn length(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Reads from the record at `offset` on.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn read_from(&self, offset: u64) -> Result<Events> {
        let mut input = File::open(&self.path).map_err(Error::file("read", &self.path))?;
        input.seek(SeekFrom::Start(offset)).map_err(Error::file("read", &self.path))?;
        Ok(Reader::resume(BufReader::with_capacity(128 * 1024, input), offset))
    }

    /// The next event of a reader of this file; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Log`].
    pub fn next(&self, events: &mut Events) -> Result<Option<Event>> {
        events.next_event().map_err(|error| self.wrap(error))
    }

    fn wrap(&self, source: LogError) -> Error {
        Error::Log { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_in(out: &Path, name: &str) -> PathBuf {
        let dir = out.join(name);
        std::fs::create_dir(&dir).unwrap();
        for file in ["topology.toml", "options.json", "events.dtwn"] {
            std::fs::write(dir.join(file), "").unwrap();
        }
        dir
    }

    #[test]
    fn runs_are_found_by_directory_name_and_age() {
        let out = tempfile::tempdir().unwrap();
        let old = run_in(out.path(), "small-20260101T000000Z");
        let past = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        File::open(old.join("topology.toml")).unwrap().set_modified(past).unwrap();
        let new = run_in(out.path(), "small-20260102T000000Z");
        let found = |run: &str| find(run, out.path());
        assert_eq!(found("latest").unwrap(), new);
        assert_eq!(found("small").unwrap(), new);
        assert_eq!(found("small-20260101").unwrap(), old);
        assert_eq!(found(old.to_str().unwrap()).unwrap(), old);
        let error = found("paper").unwrap_err().to_string();
        assert!(error.contains("no directory paper"), "{error}");
        let error = found(out.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("no events.dtwn"), "{error}");
        let error = find("latest", &out.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("no run is recorded"), "{error}");
    }
}
