//! What to expect of a network some slots after it was seen.
//!
//! A gain of power x follows h' = ρ^s·h + √(1−ρ^2s)·w in s slots, so that |h'|² given x is non-central χ² with two degrees
//! of freedom, scaled. Only x matters, not the phase: it is what an old spectral efficiency and the link's mean SNR tell.

use super::environment::normal_cdf;
use super::{Environment, Problem, State};
use crate::topology::Fading;

/// Step and reach of the quadrature over each Gaussian part, in units of √2 deviations. The midpoint rule under a Gaussian
/// weight converges as fast as Gauss–Hermite does; what is left is the kink at `se_max`. No node is where a gain of 0 can be.
const STEP: f64 = 0.125;
const REACH: i32 = 36;
/// Into how many equally probable parts the law of a gain is divided of which only a lower bound is known.
const QUANTILES: u32 = 16;
/// A spectral efficiency this near to `se_max` was capped; records on the chain have 24 bits of it.
const CAPPED: f64 = 1e-6;

impl Environment {
    /// The state to expect `slots` after `old`, by one who knows `old`, the links' mean SNR and how the network varies.
    ///
    /// - `se`: E[min(se_max, log2(1 + SNR·|h'|²))]. An efficiency at `se_max` only tells a lower bound of |h|², above which it
    ///   has the tail of its exponential law.
    /// - `downlink_bps`: the same, as if all subchannels had had the same gain: a state does not tell them apart. The
    ///   optimum does not depend on it.
    /// - `cpu_hz`: E[f'], which relaxes to its mean with `cpu_memory`. `k` stays.
    pub fn expected(&self, old: &State, slots: u32) -> State {
        if slots == 0 {
            return old.clone();
        }
        let problem = self.problem();
        let mut state = old.clone();
        for (f, most) in state.cpu_hz.iter_mut().zip(&problem.cpu_max_hz) {
            *f = expected_cpu_hz(problem, *f, *most, slots);
        }
        if problem.fading == Fading::None {
            return state;
        }
        let slots = i32::try_from(slots).unwrap_or(i32::MAX);
        let memory = problem.fading_memory.powi(slots);
        let width_hz = problem.bandwidth_hz() * problem.subchannels as f64;
        let rows = state.se.chunks_exact_mut(problem.subchannels).zip(&mut state.downlink_bps);
        for ((row, downlink), [up, down]) in rows.zip(self.snr()) {
            let mut link = Link { problem, snr: *up, memory, capped: None };
            row.iter_mut().for_each(|se| *se = link.expected(*se));
            *downlink =
                width_hz * Link { problem, snr: *down, memory, capped: None }.expected(*downlink / width_hz);
        }
        state
    }
}

/// A link of one mean SNR.
struct Link<'a> {
    problem: &'a Problem,
    snr: f64,
    /// ρ^s.
    memory: f64,
    /// What is expected where the old efficiency was capped: the same on all subchannels.
    capped: Option<f64>,
}

impl Link<'_> {
    /// The efficiency to expect after one of `se`, bit/s/Hz.
    fn expected(&mut self, se: f64) -> f64 {
        let power = |se: f64| (se * std::f64::consts::LN_2).exp_m1() / self.snr;
        let most = self.problem.se_max();
        if se < most * (1.0 - CAPPED) {
            return self.after(power(se));
        }
        if let Some(known) = self.capped {
            return known;
        }
        // An exponential law has no memory: above the bound it begins anew.
        let tail = |i: u32| -(1.0 - (f64::from(i) + 0.5) / f64::from(QUANTILES)).ln();
        let least = power(most);
        let mean = (0..QUANTILES).map(|i| self.after(least + tail(i))).sum::<f64>() / f64::from(QUANTILES);
        self.capped = Some(mean);
        mean
    }

    /// The efficiency to expect after a gain of that power, by quadrature over the two parts of what is new.
    fn after(&self, power: f64) -> f64 {
        let (kept, fresh) = (self.memory * power.sqrt(), (1.0 - self.memory.powi(2)).sqrt());
        let (mut sum, mut weights) = (0.0, 0.0);
        for along in -REACH..REACH {
            let u = (f64::from(along) + 0.5) * STEP;
            // Either sign of the part across is the same power.
            for across in 0..REACH {
                let v = (f64::from(across) + 0.5) * STEP;
                let weight = (-u * u - v * v).exp();
                let gain = (kept + fresh * u).powi(2) + (fresh * v).powi(2);
                sum += weight * self.problem.efficiency(self.snr * gain);
                weights += weight;
            }
        }
        sum / weights
    }
}

/// E[f'] after `slots`, Hz. Where x is Gaussian with mean a and variance v, E[Φ(x)] = Φ(a/√(1 + v)).
fn expected_cpu_hz(problem: &Problem, f: f64, most: f64, slots: u32) -> f64 {
    let least = problem.settings.cpu_fraction_min;
    if least >= 1.0 {
        return f;
    }
    let memory = problem.settings.cpu_memory.powi(i32::try_from(slots).unwrap_or(i32::MAX));
    let a = memory * normal_quantile((f / most - least) / (1.0 - least));
    most * (least + (1.0 - least) * normal_cdf(a / (2.0 - memory * memory).sqrt()))
}

