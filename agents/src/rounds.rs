//! `dtwn-agent train-federated` and `train-central`: training as in a topology's rounds, in one process and without a network.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dtwn_model::Plan;
use dtwn_model::topology::{self, Overrides};
use dtwn_node::learning::federation::{Federation, Global};
use serde::Serialize;

use crate::central::{self, Central};
use crate::{Error, learner};

/// What to train, and for how long.
#[derive(Debug, Clone)]
pub struct Job {
    /// The topology file.
    pub topology: PathBuf,
    /// `KEY=VALUE` settings over it.
    pub set: Vec<String>,
    /// Rounds after the untrained model.
    pub rounds: u64,
}

/// The model after a round; a line of JSON with `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct Said {
    /// The round; 0 is the untrained model.
    pub round: u64,
    /// `synthetic` or `cifar-10`.
    pub dataset: &'static str,
    /// Samples seen so far, repeated ones included.
    pub samples: u64,
    /// Mean loss of training in the round, in nats.
    pub train_loss: Option<f64>,
    /// On the test set, in nats.
    pub test_loss: Option<f64>,
    /// On the test set.
    pub test_accuracy: Option<f64>,
    /// BLAKE3 of the parameters.
    pub digest: String,
    /// Wall seconds since the beginning.
    pub wall_s: f64,
}

/// The plan of a topology file.
///
/// # Errors
/// [`Error::Topology`].
pub fn plan_of(path: &Path, set: &[String]) -> Result<Plan, Error> {
    let wrong = |reason: String| Error::Topology { path: path.into(), reason };
    let mut overrides = Overrides::from_environment();
    set.iter().for_each(|assignment| overrides.set(assignment));
    let loaded = topology::load(path, &overrides).map_err(|error| wrong(error.to_string()))?;
    Plan::new(&loaded.topology).map_err(|error| wrong(error.to_string()))
}

/// Trains by rounds of the topology, at most `at_once` BSs at the same time, and tells of each global model: bit by bit those of a run
/// in which no BS is late and no model refused.
///
/// # Errors
/// [`Error::Topology`], [`Error::Learning`], and what `say` returns.
pub fn federated(
    job: &Job,
    at_once: usize,
    mut say: impl FnMut(&Said) -> Result<(), Error>,
) -> Result<(), Error> {
    let plan = plan_of(&job.topology, &job.set)?;
    let dataset = learner::dataset_of(&plan.topology().learning).0;
    let began = Instant::now();
    let mut samples = 0;
    let mut tell = |global: Global| {
        samples += global.samples;
        say(&Said {
            round: global.round,
            dataset,
            samples,
            train_loss: Some(global.loss).filter(|loss| loss.is_finite()),
            test_loss: global.judgement.map(|judged| judged.loss),
            test_accuracy: global.judgement.map(|judged| judged.accuracy),
            digest: global.digest.to_hex().to_string(),
            wall_s: began.elapsed().as_secs_f64(),
        })
    };
    let (mut federation, first) = Federation::new(&plan, learner::make, at_once)?;
    tell(first)?;
    for _ in 0..job.rounds {
        tell(federation.round()?)?;
    }
    Ok(())
}

/// Trains one model on the samples of all users, and tells of it after as many samples as each round of the topology has.
///
/// # Errors
/// As [`federated`].
pub fn central(job: &Job, mut say: impl FnMut(&Said) -> Result<(), Error>) -> Result<(), Error> {
    let plan = plan_of(&job.topology, &job.set)?;
    let mut training = Central::new(&plan)?;
    let dataset = training.dataset();
    let began = Instant::now();
    let mut samples = 0;
    for round in 0..=job.rounds {
        let made = if round == 0 { training.judge()? } else { training.round()? };
        let central::Round { judgement, digest, loss, .. } = made;
        samples += made.samples;
        say(&Said {
            round,
            dataset,
            samples,
            train_loss: Some(loss).filter(|loss| loss.is_finite()),
            test_loss: Some(judgement.loss),
            test_accuracy: Some(judgement.accuracy),
            digest: digest.to_hex().to_string(),
            wall_s: began.elapsed().as_secs_f64(),
        })?;
    }
    Ok(())
}
