//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Emulate a Digital Twin Wireless Network: real processes, shaped air, a chain and federated learning.
#[derive(Debug, Parser)]
#[command(name = "dtwn", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring up a network from a topology file.
    Up(UpArgs),
    /// Open the terminal view of a running session.
    Attach(AttachArgs),
    /// End a session, or all of them.
    Down(DownArgs),
    /// List the running sessions.
    Ps(JsonArgs),
    /// Show the state of a session.
    Status(StatusArgs),
    /// Print a session's events: those so far, or as they happen.
    Events(EventsArgs),
    /// Print a node's log.
    Logs(LogsArgs),
    /// Run a program inside a node's namespaces.
    Exec(ExecArgs),
    /// Change a link while it is in use.
    #[command(subcommand)]
    Link(LinkCommand),
    /// Keep groups of nodes from reaching each other: `dtwn partition bs1,bs2 : bs3,bs4`.
    Partition(PartitionArgs),
    /// Lift all partitions.
    Heal(SessionArgs),
    /// Kill a node's process (SIGKILL); the restart policy decides what follows.
    Kill(NodeArgs),
    /// Stop a node's process for a while (SIGSTOP).
    Pause(NodeArgs),
    /// Let a paused process go on (SIGCONT).
    Resume(NodeArgs),
    /// End a node's process cleanly and start it again.
    Restart(NodeArgs),
    /// Have a base station spoil the models that it sends, from its next round on.
    Poison(PoisonArgs),
    /// Record packets as pcapng, for Wireshark.
    Capture(CaptureArgs),
    /// List or remove recorded runs.
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Open the terminal view on a recorded run.
    Replay(ReplayArgs),
    /// Write a report of a recorded run: one HTML file with all its figures.
    Report(ReportArgs),
    /// Take the models of a run out of it.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Check topology files.
    Validate(ValidateArgs),
    /// Draw a topology.
    Graph(GraphArgs),
    /// Look at the chain of a run or session, check it, repair a node's.
    #[command(subcommand)]
    Chain(ChainCommand),
    /// Train association agents by MADDPG and write their policy file.
    Train(TrainArgs),
    /// Compare association policies on the same held-out channel states.
    Compare(CompareArgs),
    /// Make the data and plots of the paper's figures.
    Figures(FiguresArgs),
    /// Fit the accuracy that samples buy, theta_a and theta_p of `[cost]`, to real trainings.
    Calibrate(CalibrateArgs),
    /// Simulate a part of the network in virtual time.
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// Check what this machine offers.
    Doctor(JsonArgs),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory.
    Man {
        /// The directory.
        dir: PathBuf,
    },
    /// The session process.
    #[command(name = "__session", hide = true)]
    Session(InternalSessionArgs),
    /// Process 1 of a session.
    #[command(name = "__init", hide = true)]
    Init(crate::init::InitArgs),
    /// The agent of a node that does not learn.
    #[command(name = "__agent", hide = true)]
    Agent {
        /// The node, so that process lists tell agents apart; what counts is told over the socket.
        node: String,
    },
    /// Tries in a process of its own what a session needs; prints JSON.
    #[command(name = "__probe", hide = true)]
    Probe {
        /// What to try.
        #[arg(value_enum)]
        what: ProbeWhat,
    },
}

/// Which session is meant.
#[derive(Debug, Args, Clone)]
pub struct SessionArgs {
    /// The session's name; not needed when there is only one.
    #[arg(short, long, value_name = "NAME")]
    pub session: Option<String>,
}

/// For commands that only print.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Overrides of a topology file.
#[derive(Debug, Args, Clone, Default)]
pub struct OverrideArgs {
    /// Set a key of the topology: `--set radio.subchannels=4`; wins over the file and DTWN_* variables.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `dtwn up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The topology file; with --resume, that of the run when left out.
    #[arg(required_unless_present = "resume")]
    pub topology: Option<PathBuf>,
    /// Go on from the last model of a run that is over: its directory, its name or how that begins, or `latest`.
    #[arg(long, value_name = "RUN")]
    pub resume: Option<String>,
    /// Show progress as lines or a bar and end with the run; exit codes tell how it went.
    #[arg(long, conflicts_with = "detach")]
    pub headless: bool,
    /// Start the session and return.
    #[arg(long)]
    pub detach: bool,
    /// Print what would be built, and build nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The session's name; the topology's by default.
    #[arg(long)]
    pub name: Option<String>,
    /// End after this much emulated time, for example `20s`.
    #[arg(long, value_name = "TIME")]
    pub duration: Option<String>,
    /// End after this many rounds; with --resume, those of the run that is gone on from included.
    #[arg(long, value_name = "COUNT")]
    pub rounds: Option<u64>,
    /// Seed of every random choice.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Wall time per emulated time.
    #[arg(long)]
    pub dilation: Option<f64>,
    /// Folder with CIFAR-10's binary files to learn from (`scripts/cifar10 DIR` fetches them); the synthetic set without it.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Directory for recorded runs.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: PathBuf,
    /// Exit with code 102 unless the verdict on fidelity is `ok`.
    #[arg(long)]
    pub strict_fidelity: bool,
    /// Print JSON on standard output: the summary at the end (headless), or the plan (dry run).
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub view: ViewArgs,
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// `dtwn attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The session's name; not needed when there is only one.
    pub name: Option<String>,
    /// Change nothing.
    #[arg(long)]
    pub read_only: bool,
    #[command(flatten)]
    pub view: ViewArgs,
}

