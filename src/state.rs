//! The state of a run as a fold over its events: what status, summary, progress and screens show.

mod association;
mod chain;
mod learning;
mod outcomes;

use std::collections::{BTreeMap, VecDeque};

use dtwn_proto::event::{
    EndReason, Event, Exit, Fidelity, Level, LinkCounters, LinkInfo, NodeCounters, NodeInfo, Round, SESSION,
    SessionStarted, Transfer, TwinAge, What,
};
use hdrhistogram::Histogram;
use indexmap::IndexMap;

pub use association::{AssociationState, DecidedRound};
pub use chain::{ChainLane, ChainState};
pub use learning::LearningState;

/// Notices kept; older ones stay in the event file.
const NOTICES_MAX: usize = 100;

/// Twins that a BS holds, and the median and the 99th percentile of their ages, in ms; `None` where none was heard of.
pub type TwinAges = (u32, Option<f64>, Option<f64>);

/// Everything that is known of a run at one moment. Its size depends on the network, and not on the run's length but
/// for a few numbers a round of learning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    /// What stays true for the run.
    pub started: Option<SessionStarted>,
    /// Emulated time of the last event, nanoseconds.
    pub now_ns: i64,
    /// Wall milliseconds that bringing up took.
    pub bringup_ms: Option<f64>,
    /// Every node by name, in the topology's order.
    pub nodes: IndexMap<String, NodeState>,
    /// Every link by name.
    pub links: IndexMap<String, LinkState>,
    /// Transfers by kind.
    pub transfers: BTreeMap<String, TransferStats>,
    /// Twins by the BS that holds them: count, median and 99th percentile of their age in emulated ms, where any is known.
    pub twin_ages: BTreeMap<String, TwinAges>,
    /// Each twin, with the BS that reported it last.
    pub twins: BTreeMap<String, (String, TwinAge)>,
    /// Rounds that ended.
    pub rounds: u64,
    /// The last of them.
    pub last_round: Option<Round>,
    /// Decisions on twins, data and subchannels.
    pub association: AssociationState,
    /// The chain.
    pub chain: ChainState,
    /// Models, and how good they are.
    pub learning: LearningState,
    /// The verdict.
    pub fidelity: Fidelity,
    /// The latest notices.
    pub notices: VecDeque<(i64, String, Level, String)>,
    /// CPU seconds of the session process.
    pub session_cpu_s: f64,
    /// Events that a node counted but that never arrived.
    pub events_lost: u64,
    /// Events of or about what is not in this network; they count nowhere.
    pub strange: u64,
    /// Why the run ended.
    pub ended: Option<EndReason>,
    sequences: BTreeMap<String, u64>,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeState {
    /// What it is.
    pub info: NodeInfo,
    /// What it is doing.
    pub phase: Phase,
    /// Its process, while it has one.
    pub pid: Option<i32>,
    /// Its last process.
    pub last_pid: Option<i32>,
    /// How its last process ended.
    pub exit: Option<Exit>,
    /// Whether that end was asked for.
    pub exit_expected: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// What its processes have used; CPU seconds over all of them.
    pub used: NodeCounters,
    /// Most resident memory seen, bytes.
    pub rss_peak_bytes: u64,
    cpu_before_s: f64,
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its process starts.
    Starting,
    /// It works.
    Ready,
    /// It is stopped and can go on.
    Paused,
    /// It has no process.
    Exited,
}

impl Phase {
    /// The name used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkState {
    /// What it is, with changes applied.
    pub info: LinkInfo,
    /// What it has counted.
    pub counters: LinkCounters,
}

/// Transfers of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct TransferStats {
    /// How many.
    pub count: u64,
    /// Their payload bytes together.
    pub bytes: u64,
    measured_us: Histogram<u64>,
    predicted_us: Histogram<u64>,
}

impl TransferStats {
    /// Quantiles in milliseconds: measured, predicted.
    pub fn quantile_ms(&self, quantile: f64) -> (f64, f64) {
        let of = |histogram: &Histogram<u64>| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        (of(&self.measured_us), of(&self.predicted_us))
    }
}

