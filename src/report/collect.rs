//! One pass over a run's events: the shared fold, and beside it what becomes figures over time.

use std::path::Path;

use dtwn_proto::{
    event::{ChainProgress, Event, Exit, Round, Transfer, What},
    log::Tail,
};
use indexmap::IndexMap;

use super::series::{Series, Thinning};
use crate::{
    error::Result,
    recording::{self, EventFile},
    tui::data::{Data, Entry},
};

/// Rounds and transfers kept for figures, the newest.
const ROUNDS_MAX: usize = 2000;

/// Packets in a sample below which a share of losses is not shown.
pub const LOSS_PACKETS_MIN: f64 = 20.0;

/// A link over time.
#[derive(Debug, Clone)]
pub struct LinkSeries {
    /// Delivered, Mbit/s.
    pub carried_mbps: Series,
    /// Busy share of the transmitter, percent.
    pub busy: Series,
    /// Packets that did not arrive, percent.
    pub lost: Series,
}

/// A node over time.
#[derive(Debug, Clone)]
pub struct NodeSeries {
    /// CPU, percent of one core.
    pub cpu: Series,
    /// Resident memory, MiB.
    pub rss_mib: Series,
}

/// A round that ended.
#[derive(Debug, Clone)]
pub struct RoundPoint {
    /// What was reported.
    pub round: Round,
    /// Eq. 17 for the decision that it ran under, milliseconds.
    pub decided_ms: Option<f64>,
    /// For the BS that took longest, what Eqs. 8 and 7 predict for its model down and up together, and what was measured,
    /// milliseconds; `None` where no model went through the air.
    pub air_ms: Option<(f64, f64)>,
}

/// How the recording ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The run was over.
    Over,
    /// The run is still recorded.
    Running,
    /// The recording stops in the middle; the byte where it is torn, if it is.
    CutOff(Option<u64>),
}

/// All that a report is made of.
pub struct Collected {
    /// The fold that every view of a run shares.
    pub data: Data,
    /// Events read.
    pub events: u64,
    /// How the recording ends.
    pub end: End,
    /// By link.
    pub links: IndexMap<String, LinkSeries>,
    /// By node, and the session.
    pub nodes: IndexMap<String, NodeSeries>,
    /// 99th percentile of lateness, microseconds.
    pub lateness_us: Series,
    /// Delivered over all links, Mbit/s.
    pub carried_mbps: Series,
    /// Age of twins by BS: median and 99th percentile, milliseconds.
    pub twin_ages: IndexMap<String, (Series, Series)>,
    /// The newest rounds.
    pub rounds: Vec<RoundPoint>,
    /// Finalized height by node.
    pub heights: IndexMap<String, Series>,
    /// Finality of transactions, mean over each report, milliseconds.
    pub finality_ms: Series,
    /// What disturbed the run, and what put it right.
    pub faults: Vec<Entry>,
    /// Model bodies since the last round ended: by BS, predicted and measured milliseconds.
    moved: IndexMap<String, (f64, f64)>,
    decided: Option<(u64, f64)>,
    sampled_ns: i64,
}

impl Collected {
    /// Reads a run.
    ///
    /// # Errors
    /// When its events cannot be read.
    pub fn read(run_dir: &Path) -> Result<Self> {
        let file = EventFile::open(run_dir)?;
        let mut events = file.read_from(file.start())?;
        let mut collected = Self::new();
        while let Some(event) = file.next(&mut events)? {
            collected.take(&event);
        }
        collected.end = match (&collected.data.run.ended, events.tail()) {
            (Some(_), _) => End::Over,
            (None, _) if recording::is_live(run_dir) => End::Running,
            (None, Some(Tail::Torn { at })) => End::CutOff(Some(at)),
            (None, _) => End::CutOff(None),
        };
        Ok(collected)
    }

    fn new() -> Self {
        Self {
            data: Data::default(),
            events: 0,
            end: End::CutOff(None),
            links: IndexMap::new(),
            nodes: IndexMap::new(),
            lateness_us: Series::new(Thinning::Peak),
            carried_mbps: Series::new(Thinning::Mean),
            twin_ages: IndexMap::new(),
            rounds: Vec::new(),
            heights: IndexMap::new(),
            finality_ms: Series::new(Thinning::Mean),
            faults: Vec::new(),
            moved: IndexMap::new(),
            decided: None,
            sampled_ns: i64::MIN,
        }
    }

