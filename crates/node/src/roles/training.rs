//! What a BS does with models when it learns: trains when a round opens, at the pace of its processor, and checks the models of
//! others that the chain has recorded.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use dtwn_chain::{
    models::ModelStatus,
    tx::{BodyRef, Payload, Verdict},
    types::{Digest, ReplicaId},
};
use dtwn_model::{
    cost,
    ids::BsId,
    topology::{Compute, Poison},
    units::Hertz,
};
use dtwn_proto::{
    event::{Level, LocalModel, TrainingAbandoned, Verification, What},
    node::ModelHeader,
};
use tokio::{sync::broadcast, time::Instant};

use super::{
    held::{Held, Model},
    jobs::{Asked, Jobs},
    model,
    prediction::Predictor,
    twins::Twins,
    wanted::{ModelDigest, Wanted},
};
use crate::{
    agent::{AgentError, Node},
    chain::{ChainHandle, ChainNews},
    learning::{
        learner::Judgement,
        work::{Done, Job, Results, Worker},
    },
};

#[cfg(test)]
mod tests;

/// By how much a model may take longer than Eq. 15 says before it is asked for, in emulated seconds, and how many times as long.
const LATER_S: f64 = 2.0;
const LATER_TIMES: f64 = 3.0;

/// What a BS that learns has to do next.
#[derive(Debug)]
pub(super) enum Turn {
    /// A job is done; `None`: the thread has ended.
    Done(Option<Done>),
    /// The chain went on.
    Chain,
    /// As much time has passed as the BS's processor would have taken.
    Paced,
    /// It is time to ask for a model that has not come.
    Ask,
}

/// What others have to be told.
#[derive(Debug)]
pub(super) enum Word {
    /// Our model, as it travels.
    Model(Bytes),
    /// Whether a model of ours comes in a round.
    Trains { round: u64, anything: bool },
    /// Models that have not come, each with how often it was asked for before.
    Want(Vec<(ModelDigest, usize)>),
}

/// A model that waits for its time.
#[derive(Debug)]
struct Waiting {
    until: Instant,
    body: Bytes,
    report: LocalModel,
}

/// The learning of a BS.
pub(super) struct Training {
    worker: Worker,
    /// What the thread does to models now.
    poison: Option<Poison>,
    results: Results,
    news: Option<broadcast::Receiver<ChainNews>>,
    chain: Option<ChainHandle>,
    names: Vec<String>,
    /// The round that was opened last.
    opened: u64,
    held: Held,
    /// Models that were handed to the thread to be checked, by owner: two may have the same, one of them a copy.
    asked: HashSet<(usize, ModelDigest)>,
    jobs: Jobs,
    wanted: Wanted,
    predictor: Predictor,
    began_ns: u64,
    /// f in this round.
    cpu: Option<Hertz>,
    /// f in the round before.
    cpu_before: Option<Hertz>,
    waiting: Option<Waiting>,
    /// What is told of our model that has gone, once it has been judged.
    unreported: Option<LocalModel>,
    /// The judgement on our model of a round.
    judged: Option<(u64, Option<Judgement>)>,
    /// A round for which there was nothing to train, with its global model.
    idle: Option<(u64, Bytes)>,
    /// A round in which training failed.
    barren: Option<u64>,
    bs: BsId,
    failure: String,
}

impl Training {
    /// Starts the thread of a BS that learns; `None` for one that does not.
    ///
    /// # Errors
    /// When this program cannot train, or no thread can be started.
    pub(super) fn start(
        node: &Node,
        chain: Option<&ChainHandle>,
        names: &[String],
    ) -> Result<Option<Self>, AgentError> {
        let Some((worker, results)) = worker(node)? else { return Ok(None) };
        Ok(Some(Self {
            worker,
            poison: node.plan.topology().learning.poison.get(&node.me().name).copied(),
            results,
            news: chain.map(ChainHandle::subscribe),
            chain: chain.cloned(),
            names: names.to_vec(),
            opened: 0,
            held: Held::default(),
            asked: HashSet::new(),
            jobs: Jobs::default(),
            wanted: Wanted::default(),
            predictor: Predictor::new(std::sync::Arc::clone(&node.association)),
            began_ns: 0,
            cpu: node.me().cpu,
            cpu_before: None,
            waiting: None,
            unreported: None,
            judged: None,
            idle: None,
            barren: None,
            bs: BsId(0),
            failure: String::new(),
        }))
    }

