//! Ornstein–Uhlenbeck noise, 𝔑 of Eq. 21.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// x ← x − θ·x + σ·w with w standard normal, an x for every action.
#[derive(Debug)]
pub struct Noise {
    values: Vec<f32>,
    theta: f32,
    sigma: f32,
}

impl Noise {
    /// `count` processes at rest at 0.
    #[must_use]
    pub fn new(count: usize, theta: f64, sigma: f64) -> Self {
        Self { values: vec![0.0; count], theta: theta as f32, sigma: sigma as f32 }
    }

    /// Goes on by a slot and adds itself to the actions, which stay within [−1, 1].
    pub fn add_to(&mut self, actions: &mut [f32], rng: &mut ChaCha8Rng) {
        for (x, action) in self.values.iter_mut().zip(actions) {
            *x += self.sigma * rng.sample::<f32, _>(StandardNormal) - self.theta * *x;
            *action = (*action + *x).clamp(-1.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn it_has_the_stationary_spread_and_correlation_of_its_recursion() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut noise = Noise::new(1, 0.15, 0.05);
        let mut past = Vec::new();
        for _ in 0..40_000 {
            let mut action = [0.0];
            noise.add_to(&mut action, &mut rng);
            past.push(f64::from(action[0]));
        }
        let variance = past.iter().map(|x| x * x).sum::<f64>() / past.len() as f64;
        let expected = 0.05_f64.powi(2) / (1.0 - 0.85_f64.powi(2));
        assert!((variance / expected - 1.0).abs() < 0.1, "{variance} {expected}");
        let product = past.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / past.len() as f64;
        assert!((product / variance - 0.85).abs() < 0.02);
    }
}
