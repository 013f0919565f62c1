//! A group of users: follows their state and sends it to the BSs that hold their twins.

use std::sync::Arc;

use dtwn_model::{
    ids::{BsId, UserId},
    plan::{UserPlan, address},
};
use dtwn_proto::node::{self, Announced, Header, TwinState};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::state::UserState;
use crate::{
    agent::{AgentError, Node, node_name},
    association::in_force_of,
    bus::{Bus, Key, Message},
};

/// Only a user's newest state is worth sending.
const STATE_KEY: Key = Key(1);

/// Runs a group for as long as it is polled.
///
/// # Errors
/// When a bus cannot be started.
pub async fn run(node: Node) -> Result<(), AgentError> {
    let mut users = Vec::new();
    for user in &node.me().users {
        let Some(bs) = node.plan.association.serving(user.id) else { continue };
        users.push((user.clone(), bs, connect(&node, user, bs).await?));
    }
    node.ready(users.iter().map(|(_, _, bus)| bus.clone()).collect());
    let mut tasks = JoinSet::new();
    for (user, bs, bus) in users {
        let (clock, seed) = (node.clock, node.seed());
        let period_s = node.plan.topology().twins.sync_period.seconds();
        let peer = node_name(&bs_name(&node, bs))?;
        tasks.spawn(async move {
            let mut state = UserState::new(seed, user.id.0, user.position);
            // Users do not march in step: each starts at a place of its own within the period.
            let phase = f64::from(user.id.0.wrapping_mul(2_654_435_769)) / f64::from(u32::MAX);
            let period = clock.wall(period_s);
            let mut ticks = interval_at(Instant::now() + period.mul_f64(phase), period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut sequence = 0;
            loop {
                ticks.tick().await;
                state.advance(period_s);
                sequence += 1;
                let header = Header::TwinState(snapshot(&state, user.id, sequence, clock.now_ns()));
                let sent = node::encode(&header, &[])
                    .map(|body| bus.send(&peer, Message::control(body).superseding(STATE_KEY)));
                if let Ok(Err(error)) = sent {
                    tracing::debug!(user = user.name, %error, "a state was not sent");
                }
            }
        });
    }
    // Tasks only end by a panic, which the session should see as the end of the process.
    match tasks.join_next().await {
        Some(Err(error)) => Err(AgentError::Instructions(format!("a user's task ended: {error}"))),
        _ => std::future::pending().await,
    }
}

/// A bus for one user: dialling the alias that its BS has for this user makes the kernel pick the user's own address, so that
/// its traffic takes its own access link.
async fn connect(node: &Node, user: &UserPlan, bs: BsId) -> Result<Bus, AgentError> {
    let name = bs_name(node, bs);
    let peer = node.peer(&name, &name, Some(address::alias(user.id, Some(bs))))?;
    let (bus, mut receiver) = node.bus(&user.name, false, vec![peer]).await?;
    let (plan, association) = (node.plan.clone(), Arc::clone(&node.association));
    tokio::spawn(async move {
        while let Some(incoming) = receiver.recv().await {
            let Ok((Header::Association(header), body)) = node::decode(&incoming.body) else { continue };
            // The BS has checked it against the chain, which users do not hold.
            match Announced::decode(&body).ok().and_then(|said| in_force_of(&plan, &header, &said)) {
                Some(next) => drop(association.put(next)),
                None => tracing::warn!(from = incoming.from.as_str(), "refused an association"),
            }
        }
    });
    Ok(bus)
}

fn bs_name(node: &Node, bs: BsId) -> String {
    node.plan.stations[node.plan.bs_station(bs).index()].name.clone()
}

fn snapshot(state: &UserState, user: UserId, sequence: u64, taken_at_ns: u64) -> TwinState {
    TwinState {
        user: user.0,
        sequence,
        taken_at_ns,
        position_m: [state.position_m[0] as f32, state.position_m[1] as f32],
        battery: state.battery as f32,
        load: state.load as f32,
    }
}
