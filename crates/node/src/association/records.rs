//! The ledger of states and actions as finalized, for the last heights.

use std::collections::VecDeque;

use dtwn_chain::{block::Block, tx::Payload};
use dtwn_model::association::Ledger;

/// Heights that an announcement may name, counted back from the last one finalized.
const HEIGHTS_MAX: usize = 512;

/// What the finalized chain says, for each of its last heights.
#[derive(Debug)]
pub struct Records {
    ledger: Ledger,
    height: u64,
    /// Digests of the last blocks, the newest last.
    blocks: VecDeque<[u8; 32]>,
    /// The ledger before each of the last heights that changed it, oldest first.
    before: VecDeque<(u64, Ledger)>,
}

impl Records {
    /// Nothing finalized yet.
    #[must_use]
    pub fn new(stations: usize, subchannels: usize) -> Self {
        Self {
            ledger: Ledger::new(stations, subchannels),
            height: 0,
            blocks: VecDeque::new(),
            before: VecDeque::new(),
        }
    }

    /// Takes the block that follows. What is no record of ours, as the load generator's actions, is left alone. A block below
    /// the next height changes nothing. `false` for one above it: records may be missing from then on.
    #[must_use]
    pub fn take(&mut self, height: u64, block: &Block) -> bool {
        if height <= self.height {
            return true;
        }
        let follows = height == self.height + 1;
        if !follows {
            self.blocks.clear();
            self.before.clear();
        }
        let before = self.ledger.clone();
        for transaction in block.transactions() {
            if let Payload::Action { round, content } = &transaction.payload
                && let Err(error) = self.ledger.take(transaction.signer.index(), *round, content)
            {
                tracing::trace!(height, %error, "an action that is no record of the association");
            }
        }
        if follows && self.ledger != before {
            self.before.push_back((height, before));
        }
        self.height = height;
        self.blocks.push_back(block.digest().0);
        while self.blocks.len() > HEIGHTS_MAX {
            self.blocks.pop_front();
        }
        let oldest = (height + 1).saturating_sub(self.blocks.len() as u64);
        while self.before.front().is_some_and(|(changed, _)| *changed <= oldest) {
            self.before.pop_front();
        }
        follows
    }

    /// The last height.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The digest of the block at a height; zeros for 0, `None` for one that is not known (any more, or yet).
    #[must_use]
    pub fn block(&self, height: u64) -> Option<[u8; 32]> {
        if height == 0 {
            return Some([0; 32]);
        }
        let back = usize::try_from(self.height.checked_sub(height)?).ok()?;
        self.blocks.len().checked_sub(1 + back).and_then(|at| self.blocks.get(at)).copied()
    }

    /// The ledger after the last block.
    #[must_use]
    pub fn latest(&self) -> &Ledger {
        &self.ledger
    }

    /// The ledger after the block at a height; `None` as for [`block`](Self::block).
    #[must_use]
    pub fn at(&self, height: u64) -> Option<&Ledger> {
        self.block(height)?;
        let later = self.before.iter().find(|(changed, _)| *changed > height);
        Some(later.map_or(&self.ledger, |(_, ledger)| ledger))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dtwn_chain::{
        block::Header,
        crypto::Signature,
        tx::Transaction,
        types::{Digest, ReplicaId},
    };
    use dtwn_model::association::{ActionRecord, Record};

    use super::*;

    fn block(height: u64, share: Option<f32>) -> Block {
        let transaction = |content| {
            let payload = Payload::Action { round: height, content };
            Arc::new(Transaction {
                signer: ReplicaId(1),
                sequence: height,
                payload,
                signature: Signature([0; 64]),
            })
        };
        let record = |share| Record::Action(ActionRecord { share, b: 0.2, tau: vec![0.5] }).encode();
        // The load generator's are in between.
        let transactions = share.map(|share| transaction(record(share)));
        let transactions: Vec<_> = transactions.into_iter().chain([transaction(vec![7; 20])]).collect();
        let header = Header {
            chain: Digest([0; 32]),
            epoch: 0,
            view: height,
            height,
            parent: Digest([0; 32]),
            leader: ReplicaId(0),
            transactions: Block::root(&transactions),
            state: Digest([0; 32]),
        };
        Block::new(header, transactions)
    }

    #[test]
    fn a_prefix_says_the_same_whenever_it_is_asked() {
        let mut records = Records::new(3, 1);
        let empty = records.latest().clone();
        assert!(records.take(1, &block(1, None)));
        assert!(records.take(2, &block(2, Some(0.2))));
        let second = records.latest().clone();
        assert_eq!(second.rounds_of(1), (None, Some(2)));
        assert!(records.take(3, &block(3, None)));
        assert!(records.take(4, &block(4, Some(0.4))));
        assert!(records.take(2, &block(2, Some(0.9))));
        assert_eq!((records.at(0), records.at(1)), (Some(&empty), Some(&empty)));
        assert_eq!((records.at(2), records.at(3)), (Some(&second), Some(&second)));
        assert_eq!(records.at(4), Some(records.latest()));
        assert_eq!((records.at(5), records.block(5)), (None, None));
        assert_eq!(records.block(2), Some(block(2, Some(0.2)).digest().0));
        for height in 5..2000 {
            assert!(records.take(height, &block(height, Some(0.3))));
        }
        assert_eq!(records.at(3), None);
        assert!(records.at(1999 - 500).is_some() && records.before.len() <= HEIGHTS_MAX);
        assert!(!records.take(3000, &block(3000, Some(0.7))));
        assert_eq!((records.at(1999), records.at(3000)), (None, Some(records.latest())));
    }
}
