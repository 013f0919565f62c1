//! What the agents' actions mean: from numbers in [−1, 1] to K, b and τ.
//!
//! Agent i acts with a_i = (a_K, a_b, a_τ1 … a_τC). The improved mapping reads, with η_i = K_i·Σ_j η_j/N the models that BS
//! i broadcasts (Eq. 15; 1 each where the payload is one aggregate a BS):
//!
//! ```text
//! τ_ic = softmax over i of 5·a_τc
//! K_i  = N · softmax over i of (0.7·a_K + ln R_i(τ))        ln f_i in place of ln R_i for one aggregate a BS
//! τ_ic ∝ τ_ic·η_i/R_i(τ), normalised over i                 `repairs` times
//! b_i  = B*·f_i/Σf / (K_i·D̄) · exp(a_b/2)
//! ```
//!
//! To be executed, K is rounded by largest remainder, b is projected onto (18a) and (18d), and the repair goes on for the
//! whole K. With `refinements`, twins then move between BSs while that makes T smaller. The paper's own mapping only
//! scales: K ∝ (a_K + 1)/2, τ ∝ (a_τ + 1)/2, b affine between its bounds.

use super::{Decision, Problem, Relaxed, State, normalise_shares, softmax_by_station};
use serde::{Deserialize, Serialize};

/// The steepness of τ in its action.
pub const TAU_GAIN: f64 = 5.0;
/// By how much a_K moves ln K.
pub const K_GAIN: f64 = 0.7;
/// By how much a_b moves ln b.
pub const B_GAIN: f64 = 0.5;
/// Where a rate is zero its logarithm still has to be a number: bit/s/Hz.
pub const SE_FLOOR: f64 = 1e-6;

/// How actions become decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Mapping {
    /// The paper's: scaled, and no more.
    Paper,
    /// Relative to what the state suggests.
    Improved {
        /// Passes of τ ∝ τ·η/R.
        repairs: u32,
        /// Most twins that the refinement moves.
        refinements: u32,
    },
}

/// How many numbers an agent acts with on C subchannels.
pub const fn action_size(subchannels: usize) -> usize {
    2 + subchannels
}

impl Mapping {
    /// The relaxed decision that actions (M × (2 + C), flat) stand for. Entries that are no numbers count as 0.
    pub fn relaxed(self, problem: &Problem, state: &State, actions: &[f32]) -> Relaxed {
        let (m, c) = (problem.stations, problem.subchannels);
        let size = action_size(c);
        let act = |i: usize, at: usize| match actions.get(i * size + at) {
            Some(a) if a.is_finite() => f64::from(*a),
            _ => 0.0,
        };
        match self {
            Self::Paper => {
                let half = |a: f64| f64::midpoint(a.clamp(-1.0, 1.0), 1.0);
                let share: Vec<f64> = (0..m).map(|i| half(act(i, 0))).collect();
                let sum: f64 = share.iter().sum();
                let even = 1.0 / m as f64;
                let share = share.iter().map(|s| if sum > 0.0 { s / sum } else { even }).collect();
                let (b_min, b_max) = (problem.cost.b_min, problem.cost.b_max);
                let b = (0..m).map(|i| b_min + (b_max - b_min) * half(act(i, 1))).collect();
                let mut tau: Vec<f64> = (0..m * c).map(|at| half(act(at / c, 2 + at % c))).collect();
                normalise_shares(&mut tau, m, c);
                Relaxed { share, b, tau }
            }
            Self::Improved { repairs, .. } => {
                let logits: Vec<f64> = (0..m * c).map(|at| TAU_GAIN * act(at / c, 2 + at % c)).collect();
                let mut tau = softmax_by_station(&logits, m, c);
                let base = match problem.counts_twins() {
                    true => efficiencies(state, &tau, c),
                    false => state.cpu_hz.clone(),
                };
                let logits: Vec<f64> = (0..m).map(|i| K_GAIN * act(i, 0) + base[i].ln()).collect();
                let share = softmax_by_station(&logits, m, 1);
                repair(problem, state, &mut tau, &share, repairs);
                let b = (0..m).map(|i| even_b(problem, state, share[i], i) * (B_GAIN * act(i, 1)).exp());
                Relaxed { b: b.collect(), share, tau }
            }
        }
    }

