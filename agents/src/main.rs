//! `dtwn-agent`: the torch side of dtwn as a program. `dtwn` starts it where a node learns; people use `selftest`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dtwn_agents::learner;
use dtwn_agents::maddpg::worker;
use dtwn_agents::runtime::{self, DeviceChoice};
use dtwn_agents::selftest::{self, Outcome};
use dtwn_agents::{Error, TORCH_VERSION, loops, rounds};
use serde::Serialize;

/// Exit status when the work failed: libtorch refused, the device is missing, or the loss did not fall. Wrong arguments
/// give 2.
const EXIT_FAILED: u8 = 1;

#[derive(Parser)]
#[command(name = "dtwn-agent", version, about = "The torch side of dtwn: trains the base stations' models")]
struct Arguments {
    #[command(subcommand)]
    command: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Run the node that the session on standard input names
    #[command(hide = true)]
    Node {
        /// The node, so that process lists tell agents apart; what counts is told over the socket
        node: String,
    },
    /// Train the CNN for some steps on synthetic data and print how it went
    Selftest(SelftestArguments),
    /// Train association agents for a topology; `dtwn train` starts this and shows its progress
    Train(TrainArguments),
    /// Train by the rounds of a topology, without its network: the models of `dtwn up`, as fast as this machine goes
    TrainFederated(FederatedArguments),
    /// Train one model on the samples of all users together: what federated learning is measured against
    TrainCentral(CentralArguments),
    /// Measure how fast a base station trains beside the bare loop
    #[command(hide = true)]
    Loops {
        #[command(flatten)]
        network: NetworkArguments,
        /// Rounds of the base station
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        turns: u32,
        /// Threads that one operation may use
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1024))]
        threads: i32,
    },
    /// Print the versions of this program and of libtorch, and whether CUDA is there
    Version {
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct SelftestArguments {
    /// Minibatches to train on
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Samples in a minibatch
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Threads that one operation may use
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1024))]
    threads: i32,
    /// Seed of the initial parameters and of the data
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to train
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct TrainArguments {
    /// The topology file; its section "maddpg" says how
    topology: PathBuf,
    /// Set a key of the topology
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of networks, noise and minibatches
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the policy goes; a checkpoint stands beside it until training is done
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What the policy file says about how it was made
    #[arg(long, default_value = "dtwn-agent train")]
    made_by: String,
    /// Threads that one operation may use
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1024))]
    threads: i32,
}

/// Whose samples are trained on, and how.
#[derive(clap::Args)]
struct NetworkArguments {
    /// The topology file: its users hold the samples, its section "learning" says how to train, "run.seed" decides all chance
    topology: PathBuf,
    /// Set a key of the topology, for example learning.data=/data/cifar-10
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// For how long, and how it is told.
#[derive(clap::Args)]
struct RoundArguments {
    #[command(flatten)]
    network: NetworkArguments,
    /// How many rounds
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rounds: u64,
    /// Print a line of JSON a round
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct FederatedArguments {
    #[command(flatten)]
    rounds: RoundArguments,
    /// Base stations that train at the same time, on a thread each; all cores by default. The models do not depend on it
    #[arg(long, value_name = "COUNT")]
    jobs: Option<usize>,
    /// Which part of its samples each user's twin trains on, in place of learning.fraction: JSON, a list of rounds, each a list of
    /// numbers from 0 to 1 in order of the users
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
}

#[derive(clap::Args)]
struct CentralArguments {
    #[command(flatten)]
    rounds: RoundArguments,
    /// Threads that one operation may use; the model depends on it in its last bits
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1024))]
    threads: i32,
}

