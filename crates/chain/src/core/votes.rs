//! Casting and counting votes, forming and accepting certificates.

use std::sync::Arc;

use super::{Core, Effect, Event, Held, Target, VIEWS_AHEAD};
use crate::message::Message;
use crate::record::Record;
use crate::tx::Payload;
use crate::types::{ReplicaId, View};
use crate::vote::{SharedCertificate, Statement, Vote};

impl Core {
    /// Makes a vote of this replica's own (rules 2 to 5): noted and written now, sent and counted once durable.
    /// `message` carries it if it is not to go out as a bare vote.
    pub(super) fn cast(&mut self, statement: Statement, message: impl FnOnce(&Vote) -> Message) {
        let Some(identity) = &self.identity else { return };
        let signature = identity.signer.sign(&statement.signing_bytes(self.registry.chain()));
        let vote = Vote { statement, signer: identity.id, signature };
        let own = &mut self.views.entry(statement.round().1).or_default().own;
        match statement {
            Statement::Notarize(proposal) => own.notarize = Some(proposal),
            Statement::Nullify { .. } => own.nullify = true,
            Statement::Finalize(proposal) => own.finalize = Some(proposal),
        }
        let message = Arc::new(message(&vote));
        let number = self.persist(Record::Vote(vote));
        if self.rules.send_before_sync {
            self.effects.push(Effect::Send { to: Target::All, message });
            self.add_vote(vote);
        } else {
            self.held.push_back(Held { number, vote, message });
        }
    }

    /// Sends the votes that have become durable, and counts them here as well.
    pub(super) fn release(&mut self, number: u64) {
        while self.held.front().is_some_and(|held| held.number <= number) {
            let Some(Held { vote, message, .. }) = self.held.pop_front() else { return };
            // The epoch may have ended while the disk was busy.
            if vote.statement.round().0 == self.state.epoch {
                self.effects.push(Effect::Send { to: Target::All, message });
                self.add_vote(vote);
            }
        }
    }

    /// A vote of this replica's own that was durable before it restarted: it binds, and counts.
    pub(super) fn recover_vote(&mut self, vote: Vote) {
        let (epoch, view) = vote.statement.round();
        if epoch != self.state.epoch || view <= self.anchor.view || Some(vote.signer) != self.id() {
            return;
        }
        let state = self.views.entry(view).or_default();
        match vote.statement {
            Statement::Notarize(proposal) => {
                state.own.notarize = Some(proposal);
                if self.state.producers.leader(view) == vote.signer {
                    state.proposal = Some(proposal);
                }
            }
            Statement::Nullify { .. } => state.own.nullify = true,
            Statement::Finalize(proposal) => state.own.finalize = Some(proposal),
        }
        self.add_vote(vote);
    }

    pub(super) fn receive_vote(&mut self, from: Option<ReplicaId>, vote: Vote) {
        let (epoch, view) = vote.statement.round();
        if !self.is_current(from, epoch, view) || view > self.current + VIEWS_AHEAD {
            return;
        }
        if !self.set().contains(vote.signer)
            || self.views.get(&view).is_some_and(|state| state.is_redundant(&vote))
        {
            return;
        }
        if self.registry.verify_vote(&vote) {
            self.add_vote(vote);
        } else {
            self.notify(Event::Invalid { from, what: "vote" });
        }
    }

    /// Counts a vote whose signature is valid.
    pub(super) fn add_vote(&mut self, vote: Vote) {
        let (_, view) = vote.statement.round();
        if view <= self.anchor.view {
            return;
        }
        let quorum = self.quorum();
        let state = self.views.entry(view).or_default();
        let recorded = state.record(vote);
        if recorded.new && recorded.count >= quorum && state.certificate(&vote.statement).is_none() {
            let certificate = state.assemble(vote.statement, quorum);
            self.accept(&certificate, true);
        }
        if let Some(evidence) = recorded.evidence {
            self.accuse(evidence);
        }
        if view == self.current {
            match vote.statement {
                Statement::Nullify { .. } => self.join_nullify(vote.signer, recorded.count),
                Statement::Notarize(_) => self.expect_proposal(),
                Statement::Finalize(_) => {}
            }
        }
    }

    /// Nullifies the current view as well when waiting is pointless: its leader gave it up, or f + 1 producers did,
    /// of whom one at least follows the rules.
    fn join_nullify(&mut self, signer: ReplicaId, count: usize) {
        if signer == self.set().leader(self.current) || count > self.set().faults() {
            self.nullify_current();
        }
    }

    pub(super) fn nullify_current(&mut self) {
        let (epoch, view) = self.round();
        self.pace.timeout_at = None;
        if self.rules.nullify_after_finalize && view > self.anchor.view + 1 {
            self.nullify(epoch, view - 1);
        }
        self.nullify(epoch, view);
    }