    /// The feasible decision that actions stand for.
    pub fn decide(self, problem: &Problem, state: &State, actions: &[f32]) -> Decision {
        let relaxed = self.relaxed(problem, state, actions);
        let mut decision = problem.round(&relaxed);
        if let Self::Improved { repairs, refinements } = self {
            repair(problem, state, &mut decision.tau, &shares(problem, &decision.k), repairs);
            refine(problem, state, &mut decision, repairs, refinements);
        }
        decision
    }
}

/// b_i with which all BSs would train equally long, if BS i had this share of the twins.
fn even_b(problem: &Problem, state: &State, share: f64, i: usize) -> f64 {
    let f_total: f64 = state.cpu_hz.iter().sum();
    // A BS without twins trains on nothing, whatever its b.
    let twins = (share * f64::from(problem.twins)).max(0.5);
    problem.budget * state.cpu_hz[i] / f_total / (twins * problem.samples_mean())
}

fn shares(problem: &Problem, k: &[u32]) -> Vec<f64> {
    k.iter().map(|k| f64::from(*k) / f64::from(problem.twins)).collect()
}

/// Σ_c τ_ic·se_ic of each BS, at least [`SE_FLOOR`].
fn efficiencies(state: &State, tau: &[f64], subchannels: usize) -> Vec<f64> {
    let rows = tau.chunks_exact(subchannels).zip(state.se.chunks_exact(subchannels));
    rows.map(|(tau, se)| tau.iter().zip(se).map(|(t, s)| t * s).sum::<f64>().max(SE_FLOOR)).collect()
}

/// τ ∝ τ·η/R, so that all broadcasts come to last equally long; η is `share`, or 1 for whoever has twins.
fn repair(problem: &Problem, state: &State, tau: &mut [f64], share: &[f64], passes: u32) {
    let (m, c) = (problem.stations, problem.subchannels);
    let models: Vec<f64> = share
        .iter()
        .map(|s| match problem.counts_twins() {
            true => *s,
            false => f64::from(u8::from(*s > 0.0)),
        })
        .collect();
    for _ in 0..passes {
        let rates = efficiencies(state, tau, c);
        let largest = (0..m).map(|i| models[i] / rates[i]).fold(f64::MIN_POSITIVE, f64::max);
        for i in 0..m {
            let weight = models[i] / rates[i] / largest;
            for share in &mut tau[i * c..(i + 1) * c] {
                *share *= weight;
            }
        }
        normalise_shares(tau, m, c);
    }
}

/// Moves twins between BSs while that makes T smaller, at most `moves` times: from the BS that would do best with fewer to the
/// one that would do best with more, each looked at alone. Steps begin with a few twins and are halved when one does not help.
///
/// A look at each pair would find a little more, but takes M² trials a move where this takes 2M.
fn refine(problem: &Problem, state: &State, decision: &mut Decision, repairs: u32, moves: u32) {
    let trial = |decision: &Decision, k: Vec<u32>| {
        let share = shares(problem, &k);
        let mut tau = decision.tau.clone();
        repair(problem, state, &mut tau, &share, repairs);
        let wanted: Vec<f64> = (0..k.len()).map(|i| even_b(problem, state, share[i], i)).collect();
        let candidate = Decision { b: problem.project_b(&wanted, &k), k, tau };
        (problem.terms(state, &candidate).total_s(), candidate)
    };
    let mut least = problem.terms(state, decision).total_s();
    let mut step = (problem.twins / 32).max(1);
    for _ in 0..moves {
        let alone = |i: usize, gains: bool| {
            let mut k = decision.k.clone();
            k[i] = if gains { k[i] + step } else { k[i].checked_sub(step)? };
            Some((trial(decision, k).0, i))
        };
        let best = |gains: bool, but: Option<usize>| {
            let others = (0..problem.stations).filter(|i| Some(*i) != but);
            others.filter_map(|i| alone(i, gains)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|best| best.1)
        };
        let from = best(false, None);
        let moved = from.zip(best(true, from)).map(|(from, to)| {
            let mut k = decision.k.clone();
            k[from] -= step;
            k[to] += step;
            trial(decision, k)
        });
        match moved {
            Some((total, candidate)) if total < least => (least, *decision) = (total, candidate),
            _ if step > 1 => step /= 2,
            _ => return,
        }
    }
}
