//! Making proposals and voting for those of others.

use std::sync::Arc;

use super::{Core, Event, VIEWS_AHEAD};
use crate::block::SharedBlock;
use crate::message::{MAX_JUSTIFICATION, Message, ProposalMessage};
use crate::state::State;
use crate::types::{Digest, Height, ReplicaId, View};
use crate::vote::{Proposal, SharedCertificate, Statement};

/// What stands in the way of voting for a proposal.
enum Ancestry {
    /// Nothing: the parent's state.
    Ready(Arc<State>, Digest, Height),
    /// Something is missing and was asked for.
    Incomplete,
    /// It can never be voted for.
    Impossible,
}

impl Core {
    /// Takes a proposal: cheap checks, then the leader's signature, then the justification.
    pub(super) fn receive_proposal(&mut self, from: Option<ReplicaId>, message: &ProposalMessage) {
        let proposal = message.proposal;
        if !self.is_current(from, proposal.epoch, proposal.view) || !well_formed(&proposal, &message.block) {
            return;
        }
        let vote = message.vote(self.set().leader(proposal.view));
        let known = self
            .views
            .get(&proposal.view)
            .is_some_and(|view| view.notarizes.get(&vote.signer).is_some_and(|held| *held == vote));
        if !known && !self.registry.verify_vote(&vote) {
            self.notify(Event::Invalid { from, what: "proposal" });
            return;
        }
        if !message.justification.iter().all(|certificate| self.take_certificate(certificate)) {
            self.notify(Event::Invalid { from, what: "justification" });
            return;
        }
        if proposal.view <= self.anchor.view || proposal.view > self.current + VIEWS_AHEAD {
            return;
        }
        let state = self.views.entry(proposal.view).or_default();
        let first = *state.proposal.get_or_insert(proposal);
        if first == proposal || self.sync.blocks.contains_key(&proposal.block) {
            self.insert_block(&message.block);
        }
        self.add_vote(vote);
        self.dirty = true;
    }

    /// Rule 2: vote for the current view's first proposal when its ancestry is certified and its block valid.
    pub(super) fn try_vote(&mut self) {
        let view = self.current;
        let Some(state) = self.views.get(&view) else { return };
        let Some(proposal) = state.proposal else { return };
        if state.rejected || state.own.notarize.is_some() || !self.is_producer() {
            return;
        }
        let acceptable = match self.ancestry(&proposal) {
            Ancestry::Incomplete => return,
            Ancestry::Impossible => false,
            Ancestry::Ready(parent, block, height) => {
                if parent.epoch != proposal.epoch {
                    // Rule 8: on a boundary block only that block itself may be proposed.
                    proposal.block == block && proposal.height == height
                } else {
                    let Some(node) = self.tree.get(&proposal.block) else {
                        self.want_block(proposal.block);
                        return;
                    };
                    let header = node.block.header();
                    let fits = header.parent == block && header.view == view && header.height == height + 1;
                    fits && self.signatures_hold(&proposal.block) && self.execute(&proposal.block).is_some()
                }
            }
        };
        if acceptable {
            self.write_block(&proposal.block);
            self.cast(Statement::Notarize(proposal), |vote| Message::Vote(*vote));
        } else {
            self.views.entry(view).or_default().rejected = true;
            self.nullify_current();
        }
    }

    /// Checks a block's transaction signatures, except those that the mempool has checked.
    fn signatures_hold(&self, digest: &Digest) -> bool {
        self.tree.get(digest).is_some_and(|node| {
            let unknown =
                node.block.transactions().iter().filter(|transaction| !self.mempool.holds(transaction));
            self.registry.verify_transactions(unknown.map(Arc::as_ref))
        })
    }

    /// Rule 2's condition: the parent is certified and every view between is nullified.
    fn ancestry(&mut self, proposal: &Proposal) -> Ancestry {
        if proposal.parent_view >= proposal.view || proposal.parent_view < self.anchor.view {
            return Ancestry::Impossible;
        }
        let Some((block, height)) = self.parent_of(proposal.parent_view) else {
            self.want_views(proposal.parent_view, proposal.view - 1);
            return Ancestry::Incomplete;
        };
        if let Some(gap) = self.first_gap(proposal.parent_view, proposal.view)
            && !self.rules.vote_across_gap
        {
            self.want_views(gap, proposal.view - 1);
            return Ancestry::Incomplete;
        }
        match self.execute(&block) {
            Some(state) => Ancestry::Ready(state, block, height),
            None if self.is_invalid(&block) => Ancestry::Impossible,
            None => Ancestry::Incomplete,
        }
    }

