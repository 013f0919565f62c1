//! `throughput [REPLICAS] [TX_PER_BLOCK_INTERVAL] [BLOCKS]`: what the core costs without a network or a disk.
//!
//! Replicas with real Ed25519 keys run in one thread; messages go through their encoding and arrive at once. Prints
//! transactions and blocks per second of one core's time, all replicas together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use dtwn_chain::codec::{Decode as _, Encode as _};
use dtwn_chain::core::{Config, Core, Effect, Identity, Input, Recovered, Target};
use dtwn_chain::crypto::{Ed25519Signer, Signer as _};
use dtwn_chain::genesis::{Genesis, Params, Registry, Validator};
use dtwn_chain::message::Message;
use dtwn_chain::tx::Payload;
use dtwn_chain::types::ReplicaId;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let number = |index: usize, default: u64| numbers.get(index).copied().unwrap_or(default);
    let (count, load, blocks) = (u16::try_from(number(0, 4))?, number(1, 10), number(2, 500));
    let seed = |id: u16| Ed25519Signer::from_seed([u8::try_from(id % 250).unwrap_or(0) + 1; 32]);
    let validators = (0..count).map(|id| Validator { key: seed(id).public_key(), coins: 1000 }).collect();
    let params = Params { producers: count, ..Params::default() };
    let registry = Registry::new(Genesis { name: "throughput".into(), validators, params })?;
    let mut cores: Vec<Core> = (0..count)
        .map(|id| {
            let identity = Identity { id: ReplicaId(id), signer: Box::new(seed(id)) };
            let recovered = Recovered::genesis(&registry);
            Core::new(registry.clone(), Config::default(), Some(identity), recovered, 0)
        })
        .collect();
    let mut queue: VecDeque<(usize, Input)> = (0..cores.len()).map(|node| (node, Input::Tick)).collect();
    let (mut now, mut submitted, mut bytes) = (0, 0u64, 0usize);
    let start = Instant::now();
    while cores[0].height() < blocks {
        now += 2_500;
        for _ in 0..load {
            submitted += 1;
            let payload = Payload::Action { round: submitted, content: vec![0; 425] };
            queue.push_back((usize::try_from(submitted)? % cores.len(), Input::Submit(payload)));
        }
        queue.extend((0..cores.len()).map(|node| (node, Input::Tick)));
        while let Some((node, input)) = queue.pop_front() {
            let from = cores[node].id();
            for effect in cores[node].step(now, input) {
                match effect {
                    Effect::Persist { number, .. } => queue.push_back((node, Input::Persisted(number))),
                    Effect::Send { to, message } => {
                        let encoded = message.to_bytes();
                        for target in (0..cores.len()).filter(|&target| target != node) {
                            if to == Target::All || to == Target::One(cores[target].id()) {
                                bytes += encoded.len();
                                let message = Arc::new(Message::from_bytes(&encoded)?);
                                queue.push_back((target, Input::Receive { from, message }));
                            }
                        }
                    }
                    Effect::Serve { .. } | Effect::Notify(_) => {}
                }
            }
            if cores[0].height() >= blocks {
                break;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let sequences = cores[0].state().accounts.iter().map(|account| account.replay.highest());
    let finalized: u64 = sequences.sum();
    println!(
        "{count} replicas: {finalized} transactions of 512 B and {blocks} blocks in {seconds:.2} s: {:.0} tx/s, {:.0} \
         blocks/s, {:.0} B sent per transaction",
        finalized as f64 / seconds,
        blocks as f64 / seconds,
        bytes as f64 / finalized as f64,
    );
    Ok(())
}
