//! How the bytes of a twin are fetched: whoever wants them asks for one piece after another, up to a window ahead of what is here,
//! and asks again for what does not come. Whoever has them answers each question for itself and keeps no state, so that either side may
//! be restarted at any time.

use dtwn_proto::node::PIECE_BYTES;

/// Bytes that are asked for and not here, at most.
const WINDOW_BYTES: u64 = 8 * PIECE_BYTES as u64;
/// Without progress for so long, emulated, what is missing is asked for again; doubled each time, since asking for what is still on its
/// way costs airtime.
const PATIENCE_NS: u64 = 3_000_000_000;
/// The longest patience.
const PATIENCE_MAX_NS: u64 = 48_000_000_000;

/// A number of bytes on their way here, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    have: u64,
    total: u64,
    asked: u64,
    patience_ns: u64,
    moved_at_ns: u64,
}

impl Fetch {
    /// Of `total` bytes, the first `have` are here.
    #[must_use]
    pub fn new(have: u64, total: u64, now_ns: u64) -> Self {
        let have = have.min(total);
        Self { have, total, asked: have, patience_ns: PATIENCE_NS, moved_at_ns: now_ns }
    }

    /// How many bytes are here.
    #[must_use]
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Whether all are.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.have == self.total
    }

    /// What to ask for now: offsets and lengths, each at most [`PIECE_BYTES`].
    pub fn asks(&mut self, now_ns: u64) -> Vec<(u64, u32)> {
        if self.asked > self.have && now_ns.saturating_sub(self.moved_at_ns) >= self.patience_ns {
            self.asked = self.have;
            self.moved_at_ns = now_ns;
            self.patience_ns = (2 * self.patience_ns).min(PATIENCE_MAX_NS);
        }
        let mut asks = Vec::new();
        let end = self.total.min(self.have + WINDOW_BYTES);
        while self.asked < end {
            let bytes = (self.total - self.asked).min(PIECE_BYTES.into());
            asks.push((self.asked, u32::try_from(bytes).unwrap_or(PIECE_BYTES)));
            self.asked += bytes;
        }
        asks
    }

    /// Whether a piece is the next one and to be kept. Others are asked for again: pieces of one sender come in order.
    pub fn take(&mut self, offset: u64, bytes: usize, now_ns: u64) -> bool {
        let bytes = bytes as u64;
        if offset != self.have || bytes == 0 || bytes > u64::from(PIECE_BYTES) || offset + bytes > self.total
        {
            return false;
        }
        self.have += bytes;
        self.asked = self.asked.max(self.have);
        self.moved_at_ns = now_ns;
        self.patience_ns = PATIENCE_NS;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_is_asked_for_and_moves_on() {
        let piece = u64::from(PIECE_BYTES);
        let mut fetch = Fetch::new(0, 20 * piece + 5, 0);
        let asks = fetch.asks(0);
        assert_eq!((asks.len(), asks[0], asks[7]), (8, (0, PIECE_BYTES), (7 * piece, PIECE_BYTES)));
        assert!(fetch.asks(PATIENCE_NS - 1).is_empty());
        assert!(!fetch.take(piece, 10, 1), "not the next one");
        assert!(fetch.take(0, PIECE_BYTES as usize, 1));
        assert_eq!(fetch.asks(2), [(8 * piece, PIECE_BYTES)]);
        // Nothing comes any more: all of the window again, less and less often.
        assert_eq!(fetch.asks(1 + PATIENCE_NS).len(), 8);
        assert!(fetch.asks(2 + 2 * PATIENCE_NS).is_empty());
        assert_eq!(fetch.asks(2 + 3 * PATIENCE_NS)[0], (piece, PIECE_BYTES));
    }

    proptest! {
        #[test]
        fn whatever_is_lost_repeated_or_reordered_all_arrives_once_and_in_order(
            total in 0u64..2_000_000,
            have in 0u64..2_000_000,
            fates in proptest::collection::vec((any::<usize>(), 0u8..5), 0..400),
        ) {
            let mut fetch = Fetch::new(have, total, 0);
            let (mut here, mut way, mut now) = (fetch.have(), Vec::new(), 0);
            let mut fates = fates.into_iter();
            while !fetch.is_complete() {
                way.extend(fetch.asks(now));
                prop_assert!(way.iter().all(|(offset, bytes)| offset + u64::from(*bytes) <= total));
                if way.is_empty() {
                    now += PATIENCE_MAX_NS;
                    continue;
                }
                let (which, fate) = fates.next().unwrap_or((0, 2));
                let at = which % way.len();
                let (offset, bytes) = if fate == 0 { way[at] } else { way.remove(at) };
                if fate != 1 && fetch.take(offset, bytes as usize, now) {
                    prop_assert_eq!(offset, here);
                    here += u64::from(bytes);
                }
            }
            prop_assert_eq!(here, total);
        }

        #[test]
        fn nothing_that_comes_unasked_breaks_it(pieces in proptest::collection::vec((any::<u64>(), any::<usize>()), 0..50)) {
            let mut fetch = Fetch::new(0, 100_000, 0);
            for (offset, bytes) in pieces {
                fetch.take(offset, bytes, 0);
                prop_assert!(fetch.have() <= 100_000);
            }
        }
    }
}
