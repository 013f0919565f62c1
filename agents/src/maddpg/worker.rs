//! The worker behind `dtwn train`: one seed, from a topology file to a policy file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dtwn_model::association::Problem;
use serde::Serialize;

use super::checkpoint;
use super::training::{Progress, Training};
use crate::{Error, rounds};

/// What to train, and where to.
#[derive(Debug, Clone)]
pub struct Job {
    /// The topology file.
    pub topology: PathBuf,
    /// `KEY=VALUE` settings over it.
    pub set: Vec<String>,
    /// The seed of networks, noise and minibatches.
    pub seed: u64,
    /// Where the policy goes; the checkpoint stands beside it until then.
    pub out: PathBuf,
    /// How the policy came to be, for people.
    pub made_by: String,
}

/// What the worker says, a line of JSON each.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said<'a> {
    /// Before the first episode.
    Started {
        /// Mean T of the optimum on the validation instances, s.
        optimum_s: f64,
        /// Mean T of the average policy over it.
        average_ratio: f64,
        /// Seconds that finding the optima took.
        validation_s: f64,
    },
    /// After each episode.
    Progress(&'a Progress),
    /// The policy is written.
    Done {
        /// Its ratio to the optimum on the validation instances.
        ratio: f64,
        /// The episode it stems from.
        episode: u32,
    },
}

/// Where the checkpoint of a policy in the making stands.
#[must_use]
pub fn checkpoint_of(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".checkpoint");
    out.with_file_name(name)
}

/// Trains, from the checkpoint if there is one, and writes the policy.
///
/// # Errors
/// [`Error::Topology`] for a file that poses no problem, those of [`Training`], [`Error::File`], and what `say` returns.
pub fn run(job: &Job, mut say: impl FnMut(&Said<'_>) -> Result<(), Error>) -> Result<(), Error> {
    let wrong = |reason: String| Error::Topology { path: job.topology.clone(), reason };
    let plan = rounds::plan_of(&job.topology, &job.set)?;
    let problem = Problem::new(&plan).map_err(|error| wrong(error.to_string()))?;

    let start = Instant::now();
    let mut training = Training::new(problem, plan.topology().maddpg.clone(), job.seed)?;
    let held_out = training.held_out();
    say(&Said::Started {
        optimum_s: held_out.optimum_s,
        average_ratio: held_out.average_s / held_out.optimum_s,
        validation_s: start.elapsed().as_secs_f64(),
    })?;
    let beside = checkpoint_of(&job.out);
    training.run(Some(&beside), |progress| say(&Said::Progress(progress)))?;
    let policy = training.best(&job.made_by)?;
    checkpoint::replace(&job.out, &[policy.render()?.as_bytes()])?;
    // The policy is there; what is left to go on from is of no use to anybody.
    let _ = std::fs::remove_file(&beside);
    say(&Said::Done { ratio: policy.file().validation_ratio, episode: policy.file().episodes })
}
