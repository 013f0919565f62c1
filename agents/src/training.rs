//! Training the CNN on the samples of one twin, and judging a model on samples that it has not seen.

use std::time::{Duration, Instant};

use dtwn_node::learning::data::{CLASSES, IMAGE_BYTES, Records};
use dtwn_node::learning::learner::{Examination, Judgement};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tch::nn::OptimizerConfig;
use tch::{Device, Kind, Reduction, Tensor, nn};

use crate::cnn::{self, CHANNELS, Cnn, SIDE};
use crate::{Error, runtime};

/// Samples that are judged at a time.
const JUDGED_AT_A_TIME: usize = 500;
/// Pixels by which an augmented image is moved at most, as is usual for CIFAR-10 (He et al. 2016, "Deep Residual Learning for
/// Image Recognition", section 4.2).
const PAD: usize = 4;

/// How grey levels become the values that the model sees: less the mean, over the spread, channel by channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// In grey levels, 0 to 255.
    pub mean: [f32; CHANNELS],
    /// In grey levels.
    pub spread: [f32; CHANNELS],
}

impl Normalisation {
    /// Mean and standard deviation of CIFAR-10's training set.
    pub const CIFAR10: Self = Self { mean: [125.31, 122.95, 113.87], spread: [62.99, 62.09, 66.70] };
    /// Of the synthetic set: the centre and about the spread of its grey levels.
    pub const SYNTHETIC: Self = Self { mean: [128.0; CHANNELS], spread: [32.0; CHANNELS] };
}

/// How parameters follow gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimiser {
    /// Stochastic gradient descent with momentum, 0 for none.
    Sgd {
        /// Share of the last step that is kept.
        momentum: f64,
    },
    /// Adam (Kingma & Ba 2015) with its usual constants.
    Adam,
}

/// How a twin's model is trained in a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Local {
    /// Passes over the samples.
    pub epochs: u32,
    /// Samples in a minibatch.
    pub batch: usize,
    /// Step length.
    pub learning_rate: f64,
    /// What steps.
    pub optimiser: Optimiser,
    /// μ of FedProx (Li et al. 2020, "Federated Optimization in Heterogeneous Networks"): adds μ/2·‖w − w_global‖² to the loss. 0
    /// for none.
    pub proximal_mu: f64,
    /// Whether images are moved by up to 4 pixels and mirrored at random.
    pub augment: bool,
}

/// What came of training.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The parameters in the order of [`cnn::LAYOUT`].
    pub parameters: Vec<f32>,
    /// Samples that went through, repeated ones included.
    pub samples: u64,
    /// Mean loss of the last pass, in nats, without the proximal term.
    pub loss: f64,
    /// Time spent in forward and backward passes and steps.
    pub busy: Duration,
}

/// A model with its device, used for one twin after another.
#[derive(Debug)]
pub struct Trainer {
    model: Cnn,
    normalisation: Normalisation,
}

impl Trainer {
    /// On this device.
    ///
    /// # Errors
    ///
    /// [`Error::Torch`] when it cannot hold the model.
    pub fn new(device: Device, normalisation: Normalisation) -> Result<Self, Error> {
        Ok(Self { model: Cnn::new(device, 0)?, normalisation })
    }

    /// The model that it trains.
    pub(crate) fn model(&self) -> &Cnn {
        &self.model
    }

    /// How it normalises images.
    pub(crate) fn normalisation(&self) -> Normalisation {
        self.normalisation
    }