/// Φ⁻¹ by bisection, within ±9 deviations.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match normal_cdf(middle) < p {
            true => low = middle,
            false => high = middle,
        }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Plan;
    use crate::association::{Geometry, Split};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;

    fn problem() -> Problem {
        let text = include_str!("../../../../topologies/paper.toml").to_owned();
        let loaded = crate::topology::parse("t", text, &crate::Overrides::default()).unwrap();
        Problem::new(&Plan::new(&loaded.topology).unwrap()).unwrap()
    }

    /// The mean of `draws` efficiencies after gains of those powers, and its standard error.
    fn drawn(link: &Link<'_>, draws: usize, mut power: impl FnMut(&mut ChaCha8Rng) -> f64) -> (f64, f64) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let fresh = ((1.0 - link.memory * link.memory) / 2.0).sqrt();
        let values: Vec<f64> = (0..draws)
            .map(|_| {
                let kept = link.memory * power(&mut rng).sqrt();
                let (re, im): (f64, f64) = (rng.sample(StandardNormal), rng.sample(StandardNormal));
                let gain = (kept + fresh * re).powi(2) + (fresh * im).powi(2);
                link.problem.efficiency(link.snr * gain)
            })
            .collect();
        let mean = values.iter().sum::<f64>() / draws as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / draws as f64;
        (mean, (variance / draws as f64).sqrt())
    }

    #[test]
    fn efficiencies_are_those_of_drawn_gains() {
        let problem = problem();
        for slots in [1, 2, 8] {
            for snr in [0.3, 10.0, 200.0, 5000.0] {
                let memory = 0.9f64.powi(slots);
                let mut link = Link { problem: &problem, snr, memory, capped: None };
                for old in [0.0, 0.05, 0.5, 1.0, 3.0] {
                    let se = problem.efficiency(snr * old);
                    let capped = se >= problem.se_max();
                    let (mean, error) = drawn(&link, 100_000, |rng| match capped {
                        // Drawn from the whole exponential law until it is above the bound would take long for weak links.
                        true => problem.se_max().exp2() / snr - 1.0 / snr - (1.0 - rng.random::<f64>()).ln(),
                        false => old,
                    });
                    let expected = link.expected(se);
                    assert!(
                        (expected - mean).abs() < 4.0 * error + 2e-3 * mean,
                        "{slots} slots, SNR {snr}, gain {old}: {expected} against {mean} ± {error}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_expected_of_old_states_is_what_comes_on_average() {
        let problem = problem();
        let (mut expected, mut came, mut seen) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        let (mut error, mut error_of_old) = ([0.0; 2], [0.0; 2]);
        let instances = 400;
        for index in 0..instances {
            let mut environment = Environment::new(&problem, Geometry::Random, 5, Split::Train, index);
            let old = environment.state().clone();
            let outlook = environment.expected(&old, 2);
            environment.step();
            environment.step();
            let now = environment.state();
            let mut add = |what: usize, expects: &[f64], now: &[f64], old: &[f64], scale: f64| {
                for ((e, n), o) in expects.iter().zip(now).zip(old) {
                    expected[what] += e / scale;
                    came[what] += n / scale;
                    seen[what] += o / scale;
                    error[what] += ((e - n) / scale).powi(2);
                    error_of_old[what] += ((o - n) / scale).powi(2);
                }
            };
            add(0, &outlook.se, &now.se, &old.se, 1.0);
            add(1, &outlook.cpu_hz, &now.cpu_hz, &old.cpu_hz, 1e9);
        }
        for what in 0..2 {
            assert!(
                (expected[what] / came[what] - 1.0).abs() < 0.01,
                "{what}: {expected:?} {came:?} {seen:?}"
            );
            // The conditional mean is the estimate of least squared error.
            assert!(error[what] < 0.97 * error_of_old[what], "{what}: {error:?} {error_of_old:?}");
        }
    }

    #[test]
    fn what_does_not_vary_is_expected_as_it_was() {
        let mut problem = problem();
        problem.fading = Fading::None;
        problem.settings.cpu_fraction_min = 1.0;
        let environment = Environment::new(&problem, Geometry::Random, 5, Split::Train, 1);
        let old = environment.state().clone();
        assert_eq!(environment.expected(&old, 3), old);
        // Only processors vary now, and in the end nothing is known of them but their mean.
        problem.settings.cpu_fraction_min = 0.6;
        let environment = Environment::new(&problem, Geometry::Random, 5, Split::Train, 1);
        let late = environment.expected(environment.state(), 1000);
        assert_eq!(late.se, old.se);
        for (f, most) in late.cpu_hz.iter().zip(&problem.cpu_max_hz) {
            assert!((f / most - 0.8).abs() < 1e-9);
        }
        assert_eq!(&environment.expected(environment.state(), 0), environment.state());
    }
}
