//! Time: view timeouts adapted to measured round trips, the slot floor, repetition until progress.

use std::collections::BTreeMap;

use super::{Core, Eager, Event, Target};
use crate::message::{Message, ProposalMessage};
use crate::types::{Micros, ReplicaId, View};
use crate::vote::{Statement, Vote};

/// Least time that a proposal may trail a vote for it before it is fetched.
const MIN_PATIENCE_US: Micros = 2_000;

/// A leader whose views are nullified makes its blocks no smaller than this.
const SMALL_BLOCK_BYTES: usize = 16_384;

/// Smoothed round trip and its variation, as RFC 6298 computes them.
#[derive(Debug, Clone, Copy)]
struct RoundTrip {
    smoothed_us: Micros,
    variation_us: Micros,
}

impl RoundTrip {
    /// What a round trip takes at most, short of outliers.
    fn bound_us(self) -> Micros {
        self.smoothed_us + 4 * self.variation_us
    }
}

/// Timers and what they are derived from.
#[derive(Debug, Default)]
pub(super) struct Pace {
    round_trips: BTreeMap<ReplicaId, RoundTrip>,
    /// When the current view is nullified.
    pub(super) timeout_at: Option<Micros>,
    /// When to repeat what may have been lost.
    pub(super) retry_at: Micros,
    /// Repetitions in the current view.
    retries: u32,
    /// Start of the current view's slot: its leader proposes no earlier.
    pub(super) slot_at: Micros,
    /// When the leader's next attempt to propose is due.
    pub(super) propose_at: Option<Micros>,
    /// Views nullified in a row.
    pub(super) strikes: u32,
    /// When each replica was last heard.
    heard: BTreeMap<ReplicaId, Micros>,
    /// Most bytes of transactions that this replica puts into a block while its larger ones come too late; `None` for as
    /// many as a block may have.
    block_bytes: Option<usize>,
    /// No transactions waited when the view's timer was set.
    idle: bool,
    /// When to ask a voter for the current view's proposal, which others have voted for and is not here.
    pub(super) fetch_at: Option<Micros>,
}

impl Pace {
    pub(super) fn measure(&mut self, peer: ReplicaId, rtt_us: Micros) {
        // An hour bounds what a confused driver could do to the arithmetic.
        let rtt_us = rtt_us.min(3_600_000_000);
        let fresh = RoundTrip { smoothed_us: rtt_us, variation_us: rtt_us / 2 };
        self.round_trips
            .entry(peer)
            .and_modify(|held| {
                held.variation_us = (3 * held.variation_us + held.smoothed_us.abs_diff(rtt_us)) / 4;
                held.smoothed_us = (7 * held.smoothed_us + rtt_us) / 8;
            })
            .or_insert(fresh);
    }
}

impl Pace {
    pub(super) fn hear(&mut self, peer: ReplicaId, now: Micros) {
        self.heard.insert(peer, now);
    }
}

impl Core {
    /// True when the others of a quorum were heard long after a leader was: no use waiting for it as long as for them.
    fn is_silent(&self, leader: ReplicaId) -> bool {
        let others =
            self.set().members.iter().filter(|member| Some(**member) != self.id() && **member != leader);
        let mut heard: Vec<Micros> = others.filter_map(|peer| self.pace.heard.get(peer)).copied().collect();
        heard.sort_unstable_by(|a, b| b.cmp(a));
        let patience = 2 * self.config.timeout_min_us + self.config.slot_us + self.config.idle_us;
        let quorum = heard.get(self.set().quorum().saturating_sub(2)).copied().unwrap_or(0);
        Some(leader) != self.id() && self.pace.heard.get(&leader).copied().unwrap_or(0) + patience < quorum
    }

    /// Somebody votes for a proposal of the current view that is not here: it may have been lost, or be stuck on
    /// its link, so after a round trip a voter is asked for it.
    pub(super) fn expect_proposal(&mut self) {
        if self.views.get(&self.current).is_none_or(|state| state.proposal.is_none()) {
            let patience = self.quorum_round_trip_us().max(MIN_PATIENCE_US);
            self.pace.fetch_at.get_or_insert(self.now + patience);
        }
    }

    fn fetch_proposal(&mut self) {
        self.pace.fetch_at = None;
        let Some(state) = self.views.get(&self.current).filter(|state| state.proposal.is_none()) else {
            return;
        };
        let voted =
            state.notarizes.iter().find_map(|(voter, vote)| Some((*voter, vote.statement.proposal()?.block)));
        if let Some((voter, block)) = voted {
            self.sync.source = Some(voter);
            self.want_block(block);
            self.sync.source = None;
        }
    }

