//! The macro base station: opens and closes rounds.

use std::collections::BTreeMap;

use bytes::Bytes;
use dtwn_chain::models::ModelStatus;
use dtwn_model::plan::Role;
use dtwn_proto::{
    event::{GlobalModel, Level, Round, Transfer, What},
    node::{self, Header, ModelHeader},
};
use tokio::{
    sync::{broadcast, mpsc},
    time::Instant,
};

use super::{model, prediction::Predictor, training};
use crate::{
    agent::{AgentError, Node, node_name},
    association::{chair::Chair, ground::Ground},
    bus::{Bus, Incoming, Receiver},
    chain::{self, ChainHandle, ChainNews},
    learning::{
        learner,
        work::{Done, Job, Worker},
    },
};

/// Messages for the rounds that wait for them; the bus holds back what comes beyond.
const LETTERS_MAX: usize = 16;

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
    let (letters, others) = mpsc::channel(LETTERS_MAX);
    let rounds = node.plan.topology().learning.enabled;
    tokio::select! {
        result = sort(receiver, chain.clone(), letters) => result,
        error = chain::failure(chain.as_ref()) => Err(AgentError::Chain(error)),
        result = async {
            if !rounds {
                // What comes is taken from the bus all the same, and dropped.
                let mut others = others;
                while others.recv().await.is_some() {}
                return std::future::pending().await;
            }
            let chair = Ground::start(&node, chain.as_ref())?.map(Chair::new);
            let learning = training::worker(&node)?;
            let news = chain.as_ref().map(ChainHandle::subscribe);
            Rounds {
                predictor: Predictor::new(std::sync::Arc::clone(&node.association)),
                node,
                bus,
                receiver: others,
                names,
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

/// Gives what comes for the chain to the chain, and all else to the rounds.
async fn sort(
    mut receiver: Receiver,
    chain: Option<ChainHandle>,
    letters: mpsc::Sender<Incoming>,
) -> Result<(), AgentError> {
    while let Some(incoming) = receiver.recv().await {
        match node::decode(&incoming.body) {
            Ok((Header::Chain(header), body)) => {
                chain::take(chain.as_ref(), incoming.from, header, body).await;
            }
            // The rounds find out what else it is.
            _ => {
                if letters.send(incoming).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

struct Rounds {
    node: Node,
    bus: Bus,
    receiver: mpsc::Receiver<Incoming>,
    names: Vec<String>,
    predictor: Predictor,
    /// What opened the round.
    opening: Bytes,
    /// The thread that aggregates and judges, where models are trained.
    learning: Option<(Worker, mpsc::Receiver<Done>)>,
    /// Our part in decisions, where a policy makes them.
    chair: Option<Chair>,
    chain: Option<ChainHandle>,
    news: Option<broadcast::Receiver<ChainNews>>,
}

/// What a round brought.
struct Harvest {
    /// Models that count, by their owner's position.
    accepted: BTreeMap<usize, Bytes>,
    /// Owners of models that were found bad.
    rejected: Vec<usize>,
    duration_ms: f64,
}

/// What the chain, where it verifies, says of the model of a BS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Open,
    Good,
    Bad,
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
            self.opening = self.open(round, global.as_ref())?;
            let harvest = self.close(round, began_ns).await;
            if global.is_some() {
                global = self.finish(round, &harvest).await?.map(|(_, body)| body);
            }
            let (completed_by, missed_by) = (0..self.names.len())
                .map(|bs| self.names[bs].clone())
                .partition(|name| harvest.accepted.keys().any(|bs| self.names[*bs] == *name));
            let duration_ms = harvest.duration_ms;
            self.node.reporter.event(What::Round(Round { round, completed_by, missed_by, duration_ms }));
        }
    }

    /// The global model that everything starts from, or that of the last checkpoint, with the round that made it; `None` where nothing
    /// is trained.
    async fn first(&mut self) -> Result<Option<(u64, Bytes)>, AgentError> {
        if self.learning.is_none() {
            return Ok(None);
        }
        let none = Harvest { accepted: BTreeMap::new(), rejected: Vec::new(), duration_ms: 0.0 };
        self.work(Job::Begin, &none).await
    }

    /// Puts the models that count together (Eq. 5); with too few, the global model stays.
    async fn finish(&mut self, round: u64, harvest: &Harvest) -> Result<Option<(u64, Bytes)>, AgentError> {
        let weights = learner::weights_under(&self.node.plan, &self.node.association.now());
        let models = harvest.accepted.iter().map(|(bs, body)| (*bs, body.clone(), weights[*bs]));
        let mut models: Vec<_> = models.collect();
        let least = self.node.plan.topology().learning.min_bs as usize;
        if models.len() < least {
            let text = format!(
                "round {round} brought {} good models, fewer than learning.min_bs = {least}: the global model stays",
                models.len()
            );
            self.node.reporter.event(What::Notice { level: Level::Warning, text });
            models.clear();
        }
        self.work(Job::Finish { round, models }, harvest).await
    }

    /// Has a job done that ends in a global model, and reports that.
    async fn work(&mut self, job: Job, harvest: &Harvest) -> Result<Option<(u64, Bytes)>, AgentError> {
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
            Some(other) => return Err(AgentError::Learning(format!("an answer to no question: {other:?}"))),
            None => return Err(AgentError::Learning("its thread has ended".into())),
        };
        let name = |bs: &usize| self.names[*bs].clone();
        let bad: Vec<usize> = refused.iter().map(|(bs, _)| *bs).chain(harvest.rejected.clone()).collect();
        for (bs, why) in &refused {
            tracing::warn!(bs = self.names[*bs], why, "refused a model");
        }
        let settled = |bs: &usize| harvest.accepted.contains_key(bs) || bad.contains(bs);
        // Who was in a round that is gone on from was reported when it ended.
        let late = (0..self.names.len()).filter(|bs| round > 0 && !restored && !settled(bs));
        let dataset =
            if self.node.plan.topology().learning.data.is_some() { "cifar-10" } else { "synthetic" };
        self.node.reporter.event(What::GlobalModel(GlobalModel {
            round,
            dataset: dataset.into(),
            digest: digest.to_hex().to_string(),
            accepted: harvest.accepted.keys().filter(|bs| !bad.contains(bs)).map(name).collect(),
            rejected: bad.iter().map(name).collect(),
            late: late.map(|bs| self.names[bs].clone()).collect(),
            test_loss: judgement.map(|judged| judged.loss),
            test_accuracy: judgement.map(|judged| judged.accuracy),
            aggregate_wall_ms: aggregate.as_secs_f64() * 1000.0,
            restored,
        }));
        Ok(Some((round, body)))
    }

    /// Sends the global model to every BS; where nothing is trained, random bytes of its size. The message comes back, for BSs that are
    /// started later.
    fn open(&self, round: u64, global: Option<&Bytes>) -> Result<Bytes, AgentError> {
        let origin = &self.node.me().name;
        let body = global.cloned().unwrap_or_else(|| {
            let bytes = self.node.plan.topology().cost.model_size.get() as usize;
            model::body(self.node.seed(), round, origin, bytes).into()
        });
        let message = model::message(round, origin, self.node.clock.now_ns(), &body)
            .map_err(|error| AgentError::Instructions(error.to_string()))?;
        for name in &self.names {
            model::send(&self.bus, node_name(name)?, origin, message.clone());
        }
        Ok(message)
    }

    /// Waits for the BSs' models until all are here, and settled on the chain where it verifies, or the deadline has passed.
    async fn close(&mut self, round: u64, began_ns: u64) -> Harvest {
        let deadline = self.node.plan.topology().learning.deadline;
        let end = Instant::now() + self.node.clock.wall(deadline.seconds());
        let mut here: BTreeMap<usize, (Bytes, [u8; 32])> = BTreeMap::new();
        let stations = self.names.len();
        loop {
            let settled = |bs: usize| match (self.finding(bs, round, here.get(&bs)), here.contains_key(&bs)) {
                (Finding::Open, _) | (Finding::Good, false) => false,
                (Finding::Good, true) | (Finding::Bad, _) => true,
            };
            if (0..stations).all(settled) {
                break;
            }
            tokio::select! {
                incoming = tokio::time::timeout_at(end, self.receiver.recv()) => match incoming {
                    Ok(Some(incoming)) => {
                        if let Some((bs, body, digest)) = self.take(round, &incoming) {
                            here.insert(bs, (body, digest));
                        }
                    }
                    _ => break,
                },
                () = training::chain_went_on(&mut self.news) => {}
            }
        }
        let duration_ms = self.node.clock.now_ns().saturating_sub(began_ns) as f64 / 1e6;
        let found: Vec<Finding> = (0..stations).map(|bs| self.finding(bs, round, here.get(&bs))).collect();
        let rejected = (0..stations).filter(|bs| found[*bs] == Finding::Bad).collect();
        let accepted = here.into_iter().filter(|(bs, _)| found[*bs] == Finding::Good);
        let accepted = accepted.map(|(bs, (body, _))| (bs, body)).collect();
        Harvest { accepted, rejected, duration_ms }
    }

    /// What is known of a BS's model of a round. Where the chain does not verify, a model that is here is good.
    fn finding(&self, bs: usize, round: u64, here: Option<&(Bytes, [u8; 32])>) -> Finding {
        let learning = &self.node.plan.topology().learning;
        let Some(chain) = self.chain.as_ref().filter(|_| learning.trains() && learning.verify) else {
            return if here.is_some() { Finding::Good } else { Finding::Open };
        };
        let state = chain.state();
        let Some(record) = state.accounts.get(bs).and_then(|account| account.model(round)) else {
            return Finding::Open;
        };
        match record.status {
            ModelStatus::Pending => Finding::Open,
            ModelStatus::Failed => Finding::Bad,
            // What is here must be what was attested.
            ModelStatus::Passed | ModelStatus::Awarded => match here {
                Some((_, digest)) if *digest != record.body.digest.0 => Finding::Bad,
                _ => Finding::Good,
            },
        }
    }

    /// The model of a BS in what came, where it is one of this round.
    fn take(&self, round: u64, incoming: &Incoming) -> Option<(usize, Bytes, [u8; 32])> {
        let from = incoming.from.as_str();
        match node::decode(&incoming.body) {
            Ok((Header::Model(header), body)) if header.origin == from => {
                match model::check(&header, &body) {
                    Ok(()) => {
                        self.report(&header, body.len(), incoming.received_at_ns);
                        // A model of an earlier round came too late for it, and is no use for this one.
                        let bs = self.names.iter().position(|name| name == from)?;
                        (header.round == round).then_some((bs, body, header.digest))
                    }
                    Err(error) => {
                        tracing::warn!(from, %error, "refused a model");
                        None
                    }
                }
            }
            Ok((Header::Join, _)) if self.names.iter().any(|name| name == from) => {
                // One at most waits for each BS: a newer one takes its place.
                if let Some(chair) = &self.chair {
                    chair.tell(&self.bus, &incoming.from);
                }
                model::send(&self.bus, incoming.from.clone(), &self.node.me().name, self.opening.clone());
                None
            }
            Ok(_) => {
                tracing::warn!(from, "refused a message that is not for the MBS");
                None
            }
            Err(error) => {
                tracing::warn!(from, %error, "refused a message");
                None
            }
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
