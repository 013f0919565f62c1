//! A base station: answers rounds, passes on the models of others, holds twins.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use bytes::Bytes;
use dtwn_model::ids::BsId;
use dtwn_proto::{
    event::{Transfer, What},
    node::{self, Announced, Header, ModelHeader},
};

use super::{
    gate::{Entry, Gate},
    model::{self, Courier},
    overlay,
    prediction::Predictor,
    training::{Training, Turn, Word},
    twins::Twins,
    wanted::ModelDigest,
};
use crate::{
    agent::{AgentError, Node, node_name},
    association::{acting::Acting, ground::Ground},
    bus::{Bus, Incoming, Key, Message, PeerConfig},
    chain::{self, ChainHandle},
};

/// How often the age of the twins is reported, wall time.
const AGES_PERIOD: Duration = Duration::from_secs(1);

/// Only the newest association is worth telling.
const ASSOCIATION_KEY: Key = Key(2);

/// Runs a BS for as long as it is polled.
///
/// # Errors
/// When its bus cannot be started.
pub async fn run(node: Node, bs: BsId) -> Result<(), AgentError> {
    let peers = peers(&node, bs)?;
    let (bus, mut receiver) = node.bus(&node.me().name, true, peers).await?;
    let chain = chain::join(&node, &bus)?;
    node.ready(vec![bus.clone()]);
    let names: Vec<String> = (0..node.plan.bs_count()).map(|i| node.plan.nodes[1 + i].name.clone()).collect();
    let acting = Acting::start(&node, bs, Ground::start(&node, chain.as_ref())?)?;
    let mut training = Training::start(&node, chain.as_ref(), &names)?;
    let worker = training.as_ref().map(Training::worker);
    let mut twins = Twins::start(&node, bs, &names, &bus, chain.as_ref(), worker)?;
    let mut station = Station {
        predictor: Predictor::new(std::sync::Arc::clone(&node.association)),
        gate: Gate::new(&node)?,
        names,
        node,
        courier: Courier::new(&bus),
        bus,
        bs,
        chain: chain.clone(),
        round: 0,
        acting,
        undecided: None,
    };
    station.join();
    let mut association = station.node.association.watch();
    let mut ages = tokio::time::interval(AGES_PERIOD);
    loop {
        tokio::select! {
            incoming = receiver.recv() => match incoming {
                Some(incoming) => station.take(incoming, training.as_mut(), &mut twins).await?,
                None => return Ok(()),
            },
            Ok(()) = association.changed() => {
                let in_force = association.borrow_and_update().clone();
                twins.follow(&station.node, &in_force)?;
            }
            () = chain_of(station.acting.as_mut()) => station.act(training.as_mut(), &mut twins)?,
            _ = ages.tick() => twins.report_ages(&station.node),
            turn = twins.next() => {
                twins.turn(&station.node, turn)?;
                // A BS that had nothing to train may have something now.
                if let Some(training) = training.as_mut().filter(|training| training.is_idle())
                    && twins.refresh(station.round)?
                {
                    let trains = training.resume(&station.node);
                    station.tell_whether_it_trains(station.round, trains);
                }
            }
            turn = next(training.as_mut()) => {
                if let Some(training) = &mut training {
                    match training.turn(&station.node, &mut twins, station.round, turn)? {
                        Some(Word::Model(message)) => station.answer(&message),
                        Some(Word::Trains { round, anything }) => station.tell_whether_it_trains(round, anything),
                        Some(Word::Want(models)) => station.ask_for(&models),
                        None => {}
                    }
                }
            }
            error = chain::failure(chain.as_ref()) => return Err(AgentError::Chain(error)),
        }
    }
}

/// What learning has to do next; nothing, for ever, where there is none.
async fn next(training: Option<&mut Training>) -> Turn {
    match training {
        Some(training) => training.next().await,
        None => std::future::pending().await,
    }
}

/// The records that decisions rest on; nothing, for ever, where none are made.
async fn chain_of(acting: Option<&mut Acting>) {
    match acting {
        Some(acting) => acting.next().await,
        None => std::future::pending().await,
    }
}

