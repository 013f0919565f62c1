//! The consensus core of one replica: `step(now, Input) -> Vec<Effect>`.
//!
//! The protocol is stated in the crate's documentation; the rules are numbered there and the code names them.
//! The core has no clock, no randomness, no sockets and no files. Time comes in with each step; what has to be
//! durable goes out as [`Effect::Persist`] and whatever waits for it follows after [`Input::Persisted`].

mod chain;
mod config;
mod pace;
mod propose;
mod sync;
mod transactions;
mod views;
mod votes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::chain::Node;
pub(crate) use self::config::Rules;
pub use self::config::{Config, Eager, Effect, Event, Input, Target};
use self::pace::Pace;
use self::sync::Sync;
use self::views::{Anchor, ViewState};
use crate::crypto::Signer;
use crate::election::ProducerSet;
use crate::genesis::Registry;
use crate::mempool::Mempool;
use crate::message::Message;
use crate::record::Record;
use crate::state::State;
use crate::tx::{Payload, Transaction};
use crate::types::{Digest, Epoch, Height, Micros, ReplicaId, View};
use crate::vote::{SharedCertificate, Vote};

/// Votes and proposals further ahead than this many views are not kept; certificates always are.
pub const VIEWS_AHEAD: View = 16;

/// A base station's identity: its id and key.
pub struct Identity {
    /// Its id.
    pub id: ReplicaId,
    /// Its key.
    pub signer: Box<dyn Signer>,
}

/// What a replica starts from: nothing but the genesis state, or what its store kept.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The state after the last block of the finalized chain.
    pub state: Arc<State>,
    /// The latest finalization held.
    pub certificate: Option<SharedCertificate>,
    /// Journal entries that follow: votes, blocks, certificates and transactions above the finalized chain.
    pub journal: Vec<Record>,
    /// This replica only follows in epochs before this one. 0 but for a replica that lost its votes: it may have
    /// voted in the latest epoch that it could have known, so it votes again in an epoch that began after its loss.
    pub vote_from: Epoch,
}

impl Recovered {
    /// The start of a new chain.
    #[must_use]
    pub fn genesis(registry: &Registry) -> Self {
        Self {
            state: Arc::new(State::genesis(registry)),
            certificate: None,
            journal: Vec::new(),
            vote_from: 0,
        }
    }
}

/// A vote that waits until it is durable, and the message that carries it.
#[derive(Debug)]
struct Held {
    number: u64,
    vote: Vote,
    message: Arc<Message>,
}

/// The consensus core of one replica, or of an observer that only follows.
pub struct Core {
    registry: Arc<Registry>,
    config: Config,
    rules: Rules,
    identity: Option<Identity>,
    now: Micros,
    /// The state after the last finalized block.
    state: Arc<State>,
    /// The latest finalization.
    top: Option<SharedCertificate>,
    anchor: Anchor,
    /// Views of the current epoch above the anchor.
    views: BTreeMap<View, ViewState>,
    current: View,
    /// Blocks above the finalized chain.
    tree: BTreeMap<Digest, Node>,
    /// The highest finalization whose blocks are not all here.
    pending: Option<SharedCertificate>,
    pace: Pace,
    sync: Sync,
    mempool: Mempool,
    next_sequence: u64,
    vote_from: Epoch,
    /// Own transactions are passed on at this time.
    gossip_at: Option<Micros>,
    /// When that was last done.
    gossiped_at: Micros,
    /// Offences that this replica submitted evidence of, in this epoch.
    accused: BTreeSet<(Epoch, View, ReplicaId)>,
    /// Rounds whose award this replica claimed.
    claimed: BTreeSet<u64>,
    /// The number of the last record.
    records: u64,
    held: VecDeque<Held>,
    effects: Vec<Effect>,
    /// Something changed that may allow a vote, a proposal or a commit.
    dirty: bool,
}

