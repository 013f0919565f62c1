//! The twins of a BS: follows their users, fetches what they consist of, hands them over, and puts that on record.

mod moves;
mod records;
mod users;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use dtwn_chain::{tx::Payload, types::Digest};
use dtwn_model::{
    Plan,
    ids::{BsId, UserId},
};
use dtwn_proto::{
    event::{Transfer, What},
    node::{self, Header, Manifest, TwinMessage, TwinState},
};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Interval, MissedTickBehavior, interval},
};

pub(super) use moves::send_piece;

use super::prediction::Predictor;
use crate::{
    agent::{AgentError, Node, node_name},
    association::InForce,
    bus::{Bus, Message},
    chain::{ChainHandle, ChainNews},
    learning::{
        data::RECORD_BYTES,
        learner::twins_of,
        work::{Job, Worker},
    },
    twins::{
        fetch::Fetch,
        ledger::{Durable, Ledger},
        states::{self, Followed},
        store::{self, Store, StoreError},
    },
};
use moves::{Arriving, Body};

/// How often unanswered messages are repeated and records submitted, emulated seconds.
const TICK_S: f64 = 0.5;
/// Threads' results that may wait.
const RESULTS_MAX: usize = 64;

/// What a thread found out.
#[derive(Debug)]
enum Found {
    /// What twins consist of that are to be given away; without a body where that failed.
    Bodies(Vec<(u32, Option<Body>)>),
    /// Whether a move that has arrived is what it should be.
    Moved { twin: u32, epoch: u64, manifest: Manifest, result: Result<bool, StoreError> },
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
    /// How many twins the reports of their ages have told of.
    told: usize,
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
    /// What the chain says, and the digests of users' data that it has told.
    news: Option<broadcast::Receiver<ChainNews>>,
    on_record: BTreeMap<u32, Digest>,
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
        let owners: Vec<Option<u16>> = users.iter().map(|user| user.home).collect();
        let durable = match store.ledger(users.len())? {
            Some(durable) => durable,
            None => {
                let first = Durable::first(me, &owners);
                store.save(&first)?;
                first
            }
        };
        store.tidy(&durable)?;
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
            ledger: Ledger::new(me, stations, durable, owners),
            store,
            followed: BTreeMap::new(),
            told: 0,
            inherited: BTreeMap::new(),
            arriving: BTreeMap::new(),
            syncs: BTreeMap::new(),
            bodies: BTreeMap::new(),
            worker,
            learned,
            records: VecDeque::new(),
            recorded: BTreeMap::new(),
            news: chain.map(ChainHandle::subscribe),
            on_record: BTreeMap::new(),
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
                self.hear();
                self.submit();
                Ok(())
            }
            Some(Found::Bodies(found)) => {
                for (twin, body) in found {
                    let manifest = body.as_ref().map(|body| body.manifest);
                    // It may stay after all, by now.
                    if let Some(body) = body.filter(|_| self.ledger.is_leaving(twin)) {
                        self.bodies.insert(twin, body);
                    }
                    let effects = self.ledger.prepared(twin, manifest);
                    self.act(node, effects)?;
                }
                Ok(())
            }
            Some(Found::Moved { twin, epoch, manifest, result }) => {
                self.moved(node, twin, epoch, manifest, result)
            }
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
        for (twin, target) in (0..).zip(&targets) {
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
        let effects = self.ledger.retarget(in_force.round, &targets);
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
                if let TwinMessage::Offer { twin, manifest, .. } | TwinMessage::Grant { twin, manifest, .. } =
                    &message
                    && let Err(why) = self.check_manifest(*twin, manifest)
                {
                    tracing::warn!(twin, from, ?manifest, "refused a twin: {why}");
                    return Ok(());
                }
                if let TwinMessage::Grant { twin, epoch, state: Some(state), .. } = &message
                    && states::check(*twin, std::slice::from_ref(state), node.clock.now_ns()).is_ok()
                    && self.ledger.expects(bs, *twin, *epoch)
                {
                    self.inherited.insert(*twin, state.clone());
                }
                let effects = self.ledger.take(bs, &message);
                return self.act(node, effects);
            }
        }
        Ok(())
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
