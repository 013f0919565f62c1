//! The chain of four BSs and the MBS in one process: real buses on the loopback interface, real stores.

use std::{net::SocketAddr, path::Path, time::Duration};

use dtwn_chain::{record::Record, tx::Transaction};
use dtwn_proto::{
    agent::{AgentConfig, FromAgent},
    event::{ChainProgress, What},
    node::{self, Header},
};
use ed25519_dalek::SigningKey;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    agent::prepare,
    bus::{BusConfig, Limits, PeerConfig, Timing},
};

const NAMES: [&str; 5] = ["mbs", "bs1", "bs2", "bs3", "bs4"];
/// Far more than anything here takes on a busy machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

const TOPOLOGY: &str = r#"
    [chain]
    idle = "50 ms"
    epoch = 5
    [learning]
    enabled = false
    [[bs]]
    id = "bs"
    count = 4
    ring = "100 m"
"#;

fn key(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

/// A node of the test network.
struct Station {
    chain: ChainHandle,
    bus: Bus,
    address: SocketAddr,
    frames: mpsc::Receiver<FromAgent>,
    pump: JoinHandle<()>,
}

impl Drop for Station {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

fn node(name: &str, boot: u64, state_dir: &Path) -> (Node, mpsc::Receiver<FromAgent>) {
    let (frames, reports) = mpsc::channel(4096);
    let config = AgentConfig {
        node: name.into(),
        topology: TOPOLOGY.into(),
        epoch_monotonic_ns: 0,
        boot,
        signing_key: key(name).to_bytes(),
        verifying_keys: NAMES
            .iter()
            .map(|name| ((*name).to_owned(), key(name).verifying_key().to_bytes()))
            .collect(),
        policy_file: None,
        state_dir: state_dir.into(),
    };
    (prepare(config, frames).unwrap(), reports)
}

async fn station(name: &str, boot: u64, state_dir: &Path) -> Station {
    let (node, frames) = node(name, boot, state_dir);
    let config = BusConfig {
        me: NodeName::new(name).unwrap(),
        boot,
        signing_key: key(name),
        listen: Some(([127, 0, 0, 1], 0).into()),
        peers: vec![],
        limits: Limits::default(),
        timing: Timing::default(),
        seed: 1,
        clock: Arc::new(|| 0),
    };
    let (bus, mut receiver) = Bus::start(config).await.unwrap();
    let chain = start(&node, &bus).unwrap();
    let handle = chain.clone();
    let pump = tokio::spawn(async move {
        while let Some(incoming) = receiver.recv().await {
            if let Ok((Header::Chain(header), body)) = node::decode(&incoming.body) {
                handle.deliver(incoming.from, header, body).await;
            }
        }
    });
    Station { chain, address: bus.local_addr().unwrap(), bus, frames, pump }
}

/// The one named first dials.
fn connect((from, name): (&Station, &str), (to, other): (&Station, &str)) {
    let peer = |name: &str, dial| PeerConfig {
        name: NodeName::new(name).unwrap(),
        key: key(name).verifying_key(),
        dial,
    };
    from.bus.add_peer(peer(other, vec![to.address])).unwrap();
    to.bus.add_peer(peer(name, vec![])).unwrap();
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{what} did not come about"));
}

fn highest(station: &Station, signer: u16) -> u64 {
    station.chain.state().account(ReplicaId(signer)).unwrap().replay.highest()
}

fn reports(station: &mut Station) -> Vec<ChainProgress> {
    std::iter::from_fn(|| station.frames.try_recv().ok())
        .filter_map(|frame| match frame {
            FromAgent::Event { what: What::ChainProgress(report), .. } => Some(*report),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn what_is_submitted_is_finalized_everywhere_and_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let mut stations = Vec::new();
    for name in NAMES {
        stations.push(station(name, 0, &state_dir(name)).await);
    }
    for (i, from) in stations.iter().enumerate() {
        for (j, to) in stations.iter().enumerate().skip(i + 1) {
            connect((from, NAMES[i]), (to, NAMES[j]));
        }
    }
    let mut news = stations[2].chain.subscribe();
    for number in 0..20 {
        stations[1].chain.submit(Payload::Action { round: number, content: vec![7; 100] }).unwrap();
    }
    // An observer has no key to sign with.
    stations[0].chain.submit(Payload::Action { round: 0, content: vec![] }).unwrap();
    until("finalization at all five", || stations.iter().all(|station| highest(station, 0) >= 20)).await;
    assert!(matches!(news.try_recv(), Ok(ChainNews::Committed { .. })));
    let digest = stations[3].chain.put_body(vec![5; 300_000]).unwrap();
    let mut bodies = stations[4].chain.subscribe();
    stations[4].chain.want_body(digest, 300_000).unwrap();
    let body = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(ChainNews::Body { digest, bytes }) = bodies.recv().await {
                return (digest, bytes);
            }
        }
    });
    let (fetched, bytes) = body.await.unwrap();
    assert_eq!((fetched, bytes.len()), (digest, 300_000));

    // Reports add up, and the MBS's refusal is among them.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let own = reports(&mut stations[1]);
    assert_eq!(own.iter().map(|report| report.finalized).sum::<u64>(), 20);
    assert_eq!(own.iter().flat_map(|report| &report.finality_us).map(|(_, count)| count).sum::<u64>(), 20);
    assert_eq!(own.iter().find_map(|report| report.election.clone()).unwrap().producers.len(), 4);
    assert_eq!(reports(&mut stations[0]).iter().map(|report| report.rejected).sum::<u64>(), 1);

    // bs4 ends and comes back with its chain; the others go on without it, and it catches up.
    let gone = stations.pop().unwrap();
    let before = gone.chain.state().height;
    drop(gone);
    for station in &stations {
        station.bus.remove_peer(&NodeName::new("bs4").unwrap()).unwrap();
    }
    stations[1].chain.submit(Payload::Action { round: 99, content: vec![] }).unwrap();
    until("finalization without bs4", || highest(&stations[1], 0) >= 21).await;
    let back = loop {
        // The store of the one before closes when its thread ends.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (probe, _) = node("bs4", 1, &state_dir("bs4"));
        if open(probe.state_dir(), stations[0].chain.registry()).is_ok() {
            break station("bs4", 1, &state_dir("bs4")).await;
        }
    };
    assert!(back.chain.state().height >= before.min(1), "it starts from its own store");
    for (index, station) in stations.iter().enumerate() {
        connect((station, NAMES[index]), (&back, "bs4"));
    }
    until("catching up", || highest(&back, 0) >= 21).await;
    let (one, other) = (back.chain.state(), stations[0].chain.state());
    assert!(one.conserves_coins() && other.conserves_coins());
}

#[tokio::test]
async fn a_damaged_store_ends_the_node_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _frames) = node("bs1", 0, dir.path());
    let registry = Registry::new(genesis(&node.plan, node.verifying_keys()).unwrap()).unwrap();
    let (mut store, _) = open(dir.path(), &registry).unwrap();
    let signer = Ed25519Signer::from_seed(key("bs1").to_bytes());
    let payload = Payload::Action { round: 1, content: vec![1] };
    let transaction = Transaction::sign(registry.chain(), ReplicaId(0), &signer, 1, payload);
    store.append(&[Record::Transaction(Arc::new(transaction))]).unwrap();
    drop(store);
    let path = dir.path().join(STORE_FILE);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let config = BusConfig {
        me: NodeName::new("bs1").unwrap(),
        boot: 0,
        signing_key: key("bs1"),
        listen: None,
        peers: vec![],
        limits: Limits::default(),
        timing: Timing::default(),
        seed: 1,
        clock: Arc::new(|| 0),
    };
    let (bus, _receiver) = Bus::start(config).await.unwrap();
    let refused = join(&node, &bus).err().unwrap().to_string();
    assert!(refused.contains(STORE_FILE) && refused.contains("dtwn chain repair"), "{refused}");
}
