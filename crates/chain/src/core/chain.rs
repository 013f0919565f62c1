//! Blocks above the finalized chain, their execution, and finalization.

use std::sync::Arc;

use super::{Anchor, Core, Event};
use crate::block::SharedBlock;
use crate::record::Record;
use crate::state::State;
use crate::types::{Digest, Height, View};
use crate::vote::{SharedCertificate, Statement};

/// A block above the finalized chain.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) block: SharedBlock,
    /// The state after it, once executed.
    state: Option<Arc<State>>,
    /// It is not valid on its parent.
    invalid: bool,
    /// It was written to the journal.
    written: bool,
}

impl Core {
    /// Keeps a block above the finalized chain. The caller bounds which: one for each leader's view, and those that
    /// certificates name.
    pub(super) fn insert_block(&mut self, block: &SharedBlock) {
        self.sync.blocks.remove(&block.digest());
        if block.header().height <= self.state.height || self.tree.contains_key(&block.digest()) {
            return;
        }
        let node = Node { block: block.clone(), state: None, invalid: false, written: false };
        self.tree.insert(block.digest(), node);
        self.dirty = true;
    }

    /// Writes a block to the journal, once.
    pub(super) fn write_block(&mut self, digest: &Digest) {
        if let Some(node) = self.tree.get_mut(digest)
            && !std::mem::replace(&mut node.written, true)
        {
            let block = node.block.clone();
            self.persist(Record::Block(block));
        }
    }

    /// Block and height that a proposal with this parent view must extend.
    pub(super) fn parent_of(&self, view: View) -> Option<(Digest, Height)> {
        if view == self.anchor.view {
            return Some((self.anchor.block, self.anchor.height));
        }
        let proposal = self.views.get(&view)?.certified()?;
        Some((proposal.block, proposal.height))
    }

    /// The state after a block, executing what is needed from the finalized chain on. Certified ancestors are
    /// executed without checking transaction signatures, which a quorum did; what is missing is asked for.
    pub(super) fn execute(&mut self, digest: &Digest) -> Option<Arc<State>> {
        let mut path = Vec::new();
        let mut at = *digest;
        let mut state = loop {
            if at == self.state.block {
                break self.state.clone();
            }
            let Some(node) = self.tree.get(&at) else {
                self.want_block(at);
                return None;
            };
            if node.invalid {
                return None;
            }
            if let Some(state) = &node.state {
                break state.clone();
            }
            path.push(at);
            at = node.block.header().parent;
        };
        for digest in path.into_iter().rev() {
            let node = self.tree.get_mut(&digest)?;
            match state.apply(&self.registry, &node.block) {
                Ok(next) => {
                    state = Arc::new(next);
                    node.state = Some(state.clone());
                }
                Err(_) => {
                    node.invalid = true;
                    return None;
                }
            }
        }
        Some(state)
    }

    /// True when a block was executed and found wanting.
    pub(super) fn is_invalid(&self, digest: &Digest) -> bool {
        self.tree.get(digest).is_some_and(|node| node.invalid)
    }

    /// Keeps a block of this replica's own with the state that building it produced.
    pub(super) fn insert_own(&mut self, block: &SharedBlock, state: State) {
        let node =
            Node { block: block.clone(), state: Some(Arc::new(state)), invalid: false, written: false };
        self.tree.insert(block.digest(), node);
    }

    /// Rule 7: when a finalization's block and its ancestors are here, they join the finalized chain.
    pub(super) fn commit(&mut self) {
        let Some(certificate) = self.pending.clone() else { return };
        let (Statement::Finalize(proposal) | Statement::Notarize(proposal)) = certificate.statement else {
            return;
        };
        let Some(path) = self.path_to(&proposal.block, &certificate) else { return };
        self.pending = None;
        if proposal.block == self.state.block {
            return;
        }
        // Everything is here, so what keeps it from being executed is a contradiction.
        if path.is_empty() || self.execute(&proposal.block).is_none() {
            self.notify(Event::Conflict(certificate));
            return;
        }
        let epoch = self.state.epoch;
        let last = path.len() - 1;
        let mut thorough = false;
        for (index, digest) in path.into_iter().enumerate() {
            let certificate = (index == last).then(|| certificate.clone());
            thorough |= self.commit_block(&digest, certificate);
        }
        self.top = Some(certificate);
        self.anchor = Anchor { view: proposal.view, block: self.state.block, height: self.state.height };
        self.pace.strikes = 0;
        self.settle_transactions(thorough || self.state.epoch != epoch);
        if self.state.epoch == epoch {
            self.views = self.views.split_off(&(proposal.view + 1));
            let height = self.state.height;
            self.tree.retain(|_, node| node.block.header().height > height);
            if self.current <= proposal.view {
                self.enter(proposal.view + 1);
            }
            self.work_done();
        } else {
            self.start_epoch();
        }
        self.dirty = true;
    }

    /// Blocks from above the finalized chain up to `digest`; `None` when some are missing and asked for, empty when
    /// `digest` does not descend from the finalized chain.
    fn path_to(&mut self, digest: &Digest, certificate: &SharedCertificate) -> Option<Vec<Digest>> {
        let mut path = Vec::new();
        let mut at = *digest;
        while at != self.state.block {
            let Some(node) = self.tree.get(&at) else {
                let height = certificate.statement.proposal().map_or(0, |proposal| proposal.height);
                self.want_finalized(at, height.saturating_sub(path.len() as u64));
                return None;
            };
            path.push(at);
            if node.block.header().height <= self.state.height + 1
                && node.block.header().parent != self.state.block
            {
                return Some(Vec::new());
            }
            at = node.block.header().parent;
        }
        path.reverse();
        Some(path)
    }

    /// True when the block may have voided other transactions.
    fn commit_block(&mut self, digest: &Digest, certificate: Option<SharedCertificate>) -> bool {
        let Some(Node { block, state: Some(state), .. }) = self.tree.remove(digest) else { return false };
        self.persist(Record::Commit(block.clone(), certificate.clone()));
        if state.epoch != self.state.epoch {
            self.persist(Record::Snapshot(state.height, state.clone()));
        }
        self.state = state.clone();
        self.settle_block(&block);
        if Some(block.header().leader) == self.id() {
            self.grow_blocks();
        }
        let thorough = block.transactions().iter().any(|transaction| transaction.payload.may_void_others());
        self.notify(Event::Committed { block, state, certificate });
        thorough
    }

    /// Rule 8: a new epoch starts from the finalized boundary block, with its own producers and views from 1.
    fn start_epoch(&mut self) {
        self.views.clear();
        self.tree.clear();
        self.accused.clear();
        self.sync.forget();
        self.anchor.view = 0;
        self.enter(1);
    }
}
