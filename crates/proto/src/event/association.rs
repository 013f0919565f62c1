//! What a decision on twins, data and subchannels was, and what it was worth.

use serde::{Deserialize, Serialize};

/// The joint action of a round, once it is in force. Reported by the MBS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AssociationDecision {
    /// The round that it holds for.
    pub round: u64,
    /// The policy's name.
    pub policy: String,
    /// Coherence slot of the state that it was decided on.
    pub observed_slot: u64,
    /// Coherence slot in which it came into force.
    pub slot: u64,
    /// K_i: twins of each BS, in the order of the topology.
    pub k: Vec<u32>,
    /// b_i: the fraction of their samples that the twins of each BS train on.
    pub b: Vec<f64>,
    /// τ_{i,c}: time shares, BS by BS; `tau.len() / k.len()` subchannels.
    pub tau: Vec<f64>,
    /// Eq. 17 for the state in which it came into force, emulated milliseconds: training, broadcast, block.
    pub predicted_ms: [f64; 3],
    /// T over that of the optimum for the same state; `None` where that is not computed.
    pub ratio_to_optimal: Option<f64>,
    /// Twins that changed their BS.
    pub migrations: u32,
    /// Wall microseconds that the policy took, at the BS where it took longest; 0 where the event does not tell and the BSs'
    /// own do ([`Decided`](super::What::Decided)).
    pub decision_us: f64,
    /// The BS of each user, by position, in the order of the users.
    pub serving: Vec<u16>,
    /// Height of the finalized chain whose records made it.
    pub height: u64,
    /// BSs whose action was not there in time, so that their last one stayed in force.
    pub kept_by: Vec<String>,
}

impl AssociationDecision {
    /// T of Eq. 17, emulated milliseconds.
    pub fn predicted_total_ms(&self) -> f64 {
        self.predicted_ms.iter().sum()
    }
}
