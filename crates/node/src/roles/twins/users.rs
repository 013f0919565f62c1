//! What users bring to their twins: states and samples.

use bytes::Bytes;
use dtwn_chain::types::Digest;
use dtwn_proto::{
    event::{TwinAge, What},
    node::{TwinMessage, TwinState},
};

use super::Twins;
use crate::{
    agent::{AgentError, Node},
    twins::{ages, fetch::Fetch},
};

/// Users whose samples are fetched at a time.
const SYNCS_MAX: usize = 32;

impl Twins {
    pub(super) fn take_states(
        &mut self,
        node: &Node,
        twin: u32,
        states: &[TwinState],
        (bytes, received_at_ns): (usize, u64),
    ) {
        let name = self.users[twin as usize].name.clone();
        let now_ns = node.clock.now_ns();
        let mut sequence = 0;
        if self.ledger.concerns(twin) {
            let followed = self.followed.entry(twin).or_default();
            match followed.take(twin, states, now_ns) {
                Ok(new) => {
                    sequence = followed.sequence();
                    if let Some(newest) = states.last().filter(|_| new > 0) {
                        self.report(node, "twin-state", &name, bytes, newest.taken_at_ns, received_at_ns);
                    }
                }
                Err(error) => {
                    tracing::warn!(user = name, %error, "refused states");
                    return;
                }
            }
        }
        let (serving, epoch) = self.ledger.serving(twin).unwrap_or((self.me, 0));
        self.send(&name, &TwinMessage::Ack { twin, sequence, serving, epoch });
    }

    /// Begins to fetch the samples that users hold and we do not, as far as there is room.
    pub(super) fn begin_syncs(&mut self, node: &Node) {
        let (ledger, now_ns) = (&self.ledger, node.clock.now_ns());
        self.syncs.retain(|twin, _| ledger.owns(*twin));
        let owned: Vec<u32> = self.ledger.owned().collect();
        for twin in owned {
            let (have, total) = (self.data_bytes(twin), self.users[twin as usize].data_bytes);
            if have < total && self.syncs.len() < SYNCS_MAX {
                self.syncs.entry(twin).or_insert_with(|| (Fetch::new(have, total, now_ns), now_ns));
            }
        }
    }

    /// Samples of a user of ours.
    pub(super) fn take_samples(
        &mut self,
        node: &Node,
        twin: u32,
        offset: u64,
        body: &Bytes,
    ) -> Result<(), AgentError> {
        let now_ns = node.clock.now_ns();
        let Some((fetch, began_ns)) = self.syncs.get_mut(&twin) else { return Ok(()) };
        let began_ns = *began_ns;
        if !fetch.take(offset, body.len(), now_ns) {
            return Ok(());
        }
        self.store.append_data(twin, offset, body)?;
        if fetch.is_complete() {
            self.syncs.remove(&twin);
            if let Some(data) = self.store.data(twin)? {
                let name = self.users[twin as usize].name.clone();
                self.report(node, "twin-data", &name, data.len(), began_ns, now_ns);
                self.record_data(twin, Digest::of_body(&data), data.len() as u64);
            }
        }
        self.ask(node);
        Ok(())
    }

    /// Reports how old the twins are.
    pub(in crate::roles) fn report_ages(&mut self, node: &Node) {
        let now_ns = node.clock.now_ns();
        let age =
            |twin: u32| ages::of(self.users[twin as usize].name.clone(), self.followed.get(&twin), now_ns);
        let all: Vec<TwinAge> = self.ledger.owned().map(age).collect();
        let [p50_ms, p99_ms] = ages::quantiles(&all);
        node.reporter.event(What::TwinAges {
            twins: u32::try_from(all.len()).unwrap_or(u32::MAX),
            arriving: u32::try_from(self.arriving.len()).unwrap_or(u32::MAX),
            p50_ms,
            p99_ms,
            each: ages::turn(all, &mut self.told),
        });
    }
}
