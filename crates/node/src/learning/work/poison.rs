//! What bad base stations make of their models, for experiments.

use dtwn_model::topology::Poison;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Normal};

/// By how much a poisoner steps back for one step of its data.
const FLIPPED_STEPS: f32 = 3.0;
/// Standard deviation of a poisoner's noise.
const NOISE: f32 = 0.1;

/// What a bad BS makes of its model.
pub(super) fn spoil(own: &mut [f32], global: &[f32], poison: Poison, seed: u64) {
    match poison {
        Poison::SignFlip => {
            own.iter_mut()
                .zip(global)
                .for_each(|(own, global)| *own = global - FLIPPED_STEPS * (*own - global));
        }
        Poison::Noise => {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            if let Ok(noise) = Normal::new(0.0, NOISE) {
                own.iter_mut().for_each(|value| *value += noise.sample(&mut random));
            }
        }
        Poison::Nan => own.iter_mut().take(1).for_each(|value| *value = f32::NAN),
        // Done to the labels, before training.
        Poison::LabelFlip => {}
    }
}