/// The MBS, which we dial, and the neighbours of overlay and chain, of which we dial those after us. Users come with the twins.
fn peers(node: &Node, bs: BsId) -> Result<Vec<PeerConfig>, AgentError> {
    let plan = &node.plan;
    let mbs = &plan.nodes[0];
    let mut peers = vec![node.peer(&mbs.name, &mbs.name, Some(mbs.main))?];
    let mut neighbours = BTreeSet::new();
    if plan.topology().learning.enabled {
        neighbours.extend(overlay::neighbours(bs.index(), plan.bs_count()));
    }
    if chain::is_kept_by(node) {
        neighbours.extend(chain::neighbours(bs.index(), plan.bs_count()));
    }
    for other in neighbours {
        let neighbour = &plan.nodes[1 + other];
        let dial = (other > bs.index()).then_some(neighbour.main);
        peers.push(node.peer(&neighbour.name, &neighbour.name, dial)?);
    }
    Ok(peers)
}

struct Station {
    node: Node,
    bus: Bus,
    courier: Courier,
    bs: BsId,
    chain: Option<ChainHandle>,
    names: Vec<String>,
    predictor: Predictor,
    round: u64,
    /// Lets models in.
    gate: Gate,
    /// Our part in decisions, where a policy makes them.
    acting: Option<Acting>,
    /// The global model of a round whose association is not settled yet.
    undecided: Option<(ModelHeader, Bytes, Incoming)>,
}

impl Station {
    async fn take(
        &mut self,
        incoming: Incoming,
        training: Option<&mut Training>,
        twins: &mut Twins,
    ) -> Result<(), AgentError> {
        let from = incoming.from.as_str();
        match node::decode(&incoming.body) {
            Ok((Header::Model(header), body)) => {
                self.take_model(&header, &body, &incoming, (training, twins))?;
            }
            Ok((Header::Join | Header::Trains { .. }, _)) => {
                tracing::warn!(from, "refused a message that is for the MBS");
            }
            Ok((Header::WantModel { digest }, _)) => {
                // One at most of each BS waits for whoever asks: a newer one takes its place.
                if let Some((owner, message)) =
                    training.as_deref().and_then(|training| training.find(&digest))
                    && let Some(owner) =
                        self.names.get(owner).filter(|_| self.names.iter().any(|n| n == from))
                {
                    self.courier.send(incoming.from, owner, message);
                }
            }
            Ok((Header::Twin(message), body)) => {
                let at = (incoming.body.len(), incoming.received_at_ns);
                twins.take(&self.node, from, message, &body, at)?;
            }
            Ok((Header::Chain(header), body)) => {
                chain::take(self.chain.as_ref(), incoming.from, header, body).await;
            }
            Ok((Header::Decide(decide), _)) => {
                if let Some(acting) = self.acting.as_mut().filter(|_| from == self.node.plan.nodes[0].name) {
                    acting.called(&self.node, decide);
                }
                self.act(training, twins)?;
            }
            Ok((Header::Association(header), body)) => {
                if let Some(acting) = self.acting.as_mut().filter(|_| from == self.node.plan.nodes[0].name) {
                    match Announced::decode(&body) {
                        Ok(announced) => acting.heard(header, announced),
                        Err(error) => tracing::warn!(from, %error, "refused an association"),
                    }
                }
                self.act(training, twins)?;
            }
            Err(error) => tracing::warn!(from, %error, "refused a message"),
        }
        Ok(())
    }

