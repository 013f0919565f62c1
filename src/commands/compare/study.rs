//! Policies on the same held-out states, and what can be said of them.

use std::time::Instant;

use dtwn_model::association::{
    Average, Decision, Environment, Geometry, Optimal, Policy, PolicyError, Problem, Split, State, assign,
};
use serde::Serialize;

/// Slots that an instance goes through before the one that counts; no state can be older.
pub const STALENESS_MAX: u32 = 16;
/// Of the standard Gaussian: 95 % of it lies within this many deviations.
const Z_95: f64 = 1.959_964;

/// What to compare on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many held-out instances.
    pub instances: u64,
    /// Seed of their streams.
    pub seed: u64,
    /// Where BSs stand.
    pub geometry: Geometry,
    /// By how many slots what policies see is older than what they are charged by.
    pub staleness: u32,
    /// What each user has from each BS, bit/s (N × M), where twins are to be dealt.
    pub access_bps: Option<Vec<f64>>,
}

/// What came of a policy. Times are emulated.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub policy: String,
    /// Mean T of Eq. 17, s.
    pub mean_s: f64,
    /// Half the width of the 95 % confidence interval of the mean, s.
    pub ci95_s: f64,
    /// Mean T over the optimum's mean T, both for the true state.
    pub ratio_to_optimal: f64,
    /// Half the width of the 95 % confidence interval of that ratio, from the paired differences.
    pub ratio_ci95: f64,
    /// How much of the way from the average policy to the optimum it went: 1 is all.
    pub gap_closed: f64,
    /// Mean of each term of Eq. 17, s: training, broadcast, block.
    pub terms_s: [f64; 3],
    /// Mean T for the very twins of the topology, dealt to the BSs by min-cost assignment, s; `None` for random networks,
    /// where users have no places, and for more twins than are dealt one by one.
    pub realised_s: Option<f64>,
    /// Median wall time of a decision, µs.
    pub decision_us_p50: f64,
    /// The 99th percentile of it, µs.
    pub decision_us_p99: f64,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Study {
    /// Instances.
    pub instances: u64,
    /// Seed of their streams.
    pub seed: u64,
    /// By how many slots what policies saw was old.
    pub staleness: u32,
    /// `topology` or `random`.
    pub networks: &'static str,
    /// Mean T of the optimum for the true states, s.
    pub optimal_s: f64,
    /// Mean T of the average policy, s.
    pub average_s: f64,
    /// How far any decision for these very twins, whose data differ, could be below the optimum for equal ones: mean of
    /// 1 − bound/T.
    pub bound_gap: f64,
    /// Each policy.
    pub policies: Vec<Row>,
}

/// One held-out instance.
struct Instance {
    seen: State,
    truth: State,
    environment: Environment,
}

impl Instance {
    /// The same truth for every staleness, so that results pair across it too.
    fn new(problem: &Problem, settings: &Settings, index: u64) -> Self {
        let Settings { geometry, seed, staleness, .. } = *settings;
        let mut environment = Environment::new(problem, geometry, seed, Split::Test, index);
        let mut seen = None;
        for slot in 0..=STALENESS_MAX {
            if slot > 0 {
                environment.step();
            }
            if slot == STALENESS_MAX - staleness.min(STALENESS_MAX) {
                seen = Some(environment.state().clone());
            }
        }
        let truth = environment.state().clone();
        Self { seen: seen.unwrap_or_else(|| truth.clone()), truth, environment }
    }
}

/// Who decides, on what.
struct Contender<'a> {
    name: &'a str,
    policy: &'a mut dyn Policy,
    /// Whether it is shown what to expect of the true state, in place of the old one.
    expects: bool,
    tally: Tally,
}

impl<'a> Contender<'a> {
    fn of(name: &'a str, policy: &'a mut dyn Policy, expects: bool) -> Self {
        Self { name, policy, expects, tally: Tally::default() }
    }

    fn decide(
        &mut self,
        problem: &Problem,
        settings: &Settings,
        instance: &Instance,
    ) -> Result<(), PolicyError> {
        let Instance { seen, truth, environment } = instance;
        let began = Instant::now();
        let decision = match self.expects {
            true => self.policy.decide(problem, &environment.expected(seen, settings.staleness))?,
            false => self.policy.decide(problem, seen)?,
        };
        let decision_us = began.elapsed().as_secs_f64() * 1e6;
        let infeasible = |source| PolicyError::Infeasible { policy: self.name.to_owned(), source };
        problem.check(&decision).map_err(infeasible)?;
        self.tally.add(problem, settings, truth, &decision, decision_us);
        Ok(())
    }
}

#[derive(Default)]
struct Tally {
    totals: Vec<f64>,
    terms: [f64; 3],
    realised: Vec<f64>,
    decision_us: Vec<f64>,
}

