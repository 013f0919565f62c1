//! The MBS's part: calls for a round's decision, and announces what the finalized actions come to.

use std::time::Duration;

use bytes::Bytes;
use dtwn_model::{
    association::{Optimal, Policy},
    units::Hertz,
};
use dtwn_proto::{
    bus::NodeName,
    event::{AssociationDecision, What},
    node::{self, Announced, AssociationHeader, Decide, Header},
};
use tokio::time::Instant;

use super::{
    announced_of,
    ground::{Ground, Settled, slot_at},
};
use crate::{
    agent::{AgentError, Node, node_name},
    bus::{Bus, Message},
};

/// How long the MBS waits for the actions of those that are there, emulated seconds; BSs wait for states less long.
const ACTIONS_S: f64 = 8.0;
/// How often it looks who is there, wall time.
const PRESENCE: Duration = Duration::from_millis(250);
/// BSs times subchannels up to which the optimum is worked out beside each decision: milliseconds.
const OPTIMUM_MAX: usize = 64;

pub(crate) struct Chair {
    ground: Ground,
    /// Whether the BSs were waited for.
    assembled: bool,
    /// The last announcement, for BSs that come back.
    last: Bytes,
}

impl Chair {
    pub(crate) fn new(ground: Ground) -> Self {
        Self { ground, assembled: false, last: Bytes::new() }
    }

    /// f of each BS in a round.
    pub(crate) fn cpu(&mut self, round: u64) -> Vec<Hertz> {
        self.ground.cpu_hz(round).into_iter().map(Hertz::new).collect()
    }

    /// Tells a BS that has come back what is in force.
    pub(crate) fn tell(&self, bus: &Bus, bs: &NodeName) {
        if !self.last.is_empty()
            && let Err(error) = bus.send(bs, Message::control(self.last.clone()))
        {
            tracing::warn!(to = bs.as_str(), %error, "the association could not be told");
        }
    }

    /// Has a round decided, puts that in force, and tells everybody.
    ///
    /// # Errors
    /// When a message cannot be made, or twins cannot be dealt.
    pub(crate) async fn decide(
        &mut self,
        node: &Node,
        bus: &Bus,
        names: &[String],
        round: u64,
    ) -> Result<(), AgentError> {
        self.assemble(node, bus, names).await;
        let slot = slot_at(&node.plan, node.clock.now_ns());
        let present = present(bus, names);
        let call = Decide { round, slot, present: present.clone() };
        send(bus, names, &Header::Decide(call), &[])?;
        self.collect(node, bus, names, round, &present).await;
        let height = self.ground.records().height();
        let block = self.ground.records().block(height).unwrap_or_default();
        let observed_slot = self.ground.records().latest().observed_slot().unwrap_or(slot);
        let Some(settled) = self.ground.settle(&node.plan, round, height)? else { return Ok(()) };
        let announced = announced_of(&settled.in_force, node.plan.user_count());
        let header = AssociationHeader { round, height, block };
        let body = announced.encode().map_err(|error| AgentError::Instructions(error.to_string()))?;
        self.last = send(bus, names, &Header::Association(header), &body)?;
        let decision = self.describe(node, names, &settled, observed_slot, announced).await;
        node.association.put(settled.in_force);
        node.reporter.event(What::Association(Box::new(decision)));
        Ok(())
    }

    /// Waits, once, for the BSs to be there: a run begins before its nodes have found each other.
    async fn assemble(&mut self, node: &Node, bus: &Bus, names: &[String]) {
        let end = Instant::now() + node.clock.wall(ACTIONS_S);
        while !self.assembled && present(bus, names).len() < names.len() && Instant::now() < end {
            let look = (Instant::now() + PRESENCE).min(end);
            let _ = tokio::time::timeout_at(look, self.ground.went_on()).await;
        }
        self.assembled = true;
    }

    /// Waits until all that were called and are still there have acted, as finalized, or it is time.
    async fn collect(&mut self, node: &Node, bus: &Bus, names: &[String], round: u64, called: &[u16]) {
        let end = Instant::now() + node.clock.wall(ACTIONS_S);
        loop {
            let here = present(bus, names);
            let ledger = self.ground.records().latest();
            let acted = |bs: &u16| ledger.rounds_of(usize::from(*bs)).1.is_some_and(|of| of >= round);
            if called.iter().filter(|bs| here.contains(bs)).all(acted) || Instant::now() >= end {
                return;
            }
            let look = (Instant::now() + PRESENCE).min(end);
            let _ = tokio::time::timeout_at(look, self.ground.went_on()).await;
        }
    }

    /// The event: Eq. 17 for the state as it is now and the twins as dealt, beside the optimum for the same.
    async fn describe(
        &mut self,
        node: &Node,
        names: &[String],
        settled: &Settled,
        observed_slot: u64,
        announced: Announced,
    ) -> AssociationDecision {
        let (plan, decision, next) = (&node.plan, &settled.decision, &settled.in_force);
        let slot = slot_at(plan, node.clock.now_ns());
        let before = node.association.now();
        let k = before.association.counts(names.len());
        let state = self.ground.truth(plan, slot, next.round, &k);
        let terms = self.ground.problem.realise(&state, decision, &next.association).terms;
        let problem = self.ground.problem.clone();
        let own_s = problem.terms(&state, decision).total_s();
        // Beside the round, not before the messages that wait for this task.
        let ratio = match problem.stations * problem.subchannels <= OPTIMUM_MAX {
            true => tokio::task::spawn_blocking(move || {
                let best = Optimal.decide(&problem, &state).ok()?;
                Some(own_s / problem.terms(&state, &best).total_s())
            })
            .await
            .ok()
            .flatten(),
            false => None,
        };
        let moved = plan.users().filter(|user| before.serving(user.id) != next.serving(user.id)).count();
        AssociationDecision {
            round: next.round,
            policy: plan.topology().association.policy.as_str().into(),
            observed_slot,
            slot,
            k: decision.k.clone(),
            b: next.b.clone(),
            tau: decision.tau.clone(),
            predicted_ms: [terms.training_s, terms.broadcast_s, terms.block_s].map(|s| s * 1000.0),
            ratio_to_optimal: ratio.filter(|ratio| ratio.is_finite()),
            migrations: u32::try_from(moved).unwrap_or(u32::MAX),
            // The BSs tell.
            decision_us: 0.0,
            kept_by: settled.kept.iter().filter_map(|bs| names.get(*bs).cloned()).collect(),
            serving: announced.serving,
            height: next.height,
        }
    }
}

/// The BSs that are connected, by position.
fn present(bus: &Bus, names: &[String]) -> Vec<u16> {
    let stats = bus.stats();
    let positions = names.iter().enumerate().filter(|(_, name)| stats.is_connected(name));
    positions.map(|(bs, _)| u16::try_from(bs).unwrap_or(u16::MAX)).collect()
}

/// Sends a message to every BS, and returns it.
fn send(bus: &Bus, names: &[String], header: &Header, body: &[u8]) -> Result<Bytes, AgentError> {
    let message = node::encode(header, body).map_err(|error| AgentError::Instructions(error.to_string()))?;
    for name in names {
        if let Err(error) = bus.send(&node_name(name)?, Message::control(message.clone())) {
            tracing::warn!(to = name, %error, "the association could not be told");
        }
    }
    Ok(message)
}
