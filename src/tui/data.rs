//! What the screens read: the run's state, and histories that the state itself does not keep. A fold over events, bounded.

use std::collections::{HashMap, VecDeque};

use dtwn_proto::event::{Event, Level, LinkCounters, LinkInfo, Round, Sample, What};
use indexmap::IndexMap;

use super::format;
use crate::state::RunState;

/// Samples kept a series: ten minutes at one a second of wall time.
const SERIES_MAX: usize = 600;
/// Samples over which a link's loss is measured.
const SEEN_WINDOW: usize = 30;
/// Timeline entries kept; older ones stay in the event file.
const TIMELINE_MAX: usize = 2000;
/// Rounds kept; older ones stay in the event file.
const ROUNDS_MAX: usize = 256;
/// Characters kept of a text that came from elsewhere.
const TEXT_MAX: usize = 400;

/// A bounded history of one figure, the newest value last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series(VecDeque<f64>);

impl Series {
    fn push(&mut self, value: f64) {
        if self.0.len() == SERIES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(if value.is_finite() { value } else { 0.0 });
    }

    /// The newest value, 0 when there is none.
    pub fn last(&self) -> f64 {
        self.0.back().copied().unwrap_or(0.0)
    }

    /// The newest `count` values, the oldest first.
    pub fn tail(&self, count: usize) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().skip(self.0.len().saturating_sub(count)).copied()
    }
}

/// A link's past.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkHistory {
    /// Delivered, emulated bit/s.
    pub carried_bps: Series,
    /// Busy share of the transmitter, 0 to 1.
    pub busy: Series,
    sent: Series,
    lost: Series,
}

impl LinkHistory {
    /// The share of packets that did not arrive, over the last half minute; `None` when nothing was sent.
    pub fn loss_seen(&self) -> Option<f64> {
        let sent: f64 = self.sent.tail(SEEN_WINDOW).sum();
        let lost: f64 = self.lost.tail(SEEN_WINDOW).sum();
        // A packet may be counted as sent in one sample and as lost in the next.
        (sent > 0.0).then(|| (lost / sent).min(1.0))
    }

    /// Packets sent in each sample.
    pub fn sent(&self) -> &Series {
        &self.sent
    }

    /// Packets lost in each sample.
    pub fn lost(&self) -> &Series {
        &self.lost
    }
}

/// A node's past.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeHistory {
    /// CPU used, share of one core of wall time.
    pub cpu: Series,
    used_s: f64,
}

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Emulated nanoseconds.
    pub at_ns: i64,
    /// Who it is about.
    pub subject: String,
    /// How grave it is.
    pub level: Level,
    /// What happened, in words.
    pub text: String,
}

/// A disturbance in force that can be undone.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Groups of nodes cannot reach each other; or only the first group cannot reach the others (one way).
    Partition(Vec<Vec<String>>, bool),
    /// A link is not as the topology has it: as it is now, and as it was.
    Link(Box<LinkInfo>, Option<Box<LinkInfo>>),
    /// A node is stopped.
    Paused(String),
    /// A node has no process.
    Exited(String),
    /// A BS spoils its models: how.
    Poisoned(String, String),
}

impl Fault {
    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Self::Partition(groups, one_way) => {
                let groups: Vec<_> = groups.iter().map(|group| group.join(",")).collect();
                format!("partition {}{}", groups.join(" : "), if *one_way { ", one way" } else { "" })
            }
            Self::Link(now, was) => {
                let mut words = Vec::new();
                let mut add = |name: &str, differs: bool, value: String| {
                    if differs {
                        words.push(format!("{name} {value}"));
                    }
                };
                let was = was.as_deref();
                add("", !now.up, "down".into());
                add("loss", was.is_none_or(|was| was.loss != now.loss), format::percent(now.loss));
                add("delay", was.is_none_or(|was| was.delay_ms != now.delay_ms), format::ms(now.delay_ms));
                add(
                    "jitter",
                    was.is_some_and(|was| was.jitter_ms != now.jitter_ms),
                    format::ms(now.jitter_ms),
                );
                let rate = |info: &LinkInfo| info.rate_bps.map(f64::round);
                add(
                    "rate",
                    was.is_some_and(|was| rate(was) != rate(now)),
                    now.rate_bps.map_or("unlimited".into(), format::bps),
                );
                format!("{}: {}", now.name, words.join(", ").trim_start())
            }
            Self::Paused(node) => format!("{node} is paused"),
            Self::Exited(node) => format!("{node} has no process"),
            Self::Poisoned(node, kind) => format!("{node} spoils its models: {kind}"),
        }
    }
}

