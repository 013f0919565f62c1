//! Central training: the same CNN on the samples that all users hold together, as the reference for federated learning.
//!
//! A "round" sees as many samples as all twins do in a round of the plan, in minibatches of the same size and with the same step length.
//! There is one model and one optimiser, whose momentum lasts, and the samples are gone through in a new order each time.

use dtwn_model::Plan;
use dtwn_model::plan::UserPlan;
use dtwn_node::learning::data::Records;
use dtwn_node::learning::learner::{HoldOut, Judgement, LearnerError};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, nn};

use crate::training::{Local, Trainer};
use crate::{cnn, learner};

/// What a round brought.
#[derive(Debug, Clone)]
pub struct Round {
    /// Samples that went through.
    pub samples: u64,
    /// Mean loss of training, in nats.
    pub loss: f64,
    /// On the MBS's test set.
    pub judgement: Judgement,
    /// BLAKE3 of the parameters.
    pub digest: blake3::Hash,
}

/// One model, one optimiser, all samples.
#[derive(Debug)]
pub struct Central {
    trainer: Trainer,
    optimiser: nn::Optimizer,
    local: Local,
    dataset: &'static str,
    training: Records,
    test: Records,
    order: Vec<u32>,
    /// How much of `order` has been seen.
    seen: usize,
    random: ChaCha8Rng,
    per_round: usize,
}

impl Central {
    /// For the samples of a plan's users, from the plan's first model.
    ///
    /// # Errors
    /// When the data set cannot be read or has too few samples, or the users hold none.
    pub fn new(plan: &Plan) -> Result<Self, LearnerError> {
        let settings = &plan.topology().learning;
        let seed = plan.topology().run.seed;
        let pool = learner::pool(plan)?;
        let share =
            |user: &UserPlan| HoldOut::of(user.id, settings.held_out).share(user.samples, settings.fraction);
        let per_round: u64 = plan.users().map(|user| u64::from(share(user))).sum();
        let per_round = usize::try_from(per_round * u64::from(settings.epochs)).unwrap_or(usize::MAX);
        if per_round == 0 {
            return Err(LearnerError("the users hold no samples: there is nothing to train on".into()));
        }
        let local = learner::local(settings);
        let mut trainer = Trainer::new(Device::Cpu, pool.normalisation).map_err(LearnerError::of)?;
        let optimiser = trainer.begin(&cnn::initial_parameters(seed), &local).map_err(LearnerError::of)?;
        let order = all(&pool.training);
        Ok(Self {
            trainer,
            optimiser,
            local,
            dataset: pool.dataset,
            training: pool.training,
            test: pool.test,
            // Shuffled when it is first needed.
            seen: order.len(),
            order,
            random: ChaCha8Rng::seed_from_u64(seed),
            per_round,
        })
    }

    /// `synthetic` or `cifar-10`.
    #[must_use]
    pub fn dataset(&self) -> &'static str {
        self.dataset
    }

    /// Trains for a round, and judges what came of it.
    ///
    /// # Errors
    /// When training diverges.
    pub fn round(&mut self) -> Result<Round, LearnerError> {
        let (mut left, mut loss_sum) = (self.per_round, 0.0);
        while left > 0 {
            if self.seen == self.order.len() {
                self.order.shuffle(&mut self.random);
                self.seen = 0;
            }
            let part = left.min(self.order.len() - self.seen);
            let next = &self.order[self.seen..self.seen + part];
            let (trainer, optimiser) = (&mut self.trainer, &mut self.optimiser);
            let loss = trainer
                .go_on(optimiser, &self.training, next, &self.local, &mut self.random)
                .map_err(LearnerError::of)?;
            loss_sum += loss * part as f64;
            self.seen += part;
            left -= part;
        }
        Ok(Round { samples: self.per_round as u64, loss: loss_sum / self.per_round as f64, ..self.judge()? })
    }

    /// The model as it is; no samples, and a loss that is none.
    ///
    /// # Errors
    /// When the model is no model any more.
    pub fn judge(&mut self) -> Result<Round, LearnerError> {
        let parameters = self.trainer.parameters().map_err(LearnerError::of)?;
        let digest = dtwn_node::learning::work::digest(&parameters);
        let judgement = self.trainer.examine(&parameters, &self.test).map_err(LearnerError::of)?.judgement;
        Ok(Round { samples: 0, loss: f64::NAN, judgement, digest })
    }
}

fn all(records: &Records) -> Vec<u32> {
    (0..records.len()).filter_map(|at| u32::try_from(at).ok()).collect()
}

#[cfg(test)]
mod tests {
    use dtwn_model::topology::{self, Overrides};

    use super::*;

    fn central(seed: u64, fraction: f64) -> Central {
        let text = format!(
            "[run]\nseed = {seed}\n[learning]\nlearner = \"torch\"\nfraction = {fraction}\nheld_out = 0\ntest_samples = 100\n\
             [[bs]]\nid = \"bs\"\ncount = 2\nring = \"100 m\"\n\
             [[users]]\nid = \"ug1\"\ncount = 3\naround = \"bs1\"\nsamples = 50\n\
             [[users]]\nid = \"ug2\"\ncount = 3\naround = \"bs2\"\nsamples = 50\n"
        );
        let loaded = topology::parse("test.toml", text, &Overrides::default()).unwrap();
        Central::new(&Plan::new(&loaded.topology).unwrap()).unwrap()
    }

    #[test]
    fn a_round_sees_as_many_samples_as_the_twins_do_and_the_seed_decides() {
        tch::set_num_threads(1);
        let (mut one, mut two) = (central(1, 0.4), central(1, 0.4));
        assert_eq!(one.training.len(), 300);
        let before = one.judge().unwrap();
        assert_eq!(before.digest, dtwn_node::learning::work::digest(&cnn::initial_parameters(1)));
        let first = one.round().unwrap();
        assert_eq!(first.samples, 120);
        // Judging in between changes nothing, and the third round goes on where a new pass begins.
        for _ in 0..2 {
            one.judge().unwrap();
            one.round().unwrap();
        }
        assert_eq!(one.seen, 60);
        for _ in 0..2 {
            two.round().unwrap();
        }
        assert_eq!(one.judge().unwrap().digest, two.round().unwrap().digest);
        assert_ne!(first.digest, central(2, 0.4).round().unwrap().digest);
    }

    #[test]
    fn it_learns() {
        tch::set_num_threads(1);
        let mut central = central(3, 1.0);
        let before = central.judge().unwrap().judgement;
        let after = (0..6).map(|_| central.round().unwrap()).last().unwrap().judgement;
        assert!(after.loss < before.loss - 0.01 && after.accuracy > before.accuracy, "{before:?} {after:?}");
    }
}
