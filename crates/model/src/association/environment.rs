//! Instances, slot by slot, from a seed.

use super::{Problem, State};
use crate::geometry::{Position, draw_in_ring};
use crate::topology::Fading;
use crate::units::Metres;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Where the BSs of an instance stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    /// Where the topology puts them.
    Topology,
    /// Anew at each reset, uniformly by area in the ring that `[association]` gives.
    Random,
}

/// What instances are for. Different splits never share a random number, whatever the seed and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// To learn from.
    Train = 1,
    /// To choose among what was learned.
    Validation = 2,
    /// To judge the choice.
    Test = 3,
}

/// Bits of the stream number below the split's.
const INDEX_BITS: u32 = 60;

/// A process of states.
///
/// The complex gain of each uplink and downlink on each subchannel is Gaussian with mean power 1 and follows
/// g' = ρ·g + √(1−ρ²)·w (Rayleigh fading; constant 1 without). f_i is uniform on `[cpu_fraction_min, 1]`·f_max, through a
/// Gaussian that follows the same recursion with `cpu_memory`. Both begin in their stationary law.
#[derive(Debug, Clone)]
pub struct Environment {
    problem: Problem,
    geometry: Geometry,
    rng: ChaCha8Rng,
    /// Real and imaginary parts of the gains, up then down: 2 · 2 · M · C.
    gains: Vec<f64>,
    /// The Gaussians behind f_i; M.
    cpu: Vec<f64>,
    distance_m: Vec<f64>,
    /// The power that each BS receives and sends over its distance at gain 1, relative to noise and interference: up, down.
    snr: Vec<[f64; 2]>,
    state: State,
}

impl Environment {
    /// An environment of its own for each (seed, split, index): same arguments, same states to the bit. `index` counts
    /// below 2^60.
    pub fn new(problem: &Problem, geometry: Geometry, seed: u64, split: Split, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((split as u64) << INDEX_BITS | (index & ((1 << INDEX_BITS) - 1)));
        let (m, c) = (problem.stations, problem.subchannels);
        let state = State {
            cpu_hz: vec![0.0; m],
            se: vec![0.0; m * c],
            downlink_bps: vec![0.0; m],
            k: super::largest_remainder(&vec![1.0; m], problem.twins),
        };
        let mut environment = Self {
            problem: problem.clone(),
            geometry,
            rng,
            gains: vec![0.0; 4 * m * c],
            cpu: vec![0.0; m],
            distance_m: problem.distance_m.clone(),
            snr: vec![[0.0; 2]; m],
            state,
        };
        environment.reset();
        environment
    }

    /// Begins an episode: new gains and processors, and new positions where these are random.
    pub fn reset(&mut self) {
        if self.geometry == Geometry::Random {
            let settings = &self.problem.settings;
            let centre = Position::default();
            for distance in &mut self.distance_m {
                let at = draw_in_ring(&mut self.rng, centre, settings.distance_min, settings.distance_max);
                *distance = at.distance(centre).get();
            }
        }
        let problem = &self.problem;
        for (snr, distance) in self.snr.iter_mut().zip(&self.distance_m) {
            let path = problem.channel.path_gain(Metres::new(*distance));
            let noise_w = problem.channel.noise_w;
            *snr = [
                problem.power_up_w * path / (problem.interference_up_w + noise_w),
                problem.power_down_w * path / (problem.interference_down_w + noise_w),
            ];
        }
        for gain in &mut self.gains {
            // Half the mean power in each part.
            *gain = self.rng.sample::<f64, _>(StandardNormal) * std::f64::consts::FRAC_1_SQRT_2;
        }
        for cpu in &mut self.cpu {
            *cpu = self.rng.sample(StandardNormal);
        }
        self.observe();
    }

    /// Goes on by one slot.
    pub fn step(&mut self) {
        if self.problem.fading == Fading::Rayleigh {
            let rho = self.problem.fading_memory;
            let fresh = ((1.0 - rho * rho) / 2.0).sqrt();
            for gain in &mut self.gains {
                *gain = rho * *gain + fresh * self.rng.sample::<f64, _>(StandardNormal);
            }
        }
        let rho = self.problem.settings.cpu_memory;
        let fresh = (1.0 - rho * rho).sqrt();
        for cpu in &mut self.cpu {
            *cpu = rho * *cpu + fresh * self.rng.sample::<f64, _>(StandardNormal);
        }
        self.observe();
    }

    /// Puts a decision's K in force, as the next states report it.
    pub fn set_k(&mut self, k: &[u32]) {
        self.state.k.copy_from_slice(k);
    }

    /// The state of this slot.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The problem that it makes instances of.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The distance of each BS from the MBS, m.
    pub fn distance_m(&self) -> &[f64] {
        &self.distance_m
    }

    /// Mean SNR of each BS's links, up and down.
    pub(super) fn snr(&self) -> &[[f64; 2]] {
        &self.snr
    }

    fn observe(&mut self) {
        let (problem, state) = (&self.problem, &mut self.state);
        let (m, c) = (problem.stations, problem.subchannels);
        let fades = problem.fading == Fading::Rayleigh;
        let (up, down) = self.gains.split_at(2 * m * c);
        let power = |parts: &[f64], at: usize| match fades {
            true => parts[2 * at].powi(2) + parts[2 * at + 1].powi(2),
            false => 1.0,
        };
        for i in 0..m {
            let [snr_up, snr_down] = self.snr[i];
            let mut se_down = 0.0;
            for at in i * c..(i + 1) * c {
                state.se[at] = problem.efficiency(snr_up * power(up, at));
                se_down += problem.efficiency(snr_down * power(down, at));
            }
            state.downlink_bps[i] = problem.bandwidth_hz() * se_down;
            let least = problem.settings.cpu_fraction_min;
            let fraction = least + (1.0 - least) * normal_cdf(self.cpu[i]);
            state.cpu_hz[i] = problem.cpu_max_hz[i] * fraction;
        }
    }
}

/// Φ, the distribution function of the standard Gaussian.
pub(super) fn normal_cdf(x: f64) -> f64 {
    libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2) / 2.0
}

impl Problem {
    /// log2(1 + SINR), capped, bit/s/Hz.
    pub(super) fn efficiency(&self, sinr: f64) -> f64 {
        (sinr.ln_1p() * std::f64::consts::LOG2_E).min(self.channel.se_max)
    }
}
