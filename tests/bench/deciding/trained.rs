//! Agents trained by MADDPG: how long it takes them, and how close to the optimum they come on networks never seen.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::{Value, json};

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
        stats::{median, sorted},
    },
    policies::compare,
    topology_of,
};

/// The target: at most so far above the optimum …
const RATIO_MAX: f64 = 1.025;
/// … after at most so long a training.
const WALL_S_MAX: f64 = 300.0;
/// DESIGN: at least so much of the way from the average policy closed.
const CLOSED_MIN: f64 = 0.95;
/// DESIGN: longest decision of a deployed policy.
const DECISION_US_MAX: f64 = 1000.0;

/// A training of one seed.
#[derive(Debug)]
pub struct Trained {
    /// Its policy.
    pub policy: PathBuf,
    /// What it told of each episode.
    episodes: Vec<Value>,
}

impl Trained {
    fn of_last(&self, key: &str) -> f64 {
        self.episodes.last().and_then(|episode| episode[key].as_f64()).unwrap_or(f64::NAN)
    }

    /// The middle one of all episodes.
    pub fn median(&self, key: &str) -> f64 {
        median(self.episodes.iter().filter_map(|episode| episode[key].as_f64()).filter(|value| *value > 0.0))
    }

    /// Seconds of training until a validation was this close to the optimum; NaN if none was.
    fn time_to(&self, ratio: f64) -> f64 {
        let near = |episode: &&Value| episode["ratio"].as_f64().is_some_and(|found| found <= ratio);
        let found = self.episodes.iter().find(near).and_then(|episode| episode["wall_s"].as_f64());
        found.unwrap_or(f64::NAN)
    }
}

/// Fresh states in three sizes, the easy payload once, old states with agents trained on fresh and on old ones.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut fresh = None;
    for stations in if bench.quick { vec![5] } else { vec![5, 3, 10] } {
        let topology = topology_of(bench, stations, "twins")?;
        let trained = train(bench, &topology, &[], bench.seeds, bench.episodes)?;
        report.add(rows(bench, &format!("{stations} BSs"), &topology, &trained)?);
        fresh.get_or_insert((topology, trained));
    }
    let easy = topology_of(bench, 5, "aggregate")?;
    let trained = train(bench, &easy, &[], bench.seeds, bench.episodes)?;
    report.add(rows(bench, "5 BSs, one aggregate a BS", &easy, &trained)?);
    let Some((topology, fresh)) = fresh else { return Ok(()) };
    for staleness in if bench.quick { vec![1] } else { vec![1, 2] } {
        let set = format!("maddpg.staleness={staleness}");
        let old = train(bench, &topology, &["--set", &set], bench.seeds, bench.episodes)?;
        report.add(stale_rows(bench, &topology, staleness, &fresh, &old)?);
    }
    Ok(())
}

/// Trains these seeds, as many at once as there are cores.
pub fn train(
    bench: &Bench,
    topology: &Path,
    set: &[&str],
    seeds: u32,
    episodes: u32,
) -> Result<Vec<Trained>> {
    let name = topology.file_stem().unwrap_or_default().to_string_lossy();
    eprintln!("training {seeds} seeds for {episodes} episodes: {name} {}", set.join(" "));
    let left = Mutex::new(1..=seeds);
    let done = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let Some(seed) = left.lock().ok().and_then(|mut left| left.next()) else { return };
                    let trained = train_one(bench, topology, set, seed, episodes);
                    if let Ok(mut done) = done.lock() {
                        done.push((seed, trained));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner()?;
    done.sort_by_key(|(seed, _)| *seed);
    done.into_iter().map(|(_, trained)| trained).collect()
}

fn train_one(bench: &Bench, topology: &Path, set: &[&str], seed: u32, episodes: u32) -> Result<Trained> {
    let dir = tempfile::tempdir_in(bench.scratch.path())?.keep();
    let policy = dir.join("trained.policy");
    let mut command = Command::new(&bench.agent);
    command.arg("train").arg(topology).args(["--seed", &seed.to_string(), "--made-by", "scripts/bench"]);
    command.args(["--set", &format!("maddpg.episodes={episodes}"), "--out"]).arg(&policy).args(set);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut told = Vec::new();
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let mut line: Value = serde_json::from_str(&line?)?;
        if !line["progress"].is_null() {
            told.push(line["progress"].take());
        }
    }
    let status = child.wait()?;
    if !status.success() || told.is_empty() {
        return Err(format!("{command:?} ended with {status}").into());
    }
    Ok(Trained { policy, episodes: told })
}

/// What `dtwn compare` says of each seed's policy.
pub fn judge(bench: &Bench, topology: &Path, staleness: u32, trained: &[Trained]) -> Result<Vec<Value>> {
    let one = |trained: &Trained| -> Result<Value> {
        let found = compare(bench, topology, staleness, "average,maddpg", Some(&trained.policy))?;
        let found = found.into_iter().find(|policy| policy["policy"] == "maddpg");
        found.ok_or_else(|| "a comparison without agents".into())
    };
    trained.iter().map(one).collect()
}

