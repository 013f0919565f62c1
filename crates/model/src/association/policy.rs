//! What decides, and the policies that need neither a solver nor training.

use super::{Decision, DecisionError, Problem, Relaxed, State, largest_remainder, normalise_shares};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Why a policy gave no decision.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It was made for another network.
    #[error("the policy {policy} does not fit this network: {reason}")]
    Misfit {
        /// Its name.
        policy: String,
        /// In what it differs.
        reason: String,
    },
    /// Its file cannot be read or is none.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What it decided violates a constraint.
    #[error("the policy {policy} decided what cannot be: {source}")]
    Infeasible {
        /// Its name.
        policy: String,
        /// The constraint.
        source: DecisionError,
    },
    /// The solver gave up.
    #[error("no optimum was found: {0}")]
    Solver(String),
}

/// Decides K, b and τ from a state.
pub trait Policy: Send {
    /// Its name in results.
    fn name(&self) -> &str;

    /// The decision for a state of a network of the problem's M, N and C. Feasible, whatever the state.
    ///
    /// # Errors
    /// When the policy is for another network, or finds no decision.
    fn decide(&mut self, problem: &Problem, state: &State) -> Result<Decision, PolicyError>;
}

/// K multinomial (each twin to any BS), b uniform within its bounds and projected onto B*, τ uniform and normalised.
#[derive(Debug, Clone)]
pub struct Random {
    rng: ChaCha8Rng,
}

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed) }
    }
}

impl Policy for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn decide(&mut self, problem: &Problem, _state: &State) -> Result<Decision, PolicyError> {
        let (m, c) = (problem.stations, problem.subchannels);
        let mut k = vec![0; m];
        for _ in 0..problem.twins {
            k[self.rng.random_range(0..m)] += 1;
        }
        let wanted: Vec<f64> =
            (0..m).map(|_| self.rng.random_range(problem.cost.b_min..=problem.cost.b_max)).collect();
        let mut tau: Vec<f64> = (0..m * c).map(|_| self.rng.random()).collect();
        normalise_shares(&mut tau, m, c);
        Ok(Decision { b: problem.project_b(&wanted, &k), k, tau })
    }
}

/// N/M twins each (the first N mod M one more), the same b for all, 1/M of every subchannel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Average;

impl Policy for Average {
    fn name(&self) -> &str {
        "average"
    }

    fn decide(&mut self, problem: &Problem, _state: &State) -> Result<Decision, PolicyError> {
        let (m, c) = (problem.stations, problem.subchannels);
        let k = largest_remainder(&vec![1.0; m], problem.twins);
        let b = problem.project_b(&vec![problem.budget / problem.samples_total; m], &k);
        Ok(Decision { k, b, tau: vec![1.0 / m as f64; m * c] })
    }
}

/// The strong baseline. Each subchannel goes to the BSs in steps, each step to whom it brings most, where a BS's rate is
/// weighed by how little it has (proportional fairness); then K ∝ R and b ∝ f/K, so that all broadcasts and all training
/// take about equally long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Greedy;

impl Greedy {
    /// Into how many steps a subchannel's time is divided.
    const STEPS: usize = 8;

    /// τ: parts of subchannels, dealt out in the order of their best use, each to the BS with the largest se/R.
    fn shares(problem: &Problem, state: &State) -> Vec<f64> {
        let (m, c) = (problem.stations, problem.subchannels);
        let part = 1.0 / Self::STEPS as f64;
        let mut tau = vec![0.0; m * c];
        // As if each had a little of everything to begin with: a BS without a rate would take all.
        let mut rate: Vec<f64> =
            state.se.chunks_exact(c).map(|row| row.iter().sum::<f64>() * part / m as f64).collect();
        for _ in 0..Self::STEPS {
            for channel in 0..c {
                let gain = |i: usize| state.se[i * c + channel] / rate[i].max(f64::MIN_POSITIVE);
                let best = (0..m).max_by(|&a, &b| gain(a).total_cmp(&gain(b))).unwrap_or(0);
                tau[best * c + channel] += part;
                rate[best] += part * state.se[best * c + channel];
            }
        }
        tau
    }
}

impl Policy for Greedy {
    fn name(&self) -> &str {
        "greedy"
    }

    fn decide(&mut self, problem: &Problem, state: &State) -> Result<Decision, PolicyError> {
        let tau = Self::shares(problem, state);
        let share = problem.uplink_bps(state, &tau);
        let k = largest_remainder(&share, problem.twins);
        let f_total: f64 = state.cpu_hz.iter().sum();
        let b =
            state.cpu_hz.iter().zip(&k).map(|(f, k)| {
                problem.budget * f / f_total / (f64::from((*k).max(1)) * problem.samples_mean())
            });
        let relaxed = Relaxed { share, b: b.collect(), tau };
        Ok(problem.round(&relaxed))
    }
}
