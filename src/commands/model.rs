//! `dtwn model`: the models of a run, and what `dtwn up --resume` goes on from.

use std::{
    fs::{self, DirEntry},
    path::{Path, PathBuf},
};

use dtwn_model::{Plan, topology};
use dtwn_node::{
    learning::{
        checkpoint::{self, CheckpointError, Identity},
        cnn,
    },
    twins::store,
};

use serde::{Deserialize, Serialize};

use super::{print_json, print_line};
use crate::{
    cli::{ModelCommand, ModelExportArgs},
    error::{Error, Result},
    exit, recording,
    session::RunFiles,
};

/// Does something with the models of a run.
///
/// # Errors
/// When there is no such run or model, or it cannot be written.
pub fn run(command: &ModelCommand) -> Result<u8> {
    match command {
        ModelCommand::Export(args) => export(args),
    }
}

fn export(args: &ModelExportArgs) -> Result<u8> {
    let run_dir = recording::find(&args.recorded.run, &args.recorded.out)?;
    let kept = of_run(&run_dir)?;
    let rounds: Vec<u64> = kept.iter().map(|(round, _)| *round).collect();
    let wanted = args.round.or(rounds.last().copied());
    let Some((_, path)) = kept.iter().find(|(round, _)| Some(*round) == wanted) else {
        let kept = rounds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::Refused(match args.round {
            Some(round) => {
                format!("{} keeps no model of round {round}; it keeps those of {kept}", run_dir.display())
            }
            None => none_in(&run_dir),
        }));
    };
    let file = args.output.clone().unwrap_or_else(|| {
        let name = run_dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        PathBuf::from(format!("{name}-round-{}.safetensors", wanted.unwrap_or_default()))
    });
    let exported = checkpoint::export(path, &file, &cnn::layout()).map_err(|error| match error {
        CheckpointError::Write { path, source } => Error::File { what: "write", path, source },
        error => Error::Checkpoint(error),
    })?;
    if args.json {
        print_json(&exported)?;
        return Ok(exit::OK);
    }
    print_line(&format!(
        "{}: the global model of round {}, learned from {} data, BLAKE3 {}",
        file.display(),
        exported.round,
        exported.dataset,
        exported.digest
    ))?;
    for (name, shape) in &exported.tensors {
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        print_line(&format!("  {name:<14} {}", shape.join(" x ")))?;
    }
    Ok(exit::OK)
}

/// The checkpoints of a run's global models by round, oldest first.
fn of_run(run_dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let path = RunFiles::topology(run_dir);
    let loaded = topology::load(&path, &topology::Overrides::default())?;
    Ok(checkpoint::of_node(&RunFiles::state(run_dir, &loaded.topology.mbs.id)))
}

fn none_in(run_dir: &Path) -> String {
    format!(
        "{} has no model: it did not train (learning.learner = \"torch\"), or was over before the first one was written",
        run_dir.display()
    )
}

/// What a run goes on from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Origin {
    /// The run.
    pub run_dir: PathBuf,
    /// The last round that is over.
    pub round: u64,
    /// BLAKE3 of the model that it made, in hexadecimal.
    pub digest: String,
}

/// Finds the newest whole checkpoint of a run that `plan`'s network can go on from.
///
/// # Errors
/// [`Error::Checkpoint`] when its checkpoints are of another network, version or model; [`Error::Refused`] when there is none, or the
/// run is still going on.
pub fn origin(run: &str, out: &Path, plan: &Plan) -> Result<Origin> {
    let run_dir = recording::find(run, out)?;
    if recording::is_live(&run_dir) {
        return Err(Error::Refused(format!("{} is still running; end it first", run_dir.display())));
    }
    let (identity, layout) = (Identity::of(plan)?, cnn::layout());
    let mut damage = None;
    for (_, path) in of_run(&run_dir)?.into_iter().rev() {
        match checkpoint::check(&path, &identity, &layout) {
            Ok((round, digest)) => {
                if let Some(error) = damage {
                    eprintln!("warning: {error}; going on from the checkpoint before");
                }
                return Ok(Origin { run_dir, round, digest });
            }
            Err(other @ CheckpointError::Other { what: "topology" | "seed" | "data set", .. }) => {
                return Err(Error::OtherNetwork { differs: differences(&run_dir, plan)?, source: other });
            }
            Err(other @ CheckpointError::Other { .. }) => return Err(Error::Checkpoint(other)),
            Err(error) => damage = damage.or(Some(error)),
        }
    }
    match damage {
        Some(error) => Err(Error::Checkpoint(error)),
        None => Err(Error::Refused(none_in(&run_dir))),
    }
}

/// The keys in which the topology of a run and another differ, the first few.
fn differences(run_dir: &Path, plan: &Plan) -> Result<String> {
    let path = RunFiles::topology(run_dir);
    let theirs = topology::load(&path, &topology::Overrides::default())?.topology;
    let lines = |text: String| -> Vec<(String, String)> {
        let mut section = String::new();
        let mut keys = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_matches(['[', ']']).to_owned();
            } else if let Some((key, value)) = line.split_once(" = ") {
                keys.push((format!("{section}.{key}"), value.to_owned()));
            }
        }
        keys
    };
    let (theirs, ours) = (lines(theirs.render()?), lines(plan.topology().render()?));
    let mut differing: Vec<String> = theirs
        .iter()
        .zip(&ours)
        .filter(|(theirs, ours)| theirs != ours)
        .map(|(theirs, ours)| format!("{} = {} there, {} = {} here", theirs.0, theirs.1, ours.0, ours.1))
        .filter(|text| {
            !["run.duration", "run.dilation", "run.restart"].iter().any(|key| text.starts_with(key))
        })
        .collect();
    if differing.is_empty() {
        return Ok("their topologies differ".into());
    }
    differing.truncate(3);
    Ok(differing.join("; "))
}

/// Copies what the nodes of a run go on from, checkpoints, chains and twins, into another run's directory. What else they kept
/// belongs to the time of that run.
///
/// # Errors
/// When something cannot be read or written.
pub fn take_over(origin: &Origin, run_dir: &Path, plan: &Plan) -> Result<()> {
    let state = origin.run_dir.join("state");
    for node in entries(&state)? {
        let target = run_dir.join("state").join(node.file_name());
        for part in entries(&node.path())? {
            let name = part.file_name();
            if name == checkpoint::FOLDER || name == store::FOLDER {
                let folder = target.join(&name);
                copy(entries(&part.path())?, &folder)?;
                if name == store::FOLDER {
                    rewind(&folder, origin.round, plan)?;
                }
            } else if name.to_string_lossy().starts_with("chain.") {
                copy(vec![part], &target)?;
            }
        }
    }
    Ok(())
}

/// Has a base station begin with the round after `round`, whichever it had come to.
fn rewind(folder: &Path, round: u64, plan: &Plan) -> Result<()> {
    let store = store::Store::open(folder)?;
    if let Some(mut ledger) = store.ledger(plan.user_count())? {
        ledger.rewind(round);
        store.save(&ledger)?;
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<DirEntry>> {
    let read = fs::read_dir(dir).and_then(Iterator::collect);
    read.map_err(Error::file("read", dir))
}

fn copy(files: Vec<DirEntry>, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::file("create", to))?;
    for file in files {
        let target = to.join(file.file_name());
        fs::copy(file.path(), &target).map_err(Error::file("write", &target))?;
    }
    Ok(())
}
