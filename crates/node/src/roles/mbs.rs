//! The macro base station: opens and closes rounds.

use std::collections::BTreeSet;

use dtwn_model::plan::Role;
use dtwn_proto::{
    event::{Round, Transfer, What},
    node::{self, Header, ModelHeader},
};
use tokio::{sync::mpsc, time::Instant};

use super::{model, prediction::Predictor};
use crate::{
    agent::{AgentError, Node, node_name},
    bus::{Bus, Incoming, Receiver},
    chain::{self, ChainHandle},
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
            Rounds { predictor: Predictor::new(&node.plan), node, bus, receiver: others, names }.run().await
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
}

impl Rounds {
    async fn run(mut self) -> Result<(), AgentError> {
        let mut round = 0;
        loop {
            round += 1;
            self.open(round)?;
            self.close(round).await;
        }
    }

    /// Sends the global model to every BS.
    fn open(&self, round: u64) -> Result<(), AgentError> {
        let bytes = self.node.plan.topology().cost.model_size.get() as usize;
        let origin = &self.node.me().name;
        let body = model::body(self.node.seed(), round, origin, bytes);
        let message = model::message(round, origin, self.node.clock.now_ns(), &body)
            .map_err(|error| AgentError::Instructions(error.to_string()))?;
        for name in &self.names {
            model::send(&self.bus, node_name(name)?, origin, message.clone());
        }
        Ok(())
    }

    /// Waits for the BSs' models until all are here or the deadline has passed.
    async fn close(&mut self, round: u64) {
        let began_ns = self.node.clock.now_ns();
        let deadline = self.node.plan.topology().learning.deadline;
        let end = Instant::now() + self.node.clock.wall(deadline.seconds());
        let mut completed = BTreeSet::new();
        while completed.len() < self.names.len() {
            let Ok(Some(incoming)) = tokio::time::timeout_at(end, self.receiver.recv()).await else { break };
            let from = incoming.from.as_str().to_owned();
            match node::decode(&incoming.body) {
                Ok((Header::Model(header), body)) if header.origin == from => {
                    match model::check(&header, &body) {
                        Ok(()) => {
                            self.report(&header, body.len(), incoming.received_at_ns);
                            // A model of an earlier round came too late for it, and is no use for this one.
                            if header.round == round {
                                completed.insert(from);
                            }
                        }
                        Err(error) => tracing::warn!(from, %error, "refused a model"),
                    }
                }
                Ok(_) => tracing::warn!(from, "refused a message that is not for the MBS"),
                Err(error) => tracing::warn!(from, %error, "refused a message"),
            }
        }
        let missed_by = self.names.iter().filter(|name| !completed.contains(*name)).cloned().collect();
        self.node.reporter.event(What::Round(Round {
            round,
            completed_by: completed.into_iter().collect(),
            missed_by,
            duration_ms: self.node.clock.now_ns().saturating_sub(began_ns) as f64 / 1e6,
        }));
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
