//! Moves of twins between BSs: what is given away, what arrives, and when it is ours.

use std::sync::{Arc, PoisonError};

use bytes::{Bytes, BytesMut};
use dtwn_chain::{
    tx::{BodyRef, Payload},
    types::Digest,
};
use dtwn_model::{Plan, ids::UserId};
use dtwn_proto::{
    event::{TwinMoved, What},
    node::{self, Header, Manifest, PIECE_BYTES, TwinMessage},
};

use super::{super::model, Found, Twins};
use crate::{
    agent::{AgentError, Node, node_name},
    bus::{Bus, Message},
    learning::{
        data::RECORD_BYTES,
        source,
        wire::{Encoder, Format},
        work::Models,
    },
    twins::{
        fetch::Fetch,
        ledger::Effect,
        store::{Store, StoreError},
    },
};

/// Longest behaviour model that is fetched.
const MODEL_BYTES_MAX: u64 = 64 << 20;

/// A twin to be given away.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) manifest: Manifest,
    /// Data, then model.
    pub(super) bytes: Bytes,
}

/// A twin on its way here.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) from: u16,
    pub(super) epoch: u64,
    pub(super) manifest: Manifest,
    pub(super) fetch: Fetch,
    pub(super) began_ns: u64,
}

impl Twins {
    /// Does what the ledger wants.
    pub(super) fn act(&mut self, node: &Node, effects: Vec<Effect>) -> Result<(), AgentError> {
        let mut wanted = Vec::new();
        for effect in effects {
            match effect {
                Effect::Save => self.store.save(self.ledger.durable())?,
                Effect::Send(to, mut message) => {
                    if let TwinMessage::Grant { twin, state, .. } = &mut message {
                        *state = self.followed.get(twin).and_then(|followed| followed.state.clone());
                    }
                    self.know_bs(node, to);
                    self.send(&self.names[usize::from(to)], &message);
                }
                Effect::Prepare(twin) => wanted.push(twin),
                Effect::Fetch { twin, epoch, from, manifest } => {
                    self.fetch(node, twin, epoch, from, manifest)?;
                }
                Effect::Abandon(twin) => {
                    self.inherited.remove(&twin);
                    if let Some(Arriving { epoch, manifest, .. }) = self.arriving.remove(&twin) {
                        self.store.abandon_move(twin, epoch, &manifest);
                    }
                    if !self.ledger.keeps(twin) {
                        self.forget(twin);
                    }
                }
                Effect::Withdraw(twin) => drop(self.bodies.remove(&twin)),
                Effect::Took { twin, from, epoch, from_round } => {
                    self.took(node, twin, from, epoch, from_round);
                }
                Effect::Gone(twin) => {
                    self.bodies.remove(&twin);
                    self.forget(twin);
                }
            }
        }
        if !wanted.is_empty() {
            self.prepare(node, wanted);
        }
        Ok(())
    }

    /// Nothing of a twin is needed here.
    fn forget(&mut self, twin: u32) {
        self.followed.remove(&twin);
        self.recorded.remove(&twin);
        self.store.forget(twin);
    }

