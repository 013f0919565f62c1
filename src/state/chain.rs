//! The chain as a fold over what nodes report of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dtwn_proto::event::{ChainBlock, ChainElection, ChainOffence, ChainProgress};
use hdrhistogram::Histogram;
use indexmap::IndexMap;

use super::histogram;

/// Blocks kept, the highest; older ones are in the nodes' stores.
const BLOCKS_MAX: usize = 200;
/// Conflicts and offences kept; all are counted.
const KEPT_MAX: usize = 1000;

/// What is known of the chain. Its size depends on the network, never on the run's length.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainState {
    /// The nodes that keep the chain, by name, as they first reported.
    pub lanes: IndexMap<String, ChainLane>,
    /// The latest finalized blocks by height, at most 200.
    pub blocks: BTreeMap<u64, ChainBlock>,
    /// The latest election.
    pub election: ChainElection,
    /// Micro-coins of each BS, in the order of the topology, at the highest height that reported them.
    pub coins: Vec<u64>,
    /// Offences proved in blocks.
    pub evidence: BTreeSet<ChainOffence>,
    /// The latest contradictions: height and what contradicts what.
    pub conflicts: VecDeque<(u64, String)>,
    /// How many there were.
    pub conflict_count: u64,
    /// Emulated nanoseconds of the first and the last report.
    pub span_ns: Option<(i64, i64)>,
    coins_height: u64,
    finality_us: Histogram<u64>,
    block_finality_us: Histogram<u64>,
}

/// One node's chain.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChainLane {
    /// Finalized height.
    pub height: u64,
    /// First digits of the digest there.
    pub tip: String,
    /// Current epoch.
    pub epoch: u64,
    /// Current view.
    pub view: u64,
    /// Transactions waiting.
    pub mempool_transactions: u64,
    /// Their bytes.
    pub mempool_bytes: u64,
    /// Views entered.
    pub views: u64,
    /// Views seen nullified.
    pub nullified: u64,
    /// Blocks finalized.
    pub blocks: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Their bytes.
    pub transaction_bytes: u64,
    /// Views without a block in the finalized chain, by the BS that led them.
    pub missed: BTreeMap<String, u64>,
    /// Own transactions: submitted, finalized, rejected, dropped.
    pub submitted: u64,
    /// Own transactions finalized.
    pub finalized: u64,
    /// Payloads that could not be recorded.
    pub rejected: u64,
    /// Payloads that the node was too busy to look at.
    pub dropped: u64,
    /// Messages refused.
    pub invalid: u64,
    /// Emulated time of its last report, nanoseconds.
    pub reported_ns: i64,
}

impl Default for ChainState {
    fn default() -> Self {
        Self {
            lanes: IndexMap::new(),
            blocks: BTreeMap::new(),
            election: ChainElection::default(),
            coins: Vec::new(),
            evidence: BTreeSet::new(),
            conflicts: VecDeque::new(),
            conflict_count: 0,
            span_ns: None,
            coins_height: 0,
            finality_us: histogram(),
            block_finality_us: histogram(),
        }
    }
}

