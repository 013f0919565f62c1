//! The models that a BS holds: its own last one, and those of others in the rounds that are open. Without clock or sockets.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::wanted::ModelDigest;

/// A model.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) round: u64,
    /// The BS that made it, by position.
    pub(super) owner: usize,
    /// As it travels, signed: whoever asks for it gets this, and no copy.
    pub(super) message: Bytes,
    /// The part of it behind the header.
    pub(super) body: Bytes,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By round and owner, each with its digest: whoever sends a copy of another's model, and then another one, takes nothing away.
    others: BTreeMap<(u64, usize), (ModelDigest, Model)>,
    own: Option<(ModelDigest, Model)>,
}

impl Held {
    /// A round begins from a global model of so many bytes: everything older is of no use any more, and neither is what has another
    /// length, as models may that came before any global one.
    pub(super) fn open(&mut self, round: u64, bytes: usize) {
        self.others.retain(|_, (_, model)| model.round >= round && model.body.len() == bytes);
    }

    /// Holds another BS's model, in the place of any other of the same BS and round: so many are held, and no more.
    pub(super) fn keep(&mut self, digest: ModelDigest, model: Model) {
        self.others.insert((model.round, model.owner), (digest, model));
    }

    /// Holds our own model, in the place of the one before.
    pub(super) fn keep_own(&mut self, digest: ModelDigest, model: Model) {
        self.own = Some((digest, model));
    }

    /// Our own model of a round.
    pub(super) fn own(&self, round: u64) -> Option<&Model> {
        self.own.as_ref().map(|(_, model)| model).filter(|model| model.round == round)
    }

    /// Another BS's model.
    pub(super) fn get(&self, digest: &ModelDigest) -> Option<&Model> {
        self.others.values().find(|(of, _)| of == digest).map(|(_, model)| model)
    }

    /// Anybody's model: its owner's position, and the message that carries it.
    pub(super) fn find(&self, digest: &ModelDigest) -> Option<(usize, Bytes)> {
        let own = self.own.as_ref().filter(|(of, _)| of == digest).map(|(_, model)| model);
        self.get(digest).or(own).map(|model| (model.owner, model.message.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(round: u64, owner: usize, text: &'static str) -> (ModelDigest, Model) {
        let message = Bytes::from(format!("header {text}"));
        let body = message.slice(message.len() - text.len()..);
        (*blake3::hash(text.as_bytes()).as_bytes(), Model { round, owner, message, body })
    }

    #[test]
    fn one_model_of_each_bs_and_round_is_held() {
        let mut held = Held::default();
        let first = model(5, 1, "first");
        let models = [first.clone(), model(5, 2, "other"), model(6, 1, "later"), model(5, 1, "again")];
        models.iter().for_each(|(digest, model)| held.keep(*digest, model.clone()));
        assert_eq!(
            models.each_ref().map(|(digest, _)| held.get(digest).is_some()),
            [false, true, true, true]
        );
        assert!(held.find(&first.0).is_none());
        // A round of models as long as "later" begins.
        held.open(6, 5);
        assert_eq!(held.others.len(), 1);
        // A copy of it under another name goes, and it stays.
        let later = &models[2];
        held.keep(later.0, Model { owner: 3, ..later.1.clone() });
        held.keep([9; 32], model(6, 3, "other").1);
        assert_eq!(held.get(&later.0).map(|model| model.owner), Some(1));
        held.open(6, 6);
        assert_eq!(held.others.len(), 0);
    }

    #[test]
    fn who_asks_again_and_again_gets_the_same_bytes() {
        let mut held = Held::default();
        let (own, other) = (model(5, 0, "mine"), model(5, 1, "yours"));
        held.keep_own(own.0, own.1.clone());
        held.keep(other.0, other.1.clone());
        for (digest, model) in [&own, &other] {
            let found = [held.find(digest), held.find(digest)];
            let at = model.message.as_ptr();
            assert!(
                found.iter().flatten().all(|(owner, bytes)| *owner == model.owner && bytes.as_ptr() == at)
            );
            assert_eq!(found.iter().flatten().count(), 2);
        }
        assert_eq!(held.own(5).map(|model| &model.body[..]), Some(&b"mine"[..]));
        assert!(held.own(6).is_none());
    }
}
