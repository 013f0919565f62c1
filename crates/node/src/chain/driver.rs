//! The driver: the task that owns a replica's core and turns its effects into writes, messages and news.

use std::{sync::Arc, time::Duration};

use dtwn_chain::{
    bodies::{Bodies, BodyEffect, BodyInput},
    codec::Decode as _,
    core::{Core, Effect, Event, Input, Target},
    message::Message,
    state::State,
    types::Micros,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{
    ChainError, ChainNews, Command, Mail,
    disk::{Disk, Done, Job},
    post::Post,
    report::Report,
};
use crate::agent::EmulatedClock;

/// How often reports are made and round trips read, wall time.
const REPORT_PERIOD: Duration = Duration::from_millis(250);
/// Jobs that may wait for the disk; with more, nothing new is taken from outside until it has caught up.
const PENDING_MAX: usize = 4096;
/// Pieces of mail or commands taken up before the driver looks at its timers and its disk again.
const PER_TURN: usize = 64;

/// See the module.
pub(super) struct Driver {
    pub(super) core: Core,
    pub(super) bodies: Bodies,
    pub(super) clock: EmulatedClock,
    pub(super) disk: Disk,
    pub(super) post: Post,
    pub(super) report: Report,
    pub(super) news: broadcast::Sender<ChainNews>,
    pub(super) state: watch::Sender<Arc<State>>,
    /// Records that are not yet durable.
    pub(super) pending: usize,
    pub(super) body_horizon: u64,
}

impl Driver {
    /// Runs until the node's other parts are gone, or until the chain cannot go on.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut mail: mpsc::Receiver<Mail>,
        mut done: mpsc::UnboundedReceiver<Done>,
    ) -> Option<ChainError> {
        let mut reports = tokio::time::interval(REPORT_PERIOD);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outcome = self.step(Input::Tick, None);
        while outcome.is_ok() {
            let free = self.pending < PENDING_MAX;
            if self.is_due() {
                // The runtime's timers would take up to a millisecond to tell.
                outcome = self.tick();
                if outcome.is_err() {
                    break;
                }
            }
            let due = self.due();
            outcome = tokio::select! {
                biased;
                result = done.recv() => match result {
                    Some(result) => self.take_result(result),
                    None => Err(ChainError::Disk("has ended".into())),
                },
                _ = reports.tick() => self.report(),
                () = tokio::time::sleep_until(due) => self.tick(),
                letter = mail.recv(), if free => match letter {
                    Some(first) => self.take_mail(&first, &mut mail),
                    None => return None,
                },
                command = commands.recv(), if free => match command {
                    Some(first) => self.take_commands(first, &mut commands),
                    None => return None,
                },
            };
        }
        outcome.err()
    }

    fn now_us(&self) -> Micros {
        self.clock.now_ns() / 1000
    }

    /// When the core or the bodies want to be woken.
    fn due(&self) -> Instant {
        let deadline = self.core.deadline().min(self.bodies.deadline().unwrap_or(Micros::MAX));
        let wait_us = deadline.saturating_sub(self.now_us());
        // An hour is as good as for ever, and far from the limits of arithmetic.
        Instant::now() + self.clock.wall(wait_us.min(3_600_000_000) as f64 / 1e6)
    }

    fn is_due(&self) -> bool {
        self.core.deadline() <= self.now_us()
    }

    fn tick(&mut self) -> Result<(), ChainError> {
        if self.bodies.deadline().is_some_and(|at| at <= self.now_us()) {
            self.step_bodies(BodyInput::Tick)?;
        }
        self.step(Input::Tick, None)
    }

    fn report(&mut self) -> Result<(), ChainError> {
        self.report.flush(&self.core);
        for (peer, wall) in self.post.round_trips() {
            let rtt_us = self.clock.emulated(wall).as_micros();
            let rtt_us = Micros::try_from(rtt_us).unwrap_or(Micros::MAX);
            self.step(Input::RoundTrip { peer, rtt_us }, None)?;
        }
        Ok(())
    }

    fn take_mail(&mut self, first: &Mail, more: &mut mpsc::Receiver<Mail>) -> Result<(), ChainError> {
        self.take_letter(first)?;
        for _ in 1..PER_TURN {
            let Ok(letter) = more.try_recv() else { break };
            self.take_letter(&letter)?;
        }
        Ok(())
    }

    fn take_letter(&mut self, letter: &Mail) -> Result<(), ChainError> {
        let Some(from) = self.post.sender(&letter.from) else {
            tracing::warn!(from = %letter.from, "refused a message of the chain: its sender is no part of it");
            self.report.refused();
            return Ok(());
        };
        let message = match Message::from_bytes(&letter.body) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(from = %letter.from, %error, "refused a message of the chain");
                self.report.refused();
                return Ok(());
            }
        };
        tracing::trace!(from = %letter.from, kind = kind(&message), bytes = letter.body.len(), "received");
        if let Some(origin) = letter.spread {
            self.post.pass_on(origin, &message, &letter.body);
        }
        match (message, from) {
            (Message::Body(body), Some(from)) => self.step_bodies(BodyInput::Receive(from, body)),
            // The MBS asks for no bodies in the name of a replica.
            (Message::Body(_), None) => Ok(()),
            (message, from) => self.step(Input::Receive { from, message: Arc::new(message) }, None),
        }
    }

    fn take_commands(
        &mut self,
        first: Command,
        more: &mut mpsc::Receiver<Command>,
    ) -> Result<(), ChainError> {
        self.take_command(first)?;
        for _ in 1..PER_TURN {
            let Ok(command) = more.try_recv() else { break };
            self.take_command(command)?;
        }
        Ok(())
    }

    fn take_command(&mut self, command: Command) -> Result<(), ChainError> {
        match command {
            Command::Submit { payload, at_us } => self.step(Input::Submit(payload), Some(at_us)),
            Command::PutBody(bytes) => {
                let digest = dtwn_chain::types::Digest::of_body(&bytes);
                self.disk.ask(Job::PutBody(digest, Arc::clone(&bytes), self.core.height()))?;
                self.step_bodies(BodyInput::Insert(bytes))
            }
            Command::WantBody(digest, size_bytes) => {
                if let Some(bytes) = self.bodies.get(&digest) {
                    let _ = self.news.send(ChainNews::Body { digest, bytes: Arc::clone(bytes) });
                    return Ok(());
                }
                self.step_bodies(BodyInput::Want(digest, size_bytes))
            }
            Command::ForgetBody(digest) => self.step_bodies(BodyInput::Forget(digest)),
        }
    }

    fn take_result(&mut self, result: Done) -> Result<(), ChainError> {
        match result {
            Done::Persisted(number, count) => {
                self.pending = self.pending.saturating_sub(count);
                self.step(Input::Persisted(number), None)
            }
            Done::Served(to, messages) => {
                for message in messages {
                    tracing::trace!(?to, kind = kind(&message), "served");
                    self.post.send(Target::One(to), &Arc::new(message));
                }
                Ok(())
            }
            Done::Body(bytes) => self.step_bodies(BodyInput::Insert(bytes)),
            Done::Failed(error) => Err(error.into()),
        }
    }

    fn step(&mut self, input: Input, submitted_us: Option<Micros>) -> Result<(), ChainError> {
        let now_us = self.now_us();
        for effect in self.core.step(now_us, input) {
            match effect {
                Effect::Persist { number, record } => {
                    self.pending += 1;
                    self.disk.ask(Job::Append(number, record))?;
                }
                Effect::Send { to, message } => {
                    tracing::trace!(?to, kind = kind(&message), "sent");
                    self.post.send(to, &message);
                }
                Effect::Serve { to, request } => self.disk.ask(Job::Serve(to, request))?,
                Effect::Notify(event) => self.notify(event, now_us, submitted_us)?,
            }
        }
        Ok(())
    }

    fn notify(
        &mut self,
        event: Event,
        now_us: Micros,
        submitted_us: Option<Micros>,
    ) -> Result<(), ChainError> {
        self.report.note(&event, now_us, submitted_us);
        // Nobody listening is no error.
        match event {
            Event::Committed { block, state, certificate } => {
                let height = block.header().height;
                self.state.send_replace(Arc::clone(&state));
                let _ = self.news.send(ChainNews::Committed { block, state, certificate });
                // Now and then is often enough: what is dropped has been old for long.
                let step = (self.body_horizon / 4).max(1);
                if height.is_multiple_of(step) && height > self.body_horizon {
                    self.disk.ask(Job::PruneBodies(height - self.body_horizon))?;
                }
            }
            Event::Rejected { payload, reason } => {
                let _ = self.news.send(ChainNews::Rejected { payload: Arc::new(*payload), reason });
            }
            _ => {}
        }
        Ok(())
    }

    fn step_bodies(&mut self, input: BodyInput) -> Result<(), ChainError> {
        let effects = match self.bodies.step(self.now_us(), input) {
            Ok(effects) => effects,
            Err(error) => {
                tracing::warn!(%error, "a body is not fetched");
                return Ok(());
            }
        };
        for effect in effects {
            match effect {
                BodyEffect::Send(to, message) => self.post.send_body(to, message),
                BodyEffect::Complete(digest, bytes) => {
                    self.disk.ask(Job::PutBody(digest, Arc::clone(&bytes), self.core.height()))?;
                    let _ = self.news.send(ChainNews::Body { digest, bytes });
                }
                BodyEffect::Load(digest) => self.disk.ask(Job::LoadBody(digest))?,
            }
        }
        Ok(())
    }
}

/// The kind of a message, for logs.
fn kind(message: &Message) -> &'static str {
    match message {
        Message::Proposal(_) => "proposal",
        Message::Vote(_) => "vote",
        Message::Certificate(_) => "certificate",
        Message::Request(_) => "request",
        Message::Block(_) => "block",
        Message::Segment(_) => "segment",
        Message::Gossip(_) => "gossip",
        Message::Body(_) => "body",
    }
}
