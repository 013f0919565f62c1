//! Which models a node lets in, and which of them are new: without clock or sockets.
//!
//! Models go from hand to hand, so whoever brings one need not have made it. The MBS and BSs may bring the model of a BS, and the MBS alone
//! its own; the origin has signed each. A model counts as seen only once all of this holds and its body is as long as a model here, and is
//! the one that was signed: nothing that anybody else sends keeps a BS's model out, or takes memory.

use std::collections::HashSet;

use dtwn_model::{plan::Role, topology::Learning};
use dtwn_proto::node::ModelHeader;
use ed25519_dalek::VerifyingKey;

use super::model;
use crate::{
    agent::{AgentError, Node},
    learning::wire::{self, Format},
};

/// Why a model is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is said to be that of a node which makes none")]
    Origin,
    #[error("its sender is not one to bring it")]
    Sender,
    #[error("it is of a round far ahead")]
    Ahead,
    #[error("a body of {0} bytes, which is not what a model has here")]
    Length(usize),
    #[error("its origin has not signed it")]
    Signature,
    #[error("its body is not the one that its origin has signed")]
    Digest,
}

/// What a BS does with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The global model, from the MBS.
    Global,
    /// The first one of this BS in its round: is kept, and passed on.
    First(usize),
    /// Another one of the same BS and round, and the one on record: is kept.
    Recorded(usize),
    /// Too late, or known: is dropped.
    Useless,
}

/// How long a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Bytes.
    Exact(usize),
    /// Where models are trained, and before the first global one is here, which is as long as all others: as each says itself.
    Announced(Format),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    mbs: (String, VerifyingKey),
    stations: Vec<(String, VerifyingKey)>,
    size: Size,
    /// Rounds and BSs of which a model was let in.
    seen: HashSet<(u64, usize)>,
}

impl Gate {
    /// For the nodes of a network.
    ///
    /// # Errors
    /// When the session gave no key for one of them.
    pub(super) fn new(node: &Node) -> Result<Self, AgentError> {
        let topology = node.plan.topology();
        let keyed = |name: &String| Ok((name.clone(), node.verifying_key(name)?));
        let stations = node.plan.nodes.iter().filter(|node| matches!(node.role, Role::Bs(_)));
        let stations = stations.map(|bs| keyed(&bs.name)).collect::<Result<_, AgentError>>()?;
        let bytes = topology.cost.model_size.get() as usize;
        let size = size_of(&topology.learning, bytes);
        Ok(Self { mbs: keyed(&node.plan.nodes[0].name)?, stations, size, seen: HashSet::new() })
    }

    /// A global model has been sent or let in: all models are as long.
    pub(super) fn fix_size(&mut self, bytes: usize) {
        self.size = Size::Exact(bytes);
    }

    /// A round begins: of those before, nothing is let in any more.
    pub(super) fn open(&mut self, round: u64) {
        self.seen.retain(|(of, _)| *of >= round);
    }

    /// What BS `me`, for which `round` lasts, does with a model that `from` has brought. `wanted` tells of a BS's model of a round in which
    /// another one of it has come before whether it is on record and missing.
    pub(super) fn admit(
        &mut self,
        (me, round): (usize, u64),
        from: &str,
        (header, body): (&ModelHeader, &[u8]),
        wanted: impl FnOnce(usize) -> bool,
    ) -> Result<Entry, Refusal> {
        if header.origin == self.mbs.0 {
            if from != self.mbs.0 {
                return Err(Refusal::Sender);
            }
            self.verify(header, body, &self.mbs.1)?;
            self.fix_size(body.len());
            return Ok(Entry::Global);
        }
        if from != self.mbs.0 && self.position(from).is_none() {
            return Err(Refusal::Sender);
        }
        let origin = self.position(&header.origin).ok_or(Refusal::Origin)?;
        // A model may overtake the global one that opens its round; an older one is of no use to anybody.
        if header.round < round || origin == me {
            return Ok(Entry::Useless);
        }
        if header.round > round.saturating_add(1) {
            return Err(Refusal::Ahead);
        }
        let mark = (header.round, origin);
        let is_seen = self.seen.contains(&mark);
        if is_seen && !wanted(origin) {
            return Ok(Entry::Useless);
        }
        self.verify(header, body, &self.stations[origin].1)?;
        self.seen.insert(mark);
        Ok(if is_seen { Entry::Recorded(origin) } else { Entry::First(origin) })
    }

