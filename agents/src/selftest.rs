//! `dtwn-agent selftest`: trains the CNN for some steps, to show that libtorch works here, that it learns, and how fast.

use std::time::{Duration, Instant};

use serde::Serialize;
use tch::nn::{self, OptimizerConfig};
use tch::{Device, Reduction, Tensor};

use crate::cnn::{self, Cnn};
use crate::synthetic::{Batch, Synthetic, TEST_START};
use crate::{Error, TORCH_VERSION, runtime};

/// Adam rather than plain SGD: it learns at this rate with any batch size from a few samples to hundreds.
const LEARNING_RATE: f64 = 5e-4;
/// Samples on which loss and accuracy are measured; none of them is trained on.
const TEST_SAMPLES: u64 = 500;

/// What to train, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Minibatches to train on.
    pub steps: u32,
    /// Samples in each.
    pub batch: u32,
    /// Seed of the initial parameters and of the data.
    pub seed: u64,
    /// Where to train.
    pub device: Device,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// libtorch's version.
    pub torch_version: &'static str,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Threads that one operation uses.
    pub threads: i32,
    /// Always the synthetic set.
    pub dataset: &'static str,
    /// Parameters of the model.
    pub parameters: usize,
    /// As configured.
    pub steps: u32,
    /// As configured.
    pub batch: u32,
    /// As configured.
    pub seed: u64,
    /// Cross-entropy in nats on held-out samples before the first step.
    pub loss_before: f64,
    /// The same after the last step.
    pub loss_after: f64,
    /// Fraction of held-out samples classified rightly after the last step.
    pub accuracy_after: f64,
    /// Samples trained per second of the training loop alone: making the data is not counted.
    pub samples_per_s: f64,
    /// BLAKE3 of the final parameters. The same seed, steps, batch, thread count and device give the same digest.
    pub digest: String,
}

impl Outcome {
    /// Whether training did what it must: finite loss, lower than before.
    #[must_use]
    pub fn learned(&self) -> bool {
        self.loss_after.is_finite() && self.loss_after < self.loss_before
    }
}

/// Trains by Adam on a stream of fresh synthetic samples.
///
/// # Errors
///
/// [`Error::TooSmall`] for no steps or an empty batch; [`Error::Torch`] for whatever libtorch refuses.
pub fn run(config: &Config) -> Result<Outcome, Error> {
    for (name, value) in [("steps", config.steps), ("batch", config.batch)] {
        if value == 0 {
            return Err(Error::TooSmall { name, value: 0, min: 1 });
        }
    }
    let data = Synthetic::new(config.seed);
    let model = Cnn::new(config.device, config.seed)?;
    let mut optimizer = nn::Adam::default().build(model.store(), LEARNING_RATE)?;
    let test = Batch::of(&data, TEST_START, TEST_SAMPLES, config.device)?;
    let (loss_before, _) = evaluate(&model, &test)?;
    let mut busy = Duration::ZERO;
    for step in 0..u64::from(config.steps) {
        let size = u64::from(config.batch);
        let batch = Batch::of(&data, step * size, size, config.device)?;
        runtime::synchronize(config.device);
        let start = Instant::now();
        optimizer.zero_grad();
        cross_entropy(&model.forward(&batch.images)?, &batch.labels)?.f_backward()?;
        optimizer.step();
        runtime::synchronize(config.device);
        busy += start.elapsed();
    }
    let (loss_after, accuracy_after) = evaluate(&model, &test)?;
    Ok(Outcome {
        torch_version: TORCH_VERSION,
        device: runtime::device_name(config.device),
        threads: tch::get_num_threads(),
        dataset: "synthetic",
        parameters: cnn::PARAMETERS,
        steps: config.steps,
        batch: config.batch,
        seed: config.seed,
        loss_before,
        loss_after,
        accuracy_after,
        samples_per_s: f64::from(config.steps) * f64::from(config.batch) / busy.as_secs_f64(),
        digest: model.digest()?.to_hex().to_string(),
    })
}

/// Mean cross-entropy of a batch, in nats.
fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, Error> {
    Ok(logits.f_cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0)?)
}

/// Loss and accuracy without touching the model.
fn evaluate(model: &Cnn, batch: &Batch) -> Result<(f64, f64), Error> {
    tch::no_grad(|| {
        let logits = model.forward(&batch.images)?;
        let loss = f64::try_from(cross_entropy(&logits, &batch.labels)?)?;
        Ok((loss, cnn::accuracy(&logits, &batch.labels)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { steps: 2, batch: 8, seed: 4, device: Device::Cpu }
    }

    #[test]
    fn the_same_seed_and_threads_give_the_same_parameters() {
        tch::set_num_threads(1);
        let first = run(&config()).unwrap();
        let second = run(&config()).unwrap();
        assert_eq!(first.digest, second.digest);
        let other = run(&Config { seed: 5, ..config() }).unwrap();
        assert_ne!(first.digest, other.digest);
    }

    #[test]
    fn some_steps_of_training_lower_the_loss() {
        tch::set_num_threads(1);
        let outcome = run(&Config { steps: 60, batch: 32, ..config() }).unwrap();
        assert!(outcome.learned(), "{outcome:?}");
        assert!(outcome.loss_after < 0.95 * outcome.loss_before, "{outcome:?}");
        assert!(outcome.accuracy_after > 0.15, "{outcome:?}");
    }

    #[test]
    fn a_loss_that_rose_or_is_nan_has_not_learned() {
        let outcome = run(&config()).unwrap();
        assert!(!Outcome { loss_after: f64::NAN, ..outcome.clone() }.learned());
        assert!(!Outcome { loss_after: outcome.loss_before + 0.1, ..outcome }.learned());
    }

    #[test]
    fn nothing_to_train_is_an_error() {
        let error = run(&Config { steps: 0, ..config() }).unwrap_err();
        assert!(matches!(error, Error::TooSmall { name: "steps", .. }));
        let error = run(&Config { batch: 0, ..config() }).unwrap_err();
        assert!(matches!(error, Error::TooSmall { name: "batch", .. }));
    }
}
