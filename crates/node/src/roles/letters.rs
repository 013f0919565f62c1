//! What BSs have sent for the MBS's rounds, and these have not taken yet.
//!
//! The rounds take nothing while they decide, or make a global model, and a decision waits for the chain, whose messages come over the same
//! bus. So whoever brings a letter never waits. Memory stays bounded all the same: of each BS the newest letter of a kind is held, for
//! only that one counts, and as many questions for models as there are models in a round.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use dtwn_proto::node::Header;
use tokio::sync::Notify;

use crate::bus::Incoming;

/// A message of a BS, taken apart.
#[derive(Debug)]
pub(super) struct Letter {
    /// The BS's position.
    pub(super) bs: usize,
    pub(super) header: Header,
    pub(super) body: Bytes,
    /// As it came.
    pub(super) incoming: Incoming,
}

impl Letter {
    /// Whether it says nothing any more now that `newer` is here.
    fn gives_way_to(&self, newer: &Self) -> bool {
        self.bs == newer.bs
            && match (&self.header, &newer.header) {
                (Header::WantModel { digest }, Header::WantModel { digest: other }) => digest == other,
                (old, new) => std::mem::discriminant(old) == std::mem::discriminant(new),
            }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Letters {
    /// Questions of a BS that are held.
    questions_max: usize,
    /// In the order in which they came.
    held: Mutex<VecDeque<Letter>>,
    wake: Notify,
}

impl Letters {
    /// From so many BSs.
    pub(super) fn new(stations: usize) -> Self {
        Self { questions_max: stations, held: Mutex::default(), wake: Notify::new() }
    }

    /// Holds a letter until it is taken. A letter that is not for the MBS comes back.
    ///
    /// # Errors
    /// The letter.
    pub(super) fn put(&self, letter: Letter) -> Result<(), Box<Letter>> {
        let mut held = self.held();
        match letter.header {
            Header::Model(_) | Header::Join | Header::Trains { .. } | Header::WantModel { .. } => {}
            _ => return Err(Box::new(letter)),
        }
        held.retain(|older| !older.gives_way_to(&letter));
        let is_question = |held: &Letter| matches!(held.header, Header::WantModel { .. });
        if is_question(&letter) {
            let same = |held: &Letter| is_question(held) && held.bs == letter.bs;
            // Whoever asked will ask again.
            if held.iter().filter(|held| same(held)).count() >= self.questions_max
                && let Some(oldest) = held.iter().position(same)
            {
                held.remove(oldest);
            }
        }
        held.push_back(letter);
        self.wake.notify_one();
        Ok(())
    }

    /// The oldest letter, once there is one. For one taker; nothing is lost when it is dropped before.
    pub(super) async fn next(&self) -> Letter {
        loop {
            if let Some(letter) = self.take() {
                return letter;
            }
            self.wake.notified().await;
        }
    }

    fn take(&self) -> Option<Letter> {
        self.held().pop_front()
    }

    fn held(&self) -> MutexGuard<'_, VecDeque<Letter>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use dtwn_proto::{
        bus::{Class, NodeName},
        node::{self, Decide, ModelHeader},
    };

    use super::*;

    fn letter(bs: usize, header: Header, body: &[u8]) -> Letter {
        let from = NodeName::new(&format!("bs{}", bs + 1)).unwrap();
        let message = node::encode(&header, body).unwrap();
        let incoming =
            Incoming { from, class: Class::Control, body: message, sent_at_ns: 0, received_at_ns: 0 };
        Letter { bs, header, body: Bytes::copy_from_slice(body), incoming }
    }

    fn model(round: u64) -> Header {
        let (origin, signature) = ("bs1".into(), [[0; 32]; 2]);
        Header::Model(ModelHeader { round, origin, sent_at_ns: 0, digest: [0; 32], signature })
    }

    fn trains(round: u64, anything: bool) -> Header {
        Header::Trains { round, anything }
    }

    fn taken(letters: &Letters) -> Vec<(usize, Header)> {
        std::iter::from_fn(|| letters.take()).map(|letter| (letter.bs, letter.header)).collect()
    }

    #[test]
    fn the_newest_letter_of_each_bs_and_kind_is_held_in_the_order_in_which_they_came() {
        let letters = Letters::new(2);
        for round in 1..100 {
            letters.put(letter(0, model(round), b"parameters")).unwrap();
            letters.put(letter(1, trains(round, true), &[])).unwrap();
        }
        // After it was started again a BS finds that there is nothing to train, which must not be undone by what it said before.
        let last = [(1, trains(100, true)), (1, Header::Join), (1, trains(100, false)), (0, Header::Join)];
        last.iter().for_each(|(bs, header)| letters.put(letter(*bs, header.clone(), &[])).unwrap());
        let kept = [(0, model(99)), (1, Header::Join), (1, trains(100, false)), (0, Header::Join)];
        assert_eq!(taken(&letters), kept);
    }

    #[test]
    fn as_many_questions_of_a_bs_are_held_as_there_are_models() {
        let letters = Letters::new(3);
        let want = |digest: u8| Header::WantModel { digest: [digest; 32] };
        letters.put(letter(1, want(7), &[])).unwrap();
        for digest in [1, 2, 3, 4, 3] {
            letters.put(letter(0, want(digest), &[])).unwrap();
        }
        assert_eq!(taken(&letters), [(1, want(7)), (0, want(2)), (0, want(4)), (0, want(3))]);
    }

    #[test]
    fn what_is_not_for_the_mbs_comes_back() {
        let letters = Letters::new(1);
        let call = Header::Decide(Decide { round: 1, slot: 1, present: Vec::new() });
        assert_eq!(letters.put(letter(0, call.clone(), &[])).unwrap_err().header, call);
        assert_eq!(taken(&letters), []);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_letter_gets_it() {
        let letters = Letters::new(1);
        let (got, ()) = tokio::join!(letters.next(), async {
            letters.put(letter(0, Header::Join, &[])).unwrap();
        });
        assert_eq!(got.header, Header::Join);
        // One that came before anybody waited, too.
        letters.put(letter(0, model(1), b"parameters")).unwrap();
        assert_eq!(letters.next().await.body, &b"parameters"[..]);
    }
}
