//! Messages in a trace: as a line for people, as a fingerprint for comparing runs.

use std::hash::{Hash, Hasher};

use super::process::Process;
use crate::message::Message;
use crate::vote::Statement;

pub(super) fn name(process: &Process) -> String {
    process.id.map_or_else(|| "observer".into(), |id| id.to_string())
}

fn statement(statement: &Statement) -> String {
    match statement {
        Statement::Notarize(p) => {
            format!("notarize {} in epoch {} view {} on view {}", p.block, p.epoch, p.view, p.parent_view)
        }
        Statement::Nullify { epoch, view } => format!("nullify epoch {epoch} view {view}"),
        Statement::Finalize(p) => format!("finalize {} in epoch {} view {}", p.block, p.epoch, p.view),
    }
}

/// A message in words.
pub(super) fn describe(message: &Message) -> String {
    match message {
        Message::Proposal(m) => format!(
            "proposal of {} at height {} in epoch {} view {} on view {}",
            m.proposal.block, m.proposal.height, m.proposal.epoch, m.proposal.view, m.proposal.parent_view
        ),
        Message::Vote(vote) => format!("vote of {} to {}", vote.signer, statement(&vote.statement)),
        Message::Certificate(certificate) => format!("certificate to {}", statement(&certificate.statement)),
        Message::Request(request) => format!(
            "request above height {}, blocks {:?}, views {:?} of epoch {}",
            request.finalized, request.blocks, request.views, request.epoch
        ),
        Message::Block(delivery) => format!("block {}", delivery.0.digest()),
        Message::Segment(segment) => format!(
            "segment of {} blocks up to height {}",
            segment.blocks.len(),
            segment.blocks.last().map_or(0, |block| block.header().height)
        ),
        Message::Gossip(gossip) => format!("{} transactions", gossip.0.len()),
        Message::Body(_) => "body".into(),
    }
}

/// Hashes what tells messages apart.
pub(super) fn fingerprint(message: &Message, hasher: &mut impl Hasher) {
    std::mem::discriminant(message).hash(hasher);
    match message {
        Message::Proposal(m) => m.proposal.hash(hasher),
        Message::Vote(vote) => (vote.statement, vote.signer).hash(hasher),
        Message::Certificate(certificate) => certificate.statement.hash(hasher),
        Message::Request(request) => (request.finalized, &request.blocks, request.views).hash(hasher),
        Message::Block(delivery) => delivery.0.digest().hash(hasher),
        Message::Segment(segment) => segment.certificate.statement.hash(hasher),
        Message::Gossip(gossip) => gossip.0.iter().for_each(|tx| (tx.signer, tx.sequence).hash(hasher)),
        Message::Body(_) => {}
    }
}
