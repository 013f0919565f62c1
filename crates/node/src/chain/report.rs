//! What a node reports of its chain, in batches.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dtwn_chain::{
    block::Block,
    core::{Core, Event},
    state::State,
    tx::Payload,
    types::{Digest, Height, Micros, ReplicaId},
    vote::Certificate,
};
use dtwn_proto::event::{ChainBlock, ChainElection, ChainOffence, ChainProgress, What, bucket};

use crate::agent::Reporter;

/// Blocks told one by one in a report.
const BLOCKS_MAX: usize = 64;
/// Own proposals whose finalization is waited for; older ones are forgotten.
const PROPOSALS_MAX: usize = 1024;
/// Submissions whose finalization is waited for. The chain's own bounds on what waits are lower.
const SUBMISSIONS_MAX: usize = 1 << 16;
/// Conflicts reported by a process: one is as bad as many.
const CONFLICTS_MAX: u32 = 16;

/// See the module.
pub(super) struct Report {
    reporter: Reporter,
    names: Vec<String>,
    me: Option<ReplicaId>,
    /// Payloads that the handle could not queue, since the start.
    dropped: Arc<AtomicU64>,
    dropped_before: u64,
    progress: ChainProgress,
    finality: BTreeMap<u64, u64>,
    block_finality: BTreeMap<u64, u64>,
    blocks: Vec<ChainBlock>,
    skipped: u64,
    /// Own transactions that wait for a block: sequence number and when they were submitted.
    submitted: HashMap<u64, Micros>,
    /// Own proposals that wait for their finalization.
    proposed: HashMap<Digest, (Height, Micros)>,
    missed_before: Vec<u64>,
    coins_before: Vec<u64>,
    epoch_before: Option<u64>,
    round_before: (u64, u64),
    conflicts: u32,
}

impl Report {
    pub(super) fn new(
        reporter: Reporter,
        names: Vec<String>,
        me: Option<ReplicaId>,
        state: &State,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        Self {
            reporter,
            names,
            me,
            dropped,
            dropped_before: 0,
            progress: ChainProgress::default(),
            finality: BTreeMap::new(),
            block_finality: BTreeMap::new(),
            blocks: Vec::new(),
            skipped: 0,
            submitted: HashMap::new(),
            proposed: HashMap::new(),
            missed_before: state.accounts.iter().map(|account| account.missed_total).collect(),
            coins_before: Vec::new(),
            epoch_before: None,
            round_before: (0, 0),
            conflicts: 0,
        }
    }

    /// Takes note of an event of the core at `now_us`. `submitted_us`: when what the core is handling was submitted.
    pub(super) fn note(&mut self, event: &Event, now_us: Micros, submitted_us: Option<Micros>) {
        match event {
            Event::Committed { block, state, certificate } => {
                self.committed(block, state, certificate.as_deref(), now_us);
            }
            Event::Entered { .. } => self.progress.views += 1,
            Event::Nullified { .. } => self.progress.nullified += 1,
            Event::Proposed { block, .. } => {
                // A boundary block that is proposed again counts from its first time.
                if self.proposed.len() < PROPOSALS_MAX {
                    let height = block.header().height;
                    self.proposed.entry(block.digest()).or_insert((height, now_us));
                }
            }
            Event::Invalid { from, what } => {
                self.progress.invalid += 1;
                tracing::debug!(?from, what, "refused a message of the chain");
            }
            Event::Equivocation(evidence) => {
                let (epoch, view, offender) = evidence.offence();
                tracing::warn!(offender = self.name(offender), epoch, view, "a base station voted twice");
            }
            Event::Conflict(certificate) => self.conflict(certificate),
            Event::Submitted(transaction) => {
                self.progress.submitted += 1;
                if let Some(at) = submitted_us
                    && self.submitted.len() < SUBMISSIONS_MAX
                {
                    self.submitted.insert(transaction.sequence, at);
                }
            }
            Event::Rejected { reason, .. } => {
                self.progress.rejected += 1;
                tracing::debug!(reason, "a payload cannot be recorded");
            }
        }
    }

    /// A message of another node that is none of the chain's.
    pub(super) fn refused(&mut self) {
        self.progress.invalid += 1;
    }

