//! The twins of a BS: follows their users, fetches what they consist of, hands them over, and puts that on record.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use dtwn_chain::{
    tx::{BodyRef, Payload},
    types::Digest,
};
use dtwn_model::{
    Plan,
    ids::{BsId, UserId},
    topology::ModelFormat,
};
use dtwn_proto::{
    event::{Transfer, TwinMoved, What},
    node::{self, Header, Manifest, PIECE_BYTES, TwinMessage, TwinState},
};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{model, prediction::Predictor};
use crate::{
    agent::{AgentError, Node, node_name},
    association::InForce,
    bus::{Bus, Message},
    chain::ChainHandle,
    learning::{
        data::RECORD_BYTES,
        learner::twins_of,
        source,
        wire::{Encoder, Format},
        work::{Job, Models, Worker},
    },
    twins::{
        fetch::Fetch,
        ledger::{Durable, Effect, Ledger},
        states::{self, Followed},
        store::{self, Store, StoreError},
    },
};

/// How often unanswered messages are repeated and records submitted, emulated seconds.
const TICK_S: f64 = 0.5;
/// Users whose samples are fetched at a time.
const SYNCS_MAX: usize = 32;
/// Records submitted in a tick.
const RECORDS_A_TICK: usize = 32;
/// Longest behaviour model that is fetched.
const MODEL_BYTES_MAX: u64 = 64 << 20;
/// Threads' results that may wait.
const RESULTS_MAX: usize = 64;

/// What a thread found out.
#[derive(Debug)]
enum Found {
    /// What twins consist of that are to be given away; without a body where that failed.
    Bodies(Vec<(u32, Option<Body>)>),
    /// Whether a move that has arrived is what it should be.
    Moved { twin: u32, epoch: u64, result: Result<bool, StoreError> },
}

/// A twin to be given away.
#[derive(Debug, Clone)]
struct Body {
    manifest: Manifest,
    /// Data, then model.
    bytes: Bytes,
}

/// A twin on its way here.
#[derive(Debug)]
struct Arriving {
    from: u16,
    epoch: u64,
    manifest: Manifest,
    fetch: Fetch,
    began_ns: u64,
}

/// What the twins have to do next.
#[derive(Debug)]
pub(super) struct TwinTurn(Option<Found>);

/// The user of a twin.
#[derive(Debug)]
struct User {
    name: String,
    group: String,
    /// The BS that it dials when it starts.
    home: Option<u16>,
    /// Bytes of all its samples.
    data_bytes: u64,
}

/// See the module.
pub(super) struct Twins {
    me: u16,
    names: Vec<String>,
    users: Vec<User>,
    by_name: HashMap<String, u32>,
    plan: Arc<Plan>,
    bus: Bus,
    chain: Option<ChainHandle>,
    predictor: Predictor,
    ledger: Ledger,
    store: Store,
    followed: BTreeMap<u32, Followed>,
    /// Last states of twins that are on their way here.
    inherited: BTreeMap<u32, TwinState>,
    arriving: BTreeMap<u32, Arriving>,
    syncs: BTreeMap<u32, (Fetch, u64)>,
    bodies: BTreeMap<u32, Body>,
    worker: Option<Worker>,
    /// The twins that the learner has, with the bytes of their data.
    learned: BTreeMap<u32, u64>,
    records: VecDeque<Payload>,
    recorded: BTreeMap<u32, Digest>,
    results: (mpsc::Sender<Found>, mpsc::Receiver<Found>),
    tick: Interval,
}

