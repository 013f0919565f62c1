//! Replay protection in bounded memory.
//!
//! Each account has a window of the last [`WINDOW`] sequence numbers below the highest used. A number inside the
//! window or above it is fresh until used; one below the window never is again. So a sequence number is used at
//! most once for all time, with a fixed number of bytes per account, and transactions need not arrive in order.

use crate::codec::{Decode, Encode, Reader};
use crate::error::Result;

/// Sequence numbers remembered per account, and the most that one transaction may skip.
pub const WINDOW: u64 = 4096;

const WORDS: usize = (WINDOW / 64) as usize;

/// The sequence numbers that one account has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayWindow {
    highest: u64,
    /// Bit `sequence % WINDOW` is set when `sequence` is used, for sequences in `(highest - WINDOW, highest]`.
    used: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { highest: 0, used: [0; WORDS] }
    }
}

impl ReplayWindow {
    /// The highest sequence number used, 0 before the first.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// True when `sequence` may still be used.
    #[must_use]
    pub fn is_fresh(&self, sequence: u64) -> bool {
        let in_range =
            sequence > self.highest.saturating_sub(WINDOW) && sequence <= self.highest.saturating_add(WINDOW);
        in_range && sequence != u64::MAX && (sequence > self.highest || !self.bit(sequence))
    }

    /// True when `sequence` can never be used again (as opposed to being too far ahead).
    #[must_use]
    pub fn is_spent(&self, sequence: u64) -> bool {
        sequence <= self.highest && !self.is_fresh(sequence)
    }

    /// Uses `sequence`; false, without change, when it is not fresh.
    pub fn use_up(&mut self, sequence: u64) -> bool {
        if !self.is_fresh(sequence) {
            return false;
        }
        // The bits of the numbers skipped belong to numbers that now fall out of the window.
        for skipped in self.highest + 1..=sequence {
            self.used[Self::word(skipped)] &= !(1 << (skipped % 64));
        }
        self.highest = self.highest.max(sequence);
        self.used[Self::word(sequence)] |= 1 << (sequence % 64);
        true
    }

    fn bit(&self, sequence: u64) -> bool {
        self.used[Self::word(sequence)] >> (sequence % 64) & 1 == 1
    }

    fn word(sequence: u64) -> usize {
        // Below WORDS, so it fits.
        usize::try_from(sequence % WINDOW / 64).unwrap_or(0)
    }
}

impl Encode for ReplayWindow {
    fn encode(&self, out: &mut Vec<u8>) {
        self.highest.encode(out);
        self.used.iter().for_each(|word| word.encode(out));
    }
}

impl Decode for ReplayWindow {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let highest = u64::decode(reader)?;
        let mut used = [0; WORDS];
        for word in &mut used {
            *word = u64::decode(reader)?;
        }
        Ok(Self { highest, used })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zero_and_far_jumps_are_never_fresh() {
        let mut window = ReplayWindow::default();
        assert!(!window.is_fresh(0));
        assert!(window.is_fresh(WINDOW));
        assert!(!window.is_fresh(WINDOW + 1));
        assert!(window.use_up(WINDOW));
        assert!(window.is_fresh(1));
        assert!(window.use_up(WINDOW + 1));
        assert!(window.is_spent(1), "fell out of the window");
        assert!(!window.is_fresh(u64::MAX));
    }

    proptest! {
        /// Against a set that remembers everything: nothing is accepted twice, and all that the window covers is.
        #[test]
        fn accepts_exactly_what_a_full_memory_would(jumps in proptest::collection::vec((any::<bool>(), 1u64..3000), 1..200)) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            for (forward, step) in jumps {
                let sequence = if forward { window.highest() + step } else { window.highest().saturating_sub(step) };
                let highest = seen.last().copied().unwrap_or(0);
                let expected = sequence > 0
                    && !seen.contains(&sequence)
                    && sequence + WINDOW > highest
                    && sequence <= highest + WINDOW;
                prop_assert_eq!(window.use_up(sequence), expected);
                if expected {
                    seen.insert(sequence);
                }
                prop_assert_eq!(ReplayWindow::from_bytes(&window.to_bytes()), Ok(window.clone()));
            }
        }
    }
}
