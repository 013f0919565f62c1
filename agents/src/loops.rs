//! How fast a base station trains, beside the bare loop: what `scripts/bench learn` measures.
//!
//! The first is all that a BS does with its twins in a round, on its thread and by its code: from a global model that came over the
//! network, a model for each twin on its part of the samples. The second is nothing but forward, backward and step of the same model
//! with the same optimiser, on minibatches of the same samples and sizes that lie ready as normalised tensors. A twin's last minibatch
//! is smaller than the others, and takes longer a sample: so it is in both. How long max-pooling takes depends on what comes in: so
//! both go from the same parameters, and the bare loop gets them back for each twin while the clock stands. They take turns, so
//! that what disturbs the machine disturbs both.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dtwn_model::Plan;
use dtwn_node::learning::learner::{LearnerError, twins_of};
use dtwn_node::learning::wire::{Encoder, Format};
use dtwn_node::learning::work::{Done, Job, Worker};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::training::{Local, Trainer};
use crate::{Error, cnn, learner};

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The base station.
    pub node: String,
    /// Its twins.
    pub twins: usize,
    /// Samples that go through in a round.
    pub samples: u64,
    /// Samples in a minibatch, but for each twin's last.
    pub batch: usize,
    /// Minibatches in a round.
    pub steps: usize,
    /// Threads that one operation uses.
    pub threads: i32,
    /// Samples a second in the base station, each turn.
    pub base_station: Vec<f64>,
    /// Samples a second in the bare loop, each turn.
    pub bare: Vec<f64>,
}

/// Lets the first base station of a plan that holds twins train for so many rounds, and the bare loop in between on as many samples.
///
/// # Errors
/// When the data set cannot be read, or no base station holds twins.
pub fn compare(plan: &Plan, turns: u32) -> Result<Outcome, Error> {
    let holder = plan.nodes.iter().find(|node| !twins_of(plan, node).is_empty());
    let node = holder.ok_or_else(|| LearnerError("no base station holds a twin with samples".into()))?;
    let settings = learner::local(&plan.topology().learning);
    let (worker, mut done) = Worker::start(plan, node, learner::make)
        .map_err(|error| LearnerError(format!("no thread to train on: {error}")))?;
    let first = cnn::initial_parameters(plan.topology().run.seed);
    let global = Bytes::from(Encoder::new(Format::F32).encode(&first));
    let like = learner::TorchLearner::new(plan, node)?;
    let sizes = minibatches(&like.chosen(), &settings);
    let mut bare = Bare::new(&like, &settings, &first, sizes)?;
    let mut outcome = Outcome {
        node: node.name.clone(),
        twins: 0,
        samples: 0,
        batch: settings.batch,
        steps: bare.sizes.iter().map(Vec::len).sum(),
        threads: tch::get_num_threads(),
        base_station: Vec::new(),
        bare: Vec::new(),
    };
    for round in 0..=u64::from(turns) {
        if !worker.ask(Job::Train { round: round + 1, global: global.clone(), fractions: None }) {
            return Err(LearnerError("the learning thread takes no job".into()).into());
        }
        let mut trained = done.blocking_recv();
        while matches!(trained, Some(Done::Held(_))) {
            trained = done.blocking_recv();
        }
        let Some(Done::Trained { twins, samples, train, .. }) = trained else {
            return Err(LearnerError(format!("the base station did not train: {trained:?}")).into());
        };
        // It still hashes the twins' models, which must not take the processor from the bare loop.
        let Some(Done::Behaviour { .. }) = done.blocking_recv() else {
            return Err(LearnerError("the base station left no models of twins".into()).into());
        };
        let bare_per_s = bare.run()?;
        // The first turn of both warms up.
        if round > 0 {
            outcome.base_station.push(samples as f64 / train.as_secs_f64());
            outcome.bare.push(bare_per_s);
        }
        (outcome.twins, outcome.samples) = (twins, samples);
    }
    Ok(outcome)
}

/// The sizes of a round's minibatches, twin by twin, where each goes through so many samples.
fn minibatches(chosen: &[usize], settings: &Local) -> Vec<Vec<usize>> {
    let of = |samples: &usize| {
        let (whole, rest) = (samples / settings.batch, samples % settings.batch);
        std::iter::repeat_n(settings.batch, whole).chain((rest > 0).then_some(rest))
    };
    chosen.iter().map(|samples| (0..settings.epochs).flat_map(|_| of(samples)).collect()).collect()
}

/// The bare loop.
struct Bare {
    trainer: Trainer,
    local: Local,
    first: Vec<f32>,
    ready: Vec<(Tensor, Tensor)>,
    sizes: Vec<Vec<usize>>,
}

impl Bare {
    fn new(
        learner: &learner::TorchLearner,
        local: &Local,
        first: &[f32],
        sizes: Vec<Vec<usize>>,
    ) -> Result<Self, Error> {
        let (normalisation, samples) = learner.samples();
        let trainer = Trainer::new(Device::Cpu, normalisation)?;
        let all: Vec<u32> = (0..samples.len()).filter_map(|at| u32::try_from(at).ok()).collect();
        let whole = all.chunks_exact(local.batch);
        let ready = whole.map(|batch| trainer.batch(samples, batch, None)).collect::<Result<Vec<_>, _>>()?;
        if ready.is_empty() {
            let (value, min) = (samples.len() as i64, local.batch as i64);
            return Err(Error::TooSmall { name: "samples of the base station", value, min });
        }
        Ok(Self { trainer, local: *local, first: first.to_vec(), ready, sizes })
    }

    /// Goes through a round's minibatches; returns samples a second.
    fn run(&mut self) -> Result<f64, Error> {
        let mut took = Duration::ZERO;
        let mut ready = self.ready.iter().cycle();
        for twin in &self.sizes {
            let mut optimiser = self.trainer.begin(&self.first, &self.local)?;
            let began = Instant::now();
            for ((images, labels), size) in ready.by_ref().zip(twin) {
                let size = i64::try_from(*size).unwrap_or(i64::MAX);
                let (images, labels) = (images.f_narrow(0, 0, size)?, labels.f_narrow(0, 0, size)?);
                optimiser.zero_grad();
                let logits = self.trainer.model().forward(&images)?;
                crate::training::cross_entropy(&logits, &labels)?.f_backward()?;
                optimiser.step();
            }
            took += began.elapsed();
        }
        Ok(self.sizes.iter().flatten().sum::<usize>() as f64 / took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::Optimiser;

    #[test]
    fn each_twin_ends_with_what_is_left() {
        let settings = Local {
            epochs: 2,
            batch: 20,
            learning_rate: 0.01,
            optimiser: Optimiser::Adam,
            proximal_mu: 0.0,
            augment: false,
        };
        let twins: [&[usize]; 3] = [&[20, 20, 5, 20, 20, 5], &[20, 20], &[3, 3]];
        assert_eq!(minibatches(&[45, 20, 3], &settings), twins);
    }
}
