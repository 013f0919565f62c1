//! Parameters as one flat vector, and Adam on it.
//!
//! One vector makes an optimiser step a handful of tensor operations, whatever the number of layers and agents, and makes
//! checkpoints and policy files what they are: a list of numbers.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::Error;

/// A tensor of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its shape.
    pub shape: Vec<i64>,
    /// How many inputs feed one output of its layer: sets the range of the initial values.
    pub fan_in: i64,
}

impl Part {
    /// A part of this shape and fan-in.
    #[must_use]
    pub fn new(shape: &[i64], fan_in: i64) -> Self {
        Self { shape: shape.to_vec(), fan_in }
    }

    fn len(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// A network's parameters.
#[derive(Debug)]
pub struct Flat {
    parts: Vec<Part>,
    data: Tensor,
}

impl Flat {
    /// Uniform within ±1/√fan-in of each part, from a seed.
    #[must_use]
    pub fn new(parts: Vec<Part>, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::new();
        for part in &parts {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
            let bound = (part.fan_in.max(1) as f32).sqrt().recip();
            values.extend((0..part.len()).map(|_| rng.random_range(-bound..bound)));
        }
        Self { parts, data: Tensor::from_slice(&values).set_requires_grad(true) }
    }

    /// A second vector of the same values, which no gradient reaches.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self { parts: self.parts.clone(), data: self.data.detach().copy() }
    }

    /// The parts as tensors; gradients flow through them to the vector.
    #[must_use]
    pub fn parts(&self) -> Vec<Tensor> {
        let sizes: Vec<i64> = self.parts.iter().map(Part::len).collect();
        let split = self.data.split_with_sizes(&sizes, 0);
        split.iter().zip(&self.parts).map(|(tensor, part)| tensor.view(part.shape.as_slice())).collect()
    }

    /// The vector.
    pub fn data(&self) -> &Tensor {
        &self.data
    }

    /// The values.
    ///
    /// # Errors
    /// [`Error::Torch`] when they cannot be copied.
    pub fn values(&self) -> Result<Vec<f32>, Error> {
        Ok(Vec::<f32>::try_from(self.data.detach())?)
    }

    /// Replaces the values.
    ///
    /// # Errors
    /// [`Error::Torch`] for another number of them.
    pub fn set(&mut self, values: &[f32]) -> Result<(), Error> {
        let values = Tensor::f_from_slice(values)?;
        tch::no_grad(|| self.data.f_copy_(&values))?;
        Ok(())
    }

    /// Eqs. 24–25: θ^T ← β·θ + (1 − β)·θ^T.
    pub fn follow(&mut self, primary: &Self, beta: f64) {
        tch::no_grad(|| {
            let _ = self.data.lerp_(&primary.data, beta);
        });
    }
}

/// Adam's running moments of a [`Flat`].
#[derive(Debug)]
pub struct Adam {
    /// Of the gradient.
    first: Tensor,
    /// Of its square.
    second: Tensor,
    steps: i32,
}

impl Adam {
    const BETAS: [f64; 2] = [0.9, 0.999];
    const EPSILON: f64 = 1e-8;

    /// At rest, for this network.
    #[must_use]
    pub fn new(of: &Flat) -> Self {
        let zeros = || of.data.detach().zeros_like();
        Self { first: zeros(), second: zeros(), steps: 0 }
    }

    /// One step down the gradient of `loss`, scaled to at most `clip`. Whether it was taken: a gradient that is not finite
    /// changes nothing.
    pub fn step(&mut self, network: &mut Flat, loss: &Tensor, rate: f64, clip: f64) -> bool {
        let gradients = Tensor::run_backward(&[loss], &[&network.data], false, false);
        let Some(gradient) = gradients.first() else { return false };
        let norm = gradient.norm().double_value(&[]);
        if !norm.is_finite() {
            return false;
        }
        self.steps += 1;
        let [one, two] = Self::BETAS;
        let corrected = rate * (1.0 - two.powi(self.steps)).sqrt() / (1.0 - one.powi(self.steps));
        tch::no_grad(|| {
            let gradient = gradient * (clip / norm.max(clip));
            let _ = self.first.lerp_(&gradient, 1.0 - one);
            let _ = self.second.lerp_(&gradient.square(), 1.0 - two);
            let step = &self.first / (self.second.sqrt() + Self::EPSILON) * corrected;
            let _ = network.data.g_sub_(&step);
        });
        true
    }

    /// Both moments and the number of steps, for a checkpoint.
    ///
    /// # Errors
    /// [`Error::Torch`] when they cannot be copied.
    pub fn state(&self) -> Result<(Vec<f32>, Vec<f32>, i32), Error> {
        Ok((Vec::<f32>::try_from(&self.first)?, Vec::<f32>::try_from(&self.second)?, self.steps))
    }

    /// Puts a state back.
    ///
    /// # Errors
    /// [`Error::Torch`] for one of another size.
    pub fn set_state(&mut self, first: &[f32], second: &[f32], steps: i32) -> Result<(), Error> {
        self.first.f_copy_(&Tensor::f_from_slice(first)?)?;
        self.second.f_copy_(&Tensor::f_from_slice(second)?)?;
        self.steps = steps;
        Ok(())
    }
}

/// Values as a tensor of a shape.
///
/// # Errors
/// [`Error::Torch`] when they are too few or too many.
pub fn tensor(values: &[f32], shape: &[i64]) -> Result<Tensor, Error> {
    Ok(Tensor::f_from_slice(values)?.f_view(shape)?)
}

/// The mean of all entries.
pub fn mean(of: &Tensor) -> Tensor {
    of.mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square_loss(flat: &Flat) -> Tensor {
        mean(&(flat.data() - 3.0).square())
    }

    #[test]
    fn adam_finds_the_bottom_of_a_bowl() {
        let mut flat = Flat::new(vec![Part::new(&[2, 3], 2), Part::new(&[3], 2)], 1);
        let mut adam = Adam::new(&flat);
        for _ in 0..400 {
            let loss = square_loss(&flat);
            assert!(adam.step(&mut flat, &loss, 0.05, 10.0));
        }
        assert!(square_loss(&flat).double_value(&[]) < 1e-3);
        assert_eq!(flat.parts()[0].size(), [2, 3]);
    }

    #[test]
    fn a_gradient_that_is_no_number_changes_nothing() {
        let mut flat = Flat::new(vec![Part::new(&[4], 1)], 1);
        let before = flat.values().unwrap();
        let mut adam = Adam::new(&flat);
        let loss = mean(flat.data()) * f64::NAN;
        assert!(!adam.step(&mut flat, &loss, 0.1, 1.0));
        assert_eq!(flat.values().unwrap(), before);
        assert_eq!(adam.state().unwrap().2, 0);
    }

    #[test]
    fn targets_follow_by_beta() {
        let mut primary = Flat::new(vec![Part::new(&[2], 1)], 1);
        let mut target = primary.twin();
        primary.set(&[1.0, 2.0]).unwrap();
        target.set(&[0.0, 0.0]).unwrap();
        target.follow(&primary, 0.25);
        assert_eq!(target.values().unwrap(), [0.25, 0.5]);
        assert!(primary.set(&[1.0]).is_err() || primary.values().unwrap() == [1.0, 1.0]);
    }
}