/// How the terminal view behaves.
#[derive(Debug, Args)]
pub struct ViewArgs {
    /// Frames a second in the terminal view, at most; 4 unless `fps` in the configuration file says otherwise.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub fps: Option<u32>,
}

/// `dtwn down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The session's name; not needed when there is only one.
    pub name: Option<String>,
    /// End every session of this user.
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
}

/// `dtwn status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The session's name; not needed when there is only one.
    pub name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `dtwn events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// A session's name, or a run directory.
    pub name: Option<String>,
    /// Go on with events as they happen, until the session ends.
    #[arg(short, long)]
    pub follow: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `dtwn logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The node, or `session`.
    pub node: String,
    /// Go on with lines as they are written.
    #[arg(short, long)]
    pub follow: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `dtwn exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The node.
    pub node: String,
    /// The program and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<std::ffi::OsString>,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `dtwn link`.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Change properties of a link; what is not named stays as it is.
    Set(LinkSetArgs),
    /// Let a link carry nothing.
    Down(LinkEndArgs),
    /// Let a link carry again.
    Up(LinkEndArgs),
    /// Put a link back to how the topology and the radio have it, its rate included.
    Reset(LinkEndArgs),
}

/// The two ends of a link.
#[derive(Debug, Args)]
pub struct LinkEndArgs {
    /// Sending station: `mbs`, `bs1`, `ug1.7`.
    pub from: String,
    /// Receiving station.
    pub to: String,
    /// Change the opposite direction as well.
    #[arg(long)]
    pub both: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `dtwn link set`.
#[derive(Debug, Args)]
pub struct LinkSetArgs {
    #[command(flatten)]
    pub ends: LinkEndArgs,
    /// Propagation delay: `20ms`.
    #[arg(long, value_name = "TIME")]
    pub delay: Option<String>,
    /// Jitter, added to the delay: `2ms`.
    #[arg(long, value_name = "TIME")]
    pub jitter: Option<String>,
    /// Packet loss: `5%` or `0.05`.
    #[arg(long, value_name = "SHARE")]
    pub loss: Option<String>,
    /// Rate instead of the radio's: `10mbit`.
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// Duplicated packets.
    #[arg(long, value_name = "SHARE")]
    pub duplicate: Option<String>,
    /// Packets with a flipped bit.
    #[arg(long, value_name = "SHARE")]
    pub corrupt: Option<String>,
    /// Packets that later ones overtake.
    #[arg(long, value_name = "SHARE")]
    pub reorder: Option<String>,
    /// Queue length: `64KiB`.
    #[arg(long, value_name = "BYTES")]
    pub queue: Option<String>,
}

/// `dtwn partition`.
#[derive(Debug, Args)]
pub struct PartitionArgs {
    /// Groups of nodes, separated by commas inside a group and by `:` between groups.
    #[arg(required = true, value_name = "GROUPS")]
    pub groups: Vec<String>,
    /// Only cut what goes from the first group to the others.
    #[arg(long)]
    pub one_way: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// A node of a session.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node.
    pub node: String,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `dtwn poison`.
#[derive(Debug, Args)]
pub struct PoisonArgs {
    /// The base station.
    pub node: String,
    /// How: `sign-flip`, `noise`, `nan`; `none` to stop it.
    pub kind: String,
    #[command(flatten)]
    pub session: SessionArgs,
}

impl PoisonArgs {
    /// What the session is asked.
    pub fn request(&self) -> dtwn_proto::control::Request {
        let kind = (self.kind != "none").then(|| self.kind.clone());
        dtwn_proto::control::Request::Poison { node: self.node.clone(), kind }
    }
}

/// `dtwn capture`.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// A node (`bs1`), a link (`bs1:mbs`), or nothing for all packets.
    pub what: Option<String>,
    /// The file to write; `-` for standard output.
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,
    /// Stop after this much wall time.
    #[arg(long, value_name = "TIME")]
    pub duration: Option<String>,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `dtwn chain`.
#[derive(Debug, Subcommand)]
pub enum ChainCommand {
    /// List the last blocks of a node's chain.
    Log(ChainLogArgs),
    /// Show one block with all its transactions.
    Show(ChainShowArgs),
    /// Check every signature and link of every node's chain, and that no two contradict each other.
    Verify(ChainVerifyArgs),
    /// Set a node's damaged chain aside; the node fetches it again from the others.
    Repair(ChainRepairArgs),
}

/// `dtwn chain log`.
#[derive(Debug, Args)]
pub struct ChainLogArgs {
    /// A run directory, or a session's name; not needed when there is only one session.
    #[arg(value_name = "RUN_OR_SESSION")]
    pub run: Option<String>,
    /// Whose chain; the longest by default.
    #[arg(long)]
    pub node: Option<String>,
    /// How many blocks.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub last: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `dtwn chain show`.
#[derive(Debug, Args)]
pub struct ChainShowArgs {
    /// A run directory, or a session's name.
    #[arg(value_name = "RUN_OR_SESSION")]
    pub run: String,
    /// The block's height, or at least 8 digits of its digest.
    #[arg(value_name = "HEIGHT_OR_DIGEST")]
    pub block: String,
    /// Whose chain; the longest by default.
    #[arg(long)]
    pub node: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `dtwn chain verify`.
#[derive(Debug, Args)]
pub struct ChainVerifyArgs {
    /// A run directory, or a session's name; not needed when there is only one session.
    #[arg(value_name = "RUN_OR_SESSION")]
    pub run: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `dtwn chain repair`.
#[derive(Debug, Args)]
pub struct ChainRepairArgs {
    /// A run directory, or a session's name.
    #[arg(value_name = "RUN_OR_SESSION")]
    pub run: String,
    /// The node.
    pub node: String,
    /// Replace a chain that is not damaged, too.
    #[arg(long)]
    pub force: bool,
}

/// `dtwn runs`.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// List recorded runs, the newest first.
    List {
        /// Where they are.
        #[arg(long, value_name = "DIR", default_value = "runs")]
        out: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove all but the newest runs; never one that is being recorded.
    Prune {
        /// Where they are.
        #[arg(long, value_name = "DIR", default_value = "runs")]
        out: PathBuf,
        /// How many to keep.
        #[arg(long, default_value_t = 10)]
        keep: usize,
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
}

/// `dtwn model …`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Write a global model as a safetensors file that PyTorch loads.
    Export(ModelExportArgs),
}

/// `dtwn model export`.
#[derive(Debug, Args)]
pub struct ModelExportArgs {
    #[command(flatten)]
    pub recorded: RecordedArgs,
    /// The file to write; named after run and round by default.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The round that made the model; the last by default.
    #[arg(long, value_name = "ROUND")]
    pub round: Option<u64>,
    /// Print what was written as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which recorded run is meant.
#[derive(Debug, Args)]
pub struct RecordedArgs {
    /// A run directory, a run's name or how it begins (the newest counts), or `latest`.
    pub run: String,
    /// Where names are looked up.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: PathBuf,
}

/// `dtwn replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub recorded: RecordedArgs,
    /// Emulated seconds for each second, 0.1 to 100.
    #[arg(long, value_name = "X", default_value = "1")]
    pub speed: String,
    /// Where to start: `12s`, `round:3`, `event:120` or `end`.
    #[arg(long, value_name = "MOMENT")]
    pub from: Option<String>,
    #[command(flatten)]
    pub view: ViewArgs,
}

