//! `[maddpg]`: how the agents of the BSs learn to decide association (Algorithm 1).

use serde::{Deserialize, Serialize};

/// `[maddpg]`: what `dtwn train` does.
///
/// An *episode* here is played in all environments at once: `environments` × `slots` steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Maddpg {
    /// Which variant of Algorithm 1.
    pub algorithm: Algorithm,
    /// γ, the discount of Eq. 20; by default 0.9 with `algorithm = "paper"` and 0 else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// E: episodes of training.
    pub episodes: u32,
    /// Slots of an episode.
    pub slots: u32,
    /// Environments that are stepped together.
    pub environments: u32,
    /// The fraction of them that have the topology's own geometry; the others draw positions anew each episode.
    pub own_geometry: f64,
    /// Transitions that the replay memory holds.
    pub replay: u32,
    /// Transitions of a minibatch.
    pub batch: u32,
    /// Updates after each slot.
    pub updates: u32,
    /// α_π (Eq. 22): the first learning rate of the actors.
    pub actor_rate: f64,
    /// α_Q (Eq. 23): the first learning rate of the critics.
    pub critic_rate: f64,
    /// What is left of both rates in the last episode; they fall along a cosine.
    pub rate_end: f64,
    /// β (Eqs. 24–25): the update rate of the target networks.
    pub beta: f64,
    /// θ of the Ornstein–Uhlenbeck noise.
    pub noise_theta: f64,
    /// σ of the noise in the first episode …
    pub noise_sigma: f64,
    /// … and in the last; it falls linearly.
    pub noise_sigma_end: f64,
    /// Gradients are scaled down to this norm.
    pub clip: f64,
    /// Units of each hidden layer of the actors.
    pub width: u32,
    /// How many slots old the state is that the actors see. The critics see the true one: they exist in training only.
    pub staleness: u32,
    /// Passes that even out broadcast times within the actions' meaning, τ ∝ τ·K/R.
    pub repairs: u32,
    /// Moves of twins that the final refinement of a decision tries at most.
    pub refinements: u32,
    /// Held-out instances by which the best checkpoint is chosen.
    pub validation: u32,
}

/// A variant of Algorithm 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// As printed: a multi-layer perceptron each, linear gains, raw actions in replay and critics, reward −T.
    Paper,
    /// Exchangeable networks shared by all agents, critics on the projected relaxed action, logarithmic reward.
    Improved,
}

impl Algorithm {
    /// As written in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Improved => "improved",
        }
    }
}

impl Default for Maddpg {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Improved,
            gamma: None,
            episodes: 200,
            slots: 25,
            environments: 64,
            own_geometry: 0.25,
            replay: 60_000,
            batch: 256,
            updates: 2,
            actor_rate: 1e-3,
            critic_rate: 1e-3,
            rate_end: 0.05,
            beta: 0.01,
            noise_theta: 0.15,
            noise_sigma: 0.2,
            noise_sigma_end: 0.05,
            clip: 10.0,
            width: 32,
            staleness: 0,
            repairs: 8,
            refinements: 6,
            validation: 100,
        }
    }
}

impl Maddpg {
    /// γ: as set, or the algorithm's own.
    pub fn discount(&self) -> f64 {
        self.gamma.unwrap_or(match self.algorithm {
            Algorithm::Paper => 0.9,
            Algorithm::Improved => 0.0,
        })
    }

    /// What is wrong with it: key, message and help of each finding.
    pub(super) fn problems(&self) -> Vec<(&'static str, String, String)> {
        let mut found = Vec::new();
        let mut within = |key: &'static str, value: f64, least: f64, most: f64| {
            if !(least..=most).contains(&value) {
                let message = format!("`maddpg.{key}` = {value} is out of range");
                found.push((key, message, format!("allowed: {least} to {most}")));
            }
        };
        // Counts are bounded where memory or a day of computing would be.
        within("episodes", self.episodes.into(), 1.0, 1e6);
        within("slots", self.slots.into(), 1.0, 1e4);
        within("environments", self.environments.into(), 1.0, 4096.0);
        within("replay", self.replay.into(), f64::from(self.batch), 1e7);
        within("batch", self.batch.into(), 1.0, 65536.0);
        within("updates", self.updates.into(), 1.0, 1000.0);
        within("width", self.width.into(), 1.0, 1024.0);
        within("staleness", self.staleness.into(), 0.0, 100.0);
        within("repairs", self.repairs.into(), 0.0, 1000.0);
        within("refinements", self.refinements.into(), 0.0, 1000.0);
        within("validation", self.validation.into(), 1.0, 1e4);
        // At γ = 1 values do not converge.
        within("gamma", self.discount(), 0.0, 0.999);
        within("own_geometry", self.own_geometry, 0.0, 1.0);
        within("actor_rate", self.actor_rate, 1e-9, 1.0);
        within("critic_rate", self.critic_rate, 1e-9, 1.0);
        within("rate_end", self.rate_end, 0.0, 1.0);
        within("beta", self.beta, 1e-9, 1.0);
        within("noise_theta", self.noise_theta, 0.0, 1.0);
        within("noise_sigma", self.noise_sigma, 0.0, 10.0);
        within("noise_sigma_end", self.noise_sigma_end, 0.0, 10.0);
        within("clip", self.clip, 1e-9, 1e9);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_has_its_own_discount_until_told() {
        let paper = Maddpg { algorithm: Algorithm::Paper, ..Maddpg::default() };
        assert_eq!(paper.discount(), 0.9);
        assert_eq!(Maddpg::default().discount(), 0.0);
        assert_eq!(Maddpg { gamma: Some(0.5), ..paper }.discount(), 0.5);
    }

    #[test]
    fn defaults_are_fine_and_wrong_values_are_named() {
        assert!(Maddpg::default().problems().is_empty());
        let wrong = Maddpg { beta: f64::NAN, replay: 10, gamma: Some(1.0), ..Maddpg::default() };
        let keys: Vec<_> = wrong.problems().into_iter().map(|(key, ..)| key).collect();
        assert_eq!(keys, ["replay", "gamma", "beta"]);
    }
}
