//! `[run]`: what holds for the whole emulation.

use super::OrNone;
use crate::units::Interval;
use serde::{Deserialize, Serialize};

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// A name for the run's directory and reports: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The seed from which every random number of the run derives. At most 2^63 − 1, TOML's largest integer.
    pub seed: u64,
    /// Wall seconds for one emulated second, at least 1.
    pub dilation: f64,
    /// Emulated time after which the run ends by itself; `"none"` runs until told to stop.
    pub duration: OrNone<Interval>,
    /// What happens when an agent's process ends.
    pub restart: Restart,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            name: "dtwn".to_owned(),
            seed: 1,
            dilation: 1.0,
            duration: OrNone::None,
            restart: Restart::OnFailure,
        }
    }
}

/// What happens when an agent's process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It stays down and the run fails.
    Never,
    /// It is started again when it crashed or exited with an error.
    OnFailure,
    /// It is started again however it ended.
    Always,
}
