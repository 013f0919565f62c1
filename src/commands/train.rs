//! `dtwn train`: trains association agents, one `dtwn-agent` a seed, and keeps the best policy.

use std::{
    io::{BufRead, BufReader, IsTerminal, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use dtwn_model::{Plan, association::Problem, topology};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::{print_json, print_line, up::overrides_of};
use crate::{
    agent_program,
    cli::TrainArgs,
    error::{Error, Result},
    exit,
};

/// What a worker says, a line each.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Started { optimum_s: f64, average_ratio: f64 },
    Progress(Progress),
    Done { ratio: f64, episode: u32 },
}

#[derive(Debug, Clone, Deserialize)]
struct Progress {
    episode: u32,
    episodes: u32,
    reward: f64,
    ratio: Option<f64>,
    best_ratio: Option<f64>,
    steps_per_s: f64,
    updates_per_s: f64,
    wall_s: f64,
}

/// What became of a seed.
#[derive(Debug, Clone, Serialize)]
struct Trained {
    seed: u64,
    /// Mean T over that of the optimum, on the validation instances.
    validation_ratio: f64,
    /// The episode that the policy stems from.
    episode: u32,
    /// Mean T of the average policy over that of the optimum.
    average_ratio: f64,
    /// Mean T of the optimum, s.
    optimum_s: f64,
    wall_s: f64,
    #[serde(skip)]
    file: PathBuf,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    policy: &'a Path,
    seed: u64,
    seeds: &'a [Trained],
}

/// Trains every seed, as many at once as the machine has cores.
///
/// # Errors
/// For a topology that poses no problem, without `dtwn-agent`, or when a worker fails.
pub fn run(args: &TrainArgs) -> Result<u8> {
    let settings = settings_of(args);
    let loaded = topology::load(&args.topology, &overrides_of(&settings.overrides))?;
    Problem::new(&Plan::new(&loaded.topology)?).map_err(|error| Error::Usage {
        what: format!("{}: {error}", args.topology.display()),
        help: "association needs users with data, and an accuracy that their data can reach".into(),
    })?;
    let program = agent_program::require()?;
    let out = args.out.clone().unwrap_or_else(|| args.topology.with_extension("policy"));
    let jobs: Vec<Job> = (args.first_seed..args.first_seed.saturating_add(u64::from(args.seeds)))
        .map(|seed| Job { seed, file: file_of(&out, seed), settings: settings.clone() })
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let trained = train_all(&program, args, jobs, cores.min(args.jobs.unwrap_or(cores).max(1)))?;
    let best = trained.iter().min_by(|a, b| a.validation_ratio.total_cmp(&b.validation_ratio));
    let Some(best) = best else { return Ok(exit::OK) };
    std::fs::copy(&best.file, &out).map_err(Error::file("write", &out))?;
    for one in &trained {
        std::fs::remove_file(&one.file).map_err(Error::file("remove", &one.file))?;
    }
    let outcome = Outcome { policy: &out, seed: best.seed, seeds: &trained };
    match args.json {
        true => print_json(&outcome)?,
        false => print(&outcome)?,
    }
    Ok(exit::OK)
}

/// The settings over the topology file, as workers and this program take them.
#[derive(Debug, Clone)]
struct Settings {
    overrides: crate::cli::OverrideArgs,
    made_by: String,
}

fn settings_of(args: &TrainArgs) -> Settings {
    let name = args.topology.file_name().unwrap_or(args.topology.as_os_str()).to_string_lossy();
    let mut made_by = format!("dtwn train {name} --seeds {} --first-seed {}", args.seeds, args.first_seed);
    for assignment in &args.overrides.set {
        made_by.push_str(&format!(" --set {assignment}"));
    }
    let mut overrides = args.overrides.clone();
    if let Some(episodes) = args.episodes {
        made_by.push_str(&format!(" --episodes {episodes}"));
        overrides.set.push(format!("maddpg.episodes={episodes}"));
    }
    if let Some(gamma) = args.gamma {
        made_by.push_str(&format!(" --gamma {gamma}"));
        overrides.set.push(format!("maddpg.gamma={gamma:?}"));
    }
    Settings { overrides, made_by }
}

fn file_of(out: &Path, seed: u64) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".seed-{seed}"));
    out.with_file_name(name)
}

#[derive(Debug)]
struct Job {
    seed: u64,
    file: PathBuf,
    settings: Settings,
}