    /// Trains from `global` on the samples `chosen` of `records`. Order and augmentation follow from the seed alone.
    ///
    /// # Errors
    ///
    /// [`Error::TooSmall`] without samples, passes or a batch; [`Error::ParameterCount`] and [`Error::NotFinite`] for `global`, the
    /// latter also when training diverges; [`Error::NoSample`] for a position that `records` has not; [`Error::Torch`].
    pub fn train(
        &mut self,
        global: &[f32],
        records: &Records,
        chosen: &[u32],
        local: &Local,
        seed: u64,
    ) -> Result<Trained, Error> {
        let sizes = [
            ("samples", chosen.len() as u64),
            ("epochs", local.epochs.into()),
            ("batch", local.batch as u64),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::TooSmall { name, value: 0, min: 1 });
        }
        let mut optimiser = self.begin(global, local)?;
        let anchor = (local.proximal_mu > 0.0).then(|| self.copies()).transpose()?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut order = chosen.to_vec();
        let (mut samples, mut loss_sum, mut busy) = (0, 0.0, Duration::ZERO);
        for _ in 0..local.epochs {
            order.shuffle(&mut random);
            loss_sum = 0.0;
            for batch in order.chunks(local.batch) {
                let augment = local.augment.then_some(&mut random);
                let (images, labels) = self.batch(records, batch, augment)?;
                let began = Instant::now();
                let loss = self.step(&mut optimiser, &images, &labels, anchor.as_deref(), local)?;
                busy += began.elapsed();
                loss_sum += loss * batch.len() as f64;
                samples += batch.len() as u64;
            }
        }
        let parameters = self.parameters()?;
        Ok(Trained { parameters, samples, loss: loss_sum / order.len() as f64, busy })
    }

    /// Takes over parameters, and makes what steps from there.
    ///
    /// # Errors
    ///
    /// [`Error::ParameterCount`], [`Error::NotFinite`], [`Error::Torch`].
    pub fn begin(&mut self, parameters: &[f32], local: &Local) -> Result<nn::Optimizer, Error> {
        self.model.set_parameters(parameters)?;
        Ok(match local.optimiser {
            Optimiser::Sgd { momentum } => {
                nn::sgd(momentum, 0.0, 0.0, false).build(self.model.store(), local.learning_rate)
            }
            Optimiser::Adam => nn::Adam::default().build(self.model.store(), local.learning_rate),
        }?)
    }

    /// Goes on with an optimiser of [`Trainer::begin`] over the samples `order` of `records`, in minibatches in that order. Returns the
    /// mean loss, in nats.
    ///
    /// # Errors
    ///
    /// As [`Trainer::train`].
    pub fn go_on(
        &mut self,
        optimiser: &mut nn::Optimizer,
        records: &Records,
        order: &[u32],
        local: &Local,
        random: &mut ChaCha8Rng,
    ) -> Result<f64, Error> {
        let mut loss_sum = 0.0;
        for batch in order.chunks(local.batch.max(1)) {
            let (images, labels) = self.batch(records, batch, local.augment.then_some(&mut *random))?;
            loss_sum += self.step(optimiser, &images, &labels, None, local)? * batch.len() as f64;
        }
        Ok(loss_sum / order.len() as f64)
    }

    /// The parameters in the order of [`cnn::LAYOUT`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] when training diverged; [`Error::Torch`].
    pub fn parameters(&self) -> Result<Vec<f32>, Error> {
        let parameters = self.model.parameters()?;
        cnn::check_parameters(&parameters)?;
        Ok(parameters)
    }

    /// One minibatch forward, backward and a step; returns its loss without the proximal term.
    fn step(
        &self,
        optimiser: &mut nn::Optimizer,
        images: &Tensor,
        labels: &Tensor,
        anchor: Option<&[Tensor]>,
        local: &Local,
    ) -> Result<f64, Error> {
        runtime::synchronize(self.model.device());
        optimiser.zero_grad();
        let loss = cross_entropy(&self.model.forward(images)?, labels)?;
        let goal = match anchor {
            Some(anchor) => loss.f_add(&self.distance(anchor, local.proximal_mu)?)?,
            None => loss.shallow_clone(),
        };
        goal.f_backward()?;
        optimiser.step();
        Ok(f64::try_from(&loss)?)
    }

    /// Puts all samples of `records` to a model with these parameters.
    ///
    /// # Errors
    ///
    /// As [`Trainer::train`].
    pub fn examine(&mut self, parameters: &[f32], records: &Records) -> Result<Examination, Error> {
        if records.is_empty() {
            return Err(Error::TooSmall { name: "samples", value: 0, min: 1 });
        }
        self.model.set_parameters(parameters)?;
        let all: Vec<u32> = (0..records.len()).filter_map(|at| u32::try_from(at).ok()).collect();
        let (mut loss, mut right, mut scores) = (0.0, 0.0, Vec::with_capacity(CLASSES * all.len()));
        for batch in all.chunks(JUDGED_AT_A_TIME) {
            let (images, labels) = self.batch(records, batch, None)?;
            let (batch_loss, accuracy, batch_scores) = tch::no_grad(|| {
                let logits = self.model.forward(&images)?;
                let loss = f64::try_from(cross_entropy(&logits, &labels)?)?;
                let accuracy = cnn::accuracy(&logits, &labels)?;
                let scores =
                    Vec::<f32>::try_from(logits.f_to_device(Device::Cpu)?.f_contiguous()?.f_view(-1)?)?;
                Ok::<_, Error>((loss, accuracy, scores))
            })?;
            loss += batch_loss * batch.len() as f64;
            right += accuracy * batch.len() as f64;
            scores.extend(batch_scores);
        }
        let count = all.len() as f64;
        let judgement = Judgement { loss: loss / count, accuracy: right / count };
        Ok(Examination { judgement, labels: records.labels().collect(), scores })
    }

    /// The parameters as tensors of their own.
    fn copies(&self) -> Result<Vec<Tensor>, Error> {
        let mut variables: Vec<_> = self.model.store().variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        let copy = |(_, tensor): &(String, Tensor)| {
            let mut copy = tensor.f_detach()?.f_zeros_like()?;
            copy.f_copy_(&tensor.f_detach()?)?;
            Ok(copy)
        };
        variables.iter().map(copy).collect()
    }

    /// μ/2·‖w − anchor‖².
    fn distance(&self, anchor: &[Tensor], mu: f64) -> Result<Tensor, Error> {
        let mut variables: Vec<_> = self.model.store().variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        let mut sum = Tensor::f_zeros([], (Kind::Float, self.model.device()))?;
        for ((_, now), then) in variables.iter().zip(anchor) {
            sum = sum.f_add(&now.f_sub(then)?.f_square()?.f_sum(Kind::Float)?)?;
        }
        Ok(sum.f_mul_scalar(mu / 2.0)?)
    }

    /// Images, normalised, and labels of the samples `chosen` of `records`.
    pub(crate) fn batch(
        &self,
        records: &Records,
        chosen: &[u32],
        mut augment: Option<&mut ChaCha8Rng>,
    ) -> Result<(Tensor, Tensor), Error> {
        let mut bytes = Vec::with_capacity(chosen.len() * IMAGE_BYTES);
        let mut labels = Vec::with_capacity(chosen.len());
        for &sample in chosen {
            let found = records.get(sample as usize);
            let (label, image) = found.ok_or(Error::NoSample { sample, samples: records.len() })?;
            labels.push(i64::from(label));
            match &mut augment {
                Some(random) => put_moved(&mut bytes, image, &self.normalisation, random),
                None => bytes.extend_from_slice(image),
            }
        }
        let device = self.model.device();
        let side = i64::try_from(SIDE).unwrap_or(i64::MAX);
        let count = i64::try_from(chosen.len()).unwrap_or(i64::MAX);
        let images = Tensor::f_from_slice(&bytes)?.f_view([count, 3, side, side])?.f_to_device(device)?;
        let by_channel = |values: &[f32]| {
            Ok::<_, Error>(Tensor::f_from_slice(values)?.f_view([1, 3, 1, 1])?.f_to_device(device)?)
        };
        let images = images
            .f_to_kind(Kind::Float)?
            .f_sub(&by_channel(&self.normalisation.mean)?)?
            .f_div(&by_channel(&self.normalisation.spread)?)?;
        Ok((images, Tensor::f_from_slice(&labels)?.f_to_device(device)?))
    }
}

