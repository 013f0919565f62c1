//! The problem, its projections and its instances.

use super::*;
use crate::topology::{Overrides, Payload, parse};
use crate::{Plan, cost};
use proptest::prelude::*;

/// A network of `stations` BSs ever farther from the MBS and 100 users or a few less, with the paper's constants but for what `more` says.
pub(super) fn plan_of(stations: usize, more: &str) -> Plan {
    let mut text = String::from("[radio]\nfading = \"rayleigh\"\n[cost]\npayload = \"twins\"\n");
    text.push_str(more);
    for i in 0..stations {
        let turn = i as f64 / stations as f64 * std::f64::consts::TAU;
        let radius = 150.0 + 60.0 * i as f64;
        let (x, y) = (radius * turn.cos(), radius * turn.sin());
        let users = 100 / stations;
        let cpu = [2.6, 1.8, 3.6, 2.4, 2.4][i % 5];
        text.push_str(&format!(
            "\n[[bs]]\nid = \"bs{i}\"\nposition_m = [{x:.1}, {y:.1}]\ncpu_hz = \"{cpu} GHz\"\n\
             [[users]]\nid = \"ug{i}\"\ncount = {users}\naround = \"bs{i}\"\n"
        ));
    }
    let loaded = parse("t.toml", text, &Overrides::default());
    Plan::new(&loaded.unwrap_or_else(|e| panic!("{:?}", e.problems())).topology).unwrap()
}

pub(super) fn problem_of(stations: usize, more: &str) -> Problem {
    Problem::new(&plan_of(stations, more)).unwrap()
}

#[test]
fn the_average_decision_costs_what_the_average_loads_do() {
    let plan = plan_of(5, "");
    let problem = Problem::new(&plan).unwrap();
    for slot in [0, 7] {
        let state = problem.state_at(&plan, slot);
        let decision = Average.decide(&problem, &state).unwrap();
        let expected = cost::terms(&problem.cost, &plan.average_loads(slot));
        let found = problem.terms(&state, &decision);
        assert!((found.total_s() / expected.total_s() - 1.0).abs() < 1e-9, "{found:?} {expected:?}");
        assert!((found.broadcast_s / expected.broadcast_s - 1.0).abs() < 1e-9);
    }
}

#[test]
fn a_network_that_cannot_reach_its_accuracy_is_refused() {
    let of = |more: &str| Problem::new(&plan_of(5, more));
    // Five groups of 20 users with 500 samples, at most 40 % of each: 20,000 a round.
    let refused = of("theta_th = 0.9").unwrap_err();
    assert!(matches!(refused, ProblemError::Infeasible { most, .. } if (most - 20_000.0).abs() < 1e-6));
    assert!(refused.to_string().contains("cost.theta_th"), "{refused}");
    // So low a demand that b_min makes more of it.
    assert!((of("theta_th = 0.1").unwrap().budget - 5_000.0).abs() < 1e-6);
    let parsed = parse("t", "[[bs]]\nid = \"a\"\nposition_m = [9, 9]\n".to_owned(), &Overrides::default());
    let empty = Plan::new(&parsed.unwrap().topology).unwrap();
    assert_eq!(Problem::new(&empty), Err(ProblemError::NoData));
}

#[test]
fn every_policy_decides_what_is_feasible() {
    for (stations, payload) in [(1, Payload::Twins), (2, Payload::Aggregate), (5, Payload::Twins)] {
        let mut problem = problem_of(stations, "");
        problem.cost.payload = payload;
        let mut environment = Environment::new(&problem, Geometry::Random, 5, Split::Test, 0);
        let policies: [Box<dyn Policy>; 4] =
            [Box::new(Random::new(1)), Box::new(Average), Box::new(Greedy), Box::new(Optimal)];
        for mut policy in policies {
            for _ in 0..20 {
                environment.step();
                let decision = policy.decide(&problem, environment.state()).unwrap();
                problem.check(&decision).unwrap_or_else(|e| panic!("{}: {e}", policy.name()));
                assert!(problem.terms(environment.state(), &decision).total_s() > 0.0);
            }
        }
    }
}

#[test]
fn checks_name_the_constraint_that_fails() {
    let problem = problem_of(2, "");
    let good = Average.decide(&problem, &State::default()).unwrap();
    assert_eq!(problem.check(&good), Ok(()));
    let broken = |change: &dyn Fn(&mut Decision)| {
        let mut decision = good.clone();
        change(&mut decision);
        problem.check(&decision).unwrap_err().to_string()
    };
    assert!(broken(&|d| d.k[0] += 1).contains("(18b)"));
    assert!(broken(&|d| d.b[1] = 0.9).contains("b of BS 2 is 0.9"));
    assert!(broken(&|d| d.b.fill(0.1)).contains("(18a)"));
    assert!(broken(&|d| d.tau[0] += 0.1).contains("(18c)"));
    assert!(broken(&|d| d.tau.truncate(3)).contains("τ has 3 entries where this network needs 20"));
}

