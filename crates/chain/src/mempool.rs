//! Transactions that wait for a block: bounded in bytes, with a quota for each signer.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::state::State;
use crate::tx::SharedTransaction;
use crate::types::{Micros, ReplicaId};

/// Bounds of a mempool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MempoolLimits {
    /// Most bytes of transactions in all.
    pub max_bytes: usize,
    /// Most bytes of transactions of one signer, so that nobody crowds the others out.
    pub max_signer_bytes: usize,
}

impl Default for MempoolLimits {
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_signer_bytes: 4 << 20 }
    }
}

#[derive(Debug)]
struct Entry {
    transaction: SharedTransaction,
    bytes: usize,
    /// When this replica last passed it on.
    sent_at: Option<Micros>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
}

/// Verified transactions that no finalized block contains.
#[derive(Debug)]
pub struct Mempool {
    limits: MempoolLimits,
    queues: BTreeMap<ReplicaId, Queue>,
    bytes: usize,
}

impl Mempool {
    /// An empty mempool.
    #[must_use]
    pub fn new(limits: MempoolLimits) -> Self {
        Self { limits, queues: BTreeMap::new(), bytes: 0 }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Transactions held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.entries.len()).sum()
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// True when exactly this transaction, signature included, is held; its signature was checked then.
    #[must_use]
    pub fn holds(&self, transaction: &SharedTransaction) -> bool {
        self.get(transaction.signer, transaction.sequence).is_some_and(|held| held == transaction)
    }

    /// The transaction of a signer with a sequence number.
    #[must_use]
    pub fn get(&self, signer: ReplicaId, sequence: u64) -> Option<&SharedTransaction> {
        self.queues.get(&signer)?.entries.get(&sequence).map(|entry| &entry.transaction)
    }

    /// Checks, before any signature is verified, whether the mempool would take a transaction.
    ///
    /// # Errors
    /// [`Error::Full`] above a bound; [`Error::Transaction`] when its sequence number is taken or not fresh.
    pub fn admits(&self, state: &State, transaction: &SharedTransaction) -> Result<()> {
        let fail = |reason: &str| Error::Transaction {
            signer: transaction.signer,
            sequence: transaction.sequence,
            reason: reason.into(),
        };
        let account = state.account(transaction.signer).ok_or_else(|| fail("unknown signer"))?;
        if !account.replay.is_fresh(transaction.sequence) {
            return Err(fail("sequence number is not fresh"));
        }
        let queue = self.queues.get(&transaction.signer);
        if queue.is_some_and(|queue| queue.entries.contains_key(&transaction.sequence)) {
            return Err(fail("sequence number is taken by a waiting transaction"));
        }
        let bytes = transaction.encoded_len();
        if self.bytes + bytes > self.limits.max_bytes {
            return Err(Error::Full { queue: "mempool", detail: format!("{} bytes", self.limits.max_bytes) });
        }
        if queue.map_or(0, |queue| queue.bytes) + bytes > self.limits.max_signer_bytes {
            let detail = format!("{} bytes of {}", self.limits.max_signer_bytes, transaction.signer);
            return Err(Error::Full { queue: "mempool", detail });
        }
        Ok(())
    }

    /// Adds a transaction whose signature is valid.
    ///
    /// # Errors
    /// As [`Mempool::admits`].
    pub fn insert(&mut self, state: &State, transaction: SharedTransaction) -> Result<()> {
        self.admits(state, &transaction)?;
        let bytes = transaction.encoded_len();
        let queue = self.queues.entry(transaction.signer).or_default();
        queue.bytes += bytes;
        self.bytes += bytes;
        queue.entries.insert(transaction.sequence, Entry { transaction, bytes, sent_at: None });
        Ok(())
    }

    /// Up to `max_bytes` of transactions that are fresh on `state`, the signers taking turns, each in order.
    #[must_use]
    pub fn candidates(&self, state: &State, max_bytes: usize) -> Vec<SharedTransaction> {
        let mut lanes: Vec<_> = self
            .queues
            .iter()
            .filter_map(|(signer, queue)| state.account(*signer).map(|account| (account, queue)))
            .map(|(account, queue)| {
                queue
                    .entries
                    .iter()
                    .filter(|(sequence, _)| account.replay.is_fresh(**sequence))
                    .map(|(_, entry)| entry)
            })
            .collect();
        let (mut picked, mut bytes) = (Vec::new(), 0);
        loop {
            let before = picked.len();
            for lane in &mut lanes {
                if bytes < max_bytes
                    && let Some(entry) = lane.next()
                {
                    bytes += entry.bytes;
                    picked.push(entry.transaction.clone());
                }
            }
            if picked.len() == before {
                return picked;
            }
        }
    }

    /// True when some transaction is fresh on `state`.
    #[must_use]
    pub fn has_fresh(&self, state: &State) -> bool {
        self.queues.iter().any(|(signer, queue)| {
            let Some(account) = state.account(*signer) else { return false };
            queue.entries.keys().any(|&sequence| account.replay.is_fresh(sequence))
        })
    }

