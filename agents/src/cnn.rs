//! The CNN of the paper's evaluation (Lu et al. 2020, section VI) on images of 3 × 32 × 32.
//!
//! | layer | parameters | output |
//! | --- | ---: | --- |
//! | 5×5 convolution, 32 channels, `same` padding, ReLU, 2×2 max-pooling | 2,432 | 32 × 16 × 16 |
//! | 5×5 convolution, 64 channels, `same` padding, ReLU, 2×2 max-pooling | 51,264 | 64 × 8 × 8 |
//! | 512 units, ReLU | 2,097,664 | 512 |
//! | 10 classes (logits) | 5,130 | 10 |
//!
//! A model travels as one flat vector: its tensors in the order of their names, each row-major ([`LAYOUT`]). That order
//! is part of the wire and of every digest, so it must not depend on how a library happens to keep its variables. Names
//! and shapes are those of the same model written with `torch.nn`.

pub use dtwn_node::learning::cnn::{LAYOUT, PARAMETERS, ParameterTensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::Error;

/// Colour channels of an image.
pub const CHANNELS: usize = 3;
/// Height and width of an image in pixels.
pub const SIDE: usize = 32;
/// Values of one image, in the order channel, row, column.
pub const IMAGE_VALUES: usize = CHANNELS * SIDE * SIDE;
/// Classes that the model tells apart.
pub const CLASSES: usize = 10;

/// The model with its parameters on a device.
#[derive(Debug)]
pub struct Cnn {
    store: VarStore,
    /// In the order of [`LAYOUT`]; these share their memory with `store`.
    tensors: [Tensor; 8],
}

impl Cnn {
    /// A model with initial parameters drawn from `seed`: uniform within ±1/√(inputs of the layer), weights and biases,
    /// as PyTorch initialises these layers. The values depend on nothing but the seed.
    ///
    /// # Errors
    ///
    /// [`Error::Torch`] when the device cannot hold the model.
    pub fn new(device: Device, seed: u64) -> Result<Self, Error> {
        let store = VarStore::new(device);
        let mut tensors = Vec::with_capacity(LAYOUT.len());
        for part in &LAYOUT {
            let (layer, leaf) = part.name.split_once('.').unwrap_or(("", part.name));
            tensors.push((&store.root() / layer).f_zeros(leaf, part.shape)?);
        }
        let tensors = tensors.try_into().map_err(|_| tch::TchError::Shape("not eight tensors".into()))?;
        let mut model = Self { store, tensors };
        model.set_parameters(&initial_parameters(seed))?;
        Ok(model)
    }

    /// Logits of a batch: `(batch, 3, 32, 32)` → `(batch, 10)`, both f32 on the model's device.
    ///
    /// # Errors
    ///
    /// [`Error::Torch`] for a batch of another shape, kind or device.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor, Error> {
        let [conv1_bias, conv1, conv2_bias, conv2, fc1_bias, fc1, fc2_bias, fc2] = &self.tensors;
        let hidden = convolve(images, conv1, conv1_bias)?;
        let hidden = convolve(&hidden, conv2, conv2_bias)?;
        let hidden = hidden.f_flatten(1, -1)?.f_linear(fc1, Some(fc1_bias))?.f_relu()?;
        Ok(hidden.f_linear(fc2, Some(fc2_bias))?)
    }

    /// The variables, for an optimiser or for writing safetensors.
    #[must_use]
    pub fn store(&self) -> &VarStore {
        &self.store
    }

    /// Where the parameters are.
    #[must_use]
    pub fn device(&self) -> Device {
        self.store.device()
    }

    /// All [`PARAMETERS`] as one vector in the order of [`LAYOUT`].
    ///
    /// # Errors
    ///
    /// [`Error::Torch`] when copying from the device fails.
    pub fn parameters(&self) -> Result<Vec<f32>, Error> {
        let mut flat = vec![0.0; PARAMETERS];
        let mut rest = flat.as_mut_slice();
        for (tensor, part) in self.tensors.iter().zip(&LAYOUT) {
            let (values, after) = rest.split_at_mut(part.len());
            tensor.f_detach()?.f_to_device(Device::Cpu)?.f_copy_data(values, part.len())?;
            rest = after;
        }
        Ok(flat)
    }

    /// Replaces all parameters; the model is unchanged if any of them is refused.
    ///
    /// # Errors
    ///
    /// [`Error::ParameterCount`] for a vector that is not [`PARAMETERS`] long, [`Error::NotFinite`] for a NaN or an
    /// infinity in it, [`Error::Torch`] when copying to the device fails.
    pub fn set_parameters(&mut self, flat: &[f32]) -> Result<(), Error> {
        check_parameters(flat)?;
        let device = self.device();
        let mut rest = flat;
        for (tensor, part) in self.tensors.iter_mut().zip(&LAYOUT) {
            let (values, after) = rest.split_at(part.len());
            let values = Tensor::f_from_slice(values)?.f_view(part.shape)?.f_to_device(device)?;
            // Takes the memory over instead of copying it once more, which every twin would wait for.
            tensor.f_set_data(&values)?;
            rest = after;
        }
        Ok(())
    }

    /// BLAKE3 of the parameters as little-endian f32 in the order of [`LAYOUT`].
    ///
    /// # Errors
    ///
    /// [`Error::Torch`] when copying from the device fails.
    pub fn digest(&self) -> Result<blake3::Hash, Error> {
        let mut hasher = blake3::Hasher::new();
        for chunk in self.parameters()?.chunks(4096) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        Ok(hasher.finalize())
    }
}