    /// The round trip within which a quorum can be heard, 0 before measurements.
    fn quorum_round_trip_us(&self) -> Micros {
        let others = self.set().members.iter().filter(|member| Some(**member) != self.id());
        let mut bounds: Vec<Micros> =
            others.filter_map(|peer| self.pace.round_trips.get(peer)).map(|rtt| rtt.bound_us()).collect();
        bounds.sort_unstable();
        bounds.get(self.set().quorum().saturating_sub(2)).copied().unwrap_or(0)
    }

    /// Whether a certificate goes to everybody at once, see [`Eager`].
    pub(super) fn is_eager(&self) -> bool {
        let patience = (3 * self.quorum_round_trip_us()).max(MIN_PATIENCE_US);
        match self.config.eager_certificates {
            Eager::Always => true,
            Eager::Slow => self.now > self.pace.slot_at + patience,
            Eager::Never => false,
        }
    }

    /// How long a view may take after its slot starts: four round trips of a quorum or of the leader, whichever is
    /// slower (a leader no more than four times as slow as the quorum), half as much again for each view
    /// nullified in a row.
    fn timeout_us(&self, view: View) -> Micros {
        let quorum = self.quorum_round_trip_us();
        let leader = self.pace.round_trips.get(&self.set().leader(view)).map_or(0, |rtt| rtt.bound_us());
        let mut base = (4 * quorum.max(leader.min(4 * quorum))).max(self.config.timeout_min_us);
        if quorum > 0 && self.is_silent(self.set().leader(view)) {
            base = (2 * quorum).max(self.config.timeout_min_us / 8);
        }
        let grown =
            (0..self.pace.strikes.min(30)).fold(base, |timeout, _| timeout.saturating_add(timeout / 2));
        grown.min(self.config.timeout_max_us.max(self.config.timeout_min_us))
    }

    /// True when transactions wait, as far as this replica knows from the finalized chain. All replicas, the leader
    /// among them, judge by it how soon a block is due.
    fn has_work(&self) -> bool {
        self.mempool.has_fresh(&self.state)
    }

    /// How long a leader with nothing to put into a block waits: until the idle interval is over, but well within
    /// the others' timers when they may know of transactions that only it cannot include.
    pub(super) fn empty_patience_us(&self) -> Micros {
        if self.has_work() {
            self.config.idle_us.min(self.config.timeout_min_us / 4)
        } else {
            self.config.idle_us
        }
    }

    /// A transaction came to where none waited: from now on a block is due.
    pub(super) fn work_arrived(&mut self) {
        if std::mem::take(&mut self.pace.idle)
            && let Some(at) = self.pace.timeout_at
        {
            let due = self.now.max(self.pace.slot_at) + self.timeout_us(self.current);
            self.pace.timeout_at = Some(at.min(due));
        }
    }

    /// Blocks were finalized: if nothing waits any more, the view's leader may take its time.
    pub(super) fn work_done(&mut self) {
        if !self.pace.idle && !self.has_work() && self.pace.timeout_at.is_some() {
            self.pace.idle = true;
            let patient = self.pace.slot_at + self.timeout_us(self.current) + self.config.idle_us;
            self.pace.timeout_at = self.pace.timeout_at.map(|at| at.max(patient));
        }
    }

    /// Most bytes of transactions to put into a block now.
    pub(super) fn block_bytes(&self) -> usize {
        let most = self.registry.params().max_block_bytes as usize;
        self.pace.block_bytes.map_or(most, |bytes| bytes.min(most))
    }

    /// A view that this replica led was nullified although it made a proposal of so many bytes: over links as slow as
    /// these, half of that may arrive in time.
    pub(super) fn shrink_blocks(&mut self, bytes: usize) {
        self.pace.block_bytes = Some((bytes.min(self.block_bytes()) / 2).max(SMALL_BLOCK_BYTES));
    }

    /// A block of this replica's own was finalized: the next may be a little larger.
    pub(super) fn grow_blocks(&mut self) {
        let most = self.registry.params().max_block_bytes as usize;
        let grown = self.pace.block_bytes.map(|bytes| bytes + bytes / 8);
        self.pace.block_bytes = grown.filter(|bytes| *bytes < most);
    }

