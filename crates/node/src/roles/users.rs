//! A group of users: follows their states and holds their samples, for the BSs that have their twins.
//!
//! Each user has a bus of its own, so that its traffic takes its own access link. It begins with the BS that the plan gives it, and goes
//! where that BS, and the next ones, say that its twin is: each move has a higher epoch, so that it never goes back to an older owner,
//! and one that is started again is handed on along the same way.

use std::sync::Arc;

use bytes::Bytes;
use dtwn_model::{
    ids::{BsId, UserId},
    plan::{UserPlan, address},
};
use dtwn_proto::{
    bus::NodeName,
    node::{self, Announced, Header, PIECE_BYTES, TwinMessage, TwinState},
};
use tokio::{
    sync::OnceCell,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{state::UserState, twins::send_piece};
use crate::{
    agent::{AgentError, Node, node_name},
    association::in_force_of,
    bus::{Bus, Incoming, Key, Message, PeerConfig, Receiver},
    learning::source,
    twins::states::Unacknowledged,
};

/// Of a user's messages with states only the newest is worth sending: it holds what the others do.
const STATE_KEY: Key = Key(1);

/// What a group's users share.
struct Group {
    node: Node,
    /// The samples of its users, in the order of the plan; made when somebody asks.
    samples: OnceCell<Vec<Bytes>>,
}

/// Runs a group for as long as it is polled.
///
/// # Errors
/// When a bus cannot be started.
pub async fn run(node: Node) -> Result<(), AgentError> {
    let mut buses = Vec::new();
    for (place, user) in node.me().users.iter().enumerate() {
        let Some(home) = node.plan.association.serving(user.id) else { continue };
        let peers = vec![peer(&node, user, home)?];
        buses.push((place, home, node.bus(&user.name, false, peers).await?));
    }
    node.ready(buses.iter().map(|(_, _, (bus, _))| bus.clone()).collect());
    let group = Arc::new(Group { node, samples: OnceCell::new() });
    let mut tasks = JoinSet::new();
    for (place, home, (bus, receiver)) in buses {
        let life = Life { group: Arc::clone(&group), place, bus, serving: home, epoch: 0 };
        tasks.spawn(life.run(receiver));
    }
    match tasks.join_next().await {
        // Tasks only end by an error or a panic, which the session should see as the end of the process.
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(AgentError::Instructions(format!("a user's task ended: {error}"))),
        _ => std::future::pending().await,
    }
}

/// Dialling the alias that a BS has for this user makes the kernel pick the user's own address.
fn peer(node: &Node, user: &UserPlan, bs: BsId) -> Result<PeerConfig, AgentError> {
    let name = bs_name(node, bs);
    node.peer(&name, &name, Some(address::alias(user.id, Some(bs))))
}

fn bs_name(node: &Node, bs: BsId) -> String {
    node.plan.stations[node.plan.bs_station(bs).index()].name.clone()
}

/// One user.
struct Life {
    group: Arc<Group>,
    /// Its position in the group.
    place: usize,
    bus: Bus,
    /// The BS that has its twin, as far as it knows, and since which epoch.
    serving: BsId,
    epoch: u64,
}

impl Life {
    async fn run(mut self, mut receiver: Receiver) -> Result<(), AgentError> {
        let group = Arc::clone(&self.group);
        let (node, user) = (&group.node, &group.node.me().users[self.place]);
        let period_s = node.plan.topology().twins.sync_period.seconds();
        let mut state = UserState::new(node.seed(), user.id.0, user.position);
        let mut waiting = Unacknowledged::default();
        // Users do not march in step: each starts at a place of its own within the period.
        let phase = f64::from(user.id.0.wrapping_mul(2_654_435_769)) / f64::from(u32::MAX);
        let period = node.clock.wall(period_s);
        let mut ticks = interval_at(Instant::now() + period.mul_f64(phase), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut sequence = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let now_ns = node.clock.now_ns();
                    // A state's number is its place in the user's life, which goes on while nobody looks.
                    let due = 1 + (now_ns as f64 / 1e9 / period_s) as u64;
                    while sequence < due {
                        state.advance(period_s);
                        sequence += 1;
                    }
                    waiting.push(snapshot(&state, user.id, sequence, now_ns));
                    self.send_states(&waiting)?;
                }
                incoming = receiver.recv() => {
                    let Some(incoming) = incoming else { return Ok(()) };
                    if self.take(&incoming, &mut waiting).await? {
                        self.send_states(&waiting)?;
                    }
                }
            }
        }
    }

    fn user(&self) -> &UserPlan {
        &self.group.node.me().users[self.place]
    }

    fn serving_name(&self) -> Result<NodeName, AgentError> {
        node_name(&bs_name(&self.group.node, self.serving))
    }

    fn send_states(&self, waiting: &Unacknowledged) -> Result<(), AgentError> {
        let states = waiting.all();
        if states.is_empty() {
            return Ok(());
        }
        let to = self.serving_name()?;
        let sent = node::encode(&Header::Twin(TwinMessage::States { states }), &[])
            .map(|body| self.bus.send(&to, Message::control(body).superseding(STATE_KEY)));
        if let Ok(Err(error)) = sent {
            tracing::debug!(user = self.user().name, %error, "states were not sent");
        }
        Ok(())
    }

    /// Takes what a BS says; whether the user has gone to another one.
    async fn take(&mut self, incoming: &Incoming, waiting: &mut Unacknowledged) -> Result<bool, AgentError> {
        let (from, me) = (incoming.from.as_str(), self.user().id.0);
        match node::decode(&incoming.body) {
            Ok((Header::Twin(TwinMessage::Ack { twin, sequence, serving, epoch }), _)) if twin == me => {
                waiting.acknowledge(sequence);
                let moves = epoch > self.epoch && BsId(serving.into()) != self.serving;
                // Only the BS that a user is with may send it on.
                if incoming.from != self.serving_name()?
                    || usize::from(serving) >= self.group.node.plan.bs_count()
                {
                    return Ok(false);
                }
                self.epoch = self.epoch.max(epoch);
                if moves {
                    self.go_to(BsId(serving.into()))?;
                }
                Ok(moves)
            }
            Ok((Header::Twin(TwinMessage::Want { twin, epoch: 0, offset, bytes }), _)) if twin == me => {
                self.give(from, offset, bytes).await?;
                Ok(false)
            }
            Ok((Header::Association(header), body)) => {
                // The BS has checked it against the chain, which users do not hold.
                let node = &self.group.node;
                match Announced::decode(&body).ok().and_then(|said| in_force_of(&node.plan, &header, &said)) {
                    Some(next) => drop(node.association.put(next)),
                    None => tracing::warn!(from, "refused an association"),
                }
                Ok(false)
            }
            Ok(_) => {
                tracing::warn!(from, "refused what a BS does not say to a user");
                Ok(false)
            }
            Err(error) => {
                tracing::warn!(from, %error, "refused a message");
                Ok(false)
            }
        }
    }

    fn go_to(&mut self, bs: BsId) -> Result<(), AgentError> {
        let before = self.serving_name()?;
        self.bus.add_peer(peer(&self.group.node, self.user(), bs)?)?;
        self.serving = bs;
        tracing::info!(user = self.user().name, bs = bs_name(&self.group.node, bs), "follows its twin");
        Ok(self.bus.remove_peer(&before)?)
    }

    /// Sends a part of the user's samples.
    async fn give(&self, to: &str, offset: u64, bytes: u32) -> Result<(), AgentError> {
        let samples = self.group.samples.get_or_try_init(|| samples(&self.group.node)).await?;
        let own = samples.get(self.place).cloned().unwrap_or_default();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.min(PIECE_BYTES) as usize).min(own.len());
        if start < end {
            send_piece(&self.bus, to, self.user().id.0, 0, offset, &own[start..end]);
        }
        Ok(())
    }
}

/// The samples of all users of a group, made on a thread.
async fn samples(node: &Node) -> Result<Vec<Bytes>, AgentError> {
    let (plan, users) = (node.plan.clone(), node.me().users.iter().map(|user| user.id).collect::<Vec<_>>());
    let made = tokio::task::spawn_blocking(move || source::samples_of(&plan, &users)).await;
    let made = made.map_err(|error| AgentError::Learning(error.to_string()))?;
    let records = made.map_err(|error| AgentError::Learning(error.to_string()))?;
    Ok(records.into_iter().map(|records| Bytes::copy_from_slice(records.as_bytes())).collect())
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
