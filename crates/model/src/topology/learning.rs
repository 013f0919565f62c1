//! `[learning]`: rounds of federated learning.

use std::collections::BTreeMap;

use crate::units::Interval;
use serde::{Deserialize, Serialize};

/// `[learning]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Learning {
    /// Whether there are rounds at all: the MBS sends the global model, and each BS sends its own to the MBS and the others.
    pub enabled: bool,
    /// What the BSs make their models with.
    pub learner: Learner,
    /// Emulated time after which the MBS ends a round without the BSs that have not delivered.
    pub deadline: Interval,
    /// The folder with CIFAR-10's binary files, as an absolute path; without it, the synthetic set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// How samples are dealt to users.
    pub partition: Partition,
    /// Concentration of `partition = "dirichlet"`: the smaller, the fewer classes a user has.
    pub alpha: f64,
    /// Runs of the samples sorted by class that each user has with `partition = "shards"`.
    pub shards: u32,
    /// b: the part of its samples that each twin trains on in a round.
    pub fraction: f64,
    /// The part of each twin's samples that nothing trains on: models are judged on them.
    pub held_out: f64,
    /// Passes over these samples.
    pub epochs: u32,
    /// Samples in a minibatch.
    pub batch: u32,
    /// Step length.
    pub learning_rate: f64,
    /// How parameters follow gradients.
    pub optimiser: Optimiser,
    /// Share of the last step that is kept, with `optimiser = "sgd"`.
    pub momentum: f64,
    /// μ of FedProx; 0 for none.
    pub proximal_mu: f64,
    /// Whether images are moved and mirrored at random in training.
    pub augment: bool,
    /// How models are put together (Eq. 4 and 5).
    pub aggregation: Aggregation,
    /// How parameters are written in models that travel.
    pub format: ModelFormat,
    /// Whether models are checked on the verifiers' own samples before they count.
    pub verify: bool,
    /// By how much, in nats, a model's loss on a verifier's samples may exceed that of the global model it was trained from.
    pub tolerance: f64,
    /// The least cosine between a model's step from the global one and the verifier's own, where its loss exceeds the global model's at
    /// all; −1 for any.
    pub alignment: f64,
    /// The least z-score at which a model counts as trained on wrong labels; a large number for never.
    pub mislabel_z: f64,
    /// With fewer good models than this, a round leaves the global model as it is.
    pub min_bs: u32,
    /// Samples on which the MBS judges each global model.
    pub test_samples: u32,
    /// Held-out samples of its twins on which a BS judges its own model and those of others, at most.
    pub validation_samples: u32,
    /// Whether training takes the time of Eq. 12.
    pub compute: Compute,
    /// BSs that send bad models, for experiments.
    pub poison: BTreeMap<String, Poison>,
}

impl Learning {
    /// Whether the MBS and the BSs train, and so need libtorch.
    pub fn trains(&self) -> bool {
        self.enabled && self.learner == Learner::Torch
    }

    /// What is wrong: key, message, help.
    pub(super) fn problems(&self, stations: &[String]) -> Vec<(String, String, String)> {
        let mut problems = Vec::new();
        let mut ensure = |fine: bool, key: &str, value: &dyn std::fmt::Display, help: &str| {
            if !fine {
                problems.push((
                    key.to_owned(),
                    format!("`learning.{key}` = {value} is out of range"),
                    format!("allowed: {help}"),
                ));
            }
        };
        let finite_above = |value: f64| value.is_finite() && value > 0.0;
        let absolute = self.data.as_ref().is_none_or(|data| std::path::Path::new(data).is_absolute());
        ensure(absolute, "data", &self.data.as_deref().unwrap_or_default(), "an absolute path");
        ensure(finite_above(self.alpha), "alpha", &self.alpha, "above 0");
        ensure(self.shards > 0, "shards", &self.shards, "1 and more");
        ensure(
            finite_above(self.fraction) && self.fraction <= 1.0,
            "fraction",
            &self.fraction,
            "above 0, up to 1",
        );
        ensure((0.0..=0.5).contains(&self.held_out), "held_out", &self.held_out, "0 to 0.5");
        ensure((1..=1000).contains(&self.epochs), "epochs", &self.epochs, "1 to 1000");
        ensure((1..=65_536).contains(&self.batch), "batch", &self.batch, "1 to 65536");
        ensure(finite_above(self.learning_rate), "learning_rate", &self.learning_rate, "above 0");
        ensure((0.0..1.0).contains(&self.momentum), "momentum", &self.momentum, "0 to below 1");
        let mu = self.proximal_mu;
        ensure(mu.is_finite() && mu >= 0.0, "proximal_mu", &mu, "0 and more");
        ensure(
            self.tolerance.is_finite() && self.tolerance >= 0.0,
            "tolerance",
            &self.tolerance,
            "0 and more",
        );
        ensure((-1.0..=1.0).contains(&self.alignment), "alignment", &self.alignment, "-1 to 1");
        let z = self.mislabel_z;
        ensure(z.is_finite() && z >= 0.0, "mislabel_z", &z, "0 and more");
        let most = stations.len().max(1);
        ensure(
            (1..=most).contains(&(self.min_bs as usize)),
            "min_bs",
            &self.min_bs,
            &format!("1 to {most}, the number of BSs"),
        );
        ensure((1..=100_000).contains(&self.test_samples), "test_samples", &self.test_samples, "1 to 100000");
        ensure(
            (1..=100_000).contains(&self.validation_samples),
            "validation_samples",
            &self.validation_samples,
            "1 to 100000",
        );
        for name in self.poison.keys().filter(|name| !stations.contains(name)) {
            problems.push((
                "poison".into(),
                format!("`learning.poison` names {name:?}, which is no base station"),
                format!("base stations: {}", stations.join(", ")),
            ));
        }
        problems
    }
}

