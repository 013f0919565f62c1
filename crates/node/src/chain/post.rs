//! What the chain sends, and over which connections.
//!
//! Up to [`MESH_MAX`] BSs are all connected to each other. Beyond, a message to everybody spreads along the binomial trees of the
//! overlay ([`overlay`]), each BS passing it on, and a request goes to a neighbour, which answers from its own store.
//!
//! What the chain repeats anyway must not pile up where a link stalls: such messages expire, and a repetition takes the place of
//! the copy that still waits.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hasher as _},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use dtwn_chain::{
    bodies::BodyMessage, codec::Encode as _, core::Target, message::Message, types::ReplicaId,
    vote::Statement,
};
use dtwn_proto::{
    bus::{Class, NodeName},
    node::{self, ChainHeader, Header},
};

use super::ChainError;
use crate::{
    agent::EmulatedClock,
    bus::{Bus, Key, Message as BusMessage},
    roles::overlay,
};

/// Most BSs of which each is connected to every other.
pub const MESH_MAX: usize = 16;
/// After so much emulated time what could not be sent is dropped: whoever still needs it asks, or it is repeated.
const EXPIRY_S: f64 = 1.0;
/// Larger answers go with the bulk traffic, so that votes do not wait behind them.
const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Bytes waiting for a peer beyond which no transactions are passed on to it: they will be later, and votes must not wait behind
/// them.
const GOSSIP_ROOM_BYTES: usize = 64 * 1024;
/// A proposal goes with the votes whatever its size, as long as the bus's limit on such messages allows.
const PROPOSAL_BYTES_MAX: usize = 1000 * 1024;

/// The BSs that BS `me` of `stations` is connected to for the chain.
#[must_use]
pub fn neighbours(me: usize, stations: usize) -> Vec<usize> {
    if stations <= MESH_MAX {
        (0..stations).filter(|other| *other != me).collect()
    } else {
        overlay::neighbours(me, stations)
    }
}

/// See the module.
pub(super) struct Post {
    bus: Bus,
    names: Vec<NodeName>,
    mbs: NodeName,
    me: Option<ReplicaId>,
    neighbours: Vec<usize>,
    expiry: Duration,
    turn: usize,
}

impl Post {
    pub(super) fn new(
        bus: Bus,
        names: &[String],
        mbs: &str,
        me: Option<ReplicaId>,
        clock: EmulatedClock,
    ) -> Result<Self, ChainError> {
        let name = |name: &str| NodeName::new(name).map_err(|_| ChainError::Name(name.to_owned()));
        let neighbours = match me {
            Some(me) => neighbours(me.index(), names.len()),
            None => (0..names.len()).collect(),
        };
        Ok(Self {
            bus,
            names: names.iter().map(|bs| name(bs)).collect::<Result<_, _>>()?,
            mbs: name(mbs)?,
            me,
            neighbours,
            expiry: clock.wall(EXPIRY_S),
            turn: 0,
        })
    }

    /// The sender as the chain knows it: a BS's id, or `None` for the MBS. No one else speaks for the chain.
    pub(super) fn sender(&self, from: &NodeName) -> Option<Option<ReplicaId>> {
        if *from == self.mbs {
            return Some(None);
        }
        let index = self.names.iter().position(|name| name == from)?;
        Some(Some(ReplicaId(u16::try_from(index).ok()?)))
    }

    /// Smoothed round trips to the connected BSs, wall time.
    pub(super) fn round_trips(&self) -> Vec<(ReplicaId, Duration)> {
        let stats = self.bus.stats();
        let measured = stats.peers.iter().filter(|(_, peer)| !peer.control.rtt.is_zero());
        measured.filter_map(|(name, peer)| Some((self.sender(name)??, peer.control.rtt))).collect()
    }

    /// Sends what the core wants sent.
    pub(super) fn send(&mut self, to: Target, message: &Arc<Message>) {
        let bytes = message.to_bytes();
        match to {
            Target::All => self.send_to_all(message, &bytes),
            Target::One(to) => self.send_to(to, message, &bytes),
        }
    }

    fn send_to_all(&self, message: &Message, bytes: &[u8]) {
        if self.me.is_some() && self.follows(message) {
            self.put(&self.mbs, message, &framed(None, bytes));
        }
        let spread = self.me.filter(|_| self.names.len() > MESH_MAX);
        let framed = framed(spread.map(|me| me.0), bytes);
        let to = match spread {
            Some(me) => self.children(me.index(), me.index()),
            // An observer has nothing to say to everybody but requests, which have a receiver.
            None => self.neighbours.clone(),
        };
        for neighbour in to {
            self.put(&self.names[neighbour], message, &framed);
        }
    }

    /// Whether the MBS, which only follows, needs a message: blocks, and what finalizes them.
    fn follows(&self, message: &Message) -> bool {
        match message {
            Message::Proposal(_) => true,
            Message::Certificate(certificate) => matches!(certificate.statement, Statement::Finalize(_)),
            Message::Body(_) => true,
            _ => false,
        }
    }

    fn send_to(&mut self, to: Option<ReplicaId>, message: &Message, bytes: &[u8]) {
        let framed = framed(None, bytes);
        match to {
            None => self.put(&self.mbs, message, &framed),
            Some(id) if self.neighbours.contains(&id.index()) => {
                self.put(&self.names[id.index()], message, &framed);
            }
            // Too far away: any neighbour can answer, and everybody's turn comes.
            Some(_) if matches!(message, Message::Request(_)) && !self.neighbours.is_empty() => {
                self.turn += 1;
                let neighbour = self.neighbours[self.turn % self.neighbours.len()];
                self.put(&self.names[neighbour], message, &framed);
            }
            Some(_) => {}
        }
    }

