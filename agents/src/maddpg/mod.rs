//! MADDPG for edge association: Algorithm 1 with Eqs. 19–25, as printed and improved.
//!
//! | | `algorithm = "paper"` | `algorithm = "improved"` |
//! | --- | --- | --- |
//! | actors | a perceptron each on s = (f, K, D, h) | one network, exchangeable in BSs and subchannels, run by each agent |
//! | critics | a perceptron each on s and all actions | one on the relaxed decision under the true state |
//! | replay and critics see | tanh outputs plus noise, unprojected | replay the same; the critic what they stand for before rounding |
//! | reward | −T (Eq. 19) | −5·ln(T/(0.7·T of the average policy)) |
//! | γ | 0.9 | 0: actions hardly change the next state |
//! | actors' gradient | each agent alone, the others as in replay | all agents at once |
//!
//! All agents share the reward (Eq. 19), so with shared weights one critic serves them all. Networks that share a shape are
//! updated in one batched operation.
//!
//! An episode draws all it needs from generators of its own, seeded by (seed, episode): a training that goes on from a
//! [`checkpoint`] after a kill gives the same policy, to the bit, as one that was never stopped.

pub mod checkpoint;
pub mod flat;
pub mod learner;
pub mod networks;
mod noise;
mod replay;
mod rows;
pub mod training;
pub mod validation;
pub mod worker;

pub use noise::Noise;
pub use replay::Replay;
pub use training::{Progress, Training};

#[cfg(test)]
mod tests;
