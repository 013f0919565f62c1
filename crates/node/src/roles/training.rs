//! What a BS does with models when it learns: trains when a round opens, at the pace of its processor, and checks the models of
//! others that the chain has recorded.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use dtwn_chain::{
    tx::{BodyRef, Payload, Verdict},
    types::{Digest, ReplicaId},
};
use dtwn_model::{
    cost,
    ids::BsId,
    topology::{Compute, Poison},
    units::Hertz,
};
use dtwn_proto::event::{Level, LocalModel, Verification, What};
use tokio::{
    sync::{broadcast, mpsc},
    time::Instant,
};

use super::twins::Twins;
use crate::{
    agent::{AgentError, Node},
    chain::{ChainHandle, ChainNews},
    learning::work::{Done, Job, Worker},
};

/// What a BS that learns has to do next.
#[derive(Debug)]
pub(super) enum Turn {
    /// A job is done; `None`: the thread has ended.
    Done(Option<Done>),
    /// The chain went on.
    Chain,
    /// As much time has passed as the BS's processor would have taken.
    Paced,
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
    results: mpsc::Receiver<Done>,
    news: Option<broadcast::Receiver<ChainNews>>,
    chain: Option<ChainHandle>,
    names: Vec<String>,
    /// Models of others by their digest: round and body.
    bodies: HashMap<[u8; 32], (u64, Bytes)>,
    /// Models that were handed to the thread to be checked.
    asked: HashSet<[u8; 32]>,
    began_ns: u64,
    /// f in this round.
    cpu: Option<Hertz>,
    waiting: Option<Waiting>,
    /// The model that we sent last, and its round.
    sent: Option<(u64, Bytes)>,
    /// A round for which there was nothing to train, with its global model.
    idle: Option<(u64, Bytes)>,
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
            bodies: HashMap::new(),
            asked: HashSet::new(),
            began_ns: 0,
            cpu: node.me().cpu,
            waiting: None,
            sent: None,
            idle: None,
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
            () = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            } => Turn::Paced,
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

    /// Trains in the round for which there was nothing to train before.
    pub(super) fn resume(&mut self, node: &Node) {
        if let Some((round, global)) = self.idle.take() {
            self.train(node, round, global);
        }
    }

    /// Opens a round: everything older is of no use any more.
    /// `cpu` is this round's f where that changes.
    pub(super) fn open(&mut self, node: &Node, bs: BsId, cpu: Option<Hertz>, round: u64, global: Bytes) {
        self.cpu = cpu.or(node.me().cpu);
        self.bodies.retain(|_, (of, _)| *of >= round);
        let bodies = &self.bodies;
        self.asked.retain(|digest| bodies.contains_key(digest));
        self.waiting = None;
        self.idle = None;
        self.bs = bs;
        self.train(node, round, global);
    }

    fn train(&mut self, node: &Node, round: u64, global: Bytes) {
        self.began_ns = node.clock.now_ns();
        let poison = *node.poison.borrow();
        if poison != self.poison && self.worker.ask(Job::Spoil(poison)) {
            self.poison = poison;
        }
        let fraction = Some(node.association.now().fraction(self.bs));
        if !self.worker.ask(Job::Train { round, global, fraction }) {
            notice(node, Level::Error, format!("round {round} is left out: learning is behind"));
        }
    }

    /// Our model of a round, where we have sent it already.
    pub(super) fn sent(&self, round: u64) -> Option<&Bytes> {
        self.sent.as_ref().filter(|(of, _)| *of == round).map(|(_, body)| body)
    }

    /// Keeps another BS's model, to be checked once the chain has its record.
    pub(super) fn keep(&mut self, node: &Node, round: u64, digest: [u8; 32], body: Bytes) {
        // One model a BS and round is relayed at most, so this is bounded.
        self.bodies.insert(digest, (round, body));
        self.check(node);
    }

    /// Does what is next; a model that is to be sent comes back with its round.
    ///
    /// # Errors
    /// When the thread has ended.
    pub(super) fn turn(
        &mut self,
        node: &Node,
        twins: &mut Twins,
        round: u64,
        turn: Turn,
    ) -> Result<Option<(u64, Bytes)>, AgentError> {
        match turn {
            Turn::Done(None) => return Err(AgentError::Learning(std::mem::take(&mut self.failure))),
            Turn::Done(Some(done)) => self.take(node, twins, round, done),
            Turn::Chain => self.check(node),
            Turn::Paced => {
                let Some(waiting) = self.waiting.take() else { return Ok(None) };
                let round = waiting.report.round;
                node.reporter.event(What::LocalModel(waiting.report));
                self.record(round, &waiting.body);
                self.sent = Some((round, waiting.body.clone()));
                return Ok(Some((round, waiting.body)));
            }
        }
        Ok(None)
    }

    fn take(&mut self, node: &Node, twins: &mut Twins, current: u64, done: Done) {
        match done {
            Done::Held(held) => twins.hold(&held),
            Done::Behaviour { round, models } => twins.behave(round, &models),
            Done::Idle { round, global } => {
                if round == current {
                    self.idle = Some((round, global));
                }
            }
            Done::Trained { round, body, twins: trained, samples, loss, judgement, train, aggregate } => {
                if round < current {
                    return;
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
                    held_out_loss: judgement.map(|judged| judged.loss),
                    held_out_accuracy: judgement.map(|judged| judged.accuracy),
                    bytes: body.len() as u64,
                    train_wall_ms: millis(train),
                    aggregate_wall_ms: millis(aggregate),
                    train_ms: spent_ms + wait_ms,
                    predicted_ms,
                    overrun_ms: if paced { (spent_ms - predicted_ms).max(0.0) } else { 0.0 },
                };
                let until = Instant::now() + node.clock.wall(wait_ms / 1000.0);
                self.waiting = Some(Waiting { until, body, report });
            }
            Done::Verified { round, owner, digest, fault, judgement, took } => {
                let verdict = if fault.is_none() { Verdict::Passed } else { Verdict::Failed };
                node.reporter.event(What::Verification(Verification {
                    round,
                    owner: self.names.get(owner).cloned().unwrap_or_default(),
                    fault,
                    loss: judgement.map(|judged| judged.loss),
                    verify_wall_ms: millis(took),
                }));
                let owner = ReplicaId(u16::try_from(owner).unwrap_or(u16::MAX));
                let payload = Payload::Attestation { owner, round, digest: Digest(digest), verdict };
                self.submit(payload);
            }
            Done::Failed(why) => {
                notice(node, Level::Error, format!("learning: {why}"));
                self.failure = why;
            }
            // Only the MBS asks for global models.
            Done::Global { .. } => {}
        }
    }

    /// Puts the model that we send on record.
    fn record(&self, round: u64, body: &Bytes) {
        let body = BodyRef { digest: Digest::of_body(body), size_bytes: body.len() as u64 };
        self.submit(Payload::TrainingModel { round, body });
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
        for (owner, account) in state.accounts.iter().enumerate() {
            for record in account.models.iter().filter(|record| record.verifiers.contains(&me)) {
                let digest = record.body.digest.0;
                let known = record.passed.contains(&me) || record.failed.contains(&me);
                let Some((round, body)) = self.bodies.get(&digest) else { continue };
                if known || *round != record.round || owner == me.index() || self.asked.contains(&digest) {
                    continue;
                }
                let job = Job::Verify { round: *round, owner, body: body.clone() };
                if self.worker.ask(job) {
                    self.asked.insert(digest);
                }
            }
        }
    }
}

/// The thread of a node that learns; `None` for one that does not.
///
/// # Errors
/// When this program cannot train, or no thread can be started.
pub(super) fn worker(node: &Node) -> Result<Option<(Worker, mpsc::Receiver<Done>)>, AgentError> {
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

fn millis(wall: Duration) -> f64 {
    wall.as_secs_f64() * 1000.0
}
