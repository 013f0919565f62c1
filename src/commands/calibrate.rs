//! `dtwn calibrate`: trains on several fractions of the twins' samples, and fits the accuracy that they buy.

use std::{
    io::{BufRead, BufReader, IsTerminal, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use dtwn_model::{
    Plan,
    calibration::{Fit, Point, fit},
    cost::samples_needed,
    topology::{self, Cost},
};
use dtwn_node::learning::learner::weights;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::{print_json, print_line, up::overrides_of};
use crate::{
    agent_program,
    cli::{CalibrateArgs, OverrideArgs},
    error::{Error, Result},
    exit,
};

/// Schema of the JSON output.
const SCHEMA: u32 = 1;
/// Fractions from `cost.b_min` to `cost.b_max` where none are named.
const FRACTIONS: u32 = 4;
/// With `--quick`: the fewest that a curve can be drawn through.
const QUICK_FRACTIONS: u32 = 3;
const QUICK_ROUNDS: u64 = 2;

/// What `dtwn-agent train-federated --json` says of a round.
#[derive(Debug, Deserialize)]
struct Said {
    round: u64,
    dataset: String,
    test_accuracy: Option<f64>,
}

/// A training of the sweep.
#[derive(Debug, Clone)]
struct Job {
    fraction: f64,
    seed: u64,
    /// Σ b·D.
    samples: f64,
}

/// What it reached.
#[derive(Debug, Clone, Serialize)]
struct Trained {
    /// b.
    fraction: f64,
    seed: u64,
    /// Σ b·D of all twins.
    samples: f64,
    /// Of the global model after the last round.
    accuracy: f64,
    /// After each round, the untrained model first.
    accuracy_by_round: Vec<f64>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    schema: u32,
    topology: PathBuf,
    dataset: String,
    rounds: u64,
    quick: bool,
    fit: Fit,
    /// Samples a round that the fitted curve needs for `cost.theta_th`, and those that all twins hold.
    samples_needed: f64,
    samples_held: f64,
    trainings: Vec<Trained>,
}

/// Runs the sweep, as many trainings at once as the machine has cores.
///
/// # Errors
/// For a topology that cannot be planned, fractions that are none, without `dtwn-agent`, when a training fails, or when no curve fits.
pub fn run(args: &CalibrateArgs) -> Result<u8> {
    let loaded = topology::load(&args.topology, &overrides_of(&args.overrides))?;
    let topology = loaded.topology;
    let fractions = fractions(args, &topology.cost)?;
    let (rounds, seeds) = match args.quick {
        true => (args.rounds.unwrap_or(QUICK_ROUNDS), args.seeds.unwrap_or(1)),
        false => (args.rounds.unwrap_or(10), args.seeds.unwrap_or(3)),
    };
    let mut jobs = Vec::new();
    for fraction in &fractions {
        let mut topology = topology.clone();
        topology.learning.fraction = *fraction;
        let first = topology.run.seed;
        for seed in first..first + seeds {
            // It deals the samples, too.
            topology.run.seed = seed;
            let samples = weights(&Plan::new(&topology)?).iter().sum();
            jobs.push(Job { fraction: *fraction, seed, samples });
        }
    }
    let mut whole = topology.clone();
    whole.learning.fraction = 1.0;
    let samples_held = weights(&Plan::new(&whole)?).iter().sum();
    let program = agent_program::require()?;
    let (dataset, trainings) = train_all(&program, args, jobs, rounds)?;
    let points: Vec<Point> =
        trainings.iter().map(|one| Point { samples: one.samples, accuracy: one.accuracy }).collect();
    let fit = fit(&points).map_err(|error| Error::Machine {
        what: format!("no curve fits: {error}"),
        help: "--rounds, --seeds and --fractions say what is trained; --json shows each training once a curve fits".into(),
    })?;
    let cost = Cost { theta_a: fit.theta_a, theta_p: fit.theta_p, ..topology.cost };
    let outcome = Outcome {
        schema: SCHEMA,
        topology: args.topology.clone(),
        dataset,
        rounds,
        quick: args.quick,
        fit,
        samples_needed: samples_needed(&cost),
        samples_held,
        trainings,
    };
    match args.json {
        true => print_json(&outcome)?,
        false => print(&outcome, &cost)?,
    }
    Ok(exit::OK)
}

/// What is trained on: as named, or evenly spaced in the logarithm over what associations may choose.
fn fractions(args: &CalibrateArgs, cost: &Cost) -> Result<Vec<f64>> {
    if let Some(wrong) = args.fractions.iter().find(|fraction| !(**fraction > 0.0 && **fraction <= 1.0)) {
        return Err(Error::Usage {
            what: format!("{wrong} is no fraction of a twin's samples"),
            help: "fractions are above 0, up to 1: `--fractions 0.1,0.2,0.4`".into(),
        });
    }
    if !args.fractions.is_empty() {
        return Ok(args.fractions.clone());
    }
    let count = if args.quick { QUICK_FRACTIONS } else { FRACTIONS };
    // Where associations have no choice, there is a curve all the same.
    let low = if cost.b_max > cost.b_min { cost.b_min } else { cost.b_max / 4.0 };
    let step = (cost.b_max / low).ln() / f64::from(count - 1);
    Ok((0..count).map(|i| (low.ln() + step * f64::from(i)).exp().min(1.0)).collect())
}

/// Trains all, and says what on.
fn train_all(
    program: &Path,
    args: &CalibrateArgs,
    mut jobs: Vec<Job>,
    rounds: u64,
) -> Result<(String, Vec<Trained>)> {
    // The longest first, so that the cores are done at about the same time.
    jobs.sort_by(|a, b| b.samples.total_cmp(&a.samples));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let at_once = args.jobs.unwrap_or(cores).clamp(1, jobs.len().max(1));
    let bar = progress(args, &jobs, rounds);
    let left = Mutex::new(jobs.into_iter());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(job) = next else { return };
                    let outcome = train(program, &args.topology, &args.overrides, &job, rounds, &bar);
                    tell(&bar, args, outcome.as_ref().ok());
                    let failed = outcome.is_err();
                    results.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                    if failed {
                        return;
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let trained = results.into_iter().collect::<Result<Vec<(String, Trained)>>>()?;
    let dataset = trained.first().map(|(dataset, _)| dataset.clone()).unwrap_or_default();
    let mut trained: Vec<Trained> = trained.into_iter().map(|(_, one)| one).collect();
    trained.sort_by(|a, b| a.fraction.total_cmp(&b.fraction).then(a.seed.cmp(&b.seed)));
    Ok((dataset, trained))
}

/// Counts samples rather than rounds, so that the time left is about right.
fn progress(args: &CalibrateArgs, jobs: &[Job], rounds: u64) -> ProgressBar {
    let all: f64 = jobs.iter().map(|job| job.samples * rounds as f64).sum();
    let bar = ProgressBar::with_draw_target(
        Some(all as u64),
        match std::io::stderr().is_terminal() && !args.quiet {
            true => ProgressDrawTarget::stderr_with_hz(4),
            false => ProgressDrawTarget::hidden(),
        },
    );
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {percent} % {msg} ETA {eta}") {
        bar.set_style(style);
    }
    bar
}

/// A line a training.
fn tell(bar: &ProgressBar, args: &CalibrateArgs, outcome: Option<&(String, Trained)>) {
    let Some((_, one)) = outcome.filter(|_| !args.quiet) else { return };
    let line = format!("b {:.3}, seed {}: {:.2} %", one.fraction, one.seed, 100.0 * one.accuracy);
    match bar.is_hidden() {
        true => eprintln!("{line}"),
        false => bar.println(line),
    }
}

/// One training, from its start to its end.
fn train(
    program: &Path,
    topology: &Path,
    overrides: &OverrideArgs,
    job: &Job,
    rounds: u64,
    bar: &ProgressBar,
) -> Result<(String, Trained)> {
    let mut command = Command::new(program);
    command.arg("train-federated").arg(topology);
    command.args(["--json", "--jobs", "1", "--rounds", &rounds.to_string()]);
    let own = [format!("learning.fraction={}", job.fraction), format!("run.seed={}", job.seed)];
    for assignment in overrides.set.iter().chain(&own) {
        command.args(["--set", assignment]);
    }
    // It would otherwise start itself again with these.
    command.envs(dtwn_node::learning::ENVIRONMENT);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut worker = command.spawn().map_err(Error::file("start", program))?;
    // Beside its words: it waits where nobody takes its complaints.
    let stderr = worker.stderr.take();
    let complaint = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.map(|mut stderr| stderr.read_to_string(&mut text));
        text
    });
    let (mut dataset, mut accuracies) = (String::new(), Vec::new());
    for line in worker.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(Error::file("read from", "dtwn-agent"))?;
        // A worker whose words make no sense has failed; its status and complaint tell.
        let Ok(said) = serde_json::from_str::<Said>(&line) else { break };
        if said.round > 0 {
            bar.inc(job.samples as u64);
        }
        dataset = said.dataset;
        accuracies.extend(said.test_accuracy);
    }
    let status = worker.wait().map_err(Error::file("wait for", program))?;
    let complaint = complaint.join().unwrap_or_default();
    match accuracies.last() {
        Some(&accuracy) if status.success() && accuracies.len() as u64 == rounds + 1 => {
            let Job { fraction, seed, samples } = *job;
            Ok((dataset, Trained { fraction, seed, samples, accuracy, accuracy_by_round: accuracies }))
        }
        _ => Err(Error::Machine {
            what: format!(
                "the training with b = {} and seed {} ended with {status}: {}",
                job.fraction,
                job.seed,
                complaint.trim()
            ),
            help: "`dtwn-agent train-federated` runs it alone".into(),
        }),
    }
}

