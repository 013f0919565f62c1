//! Replicas that break the rules, each around a core of its own and with its own key only.

use std::sync::Arc;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::schedule::Misbehaviour;
use crate::codec::{Decode as _, Encode as _};
use crate::core::Core;
use crate::crypto::{Signature, Signer as _, StubSigner};
use crate::genesis::Registry;
use crate::message::{Message, ProposalMessage, Request};
use crate::tx::Payload;
use crate::types::ReplicaId;
use crate::vote::{Certificate, Proposal, Statement, Vote};

/// Messages kept for replay.
const MEMORY: usize = 200;

/// A message and the bit mask of addresses that it goes to.
pub(super) type Outgoing = (u32, Arc<Message>);

/// One Byzantine replica's state.
pub(super) struct Byzantine {
    kind: Misbehaviour,
    id: ReplicaId,
    signer: StubSigner,
    registry: Arc<Registry>,
    memory: Vec<Arc<Message>>,
}

impl Byzantine {
    pub(super) fn new(
        kind: Misbehaviour,
        id: ReplicaId,
        signer: StubSigner,
        registry: Arc<Registry>,
    ) -> Self {
        Self { kind, id, signer, registry, memory: Vec::new() }
    }

    fn vote(&self, statement: Statement) -> Vote {
        let signature = self.signer.sign(&statement.signing_bytes(self.registry.chain()));
        Vote { statement, signer: self.id, signature }
    }

    fn remember(&mut self, message: &Arc<Message>, rng: &mut ChaCha8Rng) {
        if self.memory.len() < MEMORY {
            self.memory.push(message.clone());
        } else {
            let slot = rng.random_range(0..MEMORY);
            self.memory[slot] = message.clone();
        }
    }

    /// What goes out in place of a message that the core sends to `targets`.
    pub(super) fn send(
        &mut self,
        core: &mut Core,
        targets: u32,
        message: Arc<Message>,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Outgoing> {
        match self.kind {
            Misbehaviour::EquivocatingLeader => self.equivocate(core, targets, message, rng),
            Misbehaviour::Withholder => {
                // Sometimes from everybody, sometimes from all but one, mostly from some.
                let kept = match rng.random_range(0..4) {
                    0 => 0,
                    1 => 1 << rng.random_range(0..8),
                    _ => rng.random::<u32>(),
                };
                vec![(targets & kept, message)]
            }
            Misbehaviour::StaleReplayer => {
                self.remember(&message, rng);
                let old = self.memory[rng.random_range(0..self.memory.len())].clone();
                vec![(targets, message), (rng.random::<u32>(), old)]
            }
            Misbehaviour::GarbageSender => {
                let mut out = vec![(targets, message.clone())];
                out.extend(damaged(&message, rng).map(|garbage| (rng.random::<u32>(), garbage)));
                out.push((rng.random::<u32>(), Arc::new(self.nonsense(rng))));
                out
            }
            Misbehaviour::DoubleVoter | Misbehaviour::SharedIdentity => vec![(targets, message)],
        }
    }

    /// What a received message provokes beside the core's own reaction.
    pub(super) fn receive(&mut self, message: &Arc<Message>, rng: &mut ChaCha8Rng) -> Vec<Outgoing> {
        match (self.kind, message.as_ref()) {
            (Misbehaviour::DoubleVoter, Message::Proposal(proposal)) => {
                self.vote_for_all(proposal.proposal, rng)
            }
            (Misbehaviour::DoubleVoter, Message::Vote(vote)) if rng.random_bool(0.3) => {
                vote.statement.proposal().map_or_else(Vec::new, |proposal| self.vote_for_all(*proposal, rng))
            }
            (Misbehaviour::StaleReplayer, _) => {
                self.remember(message, rng);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn vote_for_all(&self, proposal: Proposal, rng: &mut ChaCha8Rng) -> Vec<Outgoing> {
        let nullify = Statement::Nullify { epoch: proposal.epoch, view: proposal.view };
        [Statement::Notarize(proposal), Statement::Finalize(proposal), nullify]
            .into_iter()
            .map(|statement| (rng.random::<u32>(), Arc::new(Message::Vote(self.vote(statement)))))
            .collect()
    }

    /// Sends one block to some and another to the rest; the other may be on an older parent.
    fn equivocate(
        &mut self,
        core: &mut Core,
        targets: u32,
        message: Arc<Message>,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Outgoing> {
        let Message::Proposal(original) = message.as_ref() else { return vec![(targets, message)] };
        let proposal = original.proposal;
        let parent_view = match rng.random_range(0..3) {
            0 => proposal.parent_view,
            _ => proposal.parent_view.saturating_sub(rng.random_range(0..3)),
        };
        let payload = Payload::Action { round: rng.random(), content: vec![1, 2, 3] };
        let Some(crafted) = core.craft(proposal.view, parent_view, Some(payload)) else {
            return vec![(targets, message)];
        };
        let block = crafted.block;
        let other = Proposal {
            parent_view: crafted.parent_view,
            height: block.header().height,
            block: block.digest(),
            ..proposal
        };
        let signature = self.vote(Statement::Notarize(other)).signature;
        let justification = original.justification.clone();
        let other = ProposalMessage { proposal: other, block, signature, justification };
        let side: u32 = rng.random();
        vec![(targets & side, message.clone()), (targets & !side, Arc::new(Message::Proposal(other)))]
    }

    /// Well-formed messages without sense.
    fn nonsense(&self, rng: &mut ChaCha8Rng) -> Message {
        let view = [0, 1, u64::MAX, u64::MAX - 1, rng.random_range(0..100)][rng.random_range(0..5)];
        let epoch = [0, 1, u64::MAX, rng.random_range(0..5)][rng.random_range(0..4)];
        let proposal = Proposal {
            epoch,
            view,
            parent_view: rng.random(),
            height: rng.random(),
            block: *self.registry.chain(),
        };
        let statement = match rng.random_range(0..3) {
            0 => Statement::Notarize(proposal),
            1 => Statement::Finalize(proposal),
            _ => Statement::Nullify { epoch, view },
        };
        match rng.random_range(0..4) {
            0 => Message::Vote(self.vote(statement)),
            1 => {
                let vote = self.vote(statement);
                let signatures = (0..7).map(|id| (ReplicaId(id), vote.signature)).collect();
                Message::Certificate(Arc::new(Certificate { statement, signatures }))
            }
            2 => {
                let views = Some((view, view.saturating_add(10)));
                let blocks = vec![*self.registry.chain(); 3];
                Message::Request(Request { epoch, finalized: rng.random(), blocks, views })
            }
            _ => {
                let vote = Vote {
                    statement,
                    signer: ReplicaId(rng.random_range(0..9)),
                    signature: Signature([7; 64]),
                };
                Message::Vote(vote)
            }
        }
    }
}

/// The message with some bytes changed or cut off, if it still decodes.
fn damaged(message: &Message, rng: &mut ChaCha8Rng) -> Option<Arc<Message>> {
    let mut bytes = message.to_bytes();
    for _ in 0..rng.random_range(1..4) {
        let position = rng.random_range(0..bytes.len());
        bytes[position] ^= 1 << rng.random_range(0..8);
    }
    if rng.random_bool(0.1) {
        bytes.truncate(rng.random_range(0..bytes.len()));
    }
    Message::from_bytes(&bytes).ok().map(Arc::new)
}
