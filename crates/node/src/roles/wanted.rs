//! Models that a verifier is to check and that have not come: when to ask for them, and whom.
//!
//! Models spread along trees of BSs. Where one of them dies, those behind it may not be reached, and a BS that is started again has
//! lost what came before; the quorum is short of their findings then. So whoever misses a model for longer than its spreading takes asks
//! one after the other of those that may have it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// A model by the digest of its body.
pub(super) type ModelDigest = [u8; 32];

#[derive(Debug)]
struct Ask {
    next: Instant,
    pause: Duration,
    tries: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Wanted(BTreeMap<ModelDigest, Ask>);

impl Wanted {
    /// A model is to be checked and not here: it is asked for after `pause`, and again after each further one.
    pub(super) fn want(&mut self, digest: ModelDigest, pause: Duration, now: Instant) {
        self.0.entry(digest).or_insert(Ask { next: now + pause, pause, tries: 0 });
    }

    /// It is here, or nobody needs it any more.
    pub(super) fn forget(&mut self, digest: &ModelDigest) {
        self.0.remove(digest);
    }

    /// Forgets all but these.
    pub(super) fn keep_only(&mut self, still: impl Fn(&ModelDigest) -> bool) {
        self.0.retain(|digest, _| still(digest));
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|ask| ask.next).min()
    }

    /// What is due, each with how often it was asked for before.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(ModelDigest, usize)> {
        let due = self.0.iter_mut().filter(|(_, ask)| ask.next <= now);
        due.map(|(digest, ask)| {
            ask.next = now + ask.pause;
            ask.tries += 1;
            (*digest, ask.tries - 1)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_is_asked_for_again_and_what_came_is_not() {
        let (one, two, now) = ([1; 32], [2; 32], Instant::now());
        let s = Duration::from_secs;
        let mut wanted = Wanted::default();
        assert_eq!(wanted.next(), None);
        wanted.want(one, s(2), now);
        wanted.want(two, s(3), now);
        // Wanted once more, it is not put off.
        wanted.want(one, s(9), now + s(1));
        assert_eq!(wanted.next(), Some(now + s(2)));
        assert_eq!(wanted.due(now + s(1)), []);
        assert_eq!(wanted.due(now + s(3)), [(one, 0), (two, 0)]);
        assert_eq!(wanted.due(now + s(4)), []);
        wanted.forget(&two);
        assert_eq!(wanted.due(now + s(9)), [(one, 1)]);
        wanted.keep_only(|digest| *digest == two);
        assert_eq!(wanted.next(), None);
    }
}