    /// Decides what can be decided, tells our users of what is in force, and begins the round that waited for it.
    fn act(&mut self, training: Option<&mut Training>, twins: &mut Twins) -> Result<(), AgentError> {
        let Some(acting) = &mut self.acting else { return Ok(()) };
        if let Some((header, announced)) = acting.turn(&self.node)? {
            let body = announced.encode().map_err(|error| AgentError::Instructions(error.to_string()))?;
            let message = node::encode(&Header::Association(header), &body)
                .map_err(|error| AgentError::Instructions(error.to_string()))?;
            for (peer, _) in self.bus.stats().peers {
                if self.node.plan.users().any(|user| user.name == peer.as_str()) {
                    // Whoever has left the bus meanwhile hears it elsewhere.
                    let _ =
                        self.bus.send(&peer, Message::control(message.clone()).superseding(ASSOCIATION_KEY));
                }
            }
        }
        if let Some((header, body, incoming)) = self.undecided.take() {
            self.take_global(&header, &body, &incoming, (training, twins))?;
        }
        Ok(())
    }

    fn take_model(
        &mut self,
        header: &ModelHeader,
        body: &Bytes,
        incoming: &Incoming,
        (training, twins): (Option<&mut Training>, &mut Twins),
    ) -> Result<(), AgentError> {
        let from = incoming.from.as_str();
        let here = (self.bs.index(), self.round);
        let wanted = |owner| training.as_deref().is_some_and(|training| training.is_missing(owner, header));
        let origin = match self.gate.admit(here, from, (header, body), wanted) {
            Ok(Entry::Global) => return self.take_global(header, body, incoming, (training, twins)),
            Ok(Entry::First(origin)) => {
                self.report_model("model-relay", header, body.len(), incoming.received_at_ns);
                self.pass_on(origin, &incoming.body);
                origin
            }
            Ok(Entry::Recorded(origin)) => origin,
            Ok(Entry::Useless) => return Ok(()),
            Err(refusal) => {
                let (origin, round, ours) = (&header.origin, header.round, self.round);
                tracing::warn!(from, origin, round, ours, %refusal, "refused a model");
                return Ok(());
            }
        };
        if let Some(training) = training {
            training.keep(&self.node, origin, header, &incoming.body, body);
        }
        Ok(())
    }