impl RunState {
    /// Takes one more event into account.
    pub fn apply(&mut self, event: &Event) {
        self.now_ns = self.now_ns.max(event.at_ns);
        self.count_gap(event);
        match &event.what {
            What::SessionStarted(started) => self.begin(started),
            What::Up { bringup_ms } => self.bringup_ms = Some(*bringup_ms),
            What::NodeStarted { node, pid, restarts } => {
                self.sequences.remove(node);
                if let Some(node) = self.nodes.get_mut(node) {
                    node.phase = Phase::Starting;
                    node.pid = Some(*pid);
                    node.last_pid = Some(*pid);
                    node.restarts = *restarts;
                    node.cpu_before_s = node.used.cpu_s;
                }
            }
            What::NodeReady { node, .. } => self.set_phase(node, Phase::Ready),
            What::NodePaused { node, paused } => {
                self.set_phase(node, if *paused { Phase::Paused } else { Phase::Ready });
            }
            What::NodeExited { node, exit, expected, .. } => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.phase = Phase::Exited;
                    node.pid = None;
                    node.exit = Some(*exit);
                    node.exit_expected = *expected;
                }
            }
            What::LinkChanged { link, now, .. } => match self.links.get_mut(link) {
                Some(state) => state.info = now.clone(),
                None => self.add_link(now),
            },
            What::Rates { rates, .. } => {
                for (link, rate_bps) in rates {
                    if let Some(link) = self.links.get_mut(link) {
                        link.info.rate_bps = Some(*rate_bps);
                    }
                }
            }
            What::Sample(sample) => {
                self.session_cpu_s = sample.session_cpu_s;
                for counters in &sample.links {
                    if let Some(link) = self.links.get_mut(&counters.link) {
                        link.counters = counters.clone();
                    }
                }
                for counters in &sample.nodes {
                    if let Some(node) = self.nodes.get_mut(&counters.node) {
                        node.rss_peak_bytes = node.rss_peak_bytes.max(counters.rss_bytes);
                        node.used = counters.clone();
                        node.used.cpu_s += node.cpu_before_s;
                    }
                }
            }
            // By kind and by name, as much is kept as the network has: an event file may come from anywhere.
            What::Transfer(transfer) if Transfer::KINDS.contains(&transfer.kind.as_str()) => {
                self.association.sent(transfer);
                self.learning.sent(transfer);
                self.add_transfer(transfer);
            }
            What::TwinAges { twins, arriving, p50_ms, p99_ms, each } if self.knows([&event.node]) => {
                self.twin_ages.insert(event.node.clone(), (*twins, *p50_ms, *p99_ms));
                self.learning.arriving.insert(event.node.clone(), *arriving);
                for age in each {
                    if self.knows_user(&age.twin) {
                        self.twins.insert(age.twin.clone(), (event.node.clone(), age.clone()));
                    }
                }
            }
            What::Round(round) => {
                self.rounds = self.rounds.max(round.round);
                self.last_round = Some(round.clone());
                self.association.round_ended(round);
                self.learning.round_ended(round);
            }
            What::Association(decision) => self.association.decided(decision),
            What::Decided { round, decision_us, .. } => self.association.acted(*round, *decision_us),
            What::LocalModel(model) if self.knows([&event.node]) => {
                self.association.trained(model);
                self.learning.trained(&event.node, model);
            }
            What::TrainingAbandoned(abandoned) if self.knows([&event.node]) => {
                self.learning.abandoned(abandoned);
            }
            What::TwinMoved(twin) if self.knows([&twin.from, &twin.to]) => self.learning.moved(twin),
            What::Verification(finding) if self.knows([&event.node, &finding.owner]) => {
                self.learning.verified(&event.node, finding);
            }
            What::GlobalModel(model) => self.learning.globalised(model),
            What::ChainProgress(report)
                if self.knows([&event.node]) && report.missed.iter().all(|(bs, _)| self.knows([bs])) =>
            {
                self.chain.progress(&event.node, event.at_ns, report);
            }
            What::ChainBlocks { blocks, .. } => {
                self.association.finalized(blocks);
                self.learning.finalized(blocks);
                self.chain.finalized(&event.node, blocks);
            }
            What::ChainConflict { height, text } => {
                self.chain.conflict(*height, &format!("{}: {text}", event.node));
            }
            What::Fidelity(fidelity) => self.fidelity = fidelity.clone(),
            What::Notice { level, text } => {
                if self.notices.len() == NOTICES_MAX {
                    self.notices.pop_front();
                }
                self.notices.push_back((event.at_ns, event.node.clone(), *level, text.clone()));
            }
            What::Ended { reason } => self.ended = Some(reason.clone()),
            What::Transfer(_)
            | What::TwinAges { .. }
            | What::LocalModel(_)
            | What::TrainingAbandoned(_)
            | What::TwinMoved(_)
            | What::Verification(_)
            | What::ChainProgress(_) => self.strange += 1,
            What::Partitioned { .. } | What::Healed | What::NodePoisoned { .. } => {}
        }
    }

    /// Whether nodes are of this network.
    fn knows<const N: usize>(&self, nodes: [&String; N]) -> bool {
        nodes.into_iter().all(|node| self.nodes.contains_key(node))
    }

    /// Whether a group of this network has such a user.
    fn knows_user(&self, name: &str) -> bool {
        let Some((group, number)) = name.rsplit_once('.') else { return false };
        let users = self.nodes.get(group).map_or(0, |group| group.info.users);
        number.parse().is_ok_and(|n: u32| (1..=users).contains(&n) && n.to_string() == number)
    }

    fn begin(&mut self, started: &SessionStarted) {
        for info in &started.nodes {
            self.nodes.insert(
                info.name.clone(),
                NodeState {
                    info: info.clone(),
                    phase: Phase::Starting,
                    pid: None,
                    last_pid: None,
                    exit: None,
                    exit_expected: false,
                    restarts: 0,
                    used: NodeCounters { node: info.name.clone(), ..NodeCounters::default() },
                    rss_peak_bytes: 0,
                    cpu_before_s: 0.0,
                },
            );
        }
        started.links.iter().for_each(|link| self.add_link(link));
        self.started = Some(started.clone());
    }

    fn add_link(&mut self, info: &LinkInfo) {
        let counters = LinkCounters { link: info.name.clone(), ..LinkCounters::default() };
        self.links.insert(info.name.clone(), LinkState { info: info.clone(), counters });
    }

    fn add_transfer(&mut self, transfer: &Transfer) {
        let stats = self.transfers.entry(transfer.kind.clone()).or_insert_with(|| TransferStats {
            count: 0,
            bytes: 0,
            measured_us: histogram(),
            predicted_us: histogram(),
        });
        stats.count += 1;
        stats.bytes += transfer.bytes;
        stats.measured_us.saturating_record((transfer.measured_ms.max(0.0) * 1000.0) as u64);
        stats.predicted_us.saturating_record((transfer.predicted_ms.max(0.0) * 1000.0) as u64);
    }

    fn set_phase(&mut self, node: &str, phase: Phase) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.phase = phase;
        }
    }

    fn count_gap(&mut self, event: &Event) {
        if event.node != SESSION && !self.knows([&event.node]) {
            return;
        }
        let expected = self.sequences.get(&event.node).map_or(0, |last| last + 1);
        if event.sequence > expected {
            self.events_lost += event.sequence - expected;
        }
        self.sequences.insert(event.node.clone(), event.sequence);
    }
}

