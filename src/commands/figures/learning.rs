//! Fig. 6: the loss of real federated training under the proposed association, with all data in every round, and under a random
//! association; by round, and by the time that Eq. 17 gives rounds.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use dtwn_model::{
    Plan,
    association::{Average, Decision, Environment, Geometry, Policy, Problem, Random, Split, deal},
};
use serde_json::Value;

use super::draw::{Figure, Series};
use crate::error::{Error, Result};

/// What trains, and how long.
pub struct Rounds<'a> {
    /// `dtwn-agent`.
    pub agent: &'a Path,
    /// The topology file.
    pub topology: &'a Path,
    /// Settings over it.
    pub set: &'a [String],
    /// Rounds of each training.
    pub rounds: u64,
    /// Trainings for each line, from the topology's seed.
    pub seeds: u64,
    /// The part of the samples that anything trains on, for a quick look; 1 for all that is decided.
    pub part: f64,
    /// Where schedules go.
    pub scratch: &'a Path,
}

/// A training by rounds, the untrained model first.
struct Curve {
    dataset: String,
    loss: Vec<f64>,
    accuracy: Vec<f64>,
}

/// What decides.
enum Chooser<'a> {
    Policy(&'a mut dyn Policy),
    /// b = 1 for all and an equal K, whatever b_max is.
    AllData,
}

impl Chooser<'_> {
    fn decide(&mut self, problem: &Problem, environment: &Environment) -> Result<Decision> {
        Ok(match self {
            Self::Policy(policy) => policy.decide(problem, environment.state())?,
            Self::AllData => {
                let average = Average.decide(problem, environment.state())?;
                Decision { b: vec![1.0; problem.stations], ..average }
            }
        })
    }
}

/// Trains, and draws loss and accuracy by round, and loss by time. `say` is told of each training as it begins.
///
/// # Errors
/// When a decision cannot be made, or a training fails; its own words are on standard error.
pub fn figures(
    rounds: &Rounds,
    plan: &Plan,
    problem: &Problem,
    proposed: &mut dyn Policy,
    mut say: impl FnMut(&str),
) -> Result<[Figure; 3]> {
    let names = [format!("proposed ({})", proposed.name()), "all data".into(), "random association".into()];
    let mut by_round = names.clone().map(Series::new);
    let mut accuracy = names.clone().map(Series::new);
    let mut by_time = names.clone().map(Series::new);
    let mut dataset = String::new();
    for seed in (plan.topology().run.seed..).take(usize::try_from(rounds.seeds).unwrap_or(1)) {
        let mut random = Random::new(seed);
        let choosers = [Chooser::Policy(&mut *proposed), Chooser::AllData, Chooser::Policy(&mut random)];
        for (line, mut chooser) in choosers.into_iter().enumerate() {
            say(&format!("{}, seed {seed}", names[line]));
            let (schedule, times_s) = schedule(rounds, plan, problem, &mut chooser, seed)?;
            let path = rounds.scratch.join(format!("schedule-{line}-{seed}.json"));
            fs::write(&path, schedule.to_string()).map_err(Error::file("write", &path))?;
            let curve = rounds.train(&path, seed)?;
            for (round, (loss, right)) in curve.loss.iter().zip(&curve.accuracy).enumerate() {
                by_round[line].add(round, round as f64, *loss);
                accuracy[line].add(round, round as f64, 100.0 * right);
                by_time[line].add_with_mean_x(round, times_s[round], *loss);
            }
            dataset = curve.dataset;
        }
    }
    let figure = |stem, title: &str, x_label, y_label, series: [Series; 3]| Figure {
        stem,
        title: format!("{title} (Fig. 6; {dataset} data)"),
        x_label,
        y_label,
        log_y: false,
        series: series.into(),
    };
    Ok([
        figure("fig6-loss", "Loss on the test set", "round", "cross-entropy (nats)", by_round),
        figure("fig6-accuracy", "Accuracy on the test set", "round", "right answers (%)", accuracy),
        figure(
            "fig6-loss-by-time",
            "Loss on the test set",
            "T of Eq. 17 so far (s)",
            "cross-entropy (nats)",
            by_time,
        ),
    ])
}

/// For each round the part of its samples that each user's twin trains on, and T of Eq. 17 until its end, from 0.
fn schedule(
    rounds: &Rounds,
    plan: &Plan,
    problem: &Problem,
    chooser: &mut Chooser,
    seed: u64,
) -> Result<(Value, Vec<f64>)> {
    // All lines of a seed see the same channels.
    let mut environment = Environment::new(problem, Geometry::Topology, seed, Split::Test, 0);
    let (mut schedule, mut times_s) = (Vec::new(), vec![0.0]);
    for _ in 0..rounds.rounds {
        let decision = chooser.decide(problem, &environment)?;
        let dealt = deal(plan, &decision.k).map_err(|error| Error::Usage {
            what: format!("no twins can be dealt: {error}"),
            help: "figure 6 takes networks of at most 2,000 users".into(),
        })?;
        let (b, total_s) = match chooser {
            Chooser::AllData => {
                let total_s = problem.terms(environment.state(), &decision).total_s();
                (decision.b.clone(), total_s)
            }
            Chooser::Policy(_) => {
                let real = problem.realise(environment.state(), &decision, &dealt);
                (real.b, real.terms.total_s())
            }
        };
        let of = |user| dealt.serving(user).and_then(|bs| b.get(bs.index())).copied().unwrap_or(0.0);
        let fractions: Vec<f64> =
            plan.users().map(|user| (of(user.id) * rounds.part).clamp(0.0, 1.0)).collect();
        schedule.push(Value::from(fractions));
        times_s.push(times_s.last().copied().unwrap_or(0.0) + total_s);
        environment.set_k(&decision.k);
        environment.step();
    }
    Ok((Value::from(schedule), times_s))
}

impl Rounds<'_> {
    fn train(&self, schedule: &Path, seed: u64) -> Result<Curve> {
        let mut command = Command::new(self.agent);
        command.arg("train-federated").arg(self.topology).args([
            "--json",
            "--rounds",
            &self.rounds.to_string(),
        ]);
        command.arg("--schedule").arg(schedule).args(["--set", &format!("run.seed={seed}")]);
        for setting in self.set {
            command.args(["--set", setting]);
        }
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(Error::file("start", self.agent))?;
        let mut curve = Curve { dataset: String::new(), loss: vec![], accuracy: vec![] };
        for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
            let line = line.map_err(Error::file("read", self.agent))?;
            let said: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            if let (Some(loss), Some(accuracy)) = (said["test_loss"].as_f64(), said["test_accuracy"].as_f64())
            {
                curve.loss.push(loss);
                curve.accuracy.push(accuracy);
                curve.dataset = said["dataset"].as_str().unwrap_or("?").to_owned();
            }
        }
        let status = child.wait().map_err(Error::file("wait for", self.agent))?;
        if !status.success() || curve.loss.len() as u64 != self.rounds + 1 {
            return Err(Error::Machine {
                what: format!(
                    "the training with seed {seed} ended with {status} after {} of {} models",
                    curve.loss.len(),
                    self.rounds + 1
                ),
                help: "its own words stand above; `dtwn-agent train-federated` runs the training alone"
                    .into(),
            });
        }
        Ok(curve)
    }
}
