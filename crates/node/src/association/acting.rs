//! A BS's part: records its state, acts on everybody's, and checks what is announced.

use std::time::Instant as Wall;

use dtwn_chain::tx::Payload;
use dtwn_model::{
    association::{Policy, Record, StateRecord, policy_of, seed_of_round},
    ids::BsId,
    topology::PolicyName,
    units::Hertz,
};
use dtwn_proto::{
    event::{Level, What},
    node::{Announced, AssociationHeader, Decide},
};
use tokio::time::Instant;

use super::{
    InForce, agrees,
    ground::{Ground, slot_at},
    in_force_of,
};
use crate::agent::{AgentError, Node};

/// How long a BS waits for the states of those that are there before it acts on older ones, emulated seconds.
const STATES_S: f64 = 3.0;

/// A call that is not answered yet.
struct Call {
    decide: Decide,
    until: Instant,
}

pub(crate) struct Acting {
    ground: Ground,
    bs: BsId,
    policy: Box<dyn Policy>,
    call: Option<Call>,
    announced: Option<(AssociationHeader, Announced)>,
    /// The last round whose association was taken over, or refused.
    settled: u64,
}

impl Acting {
    /// `None` where no policy decides.
    ///
    /// # Errors
    /// When the policy does not fit: the session should not have started this.
    pub(crate) fn start(node: &Node, bs: BsId, ground: Option<Ground>) -> Result<Option<Self>, AgentError> {
        let Some(ground) = ground else { return Ok(None) };
        let policy = policy_for(node, &ground, 0)?;
        Ok(Some(Self { ground, bs, policy, call: None, announced: None, settled: 0 }))
    }