    /// Rule 4: nullify a view unless this replica voted to finalize it.
    fn nullify(&mut self, epoch: u64, view: View) {
        if !self.is_producer() {
            return;
        }
        let own = self.views.entry(view).or_default().own;
        let finalized = own.finalize.is_some() && !self.rules.nullify_after_finalize;
        if !own.nullify && !finalized {
            self.cast(Statement::Nullify { epoch, view }, |vote| Message::Vote(*vote));
        }
    }

    /// Rule 5: vote to finalize a notarized view unless this replica nullified it.
    pub(super) fn finalize_if_allowed(&mut self, view: View) {
        if !self.is_producer() {
            return;
        }
        let Some(state) = self.views.get(&view) else { return };
        let Some(notarization) = &state.notarization else { return };
        let Statement::Notarize(proposal) = notarization.statement else { return };
        if !state.own.nullify && state.own.finalize.is_none() {
            self.cast(Statement::Finalize(proposal), |vote| Message::Vote(*vote));
        }
    }

    pub(super) fn receive_certificate(&mut self, from: Option<ReplicaId>, certificate: &SharedCertificate) {
        let (epoch, view) = certificate.statement.round();
        if self.is_current(from, epoch, view) && !self.take_certificate(certificate) {
            self.notify(Event::Invalid { from, what: "certificate" });
        }
    }

    /// Checks and accepts a certificate of a view of this epoch; false when it is not valid.
    pub(super) fn take_certificate(&mut self, certificate: &SharedCertificate) -> bool {
        let (epoch, view) = certificate.statement.round();
        if epoch != self.state.epoch || view <= self.anchor.view {
            return true;
        }
        let state = self.views.get(&view);
        if state.is_some_and(|state| state.certificate(&certificate.statement).is_some()) {
            return true;
        }
        let known = certificate.signatures.len() >= self.quorum()
            && certificate.check_shape(&self.set().members, self.quorum()).is_ok()
            && state.is_some_and(|state| state.vouches_for(certificate));
        if !known && self.registry.verify_certificate(certificate, self.set(), self.quorum()).is_err() {
            return false;
        }
        self.accept(certificate, false);
        true
    }

    /// Acts on a valid certificate (rule 6), assembled here or received.
    fn accept(&mut self, certificate: &SharedCertificate, assembled: bool) {
        let (epoch, view) = certificate.statement.round();
        self.views.entry(view).or_default().set_certificate(certificate.clone());
        // Durable before any vote that follows from it, since records keep their order.
        self.persist(Record::Certificate(certificate.clone()));
        if assembled && self.is_eager() {
            self.send(Target::All, Message::Certificate(certificate.clone()));
        }
        match certificate.statement {
            Statement::Notarize(proposal) => {
                if self.rules.finalize_on_notarization {
                    self.note_finalization(certificate);
                }
                self.finalize_if_allowed(view);
                self.want_unless_held(proposal.block);
                if view >= self.current {
                    self.pace.strikes = 0;
                }
            }
            Statement::Nullify { .. } => {
                let leader = self.set().leader(view);
                self.notify(Event::Nullified { epoch, view, leader });
                let own = self.views.get(&view).and_then(|state| state.own.notarize);
                if Some(leader) == self.id()
                    && let Some(node) = own.and_then(|proposal| self.tree.get(&proposal.block))
                {
                    self.shrink_blocks(node.block.body_bytes());
                }
                if view >= self.current {
                    self.pace.strikes += 1;
                }
            }
            Statement::Finalize(proposal) => {
                self.note_finalization(certificate);
                self.want_unless_held(proposal.block);
                self.pace.strikes = 0;
            }
        }
        if view >= self.current {
            self.enter(view + 1);
        }
        self.dirty = true;
    }

    pub(super) fn note_finalization(&mut self, certificate: &SharedCertificate) {
        let view = |held: &SharedCertificate| held.statement.round().1;
        if self.pending.as_ref().is_none_or(|held| view(held) < view(certificate)) {
            self.pending = Some(certificate.clone());
        }
    }

    pub(super) fn recover_certificate(&mut self, certificate: SharedCertificate) {
        let (epoch, view) = certificate.statement.round();
        if epoch != self.state.epoch || view <= self.anchor.view {
            return;
        }
        if matches!(certificate.statement, Statement::Finalize(_)) {
            self.note_finalization(&certificate);
        }
        self.views.entry(view).or_default().set_certificate(certificate);
    }

    /// Submits evidence of an equivocation, once for each offence.
    fn accuse(&mut self, evidence: crate::vote::Evidence) {
        if self.accused.contains(&evidence.offence()) || self.state.refuses_evidence(&evidence).is_some() {
            return;
        }
        self.accused.insert(evidence.offence());
        self.notify(Event::Equivocation(Box::new(evidence)));
        // Nobody testifies against itself; a replica whose identity runs twice would otherwise pay for the proof.
        if Some(evidence.first.signer) != self.id() {
            self.submit(Payload::Evidence(Box::new(evidence)));
        }
    }
}
