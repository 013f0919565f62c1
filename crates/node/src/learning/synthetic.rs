//! The data set that needs no download: seeded, CIFAR-shaped, learnable by a CNN but not trivially.
//!
//! An image has 3 × 32 × 32 bytes (channel, row, column) and one of 10 classes, as a record of CIFAR-10 has. Each class
//! owns a texture T, a sum of [`WAVES`] plane waves of whole periods per image side with a random amplitude and phase in
//! each colour channel, and a tint C, a grey level for each channel within ±[`TINT`]. A sample of class k is
//!
//! ```text
//! 128 + C_k + u + CONTRAST · ( a·T_k shifted by s + d·T_j shifted by t ) + noise,    clamped to 0…255
//! ```
//!
//! with an illumination u of each channel uniform in ±[`ILLUMINATION`], shifts s and t uniform over the whole image
//! (cyclic; textures are periodic), a uniform in 0.5…1, a distractor texture of another class j with d uniform in 0…0.9,
//! and triangular noise of ±[`NOISE`] grey levels. The tint, blurred by the illumination, is the weak hint with which
//! learning starts, as sky and grass are in photographs. The shifts take away every fixed pixel, so that nothing but the
//! tint helps a linear classifier and the rest needs convolution; distractor and noise keep a trained model short of
//! certainty. The paper's CNN gets about half of unseen samples right after 5,000 training samples and about 85 % after
//! 40,000.
//!
//! Sample `i` depends on the seed and on `i` alone: any part of the set can be made anywhere, in any order, and two
//! ranges of indices that do not overlap are independent samples (for training and testing, or for two users).

use std::f32::consts::TAU;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::data::{CLASSES, IMAGE_BYTES};

/// Colours.
const CHANNELS: usize = 3;
/// Rows, and columns.
const SIDE: usize = 32;

/// Plane waves in the texture of a class.
pub const WAVES: usize = 4;
/// Grey levels by which a texture of amplitude 1 moves a pixel at most.
pub const CONTRAST: f32 = 48.0;
/// Largest tint of a class in a channel, in grey levels.
pub const TINT: f32 = 20.0;
/// Largest change of a channel by a sample's illumination, in grey levels.
pub const ILLUMINATION: f32 = 30.0;
/// Largest deviation by noise, in grey levels.
pub const NOISE: i32 = 56;
/// Test samples start here; training samples are numbered from 0.
pub const TEST_START: u64 = 1 << 40;

/// One labelled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The class, below [`CLASSES`].
    pub label: u8,
    /// [`IMAGE_BYTES`] bytes in the order channel, row, column.
    pub image: Vec<u8>,
}

/// The data set of one seed.
#[derive(Debug, Clone)]
pub struct Synthetic {
    seed: u64,
    /// A texture for each class, [`IMAGE_BYTES`] values within ±1.
    textures: Vec<Vec<f32>>,
    /// The tint of each class, a grey level for each channel.
    tints: [[f32; CHANNELS]; CLASSES],
}

impl Synthetic {
    /// The data set of `seed`: the textures are drawn now, the samples when asked for.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let textures = (0..CLASSES).map(|_| texture(&mut rng)).collect();
        let tints = std::array::from_fn(|_| std::array::from_fn(|_| rng.random_range(-TINT..TINT)));
        Self { seed, textures, tints }
    }

    /// The class of a sample, without its image.
    #[must_use]
    pub fn label(&self, index: u64) -> u8 {
        u8::try_from(self.stream(index).random_range(0..CLASSES)).unwrap_or(0)
    }

    /// The draws of a sample.
    fn stream(&self, index: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // Stream 0 drew the textures.
        rng.set_stream(index.wrapping_add(1));
        rng
    }

    /// The sample with number `index`. There are 2^64 - 1 of them; all have the same distribution.
    #[must_use]
    pub fn sample(&self, index: u64) -> Sample {
        let mut rng = self.stream(index);
        let class = rng.random_range(0..CLASSES);
        let other = (class + rng.random_range(1..CLASSES)) % CLASSES;
        let amplitude = CONTRAST * rng.random_range(0.5..1.0_f32);
        let distraction = CONTRAST * rng.random_range(0.0..0.9_f32);
        let shifts: [usize; 4] = std::array::from_fn(|_| rng.random_range(0..SIDE));
        let mut image = Vec::with_capacity(IMAGE_BYTES);
        for channel in 0..CHANNELS {
            let level = 128.0 + self.tints[class][channel] + rng.random_range(-ILLUMINATION..ILLUMINATION);
            for row in 0..SIDE {
                for column in 0..SIDE {
                    let own = self.textures[class][shifted(channel, row, column, shifts[0], shifts[1])];
                    let foreign = self.textures[other][shifted(channel, row, column, shifts[2], shifts[3])];
                    image.push(grey(level + amplitude * own + distraction * foreign + noise(&mut rng)));
                }
            }
        }
        Sample { label: u8::try_from(class).unwrap_or(0), image }
    }
}

/// A random texture: [`IMAGE_BYTES`] values, scaled so that the largest is ±1.
fn texture(rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut values = vec![0.0_f32; IMAGE_BYTES];
    for _ in 0..WAVES {
        // Whole periods per side make the texture periodic; up to 6 keeps a period wider than a 5×5 kernel.
        let periods = [rng.random_range(0..=6), rng.random_range(-6..=6)].map(|count: i8| f32::from(count));
        for plane in values.chunks_mut(SIDE * SIDE) {
            let (amplitude, phase) = (rng.random_range(0.2..1.0_f32), rng.random_range(0.0..TAU));
            for (index, value) in plane.iter_mut().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "below 32")]
                let turns =
                    (periods[0] * (index / SIDE) as f32 + periods[1] * (index % SIDE) as f32) / SIDE as f32;
                *value += amplitude * (TAU * turns + phase).cos();
            }
        }
    }
    let largest = values.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    values.iter().map(|value| value / largest).collect()
}

/// Where a pixel of a cyclically shifted texture comes from.
fn shifted(channel: usize, row: usize, column: usize, down: usize, right: usize) -> usize {
    (channel * SIDE + (row + down) % SIDE) * SIDE + (column + right) % SIDE
}

/// Triangular noise: the difference of two uniform draws.
fn noise(rng: &mut ChaCha8Rng) -> f32 {
    let draw = rng.random::<u32>();
    let part = |shift: u32| i32::from((draw >> shift) as u16) * NOISE;
    #[expect(clippy::cast_precision_loss, reason = "24 bits are enough for noise")]
    let difference = (part(0) - part(16)) as f32;
    difference / 65536.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0…255")]
fn grey(value: f32) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_depends_on_seed_and_number_only() {
        let set = Synthetic::new(1);
        let later = set.sample(99);
        let _ = set.sample(3);
        assert_eq!(set.sample(99), later);
        assert_eq!(Synthetic::new(1).sample(99), later);
        assert_ne!(Synthetic::new(2).sample(99).image, later.image);
        assert_ne!(set.sample(98).image, later.image);
        assert!((0..50).all(|index| set.label(index) == set.sample(index).label));
    }

    #[test]
    fn all_classes_come_about_equally_often() {
        let set = Synthetic::new(5);
        let mut counts = [0_u32; CLASSES];
        for index in 0..2000 {
            let sample = set.sample(index);
            assert_eq!(sample.image.len(), IMAGE_BYTES);
            counts[usize::from(sample.label)] += 1;
        }
        // 200 expected, standard deviation 13.4: six of them.
        assert!(counts.iter().all(|count| count.abs_diff(200) < 81), "{counts:?}");
    }
}