/// A 5×5 convolution with `same` padding, ReLU, and 2×2 max-pooling.
fn convolve(images: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, Error> {
    let convolved = images.f_conv2d(weight, Some(bias), 1, 2, 1, 1)?;
    Ok(convolved.f_relu()?.f_max_pool2d(2, 2, 0, 1, false)?)
}

/// Checks a flat vector that came from outside: length and finiteness.
///
/// # Errors
///
/// [`Error::ParameterCount`] or [`Error::NotFinite`].
pub fn check_parameters(flat: &[f32]) -> Result<(), Error> {
    if flat.len() != PARAMETERS {
        return Err(Error::ParameterCount { expected: PARAMETERS, found: flat.len() });
    }
    // Without a way out of the loop it runs on vectors; this is done for every twin in every round.
    if flat.iter().fold(true, |finite, value| finite & value.is_finite()) {
        return Ok(());
    }
    let mut start = 0;
    for part in &LAYOUT {
        let end = start + part.len();
        if let Some(offset) = flat[start..end].iter().position(|value| !value.is_finite()) {
            let index = start + offset;
            return Err(Error::NotFinite { index, name: part.name, value: flat[index] });
        }
        start = end;
    }
    Ok(())
}

/// The flat vector that [`Cnn::new`] starts from.
#[must_use]
pub fn initial_parameters(seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut flat = Vec::with_capacity(PARAMETERS);
    for part in &LAYOUT {
        #[expect(clippy::cast_precision_loss, reason = "at most 4096")]
        let bound = (part.fan_in as f32).sqrt().recip();
        flat.extend((0..part.len()).map(|_| rng.random_range(-bound..bound)));
    }
    flat
}

/// The fraction of a batch whose largest logit is the right class.
///
/// `logits` is `(batch, 10)`, `labels` `(batch)` of i64.
///
/// # Errors
///
/// [`Error::Torch`] for other shapes.
pub fn accuracy(logits: &Tensor, labels: &Tensor) -> Result<f64, Error> {
    let right = logits.f_argmax(1, false)?.f_eq_tensor(labels)?.f_to_kind(Kind::Double)?;
    Ok(f64::try_from(right.f_mean(Kind::Double)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_those_of_the_layout() {
        let model = Cnn::new(Device::Cpu, 1).unwrap();
        let stored = model.store().variables();
        assert_eq!(stored.len(), LAYOUT.len());
        for part in &LAYOUT {
            assert_eq!(stored[part.name].size(), part.shape, "{}", part.name);
        }
        assert_eq!(model.store().trainable_variables().len(), LAYOUT.len());
    }

    #[test]
    fn a_batch_becomes_ten_logits_each() {
        let model = Cnn::new(Device::Cpu, 1).unwrap();
        let logits = model.forward(&Tensor::zeros([4, 3, 32, 32], (Kind::Float, Device::Cpu))).unwrap();
        assert_eq!(logits.size(), [4, 10]);
    }

    #[test]
    fn an_image_of_another_shape_is_an_error_not_a_panic() {
        let model = Cnn::new(Device::Cpu, 1).unwrap();
        let error = model.forward(&Tensor::zeros([4, 3, 28, 28], (Kind::Float, Device::Cpu))).unwrap_err();
        assert!(matches!(error, Error::Torch(_)), "{error}");
    }

    #[test]
    fn parameters_survive_the_way_out_and_in() {
        let from = Cnn::new(Device::Cpu, 1).unwrap();
        let mut to = Cnn::new(Device::Cpu, 2).unwrap();
        assert_ne!(from.digest().unwrap(), to.digest().unwrap());
        to.set_parameters(&from.parameters().unwrap()).unwrap();
        assert_eq!(from.digest().unwrap(), to.digest().unwrap());
        let images = Tensor::ones([1, 3, 32, 32], (Kind::Float, Device::Cpu));
        assert_eq!(from.forward(&images).unwrap(), to.forward(&images).unwrap());
    }

    #[test]
    fn the_flat_order_is_that_of_the_names() {
        let model = Cnn::new(Device::Cpu, 3).unwrap();
        let flat = model.parameters().unwrap();
        let bias = &model.store().variables()["conv1.bias"];
        assert_eq!(Vec::<f32>::try_from(bias.detach()).unwrap(), flat[..32]);
        let last = &model.store().variables()["fc2.weight"];
        assert_eq!(Vec::<f32>::try_from(last.detach().flatten(0, -1)).unwrap(), flat[PARAMETERS - 5120..]);
    }

    #[test]
    fn initial_parameters_keep_to_their_layers_range() {
        let flat = initial_parameters(7);
        let bound = 1.0 / 75_f32.sqrt();
        let first_layer = &flat[..2432];
        assert!(first_layer.iter().all(|value| value.abs() <= bound));
        assert!(first_layer.iter().any(|value| value.abs() > 0.9 * bound));
    }

    #[test]
    fn vectors_of_wrong_length_or_with_nan_are_refused_and_change_nothing() {
        let mut model = Cnn::new(Device::Cpu, 1).unwrap();
        let before = model.digest().unwrap();
        let short = model.set_parameters(&[0.0; 3]).unwrap_err();
        assert!(matches!(short, Error::ParameterCount { expected: PARAMETERS, found: 3 }));
        let mut flat = vec![0.0; PARAMETERS];
        flat[PARAMETERS - 1] = f32::NAN;
        let error = model.set_parameters(&flat).unwrap_err();
        assert!(matches!(error, Error::NotFinite { name: "fc2.weight", .. }), "{error}");
        assert_eq!(model.digest().unwrap(), before);
    }
}
