//! What must hold after every step.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::block::SharedBlock;
use crate::genesis::Registry;
use crate::state::State;
use crate::tx::Payload;
use crate::types::{Digest, Epoch, Height, ReplicaId, View};
use crate::vote::{Certificate, Statement, Vote};

/// The view from outside of everything that replicas following the rules do.
pub(super) struct Invariants {
    registry: Arc<Registry>,
    /// The one finalized chain.
    chain: Vec<Digest>,
    /// The state after it, by full execution with all signatures checked.
    state: State,
    /// Identifiers of finalized transactions.
    transactions: HashSet<Digest>,
    /// Replicas that follow the rules.
    honest: Vec<ReplicaId>,
    finalized: HashMap<(Epoch, View), Digest>,
    nullified: HashSet<(Epoch, View)>,
    /// Proposals that some replica following the rules knows to be notarized or finalized.
    certified: HashSet<(Epoch, View)>,
    /// Votes that replicas following the rules sent, over all their incarnations.
    votes: HashMap<(ReplicaId, Epoch, View), Vec<Statement>>,
    /// Height of each process.
    heights: BTreeMap<usize, Height>,
    pub(super) evidence: u64,
}

impl Invariants {
    pub(super) fn new(registry: Arc<Registry>, honest: Vec<ReplicaId>) -> Self {
        Self {
            state: State::genesis(&registry),
            registry,
            chain: Vec::new(),
            transactions: HashSet::new(),
            honest,
            finalized: HashMap::new(),
            nullified: HashSet::new(),
            certified: HashSet::new(),
            votes: HashMap::new(),
            heights: BTreeMap::new(),
            evidence: 0,
        }
    }

    pub(super) fn height(&self) -> Height {
        self.state.height
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn transactions(&self) -> usize {
        self.transactions.len()
    }

    /// A process came back from its disk with a chain of this height.
    pub(super) fn restarted(&mut self, process: usize, state: &State) -> Result<(), String> {
        if state.height > 0 && self.chain.get(state.height as usize - 1) != Some(&state.block) {
            return Err(format!(
                "agreement: a restarted replica has another block at height {}",
                state.height
            ));
        }
        self.heights.insert(process, state.height);
        Ok(())
    }

    /// A process that follows the rules finalized a block.
    pub(super) fn committed(
        &mut self,
        process: usize,
        block: &SharedBlock,
        state: &State,
    ) -> Result<(), String> {
        let height = block.header().height;
        let before = self.heights.insert(process, height).unwrap_or(0);
        if height != before + 1 {
            return Err(format!("monotone heights: height {height} followed height {before}"));
        }
        if !state.conserves_coins() {
            return Err(format!("coin conservation: broken at height {height}"));
        }
        match self.chain.get(height as usize - 1) {
            Some(digest) if *digest == block.digest() => Ok(()),
            Some(digest) => {
                Err(format!("agreement: at height {height} both {digest} and {} are final", block.digest()))
            }
            None => self.extend(block),
        }
    }

    /// The first replica to finalize a height: everything about the block is checked from scratch.
    fn extend(&mut self, block: &SharedBlock) -> Result<(), String> {
        let transactions = block.transactions();
        if !self.registry.verify_transactions(transactions.iter().map(Arc::as_ref)) {
            return Err(format!("valid transactions: a signature in block {} is not valid", block.digest()));
        }
        self.state = self
            .state
            .apply(&self.registry, block)
            .map_err(|error| format!("valid transactions: {error}"))?;
        for transaction in transactions {
            let id = transaction.id(self.registry.chain());
            if !self.transactions.insert(id) {
                return Err(format!("unique transactions: {id} was finalized twice"));
            }
            if let Payload::Evidence(evidence) = &transaction.payload {
                self.evidence += 1;
                let (_, view, offender) = evidence.offence();
                if self.honest.contains(&offender) {
                    return Err(format!("honest replicas: {offender} was punished for view {view}"));
                }
            }
        }
        self.chain.push(block.digest());
        Ok(())
    }

    /// A process that follows the rules accepted a certificate.
    pub(super) fn certified(&mut self, certificate: &Certificate) -> Result<(), String> {
        let round = certificate.statement.round();
        match certificate.statement {
            Statement::Nullify { .. } => {
                self.nullified.insert(round);
            }
            Statement::Finalize(proposal) => {
                self.certified.insert(round);
                if let Some(other) =
                    self.finalized.insert(round, proposal.block).filter(|d| *d != proposal.block)
                {
                    return Err(format!(
                        "agreement: in view {} both {other} and {} are final",
                        round.1, proposal.block
                    ));
                }
            }
            Statement::Notarize(_) => {
                self.certified.insert(round);
                return Ok(());
            }
        }
        if self.finalized.contains_key(&round) && self.nullified.contains(&round) {
            return Err(format!("no finalized view nullified: epoch {}, view {} is both", round.0, round.1));
        }
        Ok(())
    }

    /// A process that follows the rules sent a vote.
    pub(super) fn voted(&mut self, vote: &Vote) -> Result<(), String> {
        let (epoch, view) = vote.statement.round();
        let earlier = self.votes.entry((vote.signer, epoch, view)).or_default();
        if let Some(other) = earlier.iter().find(|other| other.conflicts_with(&vote.statement)) {
            return Err(format!(
                "honest replicas: {} contradicts itself in epoch {epoch}, view {view}: {other:?} and {:?}",
                vote.signer, vote.statement
            ));
        }
        if !earlier.contains(&vote.statement) {
            earlier.push(vote.statement);
        }
        self.justified(vote)
    }

    /// A vote to notarize needs a certified parent and nullifications of all views between; whoever sends it holds
    /// them, so they have been seen here.
    fn justified(&self, vote: &Vote) -> Result<(), String> {
        let Statement::Notarize(proposal) = vote.statement else { return Ok(()) };
        let epoch = proposal.epoch;
        let parent = proposal.parent_view == 0 || self.certified.contains(&(epoch, proposal.parent_view));
        let gap =
            (proposal.parent_view + 1..proposal.view).find(|view| !self.nullified.contains(&(epoch, *view)));
        match gap {
            _ if !parent => Err(format!(
                "justified votes: {} voted in epoch {epoch}, view {} on view {}, which nothing certifies",
                vote.signer, proposal.view, proposal.parent_view
            )),
            Some(gap) => Err(format!(
                "justified votes: {} voted in epoch {epoch}, view {} across view {gap}, which is not nullified",
                vote.signer, proposal.view
            )),
            None => Ok(()),
        }
    }
}