    fn committed(&mut self, block: &Block, state: &State, certificate: Option<&Certificate>, now_us: Micros) {
        let bytes = block.body_bytes() as u64;
        self.progress.blocks += 1;
        self.progress.transactions += block.transactions().len() as u64;
        self.progress.transaction_bytes += bytes;
        for transaction in block.transactions() {
            if Some(transaction.signer) == self.me {
                self.progress.finalized += 1;
                if let Some(at) = self.submitted.remove(&transaction.sequence) {
                    *self.finality.entry(bucket(now_us.saturating_sub(at))).or_default() += 1;
                }
            }
            if let Payload::Evidence(evidence) = &transaction.payload {
                let (epoch, view, offender) = evidence.offence();
                let offender = self.name(offender).to_owned();
                self.progress.evidence.push(ChainOffence { offender, epoch, view });
            }
        }
        let header = block.header();
        let proposed = self.proposed.remove(&block.digest());
        let finality_us = proposed.map(|(_, at)| now_us.saturating_sub(at));
        if let Some(us) = finality_us {
            *self.block_finality.entry(bucket(us)).or_default() += 1;
        }
        self.proposed.retain(|_, (height, _)| *height > header.height);
        self.note_accounts(state);
        // The MBS, which follows, tells of all blocks, a BS of those it built.
        if self.me.is_none() || self.me == Some(header.leader) {
            if self.blocks.len() == BLOCKS_MAX {
                self.blocks.remove(0);
                self.skipped += 1;
            }
            let signers = certificate.iter().flat_map(|held| &held.signatures).map(|(id, _)| id.0).collect();
            let models = block.transactions().iter();
            let models = models.filter(|held| matches!(held.payload, Payload::TrainingModel { .. })).count();
            self.blocks.push(ChainBlock {
                models: u32::try_from(models).unwrap_or(u32::MAX),
                height: header.height,
                epoch: header.epoch,
                view: header.view,
                leader: self.name(header.leader).to_owned(),
                digest: short(&block.digest()),
                transactions: u32::try_from(block.transactions().len()).unwrap_or(u32::MAX),
                bytes,
                signers,
                finalized_at_ns: now_us.saturating_mul(1000),
                finality_ms: finality_us.map(|us| us as f64 / 1000.0),
            });
        }
    }

    fn note_accounts(&mut self, state: &State) {
        for (index, account) in state.accounts.iter().enumerate() {
            let Some(before) = self.missed_before.get_mut(index) else { continue };
            let more = account.missed_total.saturating_sub(*before);
            *before = account.missed_total;
            if more > 0 {
                let name = &self.names[index];
                match self.progress.missed.iter_mut().find(|(missed, _)| missed == name) {
                    Some((_, count)) => *count += more,
                    None => self.progress.missed.push((name.clone(), more)),
                }
            }
        }
    }

    fn conflict(&mut self, certificate: &Certificate) {
        let height = certificate.statement.proposal().map_or(0, |proposal| proposal.height);
        let text = format!("a certificate contradicts what this node finalized: {:?}", certificate.statement);
        tracing::error!(height, text, "the chain contradicts itself");
        if self.conflicts < CONFLICTS_MAX {
            self.conflicts += 1;
            self.reporter.event(What::ChainConflict { height, text });
        }
    }

    /// Sends what has come together since the last time, if anything has.
    pub(super) fn flush(&mut self, core: &Core) {
        let round = core.round();
        let dropped = self.dropped.load(Ordering::Relaxed);
        let state = core.state();
        let quiet = self.progress == ChainProgress::default()
            && dropped == self.dropped_before
            && round == self.round_before
            && self.epoch_before == Some(state.epoch);
        if quiet {
            return;
        }
        self.round_before = round;
        let mut progress = std::mem::take(&mut self.progress);
        progress.height = state.height;
        progress.tip = if state.height == 0 { String::new() } else { short(&state.block) };
        (progress.epoch, progress.view) = round;
        progress.mempool_transactions = core.mempool().len() as u64;
        progress.mempool_bytes = core.mempool().bytes() as u64;
        progress.dropped = dropped - self.dropped_before;
        self.dropped_before = dropped;
        progress.finality_us = std::mem::take(&mut self.finality).into_iter().collect();
        progress.block_finality_us = std::mem::take(&mut self.block_finality).into_iter().collect();
        if self.epoch_before != Some(state.epoch) {
            self.epoch_before = Some(state.epoch);
            let producers = &state.producers.members;
            progress.election = Some(ChainElection {
                epoch: state.epoch,
                producers: producers.iter().map(|id| self.name(*id).to_owned()).collect(),
            });
        }
        let coins: Vec<u64> = state.accounts.iter().map(|account| account.coins).collect();
        if coins != self.coins_before {
            progress.coins.clone_from(&coins);
            self.coins_before = coins;
        }
        self.reporter.event(What::ChainProgress(Box::new(progress)));
        let blocks = std::mem::take(&mut self.blocks);
        if !blocks.is_empty() {
            self.reporter.event(What::ChainBlocks { blocks, skipped: std::mem::take(&mut self.skipped) });
        }
    }

    fn name(&self, id: ReplicaId) -> &str {
        self.names.get(id.index()).map_or("nobody", String::as_str)
    }
}

/// The first 16 hexadecimal digits of a digest.
fn short(digest: &Digest) -> String {
    let mut text = digest.to_hex();
    text.truncate(16);
    text
}
