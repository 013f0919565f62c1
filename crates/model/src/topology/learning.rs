//! `[learning]`: rounds of federated learning.

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
}

impl Learning {
    /// Whether the MBS and the BSs train, and so need libtorch.
    pub fn trains(&self) -> bool {
        self.enabled && self.learner == Learner::Torch
    }
}

impl Default for Learning {
    fn default() -> Self {
        Self { enabled: true, learner: Learner::Traffic, deadline: Interval::from_millis(60_000) }
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