/// Adds the image moved by up to [`PAD`] pixels each way and mirrored half of the time; what comes in from outside is the mean.
fn put_moved(out: &mut Vec<u8>, image: &[u8], normalisation: &Normalisation, random: &mut ChaCha8Rng) {
    let (down, right) = (random.random_range(0..=2 * PAD), random.random_range(0..=2 * PAD));
    let mirror = random.random_range(0..2) == 1;
    for (channel, plane) in image.chunks_exact(SIDE * SIDE).enumerate() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a grey level")]
        let outside = normalisation.mean.get(channel).map_or(0, |mean| mean.round() as u8);
        for row in 0..SIDE {
            for column in 0..SIDE {
                let column = if mirror { SIDE - 1 - column } else { column };
                let from = (row + down).checked_sub(PAD).filter(|row| *row < SIDE);
                let at = from.zip((column + right).checked_sub(PAD).filter(|column| *column < SIDE));
                out.push(at.map_or(outside, |(row, column)| plane[row * SIDE + column]));
            }
        }
    }
}

/// Mean cross-entropy, in nats.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, Error> {
    Ok(logits.f_cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{Synthetic, TEST_START};

    fn records(start: u64, count: u64) -> Records {
        let set = Synthetic::new(3);
        let mut records = Records::default();
        for index in start..start + count {
            let sample = set.sample(index);
            assert!(records.push(sample.label, &sample.image));
        }
        records
    }

    fn all(records: &Records) -> Vec<u32> {
        (0..records.len() as u32).collect()
    }

    fn local() -> Local {
        Local {
            epochs: 2,
            batch: 20,
            learning_rate: 0.02,
            optimiser: Optimiser::Sgd { momentum: 0.9 },
            proximal_mu: 0.0,
            augment: false,
        }
    }

    fn trainer() -> Trainer {
        tch::set_num_threads(1);
        Trainer::new(Device::Cpu, Normalisation::SYNTHETIC).unwrap()
    }

    #[test]
    fn training_lowers_the_loss_on_what_was_not_seen() {
        let (training, test) = (records(0, 600), records(TEST_START, 200));
        let mut trainer = trainer();
        let global = cnn::initial_parameters(1);
        let before = trainer.examine(&global, &test).unwrap().judgement;
        let trained = trainer.train(&global, &training, &all(&training), &local(), 1).unwrap();
        let after = trainer.examine(&trained.parameters, &test).unwrap().judgement;
        assert_eq!(trained.samples, 1200);
        assert!(after.loss < before.loss - 0.05, "{before:?} {after:?}");
        assert!(after.accuracy > before.accuracy, "{before:?} {after:?}");
    }

    #[test]
    fn the_seed_decides_also_with_augmentation() {
        let records = records(0, 40);
        let mut trainer = trainer();
        let global = cnn::initial_parameters(1);
        let local = Local { augment: true, epochs: 1, ..local() };
        let mut train =
            |seed| trainer.train(&global, &records, &all(&records), &local, seed).unwrap().parameters;
        let first = train(5);
        assert_eq!(first, train(5));
        assert_ne!(first, train(6));
    }

    #[test]
    fn the_proximal_term_holds_a_model_near_the_global_one() {
        let records = records(0, 100);
        let mut trainer = trainer();
        let global = cnn::initial_parameters(1);
        let mut moved = |proximal_mu| {
            let local = Local { proximal_mu, optimiser: Optimiser::Sgd { momentum: 0.0 }, ..local() };
            let trained = trainer.train(&global, &records, &all(&records), &local, 1).unwrap();
            trained.parameters.iter().zip(&global).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        let (free, held) = (moved(0.0), moved(10.0));
        assert!(held < 0.8 * free, "{held} {free}");
    }

    #[test]
    fn adam_trains_too() {
        let records = records(0, 100);
        let local = Local { optimiser: Optimiser::Adam, learning_rate: 1e-3, ..local() };
        let trained =
            trainer().train(&cnn::initial_parameters(1), &records, &all(&records), &local, 1).unwrap();
        assert!(trained.loss.is_finite() && trained.loss < 2.4, "{}", trained.loss);
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let records = records(0, 10);
        let mut trainer = trainer();
        let global = cnn::initial_parameters(1);
        let mut refused =
            |chosen: &[u32], local: &Local| trainer.train(&global, &records, chosen, local, 1).unwrap_err();
        assert!(matches!(refused(&[], &local()), Error::TooSmall { name: "samples", .. }));
        assert!(matches!(
            refused(&[0], &Local { batch: 0, ..local() }),
            Error::TooSmall { name: "batch", .. }
        ));
        assert!(matches!(refused(&[10], &local()), Error::NoSample { sample: 10, samples: 10 }));
        let wild = Local { learning_rate: 1e30, ..local() };
        assert!(matches!(refused(&all(&records), &wild), Error::NotFinite { .. }));
    }

    #[test]
    fn a_moved_image_has_its_pixels_or_the_mean() {
        let image: Vec<u8> = (0..IMAGE_BYTES).map(|i| (i % 97) as u8).collect();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut out = Vec::new();
        let mut identical = 0;
        for _ in 0..200 {
            out.clear();
            put_moved(&mut out, &image, &Normalisation::SYNTHETIC, &mut random);
            assert_eq!(out.len(), IMAGE_BYTES);
            assert!(out.iter().all(|value| *value < 97 || *value == 128));
            identical += usize::from(out == image);
        }
        // One in 162 stays as it is.
        assert!(identical < 8, "{identical}");
    }
}
