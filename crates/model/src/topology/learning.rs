//! `[learning]`: rounds of federated learning.

use crate::units::Interval;
use serde::{Deserialize, Serialize};

/// `[learning]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Learning {
    /// Whether there are rounds at all: the MBS sends the global model, and each BS sends its own to the MBS and the others.
    pub enabled: bool,
    /// Emulated time after which the MBS ends a round without the BSs that have not delivered.
    pub deadline: Interval,
}

impl Default for Learning {
    fn default() -> Self {
        Self { enabled: true, deadline: Interval::from_millis(60_000) }
    }
}