impl ChainState {
    /// Whether any node has reported a chain.
    pub fn is_on(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// The highest finalized height.
    pub fn height(&self) -> u64 {
        self.most(|lane| lane.height)
    }

    /// Views entered, by the node that entered most.
    pub fn views(&self) -> u64 {
        self.most(|lane| lane.views)
    }

    /// Views nullified, by the node that saw most of them.
    pub fn nullified(&self) -> u64 {
        self.most(|lane| lane.nullified)
    }

    /// Transactions finalized, by the node that saw most of them.
    pub fn transactions(&self) -> u64 {
        self.most(|lane| lane.transactions)
    }

    /// Transactions finalized for each emulated second of the chain.
    pub fn transactions_per_s(&self) -> f64 {
        let seconds = self.span_ns.map_or(0.0, |(first, last)| (last - first) as f64 / 1e9);
        if seconds > 0.0 { self.transactions() as f64 / seconds } else { 0.0 }
    }

    /// Views that left no block in the finalized chain, by the BS that led them.
    pub fn missed(&self) -> BTreeMap<String, u64> {
        let mut most = BTreeMap::<String, u64>::new();
        for (name, count) in self.lanes.values().flat_map(|lane| &lane.missed) {
            let held = most.entry(name.clone()).or_default();
            *held = (*held).max(*count);
        }
        most
    }

    /// A quantile of the time from a transaction's submission to its finalization where it was submitted, emulated
    /// milliseconds; `None` before the first.
    pub fn finality_ms(&self, quantile: f64) -> Option<f64> {
        quantile_ms(&self.finality_us, quantile)
    }

    /// A quantile of the time from a proposal to its finalization at the leader, emulated milliseconds; `None` before the
    /// first.
    pub fn block_finality_ms(&self, quantile: f64) -> Option<f64> {
        quantile_ms(&self.block_finality_us, quantile)
    }

    fn most(&self, of: impl Fn(&ChainLane) -> u64) -> u64 {
        self.lanes.values().map(of).max().unwrap_or(0)
    }

    pub(super) fn progress(&mut self, node: &str, at_ns: i64, report: &ChainProgress) {
        let (first, last) = self.span_ns.unwrap_or((at_ns, at_ns));
        self.span_ns = Some((first.min(at_ns), last.max(at_ns)));
        if let Some(block) = self.blocks.get(&report.height)
            && block.digest != report.tip
        {
            let text = format!("{node} finalized {}, {} reported {}", report.tip, block.leader, block.digest);
            self.conflict(report.height, &text);
        }
        let lane = self.lanes.entry(node.to_owned()).or_default();
        lane.reported_ns = at_ns;
        lane.height = report.height;
        lane.tip.clone_from(&report.tip);
        lane.epoch = report.epoch;
        lane.view = report.view;
        lane.mempool_transactions = report.mempool_transactions;
        lane.mempool_bytes = report.mempool_bytes;
        let sums = [
            (&mut lane.views, report.views),
            (&mut lane.nullified, report.nullified),
            (&mut lane.blocks, report.blocks),
            (&mut lane.transactions, report.transactions),
            (&mut lane.transaction_bytes, report.transaction_bytes),
            (&mut lane.submitted, report.submitted),
            (&mut lane.finalized, report.finalized),
            (&mut lane.rejected, report.rejected),
            (&mut lane.dropped, report.dropped),
            (&mut lane.invalid, report.invalid),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum = sum.saturating_add(more));
        for (name, count) in &report.missed {
            *lane.missed.entry(name.clone()).or_default() += count;
        }
        report.finality_us.iter().for_each(|(us, count)| self.finality_us.saturating_record_n(*us, *count));
        report
            .block_finality_us
            .iter()
            .for_each(|(us, count)| self.block_finality_us.saturating_record_n(*us, *count));
        if let Some(election) = &report.election
            && (election.epoch >= self.election.epoch || self.election.producers.is_empty())
        {
            self.election = election.clone();
        }
        if !report.coins.is_empty() && report.height >= self.coins_height {
            self.coins_height = report.height;
            self.coins.clone_from(&report.coins);
        }
        for offence in &report.evidence {
            if self.evidence.len() < KEPT_MAX {
                self.evidence.insert(offence.clone());
            }
        }
    }

    pub(super) fn finalized(&mut self, node: &str, blocks: &[ChainBlock]) {
        for block in blocks {
            match self.blocks.get_mut(&block.height) {
                Some(held) if held.digest != block.digest => {
                    let text = format!("{node} finalized {}, others {}", block.digest, held.digest);
                    self.conflict(block.height, &text);
                }
                Some(held) => {
                    // The leader knows how long it took; others may know the certificate.
                    held.finality_ms = held.finality_ms.or(block.finality_ms);
                    if held.signers.is_empty() {
                        held.signers.clone_from(&block.signers);
                    }
                }
                None => {
                    self.blocks.insert(block.height, block.clone());
                }
            }
        }
        while self.blocks.len() > BLOCKS_MAX {
            self.blocks.pop_first();
        }
    }

    pub(super) fn conflict(&mut self, height: u64, text: &str) {
        self.conflict_count += 1;
        if self.conflicts.len() == KEPT_MAX {
            self.conflicts.pop_front();
        }
        self.conflicts.push_back((height, text.to_owned()));
    }
}

fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: u64, digest: &str) -> ChainBlock {
        ChainBlock {
            height,
            epoch: 0,
            view: height,
            leader: "bs1".into(),
            digest: digest.into(),
            transactions: 1,
            bytes: 512,
            models: 0,
            signers: vec![],
            finalized_at_ns: 0,
            finality_ms: None,
        }
    }

    #[test]
    fn counts_add_up_over_reports_and_the_best_informed_node_counts() {
        let mut chain = ChainState::default();
        let report = |height, transactions| ChainProgress {
            height,
            transactions,
            missed: vec![("bs2".into(), 1)],
            finality_us: vec![(2000, 3), (50_000, 1)],
            ..ChainProgress::default()
        };
        chain.progress("bs1", 0, &report(1, 10));
        chain.progress("bs1", 2_000_000_000, &report(2, 30));
        chain.progress("bs2", 1_000_000_000, &report(1, 10));
        assert_eq!((chain.height(), chain.transactions(), chain.transactions_per_s()), (2, 40, 20.0));
        assert_eq!(chain.missed(), BTreeMap::from([("bs2".to_owned(), 2)]));
        assert!((chain.finality_ms(0.5).unwrap() - 2.0).abs() < 0.01);
        assert!((chain.finality_ms(0.99).unwrap() - 50.0).abs() < 0.1);
        assert_eq!(chain.block_finality_ms(0.5), None);
    }

    #[test]
    fn blocks_are_kept_up_to_a_bound_and_told_twice_are_one() {
        let mut chain = ChainState::default();
        let all: Vec<_> = (1..=500).map(|height| block(height, &height.to_string())).collect();
        chain.finalized("mbs", &all);
        let led = ChainBlock { finality_ms: Some(3.0), ..block(500, "500") };
        chain.finalized("bs1", &[led]);
        assert_eq!((chain.blocks.len(), chain.conflict_count), (BLOCKS_MAX, 0));
        assert_eq!(chain.blocks[&500].finality_ms, Some(3.0));
    }

    #[test]
    fn different_blocks_at_one_height_are_a_conflict() {
        let mut chain = ChainState::default();
        chain.finalized("mbs", &[block(7, "aa")]);
        chain.finalized("bs1", &[block(7, "bb")]);
        chain.progress("bs2", 0, &ChainProgress { height: 7, tip: "cc".into(), ..ChainProgress::default() });
        assert_eq!(chain.conflict_count, 2);
        assert!(chain.conflicts.iter().all(|(height, _)| *height == 7));
    }
}
