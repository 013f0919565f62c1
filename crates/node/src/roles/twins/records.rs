//! What is put on record of twins.

use dtwn_chain::{
    tx::{BodyRef, Payload},
    types::Digest,
};
use dtwn_model::ids::UserId;
use tokio::sync::broadcast::error::TryRecvError;

use super::{Twins, User};
use crate::chain::ChainNews;

/// Records submitted in a tick.
const RECORDS_A_TICK: usize = 32;

impl Twins {
    /// The data of twins that the learner holds.
    pub(in crate::roles) fn hold(&mut self, held: &[(UserId, blake3::Hash, u64)]) {
        for (twin, digest, bytes) in held {
            if self.users.get(twin.index()).is_some_and(|user| user.data_bytes == *bytes) {
                self.record_data(twin.0, Digest(*digest.as_bytes()), *bytes);
            }
        }
    }

    /// The behaviour models that a round has left.
    pub(in crate::roles) fn behave(&mut self, round: u64, models: &[(UserId, blake3::Hash, u64)]) {
        for (twin, digest, bytes) in models {
            if !self.ledger.owns(twin.0) {
                continue;
            }
            let body = BodyRef { digest: Digest(*digest.as_bytes()), size_bytes: *bytes };
            self.record(Payload::TwinModel { twin: twin.0, round, body });
        }
    }

    pub(super) fn record_data(&mut self, twin: u32, digest: Digest, size_bytes: u64) {
        if self.recorded.insert(twin, digest) != Some(digest) {
            let body = BodyRef { digest, size_bytes };
            self.record(Payload::TwinData { twin, round: self.ledger.durable().round, body });
        }
    }

    pub(super) fn record(&mut self, payload: Payload) {
        if self.chain.is_none() {
            return;
        }
        // Two for each twin is what a round brings; the oldest are the least missed.
        if self.records.len() >= 4 * self.users.len().max(RECORDS_A_TICK) {
            self.records.pop_front();
        }
        self.records.push_back(payload);
    }

    /// Takes in what the first owners of twins have put on record of their data. A user's data never change once they are all there, so
    /// the first such record tells what everybody must have who says that it has them all.
    pub(super) fn hear(&mut self) {
        let Some(news) = &mut self.news else { return };
        loop {
            let block = match news.try_recv() {
                Ok(ChainNews::Committed { block, .. }) => block,
                Ok(_) | Err(TryRecvError::Lagged(_)) => continue,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            };
            for transaction in block.transactions() {
                let Payload::TwinData { twin, body, .. } = &transaction.payload else { continue };
                let of_first = |user: &&User| {
                    user.home.map(usize::from) == Some(transaction.signer.index())
                        && user.data_bytes == body.size_bytes
                };
                if self.users.get(*twin as usize).filter(of_first).is_some() {
                    self.on_record.entry(*twin).or_insert(body.digest);
                }
            }
        }
    }

    /// Puts some of what waits on record.
    pub(super) fn submit(&mut self) {
        let Some(chain) = &self.chain else { return };
        for _ in 0..RECORDS_A_TICK {
            let Some(payload) = self.records.pop_front() else { return };
            if chain.submit(payload.clone()).is_err() {
                self.records.push_front(payload);
                return;
            }
        }
    }
}
