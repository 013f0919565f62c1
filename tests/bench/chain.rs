//! How fast the chain finalizes on lossy links, how soon it goes on after faults, and what its settings change, through the real
//! program.

mod common;
#[path = "blocks/finality.rs"]
mod finality;
#[path = "blocks/recovery.rs"]
mod recovery;
#[path = "blocks/settings.rs"]
mod settings;

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use clap::{Parser, ValueEnum};
use common::{
    Result,
    load::Load,
    report::{Output, Report, Row},
    session::{Dtwn, Ending, Session},
};
use serde_json::{Value, json};

/// Transactions offered a second, all BSs together, and the whole size of each.
pub const OFFERED_PER_S: u32 = 1000;
const TX_BYTES: u32 = 512;
/// How long agents get to find each other before anything is done to them.
const SETTLING: Duration = Duration::from_secs(1);
/// From the network being up to the first report that counts: connections are made and what waited for them is done.
const WARM_UP_NS: u64 = 2_000_000_000;

/// Measures the chain of small networks, each figure beside that of a public HotStuff where there is one.
#[derive(Debug, Parser)]
#[command(name = "chain")]
struct Arguments {
    /// Only these blocks.
    #[arg(long, value_enum)]
    only: Vec<Block>,
    /// Seed of the links' chances: another one loses other packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Block {
    /// Throughput and time to finality over loss, delay and BSs.
    Finality,
    /// How soon the chain goes on after partitions and a killed producer.
    Recovery,
    /// What TCP settings and batching change.
    Settings,
}

/// What every block gets.
pub struct Bench {
    /// The program under test.
    pub dtwn: Dtwn,
    /// Less of everything.
    pub quick: bool,
    seed: u64,
}

/// A network whose chain is measured.
#[derive(Clone, Copy)]
pub struct Network<'a> {
    /// BSs; all of them produce blocks.
    pub stations: usize,
    /// Added to each packet, milliseconds.
    pub delay_ms: u32,
    /// Probability that a packet is lost, in per cent.
    pub loss_percent: u32,
    /// More of the topology: a key of its top level.
    pub top: &'a str,
    /// Keys of `[chain]`.
    pub chain: &'a str,
}

impl Default for Network<'_> {
    fn default() -> Self {
        Self { stations: 4, delay_ms: 0, loss_percent: 0, top: "", chain: "" }
    }
}

impl Bench {
    /// The topology. A packet from BS to BS passes an uplink and a downlink: delay and loss are the uplink's alone, so that each
    /// direction between two BSs has them once.
    fn topology(&self, network: &Network<'_>) -> String {
        let Network { stations, delay_ms, loss_percent, top, chain } = network;
        format!(
            "{top}\n[run]\nname = \"bench\"\nseed = {seed}\nrestart = \"never\"\n\n\
             [link.uplink]\nrate = \"1 Gbit/s\"\ndelay = \"{delay_ms} ms\"\nloss = \"{loss_percent}%\"\n\n\
             [link.downlink]\nrate = \"1 Gbit/s\"\ndelay = \"0 ms\"\n\n\
             [learning]\nenabled = false\n\n\
             [chain]\nproducers = {stations}\nslot = \"0 ms\"\ntx_rate = {OFFERED_PER_S}\ntx_bytes = \"{TX_BYTES} B\"\n{chain}\n\n\
             [[bs]]\nid = \"bs\"\ncount = {stations}\nring = \"300 m\"\n",
            seed = self.seed,
        )
    }

    /// Brings a network up, does something to it, takes it down, and checks what it leaves.
    pub fn measure(
        &self,
        network: &Network<'_>,
        act: impl FnOnce(&Session<'_>) -> Result<()>,
    ) -> Result<Outcome> {
        let session = self.dtwn.up(&self.topology(network))?;
        sleep(SETTLING);
        let (cpu, begun) = (session.cpu()?, std::time::Instant::now());
        act(&session)?;
        let cpu_percent = (session.cpu()? - cpu).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
        let run_dir = session.run_dir.clone();
        let ending = session.down()?;
        let output = self.dtwn.command(["chain", "verify", "--json"]).arg(&run_dir).output()?;
        let verified: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("dtwn chain verify: {error}: {}", String::from_utf8_lossy(&output.stderr))
        })?;
        let output = self.dtwn.command(["events", "--json"]).arg(&run_dir).output()?;
        let events = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events: Vec<Value> = events.map(serde_json::from_slice).collect::<std::result::Result<_, _>>()?;
        std::fs::remove_dir_all(run_dir)?;
        let steady = Steady::of(&events);
        Ok(Outcome { cpu_percent, ending, verified, events, steady })
    }
}

/// What the nodes reported once the network had warmed up.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Steady {
    /// Transactions finalized a second, by the node that finalized most; NaN where there were no reports.
    pub tx_per_s: f64,
    /// From a transaction's submission to its finalization where it was submitted, to 3 %; NaN where none was finalized.
    pub p50_ms: f64,
    /// As `p50_ms`.
    pub p99_ms: f64,
}

