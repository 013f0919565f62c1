//! What BSs and MBS decide on: the problem, the processors of each round, and the finalized records.

use dtwn_model::{
    Plan,
    association::{Decision, Problem, Processors, State, deal},
    plan::Association,
    topology::PolicyName,
};
use tokio::sync::broadcast;

use super::{InForce, records::Records};
use crate::{
    agent::{AgentError, Node},
    chain::{ChainHandle, ChainNews},
};

/// A joint decision with what it comes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settled {
    pub(crate) decision: Decision,
    /// BSs that had no action for this round, by position.
    pub(crate) kept: Vec<usize>,
    pub(crate) in_force: InForce,
}

pub(crate) struct Ground {
    pub(crate) problem: Problem,
    pub(crate) chain: ChainHandle,
    processors: Processors,
    records: Records,
    /// Whether no block was missed.
    whole: bool,
    news: broadcast::Receiver<ChainNews>,
    dealt: Option<(Vec<u32>, Association)>,
}

impl Ground {
    /// `None` where no policy decides.
    ///
    /// # Errors
    /// When there is nothing to decide, or no chain to decide over: the session should not have started this.
    pub(crate) fn start(node: &Node, chain: Option<&ChainHandle>) -> Result<Option<Self>, AgentError> {
        if !is_deployed(&node.plan) {
            return Ok(None);
        }
        let wrong = |why: String| AgentError::Instructions(format!("association.policy: {why}"));
        let chain = chain.ok_or_else(|| wrong("there is no chain".into()))?;
        let problem = Problem::new(&node.plan).map_err(|error| wrong(error.to_string()))?;
        let news = chain.subscribe();
        let records =
            chain.past_records().unwrap_or_else(|| Records::new(problem.stations, problem.subchannels));
        Ok(Some(Self {
            processors: Processors::new(&problem, node.seed()),
            records,
            whole: true,
            chain: chain.clone(),
            news,
            dealt: None,
            problem,
        }))
    }

    /// Waits for the chain to go on, and takes what it says. Nothing is lost when it is dropped before.
    pub(crate) async fn went_on(&mut self) {
        loop {
            match self.news.recv().await {
                Ok(ChainNews::Committed { block, .. }) => {
                    if !self.records.take(block.header().height, &block) && self.whole {
                        tracing::warn!("missed blocks: associations are taken on the word of the MBS");
                        self.whole = false;
                    }
                    return;
                }
                Ok(ChainNews::Body { .. } | ChainNews::Rejected { .. })
                | Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The driver tells elsewhere why it has ended.
                Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// Whether the records are all there.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// f_i of each BS in a round, Hz.
    pub(crate) fn cpu_hz(&mut self, round: u64) -> Vec<f64> {
        self.processors.at(round)
    }

    /// The state of a slot and round as it is, with twins K in force.
    pub(crate) fn truth(&mut self, plan: &Plan, slot: u64, round: u64, k: &[u32]) -> State {
        let cpu_hz = self.cpu_hz(round);
        State { cpu_hz, k: k.to_vec(), ..self.problem.state_at(plan, slot) }
    }

    /// What the records up to a height come to for a round; `None` where that height is not known.
    ///
    /// # Errors
    /// When the twins cannot be dealt, which `dtwn up` has checked.
    pub(crate) fn settle(
        &mut self,
        plan: &Plan,
        round: u64,
        height: u64,
    ) -> Result<Option<Settled>, AgentError> {
        let Some(ledger) = self.records.at(height) else { return Ok(None) };
        let (decision, kept) = ledger.joint(&self.problem, round);
        let wrong = |why: &dyn std::fmt::Display| AgentError::Instructions(why.to_string());
        let association = match &self.dealt {
            Some((k, dealt)) if *k == decision.k => dealt.clone(),
            _ => deal(plan, &decision.k).map_err(|error| wrong(&error))?,
        };
        self.dealt = Some((decision.k.clone(), association.clone()));
        let tau = decision.time_shares().map_err(|error| wrong(&error))?;
        // b for the data as dealt does not depend on the state.
        let b = self.problem.realise(&self.problem.state_at(plan, 0), &decision, &association).b;
        let in_force = InForce { round, height, association, b, tau };
        Ok(Some(Settled { decision, kept, in_force }))
    }
}

/// Whether a policy decides in this network while it runs.
pub(crate) fn is_deployed(plan: &Plan) -> bool {
    let topology = plan.topology();
    topology.association.policy != PolicyName::Fixed
        && topology.learning.enabled
        && topology.chain.is_on(plan.bs_count())
}

/// The coherence slot at an emulated time.
pub(crate) fn slot_at(plan: &Plan, now_ns: u64) -> u64 {
    (now_ns as f64 / (plan.coherence_time().seconds() * 1e9).max(1.0)) as u64
}