impl Tally {
    fn add(
        &mut self,
        problem: &Problem,
        settings: &Settings,
        truth: &State,
        decision: &Decision,
        decision_us: f64,
    ) {
        if let Some(Ok(dealt)) = settings.access_bps.as_ref().map(|bps| assign(bps, &decision.k)) {
            self.realised.push(problem.realise(truth, decision, &dealt).terms.total_s());
        }
        let terms = problem.terms(truth, decision);
        for (sum, term) in self.terms.iter_mut().zip([terms.training_s, terms.broadcast_s, terms.block_s]) {
            *sum += term;
        }
        self.totals.push(terms.total_s());
        self.decision_us.push(decision_us);
    }

    fn row(mut self, policy: String, optimal: &[f64], average: &[f64]) -> Row {
        let (mean_s, best, usual) = (mean(&self.totals), mean(optimal), mean(average));
        let ratio = mean_s / best;
        // The delta method: the ratio of two means varies as the paired residuals do.
        let residuals: Vec<f64> =
            self.totals.iter().zip(optimal).map(|(t, o)| (t - ratio * o) / best).collect();
        self.decision_us.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let at = (q * self.decision_us.len().saturating_sub(1) as f64).round() as usize;
            self.decision_us.get(at).copied().unwrap_or(0.0)
        };
        Row {
            policy,
            mean_s,
            ci95_s: half_width(&self.totals),
            ratio_to_optimal: ratio,
            ratio_ci95: half_width(&residuals),
            gap_closed: (usual - mean_s) / (usual - best),
            terms_s: self.terms.map(|sum| sum / self.totals.len() as f64),
            realised_s: (!self.realised.is_empty()).then(|| mean(&self.realised)),
            decision_us_p50: quantile(0.5),
            decision_us_p99: quantile(0.99),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Half the width of the 95 % confidence interval of the mean; 0 for a single value.
pub fn half_width(values: &[f64]) -> f64 {
    let (n, mean) = (values.len() as f64, mean(values));
    if n < 2.0 {
        return 0.0;
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Z_95 * (variance / n).sqrt()
}

/// Lets each policy decide on every instance, and charges it. `done` is told after each instance.
///
/// The optimum and the average policy are always computed, as everything is measured by them. With stale states, an
/// `optimal` among the policies is called `optimal-stale`: it trusts what it sees. `optimal-expected` then stands beside it:
/// the optimum for what [is to be expected](Environment::expected) of the true state.
///
/// # Errors
/// When a policy does not fit the problem or finds no decision.
pub fn compare(
    problem: &Problem,
    policies: &mut [Box<dyn Policy>],
    settings: &Settings,
    mut done: impl FnMut(u64),
) -> Result<Study, PolicyError> {
    let old = settings.staleness > 0;
    let names: Vec<String> = policies.iter().map(|policy| policy.name().to_owned()).collect();
    let mut expecting = vec![Optimal; names.len()];
    let mut contenders = vec![];
    for ((policy, name), expecting) in policies.iter_mut().zip(&names).zip(&mut expecting) {
        let is_stale = old && name == "optimal";
        contenders.push(Contender::of(if is_stale { "optimal-stale" } else { name }, policy.as_mut(), false));
        if is_stale {
            contenders.push(Contender::of("optimal-expected", expecting, true));
        }
    }
    let (mut optimal, mut average) = (vec![], vec![]);
    let mut bound_gap = 0.0;
    for index in 0..settings.instances {
        let instance = Instance::new(problem, settings, index);
        for contender in &mut contenders {
            contender.decide(problem, settings, &instance)?;
        }
        let truth = &instance.truth;
        let best = problem.terms(truth, &Optimal.decide(problem, truth)?);
        optimal.push(best.total_s());
        average.push(problem.terms(truth, &Average.decide(problem, truth)?).total_s());
        let bound_s = Optimal::bound_s(problem, truth)? + best.block_s;
        bound_gap += (1.0 - bound_s / best.total_s()) / settings.instances as f64;
        done(index + 1);
    }
    let rows = contenders.into_iter().map(|one| one.tally.row(one.name.to_owned(), &optimal, &average));
    Ok(Study {
        instances: settings.instances,
        seed: settings.seed,
        staleness: settings.staleness,
        networks: match settings.geometry {
            Geometry::Topology => "topology",
            Geometry::Random => "random",
        },
        policies: rows.collect(),
        optimal_s: mean(&optimal),
        average_s: mean(&average),
        bound_gap,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtwn_model::association::{Greedy, Random};

    fn problem() -> Problem {
        let text = include_str!("../../../topologies/paper.toml").to_owned();
        let loaded = dtwn_model::topology::parse("t", text, &dtwn_model::Overrides::default()).unwrap();
        let mut problem = Problem::new(&dtwn_model::Plan::new(&loaded.topology).unwrap()).unwrap();
        problem.cost.payload = dtwn_model::topology::Payload::Twins;
        problem
    }

    fn study(staleness: u32) -> Study {
        let mut policies: Vec<Box<dyn Policy>> =
            vec![Box::new(Random::new(1)), Box::new(Average), Box::new(Greedy), Box::new(Optimal)];
        let settings =
            Settings { instances: 30, seed: 4, geometry: Geometry::Random, staleness, access_bps: None };
        compare(&problem(), &mut policies, &settings, |_| {}).unwrap()
    }

    #[test]
    fn policies_stand_in_the_order_they_should() {
        let fresh = study(0);
        let by_name = |study: &Study, name: &str| -> Row {
            study.policies.iter().find(|row| row.policy == name).cloned().unwrap()
        };
        let (random, average) = (by_name(&fresh, "random"), by_name(&fresh, "average"));
        let (greedy, optimal) = (by_name(&fresh, "greedy"), by_name(&fresh, "optimal"));
        assert!(random.mean_s > average.mean_s && average.mean_s > greedy.mean_s);
        assert!(greedy.ratio_to_optimal > 1.0 && greedy.gap_closed > 0.7);
        assert!((optimal.ratio_to_optimal - 1.0).abs() < 1e-9 && optimal.ratio_ci95 < 1e-9);
        assert!((average.gap_closed).abs() < 1e-9 && (optimal.gap_closed - 1.0).abs() < 1e-9);
        assert!((0.0..0.2).contains(&fresh.bound_gap));
        assert!((average.terms_s.iter().sum::<f64>() - average.mean_s).abs() < 1e-9);

        // The same truth, seen late: who looks at no state loses nothing, who trusts it does.
        let stale = study(3);
        assert!((stale.optimal_s - fresh.optimal_s).abs() < 1e-9);
        assert!((by_name(&stale, "average").mean_s - average.mean_s).abs() < 1e-9);
        let trusting = by_name(&stale, "optimal-stale");
        assert!(trusting.ratio_to_optimal > 1.02);
        // It decides otherwise, and knows no more than that. A better estimate need not be a shorter T, which is a maximum.
        let expecting = by_name(&stale, "optimal-expected");
        assert!(expecting.ratio_to_optimal > 1.0 && expecting.mean_s != trusting.mean_s);
        assert!(fresh.policies.iter().all(|row| row.policy != "optimal-expected"));
        assert!(by_name(&stale, "greedy").mean_s > greedy.mean_s);
    }

    #[test]
    fn nothing_is_to_be_expected_of_what_does_not_vary() {
        let mut problem = problem();
        problem.fading = dtwn_model::topology::Fading::None;
        problem.settings.cpu_fraction_min = 1.0;
        let settings =
            Settings { instances: 5, seed: 4, geometry: Geometry::Random, staleness: 3, access_bps: None };
        let mut policies: Vec<Box<dyn Policy>> = vec![Box::new(Optimal)];
        let study = compare(&problem, &mut policies, &settings, |_| {}).unwrap();
        let [stale, expected] = &study.policies[..] else { panic!("{:?}", study.policies) };
        assert_eq!((&*stale.policy, &*expected.policy), ("optimal-stale", "optimal-expected"));
        assert_eq!((stale.mean_s, stale.terms_s), (expected.mean_s, expected.terms_s));
    }

    #[test]
    fn the_twins_of_the_topology_cost_about_what_equal_ones_do() {
        let text = include_str!("../../../topologies/paper.toml").to_owned();
        let loaded = dtwn_model::topology::parse("t", text, &dtwn_model::Overrides::default()).unwrap();
        let plan = dtwn_model::Plan::new(&loaded.topology).unwrap();
        let settings = Settings {
            instances: 5,
            seed: 4,
            geometry: Geometry::Topology,
            staleness: 0,
            access_bps: Some(plan.access_rates_bps()),
        };
        let mut policies: Vec<Box<dyn Policy>> = vec![Box::new(Average), Box::new(Greedy)];
        let study = compare(&Problem::new(&plan).unwrap(), &mut policies, &settings, |_| {}).unwrap();
        for row in study.policies {
            let realised = row.realised_s.unwrap();
            // b follows the data, so only its bounds can cost anything.
            assert!((realised / row.mean_s - 1.0).abs() < 0.02, "{realised} {}", row.mean_s);
        }
    }

    #[test]
    fn intervals_by_hand() {
        // Variance 1, four values: 1.96·1/2.
        assert!((half_width(&[1.0, 1.0, 3.0, 3.0]) - 1.959_964 * (4.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-9);
        assert_eq!(half_width(&[7.0]), 0.0);
    }
}
