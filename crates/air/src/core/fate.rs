//! What chance does to a packet, from random streams of the link's own.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::spec::Loss;

/// One random stream for each kind of event, so that turning one on or changing its probability leaves the outcomes
/// of the others as they were.
#[derive(Debug)]
pub(super) struct Fate {
    loss: ChaCha8Rng,
    duplicate: ChaCha8Rng,
    corrupt: ChaCha8Rng,
    reorder: ChaCha8Rng,
    jitter: ChaCha8Rng,
    /// State of the Gilbert–Elliott chain.
    bad: bool,
}

/// FNV-1a (Fowler, Noll, Vo), 64 bits.
fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Fate {
    /// The streams of the link called `name` in the medium seeded with `seed`.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&fnv1a(name).to_le_bytes());
        let stream = |number| {
            let mut rng = ChaCha8Rng::from_seed(key);
            rng.set_stream(number);
            rng
        };
        Self {
            loss: stream(0),
            duplicate: stream(1),
            corrupt: stream(2),
            reorder: stream(3),
            jitter: stream(4),
            bad: false,
        }
    }

    /// Is this transmission lost? One step of the loss process.
    pub(super) fn lost(&mut self, loss: Loss) -> bool {
        match loss {
            Loss::None => false,
            Loss::Bernoulli(p) => chance(&mut self.loss, p),
            Loss::GilbertElliott { p, r, loss_good, loss_bad } => {
                let flip = chance(&mut self.loss, if self.bad { r } else { p });
                self.bad ^= flip;
                chance(&mut self.loss, if self.bad { loss_bad } else { loss_good })
            }
        }
    }

    pub(super) fn duplicated(&mut self, probability: f64) -> bool {
        probability > 0.0 && chance(&mut self.duplicate, probability)
    }

    pub(super) fn reordered(&mut self, probability: f64) -> bool {
        probability > 0.0 && chance(&mut self.reorder, probability)
    }

    /// The bit of `bits` to flip, if the packet is corrupted.
    pub(super) fn corrupted(&mut self, probability: f64, bits: usize) -> Option<usize> {
        if probability <= 0.0 || !chance(&mut self.corrupt, probability) || bits == 0 {
            return None;
        }
        Some((unit(&mut self.corrupt) * bits as f64) as usize)
    }

    /// A time uniform in `[0, jitter]`, ns.
    pub(super) fn jitter_ns(&mut self, jitter: Duration) -> u64 {
        if jitter.is_zero() {
            return 0;
        }
        (unit(&mut self.jitter) * (jitter.as_nanos() as f64 + 1.0)) as u64
    }
}

/// Uniform in [0, 1) with 53 bits.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn chance(rng: &mut ChaCha8Rng, probability: f64) -> bool {
    unit(rng) < probability
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(fate: &mut Fate, loss: Loss, n: usize) -> Vec<bool> {
        (0..n).map(|_| fate.lost(loss)).collect()
    }

    #[test]
    fn streams_differ_by_seed_and_name_and_repeat() {
        let half = Loss::Bernoulli(0.5);
        let first = losses(&mut Fate::new(1, "a"), half, 200);
        assert_eq!(first, losses(&mut Fate::new(1, "a"), half, 200));
        assert_ne!(first, losses(&mut Fate::new(1, "b"), half, 200));
        assert_ne!(first, losses(&mut Fate::new(2, "a"), half, 200));
    }

    #[test]
    fn bernoulli_loss_is_inside_the_binomial_interval() {
        for (seed, p) in [(1, 0.001), (2, 0.01), (3, 0.1), (4, 0.3)] {
            let n = 100_000.0;
            let lost =
                losses(&mut Fate::new(seed, "x"), Loss::Bernoulli(p), 100_000).iter().filter(|l| **l).count();
            // The 99.9 % interval of the normal approximation.
            let half = 3.29 * f64::sqrt(n * p * (1.0 - p));
            assert!((lost as f64 - n * p).abs() < half, "p {p}: {lost}");
        }
        assert!(losses(&mut Fate::new(5, "x"), Loss::Bernoulli(1.0), 1000).iter().all(|l| *l));
        assert!(!losses(&mut Fate::new(5, "x"), Loss::Bernoulli(0.0), 1000).iter().any(|l| *l));
    }

    /// With `loss_good = 0` and `loss_bad = 1` the losses are the bad periods: stationary share p/(p+r), burst
    /// lengths geometric with mean 1/r (Gilbert 1960).
    #[test]
    fn gilbert_elliott_bursts_match_theory() {
        let (p, r) = (0.02, 0.25);
        let loss = Loss::GilbertElliott { p, r, loss_good: 0.0, loss_bad: 1.0 };
        let outcome = losses(&mut Fate::new(7, "x"), loss, 400_000);
        let share = outcome.iter().filter(|l| **l).count() as f64 / outcome.len() as f64;
        assert!((share - p / (p + r)).abs() < 0.004, "share {share}");
        let bursts: Vec<usize> =
            outcome.chunk_by(|a, b| a == b).filter(|run| run[0]).map(<[bool]>::len).collect();
        let n = bursts.len() as f64;
        let mean = bursts.iter().sum::<usize>() as f64 / n;
        // Standard deviation of a geometric length: sqrt(1 − r)/r.
        let deviation = f64::sqrt(1.0 - r) / r / n.sqrt();
        assert!((mean - 1.0 / r).abs() < 4.0 * deviation, "mean burst {mean}");
        for length in 1..8 {
            let expected = n * (1.0 - r).powi(length - 1) * r;
            let seen = bursts.iter().filter(|b| **b == length as usize).count() as f64;
            assert!(
                (seen - expected).abs() < 4.5 * expected.sqrt(),
                "bursts of {length}: {seen}, {expected}"
            );
        }
    }

    #[test]
    fn one_kind_of_event_does_not_disturb_another() {
        let (mut plain, mut busy) = (Fate::new(3, "x"), Fate::new(3, "x"));
        for _ in 0..1000 {
            busy.duplicated(0.5);
            busy.corrupted(0.5, 800);
            busy.reordered(0.5);
            busy.jitter_ns(Duration::from_millis(1));
            assert_eq!(plain.lost(Loss::Bernoulli(0.3)), busy.lost(Loss::Bernoulli(0.3)));
        }
    }

    #[test]
    fn jitter_and_corruption_stay_in_range() {
        let mut fate = Fate::new(3, "x");
        let jitters: Vec<u64> = (0..10_000).map(|_| fate.jitter_ns(Duration::from_nanos(3))).collect();
        for value in 0..=3 {
            let seen = jitters.iter().filter(|j| **j == value).count();
            assert!((2300..2700).contains(&seen), "{value}: {seen}");
        }
        assert!((0..10_000).all(|_| fate.corrupted(1.0, 16).is_some_and(|bit| bit < 16)));
        assert_eq!(fate.corrupted(1.0, 0), None);
    }
}