/// Microseconds up to an hour with three digits.
fn histogram() -> Histogram<u64> {
    const HOUR_US: u64 = 3_600_000_000;
    Histogram::new_with_bounds(1, HOUR_US, 3).unwrap_or_else(|_| {
        // Only invalid bounds make this fail, and these are constants; an empty auto-resizing histogram serves as well.
        Histogram::new(3).unwrap_or_else(|_| unreachable!("three digits are always accepted"))
    })
}

#[cfg(test)]
mod tests {
    use dtwn_proto::event::{ChainProgress, LocalModel, TwinMoved, Verification};

    use super::*;

    #[test]
    fn what_is_not_in_the_network_is_not_kept() {
        let info = |name: &str| NodeInfo {
            name: name.into(),
            role: "bs".into(),
            address: "10.0.1.1".into(),
            users: 0,
        };
        let started = SessionStarted {
            name: "small".into(),
            seed: 1,
            dilation: 1.0,
            version: "0.1.0".into(),
            nodes: vec![info("bs1"), info("bs2")],
            links: vec![],
        };
        let mut state = RunState::default();
        state.begin(&started);
        let empty = state.clone();
        let local = r#"{"round":1,"twins":1,"samples":1,"loss":1.0,"held_out_loss":null,"held_out_accuracy":0.5,
            "bytes":1,"train_wall_ms":1.0,"aggregate_wall_ms":1.0,"train_ms":1.0,"predicted_ms":1.0,"overrun_ms":0.0}"#;
        let local: LocalModel = serde_json::from_str(local).unwrap();
        let whats = |kind: &str, other: &str| {
            let (kind, from, to) = (kind.to_owned(), other.to_owned(), "bs1".to_owned());
            let finding = serde_json::json!({"round": 1, "owner": other, "verify_wall_ms": 1.0});
            let finding: Verification = serde_json::from_value(finding).unwrap();
            let missed = vec![(other.to_owned(), 1)];
            [
                What::Transfer(Transfer {
                    kind,
                    from: other.into(),
                    to: "bs1".into(),
                    bytes: 1,
                    measured_ms: 1.0,
                    predicted_ms: 1.0,
                }),
                What::TwinMoved(TwinMoved {
                    twin: "ug1.1".into(),
                    from,
                    to,
                    epoch: 2,
                    from_round: 1,
                    samples: 1,
                    bytes: 1,
                    took_ms: 1.0,
                }),
                What::Verification(finding),
                What::ChainProgress(Box::new(ChainProgress { missed, ..ChainProgress::default() })),
            ]
        };
        let mut sequence = 0;
        let mut apply = |state: &mut RunState, node: &str, what: What| {
            sequence += 1;
            state.apply(&Event { node: node.into(), sequence, at_ns: 0, wall_unix_ns: 0, what });
        };
        for name in (0..100).map(|number| format!("x{number}")) {
            for what in whats(&name, &name) {
                apply(&mut state, "bs1", what);
            }
            apply(&mut state, &name, What::LocalModel(local.clone()));
        }
        let (lost, strange) = (state.events_lost, state.strange);
        assert_eq!(strange, 500);
        let sequences = BTreeMap::from([("bs1".to_owned(), 499)]);
        assert_eq!(state, RunState { events_lost: lost, strange, sequences, ..empty });
        for what in whats("twin-move", "bs2") {
            apply(&mut state, "bs1", what);
        }
        apply(&mut state, "bs2", What::LocalModel(local));
        assert_eq!((state.strange, state.transfers.len(), state.learning.moved), (500, 1, 1));
        assert_eq!(
            (state.learning.findings.len(), state.learning.locals.len(), state.chain.lanes.len()),
            (1, 1, 1)
        );
    }
}
