//! What the paper's CNN looks like from outside: its tensors, without anything that computes with them.
//!
//! The controller checks checkpoints by it and does not link libtorch; the torch side builds its model from it.

use super::checkpoint::TensorLayout;

/// Parameters of the model.
pub const PARAMETERS: usize = 2_156_490;

/// One tensor of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterTensor {
    /// Its name, as in a `state_dict` of PyTorch.
    pub name: &'static str,
    /// Its shape, in libtorch's type for it.
    pub shape: &'static [i64],
    /// How many inputs feed one output of its layer: sets the range of the initial values.
    pub fan_in: usize,
}

impl ParameterTensor {
    /// How many values it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sizes().product()
    }

    /// Whether it holds none; it never does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.shape.iter().map(|&size| usize::try_from(size).unwrap_or(0))
    }
}

const fn tensor(name: &'static str, shape: &'static [i64], fan_in: usize) -> ParameterTensor {
    ParameterTensor { name, shape, fan_in }
}

/// The model's tensors, sorted by name: the order of the flat vector.
pub const LAYOUT: [ParameterTensor; 8] = [
    tensor("conv1.bias", &[32], 75),
    tensor("conv1.weight", &[32, 3, 5, 5], 75),
    tensor("conv2.bias", &[64], 800),
    tensor("conv2.weight", &[64, 32, 5, 5], 800),
    tensor("fc1.bias", &[512], 4096),
    tensor("fc1.weight", &[512, 4096], 4096),
    tensor("fc2.bias", &[10], 512),
    tensor("fc2.weight", &[10, 512], 512),
];

/// [`LAYOUT`] as checkpoints name it.
#[must_use]
pub fn layout() -> Vec<TensorLayout> {
    LAYOUT.iter().map(|part| (part.name.to_owned(), part.sizes().collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_sorted_and_counts_the_papers_parameters() {
        assert!(LAYOUT.is_sorted_by_key(|part| part.name));
        assert_eq!(LAYOUT.iter().map(ParameterTensor::len).sum::<usize>(), PARAMETERS);
        assert_eq!(layout()[5], ("fc1.weight".to_owned(), vec![512, 4096]));
    }
}
