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

/// What a model makes of samples that are held out.
#[derive(Debug, Clone, PartialEq)]
pub struct Examination {
    /// How good that is.
    pub judgement: Judgement,
    /// The sample's labels.
    pub labels: Vec<u8>,
    /// The score (logit) of each class for each sample: as many rows as labels.
    pub scores: Vec<f32>,
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

    /// Puts samples to a model on which nothing is trained: a BS those that its twins hold out, the MBS the test set. `None` where
    /// there are none.
    ///
    /// # Errors
    /// For parameters of another number, or none at all.
    fn examine(&mut self, parameters: &[f32]) -> Result<Option<Examination>, LearnerError>;

    /// How good a model is; as [`examine`](Self::examine).
    ///
    /// # Errors
    /// As [`examine`](Self::examine).
    fn judge(&mut self, parameters: &[f32]) -> Result<Option<Judgement>, LearnerError> {
        Ok(self.examine(parameters)?.map(|examined| examined.judgement))
    }
}

/// Makes the learner of a node. Runs on the thread that is to use it.
pub type MakeLearner = fn(&Plan, &NodePlan) -> Result<Box<dyn Learner>, LearnerError>;

/// Which of a user's samples are held out, so that nothing ever trains on them: every so many-th, from a place of the user's own on,
/// or users with few samples would all hold out none. The first never is. It hangs on nothing but the user and the sample's place, so
/// that it stays the same wherever the twin goes, and however much of its data is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HoldOut {
    part: f64,
    offset: f64,
}

/// The golden ratio's part below 1: multiples of it, less whole numbers, spread evenly over 0 to 1 however many there are.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

impl HoldOut {
    /// For `part` of a user's samples, 0 to ½.
    #[must_use]
    pub fn of(user: UserId, part: f64) -> Self {
        Self { part, offset: (f64::from(user.0) * GOLDEN).fract() }
    }

    /// Whether the sample at this place, from 0, is held out.
    #[must_use]
    pub fn holds(self, place: u32) -> bool {
        place > 0 && self.before(place) > self.before(place - 1)
    }

    /// How many of so many samples are held out.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most half of what fits")]
    pub fn count(self, samples: u32) -> u32 {
        samples.checked_sub(1).map_or(0, |last| (self.before(last) - self.before(0)) as u32)
    }

    fn before(self, place: u32) -> f64 {
        (f64::from(place) * self.part + self.offset).floor()
    }

    /// b·D: on how many of so many samples a twin trains in a round; at least one where it has any, and none that is held out.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of what fits")]
    pub fn share(self, samples: u32, fraction: f64) -> u32 {
        let most = samples - self.count(samples);
        ((f64::from(samples) * fraction).round() as u32).clamp(samples.min(1), most)
    }
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
    let part = plan.topology().learning.held_out;
    for user in plan.users() {
        if let Some(bs) = in_force.serving(user.id)
            && let Some(weight) = weights.get_mut(bs.index())
        {
            *weight += f64::from(HoldOut::of(user.id, part).share(user.samples, in_force.fraction(bs)));
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
        let share = |samples, fraction| HoldOut::of(UserId(0), 0.0).share(samples, fraction);
        assert_eq!((share(0, 0.5), share(1, 0.001), share(500, 0.2), share(3, 1.0)), (0, 1, 100, 3));
    }

    #[test]
    fn what_is_held_out_is_counted_right_and_stays_held_out() {
        for part in [0.0, 0.1, 0.25, 0.5] {
            let mut all = 0;
            for (user, samples) in (0..100).flat_map(|user| [0, 1, 2, 7, 500].map(|samples| (user, samples)))
            {
                let holdout = HoldOut::of(UserId(user), part);
                let held = (0..samples).filter(|place| holdout.holds(*place)).count();
                assert_eq!(holdout.count(samples) as usize, held, "user {user}, {samples} samples");
                // All the others may be trained on, and one at least.
                assert_eq!(holdout.share(samples, 1.0), samples - holdout.count(samples));
                assert!(samples == 0 || holdout.share(samples, 1.0) > 0);
                all += if samples == 7 { held } else { 0 };
            }
            // Users with few samples hold some out together: of seven the first never is.
            let expected = 600.0 * part;
            assert!((all as f64 - expected).abs() <= 2.0, "{all} of {expected}");
        }
    }
}