/// Everything about a run that the screens show. Cloned to freeze the screen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Data {
    /// The state that every view of a run shares.
    pub run: RunState,
    /// By link.
    pub links: HashMap<String, LinkHistory>,
    /// By node.
    pub nodes: HashMap<String, NodeHistory>,
    /// Delivered over all links together, emulated bit/s.
    pub carried_bps: Series,
    /// 99th percentile of the lateness of deliveries, emulated microseconds.
    pub lateness_us: Series,
    /// CPU of the session process, share of one core.
    pub session_cpu: Series,
    /// What happened, the newest last.
    pub timeline: VecDeque<Entry>,
    /// Rounds that ended, the newest last.
    pub rounds: VecDeque<Round>,
    /// Partitions in force.
    pub partitions: Vec<(Vec<Vec<String>>, bool)>,
    /// Events that this viewer was too slow for.
    pub skipped: u64,
    /// BSs that were told to spoil their models, and how.
    poisoned: IndexMap<String, String>,
    baseline: IndexMap<String, LinkInfo>,
    first_wall_ns: Option<u64>,
    last_wall_ns: u64,
    sampled_at: Option<(i64, u64)>,
}

impl Data {
    /// Takes one more event into account.
    pub fn apply(&mut self, event: &Event) {
        self.first_wall_ns.get_or_insert(event.wall_unix_ns);
        self.last_wall_ns = self.last_wall_ns.max(event.wall_unix_ns);
        let mut wall_s = None;
        match &event.what {
            What::SessionStarted(started) => {
                self.baseline = started.links.iter().map(|link| (link.name.clone(), link.clone())).collect();
            }
            What::Sample(sample) => wall_s = self.sample(event, sample),
            What::Partitioned { groups, one_way } => self.partitions.push((groups.clone(), *one_way)),
            What::Healed => self.partitions.clear(),
            What::NodePoisoned { node, kind: Some(kind) } => {
                self.poisoned.insert(node.clone(), kind.clone());
            }
            What::NodePoisoned { node, kind: None } => drop(self.poisoned.shift_remove(node)),
            What::Round(round) => {
                if self.rounds.len() == ROUNDS_MAX {
                    self.rounds.pop_front();
                }
                self.rounds.push_back(round.clone());
            }
            What::LinkChanged { link, .. } if !self.baseline.contains_key(link) => {}
            What::Rates { rates, .. } => {
                // Fading is no fault: the rate that an undo goes back to follows the channel.
                for (link, rate_bps) in rates {
                    if let Some(link) = self.baseline.get_mut(link) {
                        link.rate_bps = Some(*rate_bps);
                    }
                }
            }
            _ => {}
        }
        self.note(event);
        self.run.apply(event);
        if let Some(wall_s) = wall_s {
            self.sample_nodes(wall_s);
        }
    }

    /// Wall seconds from the first event to the last.
    pub fn wall_s(&self) -> f64 {
        self.last_wall_ns.saturating_sub(self.first_wall_ns.unwrap_or(self.last_wall_ns)) as f64 / 1e9
    }

    /// What is disturbed now and can be put right.
    pub fn faults(&self) -> Vec<Fault> {
        use crate::state::Phase;
        let mut faults: Vec<_> = self
            .partitions
            .iter()
            .cloned()
            .map(|(groups, one_way)| Fault::Partition(groups, one_way))
            .collect();
        for node in self.run.nodes.values() {
            match node.phase {
                Phase::Paused => faults.push(Fault::Paused(node.info.name.clone())),
                Phase::Exited => faults.push(Fault::Exited(node.info.name.clone())),
                _ => {}
            }
        }
        let poisoned = self.poisoned.iter();
        faults.extend(poisoned.map(|(node, kind)| Fault::Poisoned(node.clone(), kind.clone())));
        for link in self.run.links.values() {
            let was = self.baseline.get(&link.info.name);
            let disturbed = match was {
                Some(was) => {
                    let rate = |info: &LinkInfo| info.rate_bps.map(f64::round);
                    let key =
                        |info: &LinkInfo| (info.up, info.loss, info.delay_ms, info.jitter_ms, rate(info));
                    key(was) != key(&link.info)
                }
                None => link.info.loss > 0.0 || link.info.delay_ms > 0.0 || !link.info.up,
            };
            if disturbed {
                faults.push(Fault::Link(Box::new(link.info.clone()), was.cloned().map(Box::new)));
            }
        }
        faults
    }

