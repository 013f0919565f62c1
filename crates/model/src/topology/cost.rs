//! `[cost]`: the constants of Eq. 12–18.

use super::OrNone;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// `[cost]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cost {
    /// f^C: processor cycles to train one sample (Eq. 12).
    pub cycles_per_sample: f64,
    /// f_b^C: cycles to aggregate one bit of a model (Eq. 13).
    pub cycles_per_aggregated_bit: f64,
    /// f^v: cycles to validate one bit of a block (Eq. 16).
    pub cycles_per_validated_bit: f64,
    /// ξ: the factor of transmission time (Eq. 15–16), fitted from a run's own measurements.
    pub xi: f64,
    /// |w_g|: the size of one model.
    pub model_size: Bytes,
    /// S_B: the size of a block with its bodies; `"none"` takes one model a BS, M·|w_g|.
    pub block_size: OrNone<Bytes>,
    /// M_p: how many block producers. Written as `chain.producers`; here for the equations.
    #[serde(skip)]
    pub producers: u32,
    /// What a BS broadcasts each round.
    pub payload: Payload,
    /// θ_th: the accuracy that (18a) demands, in (0, 1).
    pub theta_th: f64,
    /// a of θ_G = 1 − a·(Σ b_n D_n)^(−p).
    pub theta_a: f64,
    /// p of θ_G = 1 − a·(Σ b_n D_n)^(−p).
    pub theta_p: f64,
    /// The least fraction of its samples that a twin trains on in a round (18d).
    pub b_min: f64,
    /// The largest fraction.
    pub b_max: f64,
}

impl Default for Cost {
    fn default() -> Self {
        Self {
            // About 105 MFLOP a sample, forward and backward, at 32 FLOP a cycle, and a fifth for what is not multiplying.
            cycles_per_sample: 4e6,
            cycles_per_aggregated_bit: 0.1,
            cycles_per_validated_bit: 12.0,
            xi: 0.43,
            // 2,156,490 parameters of 32 bits: 69 Mbit.
            model_size: Bytes::new(2_156_490 * 4),
            block_size: OrNone::None,
            producers: 4,
            payload: Payload::Aggregate,
            theta_th: 0.54,
            theta_a: 10.4,
            theta_p: 0.35,
            b_min: 0.1,
            b_max: 0.4,
        }
    }
}

/// What a BS broadcasts each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// One aggregated model G_m, what the emulation sends.
    Aggregate,
    /// The models of all K_i twins, as Eq. 15 counts.
    Twins,
}
