//! `[twins]`: how digital twins follow their users.

use crate::units::Interval;
use serde::{Deserialize, Serialize};

/// `[twins]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Twins {
    /// How often, in emulated time, a user sends its state to the BS that holds its twin.
    pub sync_period: Interval,
    /// Whether twins have their users' data when the run begins; without, all samples cross the access links first.
    pub preload: bool,
}

impl Default for Twins {
    fn default() -> Self {
        Self { sync_period: Interval::from_millis(1000), preload: true }
    }
}
