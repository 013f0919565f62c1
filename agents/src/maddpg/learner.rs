//! Eqs. 22–25: how actors and critics learn from minibatches.

use dtwn_model::topology::{Algorithm, Maddpg};
use tch::Tensor;

use super::flat::{Adam, Flat, mean};
use super::networks::{Observation, Shape};
use crate::Error;

/// The weight of the squared outputs before tanh in the actors' loss: keeps them where tanh has a slope.
const SATURATION_WEIGHT: f64 = 1e-4;

/// A minibatch.
#[derive(Debug)]
pub struct Batch {
    /// s.
    pub now: Observation,
    /// a, (B, M, 2 + C): tanh outputs plus noise, before any projection.
    pub actions: Tensor,
    /// R, (B).
    pub reward: Tensor,
    /// s', where γ > 0 makes it count.
    pub next: Option<Observation>,
}

/// Primary and target networks with their optimisers.
#[derive(Debug)]
pub struct Learner {
    /// Sizes.
    pub shape: Shape,
    algorithm: Algorithm,
    gamma: f64,
    beta: f64,
    clip: f64,
    /// π.
    pub actor: Flat,
    /// Q.
    pub critic: Flat,
    /// π^T.
    pub actor_target: Flat,
    /// Q^T.
    pub critic_target: Flat,
    /// The actors' optimiser.
    pub actor_adam: Adam,
    /// The critics' optimiser.
    pub critic_adam: Adam,
    /// Updates left out because a gradient was not finite.
    pub skipped: u64,
}

impl Learner {
    /// New networks from a seed.
    #[must_use]
    pub fn new(shape: Shape, settings: &Maddpg, seed: u64) -> Self {
        let actor = Flat::new(shape.actor_parts(), seed.wrapping_mul(2));
        let critic = Flat::new(shape.critic_parts(), seed.wrapping_mul(2).wrapping_add(1));
        Self {
            algorithm: settings.algorithm,
            gamma: settings.discount(),
            beta: settings.beta,
            clip: settings.clip,
            actor_target: actor.twin(),
            critic_target: critic.twin(),
            actor_adam: Adam::new(&actor),
            critic_adam: Adam::new(&critic),
            actor,
            critic,
            shape,
            skipped: 0,
        }
    }

    /// π(s), (B, M, 2 + C), without noise.
    ///
    /// # Errors
    /// [`Error::Torch`] when the result cannot be copied.
    pub fn act(&self, input: &Tensor) -> Result<Vec<f32>, Error> {
        let actions = tch::no_grad(|| self.shape.actor(&self.actor.parts(), input).tanh());
        Ok(Vec::<f32>::try_from(actions.contiguous().flatten(0, -1))?)
    }

    /// One update of all networks; the critics' loss before it. `rate` scales both learning rates.
    pub fn update(&mut self, batch: &Batch, actor_rate: f64, critic_rate: f64) -> f64 {
        let target = tch::no_grad(|| self.target(batch));
        let values = self.shape.critic(&self.critic.parts(), &batch.now, &batch.actions);
        // Eq. 23. Critics beside each other each have the loss of their own: the mean would divide their rates by M.
        let loss = mean(&(values - target).square()) * self.critics();
        let loss_value = loss.double_value(&[]);
        let learnt = self.critic_adam.step(&mut self.critic, &loss, critic_rate, self.clip);
        let loss = self.actor_loss(batch);
        let acted = self.actor_adam.step(&mut self.actor, &loss, actor_rate, self.clip);
        self.skipped += u64::from(!learnt) + u64::from(!acted);
        // Without a discount nobody asks the targets.
        if self.gamma > 0.0 {
            self.actor_target.follow(&self.actor, self.beta);
            self.critic_target.follow(&self.critic, self.beta);
        }
        loss_value
    }

    /// How many critics there are.
    fn critics(&self) -> f64 {
        match self.algorithm {
            #[expect(clippy::cast_precision_loss, reason = "at most 254")]
            Algorithm::Paper => self.shape.stations as f64,
            Algorithm::Improved => 1.0,
        }
    }

    /// y = R + γ·Q^T(s', π^T(s')).
    fn target(&self, batch: &Batch) -> Tensor {
        let Some(next) = batch.next.as_ref().filter(|_| self.gamma > 0.0) else {
            return batch.reward.shallow_clone();
        };
        let actions = self.shape.actor(&self.actor_target.parts(), &next.input).tanh();
        let values = self.shape.critic(&self.critic_target.parts(), next, &actions);
        &batch.reward + values * self.gamma
    }

    /// Eq. 22: −E[Q(s, π(s))]. In the improved variant all agents move at once; in the paper's each moves alone, the others
    /// acting as the replay memory has it.
    fn actor_loss(&self, batch: &Batch) -> Tensor {
        let outputs = self.shape.actor(&self.actor.parts(), &batch.now.input);
        let actions = outputs.tanh();
        let actions = match self.algorithm {
            Algorithm::Improved => actions,
            Algorithm::Paper => {
                let m = self.shape.stations;
                let own = Tensor::eye(m, (tch::Kind::Float, actions.device())).view([m, 1, m, 1]);
                actions.unsqueeze(0) * &own + batch.actions.unsqueeze(0) * (1.0 - &own)
            }
        };
        let critic = self.critic.parts();
        let values = self.shape.critic(&critic, &batch.now, &actions);
        mean(&outputs.square()) * SATURATION_WEIGHT - mean(&values) * self.critics()
    }
}
