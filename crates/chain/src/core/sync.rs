//! Catching up: asking for what is missing, answering others.

use std::collections::BTreeMap;

use super::{Core, Effect, Target};
use crate::block::SharedBlock;
use crate::message::{Delivery, MAX_REQUEST_BLOCKS, MAX_REQUEST_VIEWS, Message, Request, Segment};
use crate::types::{Digest, Epoch, Height, Micros, ReplicaId, View};
use crate::vote::Statement;

/// Most blocks wanted at a time.
const MAX_WANTED: usize = 64;
/// Answers to one peer within one retry interval.
const ANSWERS: u32 = 16;
/// A finalized block this far above the finalized chain is fetched by segments as well as one by one.
const SEGMENT_GAP: Height = 4;

/// Views by which a sender must trail to be helped; less is the ordinary overlap of views.
const BEHIND: View = 4;

/// What is being fetched, and from whom.
#[derive(Debug, Default)]
pub(super) struct Sync {
    /// The sender of the message being handled: whoever names a thing probably has it.
    pub(super) source: Option<ReplicaId>,
    /// Blocks wanted, and when they were last asked for.
    pub(super) blocks: BTreeMap<Digest, Micros>,
    /// Views whose certificates are wanted, and when they were last asked for.
    views: Option<(View, View, Micros)>,
    /// When a segment of the finalized chain was last asked for.
    segment_at: Option<Micros>,
    /// Whom to ask next.
    turn: usize,
    /// Answers given to each peer since a time.
    answers: BTreeMap<Option<ReplicaId>, (Micros, u32)>,
    /// When each peer was last helped.
    helped: BTreeMap<Option<ReplicaId>, Micros>,
}

impl Sync {
    /// Forgets what was wanted in an epoch that is over.
    pub(super) fn forget(&mut self) {
        self.blocks.clear();
        self.views = None;
    }
}

impl Core {
    /// True for a message about a view that is still open. Otherwise either its sender is behind and is helped, or
    /// this replica is and asks for help.
    pub(super) fn is_current(&mut self, from: Option<ReplicaId>, epoch: Epoch, view: View) -> bool {
        if epoch > self.state.epoch {
            self.request_segment(from);
            return false;
        }
        if epoch < self.state.epoch || view < self.current.saturating_sub(BEHIND) {
            self.help(from);
        }
        epoch == self.state.epoch && view > self.anchor.view
    }

    /// Sends a replica that is behind the certificates that lead here.
    fn help(&mut self, from: Option<ReplicaId>) {
        if from.is_none()
            || self.sync.helped.get(&from).is_some_and(|at| self.now < at + self.config.retry_min_us)
        {
            return;
        }
        self.sync.helped.insert(from, self.now);
        let entry = self.views.get(&(self.current - 1)).and_then(|state| {
            state.finalization.as_ref().or(state.notarization.as_ref()).or(state.nullification.as_ref())
        });
        let certificates: Vec<_> = self.top.iter().chain(entry).cloned().collect();
        for certificate in certificates {
            self.send(Target::One(from), Message::Certificate(certificate));
        }
    }

    /// Bounds the answers that one peer can draw within an interval.
    fn may_answer(&mut self, peer: Option<ReplicaId>) -> bool {
        let (since, count) = self.sync.answers.entry(peer).or_insert((self.now, 0));
        if self.now >= *since + self.config.retry_min_us {
            (*since, *count) = (self.now, 0);
        }
        *count += 1;
        *count <= ANSWERS
    }

    /// The peer to ask: whoever sent what is being handled, or else the producers in turn.
    fn peer(&mut self) -> Target {
        let me = self.id();
        if self.sync.source.is_some() {
            return Target::One(self.sync.source);
        }
        let others: Vec<_> =
            self.set().members.iter().copied().filter(|member| Some(*member) != me).collect();
        self.sync.turn += 1;
        Target::One(others.get(self.sync.turn % others.len().max(1)).copied())
    }

    fn ask(&mut self, blocks: Vec<Digest>, views: Option<(View, View)>) {
        let request = Request { epoch: self.state.epoch, finalized: self.state.height, blocks, views };
        let to = self.peer();
        self.send(to, Message::Request(request));
    }

    /// Asks for a block, unless that was done lately.
    pub(super) fn want_block(&mut self, digest: Digest) {
        if self.sync.blocks.contains_key(&digest) || self.sync.blocks.len() >= MAX_WANTED {
            return;
        }
        self.sync.blocks.insert(digest, self.now);
        self.ask(vec![digest], None);
    }

    pub(super) fn want_unless_held(&mut self, digest: Digest) {
        if digest != self.state.block && !self.tree.contains_key(&digest) {
            self.want_block(digest);
        }
    }

    /// Asks for a finalized block, by itself or with all below it.
    pub(super) fn want_finalized(&mut self, digest: Digest, height: Height) {
        if height > self.state.height + SEGMENT_GAP {
            self.request_segment(self.sync.source);
        }
        // Also by itself: a stretch without a certificate of its own may be too long for a segment.
        self.want_block(digest);
    }