impl Core {
    /// A replica, or without `identity` an observer, at time `now`.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        config: Config,
        identity: Option<Identity>,
        recovered: Recovered,
        now: Micros,
    ) -> Self {
        Self::with_rules(registry, config, Rules::default(), identity, recovered, now)
    }

    pub(crate) fn with_rules(
        registry: Arc<Registry>,
        config: Config,
        rules: Rules,
        identity: Option<Identity>,
        recovered: Recovered,
        now: Micros,
    ) -> Self {
        let state = recovered.state;
        let mempool = Mempool::new(config.mempool);
        let mut core = Self {
            anchor: Anchor { view: state.view, block: state.block, height: state.height },
            top: recovered.certificate,
            views: BTreeMap::new(),
            current: 0,
            tree: BTreeMap::new(),
            pending: None,
            pace: Pace::default(),
            sync: Sync::default(),
            mempool,
            next_sequence: 1,
            vote_from: recovered.vote_from,
            gossip_at: None,
            gossiped_at: 0,
            accused: BTreeSet::new(),
            claimed: BTreeSet::new(),
            records: 0,
            held: VecDeque::new(),
            effects: Vec::new(),
            dirty: true,
            registry,
            config,
            rules,
            identity,
            now,
            state,
        };
        core.recover(recovered.journal);
        core
    }

    /// Handles one input at time `now`, which never runs backwards, and returns what to do, in order.
    #[must_use]
    pub fn step(&mut self, now: Micros, input: Input) -> Vec<Effect> {
        self.now = self.now.max(now);
        match input {
            Input::Receive { from, message } => self.receive(from, &message),
            Input::Submit(payload) => self.submit(payload),
            Input::Persisted(number) => self.release(number),
            Input::RoundTrip { peer, rtt_us } => self.pace.measure(peer, rtt_us),
            Input::Tick => self.tick(),
        }
        self.progress();
        std::mem::take(&mut self.effects)
    }

    /// When the next [`Input::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Micros {
        let pace = &self.pace;
        let timers = [pace.timeout_at, Some(pace.retry_at), pace.propose_at, pace.fetch_at, self.gossip_at];
        timers.into_iter().flatten().min().unwrap_or(Micros::MAX)
    }

    fn receive(&mut self, from: Option<ReplicaId>, message: &Message) {
        if from.is_some() && from == self.id() {
            return;
        }
        self.sync.source = from;
        if let Some(peer) = from.filter(|peer| self.set().contains(*peer)) {
            self.pace.hear(peer, self.now);
        }
        match message {
            Message::Proposal(proposal) => self.receive_proposal(from, proposal),
            Message::Vote(vote) => self.receive_vote(from, *vote),
            Message::Certificate(certificate) => self.receive_certificate(from, certificate),
            Message::Request(request) => self.receive_request(from, request),
            Message::Block(delivery) => self.receive_block(&delivery.0),
            Message::Segment(segment) => self.receive_segment(from, segment),
            Message::Gossip(gossip) => self.receive_gossip(from, &gossip.0),
            // Bodies have a state machine of their own, beside this one.
            Message::Body(_) => {}
        }
    }

    /// Does everything that has become possible.
    fn progress(&mut self) {
        while std::mem::take(&mut self.dirty) {
            self.commit();
            self.try_vote();
            self.try_propose();
        }
        self.sync.source = None;
    }

    /// This replica's id; `None` for an observer.
    #[must_use]
    pub fn id(&self) -> Option<ReplicaId> {
        self.identity.as_ref().map(|identity| identity.id)
    }

    /// The state after the last finalized block.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The latest finalization held.
    #[must_use]
    pub fn certificate(&self) -> Option<&SharedCertificate> {
        self.top.as_ref()
    }

    /// Current epoch and view.
    #[must_use]
    pub fn round(&self) -> (Epoch, View) {
        (self.state.epoch, self.current)
    }

    /// Finalized height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.state.height
    }

    /// Transactions that wait for a block.
    #[must_use]
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    fn set(&self) -> &Arc<ProducerSet> {
        &self.state.producers
    }

    fn quorum(&self) -> usize {
        self.set().quorum() - usize::from(self.rules.quorum_minus_one)
    }

    fn is_producer(&self) -> bool {
        self.state.epoch >= self.vote_from && self.id().is_some_and(|id| self.set().contains(id))
    }

    fn persist(&mut self, record: Record) -> u64 {
        self.records += 1;
        self.effects.push(Effect::Persist { number: self.records, record });
        self.records
    }

    fn send(&mut self, to: Target, message: Message) {
        self.effects.push(Effect::Send { to, message: Arc::new(message) });
    }

    fn notify(&mut self, event: Event) {
        self.effects.push(Effect::Notify(event));
    }

    /// Takes up what the journal kept. Certificates and votes were checked before they were written.
    fn recover(&mut self, journal: Vec<Record>) {
        let mut votes = Vec::new();
        for record in journal {
            match record {
                Record::Block(block) => {
                    if block.header().epoch == self.state.epoch && block.header().height > self.state.height {
                        self.insert_block(&block);
                    }
                }
                Record::Certificate(certificate) => self.recover_certificate(certificate),
                Record::Vote(vote) => votes.push(vote),
                Record::Transaction(transaction) => self.recover_transaction(transaction),
                Record::Commit(..) | Record::Snapshot(..) => {}
            }
        }
        if let Some(id) = self.id()
            && let Some(account) = self.state.account(id)
        {
            self.next_sequence = self.next_sequence.max(account.replay.highest() + 1);
        }
        let last = self.views.iter().rev().find(|(_, view)| {
            view.notarization.is_some() || view.nullification.is_some() || view.finalization.is_some()
        });
        let current = last.map_or(self.anchor.view, |(&view, _)| view) + 1;
        self.enter(current);
        for vote in votes {
            self.recover_vote(vote);
        }
        // A notarization may have become durable without the finalize vote that follows from it.
        let views: Vec<View> = self.views.keys().copied().collect();
        views.into_iter().for_each(|view| self.finalize_if_allowed(view));
        self.progress();
    }

    fn recover_transaction(&mut self, transaction: Arc<Transaction>) {
        self.next_sequence = self.next_sequence.max(transaction.sequence + 1);
        if self.mempool.insert(&self.state, transaction).is_ok() {
            self.gossip_at = Some(self.now);
        }
    }

    /// Builds a block for `view` on a certified parent from chosen transactions, whether or not the rules would
    /// allow it now. For faulty leaders in the simulator.
    pub(crate) fn craft(
        &mut self,
        view: View,
        parent_view: View,
        payload: Option<Payload>,
    ) -> Option<Crafted> {
        let (parent, _) = self.parent_of(parent_view)?;
        let state = self.execute(&parent)?;
        if state.epoch != self.state.epoch || view <= state.view {
            return None;
        }
        let extra = payload.and_then(|payload| self.sign(self.next_sequence + 1000, payload));
        let (block, _) = state.build(&self.registry, view, extra.map(Arc::new));
        Some(Crafted { block: Arc::new(block), parent_view })
    }
}

/// A block that a faulty leader made.
pub(crate) struct Crafted {
    pub(crate) block: crate::block::SharedBlock,
    pub(crate) parent_view: View,
}

impl Recovered {
    /// What a replica starts from after it kept `records` in this order: committed blocks are executed from `base`
    /// on, the rest is left to the core.
    ///
    /// # Errors
    /// [`crate::Error::Block`] when a committed block does not follow from what precedes it.
    pub fn replay(registry: &Registry, base: State, records: Vec<Record>) -> crate::Result<Self> {
        let mut recovered =
            Self { state: Arc::new(base), certificate: None, journal: Vec::new(), vote_from: 0 };
        for record in records {
            match record {
                Record::Commit(block, certificate) => {
                    if block.header().height > recovered.state.height {
                        recovered.state = Arc::new(recovered.state.apply(registry, &block)?);
                    }
                    recovered.certificate = certificate.or(recovered.certificate);
                }
                Record::Snapshot(..) => {}
                other => recovered.journal.push(other),
            }
        }
        Ok(recovered)
    }
}

#[cfg(test)]
mod tests;