    /// Compares a sample with the one before; the wall seconds between them.
    fn sample(&mut self, event: &Event, sample: &Sample) -> Option<f64> {
        let (before_ns, before_wall_ns) =
            self.sampled_at.unwrap_or((0, self.first_wall_ns.unwrap_or(event.wall_unix_ns)));
        self.sampled_at = Some((event.at_ns, event.wall_unix_ns));
        let emulated_s = event.at_ns.saturating_sub(before_ns) as f64 / 1e9;
        let wall_s = event.wall_unix_ns.saturating_sub(before_wall_ns) as f64 / 1e9;
        if emulated_s <= 0.0 || wall_s <= 0.0 {
            return None;
        }
        let fresh: HashMap<&str, &LinkCounters> =
            sample.links.iter().map(|counters| (counters.link.as_str(), counters)).collect();
        let mut all_bits = 0.0;
        for (name, link) in &self.run.links {
            let history = self.links.entry(name.clone()).or_default();
            let (bits, busy, sent, lost) = match fresh.get(name.as_str()) {
                Some(now) => {
                    let old = &link.counters;
                    (
                        now.bytes.saturating_sub(old.bytes) as f64 * 8.0,
                        now.utilisation,
                        now.sent.saturating_sub(old.sent) as f64,
                        now.dropped.total().saturating_sub(old.dropped.total()) as f64,
                    )
                }
                // A link that is not in the sample did nothing since the last one.
                None => (0.0, 0.0, 0.0, 0.0),
            };
            all_bits += bits;
            history.carried_bps.push(bits / emulated_s);
            history.busy.push(busy);
            history.sent.push(sent);
            history.lost.push(lost);
        }
        self.carried_bps.push(all_bits / emulated_s);
        self.lateness_us.push(sample.lateness_us_p99);
        self.session_cpu.push((sample.session_cpu_s - self.run.session_cpu_s).max(0.0) / wall_s);
        Some(wall_s)
    }

    /// The state adds up what a node's processes used, one after another: read it once it has taken the sample.
    fn sample_nodes(&mut self, wall_s: f64) {
        for (name, node) in &self.run.nodes {
            let history = self.nodes.entry(name.clone()).or_default();
            history.cpu.push((node.used.cpu_s - history.used_s).max(0.0) / wall_s);
            history.used_s = node.used.cpu_s;
        }
    }

    fn note(&mut self, event: &Event) {
        let Some((level, subject, text)) = describe(event) else { return };
        if self.timeline.len() == TIMELINE_MAX {
            self.timeline.pop_front();
        }
        let (subject, text) = (clean(&subject), clean(&text));
        self.timeline.push_back(Entry { at_ns: event.at_ns, subject, level, text });
    }
}

/// An event in words, for the timeline; `None` for what only moves figures.
fn describe(event: &Event) -> Option<(Level, String, String)> {
    use Level::{Error, Info, Warning};
    let session = || event.node.clone();
    Some(match &event.what {
        What::SessionStarted(started) => {
            let text = format!(
                "{} nodes, {} links, seed {}",
                started.nodes.len(),
                started.links.len(),
                started.seed
            );
            (Info, session(), text)
        }
        What::Up { bringup_ms } => (Info, session(), format!("network up in {bringup_ms:.0} ms")),
        What::NodeStarted { node, pid, restarts: 0 } => (Info, node.clone(), format!("started, pid {pid}")),
        What::NodeStarted { node, pid, restarts } => {
            (Warning, node.clone(), format!("started again, pid {pid}, restart {restarts}"))
        }
        What::NodeReady { node, .. } => (Info, node.clone(), "ready".into()),
        What::NodeExited { node, exit, expected: true, .. } => {
            (Warning, node.clone(), format!("ended: {exit}"))
        }
        What::NodeExited { node, exit, last_log, .. } => {
            let last = last_log.last().map_or(String::new(), |line| format!("; its last line: {line}"));
            (Error, node.clone(), format!("ended unexpectedly: {exit}{last}"))
        }
        What::NodePaused { node, paused } => {
            (Warning, node.clone(), if *paused { "paused" } else { "goes on" }.into())
        }
        What::NodePoisoned { node, kind } => {
            let text = kind
                .as_ref()
                .map_or("spoils no models any more".into(), |kind| format!("spoils its models: {kind}"));
            (Warning, node.clone(), text)
        }
        What::LinkChanged { link, change, .. } => (Warning, link.clone(), change.clone()),
        What::Partitioned { groups, one_way } => {
            (Warning, session(), Fault::Partition(groups.clone(), *one_way).describe())
        }
        What::Healed => (Info, session(), "partitions healed".into()),
        What::Fidelity(fidelity) => {
            use dtwn_proto::event::Verdict;
            let level = match fidelity.verdict {
                Verdict::Ok => Info,
                Verdict::Degraded => Warning,
                Verdict::Invalid => Error,
            };
            let why = fidelity.reasons.first().map_or(String::new(), |reason| format!(": {reason}"));
            (level, "fidelity".into(), format!("{}{why}", fidelity.verdict))
        }
        What::Notice { level, text } => (*level, session(), text.clone()),
        What::Round(round) => {
            let missed = match round.missed_by.is_empty() {
                true => String::new(),
                false => format!(", missed by {}", round.missed_by.join(", ")),
            };
            let level = if round.missed_by.is_empty() { Info } else { Warning };
            (level, session(), format!("round {} in {:.0} ms{missed}", round.round, round.duration_ms))
        }
        What::TwinMoved(twin) => {
            let text = format!("the twin of {} came from {} in {:.0} ms", twin.twin, twin.from, twin.took_ms);
            (Info, session(), text)
        }
        What::Ended { reason } => {
            (Info, session(), format!("the run is over: {}", format::end_reason(reason)))
        }
        _ => return None,
    })
}

/// A text from outside, safe to show: no control characters, not endless.
pub fn clean(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
