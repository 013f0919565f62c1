//! The load generator: payloads at an even pace, so that a chain can be stressed without learning.

use std::time::Duration;

use dtwn_chain::tx::Payload;
use dtwn_model::topology::TX_OVERHEAD_BYTES;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::ChainHandle;
use crate::agent::Node;

/// Shortest time between two submissions, wall: the runtime's timers are no finer. Faster loads submit several at a time.
const TICK_MIN: Duration = Duration::from_millis(1);
/// Most payloads submitted at one tick; what a stall of the machine held up beyond that is not made up for.
const BURST_MAX: u64 = 256;

/// What one BS offers.
pub(super) struct Load {
    /// Wall time between two payloads.
    period: Duration,
    content_bytes: usize,
    random: ChaCha8Rng,
}

impl Load {
    /// This BS's share of `chain.tx_rate`.
    pub(super) fn of(node: &Node) -> Self {
        let settings = &node.plan.topology().chain;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&node.seed().to_le_bytes());
        key[8..16].copy_from_slice(&(node.index as u64).to_le_bytes());
        key[16..].copy_from_slice(b"dtwn tx load v1\0");
        Self {
            period: node.clock.wall(node.plan.bs_count() as f64 / settings.tx_rate),
            content_bytes: usize::try_from(settings.tx_bytes.get() - TX_OVERHEAD_BYTES).unwrap_or(0),
            random: ChaCha8Rng::from_seed(key),
        }
    }
}

/// Submits payloads for as long as it is polled.
pub(super) async fn generate(chain: ChainHandle, mut load: Load) {
    // BSs do not march in step: each starts at a place of its own within the period.
    let phase = load.period.mul_f64(load.random.random_range(0.0..1.0));
    let start = Instant::now() + phase;
    let mut ticks = interval_at(start, load.period.max(TICK_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = 0_u64;
    loop {
        ticks.tick().await;
        let due = (start.elapsed().as_nanos() / load.period.as_nanos().max(1)) as u64 + 1;
        let now = due.saturating_sub(sent).min(BURST_MAX);
        sent = due;
        for _ in 0..now {
            let mut content = vec![0; load.content_bytes];
            load.random.fill_bytes(&mut content);
            // The handle counts what is dropped.
            let _ = chain.submit(Payload::Action { round: 0, content });
        }
    }
}

#[cfg(test)]
mod tests {
    use dtwn_chain::{
        crypto::Ed25519Signer,
        tx::Transaction,
        types::{Digest, ReplicaId},
    };

    use super::*;

    #[test]
    fn a_transaction_has_the_size_asked_for() {
        let payload = Payload::Action { round: 0, content: vec![0; 512 - TX_OVERHEAD_BYTES as usize] };
        let signer = Ed25519Signer::from_seed([1; 32]);
        let transaction = Transaction::sign(&Digest::default(), ReplicaId(0), &signer, 1, payload);
        assert_eq!(transaction.encoded_len(), 512);
    }
}