/// What `version --json` says; the session compares it with its own version before it starts a learning node.
#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    torch_version: &'static str,
    cuda: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.command) {
        Ok(status) => status,
        // The reader has gone, as in `dtwn-agent selftest | head -1`: nobody is left to tell.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::from(EXIT_FAILED)
        }
        Err(failure) => {
            eprintln!("dtwn-agent: {failure}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Agent(#[from] Error),
    #[error(transparent)]
    Node(#[from] dtwn_node::agent::AgentError),
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write the result: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot start again with the environment that training needs: {error}")]
    Restart { error: io::Error },
}

fn run(job: &Job) -> Result<ExitCode, Failure> {
    match job {
        Job::Version { json } => {
            let cuda = tch::Cuda::is_available();
            let version = Version {
                name: "dtwn-agent",
                version: env!("CARGO_PKG_VERSION"),
                torch_version: TORCH_VERSION,
                cuda,
            };
            if *json {
                writeln!(io::stdout(), "{}", serde_json::to_string(&version)?)?;
            } else {
                let cuda = if cuda { "with" } else { "without" };
                writeln!(
                    io::stdout(),
                    "dtwn-agent {}, libtorch {TORCH_VERSION} {cuda} CUDA",
                    version.version
                )?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Job::Selftest(arguments) => selftest(arguments),
        Job::Train(arguments) => train(arguments),
        Job::TrainFederated(arguments) => federated(arguments),
        Job::TrainCentral(arguments) => central(arguments),
        Job::Loops { network, turns, threads } => {
            prepare(*threads)?;
            let outcome = loops::compare(&rounds::plan_of(&network.topology, &network.set)?, *turns)?;
            writeln!(io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Job::Node { .. } => {
            dtwn_node::logging::start();
            // A base station's share of the machine is one thread.
            runtime::set_threads(1)?;
            dtwn_node::agent::run("dtwn-agent", Some(learner::make))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn train(arguments: &TrainArguments) -> Result<ExitCode, Failure> {
    runtime::set_threads(arguments.threads)?;
    let TrainArguments { topology, set, seed, out, made_by, .. } = arguments;
    let (topology, set, out, made_by) = (topology.clone(), set.clone(), out.clone(), made_by.clone());
    let job = worker::Job { topology, set, seed: *seed, out, made_by };
    worker::run(&job, |said| {
        let line = serde_json::to_string(said).map_err(|error| Error::Report(error.into()))?;
        writeln!(io::stdout(), "{line}").map_err(Error::Report)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The environment and the threads of a process that trains.
fn prepare(threads: i32) -> Result<(), Failure> {
    runtime::ensure_environment().map_err(|error| Failure::Restart { error })?;
    Ok(runtime::set_threads(threads)?)
}

fn federated(arguments: &FederatedArguments) -> Result<ExitCode, Failure> {
    // As in a base station, whose share of the machine is one thread.
    prepare(1)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let json = arguments.rounds.json;
    let (at_once, schedule) = (arguments.jobs.unwrap_or(cores), arguments.schedule.as_deref());
    rounds::federated(&job_of(&arguments.rounds), at_once, schedule, |said| print_round(said, json))?;
    Ok(ExitCode::SUCCESS)
}

fn central(arguments: &CentralArguments) -> Result<ExitCode, Failure> {
    prepare(arguments.threads)?;
    let json = arguments.rounds.json;
    rounds::central(&job_of(&arguments.rounds), |said| print_round(said, json))?;
    Ok(ExitCode::SUCCESS)
}

fn job_of(arguments: &RoundArguments) -> rounds::Job {
    let NetworkArguments { topology, set } = &arguments.network;
    rounds::Job { topology: topology.clone(), set: set.clone(), rounds: arguments.rounds }
}

fn print_round(said: &rounds::Said, json: bool) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    if json {
        let line = serde_json::to_string(said).map_err(|error| Error::Report(error.into()))?;
        return writeln!(out, "{line}").map_err(Error::Report);
    }
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let rounds::Said { round, dataset, samples, train_loss, test_loss, digest, wall_s, .. } = said;
    let accuracy = said.test_accuracy.map_or("-".to_owned(), |value| format!("{:.2} %", 100.0 * value));
    if *round == 0 {
        let columns = ["round", "samples", "loss", "test loss", "accuracy", "digest", "wall"];
        let [a, b, c, d, e, f, g] = columns;
        writeln!(out, "{dataset} data\n{a:>5} {b:>10} {c:>7} {d:>9} {e:>9}  {f:<16} {g:>8}")
            .map_err(Error::Report)?;
    }
    let (train_loss, test_loss) = (number(*train_loss), number(*test_loss));
    let digest = digest.get(..16).unwrap_or(digest);
    writeln!(
        out,
        "{round:>5} {samples:>10} {train_loss:>7} {test_loss:>9} {accuracy:>9}  {digest:<16} {wall_s:>6.1} s"
    )
    .map_err(Error::Report)
}

fn selftest(arguments: &SelftestArguments) -> Result<ExitCode, Failure> {
    prepare(arguments.threads)?;
    let device = arguments.device.resolve()?;
    let config =
        selftest::Config { steps: arguments.steps, batch: arguments.batch, seed: arguments.seed, device };
    let outcome = selftest::run(&config)?;
    if arguments.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
    } else {
        print_outcome(&outcome)?;
    }
    if outcome.learned() {
        return Ok(ExitCode::SUCCESS);
    }
    let (before, after) = (outcome.loss_before, outcome.loss_after);
    eprintln!(
        "dtwn-agent: selftest failed: the loss went from {before:.4} to {after:.4}; it must fall and be finite"
    );
    Ok(ExitCode::from(EXIT_FAILED))
}

fn print_outcome(outcome: &Outcome) -> io::Result<()> {
    let Outcome { steps, batch, loss_before, loss_after, .. } = outcome;
    let mut out = io::stdout().lock();
    let accuracy = 100.0 * outcome.accuracy_after;
    writeln!(
        out,
        "libtorch    {} on {}, {} thread(s)",
        outcome.torch_version, outcome.device, outcome.threads
    )?;
    writeln!(out, "parameters  {}", outcome.parameters)?;
    writeln!(
        out,
        "trained     {steps} steps of {batch} samples ({} data, seed {})",
        outcome.dataset, outcome.seed
    )?;
    writeln!(
        out,
        "loss        {loss_before:.4} -> {loss_after:.4} on held-out samples, {accuracy:.1} % right"
    )?;
    writeln!(out, "speed       {:.0} samples/s", outcome.samples_per_s)?;
    writeln!(out, "digest      {}", outcome.digest)
}