impl Steady {
    fn of(events: &[Value]) -> Self {
        let up = events.iter().find(|event| event["what"]["type"] == "up");
        let begin_ns = up.and_then(|event| event["at_ns"].as_u64()).unwrap_or(0) + WARM_UP_NS;
        let mut finality = BTreeMap::<u64, u64>::new();
        let mut nodes = BTreeMap::<&str, (u64, u64, u64)>::new();
        for event in events.iter().filter(|event| event["what"]["type"] == "chain_progress") {
            let (what, at_ns) = (&event["what"], event["at_ns"].as_u64().unwrap_or(0));
            if at_ns < begin_ns {
                continue;
            }
            let node = event["node"].as_str().unwrap_or_default();
            match nodes.get_mut(node) {
                // Its first report tells of the time before.
                None => drop(nodes.insert(node, (at_ns, at_ns, 0))),
                Some((_, last_ns, count)) => {
                    *last_ns = at_ns;
                    *count += what["transactions"].as_u64().unwrap_or(0);
                    for bucket in what["finality_us"].as_array().map_or(&[][..], Vec::as_slice) {
                        let (us, count) = (bucket[0].as_u64().unwrap_or(0), bucket[1].as_u64().unwrap_or(0));
                        *finality.entry(us).or_default() += count;
                    }
                }
            }
        }
        let rates = nodes.values().map(|(first, last, count)| *count as f64 * 1e9 / (last - first) as f64);
        Self {
            tx_per_s: rates.fold(f64::NAN, f64::max),
            p50_ms: quantile_ms(&finality, 0.5),
            p99_ms: quantile_ms(&finality, 0.99),
        }
    }
}

/// The value below which a share `q` of what a histogram counts lies; NaN for an empty one.
fn quantile_ms(histogram: &BTreeMap<u64, u64>, q: f64) -> f64 {
    let total: u64 = histogram.values().sum();
    let rank = ((q * total as f64).ceil() as u64).max(1);
    let mut counted = 0;
    let found = histogram.iter().find(|(_, count)| {
        counted += **count;
        counted >= rank
    });
    found.map_or(f64::NAN, |(us, _)| *us as f64 / 1000.0)
}

/// What came of a session.
pub struct Outcome {
    cpu_percent: f64,
    /// How it ended.
    pub ending: Ending,
    verified: Value,
    /// All that happened.
    pub events: Vec<Value>,
    /// Once it had warmed up.
    pub steady: Steady,
}

impl Outcome {
    /// A figure of the summary's part on the chain; NaN when there is none.
    pub fn chain(&self, name: &str) -> f64 {
        self.ending.summary["chain"][name].as_f64().unwrap_or(f64::NAN)
    }

    /// Whether every node's chain is valid and none contradicts another.
    pub fn is_sound(&self) -> bool {
        let nodes = self.verified["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let valid = !nodes.is_empty() && nodes.iter().all(|node| node["result"] == "valid");
        valid && self.verified["conflicts"] == 0 && self.ending.summary["chain"]["conflicts"] == 0
    }

    /// A row about this session; whatever its figures, one that is not sound has not met anything.
    pub fn row(&self, block: &'static str, what: String, met: Option<bool>) -> Row {
        let mut row = Row {
            met: if self.is_sound() { met } else { Some(false) },
            cpu_percent: Some(self.cpu_percent),
            verdict: Some(self.ending.verdict().to_owned()),
            figures: json!({
                "steady": self.steady,
                "chain": self.ending.summary["chain"],
                "fidelity": self.ending.summary["fidelity"],
                "verified": self.verified,
            }),
            ..Row::new(block, Load::Idle, what)
        };
        if !self.is_sound() {
            row.measured = "NOT SOUND; ".to_owned();
        }
        row
    }

    /// Events of a type.
    pub fn of_type(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |event| event["what"]["type"] == kind)
    }

    /// When each block was final at the first node that says so, emulated nanoseconds, in order.
    pub fn finalized_ns(&self) -> Vec<u64> {
        let mut first = BTreeMap::<u64, u64>::new();
        for event in self.of_type("chain_blocks") {
            for block in event["what"]["blocks"].as_array().map_or(&[][..], Vec::as_slice) {
                if let (Some(height), Some(at)) =
                    (block["height"].as_u64(), block["finalized_at_ns"].as_u64())
                {
                    first.entry(height).and_modify(|held| *held = (*held).min(at)).or_insert(at);
                }
            }
        }
        let mut times: Vec<u64> = first.into_values().collect();
        times.sort_unstable();
        times
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let blocks = match arguments.only.as_slice() {
        [] => Block::value_variants().to_vec(),
        chosen => chosen.to_vec(),
    };
    let bench = Bench { dtwn: Dtwn::new()?, quick: arguments.output.quick, seed: arguments.seed };
    let mut report = Report::new("chain", bench.quick);
    for block in blocks {
        let done = match block {
            Block::Finality => finality::measure(&bench, &mut report),
            Block::Recovery => recovery::measure(&bench, &mut report),
            Block::Settings => settings::measure(&bench, &mut report),
        };
        done.map_err(|error| format!("{block:?}: {error}"))?;
    }
    report.finish(&arguments.output)
}