    /// Drops what can never be included after `state`, and returns of those the transactions of `owner`.
    pub fn prune(&mut self, state: &State, owner: Option<ReplicaId>) -> Vec<SharedTransaction> {
        let mut own = Vec::new();
        for (signer, queue) in &mut self.queues {
            let Some(account) = state.account(*signer) else { continue };
            queue.entries.retain(|&sequence, entry| {
                let spent = account.replay.is_spent(sequence)
                    || state.is_hopeless(*signer, &entry.transaction.payload);
                if spent {
                    queue.bytes -= entry.bytes;
                    self.bytes -= entry.bytes;
                    if owner == Some(*signer) {
                        own.push(entry.transaction.clone());
                    }
                }
                !spent
            });
        }
        self.queues.retain(|_, queue| !queue.entries.is_empty());
        own
    }

    /// Removes one transaction.
    pub fn remove(&mut self, signer: ReplicaId, sequence: u64) {
        let Some(queue) = self.queues.get_mut(&signer) else { return };
        if let Some(entry) = queue.entries.remove(&sequence) {
            queue.bytes -= entry.bytes;
            self.bytes -= entry.bytes;
        }
        if queue.entries.is_empty() {
            self.queues.remove(&signer);
        }
    }

    /// A signer's lowest waiting sequence number.
    #[must_use]
    pub fn lowest(&self, signer: ReplicaId) -> Option<u64> {
        self.queues.get(&signer)?.entries.keys().next().copied()
    }

    /// Of `signer`'s transactions, oldest first, up to `max_bytes` not passed on since `before`; notes that they
    /// are passed on at `now`.
    pub fn take_unsent(
        &mut self,
        signer: ReplicaId,
        before: Micros,
        now: Micros,
        max_bytes: usize,
    ) -> Vec<SharedTransaction> {
        let Some(queue) = self.queues.get_mut(&signer) else { return Vec::new() };
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for entry in queue.entries.values_mut() {
            if bytes >= max_bytes {
                break;
            }
            if entry.sent_at.is_none_or(|sent_at| sent_at <= before) {
                entry.sent_at = Some(now);
                bytes += entry.bytes;
                taken.push(entry.transaction.clone());
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::{registry, transaction};
    use crate::tx::Payload;

    fn filled(limits: MempoolLimits, each: usize, content: usize) -> (State, Mempool) {
        let registry = registry(4);
        let state = State::genesis(&registry);
        let mut pool = Mempool::new(limits);
        for signer in 0..4 {
            for sequence in 1..=each {
                let payload = Payload::Action { round: 0, content: vec![0; content] };
                let tx = transaction(&registry, signer, sequence as u64, payload);
                let _ = pool.insert(&state, tx);
            }
        }
        (state, pool)
    }

    #[test]
    fn a_signer_cannot_crowd_the_others_out() {
        let limits = MempoolLimits { max_bytes: 4000, max_signer_bytes: 1000 };
        let (_, pool) = filled(limits, 50, 100);
        assert!(pool.bytes() <= 4000);
        for signer in 0..4 {
            assert!(pool.lowest(ReplicaId(signer)).is_some());
            assert!(pool.get(ReplicaId(signer), 40).is_none());
        }
    }

    #[test]
    fn signers_take_turns() {
        let (state, pool) = filled(MempoolLimits::default(), 5, 10);
        let signers: Vec<_> =
            pool.candidates(&state, 800).iter().map(|tx| (tx.signer.0, tx.sequence)).collect();
        assert_eq!(signers[..8], [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (1, 2), (2, 2), (3, 2)]);
    }

    #[test]
    fn pruning_follows_the_replay_window_and_frees_bytes() {
        let (mut state, mut pool) = filled(MempoolLimits::default(), 5, 10);
        let before = pool.bytes();
        Arc::make_mut(&mut state.accounts[2]).replay.use_up(3);
        let own = pool.prune(&state, Some(ReplicaId(2)));
        assert_eq!(own.iter().map(|tx| tx.sequence).collect::<Vec<_>>(), [3]);
        assert_eq!(pool.len(), 19);
        assert_eq!(pool.bytes(), before / 20 * 19);
        for signer in 0..4 {
            for sequence in 1..=5 {
                pool.remove(ReplicaId(signer), sequence);
            }
        }
        assert_eq!((pool.bytes(), pool.is_empty()), (0, true));
    }

    #[test]
    fn resending_waits_for_its_interval() {
        let (_, mut pool) = filled(MempoolLimits::default(), 3, 10);
        assert_eq!(pool.take_unsent(ReplicaId(1), 0, 100, 1 << 20).len(), 3);
        assert_eq!(pool.take_unsent(ReplicaId(1), 50, 150, 1 << 20).len(), 0);
        assert_eq!(pool.take_unsent(ReplicaId(1), 100, 200, 1 << 20).len(), 3);
    }
}