    /// Whether a twin may consist of that: its size, and, of all of a user's data, what the chain says of them.
    pub(super) fn check_manifest(&mut self, twin: u32, manifest: &Manifest) -> Result<(), &'static str> {
        let Some(user) = self.users.get(twin as usize) else { return Err("nobody has such a user") };
        let whole = user.data_bytes;
        let possible = manifest.data_bytes <= whole
            && manifest.data_bytes.is_multiple_of(RECORD_BYTES as u64)
            && manifest.model_bytes <= MODEL_BYTES_MAX;
        if !possible {
            return Err("it is of impossible size");
        }
        self.hear();
        let other = |digest: &Digest| *digest != Digest(manifest.data);
        match manifest.data_bytes == whole && self.on_record.get(&twin).is_some_and(other) {
            true => Err("its data are not those that its first owner put on record"),
            false => Ok(()),
        }
    }

    /// A part of a twin that we give away.
    pub(super) fn give(&self, to: u16, twin: u32, epoch: u64, offset: u64, bytes: u32) {
        let Some(body) = self.bodies.get(&twin).filter(|_| self.ledger.gives(twin, to, epoch)) else {
            return;
        };
        let Ok(start) = usize::try_from(offset) else { return };
        let end = start.saturating_add(bytes.min(PIECE_BYTES) as usize).min(body.bytes.len());
        if start < end {
            send_piece(&self.bus, &self.names[usize::from(to)], twin, epoch, offset, &body.bytes[start..end]);
        }
    }

    pub(super) fn take_piece(
        &mut self,
        node: &Node,
        from: u16,
        twin: u32,
        epoch: u64,
        offset: u64,
        body: &Bytes,
    ) -> Result<(), AgentError> {
        let Some(arriving) = self.arriving.get_mut(&twin) else { return Ok(()) };
        if (arriving.from, arriving.epoch) != (from, epoch)
            || !arriving.fetch.take(offset, body.len(), node.clock.now_ns())
        {
            return Ok(());
        }
        self.store.append_move(twin, epoch, &arriving.manifest, offset, body)?;
        if arriving.fetch.is_complete() {
            self.check_move(twin);
        }
        self.ask(node);
        Ok(())
    }

    /// Has a move checked of which all bytes are here.
    pub(super) fn check_move(&self, twin: u32) {
        let Some(Arriving { epoch, manifest, .. }) = self.arriving.get(&twin) else { return };
        let (epoch, manifest) = (*epoch, *manifest);
        let (store, results) = (self.store.clone(), self.results.0.clone());
        tokio::task::spawn_blocking(move || {
            let result = store.check_move(twin, epoch, &manifest);
            // A node that has ended needs no result.
            let _ = results.blocking_send(Found::Moved { twin, epoch, manifest, result });
        });
    }

    /// A move was checked. One that was given up meanwhile is of no interest, whatever came of it.
    pub(super) fn moved(
        &mut self,
        node: &Node,
        twin: u32,
        epoch: u64,
        manifest: Manifest,
        result: Result<bool, StoreError>,
    ) -> Result<(), AgentError> {
        let current = |arriving: &&Arriving| (arriving.epoch, arriving.manifest) == (epoch, manifest);
        let Some(arriving) = self.arriving.get(&twin).filter(current) else {
            self.store.abandon_move(twin, epoch, &manifest);
            return Ok(());
        };
        if result? && self.store.keep_move(twin, epoch, &manifest)? {
            let effects = self.ledger.fetched(twin, epoch);
            return self.act(node, effects);
        }
        tracing::warn!(
            twin,
            from = self.names[usize::from(arriving.from)],
            "what came of a twin is not what was announced"
        );
        let from = arriving.from;
        self.fetch(node, twin, epoch, from, manifest)
    }

    pub(super) fn fetch(
        &mut self,
        node: &Node,
        twin: u32,
        epoch: u64,
        from: u16,
        manifest: Manifest,
    ) -> Result<(), AgentError> {
        let (now_ns, total) = (node.clock.now_ns(), manifest.data_bytes + manifest.model_bytes);
        let before = self.arriving.remove(&twin);
        let began_ns = before.as_ref().map_or(now_ns, |before| before.began_ns);
        if let Some(other) = before.filter(|before| (before.epoch, before.manifest) != (epoch, manifest)) {
            self.store.abandon_move(twin, other.epoch, &other.manifest);
        }
        let fetch = Fetch::new(self.store.begin_move(twin, epoch, &manifest)?, total, now_ns);
        let complete = fetch.is_complete();
        self.arriving.insert(twin, Arriving { from, epoch, manifest, fetch, began_ns });
        if complete {
            self.check_move(twin);
        }
        self.know_bs(node, from);
        self.ask(node);
        Ok(())
    }

    /// A twin is ours.
    pub(super) fn took(&mut self, node: &Node, twin: u32, from: u16, epoch: u64, from_round: u64) {
        let Some(Arriving { manifest, began_ns, .. }) = self.arriving.remove(&twin) else { return };
        if let Some(state) = self.inherited.remove(&twin) {
            self.followed.entry(twin).or_default().inherit(state);
        }
        self.know_user(node, twin);
        let (now_ns, bytes) = (node.clock.now_ns(), manifest.data_bytes + manifest.model_bytes);
        let from = self.names[usize::from(from)].clone();
        self.report(node, "twin-move", &from, usize::try_from(bytes).unwrap_or(usize::MAX), began_ns, now_ns);
        node.reporter.event(What::TwinMoved(TwinMoved {
            twin: self.users[twin as usize].name.clone(),
            from,
            to: node.me().name.clone(),
            epoch,
            from_round,
            samples: manifest.data_bytes / RECORD_BYTES as u64,
            bytes,
            took_ms: now_ns.saturating_sub(began_ns) as f64 / 1e6,
        }));
        self.record_data(twin, Digest(manifest.data), manifest.data_bytes);
        if manifest.model_bytes > 0 {
            let body = BodyRef { digest: Digest(manifest.model), size_bytes: manifest.model_bytes };
            self.record(Payload::TwinModel { twin, round: self.ledger.durable().round, body });
        }
    }

    /// Finds out, on a thread, what twins consist of that are to be given away.
    pub(super) fn prepare(&self, node: &Node, twins: Vec<u32>) {
        let (store, plan, results) = (self.store.clone(), Arc::clone(&self.plan), self.results.0.clone());
        let models = self.worker.as_ref().map(|worker| Arc::clone(worker.models()));
        let (round, seed) = (self.ledger.durable().round, node.seed());
        let expected: Vec<u64> = twins.iter().map(|twin| self.data_bytes(*twin)).collect();
        tokio::task::spawn_blocking(move || {
            let of = |(twin, expected): (u32, u64)| {
                let model = behaviour(&plan, models.as_ref(), &store, twin, round, seed);
                match data(&plan, &store, twin, expected) {
                    Ok(data) => (twin, Some(Body::of(&data, &model))),
                    Err(error) => {
                        tracing::error!(twin, error, "a twin cannot be given away");
                        (twin, None)
                    }
                }
            };
            let found = twins.into_iter().zip(expected).map(of).collect();
            // A node that has ended needs no result.
            let _ = results.blocking_send(Found::Bodies(found));
        });
    }
}