impl Default for Learning {
    fn default() -> Self {
        Self {
            enabled: true,
            learner: Learner::Traffic,
            deadline: Interval::from_millis(60_000),
            data: None,
            partition: Partition::Iid,
            alpha: 0.5,
            shards: 2,
            fraction: 0.2,
            held_out: 0.1,
            epochs: 1,
            batch: 20,
            learning_rate: 0.02,
            optimiser: Optimiser::Sgd,
            momentum: 0.9,
            proximal_mu: 0.0,
            augment: false,
            aggregation: Aggregation::Mean,
            format: ModelFormat::F32,
            verify: true,
            tolerance: 0.5,
            alignment: 0.0,
            mislabel_z: 2.5,
            min_bs: 1,
            test_samples: 2000,
            validation_samples: 200,
            compute: Compute::Paced,
            poison: BTreeMap::new(),
        }
    }
}

/// What the BSs make their models with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learner {
    /// Training: MBS and BSs run as `dtwn-agent`, which needs libtorch.
    Torch,
    /// Nothing: random bodies of the size of a model take the same way through the air.
    Traffic,
}

/// How samples are dealt to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partition {
    /// Independently of their class.
    Iid,
    /// Each user's share of the classes is drawn from a Dirichlet distribution.
    Dirichlet,
    /// Each user has a few runs of the samples sorted by class.
    Shards,
}

/// How parameters follow gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimiser {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam with its usual constants.
    Adam,
}

/// How models are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// The mean weighted by samples.
    Mean,
    /// As printed in Eq. 4 and 5, with samples scaled to a mean of 1.
    Paper,
    /// The median of each parameter.
    Median,
}

/// How parameters are written in models that travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelFormat {
    /// As 32-bit floats.
    F32,
    /// As 16-bit floats.
    F16,
    /// As 8-bit integers with a scale for every 1,024.
    Int8,
}

/// How long training takes in emulated time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// As long as a processor of the BS's speed takes (Eq. 12).
    Paced,
    /// As long as this machine takes.
    Native,
}

/// What a bad BS does to its models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Poison {
    /// Sends g − 3·(w − g) for a global model g and its own w: a step away from what its data say.
    SignFlip,
    /// Adds normal noise of standard deviation 0.1 to every parameter.
    Noise,
    /// Trains on labels 9 − label.
    LabelFlip,
    /// Writes NaN over the first parameter.
    Nan,
}

impl Poison {
    /// What can be done to models that are trained already: all but `label-flip`, which has to be there when twins get their data.
    pub const LIVE: [Self; 3] = [Self::SignFlip, Self::Noise, Self::Nan];

    /// As a topology file names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SignFlip => "sign-flip",
            Self::Noise => "noise",
            Self::LabelFlip => "label-flip",
            Self::Nan => "nan",
        }
    }

    /// The one of [`Self::LIVE`] that a name means.
    #[must_use]
    pub fn live(name: &str) -> Option<Self> {
        Self::LIVE.into_iter().find(|kind| kind.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_fine_and_what_is_not_is_named() {
        let stations = ["bs1".to_owned()];
        assert!(Learning::default().problems(&stations).is_empty());
        let bad = Learning {
            fraction: f64::NAN,
            held_out: 0.6,
            alignment: f64::NAN,
            mislabel_z: f64::INFINITY,
            batch: 0,
            min_bs: 2,
            data: Some("here".into()),
            poison: BTreeMap::from([("bs9".to_owned(), Poison::Nan)]),
            ..Learning::default()
        };
        let keys: Vec<String> = bad.problems(&stations).into_iter().map(|problem| problem.0).collect();
        assert_eq!(
            keys,
            ["data", "fraction", "held_out", "batch", "alignment", "mislabel_z", "min_bs", "poison"]
        );
    }
}
