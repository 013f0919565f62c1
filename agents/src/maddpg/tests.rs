//! Trainings from end to end, on a small network.

use std::path::Path;

use dtwn_model::Plan;
use dtwn_model::association::{Mapping, Policy, Problem, Split};
use dtwn_model::topology::{Algorithm, Maddpg, Overrides, parse};

use super::training::{Progress, Training};
use super::validation::HeldOut;
use crate::Error;

/// A network of `stations` BSs ever farther from the MBS, with 100 users or a few less and the models of all twins broadcast.
pub(super) fn problem_of(stations: usize) -> Problem {
    let mut text = String::from("[radio]\nfading = \"rayleigh\"\n[cost]\npayload = \"twins\"\n");
    for i in 0..stations {
        let cpu = [2.6, 1.8, 3.6, 2.4, 2.4][i % 5];
        text.push_str(&format!(
            "\n[[bs]]\nid = \"bs{i}\"\nposition_m = [{}, 0]\ncpu_hz = \"{cpu} GHz\"\n\
             [[users]]\nid = \"ug{i}\"\ncount = {}\naround = \"bs{i}\"\n",
            150 + 60 * i,
            100 / stations
        ));
    }
    let loaded = parse("t.toml", text, &Overrides::default());
    let topology = loaded.unwrap_or_else(|e| panic!("{:?}", e.problems())).topology;
    Problem::new(&Plan::new(&topology).unwrap()).unwrap()
}

fn settings() -> Maddpg {
    Maddpg {
        environments: 16,
        slots: 10,
        batch: 64,
        episodes: 4,
        validation: 10,
        width: 8,
        refinements: 0,
        ..Maddpg::default()
    }
}

/// Trains for as long as `last` allows, then as after a kill: what was not in the checkpoint is lost.
fn train(settings: &Maddpg, checkpoint: Option<&Path>, last: u32) -> (Training, Result<(), Error>) {
    let mut training = Training::new(problem_of(3), settings.clone(), 7).unwrap();
    let result = training.run(checkpoint, |progress: &Progress| match progress.episode < last {
        true => Ok(()),
        false => Err(Error::Report(std::io::Error::other("killed"))),
    });
    (training, result)
}

#[test]
fn a_killed_training_goes_on_as_if_nothing_had_been() {
    for (algorithm, staleness) in [(Algorithm::Improved, 1), (Algorithm::Paper, 0)] {
        let settings = Maddpg { algorithm, staleness, gamma: Some(0.5), ..settings() };
        let (whole, result) = train(&settings, None, u32::MAX);
        result.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.checkpoint");
        assert!(train(&settings, Some(&path), 2).1.is_err());
        let (resumed, result) = train(&settings, Some(&path), u32::MAX);
        result.unwrap();
        let parameters = |of: &Training| of.best("a test").unwrap().file().clone();
        assert_eq!(parameters(&whole), parameters(&resumed));

        let other = Maddpg { beta: 0.5, ..settings };
        let refused = train(&other, Some(&path), u32::MAX).1.unwrap_err();
        assert!(matches!(&refused, Error::Checkpoint { .. }), "{refused}");
    }
}

#[test]
fn seeds_differ_and_repeat() {
    let of = |seed| {
        let mut training = Training::new(problem_of(3), settings(), seed).unwrap();
        training.run(None, |_| Ok(())).unwrap();
        training.best("").unwrap().file().parameters.clone()
    };
    let first = of(1);
    assert_eq!(first, of(1));
    assert_ne!(first, of(2));
}

#[test]
fn training_brings_a_policy_closer_to_the_optimum() {
    let settings = Maddpg { episodes: 40, width: 16, repairs: 2, ..settings() };
    let problem = problem_of(3);
    let mut training = Training::new(problem.clone(), settings, 1).unwrap();
    let mut rewards = Vec::new();
    training
        .run(None, |progress| {
            rewards.push(progress.reward);
            Ok(())
        })
        .unwrap();
    let mut trained = training.best("a test").unwrap();
    // What the same meaning of actions gives to agents that have learnt nothing.
    let mut untrained = {
        let mut file = trained.file().clone();
        file.parameters.fill(0.0);
        assert!(matches!(file.mapping, Mapping::Improved { refinements: 0, .. }));
        dtwn_model::association::Maddpg::new(file).unwrap()
    };
    let held_out = HeldOut::new(&problem, Split::Test, 5, (50, 0), 0).unwrap();
    let gap = |policy: &mut dyn Policy| held_out.ratio(&problem, policy).unwrap() - 1.0;
    let (before, after) = (gap(&mut untrained), gap(&mut trained));
    assert!(
        after < 0.8 * before && after > -1e-3,
        "gap {before:.4} before, {after:.4} after; rewards {rewards:?}"
    );
}
