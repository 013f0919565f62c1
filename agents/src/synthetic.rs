//! The synthetic set as the CNN takes it.

use dtwn_node::learning::synthetic::Sample;
pub use dtwn_node::learning::synthetic::{Synthetic, TEST_START};
use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::cnn::SIDE;

/// Mean and standard deviation to which images are normalised: the centre and about the spread of the grey levels.
const NORMALISE: (f64, f64) = (128.0, 32.0);

/// Samples as the CNN takes them.
#[derive(Debug)]
pub struct Batch {
    /// `(batch, 3, 32, 32)`, f32, normalised to about zero mean and unit spread.
    pub images: Tensor,
    /// `(batch)`, i64.
    pub labels: Tensor,
}

impl Batch {
    /// The samples numbered `start..start + count` of a set.
    ///
    /// # Errors
    ///
    /// [`Error::Torch`] when the device cannot hold them.
    pub fn of(set: &Synthetic, start: u64, count: u64, device: Device) -> Result<Self, Error> {
        let samples: Vec<Sample> =
            (start..start.saturating_add(count)).map(|index| set.sample(index)).collect();
        Self::from_samples(&samples, device)
    }

    /// Stacks and normalises samples.
    ///
    /// # Errors
    ///
    /// [`Error::Torch`] for an image of another length, or when the device cannot hold the batch.
    pub fn from_samples(samples: &[Sample], device: Device) -> Result<Self, Error> {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.image.iter().copied()).collect();
        let labels: Vec<i64> = samples.iter().map(|sample| i64::from(sample.label)).collect();
        let side = i64::try_from(SIDE).unwrap_or(i64::MAX);
        let shape = [i64::try_from(samples.len()).unwrap_or(i64::MAX), 3, side, side];
        let (mean, spread) = NORMALISE;
        let images =
            Tensor::f_from_slice(&bytes)?.f_view(shape)?.f_to_device(device)?.f_to_kind(Kind::Float)?;
        let images = images.f_sub_scalar(mean)?.f_div_scalar(spread)?;
        Ok(Self { images, labels: Tensor::f_from_slice(&labels)?.f_to_device(device)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_normalised_and_keeps_its_order() {
        let set = Synthetic::new(1);
        let batch = Batch::of(&set, 10, 64, Device::Cpu).unwrap();
        assert_eq!(batch.images.size(), [64, 3, 32, 32]);
        assert_eq!(batch.labels.int64_value(&[2]), i64::from(set.sample(12).label));
        let mean = batch.images.mean(Kind::Float).double_value(&[]);
        let spread = batch.images.std(true).double_value(&[]);
        assert!(mean.abs() < 0.2 && (0.5..1.5).contains(&spread), "mean {mean}, spread {spread}");
    }

    #[test]
    fn an_image_of_the_wrong_length_is_an_error() {
        let odd = [Sample { label: 0, image: vec![0; 5] }];
        assert!(Batch::from_samples(&odd, Device::Cpu).is_err());
    }
}