impl Twins {
    /// The twins of a BS, as its disk has them, or as the plan says at the beginning of a run.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    pub(super) fn start(
        node: &Node,
        bs: BsId,
        names: &[String],
        bus: &Bus,
        chain: Option<&ChainHandle>,
        worker: Option<Worker>,
    ) -> Result<Self, AgentError> {
        let (plan, me) = (Arc::new(node.plan.clone()), position(bs));
        let groups = plan.nodes.iter().flat_map(|group| group.users.iter().map(move |user| (group, user)));
        let users: Vec<User> = groups
            .map(|(group, user)| User {
                name: user.name.clone(),
                group: group.name.clone(),
                home: plan.association.serving(user.id).map(position),
                data_bytes: u64::from(user.samples) * RECORD_BYTES as u64,
            })
            .collect();
        let store = Store::open(&node.state_dir().join(store::FOLDER))?;
        let durable = match store.ledger(users.len())? {
            Some(durable) => durable,
            None => {
                let owners: Vec<Option<u16>> = users.iter().map(|user| user.home).collect();
                let first = Durable::first(me, &owners);
                store.save(&first)?;
                first
            }
        };
        let stations = u16::try_from(names.len()).unwrap_or(u16::MAX);
        let mut tick = interval(node.clock.wall(TICK_S));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let learned = match worker {
            Some(_) => twins_of(&plan, node.me()),
            None => Vec::new(),
        };
        let learned = learned.into_iter().map(|user| (user.0, users[user.index()].data_bytes)).collect();
        let by_name = (0..).zip(&users).map(|(twin, user)| (user.name.clone(), twin)).collect();
        let twins = Self {
            me,
            names: names.to_vec(),
            by_name,
            predictor: Predictor::new(Arc::clone(&node.association)),
            plan,
            bus: bus.clone(),
            chain: chain.cloned(),
            ledger: Ledger::new(me, stations, durable),
            store,
            followed: BTreeMap::new(),
            inherited: BTreeMap::new(),
            arriving: BTreeMap::new(),
            syncs: BTreeMap::new(),
            bodies: BTreeMap::new(),
            worker,
            learned,
            records: VecDeque::new(),
            recorded: BTreeMap::new(),
            results: mpsc::channel(RESULTS_MAX),
            tick,
            users,
        };
        let known: Vec<u32> = twins.ledger.kept().chain(twins.homed()).collect();
        known.into_iter().for_each(|twin| twins.know_user(node, twin));
        Ok(twins)
    }

    /// Twins whose users dial this BS when they start.
    fn homed(&self) -> Vec<u32> {
        let me = Some(self.me);
        (0..).zip(&self.users).filter(|(_, user)| user.home == me).map(|(twin, _)| twin).collect()
    }

    /// Lets a user connect.
    fn know_user(&self, node: &Node, twin: u32) {
        let Some(user) = self.users.get(twin as usize) else { return };
        // One that is known already is refused, which is as well.
        let added = node.peer(&user.name, &user.group, None).map(|peer| self.bus.add_peer(peer));
        if let Err(error) = added {
            tracing::warn!(user = user.name, %error, "cannot be a peer");
        }
    }

    /// Lets another BS connect; the one after the other dials.
    fn know_bs(&self, node: &Node, bs: u16) {
        let Some(other) = self.plan.nodes.get(1 + usize::from(bs)).filter(|_| bs != self.me) else { return };
        let dial = (bs > self.me).then_some(other.main);
        let added = node.peer(&other.name, &other.name, dial).map(|peer| self.bus.add_peer(peer));
        if let Err(error) = added {
            tracing::warn!(bs = other.name, %error, "cannot be a peer");
        }
    }

    /// Waits for what is to be done next. Nothing is lost when it is dropped before.
    pub(super) async fn next(&mut self) -> TwinTurn {
        tokio::select! {
            _ = self.tick.tick() => TwinTurn(None),
            found = self.results.1.recv() => TwinTurn(found),
        }
    }

    /// Does what is next.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub(super) fn turn(&mut self, node: &Node, turn: TwinTurn) -> Result<(), AgentError> {
        match turn.0 {
            None => {
                let effects = self.ledger.tick();
                self.act(node, effects)?;
                self.begin_syncs(node);
                self.ask(node);
                self.submit();
                Ok(())
            }
            Some(Found::Bodies(found)) => {
                for (twin, body) in found {
                    let manifest = body.as_ref().map(|body| body.manifest);
                    if let Some(body) = body {
                        self.bodies.insert(twin, body);
                    }
                    let effects = self.ledger.prepared(twin, manifest);
                    self.act(node, effects)?;
                }
                Ok(())
            }
            Some(Found::Moved { twin, epoch, result }) => self.moved(node, twin, epoch, result?),
        }
    }

    /// Another association is in force: twins go where it has them. A BS that was started again moves nothing before it hears of one, so
    /// that nothing moves back to where the plan had it.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub(super) fn follow(&mut self, node: &Node, in_force: &InForce) -> Result<(), AgentError> {
        let serving = |twin| in_force.serving(UserId(twin)).map(position);
        let targets: Vec<Option<u16>> = (0..).take(self.users.len()).map(serving).collect();
        self.retarget(node, &targets)
    }

    fn retarget(&mut self, node: &Node, targets: &[Option<u16>]) -> Result<(), AgentError> {
        for (twin, target) in (0..).zip(targets) {
            match target {
                Some(to) if *to == self.me => {
                    self.know_user(node, twin);
                    let owner = self.ledger.serving(twin).map(|(owner, _)| owner);
                    let home = self.users.get(twin as usize).and_then(|user| user.home);
                    owner.into_iter().chain(home).for_each(|bs| self.know_bs(node, bs));
                }
                Some(to) if self.ledger.owns(twin) => self.know_bs(node, *to),
                _ => {}
            }
        }
        let effects = self.ledger.retarget(targets);
        self.act(node, effects)
    }

    /// A round begins: has the learner hold the twins that are trained in it. `false`: there is none with samples.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub(super) fn open(&mut self, node: &Node, round: u64) -> Result<bool, AgentError> {
        let effects = self.ledger.opened(round);
        self.act(node, effects)?;
        self.refresh(round)
    }

    /// Has the learner hold what it is to train in a round, with all the data that are here.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(super) fn refresh(&mut self, round: u64) -> Result<bool, AgentError> {
        let Some(worker) = self.worker.clone() else { return Ok(true) };
        let whole = |bytes: u64| bytes - bytes % RECORD_BYTES as u64;
        let due: BTreeMap<u32, u64> = self
            .ledger
            .trains(round)
            .map(|twin| (twin, whole(self.data_bytes(twin))))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        let released: Vec<u32> =
            self.learned.keys().filter(|twin| !due.contains_key(twin)).copied().collect();
        let (mut held, mut models, mut learned) = (Vec::new(), Vec::new(), self.learned.clone());
        learned.retain(|twin, _| due.contains_key(twin));
        for (twin, bytes) in due.into_iter().filter(|(twin, bytes)| self.learned.get(twin) != Some(bytes)) {
            let Some(data) = self.store.data(twin)? else { continue };
            held.push((UserId(twin), data));
            models.extend(self.store.model(twin)?.map(|model| (UserId(twin), model)));
            learned.insert(twin, bytes);
        }
        if !released.is_empty() || !held.is_empty() {
            let released = released.into_iter().map(UserId).collect();
            if worker.ask(Job::Twins { released, held, models }) {
                self.learned = learned;
            }
        }
        Ok(!self.learned.is_empty())
    }

    /// Bytes of a twin's data that are here.
    fn data_bytes(&self, twin: u32) -> u64 {
        let Some(user) = self.users.get(twin as usize) else { return 0 };
        let preloaded = self.plan.topology().twins.preload && user.home == Some(self.me);
        self.store
            .data_bytes(twin)
            .unwrap_or(if preloaded { user.data_bytes } else { 0 })
            .min(user.data_bytes)
    }

    /// What a user or another BS says of twins.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub(super) fn take(
        &mut self,
        node: &Node,
        from: &str,
        message: TwinMessage,
        body: &Bytes,
        at: (usize, u64),
    ) -> Result<(), AgentError> {
        if let Some(user) = self.by_name.get(from).copied() {
            return match message {
                TwinMessage::States { states } => {
                    self.take_states(node, user, &states, at);
                    Ok(())
                }
                TwinMessage::Piece { twin, epoch: 0, offset } if twin == user => {
                    self.take_samples(node, twin, offset, body)
                }
                _ => {
                    tracing::warn!(from, "refused what a user does not say");
                    Ok(())
                }
            };
        }
        let Some(bs) = self.names.iter().position(|name| name == from) else {
            tracing::warn!(from, "refused a stranger's message of twins");
            return Ok(());
        };
        let bs = u16::try_from(bs).unwrap_or(u16::MAX);
        match message {
            TwinMessage::Want { twin, epoch, offset, bytes } => self.give(bs, twin, epoch, offset, bytes),
            TwinMessage::Piece { twin, epoch, offset } => {
                return self.take_piece(node, bs, twin, epoch, offset, body);
            }
            TwinMessage::States { .. } | TwinMessage::Ack { .. } => {
                tracing::warn!(from, "refused what a BS does not say to another");
            }
            message => {
                if let TwinMessage::Grant { twin, state: Some(state), .. } = &message
                    && states::check(*twin, std::slice::from_ref(state), node.clock.now_ns()).is_ok()
                    && self.users.get(*twin as usize).is_some()
                    && !self.ledger.owns(*twin)
                {
                    self.inherited.insert(*twin, state.clone());
                }
                let effects = self.ledger.take(bs, &message);
                return self.act(node, effects);
            }
        }
        Ok(())
    }

    fn take_states(
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

    /// Reports what came through the air from a station.
    fn report(
        &self,
        node: &Node,
        kind: &str,
        from: &str,
        bytes: usize,
        sent_at_ns: u64,
        received_at_ns: u64,
    ) {
        let Some(station) = self.plan.station(from) else { return };
        let here = self.plan.bs_station(BsId(self.me.into()));
        node.reporter.event(What::Transfer(Transfer {
            kind: kind.into(),
            from: from.to_owned(),
            to: node.me().name.clone(),
            bytes: bytes as u64,
            measured_ms: received_at_ns.saturating_sub(sent_at_ns) as f64 / 1e6,
            predicted_ms: self.predictor.transfer_ms(&self.plan, station.id, here, bytes, sent_at_ns),
        }));
    }

    /// Begins to fetch the samples that users hold and we do not, as far as there is room.
    fn begin_syncs(&mut self, node: &Node) {
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

    /// Asks for what is missing.
    fn ask(&mut self, node: &Node) {
        let now_ns = node.clock.now_ns();
        let mut asks = Vec::new();
        for (twin, (fetch, _)) in &mut self.syncs {
            asks.extend(
                fetch
                    .asks(now_ns)
                    .into_iter()
                    .map(|ask| (self.users[*twin as usize].name.clone(), *twin, 0, ask)),
            );
        }
        for (twin, arriving) in &mut self.arriving {
            let from = &self.names[usize::from(arriving.from)];
            asks.extend(
                arriving.fetch.asks(now_ns).into_iter().map(|ask| (from.clone(), *twin, arriving.epoch, ask)),
            );
        }
        for (to, twin, epoch, (offset, bytes)) in asks {
            self.send(&to, &TwinMessage::Want { twin, epoch, offset, bytes });
        }
    }

    /// Samples of a user of ours.
    fn take_samples(&mut self, node: &Node, twin: u32, offset: u64, body: &Bytes) -> Result<(), AgentError> {
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

    /// A part of a twin that we give away.
    fn give(&self, to: u16, twin: u32, epoch: u64, offset: u64, bytes: u32) {
        let Some(body) = self.bodies.get(&twin).filter(|_| self.ledger.gives(twin, to, epoch)) else {
            return;
        };
        let Ok(start) = usize::try_from(offset) else { return };
        let end = start.saturating_add(bytes.min(PIECE_BYTES) as usize).min(body.bytes.len());
        if start < end {
            send_piece(&self.bus, &self.names[usize::from(to)], twin, epoch, offset, &body.bytes[start..end]);
        }
    }

    fn take_piece(
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
        self.store.append_move(twin, offset, body)?;
        if arriving.fetch.is_complete() {
            self.check_move(twin);
        }
        self.ask(node);
        Ok(())
    }

    /// Has a move checked of which all bytes are here.
    fn check_move(&self, twin: u32) {
        let Some(Arriving { epoch, manifest, .. }) = self.arriving.get(&twin) else { return };
        let (epoch, manifest) = (*epoch, *manifest);
        let (store, results) = (self.store.clone(), self.results.0.clone());
        tokio::task::spawn_blocking(move || {
            let result = store.finish_move(twin, &manifest);
            // A node that has ended needs no result.
            let _ = results.blocking_send(Found::Moved { twin, epoch, result });
        });
    }

    /// A move was checked.
    fn moved(&mut self, node: &Node, twin: u32, epoch: u64, genuine: bool) -> Result<(), AgentError> {
        let Some(arriving) = self.arriving.get(&twin).filter(|arriving| arriving.epoch == epoch) else {
            return Ok(());
        };
        if genuine {
            let effects = self.ledger.fetched(twin, epoch);
            return self.act(node, effects);
        }
        tracing::warn!(
            twin,
            from = self.names[usize::from(arriving.from)],
            "what came of a twin is not what was announced"
        );
        let (from, manifest) = (arriving.from, arriving.manifest);
        self.fetch(node, twin, epoch, from, manifest)
    }

    /// Does what the ledger wants.
    fn act(&mut self, node: &Node, effects: Vec<Effect>) -> Result<(), AgentError> {
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
                    self.arriving.remove(&twin);
                    self.inherited.remove(&twin);
                    self.store.abandon_move(twin);
                }
                Effect::Took { twin, from, epoch, from_round } => {
                    self.took(node, twin, from, epoch, from_round);
                }
                Effect::Gone(twin) => {
                    self.bodies.remove(&twin);
                    self.followed.remove(&twin);
                    self.recorded.remove(&twin);
                    self.store.forget(twin);
                }
            }
        }
        if !wanted.is_empty() {
            self.prepare(node, wanted);
        }
        Ok(())
    }

    fn fetch(
        &mut self,
        node: &Node,
        twin: u32,
        epoch: u64,
        from: u16,
        manifest: Manifest,
    ) -> Result<(), AgentError> {
        let most = self.users.get(twin as usize).map_or(0, |user| user.data_bytes);
        let fine = manifest.data_bytes <= most
            && manifest.data_bytes.is_multiple_of(RECORD_BYTES as u64)
            && manifest.model_bytes <= MODEL_BYTES_MAX;
        if !fine {
            tracing::warn!(
                twin,
                from = self.names[usize::from(from)],
                ?manifest,
                "refused a twin of impossible size"
            );
            return Ok(());
        }
        let (now_ns, total) = (node.clock.now_ns(), manifest.data_bytes + manifest.model_bytes);
        let fetch = Fetch::new(self.store.begin_move(twin, &manifest)?, total, now_ns);
        let began_ns = self.arriving.get(&twin).map_or(now_ns, |before| before.began_ns);
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
    fn took(&mut self, node: &Node, twin: u32, from: u16, epoch: u64, from_round: u64) {
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
    fn prepare(&self, node: &Node, twins: Vec<u32>) {
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

    /// The data of twins that the learner holds.
    pub(super) fn hold(&mut self, held: &[(UserId, blake3::Hash, u64)]) {
        for (twin, digest, bytes) in held {
            if self.users.get(twin.index()).is_some_and(|user| user.data_bytes == *bytes) {
                self.record_data(twin.0, Digest(*digest.as_bytes()), *bytes);
            }
        }
    }

    /// The behaviour models that a round has left.
    pub(super) fn behave(&mut self, round: u64, models: &[(UserId, blake3::Hash, u64)]) {
        for (twin, digest, bytes) in models {
            if !self.ledger.owns(twin.0) {
                continue;
            }
            let body = BodyRef { digest: Digest(*digest.as_bytes()), size_bytes: *bytes };
            self.record(Payload::TwinModel { twin: twin.0, round, body });
        }
    }

    fn record_data(&mut self, twin: u32, digest: Digest, size_bytes: u64) {
        if self.recorded.insert(twin, digest) != Some(digest) {
            let body = BodyRef { digest, size_bytes };
            self.record(Payload::TwinData { twin, round: self.ledger.durable().round, body });
        }
    }

    fn record(&mut self, payload: Payload) {
        if self.chain.is_none() {
            return;
        }
        // Two for each twin is what a round brings; the oldest are the least missed.
        if self.records.len() >= 4 * self.users.len().max(RECORDS_A_TICK) {
            self.records.pop_front();
        }
        self.records.push_back(payload);
    }

    /// Puts some of what waits on record.
    fn submit(&mut self) {
        let Some(chain) = &self.chain else { return };
        for _ in 0..RECORDS_A_TICK {
            let Some(payload) = self.records.pop_front() else { return };
            if chain.submit(payload.clone()).is_err() {
                self.records.push_front(payload);
                return;
            }
        }
    }

    /// Reports how old the twins are.
    pub(super) fn report_ages(&self, node: &Node) {
        let now_ns = node.clock.now_ns();
        let state = |twin: u32| self.followed.get(&twin)?.state.as_ref().map(|state| state.taken_at_ns);
        let taken: Vec<u64> = self.ledger.owned().filter_map(state).collect();
        let mut ages_ms: Vec<f64> =
            taken.iter().map(|taken_ns| now_ns.saturating_sub(*taken_ns) as f64 / 1e6).collect();
        ages_ms.sort_by(f64::total_cmp);
        let quantile =
            |q: f64| ages_ms.get((ages_ms.len().saturating_sub(1) as f64 * q).round() as usize).copied();
        node.reporter.event(What::TwinAges {
            twins: u32::try_from(self.ledger.owned().count()).unwrap_or(u32::MAX),
            arriving: u32::try_from(self.arriving.len()).unwrap_or(u32::MAX),
            p50_ms: quantile(0.5).unwrap_or(0.0),
            p99_ms: quantile(0.99).unwrap_or(0.0),
        });
    }

    fn send(&self, to: &str, message: &TwinMessage) {
        let sent = node::encode(&Header::Twin(message.clone()), &[])
            .map(|bytes| node_name(to).map(|peer| self.bus.send(&peer, Message::control(bytes))));
        if let Ok(Ok(Err(error))) = sent {
            tracing::debug!(to, %error, "a message of twins was not sent");
        }
    }
}

fn position(bs: BsId) -> u16 {
    u16::try_from(bs.0).unwrap_or(u16::MAX)
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
pub(super) fn send_piece(bus: &Bus, to: &str, twin: u32, epoch: u64, offset: u64, bytes: &[u8]) {
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
    let known = models.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&UserId(twin)).cloned();
    let format = match settings.format {
        ModelFormat::F32 => Format::F32,
        ModelFormat::F16 => Format::F16,
        ModelFormat::Int8 => Format::Int8,
    };
    match known {
        Some((_, model)) => Encoder::new(format).encode(&model).into(),
        None => store.model(twin).ok().flatten().unwrap_or_default(),
    }
}