#[test]
fn largest_remainder_by_hand() {
    assert_eq!(largest_remainder(&[0.5, 0.3, 0.2], 10), [5, 3, 2]);
    // 2.5, 2.5, 5: the tie goes to the first.
    assert_eq!(largest_remainder(&[1.0, 1.0, 2.0], 10), [3, 2, 5]);
    assert_eq!(largest_remainder(&[0.0, f64::NAN, -1.0], 4), [2, 1, 1]);
    assert_eq!(largest_remainder(&[0.0, 3.0], 7), [0, 7]);
    assert!(largest_remainder(&[], 7).is_empty());
}

#[test]
fn softmax_and_shares_by_hand() {
    // Two BSs, two subchannels: equal logits halve, ln 3 apart gives 1 to 3.
    let tau = softmax_by_station(&[0.0, 0.0, 0.0, 3f64.ln()], 2, 2);
    assert!(tau.iter().zip([0.5, 0.25, 0.5, 0.75]).all(|(a, b)| (a - b).abs() < 1e-12), "{tau:?}");
    let mut shares = vec![f64::NAN, 0.0, -1.0, 2.0];
    normalise_shares(&mut shares, 2, 2);
    assert_eq!(shares, [0.5, 0.0, 0.5, 1.0]);
}

#[test]
fn instances_repeat_and_splits_differ() {
    let problem = problem_of(3, "");
    let walk = |seed, split, index| {
        let mut environment = Environment::new(&problem, Geometry::Random, seed, split, index);
        environment.step();
        environment.step();
        environment.state().clone()
    };
    assert_eq!(walk(1, Split::Test, 4), walk(1, Split::Test, 4));
    for other in [walk(1, Split::Train, 4), walk(1, Split::Test, 5), walk(2, Split::Test, 4)] {
        assert_ne!(walk(1, Split::Test, 4).se, other.se);
    }
}

#[test]
fn instances_have_the_law_they_should() {
    let problem = problem_of(5, "");
    let mut environment = Environment::new(&problem, Geometry::Random, 9, Split::Train, 0);
    let (mut fractions, mut distances, mut products) = (vec![], vec![], 0.0);
    for _ in 0..4000 {
        environment.reset();
        let before = environment.state().cpu_hz[0] / problem.cpu_max_hz[0];
        environment.step();
        let after = environment.state().cpu_hz[0] / problem.cpu_max_hz[0];
        fractions.push(before);
        distances.push(environment.distance_m()[0]);
        products += (before - 0.8) * (after - 0.8);
    }
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    // Uniform on [0.6, 1]: mean 0.8, σ of the mean 0.1155/√4000 = 0.0018; a quarter below 0.7.
    assert!((mean(&fractions) - 0.8).abs() < 0.008);
    let quarter = fractions.iter().filter(|f| **f < 0.7).count();
    assert!((890..1110).contains(&quarter), "{quarter}");
    // Of a Gaussian copula with 0.9 the correlation of the uniforms is (6/π)·asin(0.45) = 0.891.
    let correlation = products / 4000.0 / (0.16 / 12.0);
    assert!((correlation - 0.891).abs() < 0.05, "{correlation}");
    // Uniform by area between 100 and 500 m: half lie within sqrt(130,000) = 360.6 m.
    let near = distances.iter().filter(|d| **d < 360.56).count();
    assert!((1850..2150).contains(&near), "{near}");
}

#[test]
fn without_fading_only_processors_change() {
    let mut problem = problem_of(3, "");
    problem.fading = crate::topology::Fading::None;
    let mut environment = Environment::new(&problem, Geometry::Topology, 1, Split::Test, 0);
    let before = environment.state().clone();
    environment.step();
    assert_eq!(before.se, environment.state().se);
    assert_ne!(before.cpu_hz, environment.state().cpu_hz);
    let expected = problem.se_up(problem.distance_m[0], 1.0);
    assert!((before.se[0] - expected).abs() < 1e-9);
}

