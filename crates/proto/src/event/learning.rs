//! What nodes report of learning.

use serde::{Deserialize, Serialize};

/// A BS has trained its twins' models and aggregated them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalModel {
    /// Of which round.
    pub round: u64,
    /// Twins trained.
    pub twins: u32,
    /// Samples that went through, those of every pass counted.
    pub samples: u64,
    /// Mean training loss over the twins, in nats.
    pub loss: f64,
    /// Loss on samples of its own, in nats, where it has any.
    pub held_out_loss: Option<f64>,
    /// Share of right answers on the same.
    pub held_out_accuracy: Option<f64>,
    /// Bytes of the model as it travels.
    pub bytes: u64,
    /// Wall milliseconds that training took.
    pub train_wall_ms: f64,
    /// Wall milliseconds that Eq. 4 took.
    pub aggregate_wall_ms: f64,
    /// Emulated milliseconds that training took, waiting for the pace included.
    pub train_ms: f64,
    /// Eq. 12's prediction of the same.
    pub predicted_ms: f64,
    /// Emulated milliseconds that Eq. 4 took.
    #[serde(default)]
    pub aggregate_ms: f64,
    /// Eq. 14's prediction of the same.
    #[serde(default)]
    pub aggregate_predicted_ms: f64,
    /// Emulated milliseconds by which the machine was slower than the BS's processor would have been; 0 when it kept up.
    pub overrun_ms: f64,
}

/// A BS has abandoned a round's training, as the round was over before it had come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainingAbandoned {
    /// Of which round.
    pub round: u64,
    /// Samples that went through before, those of every pass counted.
    pub samples: u64,
    /// Emulated milliseconds that these took.
    pub train_ms: f64,
    /// Eq. 12's prediction of the same.
    pub predicted_ms: f64,
    /// Emulated milliseconds by which the machine was slower than the BS's processor would have been; 0 when it kept up.
    pub overrun_ms: f64,
}

/// A BS has checked another's model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Of which round.
    pub round: u64,
    /// Whose model.
    pub owner: String,
    /// Why it is not good; `None` when it is.
    pub fault: Option<String>,
    /// Its loss on the verifier's samples, in nats.
    pub loss: Option<f64>,
    /// Wall milliseconds that checking took.
    pub verify_wall_ms: f64,
    /// The same in emulated milliseconds.
    #[serde(default)]
    pub verify_ms: f64,
    /// What Eq. 16 charges for validating a block, for the part of one model.
    #[serde(default)]
    pub predicted_ms: f64,
}

/// The MBS has a new global model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GlobalModel {
    /// The round that made it; 0 for the one that everything starts from.
    pub round: u64,
    /// What is learned from: `synthetic` or `cifar-10`.
    pub dataset: String,
    /// BLAKE3 of its parameters, in hexadecimal.
    pub digest: String,
    /// BSs whose models are in it.
    pub accepted: Vec<String>,
    /// BSs whose models were found bad.
    pub rejected: Vec<String>,
    /// BSs whose models were not here, or not attested, in time.
    pub late: Vec<String>,
    /// Loss on the test set, in nats.
    pub test_loss: Option<f64>,
    /// Share of right answers on the test set.
    pub test_accuracy: Option<f64>,
    /// Wall milliseconds that Eq. 5 took.
    pub aggregate_wall_ms: f64,
    /// Whether it is that of a checkpoint, from which the MBS goes on.
    #[serde(default)]
    pub restored: bool,
}
