//! Transactions: signing those submitted here, passing them on, taking those of others, claiming awards.

use std::sync::Arc;

use super::{Core, Event, Target};
use crate::block::SharedBlock;
use crate::message::{Gossip, Message};
use crate::models::ModelStatus;
use crate::record::Record;
use crate::replay::WINDOW;
use crate::tx::{MAX_PAYLOAD_BYTES, Payload, SharedTransaction, Transaction};
use crate::types::ReplicaId;

/// Most bytes of transactions passed on in one message.
const GOSSIP_BYTES: usize = 65_536;
/// Blocks after which sequence numbers that fell out of their windows are looked for.
const PRUNE_BLOCKS: u64 = 64;

impl Core {
    /// Signs a payload and puts it in line, or says why not.
    pub(super) fn submit(&mut self, payload: Payload) {
        match self.try_submit(&payload) {
            Ok(transaction) => {
                self.persist(Record::Transaction(transaction.clone()));
                self.notify(Event::Submitted(transaction));
                // At once when it has been quiet, together when there is much.
                let soon = self.now.max(self.gossiped_at + self.config.gossip_us);
                self.gossip_at = Some(self.gossip_at.map_or(soon, |at| at.min(soon)));
                self.work_arrived();
                self.dirty = true;
            }
            Err(reason) => self.notify(Event::Rejected { payload: Box::new(payload), reason }),
        }
    }

    fn try_submit(&mut self, payload: &Payload) -> Result<SharedTransaction, String> {
        let Some(id) = self.id() else { return Err("an observer has no key to sign with".into()) };
        if let Payload::Action { content, .. } = payload
            && content.len() > MAX_PAYLOAD_BYTES
        {
            return Err(format!("{} bytes, at most {MAX_PAYLOAD_BYTES}", content.len()));
        }
        // Far inside the replay window, so that no reordering of blocks can push a waiting transaction out of it.
        if self.mempool.lowest(id).is_some_and(|lowest| self.next_sequence >= lowest + WINDOW / 2) {
            return Err(format!("{} transactions wait already", WINDOW / 2));
        }
        let sequence = self.next_sequence;
        let transaction = Arc::new(self.sign(sequence, payload.clone()).ok_or("no key")?);
        if transaction.encoded_len() > self.registry.params().max_block_bytes as usize {
            return Err("larger than a block".into());
        }
        self.mempool.insert(&self.state, transaction.clone()).map_err(|error| error.to_string())?;
        self.next_sequence += 1;
        Ok(transaction)
    }

    pub(super) fn sign(&self, sequence: u64, payload: Payload) -> Option<Transaction> {
        let identity = self.identity.as_ref()?;
        Some(Transaction::sign(
            self.registry.chain(),
            identity.id,
            identity.signer.as_ref(),
            sequence,
            payload,
        ))
    }

    /// Takes transactions of others: bounds first, then all signatures in one batch, one by one if that fails.
    pub(super) fn receive_gossip(&mut self, from: Option<ReplicaId>, transactions: &[SharedTransaction]) {
        let room = self.registry.params().max_block_bytes as usize;
        let new: Vec<_> = transactions
            .iter()
            .filter(|transaction| transaction.encoded_len() <= room)
            .filter(|transaction| self.mempool.admits(&self.state, transaction).is_ok())
            .filter(|transaction| self.could_be_valid(transaction))
            .collect();
        let all_valid = self.registry.verify_transactions(new.iter().map(|transaction| transaction.as_ref()));
        if !all_valid {
            self.notify(Event::Invalid { from, what: "transaction" });
        }
        let mut any = false;
        for transaction in new {
            let valid = all_valid || self.registry.verify_transactions([transaction.as_ref()]);
            let taken = valid && self.mempool.insert(&self.state, transaction.clone()).is_ok();
            any |= taken;
        }
        if any {
            self.dirty = true;
            self.work_arrived();
        }
    }

    /// False for what would only be tried, at some cost, for every block that is built: evidence and delegations are
    /// valid at once or not at all. Others may have to wait for a model or for findings on it.
    fn could_be_valid(&self, transaction: &Transaction) -> bool {
        match &transaction.payload {
            Payload::Evidence(_) | Payload::Delegation { .. } => {
                self.state.as_ref().clone().execute(&self.registry, transaction).is_ok()
            }
            payload => !self.state.is_hopeless(transaction.signer, payload),
        }
    }

    /// Passes on transactions of this replica's own that are new or have waited long.
    pub(super) fn gossip(&mut self) {
        self.gossip_at = None;
        self.gossiped_at = self.now;
        let Some(id) = self.id() else { return };
        let resend = self.resend_us();
        let before = self.now.saturating_sub(resend);
        let batch = self.mempool.take_unsent(id, before, self.now, GOSSIP_BYTES);
        if self.mempool.lowest(id).is_some() {
            let full =
                batch.iter().map(|transaction| transaction.encoded_len()).sum::<usize>() >= GOSSIP_BYTES;
            self.gossip_at = Some(self.now + if full { self.config.gossip_us.max(1) } else { resend });
        }
        for chunk in batch.chunks(crate::message::MAX_GOSSIP) {
            self.send(Target::All, Message::Gossip(Gossip(chunk.to_vec())));
        }
    }

    /// Accounts for a finalized block's transactions of this replica's own: a different one with the same sequence
    /// number (signed before a crash that lost the record of it) sends the waiting one back for a new number.
    pub(super) fn settle_block(&mut self, block: &SharedBlock) {
        let id = self.id();
        for transaction in block.transactions().iter().filter(|transaction| Some(transaction.signer) != id) {
            self.mempool.remove(transaction.signer, transaction.sequence);
        }
        let Some(id) = id else { return };
        for transaction in block.transactions().iter().filter(|transaction| transaction.signer == id) {
            let displaced =
                self.mempool.get(id, transaction.sequence).filter(|held| *held != transaction).cloned();
            self.mempool.remove(id, transaction.sequence);
            self.next_sequence = self.next_sequence.max(transaction.sequence + 1);
            if let Some(displaced) = displaced {
                self.submit(displaced.payload.clone());
            }
        }
    }

    /// After new finalized blocks: drops what can no longer be included and claims awards that are due. Looking
    /// through the whole mempool is for when something in it may have become void, and for now and then.
    pub(super) fn settle_transactions(&mut self, thorough: bool) {
        let id = self.id();
        if !thorough && !self.state.height.is_multiple_of(PRUNE_BLOCKS) {
            return;
        }
        for transaction in self.mempool.prune(&self.state, id) {
            // Everybody may have submitted the same evidence; that another was first is no news.
            if !matches!(transaction.payload, Payload::Evidence(_)) {
                let reason = "can no longer be included".into();
                self.notify(Event::Rejected { payload: Box::new(transaction.payload.clone()), reason });
            }
        }
        let Some(owner) = id else { return };
        let amount = self.registry.params().award;
        let Some(account) = self.state.account(owner) else { return };
        let rounds: Vec<u64> = account.models.iter().map(|model| model.round).collect();
        let due = account
            .models
            .iter()
            .filter(|model| model.status == ModelStatus::Passed)
            .map(|model| model.round);
        let due: Vec<u64> = due.filter(|round| !self.claimed.contains(round)).collect();
        self.claimed.retain(|round| rounds.contains(round));
        for round in due {
            self.claimed.insert(round);
            self.submit(Payload::Award { owner, round, amount });
        }
    }
}
