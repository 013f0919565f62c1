//! `dtwn-agent train-federated` and `train-central`: training as in a topology's rounds, in one process and without a network.

use std::path::{Path, PathBuf};
use std::sync::Arc;
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

/// Reads which part of its samples each user's twin trains on in each round: JSON, a list of rounds, each a list of numbers in order of
/// the users.
///
/// # Errors
/// [`Error::Schedule`] when it cannot be read, has too few rounds, or a number that is no fraction or for no user.
pub fn schedule(path: &Path, rounds: u64, users: usize) -> Result<Vec<Arc<[f64]>>, Error> {
    let wrong = |reason: String| Error::Schedule { path: path.into(), reason };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let schedule: Vec<Vec<f64>> =
        serde_json::from_slice(&text).map_err(|error| wrong(format!("no lists of numbers: {error}")))?;
    if (schedule.len() as u64) < rounds {
        return Err(wrong(format!("{} rounds, where {rounds} are asked for", schedule.len())));
    }
    for (round, fractions) in (1..).zip(&schedule) {
        if fractions.len() != users {
            return Err(wrong(format!("round {round} is for {} users, not for {users}", fractions.len())));
        }
        if let Some(bad) = fractions.iter().find(|b| !(0.0..=1.0).contains(*b)) {
            return Err(wrong(format!("round {round} has {bad}, which is no fraction")));
        }
    }
    Ok(schedule.into_iter().map(Arc::from).collect())
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
/// in which no BS is late and no model refused. With the file of a [`schedule`], twins train on the parts of their samples that it names.
///
/// # Errors
/// [`Error::Topology`], [`Error::Schedule`], [`Error::Learning`], and what `say` returns.
pub fn federated(
    job: &Job,
    at_once: usize,
    schedule_file: Option<&Path>,
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
    let by_round = schedule_file.map(|path| schedule(path, job.rounds, plan.users().count())).transpose()?;
    let (mut federation, first) = Federation::new(&plan, learner::make, at_once)?;
    tell(first)?;
    for round in 0..job.rounds {
        let fractions = by_round.as_ref().and_then(|rounds| rounds.get(usize::try_from(round).ok()?));
        tell(federation.round(fractions)?)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_read_whole_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schedule.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            schedule(&path, 2, 3).map_err(|error| error.to_string())
        };
        assert_eq!(read("[[0, 0.5, 1], [1, 1, 1]]").unwrap()[0].as_ref(), [0.0, 0.5, 1.0]);
        for (text, why) in [
            ("[[0, 0.5, 1]]", "1 rounds, where 2"),
            ("[[0, 0.5, 1], [1, 1]]", "round 2 is for 2 users"),
            ("[[0, 0.5, 1.5], [1, 1, 1]]", "round 1 has 1.5"),
            ("{}", "no lists of numbers"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
