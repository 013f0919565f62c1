//! How true the air is: rate, delay, loss, bursts, capacity, width and live control, through the real program.

#[path = "blocks/capacity.rs"]
mod capacity;
mod common;
#[path = "blocks/control.rs"]
mod control;
#[path = "blocks/delay.rs"]
mod delay;
#[path = "blocks/loss.rs"]
mod loss;
#[path = "blocks/rate.rs"]
mod rate;
#[path = "blocks/width.rs"]
mod width;

use clap::{Parser, ValueEnum};
use common::{
    Result,
    load::Load,
    probe,
    report::{Output, Report, Row},
    session::Dtwn,
};

/// Measures the air between the nodes of small networks, each figure beside what it should be.
#[derive(Debug, Parser)]
#[command(name = "air")]
struct Arguments {
    /// Only these blocks.
    #[arg(long, value_enum)]
    only: Vec<Block>,
    /// Only beside these loads.
    #[arg(long, value_enum)]
    load: Vec<Load>,
    /// Seed of the links' chances: another one loses other packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Block {
    /// The rate of a link under one TCP flow.
    Rate,
    /// The delay that is added to the one configured.
    Delay,
    /// Shares of lost packets and lengths of bursts.
    Loss,
    /// One TCP flow through the whole pipeline beside a bare forwarder.
    Capacity,
    /// How many links the medium serves in time.
    Width,
    /// From an order to the first packet that it affects.
    Control,
}

/// What every block gets.
pub struct Bench {
    /// The program under test.
    pub dtwn: Dtwn,
    /// What runs beside the measurement.
    pub load: Load,
    /// Less of everything.
    pub quick: bool,
    seed: u64,
}

impl Bench {
    /// A topology of one cell: base stations on a ring, nobody else.
    ///
    /// `links` holds the keys of `[link.uplink]`; downlinks are fast and near, so that acknowledgements wait for nothing.
    pub fn star(&self, stations: usize, links: &str, more: &str) -> String {
        format!(
            "[run]\nname = \"bench\"\nseed = {}\n\n[link.uplink]\n{links}\n\n\
             [link.downlink]\nrate = \"1 Gbit/s\"\ndelay = \"0.1 ms\"\n\n\
             [[bs]]\nid = \"bs\"\ncount = {stations}\nring = \"300 m\"\n\n{more}",
            self.seed
        )
    }
}

impl Block {
    fn measure(self, bench: &Bench) -> Result<Vec<Row>> {
        match self {
            Self::Rate => rate::measure(bench),
            Self::Delay => delay::measure(bench),
            Self::Loss => loss::measure(bench),
            Self::Capacity => capacity::measure(bench),
            Self::Width => width::measure(bench),
            Self::Control => control::measure(bench),
        }
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(result) = probe::play(&words).or_else(|| capacity::play(&words)) {
        return result;
    }
    let arguments = Arguments::parse();
    let chosen =
        |blocks: &[Block]| if blocks.is_empty() { Block::value_variants().to_vec() } else { blocks.to_vec() };
    let loads = match (arguments.load.as_slice(), arguments.output.quick) {
        ([], true) => vec![Load::Idle, Load::Busy],
        ([], false) => Load::value_variants().to_vec(),
        (chosen, _) => chosen.to_vec(),
    };
    let mut bench =
        Bench { dtwn: Dtwn::new()?, load: Load::Idle, quick: arguments.output.quick, seed: arguments.seed };
    let mut report = Report::new("air", bench.quick);
    for block in chosen(&arguments.only) {
        for load in &loads {
            bench.load = *load;
            report
                .add(block.measure(&bench).map_err(|error| format!("{block:?}, {}: {error}", load.name()))?);
        }
    }
    report.finish(&arguments.output)
}
