//! What a replica knows about one view.

use std::collections::BTreeMap;

use crate::types::{Digest, Height, ReplicaId, View};
use crate::vote::{Certificate, Evidence, Proposal, SharedCertificate, Statement, Vote};
use std::sync::Arc;

/// Votes of one kind in one view: the first of each producer.
pub(super) type Ballots = BTreeMap<ReplicaId, Vote>;

/// This replica's own votes in a view.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Own {
    pub(super) notarize: Option<Proposal>,
    pub(super) nullify: bool,
    pub(super) finalize: Option<Proposal>,
}

/// What a replica knows about one view.
#[derive(Debug, Default)]
pub(super) struct ViewState {
    /// The first proposal that the leader signed.
    pub(super) proposal: Option<Proposal>,
    /// The proposal is not valid, or can never be voted for.
    pub(super) rejected: bool,
    pub(super) notarizes: Ballots,
    pub(super) nullifies: Ballots,
    pub(super) finalizes: Ballots,
    pub(super) notarization: Option<SharedCertificate>,
    pub(super) nullification: Option<SharedCertificate>,
    pub(super) finalization: Option<SharedCertificate>,
    pub(super) own: Own,
}

/// What recording a vote led to.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// The vote was not known and counts.
    pub(super) new: bool,
    /// It contradicts an earlier vote of its signer.
    pub(super) evidence: Option<Evidence>,
    /// Votes that now say the same.
    pub(super) count: usize,
}

impl ViewState {
    pub(super) fn ballots(&self, statement: &Statement) -> &Ballots {
        match statement {
            Statement::Notarize(_) => &self.notarizes,
            Statement::Nullify { .. } => &self.nullifies,
            Statement::Finalize(_) => &self.finalizes,
        }
    }

    fn ballots_mut(&mut self, statement: &Statement) -> &mut Ballots {
        match statement {
            Statement::Notarize(_) => &mut self.notarizes,
            Statement::Nullify { .. } => &mut self.nullifies,
            Statement::Finalize(_) => &mut self.finalizes,
        }
    }

    /// The certificate of the statement's kind, if held.
    pub(super) fn certificate(&self, statement: &Statement) -> Option<&SharedCertificate> {
        match statement {
            Statement::Notarize(_) => self.notarization.as_ref(),
            Statement::Nullify { .. } => self.nullification.as_ref(),
            Statement::Finalize(_) => self.finalization.as_ref(),
        }
    }

    pub(super) fn set_certificate(&mut self, certificate: SharedCertificate) {
        match certificate.statement {
            Statement::Notarize(_) => self.notarization = Some(certificate),
            Statement::Nullify { .. } => self.nullification = Some(certificate),
            Statement::Finalize(_) => self.finalization = Some(certificate),
        }
    }

    /// True when checking the vote's signature could change nothing: it is known, or its statement is certified
    /// and the signer said nothing to the contrary.
    pub(super) fn is_redundant(&self, vote: &Vote) -> bool {
        if self
            .ballots(&vote.statement)
            .get(&vote.signer)
            .is_some_and(|held| held.statement == vote.statement)
        {
            return true;
        }
        let certified =
            self.certificate(&vote.statement).is_some_and(|held| held.statement == vote.statement);
        certified && self.contradicted_by(vote).is_none()
    }

    /// The signer's earlier vote that `vote` contradicts.
    fn contradicted_by(&self, vote: &Vote) -> Option<&Vote> {
        [&self.notarizes, &self.nullifies, &self.finalizes]
            .into_iter()
            .filter_map(|ballots| ballots.get(&vote.signer))
            .find(|held| held.statement.conflicts_with(&vote.statement))
    }

    /// Records a vote whose signature is valid.
    pub(super) fn record(&mut self, vote: Vote) -> Recorded {
        let evidence = self.contradicted_by(&vote).map(|first| Evidence { first: *first, second: vote });
        let ballots = self.ballots_mut(&vote.statement);
        let new = !ballots.contains_key(&vote.signer);
        if new {
            ballots.insert(vote.signer, vote);
        }
        let count = ballots.values().filter(|held| held.statement == vote.statement).count();
        Recorded { new, evidence, count }
    }

    /// The certificate that the recorded votes for `statement` make.
    pub(super) fn assemble(&self, statement: Statement, quorum: usize) -> SharedCertificate {
        let agreeing = self.ballots(&statement).values().filter(|vote| vote.statement == statement);
        let signatures = agreeing.take(quorum).map(|vote| (vote.signer, vote.signature)).collect();
        Arc::new(Certificate { statement, signatures })
    }

    /// True when every signature of the certificate was already checked as a vote.
    pub(super) fn vouches_for(&self, certificate: &Certificate) -> bool {
        let ballots = self.ballots(&certificate.statement);
        certificate.signatures.iter().all(|(signer, signature)| {
            ballots
                .get(signer)
                .is_some_and(|vote| vote.statement == certificate.statement && vote.signature == *signature)
        })
    }

    /// The proposal that a quorum notarized or finalized.
    pub(super) fn certified(&self) -> Option<&Proposal> {
        let certificate = self.finalization.as_ref().or(self.notarization.as_ref())?;
        certificate.statement.proposal()
    }
}

/// The last finalized block, as the starting point of the views that follow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    /// View that the block was finalized in, 0 for the last block of the epoch before.
    pub(super) view: View,
    pub(super) block: Digest,
    pub(super) height: Height,
}
