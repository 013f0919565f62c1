//! The macro base station: opens and closes rounds.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use dtwn_chain::models::ModelStatus;
use dtwn_model::plan::Role;
use dtwn_proto::{
    event::{GlobalModel, Level, Round, Transfer, What},
    node::{self, Header, ModelHeader},
};
use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior},
};

use super::{
    gate::Gate,
    letters::{Letter, Letters},
    model::{self, Courier},
    muster::{Muster, Stand},
    prediction::Predictor,
    training,
};
use crate::{
    agent::{AgentError, Node, node_name},
    association::{chair::Chair, ground::Ground},
    bus::{Bus, Receiver},
    chain::{self, ChainHandle, ChainNews},
    learning::{
        learner,
        work::{Done, Job, Results, Worker},
    },
};

/// How often the MBS looks who is there, wall time.
const PRESENCE: Duration = Duration::from_millis(250);

/// Runs the MBS for as long as it is polled.
///
/// # Errors
/// When its bus cannot be started.
pub async fn run(node: Node) -> Result<(), AgentError> {
    let names: Vec<String> =
        node.plan.nodes.iter().filter(|n| matches!(n.role, Role::Bs(_))).map(|n| n.name.clone()).collect();
    // BSs dial the MBS, which so has one connection a class and BS.
    let peers = names.iter().map(|name| node.peer(name, name, None)).collect::<Result<_, _>>()?;
    let (bus, receiver) = node.bus(&node.me().name, true, peers).await?;
    let chain = chain::join(&node, &bus)?;
    node.ready(vec![bus.clone()]);
    // Without rounds, what comes for them is taken from the bus all the same, and dropped.
    let letters = node.plan.topology().learning.enabled.then(|| Arc::new(Letters::new(names.len())));
    tokio::select! {
        result = sort(receiver, chain.clone(), &names, letters.clone()) => result,
        error = chain::failure(chain.as_ref()) => Err(AgentError::Chain(error)),
        result = async {
            let Some(letters) = letters.clone() else { return std::future::pending().await };
            let chair = Ground::start(&node, chain.as_ref())?.map(Chair::new);
            let learning = training::worker(&node)?;
            let news = chain.as_ref().map(ChainHandle::subscribe);
            Rounds {
                predictor: Predictor::new(Arc::clone(&node.association)),
                gate: Gate::new(&node)?,
                muster: Muster::new(
                    names.len(),
                    node.plan.topology().learning.min_bs as usize,
                    node.clock.now_ns(),
                ),
                node,
                courier: Courier::new(&bus),
                bus,
                letters,
                names: names.clone(),
                opening: Bytes::new(),
                learning,
                chair,
                chain: chain.clone(),
                news,
            }
            .run()
            .await
        } => result,
    }
}

/// Gives what comes for the chain to the chain, and all else to the rounds, for which it never waits: they may wait for the chain.
async fn sort(
    mut receiver: Receiver,
    chain: Option<ChainHandle>,
    names: &[String],
    letters: Option<Arc<Letters>>,
) -> Result<(), AgentError> {
    while let Some(incoming) = receiver.recv().await {
        let from = incoming.from.clone();
        let (header, body) = match node::decode(&incoming.body) {
            Ok((Header::Chain(header), body)) => {
                chain::take(chain.as_ref(), incoming.from, header, body).await;
                continue;
            }
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%from, %error, "refused a message");
                continue;
            }
        };
        let Some(bs) = names.iter().position(|name| name == from.as_str()) else {
            tracing::warn!(%from, "refused the message of a stranger");
            continue;
        };
        let Some(letters) = &letters else { continue };
        if letters.put(Letter { bs, header, body, incoming }).is_err() {
            tracing::warn!(%from, "refused a message that is not for the MBS");
        }
    }
    Ok(())
}

struct Rounds {
    node: Node,
    bus: Bus,
    courier: Courier,
    letters: Arc<Letters>,
    names: Vec<String>,
    /// Who is waited for.
    muster: Muster,
    predictor: Predictor,
    /// Lets models in.
    gate: Gate,
    /// What opened the round.
    opening: Bytes,
    /// The thread that aggregates and judges, where models are trained.
    learning: Option<(Worker, Results)>,
    /// Our part in decisions, where a policy makes them.
    chair: Option<Chair>,
    chain: Option<ChainHandle>,
    news: Option<broadcast::Receiver<ChainNews>>,
}