    fn take_global(
        &mut self,
        header: &ModelHeader,
        body: &Bytes,
        incoming: &Incoming,
        (training, twins): (Option<&mut Training>, &mut Twins),
    ) -> Result<(), AgentError> {
        // An MBS that was started again opens a round a second time.
        if header.round == self.round
            && let Some(training) = training.as_deref()
        {
            match training.sent(header.round) {
                Some(own) => {
                    if let Some(message) = self.message(header.round, own) {
                        self.send_to_mbs(&message);
                    }
                }
                None if training.has_nothing() => self.tell_whether_it_trains(header.round, false),
                None => {}
            }
            return Ok(());
        }
        if self.acting.as_ref().is_some_and(|acting| !acting.is_settled(header.round)) {
            // It comes over another connection than what was decided, and may overtake that.
            if header.round > self.round {
                self.undecided = Some((header.clone(), body.clone(), incoming.clone()));
            }
            return Ok(());
        }
        if header.round > self.round {
            self.report_model("model-down", header, body.len(), incoming.received_at_ns);
            self.round = header.round;
            self.gate.open(header.round);
            twins.open(&self.node, header.round)?;
            match training {
                Some(training) => {
                    let cpu = self.acting.as_mut().and_then(|acting| acting.cpu(header.round));
                    if !training.open(&self.node, self.bs, cpu, header.round, body.clone()) {
                        self.tell_whether_it_trains(header.round, false);
                    }
                }
                None => {
                    let bytes = self.node.plan.topology().cost.model_size.get() as usize;
                    let body = model::body(self.node.seed(), header.round, &self.node.me().name, bytes);
                    if let Some(message) = self.message(header.round, &body) {
                        self.answer(&message);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends our own model to the MBS and on its way to the other BSs.
    fn answer(&self, message: &Bytes) {
        self.send_to_mbs(message);
        self.pass_on(self.bs.index(), message);
    }

    /// Our own model as it travels.
    fn message(&self, round: u64, body: &[u8]) -> Option<Bytes> {
        let (key, now_ns) = (self.node.signing_key(), self.node.clock.now_ns());
        model::message(key, round, &self.node.me().name, now_ns, body)
            .inspect_err(|error| tracing::error!(%error, "no model could be sent"))
            .ok()
    }

    fn send_to_mbs(&self, message: &Bytes) {
        if let Ok(mbs) = node_name(&self.node.plan.nodes[0].name) {
            self.courier.send(mbs, &self.node.me().name, message.clone());
        }
    }

    /// A BS that was started again may have missed what opened the round.
    fn join(&self) {
        let learns = self.node.plan.topology().learning.enabled;
        if !learns || self.node.boot() == 0 {
            return;
        }
        if let (Ok(mbs), Ok(message)) =
            (node_name(&self.node.plan.nodes[0].name), node::encode(&Header::Join, &[]))
        {
            self.courier.send(mbs, &self.node.me().name, message);
        }
    }

    /// Tells the MBS whether a model of ours is to come in a round, so that it does not wait for nothing.
    fn tell_whether_it_trains(&self, round: u64, anything: bool) {
        self.say(&self.node.plan.nodes[0].name, &Header::Trains { round, anything });
    }

    /// Asks for models that have not come: each time another one of those that may have them.
    fn ask_for(&self, models: &[(ModelDigest, usize)]) {
        let stats = self.bus.stats();
        let neighbours = overlay::neighbours(self.bs.index(), self.names.len());
        let names = neighbours.iter().map(|bs| &self.names[*bs]).chain([&self.node.plan.nodes[0].name]);
        let holders: Vec<&String> = names.filter(|name| stats.is_connected(name)).collect();
        for (digest, tries) in models {
            if let Some(holder) = holders.get(tries % holders.len().max(1)) {
                self.say(holder, &Header::WantModel { digest: *digest });
            }
        }
    }

    /// Sends a message that is all header.
    fn say(&self, to: &str, header: &Header) {
        let message = node::encode(header, &[]).map_err(|error| error.to_string());
        let peer = node_name(to).map_err(|error| error.to_string());
        let sent = message.and_then(|message| {
            self.bus.send(&peer?, Message::control(message)).map_err(|error| error.to_string())
        });
        if let Err(error) = sent {
            tracing::warn!(to, error, "a message was not sent");
        }
    }

    /// Passes a model on along its tree. A child that is not connected gets it when it is back, and until then we stand in for it
    /// towards those of its children that are our neighbours too.
    fn pass_on(&self, origin: usize, message: &Bytes) {
        let connected: HashSet<String> = self
            .bus
            .stats()
            .peers
            .into_iter()
            .filter(|(_, stats)| stats.bulk.connected)
            .map(|(name, _)| name.as_str().to_owned())
            .collect();
        let neighbours = overlay::neighbours(self.bs.index(), self.names.len());
        let mut next = overlay::children(self.bs.index(), origin, self.names.len());
        while let Some(child) = next.pop() {
            let name = &self.names[child];
            if !connected.contains(name) {
                let orphans = overlay::children(child, origin, self.names.len());
                next.extend(orphans.into_iter().filter(|orphan| neighbours.contains(orphan)));
            }
            if let Ok(peer) = node_name(name) {
                self.courier.send(peer, &self.names[origin], message.clone());
            }
        }
    }

    fn report_model(&self, kind: &str, header: &ModelHeader, bytes: usize, received_at_ns: u64) {
        let plan = &self.node.plan;
        let predicted_ms = match plan.station(&header.origin) {
            Some(origin) if origin.id == plan.mbs_station() => self.predictor.transfer_ms(
                plan,
                origin.id,
                plan.bs_station(self.bs),
                bytes,
                header.sent_at_ns,
            ),
            Some(origin) => {
                let bs = BsId(origin.id.0.saturating_sub(1));
                self.predictor.broadcast_ms(plan, bs, header.sent_at_ns)
            }
            None => return,
        };
        self.node.reporter.event(What::Transfer(Transfer {
            kind: kind.into(),
            from: header.origin.clone(),
            to: self.node.me().name.clone(),
            bytes: bytes as u64,
            measured_ms: received_at_ns.saturating_sub(header.sent_at_ns) as f64 / 1e6,
            predicted_ms,
        }));
    }
}
