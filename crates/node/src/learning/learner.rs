//! What trains and judges models, seen from a node: the torch side implements it, and tests do.

use std::{fmt, time::Duration};

use dtwn_model::{
    Plan,
    ids::UserId,
    plan::{NodePlan, Role},
};

use super::checkpoint::TensorLayout;
use super::data::Records;
use crate::association::InForce;

/// Why models could not be trained or judged, in the learner's own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LearnerError(pub String);

impl LearnerError {
    /// Takes another error's words.
    pub fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A twin's model, trained.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Its parameters.
    pub parameters: Vec<f32>,
    /// b·D: samples of the twin that it was trained on.
    pub samples: u64,
    /// Samples that went through, those of every pass counted.
    pub passed: u64,
    /// Mean loss of the last pass, in nats.
    pub loss: f64,
    /// Wall time spent on it.
    pub busy: Duration,
}

/// How good a model is on samples that are held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Share of right answers.
    pub accuracy: f64,
}

/// Trains the models of a BS's twins, and judges models on samples of its own.
pub trait Learner: Send {
    /// Parameters of the model.
    fn parameters(&self) -> usize;

    /// The model's tensors, sorted by name: its parameters are theirs in this order, each row-major.
    fn layout(&self) -> Vec<TensorLayout> {
        vec![("parameters".into(), vec![self.parameters()])]
    }

    /// What it learns from: `synthetic` or `cifar-10`.
    fn dataset(&self) -> &str;

    /// The parameters that everything starts from; the same for the same seed of the run.
    fn initial(&self) -> Vec<f32>;

    /// The twins that it holds, in the order in which they are trained.
    fn twins(&self) -> Vec<UserId>;

    /// Sets b, the fraction of their samples that twins train on; at first it is `learning.fraction`.
    fn set_fraction(&mut self, fraction: f64);

    /// Gives twins up, and takes others over with their samples, which replace those that it had of them.
    ///
    /// # Errors
    /// When the samples cannot be kept.
    fn change_twins(&mut self, released: &[UserId], held: Vec<(UserId, Records)>)
    -> Result<(), LearnerError>;

    /// BLAKE3 and number of bytes of the data of a twin that it holds.
    fn data(&self, twin: UserId) -> Option<(blake3::Hash, u64)>;

    /// Trains a twin's model from the global one for a round.
    ///
    /// # Errors
    /// When the twin has no samples, or training diverges.
    fn train(&mut self, twin: UserId, round: u64, global: &[f32]) -> Result<Trained, LearnerError>;

    /// Judges a model: a BS on samples of its twins, the MBS on the test set. `None` where there are no samples to judge on.
    ///
    /// # Errors
    /// For parameters of another number, or none at all.
    fn judge(&mut self, parameters: &[f32]) -> Result<Option<Judgement>, LearnerError>;
}

/// Makes the learner of a node. Runs on the thread that is to use it.
pub type MakeLearner = fn(&Plan, &NodePlan) -> Result<Box<dyn Learner>, LearnerError>;

/// b·D: on how many of `samples` a twin trains in a round; at least one where it has any.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of what fits")]
pub fn share(samples: u32, fraction: f64) -> u32 {
    ((f64::from(samples) * fraction).round() as u32).clamp(samples.min(1), samples)
}

/// Σ b·D over the twins of each BS: the weights of Eq. 5, known to all from the plan and declared by nobody.
#[must_use]
pub fn weights(plan: &Plan) -> Vec<f64> {
    weights_under(plan, &InForce::first(plan))
}

/// As [`weights`], under an association.
#[must_use]
pub fn weights_under(plan: &Plan, in_force: &InForce) -> Vec<f64> {
    let mut weights = vec![0.0; plan.bs_count()];
    for user in plan.users() {
        if let Some(bs) = in_force.serving(user.id)
            && let Some(weight) = weights.get_mut(bs.index())
        {
            *weight += f64::from(share(user.samples, in_force.fraction(bs)));
        }
    }
    weights
}

/// The users whose twins a node holds at first, where twins have their data from the beginning.
#[must_use]
pub fn twins_of(plan: &Plan, node: &NodePlan) -> Vec<UserId> {
    let Role::Bs(bs) = node.role else { return Vec::new() };
    if !plan.topology().twins.preload {
        return Vec::new();
    }
    let held = |user: &UserId| plan.association.serving(*user) == Some(bs);
    plan.users().filter(|user| user.samples > 0).map(|user| user.id).filter(held).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_with_samples_trains_on_one_at_least() {
        assert_eq!((share(0, 0.5), share(1, 0.001), share(500, 0.2), share(3, 1.0)), (0, 1, 100, 3));
    }
}