/// What a round brought.
#[derive(Debug, Default)]
struct Harvest {
    /// Models that count, by their owner's position; those in the global model, once that is made.
    accepted: BTreeMap<usize, Bytes>,
    /// Owners of models that were found bad.
    rejected: Vec<usize>,
    /// BSs that might have delivered and have not, or whose model was not attested in time.
    late: Vec<usize>,
    /// How many of those delivered.
    unattested: usize,
    duration_ms: f64,
}

impl Harvest {
    /// Leaves what Eq. 5 takes: models with a weight, if they are as many as there have to be.
    ///
    /// # Errors
    /// How many they are, where these are too few. Then none count.
    fn weigh(&mut self, weights: &[f64], least: usize) -> Result<(), usize> {
        // A BS from which the last twin is on its way may still have trained it; Eq. 5 gives that no weight.
        self.accepted.retain(|bs, _| weights.get(*bs).is_some_and(|weight| *weight > 0.0));
        self.require(least)
    }

    /// Leaves no model where they are fewer than there have to be.
    ///
    /// # Errors
    /// How many they were.
    fn require(&mut self, least: usize) -> Result<(), usize> {
        let good = self.accepted.len();
        if good >= least {
            return Ok(());
        }
        self.accepted.clear();
        Err(good)
    }

    /// A model that seemed to count was none.
    fn refuse(&mut self, bs: usize) {
        self.accepted.remove(&bs);
        self.rejected.push(bs);
        self.rejected.sort_unstable();
    }
}

/// A BS's model of the round that lasts.
struct Here {
    /// As it came, for BSs that have to check it and whom it has not reached.
    message: Bytes,
    body: Bytes,
    digest: [u8; 32],
}

/// What a BS has delivered in a round: its first model and its newest. One that was killed and has trained again may come with another
/// one than it has on record.
#[derive(Default)]
struct Delivered(Vec<Here>);

impl Delivered {
    fn add(&mut self, model: Here) {
        if self.find(&model.digest).is_none() {
            self.0.truncate(1);
            self.0.push(model);
        }
    }

    fn find(&self, digest: &[u8; 32]) -> Option<&Here> {
        self.0.iter().find(|model| model.digest == *digest)
    }
}

impl Rounds {
    async fn run(mut self) -> Result<(), AgentError> {
        // The last round that is over, and the model that it made.
        let (mut round, mut global) = match self.first().await? {
            Some((round, body)) => (round, Some(body)),
            None => (0, None),
        };
        loop {
            round += 1;
            if let Some(chair) = &mut self.chair {
                chair.decide(&self.node, &self.bus, &self.names, round).await?;
            }
            let began_ns = self.node.clock.now_ns();
            let predicted_ms = self.predicted_ms(round, began_ns);
            self.opening = self.open(round, global.as_ref())?;
            let mut harvest = self.close(round, began_ns).await;
            if global.is_some() {
                global = self.finish(round, &mut harvest).await?.map(|(_, body)| body);
            }
            let name = |bs: &usize| self.names[*bs].clone();
            let completed_by = harvest.accepted.keys().map(name).collect();
            let mut missed: Vec<usize> = harvest.late.iter().chain(&harvest.rejected).copied().collect();
            missed.sort_unstable();
            let missed_by = missed.iter().map(name).collect();
            let duration_ms = harvest.duration_ms;
            let ended = Round { round, completed_by, missed_by, duration_ms, predicted_ms };
            self.node.reporter.event(What::Round(ended));
        }
    }

    /// Eq. 17's terms for a round that begins now.
    fn predicted_ms(&mut self, round: u64, now_ns: u64) -> Option<[f64; 3]> {
        let plan = &self.node.plan;
        let cpu = match &mut self.chair {
            Some(chair) => chair.cpu(round),
            None => plan
                .nodes
                .iter()
                .filter(|node| matches!(node.role, Role::Bs(_)))
                .filter_map(|bs| bs.cpu)
                .collect(),
        };
        let terms = self.predictor.terms(plan, &cpu, now_ns);
        let terms = [terms.training_s, terms.broadcast_s, terms.block_s].map(|s| 1000.0 * s);
        terms.iter().all(|ms| ms.is_finite()).then_some(terms)
    }

    /// The global model that everything starts from, or that of the last checkpoint, with the round that made it; `None` where nothing
    /// is trained.
    async fn first(&mut self) -> Result<Option<(u64, Bytes)>, AgentError> {
        if self.learning.is_none() {
            return Ok(None);
        }
        self.work(Job::Begin, &mut Harvest::default()).await
    }

