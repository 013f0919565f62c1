//! Small chains for unit tests.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::block::SharedBlock;
use crate::codec::{Decode as _, Encode as _};
use crate::core::{Config, Core, Effect, Event, Identity, Input, Recovered, Target};
use crate::crypto::{PublicKey, Signer, StubSigner, StubVerifier};
use crate::genesis::{Genesis, Params, Registry, Validator};
use crate::message::Message;
use crate::record::Record;
use crate::tx::{Payload, SharedTransaction, Transaction};
use crate::types::{Height, Micros, ReplicaId};
use crate::vote::{Certificate, SharedCertificate, Statement, Vote};

pub(crate) fn key(id: u16) -> PublicKey {
    let mut key = [0x5a; 32];
    key[..2].copy_from_slice(&id.to_le_bytes());
    PublicKey(key)
}

pub(crate) fn genesis(count: u16) -> Genesis {
    let validators = (0..count).map(|id| Validator { key: key(id), coins: 100_000_000 }).collect();
    Genesis { name: "unit test".into(), validators, params: Params { producers: count, ..Params::default() } }
}

pub(crate) fn registry(count: u16) -> Arc<Registry> {
    Registry::with_verifier(genesis(count), Box::new(StubVerifier)).unwrap()
}

pub(crate) fn transaction(
    registry: &Registry,
    signer: u16,
    sequence: u64,
    payload: Payload,
) -> SharedTransaction {
    let key = StubSigner(key(signer));
    Arc::new(Transaction::sign(registry.chain(), ReplicaId(signer), &key, sequence, payload))
}

pub(crate) fn vote(registry: &Registry, signer: u16, statement: Statement) -> Vote {
    let signature = StubSigner(key(signer)).sign(&statement.signing_bytes(registry.chain()));
    Vote { statement, signer: ReplicaId(signer), signature }
}

pub(crate) fn certificate(registry: &Registry, signers: &[u16], statement: Statement) -> Arc<Certificate> {
    let signatures =
        signers.iter().map(|&id| (ReplicaId(id), vote(registry, id, statement).signature)).collect();
    Arc::new(Certificate { statement, signatures })
}

/// Replicas whose messages arrive at once and whose disks are fast; time passes only when nothing else happens.
pub(crate) struct Net {
    pub(crate) registry: Arc<Registry>,
    pub(crate) cores: Vec<Option<Core>>,
    pub(crate) records: Vec<Vec<Record>>,
    pub(crate) events: Vec<Vec<Event>>,
    pub(crate) sent: Vec<(usize, Arc<Message>)>,
    pub(crate) now: Micros,
    chains: Vec<Vec<(SharedBlock, Option<SharedCertificate>)>>,
    queue: VecDeque<(usize, Input)>,
}

impl Net {
    /// `count` replicas with the given signers, and an observer after them.
    pub(crate) fn new(registry: Arc<Registry>, signer: impl Fn(u16) -> Box<dyn Signer>) -> Self {
        let count = registry.genesis().validators.len() as u16;
        let config =
            Config { idle_us: 1000, timeout_min_us: 20_000, retry_min_us: 5_000, ..Config::default() };
        let identity = |id: u16| Identity { id: ReplicaId(id), signer: signer(id) };
        let core = |id: u16| {
            let identity = (id < count).then(|| identity(id));
            Some(Core::new(registry.clone(), config.clone(), identity, Recovered::genesis(&registry), 0))
        };
        let all = usize::from(count) + 1;
        let mut net = Self {
            cores: (0..=count).map(core).collect(),
            records: vec![Vec::new(); all],
            events: vec![Vec::new(); all],
            chains: vec![Vec::new(); all],
            sent: Vec::new(),
            queue: (0..all).map(|node| (node, Input::Tick)).collect(),
            now: 0,
            registry,
        };
        net.drain();
        net
    }

    pub(crate) fn stub(count: u16, change: impl Fn(&mut Genesis)) -> Self {
        let mut genesis = genesis(count);
        change(&mut genesis);
        let registry = Registry::with_verifier(genesis, Box::new(StubVerifier)).unwrap();
        Self::new(registry, |id| Box::new(StubSigner(key(id))))
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        self.queue.push_back((node, input));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((node, input)) = self.queue.pop_front() {
            let Some(core) = &mut self.cores[node] else { continue };
            for effect in core.step(self.now, input) {
                self.perform(node, effect);
            }
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let from = self.cores[node].as_ref().and_then(Core::id);
        match effect {
            Effect::Persist { number, record } => {
                self.records[node].push(record);
                self.queue.push_back((node, Input::Persisted(number)));
            }
            Effect::Send { to, message } => {
                // Through the encoding, as on a real link.
                let message = Arc::new(Message::from_bytes(&message.to_bytes()).unwrap());
                self.sent.push((node, message.clone()));
                let targets = (0..self.cores.len()).filter(|&target| target != node);
                let observer = self.cores.len() - 1;
                for target in targets.filter(|&target| match to {
                    Target::All => true,
                    Target::One(Some(id)) => id.index() == target,
                    Target::One(None) => target == observer,
                }) {
                    self.queue.push_back((target, Input::Receive { from, message: message.clone() }));
                }
            }
            Effect::Serve { to, request } => {
                let above = self.chains[node].iter().skip(request.finalized as usize).cloned();
                if let Some(segment) = crate::segment::cut(above) {
                    let message = Arc::new(Message::Segment(segment));
                    self.perform(node, Effect::Send { to: Target::One(to), message });
                }
            }
            Effect::Notify(event) => {
                if let Event::Committed { block, certificate, .. } = &event {
                    self.chains[node].push((block.clone(), certificate.clone()));
                }
                self.events[node].push(event);
            }
        }
    }

    /// Lets the next timer fire.
    pub(crate) fn tick(&mut self) {
        let next = self.cores.iter().flatten().map(Core::deadline).min().unwrap();
        self.now = self.now.max(next);
        for node in 0..self.cores.len() {
            self.queue.push_back((node, Input::Tick));
        }
        self.drain();
    }

    /// Lets time pass until every running node has finalized `height`.
    pub(crate) fn reach(&mut self, height: Height) {
        for _ in 0..20_000 {
            if self.cores.iter().flatten().all(|core| core.height() >= height) {
                return;
            }
            self.tick();
        }
        panic!(
            "height {height} is not reached: {:?}",
            self.cores.iter().flatten().map(Core::height).collect::<Vec<_>>()
        );
    }
}