    /// Waits for what is to be done next. Nothing is lost when it is dropped before.
    pub(super) async fn next(&mut self) -> Turn {
        let until = self.waiting.as_ref().map(|waiting| waiting.until);
        tokio::select! {
            done = self.results.recv() => Turn::Done(done),
            () = chain_went_on(&mut self.news) => Turn::Chain,
            () = at(until) => Turn::Paced,
            () = at(self.wanted.next()) => Turn::Ask,
        }
    }

    /// The thread that trains.
    pub(super) fn worker(&self) -> Worker {
        self.worker.clone()
    }

    /// Whether it waits for something to train in the current round.
    pub(super) fn is_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// Whether no model of ours is to come in the current round, as far as is known.
    pub(super) fn has_nothing(&self) -> bool {
        self.is_idle() || self.barren == Some(self.opened)
    }

    /// Trains in the round for which there was nothing to train before. `false`: nothing comes of it.
    pub(super) fn resume(&mut self, node: &Node) -> bool {
        self.idle.take().is_some_and(|(round, global)| self.train(node, round, global))
    }

    /// Opens a round: everything older is of no use any more.
    /// `cpu` is this round's f where that changes. `false`: no model comes of it.
    pub(super) fn open(
        &mut self,
        node: &Node,
        bs: BsId,
        cpu: Option<Hertz>,
        round: u64,
        global: Bytes,
    ) -> bool {
        self.cpu_before = std::mem::replace(&mut self.cpu, cpu.or(node.me().cpu));
        self.opened = round;
        self.worker.begin(round);
        self.held.open(round, global.len());
        let held = &self.held;
        self.asked.retain(|(_, digest)| held.get(digest).is_some());
        self.wanted = Wanted::default();
        self.waiting = None;
        self.idle = None;
        self.bs = bs;
        let trains = self.train(node, round, global);
        // Models may have come before what opened their round; they are judged beside what that begins from.
        self.check(node);
        trains
    }

    fn train(&mut self, node: &Node, round: u64, global: Bytes) -> bool {
        self.began_ns = node.clock.now_ns();
        let poison = *node.poison.borrow();
        if poison != self.poison && self.worker.ask(Job::Spoil(poison)) {
            self.poison = poison;
        }
        let fractions = Some(node.association.now().fractions(&node.plan));
        let is_asked = self.worker.ask(Job::Train { round, global, fractions });
        if is_asked {
            self.jobs.ask(Asked::Train(round));
        } else {
            notice(node, Level::Error, format!("round {round} is left out: learning is behind"));
            self.barren = Some(round);
        }
        is_asked
    }

    /// Our model of a round, where we have sent it already.
    pub(super) fn sent(&self, round: u64) -> Option<&Bytes> {
        self.held.own(round).map(|own| &own.body)
    }

    /// Keeps another BS's model, with the message that it came in, to be checked once the chain has its record.
    pub(super) fn keep(
        &mut self,
        node: &Node,
        owner: usize,
        header: &ModelHeader,
        message: &Bytes,
        body: &Bytes,
    ) {
        let (round, message, body) = (header.round, message.clone(), body.clone());
        self.held.keep(header.digest, Model { round, owner, message, body });
        self.wanted.forget(&header.digest);
        self.check(node);
    }