    /// Waits for something to be done in [`turn`](Self::turn).
    pub(crate) async fn next(&mut self) {
        let until = self.call.as_ref().map(|call| call.until);
        tokio::select! {
            () = self.ground.went_on() => {}
            () = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }

    /// Whether a round may begin: its association is settled.
    pub(crate) fn is_settled(&self, round: u64) -> bool {
        self.settled >= round
    }

    /// f of this BS in a round.
    pub(crate) fn cpu(&mut self, round: u64) -> Option<Hertz> {
        self.ground.cpu_hz(round).get(self.bs.index()).map(|hz| Hertz::new(*hz))
    }

    /// Takes the call for a round: records our state.
    pub(crate) fn called(&mut self, node: &Node, decide: Decide) {
        if decide.round <= self.settled || decide.slot > slot_at(&node.plan, node.clock.now_ns()) + 1 {
            tracing::warn!(round = decide.round, slot = decide.slot, "refused a call that cannot be");
            return;
        }
        let problem = &self.ground.problem;
        let (i, c) = (self.bs.index(), problem.subchannels);
        let seen = problem.state_at(&node.plan, decide.slot);
        let record = StateRecord {
            slot: decide.slot,
            cpu_hz: self.cpu(decide.round).map_or(0.0, Hertz::get),
            downlink_bps: seen.downlink_bps[i],
            se: seen.se[i * c..][..c].iter().map(|x| *x as f32).collect(),
        };
        self.submit(decide.round, &Record::State(record));
        let until = Instant::now() + node.clock.wall(STATES_S);
        self.call = Some(Call { decide, until });
    }

    /// Takes an announcement; one of an older round than we know is left alone.
    pub(crate) fn heard(&mut self, header: AssociationHeader, announced: Announced) {
        let newest = self.announced.as_ref().map_or(self.settled, |(known, _)| known.round);
        if header.round > newest {
            self.announced = Some((header, announced));
        }
    }

    /// Does what can be done. An association that was taken over comes back, to be passed on to the users.
    ///
    /// # Errors
    /// When the policy fails.
    pub(crate) fn turn(&mut self, node: &Node) -> Result<Option<(AssociationHeader, Announced)>, AgentError> {
        self.act(node)?;
        self.settle(node)
    }

    /// Acts when the states of all that are there have been recorded for the round, or it is time.
    fn act(&mut self, node: &Node) -> Result<(), AgentError> {
        let Some(call) = &self.call else { return Ok(()) };
        let (round, ledger) = (call.decide.round, self.ground.records().latest());
        let recorded = |bs: &u16| ledger.rounds_of(usize::from(*bs)).0.is_some_and(|of| of >= round);
        let late = Instant::now() >= call.until;
        if !call.decide.present.iter().all(recorded) && !late {
            return Ok(());
        }
        let k = node.association.now().association.counts(self.ground.problem.stations);
        let Some(state) = ledger.state(&k) else {
            if !late {
                return Ok(());
            }
            self.call = None;
            notice(
                node,
                Level::Warning,
                format!("round {round}: no action, as a BS has never told its state"),
            );
            return Ok(());
        };
        self.call = None;
        let observed_slot = ledger.observed_slot().unwrap_or_default();
        if node.plan.topology().association.policy == PolicyName::Random {
            self.policy = policy_for(node, &self.ground, round)?;
        }
        let began = Wall::now();
        let decision = self.policy.decide(&self.ground.problem, &state);
        let decision_us = began.elapsed().as_secs_f64() * 1e6;
        let decision = decision.map_err(|error| AgentError::Instructions(error.to_string()))?;
        let own = decision.action_of(&self.ground.problem, self.bs.index());
        self.submit(round, &Record::Action(own));
        node.reporter.event(What::Decided { round, decision_us, observed_slot });
        Ok(())
    }

    /// Takes over what was announced, once our chain has the records that it rests on.
    fn settle(&mut self, node: &Node) -> Result<Option<(AssociationHeader, Announced)>, AgentError> {
        let Some((header, _)) = &self.announced else { return Ok(None) };
        if self.ground.records().height() < header.height {
            return Ok(None);
        }
        let Some((header, announced)) = self.announced.take() else { return Ok(None) };
        self.settled = header.round;
        self.call = None;
        let Some(next) = in_force_of(&node.plan, &header, &announced) else {
            notice(
                node,
                Level::Error,
                format!("round {}: refused an association that cannot be", header.round),
            );
            return Ok(None);
        };
        if !self.is_what_was_recorded(node, &header, &next)? {
            let text = format!("round {}: refused an association that is not the recorded one", header.round);
            notice(node, Level::Error, text);
            return Ok(None);
        }
        node.association.put(next);
        Ok(Some((header, announced)))
    }

    /// Whether the records say the same; where some are missing here, the MBS is taken at its word.
    fn is_what_was_recorded(
        &mut self,
        node: &Node,
        header: &AssociationHeader,
        next: &InForce,
    ) -> Result<bool, AgentError> {
        if !self.ground.is_whole() {
            return Ok(true);
        }
        match self.ground.records().block(header.height) {
            Some(block) if block != header.block => return Ok(false),
            _ => {}
        }
        let own = self.ground.settle(&node.plan, header.round, header.height)?;
        Ok(own.is_none_or(|own| agrees(&own.in_force, next)))
    }

    fn submit(&self, round: u64, record: &Record) {
        let payload = Payload::Action { round, content: record.encode() };
        if let Err(error) = self.ground.chain.submit(payload) {
            tracing::error!(%error, "neither state nor action was put on record");
        }
    }
}

fn policy_for(node: &Node, ground: &Ground, round: u64) -> Result<Box<dyn Policy>, AgentError> {
    let name = node.plan.topology().association.policy;
    let seed = seed_of_round(node.seed(), round);
    let policy = policy_of(name, node.policy_file(), seed, &ground.problem);
    policy.map_err(|error| AgentError::Instructions(error.to_string()))
}

fn notice(node: &Node, level: Level, text: String) {
    node.reporter.event(What::Notice { level, text });
}
