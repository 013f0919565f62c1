//! `dtwn runs`: recorded runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{print_json, print_line};
use crate::{
    cli::RunsCommand,
    error::{Error, Result},
    exit,
    registry::Registry,
    session::{RunFiles, summary},
};

/// Lists or removes recorded runs.
///
/// # Errors
/// When the directory cannot be read, or a run cannot be removed.
pub fn run(command: &RunsCommand) -> Result<u8> {
    match command {
        RunsCommand::List { out, json } => list(out, *json),
        RunsCommand::Prune { out, keep, dry_run } => prune(out, *keep, *dry_run),
    }
}

/// The run directories, the newest first. A directory is a run when it holds a rendered topology and a manifest or events.
///
/// # Errors
/// When the directory cannot be read.
pub fn runs_in(out: &Path) -> Result<Vec<PathBuf>> {
    let mut runs: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(out).map_err(Error::file("read", out))? {
        let path = entry.map_err(Error::file("read", out))?.path();
        if let Ok(metadata) = fs::metadata(RunFiles::topology(&path))
            && path.join("options.json").exists()
        {
            runs.push((metadata.modified().map_err(Error::file("read", &path))?, path));
        }
    }
    runs.sort();
    Ok(runs.into_iter().rev().map(|(_, path)| path).collect())
}

fn list(out: &Path, as_json: bool) -> Result<u8> {
    let live = live_runs()?;
    let mut rows = Vec::new();
    for path in runs_in(out)? {
        let summary: Value = fs::read(summary::path(&path))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let state = match (live.contains(&path), summary.is_null()) {
            (true, _) => "running",
            (false, true) => "cut off",
            (false, false) => "ended",
        };
        rows.push(json!({
            "run": path, "state": state, "verdict": summary["verdict"],
            "emulated_s": summary["emulated_s"], "rounds": summary["rounds"],
        }));
    }
    if as_json {
        print_json(&rows)?;
        return Ok(exit::OK);
    }
    for row in &rows {
        print_line(&format!(
            "{:<9} {:<9} {:>10} {}",
            row["state"].as_str().unwrap_or("?"),
            row["verdict"].as_str().unwrap_or("-"),
            row["emulated_s"].as_f64().map_or("-".into(), |seconds| format!("{seconds:.1} s")),
            row["run"].as_str().unwrap_or("?")
        ))?;
    }
    if rows.is_empty() {
        eprintln!("no runs in {}", out.display());
    }
    Ok(exit::OK)
}

fn prune(out: &Path, keep: usize, dry_run: bool) -> Result<u8> {
    let live = live_runs()?;
    for path in runs_in(out)?.into_iter().filter(|path| !live.contains(path)).skip(keep) {
        if !dry_run {
            fs::remove_dir_all(&path).map_err(Error::file("remove", &path))?;
        }
        print_line(&format!("{} {}", if dry_run { "would remove" } else { "removed" }, path.display()))?;
    }
    Ok(exit::OK)
}

/// Where live sessions record.
///
/// # Errors
/// When the sessions cannot be listed.
pub fn live_runs() -> Result<Vec<PathBuf>> {
    let sessions = Registry::open()?.sessions()?;
    let run_dir = |(name, socket): (String, PathBuf)| {
        crate::client::Client::connect_to(name, &socket, true).ok().map(|client| client.run_dir)
    };
    Ok(sessions.into_iter().filter_map(run_dir).collect())
}