    /// Whether a BS's model is the one that the chain has on record, is not settled, and is not here.
    pub(super) fn is_missing(&self, owner: usize, header: &ModelHeader) -> bool {
        let Some(chain) = &self.chain else { return false };
        let state = chain.state();
        let record = state.accounts.get(owner).and_then(|account| account.model(header.round));
        record.is_some_and(|record| {
            record.status == ModelStatus::Pending && record.body.digest.0 == header.digest
        }) && self.held.get(&header.digest).is_none()
    }

    /// A model that another BS has asked for, where it is here: its owner's position, and the message that carries it.
    pub(super) fn find(&self, digest: &ModelDigest) -> Option<(usize, Bytes)> {
        self.held.find(digest)
    }

    /// Does what is next; what is to be told to others comes back.
    ///
    /// # Errors
    /// When the thread has ended.
    pub(super) fn turn(
        &mut self,
        node: &Node,
        twins: &mut Twins,
        round: u64,
        turn: Turn,
    ) -> Result<Option<Word>, AgentError> {
        match turn {
            Turn::Done(None) => return Err(AgentError::Learning(std::mem::take(&mut self.failure))),
            Turn::Done(Some(done)) => return Ok(self.take(node, twins, round, done)),
            Turn::Chain => self.check(node),
            Turn::Ask => {
                // What is settled meanwhile is not asked for.
                self.check(node);
                let due = self.wanted.due(Instant::now());
                return Ok((!due.is_empty()).then_some(Word::Want(due)));
            }
            Turn::Paced => {
                let Some(waiting) = self.waiting.take() else { return Ok(None) };
                let round = waiting.report.round;
                self.unreported = Some(waiting.report);
                self.report(node);
                let (key, now_ns) = (node.signing_key(), node.clock.now_ns());
                let message = model::message(key, round, &node.me().name, now_ns, &waiting.body)
                    .map_err(|error| AgentError::Instructions(error.to_string()))?;
                let digest = self.record(round, &waiting.body);
                // Of the two copies, the one in the message is held.
                let body = message.slice(message.len() - waiting.body.len()..);
                let own = Model { round, owner: self.bs.index(), message: message.clone(), body };
                self.held.keep_own(digest, own);
                return Ok(Some(Word::Model(message)));
            }
        }
        Ok(None)
    }

