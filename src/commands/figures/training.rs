//! Fig. 7 and 8: what training costs and reaches for several discounts γ, from real trainings.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use dtwn_model::association::{Environment, Geometry, Maddpg, Policy, Problem, Split};
use serde_json::Value;

use super::draw::{Figure, Series};
use crate::error::{Error, Result};

/// The discounts of the paper's Fig. 7 and 8.
const GAMMAS: [f64; 4] = [0.5, 0.7, 0.9, 0.99];
/// Decisions that one point of Fig. 8's test curve times.
const DECISIONS: u32 = 25;

/// What trains, and how long.
pub struct Trainings<'a> {
    /// `dtwn-agent`.
    pub agent: &'a Path,
    /// The topology file.
    pub topology: &'a Path,
    /// Settings over it.
    pub set: &'a [String],
    /// Episodes of each training.
    pub episodes: u32,
    /// Trainings for each γ, from seed 1.
    pub seeds: u64,
    /// Where policies go while training.
    pub scratch: &'a Path,
}

/// One training's curves: for each episode the mean T, s, and the wall seconds it took.
struct Curve {
    total_s: Vec<f64>,
    wall_s: Vec<f64>,
}

/// Trains for every γ and seed, and draws both figures. `say` is told of each training as it begins.
///
/// # Errors
/// When a training fails; its own words are on standard error.
pub fn figures(trainings: &Trainings, problem: &Problem, mut say: impl FnMut(&str)) -> Result<[Figure; 2]> {
    let mut cost = vec![];
    let mut time = vec![];
    for gamma in GAMMAS {
        let mut average = Series::new(format!("γ = {gamma}"));
        let mut training = Series::new(format!("training, γ = {gamma}"));
        let mut test = Series::new(format!("test, γ = {gamma}"));
        for seed in 1..=trainings.seeds {
            say(&format!("training with γ = {gamma}, seed {seed} of {}", trainings.seeds));
            let policy = trainings.scratch.join(format!("gamma-{gamma}-{seed}.policy"));
            let curve = trainings.run(Some(gamma), seed, &policy)?;
            // R_n of the paper: the mean over all episodes so far, here as a cost.
            let mut sum = 0.0;
            for (episode, total_s) in curve.total_s.iter().enumerate() {
                sum += total_s;
                average.add(episode, episode as f64 + 1.0, sum / (episode as f64 + 1.0));
            }
            for (episode, wall_s) in curve.wall_s.iter().enumerate() {
                training.add(episode, episode as f64 + 1.0, *wall_s * 1e3);
            }
            for (episode, ms) in
                time_decisions(&policy, problem, seed, trainings.episodes)?.iter().enumerate()
            {
                test.add(episode, episode as f64 + 1.0, *ms);
            }
        }
        cost.push(average);
        time.extend([training, test]);
    }
    let cost = Figure {
        stem: "fig7-cost",
        title: "Cumulative average system cost in training (Fig. 7)".into(),
        x_label: "episode",
        y_label: "mean T so far (s)",
        log_y: false,
        series: cost,
    };
    let time = Figure {
        stem: "fig8-time",
        title: "Wall time of an episode in training and in test (Fig. 8)".into(),
        x_label: "episode",
        y_label: "wall time (ms)",
        log_y: true,
        series: time,
    };
    Ok([cost, time])
}

impl Trainings<'_> {
    /// The policy, with the topology's own γ, of the seed that did best on held-out networks.
    ///
    /// # Errors
    /// When a training fails.
    pub fn best(&self, mut say: impl FnMut(&str)) -> Result<Maddpg> {
        let mut best: Option<Maddpg> = None;
        for seed in 1..=self.seeds {
            say(&format!("training the policy to be shown, seed {seed} of {}", self.seeds));
            let path = self.scratch.join(format!("proposed-{seed}.policy"));
            self.run(None, seed, &path)?;
            let policy = Maddpg::load(&path)?;
            let ratio = policy.file().validation_ratio;
            if best.as_ref().is_none_or(|best| ratio < best.file().validation_ratio) {
                best = Some(policy);
            }
        }
        best.ok_or_else(|| Error::Usage { what: "no seed to train".into(), help: "at least one".into() })
    }

    fn run(&self, gamma: Option<f64>, seed: u64, policy: &Path) -> Result<Curve> {
        let failed = |what: String| Error::Machine {
            what,
            help: "its own words stand above; `dtwn-agent train` runs the training alone".into(),
        };
        let mut command = Command::new(self.agent);
        command.arg("train").arg(self.topology).arg("--out").arg(policy);
        command.args(["--seed", &seed.to_string()]);
        let episodes = format!("maddpg.episodes={}", self.episodes);
        let gamma = gamma.map(|gamma| format!("maddpg.gamma={gamma}"));
        for setting in self.set.iter().chain([&episodes]).chain(&gamma) {
            command.args(["--set", setting]);
        }
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(Error::file("start", self.agent))?;
        let mut curve = Curve { total_s: vec![], wall_s: vec![] };
        let mut before_s = 0.0;
        for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
            let line = line.map_err(Error::file("read", self.agent))?;
            let said: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            let number = |key: &str| said["progress"][key].as_f64();
            if let (Some(total_s), Some(wall_s)) = (number("total_s"), number("wall_s")) {
                curve.total_s.push(total_s);
                curve.wall_s.push(wall_s - before_s);
                before_s = wall_s;
            }
        }
        let status = child.wait().map_err(Error::file("wait for", self.agent))?;
        if !status.success() {
            return Err(failed(format!("the training with seed {seed} ended with {status}")));
        }
        if curve.total_s.is_empty() {
            return Err(failed(format!("the training with seed {seed} told of no episode")));
        }
        Ok(curve)
    }
}

/// Wall milliseconds of an episode of deployment: [`DECISIONS`] slots, a decision in each.
fn time_decisions(file: &Path, problem: &Problem, seed: u64, episodes: u32) -> Result<Vec<f64>> {
    let mut policy = Maddpg::load(file)?;
    let mut environment = Environment::new(problem, Geometry::Topology, seed, Split::Test, 0);
    (0..episodes)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..DECISIONS {
                policy.decide(problem, environment.state())?;
                environment.step();
            }
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}