proptest! {
    #[test]
    fn rounding_makes_anything_feasible(
        share in prop::collection::vec(-1.0f64..3.0, 4),
        b in prop::collection::vec(prop_oneof![Just(f64::NAN), -2.0f64..3.0], 4),
        tau in prop::collection::vec(prop_oneof![Just(f64::INFINITY), -0.5f64..1.0], 40),
    ) {
        let problem = problem_of(4, "");
        let decision = problem.round(&Relaxed { share, b, tau });
        prop_assert_eq!(problem.check(&decision), Ok(()));
        let spent = problem.samples_spent(&decision.k, &decision.b);
        prop_assert!((spent / problem.budget - 1.0).abs() < 1e-9);
    }

    #[test]
    fn projection_leaves_the_feasible_alone_and_is_the_nearest(
        wanted in prop::collection::vec(0.0f64..0.6, 3),
        other in prop::collection::vec(0.0f64..0.6, 3),
    ) {
        let problem = problem_of(3, "");
        let k = [10, 20, 30];
        let near = problem.project_b(&wanted, &k);
        let again = problem.project_b(&near, &k);
        prop_assert!(near.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-9));
        // No other feasible point is nearer, twin by twin.
        let far = problem.project_b(&other, &k);
        let distance = |b: &[f64]| -> f64 {
            b.iter().zip(&wanted).zip(k).map(|((b, w), k)| f64::from(k) * (b - w).powi(2)).sum()
        };
        prop_assert!(distance(&near) <= distance(&far) + 1e-9);
    }
}
/// The least T1 + T2 over a grid of L, τ and all K, two BSs.
fn brute_force_s(problem: &Problem, state: &State) -> f64 {
    const STEPS: u32 = 60;
    let mut best = f64::INFINITY;
    for first in 0..=problem.twins {
        let k = vec![first, problem.twins - first];
        let average = Average.decide(problem, state).unwrap();
        let at = |b: Vec<f64>, tau: Vec<f64>| problem.terms(state, &Decision { k: k.clone(), b, tau });
        let (mut training, mut broadcast) = (f64::INFINITY, f64::INFINITY);
        for step in 0..=STEPS {
            let b = f64::from(step) / f64::from(STEPS);
            let (low, high) = (problem.cost.b_min, problem.cost.b_max);
            let projected = problem.project_b(&[low + b * (high - low), high - b * (high - low)], &k);
            training = training.min(at(projected, average.tau.clone()).training_s);
        }
        for (x, y) in (0..=STEPS).flat_map(|x| (0..=STEPS).map(move |y| (x, y))) {
            let (x, y) = (f64::from(x) / f64::from(STEPS), f64::from(y) / f64::from(STEPS));
            broadcast = broadcast.min(at(vec![0.2; 2], vec![x, y, 1.0 - x, 1.0 - y]).broadcast_s);
        }
        best = best.min(training + broadcast);
    }
    best
}

#[test]
fn the_optimum_is_that_of_brute_force() {
    let mut problem = problem_of(2, "");
    // Few twins, so that whole numbers matter, with as much data together.
    problem.twins = 6;
    problem.subchannels = 2;
    for payload in [Payload::Twins, Payload::Aggregate] {
        problem.cost.payload = payload;
        for index in 0..3 {
            let environment = Environment::new(&problem, Geometry::Random, 3, Split::Test, index);
            let state = environment.state();
            let terms = problem.terms(state, &Optimal.decide(&problem, state).unwrap());
            let (optimum, brute) = (terms.training_s + terms.broadcast_s, brute_force_s(&problem, state));
            assert!(optimum <= brute * (1.0 + Optimal::GAP), "{optimum} {brute}");
            assert!(brute <= optimum * 1.03, "{optimum} {brute}");
        }
    }
}

#[test]
fn nothing_beats_the_optimum_and_nothing_its_bound() {
    for (stations, payload) in [(1, Payload::Twins), (3, Payload::Twins), (4, Payload::Aggregate)] {
        let mut problem = problem_of(stations, "");
        problem.cost.payload = payload;
        let mut totals = [0.0; 4];
        for index in 0..20 {
            let environment = Environment::new(&problem, Geometry::Random, 3, Split::Test, index);
            let state = environment.state();
            let policies: [&mut dyn Policy; 4] =
                [&mut Optimal, &mut Greedy, &mut Average, &mut Random::new(index)];
            let mut each = [0.0; 4];
            for (cost, policy) in each.iter_mut().zip(policies) {
                *cost = problem.terms(state, &policy.decide(&problem, state).unwrap()).total_s();
            }
            assert!(each[1..].iter().all(|other| *other >= each[0] * (1.0 - Optimal::GAP)), "{each:?}");
            let block_s = problem.terms(state, &Average.decide(&problem, state).unwrap()).block_s;
            assert!(Optimal::bound_s(&problem, state).unwrap() + block_s <= each[0] * (1.0 + 1e-6));
            for (total, cost) in totals.iter_mut().zip(each) {
                *total += cost;
            }
        }
        // Alone, a BS has nothing to decide but b, and that is settled.
        let strictly = totals[1] < totals[2] && totals[2] < totals[3];
        assert_eq!(strictly, stations > 1, "{totals:?}");
    }
}