/// `dtwn report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub recorded: RecordedArgs,
    /// The file to write; `-` for standard output.
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
}

/// `dtwn validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// The topology files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print the topology with every default filled in.
    #[arg(long)]
    pub print: bool,
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// `dtwn graph`.
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// The topology file.
    pub topology: PathBuf,
    /// What to draw.
    #[arg(long, value_enum, default_value_t = GraphFormat::Map)]
    pub format: GraphFormat,
    /// Draw the map with ASCII only; the default on terminals whose locale is not UTF-8.
    #[arg(long)]
    pub ascii: bool,
    /// The file to write instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// How a topology is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// A map for the terminal.
    Map,
    /// A picture.
    Svg,
    /// A graph for Graphviz.
    Dot,
}

/// What `dtwn __probe` tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProbeWhat {
    /// Namespaces, TUN devices and kernel settings.
    Place,
    /// What the medium carries.
    Capacity,
}

/// `dtwn __session`.
#[derive(Debug, Args)]
pub struct InternalSessionArgs {
    /// The run directory, with the rendered topology in it.
    #[arg(long)]
    pub run_dir: PathBuf,
    /// The session's name.
    #[arg(long)]
    pub name: String,
}

/// `dtwn simulate`.
#[derive(Debug, Subcommand)]
pub enum SimulateCommand {
    /// Run the chain's rules through seeded schedules of loss, partitions, crashes and Byzantine nodes.
    Chain(SimulateChainArgs),
}