    fn retry_us(&self) -> Micros {
        let base = (2 * self.quorum_round_trip_us())
            .clamp(self.config.retry_min_us, 1_000_000.max(self.config.retry_min_us));
        base << self.pace.retries.min(2)
    }

    /// Interval at which own transactions are passed on again.
    pub(super) fn resend_us(&self) -> Micros {
        4 * self.retry_us()
    }

    /// Goes to a later view.
    pub(super) fn enter(&mut self, view: View) {
        self.current = view;
        self.pace.slot_at = if self.pace.slot_at == 0 {
            self.now
        } else {
            self.now.max(self.pace.slot_at + self.config.slot_us)
        };
        self.pace.retries = 0;
        self.pace.fetch_at = None;
        self.pace.retry_at = self.now + self.retry_us();
        self.pace.idle = !self.has_work();
        let idle_us = if self.pace.idle { self.config.idle_us } else { 0 };
        self.pace.timeout_at = Some(self.pace.slot_at + self.timeout_us(view) + idle_us);
        self.pace.propose_at = (Some(self.set().leader(view)) == self.id()).then_some(self.pace.slot_at);
        let epoch = self.state.epoch;
        self.notify(Event::Entered { epoch, view });
        // A view may have been given up by others, or the leader, before this replica came to it.
        let nullifies = self.views.get(&view).map(|state| &state.nullifies);
        let leader = self.set().leader(view);
        if nullifies.is_some_and(|votes| votes.len() > self.set().faults() || votes.contains_key(&leader)) {
            self.pace.timeout_at = Some(self.now);
        }
        self.dirty = true;
    }

    pub(super) fn tick(&mut self) {
        if self.pace.timeout_at.is_some_and(|at| at <= self.now) {
            self.nullify_current();
        }
        if self.pace.propose_at.is_some_and(|at| at <= self.now) {
            self.pace.propose_at = None;
            self.dirty = true;
        }
        if self.pace.fetch_at.is_some_and(|at| at <= self.now) {
            self.fetch_proposal();
        }
        if self.gossip_at.is_some_and(|at| at <= self.now) {
            self.gossip();
        }
        if self.pace.retry_at <= self.now {
            self.repeat();
            self.pace.retries += 1;
            self.pace.retry_at = self.now + self.retry_us();
            self.dirty = true;
        }
    }

    /// Says again, until there is progress, what the others need to get this far: the certificates that led here,
    /// this replica's votes that no certificate has absorbed, and what this replica itself lacks.
    fn repeat(&mut self) {
        if let Some(top) = self.top.clone() {
            self.send(Target::All, Message::Certificate(top));
        }
        if let Some(state) = self.views.get(&(self.current - 1)) {
            let entry = state.finalization.as_ref().or(state.notarization.as_ref());
            let certificates: Vec<_> =
                entry.into_iter().chain(state.nullification.as_ref()).cloned().collect();
            certificates.into_iter().for_each(|held| self.send(Target::All, Message::Certificate(held)));
        }
        self.repeat_votes();
        self.repeat_requests();
    }

    fn repeat_votes(&mut self) {
        let Some(id) = self.id() else { return };
        let counted = |votes: &super::views::Ballots| votes.get(&id).copied();
        // Only counted votes: those still on their way to the disk are not yet this replica's to repeat.
        let mut votes: Vec<Vote> = Vec::new();
        if let Some(state) = self.views.get(&self.current) {
            votes.extend(counted(&state.notarizes));
            votes.extend(counted(&state.nullifies));
        }
        let unfinished = self.views.range(..self.current).rev();
        votes.extend(unfinished.filter_map(|(_, state)| counted(&state.finalizes)).take(3));
        for vote in votes {
            let message = self.as_proposal(&vote).unwrap_or(Message::Vote(vote));
            self.send(Target::All, message);
        }
    }

    /// The full proposal when the vote is a leader's for its view and the block is here.
    pub(super) fn as_proposal(&self, vote: &Vote) -> Option<Message> {
        let Statement::Notarize(proposal) = vote.statement else { return None };
        if self.set().leader(proposal.view) != vote.signer {
            return None;
        }
        let block = self.tree.get(&proposal.block)?.block.clone();
        let justification = self.justify(proposal.parent_view, proposal.view);
        Some(Message::Proposal(ProposalMessage { proposal, block, signature: vote.signature, justification }))
    }
}