    fn take(&mut self, node: &Node, twins: &mut Twins, current: u64, done: Done) -> Option<Word> {
        match done {
            Done::Held(held) => twins.hold(&held),
            Done::Behaviour { round, judgement, models } => {
                self.jobs.answered(Asked::Judge(round));
                self.judged = Some((round, judgement));
                self.report(node);
                twins.behave(round, &models);
            }
            Done::Idle { round, global } => {
                self.jobs.answered(Asked::Train(round));
                if round == current {
                    self.idle = Some((round, global));
                    return Some(Word::Trains { round, anything: false });
                }
            }
            Done::Trained { round, body, twins: trained, samples, loss, train, aggregate } => {
                self.jobs.trained(round);
                if round < current {
                    self.abandoned(node, round, samples, train);
                    return None;
                }
                let spent_ns = node.clock.now_ns().saturating_sub(self.began_ns);
                let spent_ms = spent_ns as f64 / 1e6;
                let predicted_ms = 1000.0 * predicted_s(node, self.cpu, samples);
                let paced = node.plan.topology().learning.compute == Compute::Paced;
                let wait_ms = if paced { (predicted_ms - spent_ms).max(0.0) } else { 0.0 };
                let report = LocalModel {
                    round,
                    twins: u32::try_from(trained).unwrap_or(u32::MAX),
                    samples,
                    loss,
                    held_out_loss: None,
                    held_out_accuracy: None,
                    bytes: body.len() as u64,
                    train_wall_ms: millis(train),
                    aggregate_wall_ms: millis(aggregate),
                    train_ms: spent_ms + wait_ms,
                    predicted_ms,
                    aggregate_ms: emulated_ms(node, aggregate),
                    aggregate_predicted_ms: self.cpu.map_or(0.0, |cpu| {
                        let twins = u32::try_from(trained).unwrap_or(u32::MAX);
                        1000.0 * cost::aggregation_s(&node.plan.topology().cost, twins, cpu)
                    }),
                    overrun_ms: if paced { (spent_ms - predicted_ms).max(0.0) } else { 0.0 },
                };
                let until = Instant::now() + node.clock.wall(wait_ms / 1000.0);
                self.waiting = Some(Waiting { until, body, report });
                // Something else failed than was thought.
                if self.barren.take_if(|of| *of == round).is_some() {
                    return Some(Word::Trains { round, anything: true });
                }
            }
            Done::Verified { round, owner, digest, fault, judgement, took } => {
                self.jobs.answered(Asked::Verify(digest));
                let verdict = if fault.is_none() { Verdict::Passed } else { Verdict::Failed };
                node.reporter.event(What::Verification(Verification {
                    round,
                    owner: self.names.get(owner).cloned().unwrap_or_default(),
                    fault,
                    loss: judgement.map(|judged| judged.loss),
                    verify_wall_ms: millis(took),
                    verify_ms: emulated_ms(node, took),
                    predicted_ms: self.cpu.map_or(0.0, |cpu| {
                        let stations = self.names.len();
                        let block_s = cost::validation_s(&node.plan.topology().cost, stations, cpu);
                        1000.0 * block_s / stations.max(1) as f64
                    }),
                }));
                let owner = ReplicaId(u16::try_from(owner).unwrap_or(u16::MAX));
                let payload = Payload::Attestation { owner, round, digest: Digest(digest), verdict };
                self.submit(payload);
            }
            Done::Unverified { round, owner, digest } => {
                self.jobs.answered(Asked::Verify(digest));
                let owner = self.names.get(owner).map_or("?", String::as_str);
                let text = format!(
                    "round {round}: {owner}'s model is not attested here: the global model is missing"
                );
                notice(node, Level::Warning, text);
            }
            Done::Overtaken { round, model } => {
                self.jobs.answered(model.map_or(Asked::Train(round), Asked::Verify));
            }
            Done::Abandoned { round, samples, train } => {
                self.jobs.answered(Asked::Train(round));
                self.abandoned(node, round, samples, train);
            }
            Done::Failed(why) => {
                notice(node, Level::Error, format!("learning: {why}"));
                self.failure = why;
                if self.jobs.failed() == Some(Asked::Train(current)) {
                    self.barren = Some(current);
                    return Some(Word::Trains { round: current, anything: false });
                }
            }
            // Only the MBS asks for global models.
            Done::Global { .. } => {}
        }
        None
    }

    /// Tells by how much training that no round waits for any more was too slow.
    fn abandoned(&self, node: &Node, round: u64, samples: u64, train: Duration) {
        let paced = node.plan.topology().learning.compute == Compute::Paced;
        let train_ms = emulated_ms(node, train);
        let predicted_ms = 1000.0 * predicted_s(node, self.cpu_before, samples);
        let overrun_ms = if paced { (train_ms - predicted_ms).max(0.0) } else { 0.0 };
        let abandoned = TrainingAbandoned { round, samples, train_ms, predicted_ms, overrun_ms };
        node.reporter.event(What::TrainingAbandoned(abandoned));
    }

    /// Tells of our model once it has gone and has been judged, whichever is later.
    fn report(&mut self, node: &Node) {
        let Some((judged_round, judgement)) = self.judged else { return };
        let Some(mut report) = self.unreported.take_if(|report| report.round == judged_round) else { return };
        report.held_out_loss = judgement.map(|judged| judged.loss);
        report.held_out_accuracy = judgement.map(|judged| judged.accuracy);
        node.reporter.event(What::LocalModel(report));
    }

    /// Puts the model that we send on record; its digest.
    fn record(&self, round: u64, body: &Bytes) -> ModelDigest {
        let digest = Digest::of_body(body);
        let body = BodyRef { digest, size_bytes: body.len() as u64 };
        self.submit(Payload::TrainingModel { round, body });
        digest.0
    }