    /// Asks for the certificates of the views `first..=last`, unless that was done lately.
    pub(super) fn want_views(&mut self, first: View, last: View) {
        let last = last.min(first + MAX_REQUEST_VIEWS - 1);
        let due = self
            .sync
            .views
            .is_none_or(|(from, _, at)| from != first || self.now >= at + self.config.retry_min_us);
        if due && first <= last {
            self.sync.views = Some((first, last, self.now));
            self.ask(Vec::new(), Some((first, last)));
        }
    }

    /// Asks for the next part of the finalized chain, at most once in an interval.
    pub(super) fn request_segment(&mut self, from: Option<ReplicaId>) {
        if self.sync.segment_at.is_some_and(|at| self.now < at + self.config.retry_min_us) {
            return;
        }
        self.sync.segment_at = Some(self.now);
        let source = std::mem::replace(&mut self.sync.source, from);
        self.ask(Vec::new(), None);
        self.sync.source = source;
    }

    /// Forgets what was asked for, so that the next attempts to vote, to propose and to commit find out anew what is
    /// missing and ask somebody else for it.
    pub(super) fn repeat_requests(&mut self) {
        self.sync.blocks.clear();
        self.sync.views = None;
        if self.pending.is_some() {
            self.request_segment(None);
        }
        self.dirty = true;
    }

    pub(super) fn receive_request(&mut self, from: Option<ReplicaId>, request: &Request) {
        if !self.may_answer(from) {
            return;
        }
        let mut elsewhere = request.finalized < self.state.height;
        for digest in request.blocks.iter().take(MAX_REQUEST_BLOCKS) {
            match self.tree.get(digest) {
                Some(node) => {
                    // With the leader's vote, if that is here: the asker may want to vote itself.
                    let block = node.block.clone();
                    let state = self.views.get(&block.header().view);
                    let leader = self.set().leader(block.header().view);
                    let vote = state.and_then(|state| state.notarizes.get(&leader)).copied();
                    let proposal =
                        vote.filter(|vote| vote.statement.proposal().is_some_and(|p| p.block == *digest));
                    let message = proposal.and_then(|vote| self.as_proposal(&vote));
                    let message = message.unwrap_or(Message::Block(Delivery(block)));
                    self.send(Target::One(from), message);
                }
                None => elsewhere = true,
            }
        }
        if elsewhere {
            self.effects.push(Effect::Serve { to: from, request: request.clone() });
        }
        if let Some((first, last)) = request.views
            && request.epoch == self.state.epoch
            && first <= last
        {
            let last = last.min(first.saturating_add(MAX_REQUEST_VIEWS - 1));
            let held = self.views.range(first..=last).flat_map(|(_, state)| {
                let block = state.finalization.as_ref().or(state.notarization.as_ref());
                block.into_iter().chain(state.nullification.as_ref()).cloned()
            });
            let below = (first <= self.anchor.view).then(|| self.top.clone()).flatten();
            let certificates: Vec<_> = below.into_iter().chain(held).collect();
            for certificate in certificates {
                self.send(Target::One(from), Message::Certificate(certificate));
            }
        }
    }

    /// Takes a block only if it was asked for.
    pub(super) fn receive_block(&mut self, block: &SharedBlock) {
        if self.sync.blocks.contains_key(&block.digest()) && block.header().epoch == self.state.epoch {
            self.insert_block(block);
        }
    }

    /// Takes a part of the finalized chain that continues this replica's, and asks for the next.
    pub(super) fn receive_segment(&mut self, from: Option<ReplicaId>, segment: &Segment) {
        let Statement::Finalize(proposal) = segment.certificate.statement else { return };
        let new: Vec<&SharedBlock> =
            segment.blocks.iter().filter(|block| block.header().height > self.state.height).collect();
        let mut parent = (self.state.block, self.state.height);
        for block in &new {
            let header = block.header();
            if header.parent != parent.0 || header.height != parent.1 + 1 || header.epoch != self.state.epoch
            {
                return;
            }
            parent = (block.digest(), header.height);
        }
        let continues = !new.is_empty() && proposal.block == parent.0 && proposal.epoch == self.state.epoch;
        if !continues || proposal.view <= self.anchor.view {
            return;
        }
        if self.registry.verify_certificate(&segment.certificate, self.set(), self.quorum()).is_err() {
            return;
        }
        new.into_iter().for_each(|block| self.insert_block(block));
        self.take_certificate(&segment.certificate);
        // What is known to be final further up may lack blocks for long; this part is complete.
        let later = self.pending.replace(segment.certificate.clone());
        self.dirty = true;
        self.commit();
        if let Some(later) = later
            && later.statement.round().0 == self.state.epoch
            && later.statement.round().1 > self.anchor.view
        {
            self.note_finalization(&later);
        }
        self.sync.segment_at = None;
        self.request_segment(from);
    }
}
