//! `dtwn figures`: the data and plots of the paper's figures.

pub mod draw;
mod learning;
mod training;

use std::{fs, path::Path};

use draw::{Figure, Series};
use dtwn_model::{
    Plan,
    association::{Average, Environment, Geometry, Greedy, Maddpg, Optimal, Policy, Problem, Random, Split},
    topology,
};
use learning::Rounds;
use training::Trainings;

use super::{print_line, up::overrides_of};
use crate::{
    agent_program,
    cli::FiguresArgs,
    error::{Error, Result},
    exit,
};

/// How much work a set of figures is.
struct Effort {
    /// Fig. 5.
    rounds: u64,
    networks: u64,
    /// Fig. 7 and 8, and the policy of Fig. 5 and 6.
    episodes: u32,
    trainings: u64,
    /// Fig. 6: rounds and seeds, and the part of the samples.
    learning_rounds: u64,
    learning_seeds: u64,
    part: f64,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 100,
        networks: 20,
        episodes: 100,
        trainings: 3,
        learning_rounds: 10,
        learning_seeds: 2,
        part: 1.0,
    };
    /// Enough to see that everything works.
    const QUICK: Self = Self {
        rounds: 10,
        networks: 3,
        episodes: 3,
        trainings: 1,
        learning_rounds: 2,
        learning_seeds: 2,
        part: 0.05,
    };
}

/// Writes the figures.
///
/// # Errors
/// When the topology poses no problem, a training fails, or a file cannot be written.
pub fn run(args: &FiguresArgs) -> Result<u8> {
    if let Some(wrong) = args.only.iter().find(|figure| !(5..=8).contains(*figure)) {
        return Err(Error::Usage {
            what: format!("--only {wrong}: there is no such figure to make"),
            help: "5 (system time), 6 (loss), 7 (cost in training) and 8 (time of an iteration)".into(),
        });
    }
    let mut overrides = overrides_of(&args.overrides);
    // The paper's figures count the models of all twins (Eq. 15).
    overrides.flag("figures", "cost.payload", "twins");
    let loaded = topology::load(&args.topology, &overrides)?;
    let plan = Plan::new(&loaded.topology)?;
    let problem = Problem::new(&plan)?;
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let scratch = args.out.join("policies");
    fs::create_dir_all(&scratch).map_err(Error::file("create", &scratch))?;
    let mut set = args.overrides.set.clone();
    set.push("cost.payload=twins".into());
    let wants = |figures: &[u32]| args.only.iter().any(|figure| figures.contains(figure));
    // Figure 5 alone, at a quick look, does without training.
    let trains = wants(&[6, 7, 8]) || (wants(&[5]) && !args.quick && args.policy_file.is_none());
    let agent = if trains { Some(agent_program::require()?) } else { None };
    let trainings = agent.as_deref().map(|agent| Trainings {
        agent,
        topology: &args.topology,
        set: &set,
        episodes: effort.episodes,
        seeds: effort.trainings,
        scratch: &scratch,
    });
    let mut policy = args.policy_file.as_deref().map(Maddpg::load).transpose()?;
    if let (None, Some(trainings), true, false) = (&policy, &trainings, wants(&[5, 6]), args.quick) {
        policy = Some(trainings.best(say)?);
    }
    if let Some(policy) = &policy {
        policy.check(&problem)?;
    }

    if wants(&[6])
        && let Some(agent) = &agent
    {
        let rounds = Rounds {
            agent,
            topology: &args.topology,
            set: &set,
            rounds: effort.learning_rounds,
            seeds: effort.learning_seeds,
            part: effort.part,
            scratch: &scratch,
        };
        let mut proposed: Box<dyn Policy> = match &policy {
            Some(policy) => Box::new(policy.clone()),
            None => Box::new(Greedy),
        };
        for figure in learning::figures(&rounds, &plan, &problem, &mut *proposed, say)? {
            write(&figure, &args.out)?;
        }
    }
    if wants(&[5]) {
        write(&system_time(&problem, policy, &effort)?, &args.out)?;
    }
    if let (Some(trainings), true) = (&trainings, wants(&[7, 8])) {
        let both = training::figures(trainings, &problem, say)?;
        for figure in both.iter().filter(|f| args.only.iter().any(|n| f.stem.starts_with(&format!("fig{n}"))))
        {
            write(figure, &args.out)?;
        }
    }
    Ok(exit::OK)
}

fn say(text: &str) {
    eprintln!("{text}");
}

fn write(figure: &Figure, dir: &Path) -> Result<()> {
    figure.write(dir)?;
    let path = dir.join(figure.stem);
    print_line(&format!("{0}.svg\n{0}.csv", path.display()))
}

/// Fig. 5: T of each round under each policy on the topology's network, over independent channels.
fn system_time(problem: &Problem, trained: Option<Maddpg>, effort: &Effort) -> Result<Figure> {
    let mut policies: Vec<Box<dyn Policy>> =
        vec![Box::new(Random::new(1)), Box::new(Average), Box::new(Greedy), Box::new(Optimal)];
    if let Some(policy) = trained {
        policies.insert(3, Box::new(policy));
    }
    let mut series: Vec<Series> = policies.iter().map(|policy| Series::new(policy.name())).collect();
    for index in 0..effort.networks {
        let mut environment = Environment::new(problem, Geometry::Topology, 1, Split::Test, index);
        for round in 0..effort.rounds {
            for (policy, series) in policies.iter_mut().zip(&mut series) {
                let decision = policy.decide(problem, environment.state())?;
                let total_s = problem.terms(environment.state(), &decision).total_s();
                series.add(round as usize, round as f64 + 1.0, total_s);
            }
            environment.step();
        }
    }
    Ok(Figure {
        stem: "fig5-system-time",
        title: "System time of each round (Fig. 5)".into(),
        x_label: "round",
        y_label: "T of Eq. 17 (s)",
        log_y: false,
        series,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_time_of_a_quick_run_keeps_the_order_of_policies() {
        let text = include_str!("../../topologies/paper.toml").to_owned();
        let mut overrides = dtwn_model::Overrides::default();
        overrides.set("cost.payload=twins");
        let loaded = topology::parse("t", text, &overrides).unwrap();
        let problem = Problem::new(&Plan::new(&loaded.topology).unwrap()).unwrap();
        let figure = system_time(&problem, None, &Effort::QUICK).unwrap();
        let names: Vec<&str> = figure.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["random", "average", "greedy", "optimal"]);
        let mean = |series: &Series| -> f64 { series.points.iter().flat_map(|(_, values)| values).sum() };
        assert!(figure.series.windows(2).all(|pair| mean(&pair[0]) > mean(&pair[1])));
        assert!(figure.series.iter().all(|s| s.points.len() == 10 && s.points[9].1.len() == 3));
    }
}
