//! What happens to digital twins.

use serde::{Deserialize, Serialize};

/// A twin as its BS has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TwinAge {
    /// The user's station: `ug1.7`.
    pub twin: String,
    /// Emulated milliseconds since its last state was taken, to 0.1; `None` where no state has come yet, and with it the others.
    pub age_ms: Option<f64>,
    /// Where the user was then, in metres, to 0.1.
    pub position_m: Option<[f64; 2]>,
    /// Its charge then, 0 to 1.
    pub battery: Option<f64>,
    /// Its load then, 0 to 1.
    pub load: Option<f64>,
    /// States that never came to this BS.
    pub missed: u64,
}

/// A twin has moved from one BS to another, told by the new owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TwinMoved {
    /// The user's station: `ug1.7`.
    pub twin: String,
    /// The old owner.
    pub from: String,
    /// The new one.
    pub to: String,
    /// How many owners it has had, this one included.
    pub epoch: u64,
    /// The first round in which the new owner may train it.
    pub from_round: u64,
    /// Samples that came along.
    pub samples: u64,
    /// Bytes that came through the air: data and behaviour model.
    pub bytes: u64,
    /// From the first offer to the taking over, emulated milliseconds; since the last start of the new owner, where it was started in
    /// between.
    pub took_ms: f64,
}