    /// Puts the models that count together (Eq. 5); with too few, the global model stays. The harvest then has what went into it.
    async fn finish(
        &mut self,
        round: u64,
        harvest: &mut Harvest,
    ) -> Result<Option<(u64, Bytes)>, AgentError> {
        let weights = learner::weights_under(&self.node.plan, &self.node.association.now());
        let least = self.least();
        if let Err(good) = harvest.weigh(&weights, least) {
            self.too_few(round, good, harvest.unattested);
        }
        let models = harvest.accepted.iter().map(|(bs, body)| (*bs, body.clone(), weights[*bs])).collect();
        self.work(Job::Finish { round, models, least }, harvest).await
    }

    /// Models that a global one is made of, at least.
    fn least(&self) -> usize {
        self.node.plan.topology().learning.min_bs as usize
    }

    fn too_few(&self, round: u64, good: usize, unattested: usize) {
        let unattested = match unattested {
            0 => String::new(),
            some => format!(" and {some} that were not attested in time"),
        };
        let least = self.least();
        let text = format!(
            "round {round} brought {good} good models{unattested}, fewer than learning.min_bs = {least}: the global model stays"
        );
        self.node.reporter.event(What::Notice { level: Level::Warning, text });
    }

    /// Has a job done that ends in a global model, and reports that.
    async fn work(&mut self, job: Job, harvest: &mut Harvest) -> Result<Option<(u64, Bytes)>, AgentError> {
        let Some((worker, results)) = &mut self.learning else { return Ok(None) };
        if !worker.ask(job) {
            // A thread that ended has said why.
            tracing::error!("the learning thread takes no job");
        }
        let (round, body, digest, judgement, refused, aggregate, restored) = match results.recv().await {
            Some(Done::Global { round, body, digest, judgement, refused, aggregate, restored, trouble }) => {
                for text in trouble {
                    self.node.reporter.event(What::Notice { level: Level::Warning, text });
                }
                (round, body, digest, judgement, refused, aggregate, restored)
            }
            Some(Done::Failed(why)) => return Err(AgentError::Learning(why)),
            Some(other) => {
                return Err(AgentError::Learning(format!("an answer to no question: {}", other.kind())));
            }
            None => return Err(AgentError::Learning("its thread has ended".into())),
        };
        let name = |bs: &usize| self.names[*bs].clone();
        for (bs, why) in &refused {
            tracing::warn!(bs = self.names[*bs], why, "refused a model");
            harvest.refuse(*bs);
        }
        if !refused.is_empty()
            && let Err(good) = harvest.require(self.least())
        {
            self.too_few(round, good, harvest.unattested);
        }
        let dataset =
            if self.node.plan.topology().learning.data.is_some() { "cifar-10" } else { "synthetic" };
        self.node.reporter.event(What::GlobalModel(GlobalModel {
            round,
            dataset: dataset.into(),
            digest: digest.to_hex().to_string(),
            accepted: harvest.accepted.keys().map(name).collect(),
            rejected: harvest.rejected.iter().map(name).collect(),
            late: harvest.late.iter().map(name).collect(),
            test_loss: judgement.map(|judged| judged.loss),
            test_accuracy: judgement.map(|judged| judged.accuracy),
            aggregate_wall_ms: aggregate.as_secs_f64() * 1000.0,
            restored,
        }));
        Ok(Some((round, body)))
    }

    /// Sends the global model to every BS; where nothing is trained, random bytes of its size. The message comes back, for BSs that are
    /// started later.
    fn open(&mut self, round: u64, global: Option<&Bytes>) -> Result<Bytes, AgentError> {
        let origin = &self.node.me().name;
        let body = global.cloned().unwrap_or_else(|| {
            let bytes = self.node.plan.topology().cost.model_size.get() as usize;
            model::body(self.node.seed(), round, origin, bytes).into()
        });
        self.gate.fix_size(body.len());
        let message = model::message(self.node.signing_key(), round, origin, self.node.clock.now_ns(), &body)
            .map_err(|error| AgentError::Instructions(error.to_string()))?;
        for name in &self.names {
            self.courier.send(node_name(name)?, origin, message.clone());
        }
        Ok(message)
    }