/// Workers take jobs until none is left; the first failure ends the rest when their turn comes.
fn train_all(program: &Path, args: &TrainArgs, jobs: Vec<Job>, at_once: usize) -> Result<Vec<Trained>> {
    let bars = MultiProgress::with_draw_target(match std::io::stderr().is_terminal() && !args.quiet {
        true => ProgressDrawTarget::stderr_with_hz(4),
        false => ProgressDrawTarget::hidden(),
    });
    let left = Mutex::new(jobs.into_iter());
    let results = Mutex::new(Vec::new());
    let next = || left.lock().ok().and_then(|mut left| left.next());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(job) = next() {
                    let outcome = train(program, args, &job, &bars);
                    let failed = outcome.is_err();
                    if let Ok(mut results) = results.lock() {
                        results.push(outcome);
                    }
                    if failed {
                        return;
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut trained = results.into_iter().collect::<Result<Vec<Trained>>>()?;
    trained.sort_by_key(|one| one.seed);
    Ok(trained)
}

/// One worker, from its start to its end.
fn train(program: &Path, args: &TrainArgs, job: &Job, bars: &MultiProgress) -> Result<Trained> {
    let mut command = Command::new(program);
    command.arg("train").arg(&args.topology).args(["--seed", &job.seed.to_string(), "--out"]).arg(&job.file);
    command.args(["--made-by", &job.settings.made_by]);
    for assignment in &job.settings.overrides.set {
        command.args(["--set", assignment]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut worker = command.spawn().map_err(Error::file("start", program))?;
    let told = follow(&mut worker, args, job.seed, bars);
    if told.is_err() {
        // Whatever it said made no sense: it must not go on unseen.
        let _ = worker.kill();
    }
    let mut complaint = String::new();
    if let Some(mut stderr) = worker.stderr.take() {
        let _ = stderr.read_to_string(&mut complaint);
    }
    let status = worker.wait().map_err(Error::file("wait for", program))?;
    match told? {
        Some(mut trained) if status.success() => {
            trained.file.clone_from(&job.file);
            Ok(trained)
        }
        _ => Err(Error::Machine {
            what: format!("training seed {} ended with {status}: {}", job.seed, complaint.trim()),
            help: "what was learned until the last checkpoint is kept: the same command goes on from it"
                .into(),
        }),
    }
}

/// Reads what a worker says until it ends; none when it ended before its time.
fn follow(worker: &mut Child, args: &TrainArgs, seed: u64, bars: &MultiProgress) -> Result<Option<Trained>> {
    let bar = bars.add(ProgressBar::new(1));
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:20} {pos}/{len} {msg} ETA {eta}") {
        bar.set_style(style);
    }
    bar.set_prefix(format!("seed {seed}"));
    let Some(stdout) = worker.stdout.take() else { return Ok(None) };
    let mut trained = None;
    let (mut optimum, mut average, mut wall) = (0.0, 0.0, 0.0);
    let mut twentieth = 0;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(Error::file("read from", "dtwn-agent"))?;
        let said: Said = serde_json::from_str(&line).map_err(|error| Error::Machine {
            what: format!("dtwn-agent said {line:?}: {error}"),
            help: "build dtwn and dtwn-agent from the same sources: `cargo build --workspace`".into(),
        })?;
        match said {
            Said::Started { optimum_s, average_ratio } => (optimum, average) = (optimum_s, average_ratio),
            Said::Progress(progress) => {
                wall = progress.wall_s;
                bar.set_length(progress.episodes.into());
                bar.set_position(progress.episode.into());
                bar.set_message(describe(&progress));
                let now = progress.episode * 20 / progress.episodes.max(1);
                if bars.is_hidden() && !args.quiet && now > twentieth {
                    twentieth = now;
                    let left_s = wall / f64::from(progress.episode.max(1))
                        * f64::from(progress.episodes - progress.episode.min(progress.episodes));
                    eprintln!(
                        "seed {seed}: {}/{} {} ETA {left_s:.0} s",
                        progress.episode,
                        progress.episodes,
                        describe(&progress)
                    );
                }
            }
            Said::Done { ratio, episode } => {
                let (average_ratio, optimum_s) = (average, optimum);
                let (file, wall_s) = (PathBuf::new(), wall);
                trained = Some(Trained {
                    seed,
                    validation_ratio: ratio,
                    episode,
                    average_ratio,
                    optimum_s,
                    wall_s,
                    file,
                });
            }
        }
    }
    bar.finish();
    Ok(trained)
}

fn describe(progress: &Progress) -> String {
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.4}"));
    format!(
        "reward {:.3}, ×optimum {} (best {}), {:.0} steps/s, {:.0} updates/s,",
        progress.reward,
        ratio(progress.ratio),
        ratio(progress.best_ratio),
        progress.steps_per_s,
        progress.updates_per_s
    )
}

fn print(outcome: &Outcome<'_>) -> Result<()> {
    for one in outcome.seeds {
        print_line(&format!(
            "seed {}: {:.4} of the optimum's {:.2} s on validation networks (average policy {:.4}), episode {}, {:.0} s",
            one.seed, one.validation_ratio, one.optimum_s, one.average_ratio, one.episode, one.wall_s
        ))?;
    }
    print_line(&format!("{}: the policy of seed {}", outcome.policy.display(), outcome.seed))
}