fn print(outcome: &Outcome, cost: &Cost) -> Result<()> {
    let Outcome { fit, rounds, dataset, trainings, .. } = outcome;
    print_line(&format!("{dataset} data, accuracy on the test set after {rounds} rounds"))?;
    print_line(&format!(
        "{:>7} {:>12} {:>20} {:>9}",
        "b", "samples a round", "accuracy (min…max)", "fitted"
    ))?;
    for group in trainings.chunk_by(|a, b| a.fraction.total_cmp(&b.fraction).is_eq()) {
        let reached: Vec<f64> = group.iter().map(|one| 100.0 * one.accuracy).collect();
        let mean = reached.iter().sum::<f64>() / reached.len() as f64;
        let (low, high) = reached.iter().fold((f64::MAX, f64::MIN), |(l, h), a| (l.min(*a), h.max(*a)));
        let samples = group.iter().map(|one| one.samples).sum::<f64>() / group.len() as f64;
        print_line(&format!(
            "{:>7.3} {samples:>15.0} {:>20} {:>7.2} %",
            group[0].fraction,
            format!("{mean:.2} % ({low:.2}…{high:.2})"),
            100.0 * fit.accuracy(samples),
        ))?;
    }
    print_line(&format!(
        "\n1 − a·B^(−p), B = samples a round: a = {:.4} ± {:.4}, p = {:.4} ± {:.4} (standard errors, {} trainings); \
         residual {:.2} points, R² {:.3}",
        fit.theta_a,
        fit.theta_a_error,
        fit.theta_p,
        fit.theta_p_error,
        trainings.len(),
        100.0 * fit.residual,
        fit.r_squared,
    ))?;
    let (needed, held) = (outcome.samples_needed, outcome.samples_held);
    let reach = cost.b_max * held;
    print_line(&format!(
        "cost.theta_th = {} then takes {needed:.0} samples a round, of {held:.0} held{}",
        cost.theta_th,
        if needed > reach {
            format!("; at most b_max = {} of them are trained on, so lower theta_th", cost.b_max)
        } else {
            String::new()
        }
    ))?;
    if outcome.quick {
        print_line("Quick: to see that it works, not for figures.")?;
    }
    print_line(&format!("\n[cost]\ntheta_a = {:.4}\ntheta_p = {:.4}", fit.theta_a, fit.theta_p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(fractions: &[f64], quick: bool) -> CalibrateArgs {
        CalibrateArgs {
            topology: "t.toml".into(),
            fractions: fractions.to_vec(),
            rounds: None,
            seeds: None,
            jobs: None,
            quick,
            quiet: true,
            json: false,
            overrides: OverrideArgs::default(),
        }
    }

    #[test]
    fn fractions_span_what_associations_may_choose() {
        let cost = Cost { b_min: 0.1, b_max: 0.8, ..Cost::default() };
        let all = fractions(&args(&[], false), &cost).unwrap();
        for (got, wanted) in all.iter().zip([0.1, 0.2, 0.4, 0.8]) {
            assert!((got - wanted).abs() < 1e-12, "{all:?}");
        }
        assert_eq!((all.len(), fractions(&args(&[], true), &cost).unwrap().len()), (4, 3));
        let fixed = Cost { b_min: 0.4, b_max: 0.4, ..cost.clone() };
        assert!((fractions(&args(&[], false), &fixed).unwrap()[0] - 0.1).abs() < 1e-12);
        assert_eq!(fractions(&args(&[0.3, 0.5], false), &cost).unwrap(), [0.3, 0.5]);
        for wrong in [0.0, 1.5, f64::NAN] {
            let error = fractions(&args(&[0.3, wrong], false), &cost).unwrap_err();
            assert!(error.to_string().contains("no fraction"), "{error}");
        }
    }
}