    /// Waits for the BSs' models until all that can come are here, and settled on the chain where it verifies, or the deadline has
    /// passed.
    async fn close(&mut self, round: u64, began_ns: u64) -> Harvest {
        let deadline = self.node.plan.topology().learning.deadline;
        let end = Instant::now() + self.node.clock.wall(deadline.seconds());
        let stations = self.names.len();
        let counts = self.node.association.now().association.counts(stations);
        self.muster.open(counts.iter().map(|twins| *twins > 0));
        let mut here: BTreeMap<usize, Delivered> = BTreeMap::new();
        let mut presence = tokio::time::interval(PRESENCE);
        presence.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let clock = self.node.clock;
        while !self.muster.is_over(|bs| self.stand(bs, round, here.get(&bs)), clock.now_ns()) {
            tokio::select! {
                letter = tokio::time::timeout_at(end, self.letters.next()) => match letter {
                    Ok(letter) => self.take(round, letter, &mut here),
                    Err(_) => break,
                },
                () = training::chain_went_on(&mut self.news) => {}
                _ = presence.tick() => {
                    let stats = self.bus.stats();
                    self.muster.look(self.names.iter().map(|name| stats.is_connected(name)), clock.now_ns());
                }
            }
        }
        let duration_ms = clock.now_ns().saturating_sub(began_ns) as f64 / 1e6;
        let stands: Vec<Stand> = (0..stations).map(|bs| self.stand(bs, round, here.get(&bs))).collect();
        let of = |stand: Stand| (0..stations).filter(|bs| stands[*bs] == stand).collect::<Vec<usize>>();
        let open = (0..stations).filter(|bs| matches!(stands[*bs], Stand::Missing | Stand::Pending));
        let late = open.filter(|bs| !self.muster.is_excused(*bs)).collect();
        let unattested =
            here.keys().filter(|bs| matches!(stands[**bs], Stand::Missing | Stand::Pending)).count();
        here.retain(|bs, _| stands[*bs] == Stand::Good);
        let body = |bs: usize, here: &Delivered| Some(self.counted(bs, round, here)?.body.clone());
        let accepted = here.iter().filter_map(|(bs, here)| Some((*bs, body(*bs, here)?))).collect();
        Harvest { accepted, rejected: of(Stand::Bad), late, unattested, duration_ms }
    }

    /// How it stands with a BS's model of a round. Where the chain does not verify, a model that is here is good.
    fn stand(&self, bs: usize, round: u64, here: Option<&Delivered>) -> Stand {
        let Some(chain) = self.verifying() else {
            return if here.is_some() { Stand::Good } else { Stand::Missing };
        };
        let state = chain.state();
        let Some(record) = state.accounts.get(bs).and_then(|account| account.model(round)) else {
            return Stand::Missing;
        };
        match (record.status, here) {
            (ModelStatus::Failed, _) => Stand::Bad,
            (_, None) => Stand::Missing,
            (ModelStatus::Pending, Some(_)) => Stand::Pending,
            // What is here must be what was attested.
            (ModelStatus::Passed | ModelStatus::Awarded, Some(here)) => {
                if here.find(&record.body.digest.0).is_some() { Stand::Good } else { Stand::Bad }
            }
        }
    }

    /// The chain, where it says which models count.
    fn verifying(&self) -> Option<&ChainHandle> {
        let learning = &self.node.plan.topology().learning;
        self.chain.as_ref().filter(|_| learning.trains() && learning.verify)
    }

    /// Of what a BS has delivered, what is on record, or the newest where the chain does not verify.
    fn counted<'h>(&self, bs: usize, round: u64, here: &'h Delivered) -> Option<&'h Here> {
        let Some(chain) = self.verifying() else { return here.0.last() };
        let digest = chain.state().accounts.get(bs)?.model(round)?.body.digest.0;
        here.find(&digest)
    }

    /// What came: a model of this round, which is kept, or something that a BS asks or tells.
    fn take(&mut self, round: u64, letter: Letter, here: &mut BTreeMap<usize, Delivered>) {
        let Letter { bs, header, body, incoming } = letter;
        let from = incoming.from.as_str();
        match header {
            Header::Model(header) => {
                if let Err(refusal) = self.gate.check(from, &header, &body) {
                    tracing::warn!(from, origin = header.origin, %refusal, "refused a model");
                    return;
                }
                self.report(&header, body.len(), incoming.received_at_ns);
                // A model of an earlier round came too late for it, and is no use for this one.
                if header.round == round {
                    let (message, digest) = (incoming.body, header.digest);
                    here.entry(bs).or_default().add(Here { message, body, digest });
                }
            }
            Header::Join => {
                // One at most waits for each BS: a newer one takes its place.
                if let Some(chair) = &self.chair {
                    chair.tell(&self.bus, &incoming.from);
                }
                self.muster.trains(bs, true);
                self.courier.send(incoming.from, &self.node.me().name, self.opening.clone());
            }
            Header::Trains { round: of, anything } if of == round => self.muster.trains(bs, anything),
            Header::WantModel { digest } => {
                let found = here.iter().find_map(|(owner, here)| Some((*owner, here.find(&digest)?)));
                if let Some((owner, model)) = found {
                    self.courier.send(incoming.from, &self.names[owner], model.message.clone());
                }
            }
            // Letters of other kinds are not held.
            _ => {}
        }
    }

    fn report(&self, header: &ModelHeader, bytes: usize, received_at_ns: u64) {
        let plan = &self.node.plan;
        let Some(station) = plan.station(&header.origin) else { return };
        let predicted_ms =
            self.predictor.transfer_ms(plan, station.id, plan.mbs_station(), bytes, header.sent_at_ns);
        self.node.reporter.event(What::Transfer(Transfer {
            kind: "model-up".into(),
            from: header.origin.clone(),
            to: self.node.me().name.clone(),
            bytes: bytes as u64,
            measured_ms: received_at_ns.saturating_sub(header.sent_at_ns) as f64 / 1e6,
            predicted_ms,
        }));
    }
}