    /// Whether a model is that of the BS that has sent it, as models are that come to the MBS.
    pub(super) fn check(&self, from: &str, header: &ModelHeader, body: &[u8]) -> Result<(), Refusal> {
        if header.origin != from {
            return Err(Refusal::Sender);
        }
        let origin = self.position(from).ok_or(Refusal::Origin)?;
        self.verify(header, body, &self.stations[origin].1)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.stations.iter().position(|(of, _)| of == name)
    }

    /// The body is hashed last, as that costs most.
    fn verify(&self, header: &ModelHeader, body: &[u8], key: &VerifyingKey) -> Result<(), Refusal> {
        let fits = match self.size {
            Size::Exact(bytes) => body.len() == bytes,
            Size::Announced(format) => wire::is_whole(body, format),
        };
        if !fits {
            return Err(Refusal::Length(body.len()));
        }
        if !model::is_signed(header, key) {
            return Err(Refusal::Signature);
        }
        model::check(header, body).map_err(|_| Refusal::Digest)
    }
}

/// Where models are not trained they have `bytes`.
fn size_of(learning: &Learning, bytes: usize) -> Size {
    if learning.trains() { Size::Announced(learning.format.into()) } else { Size::Exact(bytes) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dtwn_proto::node::{self, Header};
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::learning::wire::Encoder;

    const BODY: &[u8] = b"the model";
    /// BS 1 of three, in round 5.
    const HERE: (usize, u64) = (0, 5);

    fn key(name: &str) -> SigningKey {
        let mut seed = [0; 32];
        seed[..name.len()].copy_from_slice(name.as_bytes());
        SigningKey::from_bytes(&seed)
    }

    fn gate() -> Gate {
        let keyed = |name: &str| (name.to_owned(), key(name).verifying_key());
        let stations = ["bs1", "bs2", "bs3"].map(keyed).to_vec();
        Gate { mbs: keyed("mbs"), stations, size: Size::Exact(BODY.len()), seen: HashSet::new() }
    }

    /// A model, said to be that of `origin` and signed by `signer`.
    fn model_of(origin: &str, signer: &str, round: u64, body: &[u8]) -> (ModelHeader, Bytes) {
        let message = model::message(&key(signer), round, origin, 7, body).unwrap();
        let (Header::Model(header), body) = node::decode(&message).unwrap() else { panic!() };
        (header, body)
    }

    fn admit(gate: &mut Gate, from: &str, (header, body): &(ModelHeader, Bytes)) -> Result<Entry, Refusal> {
        gate.admit(HERE, from, (header, body), |_| false)
    }

    #[test]
    fn a_forged_model_is_refused_and_does_not_keep_the_genuine_one_out() {
        let mut gate = gate();
        let genuine = model_of("bs3", "bs3", 5, BODY);
        // A group of users brings nothing, be it genuine; nobody brings what another has signed.
        assert_eq!(admit(&mut gate, "ug1", &genuine), Err(Refusal::Sender));
        assert_eq!(admit(&mut gate, "bs2", &model_of("bs3", "bs2", 5, BODY)), Err(Refusal::Signature));
        assert_eq!(admit(&mut gate, "mbs", &model_of("bs3", "mbs", 5, BODY)), Err(Refusal::Signature));
        assert_eq!(admit(&mut gate, "bs2", &model_of("ug1", "bs2", 5, BODY)), Err(Refusal::Origin));
        // What was signed for another round, or with another body, is nothing here.
        let (mut later, body) = model_of("bs3", "bs3", 4, BODY);
        later.round = 5;
        assert_eq!(admit(&mut gate, "bs2", &(later, body)), Err(Refusal::Signature));
        let swapped = (genuine.0.clone(), Bytes::from_static(b"the wrong"));
        assert_eq!(admit(&mut gate, "bs2", &swapped), Err(Refusal::Digest));
        let long = model_of("bs3", "bs3", 5, b"a longer model");
        assert_eq!(admit(&mut gate, "bs3", &long), Err(Refusal::Length(14)));
        assert_eq!(gate.seen.len(), 0);

        assert_eq!(admit(&mut gate, "bs2", &genuine), Ok(Entry::First(2)));
        assert_eq!(admit(&mut gate, "bs3", &genuine), Ok(Entry::Useless));
        // The MBS has it for those who ask.
        gate.seen.clear();
        assert_eq!(admit(&mut gate, "mbs", &genuine), Ok(Entry::First(2)));
    }

    #[test]
    fn models_of_this_round_and_the_next_are_let_in() {
        let mut gate = gate();
        let of = |round| model_of("bs2", "bs2", round, BODY);
        let entries = [4, 5, 6, 7].map(|round| admit(&mut gate, "bs2", &of(round)));
        let first = Ok(Entry::First(1));
        assert_eq!(entries, [Ok(Entry::Useless), first, first, Err(Refusal::Ahead)]);
        assert_eq!(admit(&mut gate, "bs2", &model_of("bs1", "bs1", 5, BODY)), Ok(Entry::Useless), "our own");
        gate.open(6);
        assert_eq!(gate.seen, HashSet::from([(6, 1)]));
    }

    #[test]
    fn what_is_on_record_is_let_in_though_another_model_was_seen() {
        let mut gate = gate();
        // Its origin has signed two.
        let (other, recorded) = (model_of("bs2", "bs2", 5, b"some bits"), model_of("bs2", "bs2", 5, BODY));
        assert_eq!(admit(&mut gate, "bs2", &other), Ok(Entry::First(1)));
        assert_eq!(admit(&mut gate, "bs3", &recorded), Ok(Entry::Useless));
        let wanted = gate.admit(HERE, "bs3", (&recorded.0, &recorded.1), |origin| origin == 1);
        assert_eq!(wanted, Ok(Entry::Recorded(1)));
        // It is checked as any.
        let forged = model_of("bs2", "bs3", 5, BODY);
        let wanted = gate.admit(HERE, "bs3", (&forged.0, &forged.1), |_| true);
        assert_eq!(wanted, Err(Refusal::Signature));
    }

    #[test]
    fn the_global_model_comes_from_the_mbs_alone_and_tells_how_long_models_are() {
        let mut gate = gate();
        let encoded = |parameters| Encoder::new(Format::Int8).encode(&vec![0.5; parameters]);
        gate.size = Size::Announced(Format::Int8);
        let global = model_of("mbs", "mbs", 5, &encoded(2000));
        assert_eq!(admit(&mut gate, "bs2", &global), Err(Refusal::Sender));
        assert_eq!(admit(&mut gate, "mbs", &model_of("mbs", "bs2", 5, &global.1)), Err(Refusal::Signature));
        // Before it is here, a model is as long as it says itself.
        assert_eq!(admit(&mut gate, "bs2", &model_of("bs2", "bs2", 5, BODY)), Err(Refusal::Length(9)));
        assert_eq!(admit(&mut gate, "bs2", &model_of("bs2", "bs2", 5, &encoded(10))), Ok(Entry::First(1)));
        assert_eq!(admit(&mut gate, "mbs", &global), Ok(Entry::Global));
        let short = model_of("bs3", "bs3", 5, &encoded(10));
        assert_eq!(admit(&mut gate, "bs3", &short), Err(Refusal::Length(short.1.len())));
        assert_eq!(admit(&mut gate, "bs3", &model_of("bs3", "bs3", 5, &encoded(2000))), Ok(Entry::First(2)));
    }

    #[test]
    fn the_mbs_takes_a_model_from_its_origin_alone() {
        let gate = gate();
        let check = |from, (header, body): (ModelHeader, Bytes)| gate.check(from, &header, &body);
        assert_eq!(check("bs2", model_of("bs2", "bs2", 5, BODY)), Ok(()));
        assert_eq!(check("bs3", model_of("bs2", "bs2", 5, BODY)), Err(Refusal::Sender));
        assert_eq!(check("mbs", model_of("mbs", "mbs", 5, BODY)), Err(Refusal::Origin));
        assert_eq!(check("bs2", model_of("bs2", "bs3", 5, BODY)), Err(Refusal::Signature));
        assert_eq!(check("bs2", model_of("bs2", "bs2", 5, b"short")), Err(Refusal::Length(5)));
    }
}