/// `dtwn simulate chain`.
#[derive(Debug, Args)]
pub struct SimulateChainArgs {
    /// Seeds, one schedule each; the last is not included.
    #[arg(long, value_name = "A..B", default_value = "0..1000")]
    pub seeds: String,
    /// Base stations, 4 to 20; drawn from 4 to 7 when not given.
    #[arg(long)]
    pub nodes: Option<u16>,
    /// Byzantine nodes, at most a third; drawn when not given.
    #[arg(long)]
    pub byzantine: Option<u16>,
    /// Probability that a message is lost, up to 50 %; drawn when not given.
    #[arg(long, value_name = "SHARE")]
    pub loss: Option<String>,
    /// Views that each schedule goes through.
    #[arg(long, default_value_t = 50)]
    pub views: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `dtwn train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The topology file; its `[maddpg]` section says how to train.
    pub topology: PathBuf,
    /// Episodes; 200 unless the topology says otherwise.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub episodes: Option<u32>,
    /// How many seeds to train; the best on held-out networks becomes the policy.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub seeds: u32,
    /// The first of the seeds.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub first_seed: u64,
    /// The discount of Eq. 20.
    #[arg(long, value_name = "GAMMA")]
    pub gamma: Option<f64>,
    /// The policy file; beside the topology, as .policy, by default.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How many seeds to train at once; as many as there are cores by default.
    #[arg(long, value_name = "COUNT")]
    pub jobs: Option<usize>,
    /// Say nothing until it is done.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// `dtwn compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The topology file.
    pub topology: PathBuf,
    /// Which policies: random, average, greedy, optimal, static, maddpg. By default those that need no file, and the topology's
    /// own where it fits.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub policies: Vec<String>,
    /// How many held-out channel states.
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub instances: u64,
    /// Seed of their streams; the topology's by default.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Where the BSs of the instances stand.
    #[arg(long, value_enum, default_value_t = Networks::Topology)]
    pub networks: Networks,
    /// Show policies the state of so many slots ago, and charge them by the true one.
    #[arg(long, value_name = "SLOTS", default_value_t = 0)]
    pub staleness: u32,
    /// File of a static or maddpg policy; the topology's `association.file` by default.
    #[arg(long, value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// Where the BSs of held-out instances stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Networks {
    /// Where the topology puts them.
    Topology,
    /// Anew in each instance, in the ring of `association.distance_min` and `association.distance_max`.
    Random,
}

/// `dtwn figures`.
#[derive(Debug, Args)]
pub struct FiguresArgs {
    /// The directory to write into.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The topology file.
    #[arg(long, value_name = "FILE", default_value = "topologies/paper.toml")]
    pub topology: PathBuf,
    /// Few rounds, seeds and episodes: to see that it works, not to publish.
    #[arg(long)]
    pub quick: bool,
    /// Which of the paper's figures: 5, 6, 7, 8. All train, and need dtwn-agent; all of them take about an hour on two cores.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "5,6,7,8")]
    pub only: Vec<u32>,
    /// File of a trained policy for figures 5 and 6, with cost.payload=twins; without, one is trained.
    #[arg(long, value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// `dtwn calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// The topology file; its `[learning]` section says how to train, and on what.
    pub topology: PathBuf,
    /// Fractions b of their samples that twins train on; from cost.b_min to cost.b_max by default.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    pub fractions: Vec<f64>,
    /// Rounds after which the accuracy counts; 10 by default.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub rounds: Option<u64>,
    /// Trainings for each fraction, from the topology's seed on; 3 by default.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: Option<u64>,
    /// How many trainings at once; as many as there are cores by default.
    #[arg(long, value_name = "COUNT")]
    pub jobs: Option<usize>,
    /// Few fractions, rounds and seeds: to see that it works, not for figures.
    #[arg(long)]
    pub quick: bool,
    /// Say nothing until it is done.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub overrides: OverrideArgs,
}
