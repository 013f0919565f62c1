//! Trained actors and the meaning of their actions.

use super::tests::problem_of;
use super::*;
use crate::topology::Payload;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MAPPINGS: [Mapping; 3] = [
    Mapping::Paper,
    Mapping::Improved { repairs: 0, refinements: 0 },
    Mapping::Improved { repairs: 8, refinements: 3 },
];

/// A policy with random parameters.
fn policy_of(problem: &Problem, network: Network, seed: u64) -> Maddpg {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (m, n, c) = (problem.stations, problem.twins, problem.subchannels);
    let count = parameter_count(network, (m, n, c), 16);
    let file = PolicyFile {
        version: FILE_VERSION,
        made_by: "a test".into(),
        seed,
        gamma: 0.0,
        episodes: 0,
        staleness: 0,
        validation_ratio: 1.0,
        fingerprint: problem.fingerprint(),
        stations: m,
        twins: n,
        subchannels: c,
        counts_twins: problem.counts_twins(),
        network,
        width: 16,
        mapping: MAPPINGS[2],
        parameters: (0..count).map(|_| rng.random_range(-0.4..0.4)).collect(),
    };
    Maddpg::new(file).unwrap()
}

fn state_of(problem: &Problem, index: u64) -> State {
    Environment::new(problem, Geometry::Random, 9, Split::Test, index).state().clone()
}

#[test]
fn any_actions_mean_something_feasible() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for (stations, payload) in [(1, Payload::Twins), (3, Payload::Aggregate), (5, Payload::Twins)] {
        let mut problem = problem_of(stations, "");
        problem.cost.payload = payload;
        for index in 0..30 {
            let mut state = state_of(&problem, index);
            if index % 3 == 0 {
                // The deepest fade there is.
                state.se.fill(0.0);
            }
            let count = stations * action_size(problem.subchannels);
            let mut actions: Vec<f32> = (0..count).map(|_| rng.random_range(-1.0..=1.0)).collect();
            actions[0] = [f32::NAN, 1.0, -1.0][index as usize % 3];
            for mapping in MAPPINGS {
                let decision = mapping.decide(&problem, &state, &actions);
                problem.check(&decision).unwrap_or_else(|e| panic!("{mapping:?}: {e}"));
            }
        }
    }
}

#[test]
fn repair_evens_out_broadcasts_and_refinement_never_harms() {
    let problem = problem_of(5, "");
    let none = vec![0.0; 5 * action_size(problem.subchannels)];
    let mut sums = [0.0; 4];
    for index in 0..40 {
        let state = state_of(&problem, index);
        let of = |repairs, refinements| {
            let decision = Mapping::Improved { repairs, refinements }.decide(&problem, &state, &none);
            problem.terms(&state, &decision).total_s()
        };
        let totals = [of(0, 0), of(8, 0), of(8, 1), of(8, 50)];
        assert!(totals[1] >= totals[2] && totals[2] >= totals[3], "{totals:?}");
        sums.iter_mut().zip(totals).for_each(|(sum, total)| *sum += total);
    }
    assert!(sums[1] < sums[0] && sums[3] < sums[1], "{sums:?}");
}

#[test]
fn swapping_two_base_stations_swaps_their_actions() {
    let problem = problem_of(4, "");
    let policy = policy_of(&problem, Network::Exchangeable, 1);
    let state = state_of(&problem, 0);
    let (c, size) = (problem.subchannels, action_size(problem.subchannels));
    let swap = |of: &mut [f64], count: usize| (0..count).for_each(|at| of.swap(at, 2 * count + at));
    let mut swapped = state.clone();
    swap(&mut swapped.se, c);
    swap(&mut swapped.cpu_hz, 1);
    let (one, other) = (policy.actions(&problem, &state), policy.actions(&problem, &swapped));
    for i in 0..4 {
        let from = [2, 1, 0, 3][i];
        for at in 0..size {
            assert!((one[i * size + at] - other[from * size + at]).abs() < 1e-5);
        }
    }
    assert_ne!(one, other);
}

#[test]
fn a_policy_survives_its_file_and_both_networks_act_within_bounds() {
    let problem = problem_of(5, "");
    for network in [Network::Exchangeable, Network::PerBs] {
        let policy = policy_of(&problem, network, 3);
        let read = Maddpg::parse("p", &policy.render().unwrap()).unwrap();
        assert_eq!(read.file(), policy.file());
        let state = state_of(&problem, 1);
        let actions = policy.actions(&problem, &state);
        assert_eq!(actions, read.actions(&problem, &state));
        assert!(
            actions.len() == 5 * action_size(problem.subchannels) && actions.iter().all(|a| a.abs() <= 1.0)
        );
        assert!(actions.iter().any(|a| *a != actions[0]));
    }
}

#[test]
fn a_policy_for_another_network_is_refused() {
    let problem = problem_of(5, "");
    let mut policy = policy_of(&problem, Network::Exchangeable, 1);
    assert!(policy.decide(&problem, &state_of(&problem, 0)).is_ok());
    let mut fewer = problem_of(3, "");
    let error = policy.decide(&fewer, &state_of(&fewer, 0)).unwrap_err();
    assert!(error.to_string().contains("5 BSs, 100 twins"), "{error}");
    fewer = problem.clone();
    fewer.twins = 99;
    assert!(matches!(policy.check(&fewer), Err(PolicyError::Misfit { .. })));
    fewer = problem.clone();
    fewer.cost.payload = Payload::Aggregate;
    assert!(policy.check(&fewer).unwrap_err().to_string().contains("cost.payload"));
}

#[test]
fn a_damaged_policy_is_refused() {
    let problem = problem_of(5, "");
    let good = policy_of(&problem, Network::Exchangeable, 1).file().clone();
    let damage: [fn(&mut PolicyFile); 5] = [
        |file| file.parameters[7] = f32::NAN,
        |file| file.parameters.truncate(100),
        |file| file.version += 1,
        |file| file.width = 0,
        |file| file.stations = 0,
    ];
    for damage in damage {
        let mut file = good.clone();
        damage(&mut file);
        assert!(matches!(Maddpg::new(file), Err(PolicyError::Misfit { .. })));
    }
    assert!(
        matches!(Maddpg::parse("p.policy", "{}"), Err(PolicyError::File { file, .. }) if file == "p.policy")
    );
}
