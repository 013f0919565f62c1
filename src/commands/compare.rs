//! `dtwn compare`: association policies on the same held-out channel states.

pub mod study;

use std::path::{Path, PathBuf};

use dtwn_model::{
    Plan, Topology,
    association::{self, Geometry, Policy, Problem},
    topology::{self, PolicyName},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use study::{Settings, Study};

use super::{print_json, print_line, up::overrides_of};
use crate::{
    cli::{CompareArgs, Networks},
    error::{Error, Result},
    exit,
};

/// What is compared unless others are named: the policies that need no file.
const PLAIN: [&str; 4] = ["random", "average", "greedy", "optimal"];
/// Schema of the JSON output.
const SCHEMA: u32 = 1;

/// Compares policies.
///
/// # Errors
/// When the topology poses no problem, or a policy does not fit it.
pub fn run(args: &CompareArgs) -> Result<u8> {
    let loaded = topology::load(&args.topology, &overrides_of(&args.overrides))?;
    let plan = Plan::new(&loaded.topology)?;
    let problem = Problem::new(&plan)?;
    let mut policies = policies_of(args, &loaded.topology, &problem)?;
    if args.instances == 0 || args.staleness > study::STALENESS_MAX {
        return Err(Error::Usage {
            what: "there is nothing to compare on".into(),
            help: format!("allowed: --instances from 1, --staleness 0 to {}", study::STALENESS_MAX),
        });
    }
    let settings = Settings {
        instances: args.instances,
        seed: args.seed.unwrap_or(loaded.topology.run.seed),
        geometry: match args.networks {
            Networks::Topology => Geometry::Topology,
            Networks::Random => Geometry::Random,
        },
        staleness: args.staleness,
        // Random networks put BSs where the users of the topology have no distance from them.
        access_bps: (args.networks == Networks::Topology).then(|| plan.access_rates_bps()),
    };
    let bar = ProgressBar::new(settings.instances).with_style(style());
    let study = study::compare(&problem, &mut policies, &settings, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    if args.json {
        let mut value = serde_json::to_value(&study).map_err(|error| Error::Output(error.into()))?;
        value["schema"] = json!(SCHEMA);
        value["topology"] = json!(loaded.topology.run.name);
        print_json(&value)?;
    } else {
        print(&study, &problem)?;
    }
    Ok(exit::OK)
}

/// On standard error, and only where that is a terminal.
pub fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {pos}/{len} instances, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The policies that are asked for, or else the plain ones and the topology's own.
fn policies_of(args: &CompareArgs, topology: &Topology, problem: &Problem) -> Result<Vec<Box<dyn Policy>>> {
    let named = |name: &str| policy_of(name, args, topology, problem);
    if !args.policies.is_empty() {
        return args.policies.iter().map(|name| named(name)).collect();
    }
    let mut policies = PLAIN.iter().map(|name| named(name)).collect::<Result<Vec<_>>>()?;
    if let own @ (PolicyName::Static | PolicyName::Maddpg) = topology.association.policy {
        match named(own.as_str()) {
            Ok(policy) => policies.push(policy),
            // Nobody asked for it, and what differs from the network that it is for may be the point of the comparison.
            Err(error) => eprintln!("without {}: {error}", own.as_str()),
        }
    }
    Ok(policies)
}

/// The policy of that name for a topology.
fn policy_of(
    name: &str,
    args: &CompareArgs,
    topology: &Topology,
    problem: &Problem,
) -> Result<Box<dyn Policy>> {
    let known = PolicyName::ALL.into_iter().find(|known| known.as_str() == name);
    let chosen = known.filter(|known| *known != PolicyName::Fixed).ok_or_else(|| {
        let known: Vec<_> = PolicyName::ALL[1..].iter().map(|policy| policy.as_str()).collect();
        Error::Usage {
            what: format!("--policies {name}: there is no such policy to compare"),
            help: format!("any of {}, separated by commas", known.join(", ")),
        }
    })?;
    let file = match chosen {
        PolicyName::Static | PolicyName::Maddpg => {
            Some(file_of(args.policy_file.as_deref(), &args.topology, topology, name)?)
        }
        _ => None,
    };
    let seed = args.seed.unwrap_or(topology.run.seed);
    Ok(association::policy_of(chosen, file.as_deref(), seed, problem)?)
}

/// The file of a policy: the one named on the command line, else the topology's, which is relative to the topology's own.
fn file_of(named: Option<&Path>, topology_file: &Path, topology: &Topology, policy: &str) -> Result<PathBuf> {
    let beside = |file: &String| topology_file.parent().unwrap_or(Path::new("")).join(file);
    named.map(Path::to_path_buf).or_else(|| topology.association.file.as_ref().map(beside)).ok_or_else(|| {
        Error::Usage {
            what: format!("the policy {policy} needs its file"),
            help: "name it with --policy-file, or set `association.file` in the topology".into(),
        }
    })
}

fn print(study: &Study, problem: &Problem) -> Result<()> {
    let networks = match study.networks {
        "random" => "random networks",
        _ => "the topology's network",
    };
    print_line(&format!(
        "{} held-out states of {networks}: {} BSs, {} twins, {} subchannels, seed {}",
        study.instances, problem.stations, problem.twins, problem.subchannels, study.seed
    ))?;
    if study.staleness > 0 {
        let old = study.staleness;
        print_line(&format!("Policies see the state of {old} slots ago and are charged by the true one."))?;
    }
    print_line(&format!(
        "\n{:<14} {:>16} {:>17} {:>8} {:>14}",
        "POLICY", "T (s)", "OVER OPTIMUM", "CLOSED", "DECISION (µs)"
    ))?;
    for row in &study.policies {
        print_line(&format!(
            "{:<14} {:>8.3} ± {:>5.3} {:>8.4} ± {:>6.4} {:>6.1} % {:>14.0}",
            row.policy,
            row.mean_s,
            row.ci95_s,
            row.ratio_to_optimal,
            row.ratio_ci95,
            row.gap_closed * 100.0,
            row.decision_us_p50,
        ))?;
    }
    print_line(&format!(
        "\nThe optimum takes {:.3} s, the average policy {:.3} s; ± is the 95 % confidence interval.",
        study.optimal_s, study.average_s
    ))?;
    print_line(&format!(
        "The optimum is exact for twins of equal data; with theirs, none is more than {:.2} % better.",
        study.bound_gap * 100.0
    ))?;
    let realised = study.policies.iter().filter_map(|row| Some((row, row.realised_s?)));
    for (row, realised_s) in realised.filter(|(row, _)| row.policy.starts_with("optimal")) {
        print_line(&format!(
            "With these twins' own data, as dealt to the BSs, {} takes {realised_s:.3} s.",
            row.policy
        ))?;
    }
    Ok(())
}