    fn submit(&self, payload: Payload) {
        if let Some(chain) = &self.chain
            && let Err(error) = chain.submit(payload)
        {
            tracing::error!(%error, "nothing was put on record");
        }
    }

    /// Has the models checked that are on record, are here, and are ours to check.
    fn check(&mut self, node: &Node) {
        let Some((chain, me)) = self.chain.as_ref().and_then(|chain| Some((chain, chain.id()?))) else {
            return;
        };
        if !node.plan.topology().learning.verify {
            return;
        }
        let state = chain.state();
        let mut missing = HashSet::new();
        for (owner, account) in state.accounts.iter().enumerate().filter(|(owner, _)| *owner != me.index()) {
            // A model of a round that is not opened here yet cannot be judged: what it began from has not come.
            let Some(record) = account.model(self.opened).filter(|record| record.verifiers.contains(&me))
            else {
                continue;
            };
            let digest = record.body.digest.0;
            if record.passed.contains(&me)
                || record.failed.contains(&me)
                || self.asked.contains(&(owner, digest))
            {
                continue;
            }
            match self.held.get(&digest) {
                Some(kept) if kept.round == record.round => {
                    let job = Job::Verify { round: record.round, owner, digest, body: kept.body.clone() };
                    if self.worker.ask(job) {
                        self.asked.insert((owner, digest));
                        self.jobs.ask(Asked::Verify(digest));
                    }
                }
                None if record.status == ModelStatus::Pending => {
                    let bs = BsId(u32::try_from(owner).unwrap_or(u32::MAX));
                    let spread_ms = self.predictor.broadcast_ms(&node.plan, bs, node.clock.now_ns());
                    let pause = node.clock.wall(LATER_S + LATER_TIMES * spread_ms / 1000.0);
                    self.wanted.want(digest, pause, Instant::now());
                    missing.insert(digest);
                }
                _ => {}
            }
        }
        self.wanted.keep_only(|digest| missing.contains(digest));
    }
}

/// Waits until then; for ever where there is no such time.
async fn at(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// The thread of a node that learns; `None` for one that does not.
///
/// # Errors
/// When this program cannot train, or no thread can be started.
pub(super) fn worker(node: &Node) -> Result<Option<(Worker, Results)>, AgentError> {
    if !node.plan.topology().learning.trains() {
        return Ok(None);
    }
    let make = node.learner.ok_or_else(|| AgentError::Learning("only dtwn-agent can train".into()))?;
    let started = Worker::start_in(&node.plan, node.me(), make, Some(node.state_dir()));
    started.map(Some).map_err(|error| AgentError::Learning(format!("no thread for it: {error}")))
}

/// Waits until the chain has gone on; for ever where there is none.
pub(super) async fn chain_went_on(news: &mut Option<broadcast::Receiver<ChainNews>>) {
    loop {
        let Some(open) = news else { return std::future::pending().await };
        match open.recv().await {
            // The state is read anew anyway, so lost news are none.
            Ok(ChainNews::Committed { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Ok(ChainNews::Rejected { payload, reason }) => {
                tracing::warn!(kind = payload.kind(), reason, "not recorded");
            }
            Ok(ChainNews::Body { .. }) => {}
            Err(broadcast::error::RecvError::Closed) => *news = None,
        }
    }
}

/// Eq. 12: how long a processor takes for so many samples, emulated.
fn predicted_s(node: &Node, cpu: Option<Hertz>, samples: u64) -> f64 {
    cpu.map_or(0.0, |cpu| cost::training_s(&node.plan.topology().cost, samples as f64, cpu))
}

fn notice(node: &Node, level: Level, text: String) {
    node.reporter.event(What::Notice { level, text });
}

fn emulated_ms(node: &Node, wall: Duration) -> f64 {
    millis(node.clock.emulated(wall))
}

fn millis(wall: Duration) -> f64 {
    wall.as_secs_f64() * 1000.0
}