#[cfg(test)]
mod tests {
    use dtwn_proto::{
        bus::{Class, NodeName},
        node::ChainHeader,
    };

    use super::*;
    use crate::bus::Incoming;

    #[test]
    fn what_is_told_of_a_round_is_what_its_global_model_is_made_of() {
        let harvest = || Harvest {
            accepted: [0, 1, 3].map(|bs| (bs, Bytes::new())).into(),
            rejected: vec![2],
            ..Harvest::default()
        };
        let accepted = |harvest: &Harvest| harvest.accepted.keys().copied().collect::<Vec<usize>>();
        // BS 2 has no twins any more.
        let weights = [10.0, 0.0, 10.0, 5.0];
        let mut enough = harvest();
        assert_eq!(enough.weigh(&weights, 2), Ok(()));
        assert_eq!(accepted(&enough), [0, 3]);
        enough.refuse(0);
        assert_eq!(enough.require(1), Ok(()));
        assert_eq!((accepted(&enough), &enough.rejected), (vec![3], &vec![0, 2]));
        assert_eq!(enough.require(2), Err(1));
        assert!(enough.accepted.is_empty());
        let mut too_few = harvest();
        assert_eq!(too_few.weigh(&weights, 3), Err(2));
        assert_eq!((accepted(&too_few), too_few.rejected), (vec![], vec![2]));
    }

    #[test]
    fn a_model_that_was_attested_is_not_lost_to_one_that_came_later() {
        let model = |text: &'static str| Here {
            message: Bytes::from(text),
            body: Bytes::from(text),
            digest: *blake3::hash(text.as_bytes()).as_bytes(),
        };
        let mut delivered = Delivered::default();
        ["first", "second", "first", "third"].into_iter().for_each(|text| delivered.add(model(text)));
        let is_here = |text| delivered.find(&model(text).digest).is_some();
        assert_eq!(["first", "second", "third"].map(is_here), [true, false, true]);
        assert_eq!(delivered.0.len(), 2);
    }

    #[tokio::test]
    async fn letters_that_nobody_takes_do_not_hold_up_what_comes_for_the_chain() {
        let incoming = |from: &str, header: &Header| Incoming {
            from: NodeName::new(from).unwrap(),
            class: Class::Control,
            body: node::encode(header, &[]).unwrap(),
            sent_at_ns: 0,
            received_at_ns: 0,
        };
        let names = ["bs1".to_owned(), "bs2".to_owned()];
        let questions = (0..100).map(|digest| Header::WantModel { digest: [digest; 32] });
        let rounds = (0..100).map(|round| Header::Trains { round, anything: false });
        let mut messages: Vec<Incoming> =
            questions.chain(rounds).map(|header| incoming("bs1", &header)).collect();
        messages.push(incoming("bs2", &Header::Join));
        messages.push(incoming("ug1", &Header::Join));
        messages.push(incoming("bs2", &Header::Chain(ChainHeader { spread: None })));
        let letters = Arc::new(Letters::new(2));
        // It ends once it has come to the end.
        let sorted = sort(Receiver::of(messages), None, &names, Some(Arc::clone(&letters)));
        tokio::time::timeout(Duration::from_secs(60), sorted).await.unwrap().unwrap();

        let mut held = Vec::new();
        for _ in 0..4 {
            let letter = letters.next().await;
            held.push((letter.bs, letter.header));
        }
        let [one, other] = [98, 99].map(|digest| Header::WantModel { digest: [digest; 32] });
        let told = Header::Trains { round: 99, anything: false };
        assert_eq!(held, [(0, one), (0, other), (0, told), (1, Header::Join)]);
        assert!(tokio::time::timeout(Duration::ZERO, letters.next()).await.is_err());
    }
}