impl Body {
    fn of(data: &[u8], model: &[u8]) -> Self {
        let manifest = Manifest {
            data_bytes: data.len() as u64,
            data: *blake3::hash(data).as_bytes(),
            model_bytes: model.len() as u64,
            model: *blake3::hash(model).as_bytes(),
        };
        let mut bytes = BytesMut::with_capacity(data.len() + model.len());
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(model);
        Self { manifest, bytes: bytes.freeze() }
    }
}

/// Sends a part of a twin. One that finds no room is asked for again.
pub(in crate::roles) fn send_piece(bus: &Bus, to: &str, twin: u32, epoch: u64, offset: u64, bytes: &[u8]) {
    let header = Header::Twin(TwinMessage::Piece { twin, epoch, offset });
    if let (Ok(message), Ok(peer)) = (node::encode(&header, bytes), node_name(to))
        && let Err(error) = bus.send(&peer, Message::bulk(message))
    {
        tracing::debug!(to, %error, "a part of a twin was not sent");
    }
}

/// The data of a twin: what came through the air, or what it had from the beginning.
fn data(plan: &Plan, store: &Store, twin: u32, expected: u64) -> Result<Bytes, String> {
    if let Some(data) = store.data(twin).map_err(|error| error.to_string())? {
        let whole = data.len() - data.len() % RECORD_BYTES;
        return Ok(data.slice(..whole));
    }
    if expected == 0 {
        return Ok(Bytes::new());
    }
    let dealt = source::samples_of(plan, &[UserId(twin)]).map_err(|error| error.to_string())?;
    Ok(dealt.first().map(|records| Bytes::copy_from_slice(records.as_bytes())).unwrap_or_default())
}

/// The behaviour model of a twin as it travels; empty for one that was never trained. Where nothing is trained, random bytes of its
/// size take its way.
fn behaviour(plan: &Plan, models: Option<&Models>, store: &Store, twin: u32, round: u64, seed: u64) -> Bytes {
    let settings = &plan.topology().learning;
    let Some(models) = models else {
        let bytes = plan.topology().cost.model_size.get() as usize;
        return match round {
            0 => Bytes::new(),
            _ => model::body(seed, round, &format!("twin {twin}"), bytes).into(),
        };
    };
    let known = models.lock().unwrap_or_else(PoisonError::into_inner).get(&UserId(twin)).cloned();
    match known {
        Some((_, model)) => Encoder::new(Format::from(settings.format)).encode(&model).into(),
        None => store.model(twin).ok().flatten().unwrap_or_default(),
    }
}