    /// Sends a message about bodies, to one BS or to all that are connected.
    pub(super) fn send_body(&self, to: Option<ReplicaId>, message: BodyMessage) {
        let message = Message::Body(message);
        let framed = framed(None, &message.to_bytes());
        match to {
            Some(id) => {
                if let Some(name) = self.names.get(id.index()) {
                    self.put(name, &message, &framed);
                }
            }
            None => self.neighbours.iter().for_each(|index| self.put(&self.names[*index], &message, &framed)),
        }
    }

    /// Passes a spread message on along its tree. Whatever origin a sender names, each BS that a message comes to stands deeper
    /// in that tree, so it never goes in circles.
    pub(super) fn pass_on(&self, origin: u16, message: &Message, bytes: &[u8]) {
        let Some(me) = self.me else { return };
        let origin_index = usize::from(origin);
        if origin_index >= self.names.len() || origin == me.0 {
            return;
        }
        let framed = framed(Some(origin), bytes);
        for child in self.children(me.index(), origin_index) {
            self.put(&self.names[child], message, &framed);
        }
    }

    /// The next BSs of a message's tree. For one that is not connected, this BS stands in towards those of its children that are
    /// neighbours here too.
    fn children(&self, me: usize, origin: usize) -> Vec<usize> {
        let stations = self.names.len();
        let stats = self.bus.stats();
        let connected: HashSet<&NodeName> =
            stats.peers.iter().filter(|(_, peer)| peer.control.connected).map(|(name, _)| name).collect();
        let mut next = overlay::children(me, origin, stations);
        let mut found = Vec::new();
        while let Some(child) = next.pop() {
            if !connected.contains(&self.names[child]) {
                let orphans = overlay::children(child, origin, stations);
                next.extend(orphans.into_iter().filter(|orphan| self.neighbours.contains(orphan)));
            }
            found.push(child);
        }
        found
    }

    fn put(&self, to: &NodeName, message: &Message, framed: &Bytes) {
        let Some(outgoing) = self.outgoing(to, message, framed) else { return };
        // A full queue is a stalled link, and what is lost there will be repeated or asked for.
        if let Err(error) = self.bus.send(to, outgoing) {
            tracing::trace!(%to, %error, "a message of the chain was not queued");
        }
    }

    /// Which way transactions go: beside the votes, unless models are in the way there; `None` when there is no room either way,
    /// as transactions that wait are passed on again and must not pile up.
    fn gossip_class(&self, to: &NodeName) -> Option<Class> {
        [Class::Bulk, Class::Control]
            .into_iter()
            .find(|class| self.bus.queued_bytes(to, *class) < GOSSIP_ROOM_BYTES)
    }

    fn outgoing(&self, to: &NodeName, message: &Message, framed: &Bytes) -> Option<BusMessage> {
        let bytes = framed.len();
        let control = |limit: usize| if bytes <= limit { Class::Control } else { Class::Bulk };
        let (class, key) = match message {
            Message::Proposal(proposal) => {
                let round = (proposal.proposal.epoch, proposal.proposal.view);
                (control(PROPOSAL_BYTES_MAX), Some(hash(&("proposal", round))))
            }
            Message::Vote(vote) => {
                let kind = std::mem::discriminant(&vote.statement);
                (Class::Control, Some(hash(&("vote", kind, vote.statement.round(), vote.signer))))
            }
            Message::Certificate(certificate) => match certificate.statement {
                // Only the latest finalization says anything new.
                Statement::Finalize(_) => (Class::Control, Some(hash(&"finalization"))),
                statement => {
                    let kind = std::mem::discriminant(&statement);
                    (Class::Control, Some(hash(&("certificate", kind, statement.round()))))
                }
            },
            Message::Request(_) => (Class::Control, Some(hash(&framed))),
            Message::Gossip(_) => (self.gossip_class(to)?, None),
            Message::Block(_) | Message::Segment(_) => (control(CONTROL_BYTES_MAX), Some(hash(&framed))),
            Message::Body(body) => match body {
                BodyMessage::Manifest { .. } | BodyMessage::Chunk { .. } => (Class::Bulk, None),
                _ => (Class::Control, Some(hash(&framed))),
            },
        };
        let patience = match message {
            Message::Body(_) => self.expiry * 10,
            _ => self.expiry,
        };
        let supersede = key.map(Key);
        Some(BusMessage { class, supersede, expires_after: Some(patience), body: framed.clone() })
    }
}

/// A message of the chain as it goes over the bus.
fn framed(spread: Option<u16>, bytes: &[u8]) -> Bytes {
    // A header of two small fields always encodes.
    node::encode(&Header::Chain(ChainHeader { spread }), bytes).unwrap_or_default()
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    // With fixed keys: the same in every process, and nobody chooses keys against us but ourselves.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_networks_are_a_mesh_and_large_ones_are_not() {
        assert_eq!(neighbours(1, 4), [0, 2, 3]);
        assert_eq!(neighbours(0, MESH_MAX).len(), MESH_MAX - 1);
        assert!(neighbours(0, 100).len() < 16);
        for stations in [4, 16, 17, 100] {
            for me in 0..stations {
                assert!(
                    neighbours(me, stations).iter().all(|other| neighbours(*other, stations).contains(&me))
                );
            }
        }
    }
}