/// A figure of all seeds: their mean, and the least and greatest; how many have none, where some do not.
pub fn spread(values: &[f64], digits: usize) -> String {
    let all = sorted(values.iter().copied().filter(|value| !value.is_nan()));
    if all.is_empty() {
        return "never".into();
    }
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let (low, high) = (all.first().copied().unwrap_or(mean), all.last().copied().unwrap_or(mean));
    let never = match values.len() - all.len() {
        0 => String::new(),
        count => format!("; {count} of {} never", values.len()),
    };
    format!("{mean:.digits$} ({low:.digits$} to {high:.digits$}{never})")
}

/// A figure of each policy in what `dtwn compare` says.
pub fn numbers(judged: &[Value], key: &str) -> Vec<f64> {
    judged.iter().filter_map(|policy| policy[key].as_f64()).collect()
}

fn rows(bench: &Bench, what: &str, topology: &Path, trained: &[Trained]) -> Result<Vec<Row>> {
    let judged = judge(bench, topology, 0, trained)?;
    let of = |key: &str| numbers(&judged, key);
    let all = |value: &dyn Fn(&Trained) -> f64| -> Vec<f64> { trained.iter().map(value).collect() };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (ratios, closed, p99) = (of("ratio_to_optimal"), of("gap_closed"), of("decision_us_p99"));
    let walls = all(&|one| one.of_last("wall_s"));
    let (tenth, twentieth) = (all(&|one| one.time_to(1.10)), all(&|one| one.time_to(1.05)));
    let longest = |values: &[f64]| values.iter().copied().fold(f64::NAN, f64::max);
    let curve = |one: &Trained| -> Vec<Value> {
        let point = |episode: &Value| json!([episode["wall_s"], episode["ratio"]]);
        one.episodes.iter().map(point).collect()
    };
    let figures =
        json!({ "policies": judged, "curves_wall_s_ratio": trained.iter().map(curve).collect::<Vec<_>>() });
    let row = |part: &str| Row::new("trained", Load::Idle, format!("{what}: {part}"));
    let closed_percent: Vec<f64> = closed.iter().map(|closed| 100.0 * closed).collect();
    Ok(vec![
        Row {
            measured: format!(
                "{}, {} % closed, after {} s",
                spread(&ratios, 4),
                spread(&closed_percent, 1),
                spread(&walls, 0)
            ),
            reference: format!("<= {RATIO_MAX}, >= {:.0} %, <= {WALL_S_MAX:.0} s", 100.0 * CLOSED_MIN),
            met: Some(
                mean(&ratios) <= RATIO_MAX && mean(&closed) >= CLOSED_MIN && longest(&walls) <= WALL_S_MAX,
            ),
            figures,
            ..row(&format!("over the optimum, {} seeds", trained.len()))
        },
        Row {
            measured: format!("{} s, {} s", spread(&tenth, 1), spread(&twentieth, 1)),
            reference: "-".into(),
            figures: json!({ "to_1.10_s": tenth, "to_1.05_s": twentieth }),
            ..row("training until within 10 %, 5 %")
        },
        Row {
            measured: format!(
                "{:.0} k steps/s, {:.0} updates/s",
                median(all(&|one| one.median("steps_per_s"))) / 1e3,
                median(all(&|one| one.median("updates_per_s")))
            ),
            reference: "as many at once as cores".into(),
            ..row("in training")
        },
        Row {
            measured: format!("p50 {:.0} µs, p99 {:.0} µs", median(of("decision_us_p50")), longest(&p99)),
            reference: format!("<= {DECISION_US_MAX:.0} µs"),
            met: Some(longest(&p99) <= DECISION_US_MAX),
            ..row("a decision")
        },
    ])
}

fn stale_rows(
    bench: &Bench,
    topology: &Path,
    staleness: u32,
    fresh: &[Trained],
    old: &[Trained],
) -> Result<Vec<Row>> {
    let row = |policy: &str, measured: String, figures: Value| Row {
        measured,
        reference: "the optimum of the true state".into(),
        figures,
        ..Row::new("old states", Load::Idle, format!("{policy}, 5 BSs, state {staleness} slots old"))
    };
    let plain = compare(bench, topology, staleness, "greedy,optimal", None)?;
    let mut rows: Vec<Row> = plain
        .iter()
        .filter(|policy| policy["policy"] != "optimal")
        .map(|policy| {
            let number = |key: &str| policy[key].as_f64().unwrap_or(f64::NAN);
            let text = format!("{:.4} ± {:.4}", number("ratio_to_optimal"), number("ratio_ci95"));
            row(policy["policy"].as_str().unwrap_or("?"), text, policy.clone())
        })
        .collect();
    for (name, trained) in [("agents trained on fresh states", fresh), ("agents trained on such states", old)]
    {
        let judged = judge(bench, topology, staleness, trained)?;
        let text = format!("{}, {} seeds", spread(&numbers(&judged, "ratio_to_optimal"), 4), trained.len());
        rows.push(row(name, text, Value::Array(judged)));
    }
    Ok(rows)
}