    fn take(&mut self, event: &Event) {
        self.events += 1;
        self.data.apply(event);
        let at_s = event.at_ns as f64 / 1e9;
        match &event.what {
            What::Sample(_) if event.at_ns > self.sampled_ns => {
                self.sampled_ns = event.at_ns;
                self.sample(at_s);
            }
            What::Transfer(transfer) => self.transfer(transfer),
            What::Association(decision) => {
                self.decided = Some((decision.round, decision.predicted_total_ms()));
            }
            What::Round(round) => self.round(round),
            What::TwinAges { p50_ms, p99_ms, .. } => {
                let new = || (Series::new(Thinning::Mean), Series::new(Thinning::Peak));
                let (p50, p99) = self.twin_ages.entry(event.node.clone()).or_insert_with(new);
                p50_ms.iter().for_each(|ms| p50.push(at_s, *ms));
                p99_ms.iter().for_each(|ms| p99.push(at_s, *ms));
            }
            What::ChainProgress(report) => self.chain(at_s, &event.node, report),
            // Processes that end by themselves when they are asked to are no fault: every run ends so.
            What::NodeExited { expected: false, .. }
            | What::NodeExited { exit: Exit::Signal(_), .. }
            | What::NodePaused { .. }
            | What::NodePoisoned { .. }
            | What::LinkChanged { .. }
            | What::Partitioned { .. }
            | What::Healed
            | What::ChainConflict { .. } => self.fault(),
            What::NodeStarted { restarts: 1.., .. } => self.fault(),
            _ => {}
        }
    }

    /// Keeps what the timeline says of the event that was just taken.
    fn fault(&mut self) {
        if self.faults.len() < ROUNDS_MAX {
            self.faults.extend(self.data.timeline.back().cloned());
        }
    }

    /// Takes over what the shared fold made of a sample.
    fn sample(&mut self, at_s: f64) {
        for (name, link) in &self.data.run.links {
            let Some(history) = self.data.links.get(name) else { continue };
            let series = self.links.entry(link.info.name.clone()).or_insert_with(|| LinkSeries {
                carried_mbps: Series::new(Thinning::Mean),
                busy: Series::new(Thinning::Mean),
                lost: Series::new(Thinning::Mean),
            });
            series.carried_mbps.push(at_s, history.carried_bps.last() / 1e6);
            series.busy.push(at_s, history.busy.last() * 100.0);
            // A packet may be counted as sent in one sample and as lost in the next; of a few packets a share says nothing.
            if history.sent().last() >= LOSS_PACKETS_MIN {
                series.lost.push(at_s, (history.lost().last() / history.sent().last() * 100.0).min(100.0));
            }
        }
        let new = || NodeSeries { cpu: Series::new(Thinning::Mean), rss_mib: Series::new(Thinning::Peak) };
        for (name, node) in &self.data.run.nodes {
            let Some(history) = self.data.nodes.get(name) else { continue };
            let series = self.nodes.entry(name.clone()).or_insert_with(new);
            series.cpu.push(at_s, history.cpu.last() * 100.0);
            series.rss_mib.push(at_s, node.used.rss_bytes as f64 / f64::from(1 << 20));
        }
        let session = self.nodes.entry("session".into()).or_insert_with(new);
        session.cpu.push(at_s, self.data.session_cpu.last() * 100.0);
        self.lateness_us.push(at_s, self.data.lateness_us.last());
        self.carried_mbps.push(at_s, self.data.carried_bps.last() / 1e6);
    }

    fn transfer(&mut self, transfer: &Transfer) {
        // The BS is whichever end is not the MBS. Relays overlap with each other and with what follows.
        let bs = match transfer.kind.as_str() {
            "model-down" => &transfer.to,
            "model-up" => &transfer.from,
            _ => return,
        };
        let (predicted_ms, measured_ms) = self.moved.entry(bs.clone()).or_default();
        *predicted_ms += transfer.predicted_ms;
        *measured_ms += transfer.measured_ms;
    }

    fn round(&mut self, round: &Round) {
        let moved = std::mem::take(&mut self.moved);
        let air_ms = moved.into_values().max_by(|a, b| a.1.total_cmp(&b.1));
        let decided_ms = self.decided.filter(|(number, _)| *number == round.round).map(|(_, ms)| ms);
        if self.rounds.len() == ROUNDS_MAX {
            self.rounds.remove(0);
        }
        self.rounds.push(RoundPoint { round: round.clone(), decided_ms, air_ms });
    }

    fn chain(&mut self, at_s: f64, node: &str, report: &ChainProgress) {
        let heights = self.heights.entry(node.to_owned()).or_insert_with(|| Series::new(Thinning::Peak));
        heights.push(at_s, report.height as f64);
        let count: u64 = report.finality_us.iter().map(|(_, count)| count).sum();
        let sum: f64 = report.finality_us.iter().map(|(us, count)| *us as f64 * *count as f64).sum();
        if count > 0 {
            self.finality_ms.push(at_s, sum / count as f64 / 1000.0);
        }
    }
}