    /// The first view strictly between `parent` and `view` that is not nullified.
    fn first_gap(&self, parent: View, view: View) -> Option<View> {
        // Counting through the map keeps the work proportional to what is held, whatever views a message names.
        let mut expected = parent + 1;
        for (&held, state) in self.views.range(expected.min(view)..view) {
            if held != expected || state.nullification.is_none() {
                break;
            }
            expected += 1;
        }
        (expected < view).then_some(expected)
    }

    /// Rule 1: the leader of the current view proposes, once, on the highest certified view that it can justify.
    pub(super) fn try_propose(&mut self) {
        let view = self.current;
        let leads = self.id() == Some(self.set().leader(view)) && self.is_producer();
        if !leads || self.now < self.pace.slot_at {
            return;
        }
        let own = self.views.entry(view).or_default().own;
        if own.notarize.is_some() || own.nullify {
            self.pace.propose_at = None;
            return;
        }
        let Some(parent_view) = self.choose_parent(view) else { return };
        let Some((parent, height)) = self.parent_of(parent_view) else { return };
        let Some(state) = self.execute(&parent) else { return };
        let (block, height) = if state.epoch == self.state.epoch {
            let empty_at = self.pace.slot_at + self.empty_patience_us();
            let candidates = self.mempool.candidates(&state, self.block_bytes());
            let (block, after) = state.build(&self.registry, view, candidates);
            if block.transactions().is_empty() && self.now < empty_at {
                self.pace.propose_at = Some(empty_at);
                return;
            }
            let block = Arc::new(block);
            self.insert_own(&block, after);
            (block, height + 1)
        } else {
            // Rule 8: the boundary block again, until it is final.
            let Some(node) = self.tree.get(&parent) else { return };
            (node.block.clone(), height)
        };
        self.pace.propose_at = None;
        let epoch = self.state.epoch;
        let proposal = Proposal { epoch, view, parent_view, height, block: block.digest() };
        let justification = self.justify(parent_view, view);
        self.views.entry(view).or_default().proposal = Some(proposal);
        self.write_block(&block.digest());
        let sent = block.clone();
        self.cast(Statement::Notarize(proposal), |vote| {
            Message::Proposal(ProposalMessage {
                proposal,
                block: sent,
                signature: vote.signature,
                justification,
            })
        });
        self.notify(Event::Proposed { block, view });
    }

    /// The highest certified view below `view` with every view between nullified.
    fn choose_parent(&mut self, view: View) -> Option<View> {
        for candidate in (self.anchor.view..view).rev() {
            if self.parent_of(candidate).is_some() {
                return Some(candidate);
            }
            let nullified = self.views.get(&candidate).is_some_and(|state| state.nullification.is_some());
            if !nullified && !self.rules.vote_across_gap {
                self.want_views(candidate, candidate);
                return None;
            }
        }
        None
    }

    /// The certificates that let others vote at once: the parent's, and the latest nullifications after it.
    pub(super) fn justify(&self, parent_view: View, view: View) -> Vec<SharedCertificate> {
        let parent = match self.views.get(&parent_view) {
            Some(state) => state.finalization.as_ref().or(state.notarization.as_ref()),
            None => self.top.as_ref(),
        };
        let first = (parent_view + 1).max(view.saturating_sub(MAX_JUSTIFICATION as u64 - 1));
        let nullified =
            self.views.range(first.min(view)..view).filter_map(|(_, state)| state.nullification.as_ref());
        parent.into_iter().chain(nullified).take(MAX_JUSTIFICATION).cloned().collect()
    }
}

/// Checks what a proposal and its block say about each other.
fn well_formed(proposal: &Proposal, block: &SharedBlock) -> bool {
    let header = block.header();
    header.epoch == proposal.epoch
        && header.height == proposal.height
        && header.view <= proposal.view
        && block.digest() == proposal.block
}
