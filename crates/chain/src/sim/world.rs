//! The simulated world: processes, network, disks, faults and load, in virtual time.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::byzantine::Byzantine;
use super::invariants::Invariants;
use super::process::{Disk, Process};
use super::schedule::{DiskFault, Fault, Misbehaviour, Schedule};
use super::{Mode, Outcome, trace};
use crate::block::SharedBlock;
use crate::core::{Config, Core, Eager, Effect, Event, Identity, Input, Recovered, Rules, Target};
use crate::crypto::{PublicKey, StubSigner, StubVerifier};
use crate::genesis::{Genesis, Params, Registry, Validator};
use crate::message::{Delivery, Message, Request};
use crate::models::ModelStatus;
use crate::record::Record;
use crate::segment;
use crate::state::State;
use crate::tx::{BodyRef, Payload, Verdict};
use crate::types::{Digest, Epoch, Height, Micros, ReplicaId, View};

/// Deliveries after which a schedule ends, views reached or not.
const MESSAGE_BUDGET: u64 = 400_000;
/// Message delays after which a schedule in safety mode ends, views reached or not.
const DELAY_BUDGET: u64 = 50_000;
/// Blocks that everybody has to finalize once the network is calm.
const LIVE_BLOCKS: Height = 8;
/// Lines of trace kept.
const TRACE_LINES: usize = 400;

enum Happening {
    Deliver { to: usize, from: Option<ReplicaId>, message: Arc<Message> },
    Timer { process: usize },
    Synced { process: usize, incarnation: u32 },
    Crash { process: usize, down_us: Micros, disk: DiskFault },
    Restart { process: usize, records: Vec<Record>, wiped: bool },
    Submit,
}

struct Scheduled {
    at: Micros,
    order: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// One run of a schedule.
pub(super) struct World<'a> {
    schedule: &'a Schedule,
    rules: Rules,
    rng: ChaCha8Rng,
    registry: Arc<Registry>,
    processes: Vec<Process>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    now: Micros,
    invariants: Invariants,
    entered: HashSet<(Epoch, View)>,
    nullified: HashSet<(Epoch, View)>,
    /// When replicas that follow the rules proposed blocks that are not final.
    proposed: HashMap<Digest, Micros>,
    /// Height to reach and time to reach it by, once the network is calm.
    goal: Option<(Height, Micros)>,
    round: u64,
    hasher: DefaultHasher,
    recording: bool,
    outcome: Outcome,
}

impl<'a> World<'a> {
    /// Runs a schedule to its end or to the first violation.
    pub(super) fn run(schedule: &'a Schedule, rules: Rules, recording: bool) -> Outcome {
        let run = std::panic::AssertUnwindSafe(|| Self::run_to_end(schedule, rules, recording));
        // A core that panics on some input is as broken as one that breaks an invariant.
        std::panic::catch_unwind(run).unwrap_or_else(|_| Outcome {
            violation: Some("panic: a replica panicked, see standard error".into()),
            ..Outcome::default()
        })
    }

    fn run_to_end(schedule: &'a Schedule, rules: Rules, recording: bool) -> Outcome {
        let mut world = Self::new(schedule, rules, recording);
        world.start();
        while world.outcome.violation.is_none() && !world.is_over() {
            let Some(Reverse(next)) = world.queue.pop() else { break };
            world.now = next.at;
            world.happen(next.what);
        }
        world.finish()
    }

    fn new(schedule: &'a Schedule, rules: Rules, recording: bool) -> Self {
        let validators = (0..schedule.nodes)
            .map(|id| Validator { key: key(id), coins: 50_000_000 + u64::from(id % 3) * 7_000_000 })
            .collect();
        let params = Params {
            producers: schedule.producers,
            epoch_blocks: schedule.epoch_blocks,
            max_block_bytes: 4096,
            ..Params::default()
        };
        let genesis = Genesis { name: format!("simulation {}", schedule.seed), validators, params };
        // A schedule has 4 to 20 nodes with distinct keys, so the genesis is always valid.
        #[allow(clippy::expect_used)]
        let registry = Registry::with_verifier(genesis, Box::new(StubVerifier)).expect("valid genesis");
        let byzantine = |id: u16| schedule.byzantine.iter().any(|(node, _)| *node == id);
        let honest = (0..schedule.nodes).filter(|id| !byzantine(*id)).map(ReplicaId).collect();
        Self {
            schedule,
            rules,
            // Another stream than the one that drew the schedule.
            rng: ChaCha8Rng::seed_from_u64(schedule.seed ^ 0x9e37_79b9_7f4a_7c15),
            invariants: Invariants::new(registry.clone(), honest),
            registry,
            processes: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            now: 0,
            entered: HashSet::new(),
            nullified: HashSet::new(),
            proposed: HashMap::new(),
            goal: None,
            round: 0,
            hasher: DefaultHasher::new(),
            recording,
            outcome: Outcome::default(),
        }
    }

    fn config(&self) -> Config {
        let bound = self.schedule.bound_us();
        let timeout_min_us = 6 * bound + 3 * self.schedule.sync_us;
        Config {
            slot_us: self.schedule.slot_us,
            idle_us: self.schedule.idle_us,
            timeout_min_us,
            timeout_max_us: 6 * timeout_min_us,
            retry_min_us: 3 * bound,
            eager_certificates: if self.schedule.eager_certificates { Eager::Always } else { Eager::Slow },
            gossip_us: bound / 4,
            ..Config::default()
        }
    }

    fn core(&self, id: Option<ReplicaId>, recovered: Recovered) -> Core {
        let identity = id.map(|id| Identity { id, signer: Box::new(StubSigner(key(id.0))) });
        Core::with_rules(self.registry.clone(), self.config(), self.rules, identity, recovered, self.now)
    }

    fn start(&mut self) {
        for address in 0..self.schedule.nodes + u16::from(self.schedule.observer) {
            let id = (address < self.schedule.nodes).then_some(ReplicaId(address));
            let kind =
                self.schedule.byzantine.iter().find(|(node, _)| *node == address).map(|(_, kind)| *kind);
            let copies = if kind == Some(Misbehaviour::SharedIdentity) { 2 } else { 1 };
            for _ in 0..copies {
                let byzantine = kind.zip(id).map(|(kind, id)| {
                    Byzantine::new(kind, id, StubSigner(key(address)), self.registry.clone())
                });
                let core = self.core(id, Recovered::genesis(&self.registry));
                self.processes.push(Process {
                    address,
                    id,
                    core: Some(core),
                    disk: Disk::default(),
                    chain: Vec::new(),
                    byzantine,
                    timer_at: Micros::MAX,
                    incarnation: 0,
                    vote_from: 0,
                });
            }
        }
        for fault in &self.schedule.faults {
            if let Fault::Crash { node, at_us, down_us, disk } = *fault
                && let Some(process) = self.processes.iter().position(|process| process.address == node)
            {
                self.at(at_us, Happening::Crash { process, down_us, disk });
            }
        }
        for process in 0..self.processes.len() {
            self.wake(process);
        }
        self.at(self.schedule.load_us, Happening::Submit);
    }

    fn at(&mut self, at: Micros, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at, order: self.order, what }));
    }

    /// A process begins, or begins again.
    fn wake(&mut self, process: usize) {
        self.processes[process].timer_at = Micros::MAX;
        self.step(process, Input::Tick);
        if self.schedule.measured {
            let rtt_us = 2 * self.schedule.bound_us();
            for peer in (0..self.schedule.nodes).map(ReplicaId) {
                self.step(process, Input::RoundTrip { peer, rtt_us });
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Deliver { to, from, message } => self.deliver(to, from, message),
            Happening::Timer { process } => {
                self.processes[process].timer_at = Micros::MAX;
                let due =
                    self.processes[process].core.as_ref().is_some_and(|core| core.deadline() <= self.now);
                if due {
                    (self.now, 1u8, process).hash(&mut self.hasher);
                    self.step(process, Input::Tick);
                } else {
                    self.set_timer(process);
                }
            }
            Happening::Synced { process, incarnation } => {
                if self.processes[process].incarnation == incarnation
                    && let Some(number) = self.processes[process].disk.end_sync()
                {
                    (self.now, 2u8, process, number).hash(&mut self.hasher);
                    self.step(process, Input::Persisted(number));
                }
            }
            Happening::Crash { process, down_us, disk } => self.crash(process, down_us, disk),
            Happening::Restart { process, records, wiped } => self.restart(process, records, wiped),
            Happening::Submit => self.submit(),
        }
    }

    fn deliver(&mut self, to: usize, from: Option<ReplicaId>, message: Arc<Message>) {
        if self.processes[to].core.is_none() {
            return;
        }
        self.outcome.messages += 1;
        (self.now, 3u8, to, from).hash(&mut self.hasher);
        trace::fingerprint(&message, &mut self.hasher);
        if self.recording {
            let (to, from) =
                (trace::name(&self.processes[to]), from.map_or("observer".into(), |id| id.to_string()));
            self.note(&format!("{to} hears from {from}: {}", trace::describe(&message)));
        }
        if let Some(byzantine) = &mut self.processes[to].byzantine {
            for (targets, extra) in byzantine.receive(&message, &mut self.rng) {
                self.transmit(to, targets, &extra);
            }
        }
        self.step(to, Input::Receive { from, message });
    }

    fn crash(&mut self, process: usize, down_us: Micros, disk: DiskFault) {
        let crashed = &mut self.processes[process];
        if crashed.core.take().is_none() {
            return;
        }
        crashed.incarnation += 1;
        let records = crashed.disk.crash(disk, &mut self.rng);
        (self.now, 4u8, process, records.len()).hash(&mut self.hasher);
        if self.recording {
            self.note(&format!(
                "{} is killed, {} records remain",
                trace::name(&self.processes[process]),
                records.len()
            ));
        }
        let wiped = disk == DiskFault::Wiped;
        self.at(self.now + down_us, Happening::Restart { process, records, wiped });
    }

    fn restart(&mut self, process: usize, records: Vec<Record>, wiped: bool) {
        self.outcome.restarts += 1;
        let mut recovered = match Recovered::replay(&self.registry, State::genesis(&self.registry), records) {
            Ok(recovered) => recovered,
            Err(error) => {
                self.outcome.violation = Some(format!("recovery: {error}"));
                return;
            }
        };
        if wiped {
            // As an operator would find it by asking the others.
            let epochs =
                self.processes.iter().filter_map(|other| other.core.as_ref()).map(|core| core.round().0);
            let latest = epochs.max().unwrap_or(0).max(self.invariants.state().epoch);
            self.processes[process].vote_from = latest + 2;
        }
        recovered.vote_from = self.processes[process].vote_from;
        let height = recovered.state.height;
        if self.processes[process].is_honest()
            && let Err(what) = self.invariants.restarted(process, &recovered.state)
        {
            self.outcome.violation = Some(what);
            return;
        }
        if self.recording {
            self.note(&format!("{} restarts at height {height}", trace::name(&self.processes[process])));
        }
        let core = self.core(self.processes[process].id, recovered);
        let chain_len = usize::try_from(height).unwrap_or(usize::MAX);
        self.processes[process].chain.truncate(chain_len);
        self.processes[process].core = Some(core);
        self.wake(process);
    }

    fn step(&mut self, process: usize, input: Input) {
        let Some(core) = self.processes[process].core.as_mut() else { return };
        let effects = core.step(self.now, input);
        for effect in effects {
            if let Err(what) = self.perform(process, effect) {
                self.outcome.violation.get_or_insert(what);
                return;
            }
        }
        if self.processes[process].disk.begin_sync() {
            let jitter =
                if self.schedule.sync_us == 0 { 0 } else { self.rng.random_range(0..self.schedule.sync_us) };
            let incarnation = self.processes[process].incarnation;
            self.at(
                self.now + self.schedule.sync_us / 2 + jitter,
                Happening::Synced { process, incarnation },
            );
        }
        self.set_timer(process);
    }

    fn set_timer(&mut self, process: usize) {
        let Some(core) = &self.processes[process].core else { return };
        let due = core.deadline().max(self.now);
        if due < self.processes[process].timer_at {
            self.processes[process].timer_at = due;
            self.at(due, Happening::Timer { process });
        }
    }

    fn perform(&mut self, process: usize, effect: Effect) -> Result<(), String> {
        let honest = self.processes[process].is_honest();
        match effect {
            Effect::Persist { record, .. } => {
                if honest && let Record::Certificate(certificate) = &record {
                    self.invariants.certified(certificate)?;
                }
                self.processes[process].disk.append(record);
            }
            Effect::Send { to, message } => self.send(process, to, message)?,
            Effect::Serve { to, request } => {
                for message in self.serve(process, &request) {
                    self.send(process, Target::One(to), Arc::new(message))?;
                }
            }
            Effect::Notify(event) => self.notified(process, honest, event)?,
        }
        Ok(())
    }

    fn notified(&mut self, process: usize, honest: bool, event: Event) -> Result<(), String> {
        match event {
            Event::Committed { block, state, certificate } => {
                self.processes[process].chain.push((block.clone(), certificate));
                if honest {
                    if self.recording {
                        let name = trace::name(&self.processes[process]);
                        self.note(&format!(
                            "{name} finalizes {} at height {}",
                            block.digest(),
                            block.header().height
                        ));
                    }
                    self.invariants.committed(process, &block, &state)?;
                    self.measure(&block);
                }
            }
            Event::Entered { epoch, view } if honest => {
                self.entered.insert((epoch, view));
            }
            Event::Nullified { epoch, view, .. } if honest => {
                self.nullified.insert((epoch, view));
            }
            Event::Proposed { block, .. } if honest => {
                self.proposed.entry(block.digest()).or_insert(self.now);
            }
            Event::Conflict(certificate) if honest => {
                return Err(format!(
                    "agreement: a replica met the contradicting {:?}",
                    certificate.statement
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// Time from proposal to the first finalization.
    fn measure(&mut self, block: &SharedBlock) {
        let Some(proposed) = self.proposed.remove(&block.digest()) else { return };
        let took = self.now - proposed;
        if self.schedule.mode == Mode::Liveness && proposed >= self.calm_us() {
            self.outcome.calm_finality_us = self.outcome.calm_finality_us.max(took);
        } else {
            self.outcome.faulty_finality_us = self.outcome.faulty_finality_us.max(took);
        }
    }

    fn send(&mut self, process: usize, to: Target, message: Arc<Message>) -> Result<(), String> {
        let targets = match to {
            Target::All => u32::MAX,
            Target::One(Some(id)) => 1 << (id.0 % 32),
            Target::One(None) => 1 << self.schedule.nodes,
        };
        let sender = &mut self.processes[process];
        if let (Some(byzantine), Some(core)) = (&mut sender.byzantine, &mut sender.core) {
            for (targets, message) in byzantine.send(core, targets, message, &mut self.rng) {
                self.transmit(process, targets, &message);
            }
            return Ok(());
        }
        let own = match message.as_ref() {
            Message::Vote(vote) => Some(*vote),
            Message::Proposal(proposal) => sender.id.map(|id| proposal.vote(id)),
            _ => None,
        };
        if let Some(vote) = own {
            self.invariants.voted(&vote)?;
        }
        self.transmit(process, targets, &message);
        Ok(())
    }

    /// Puts a message on the way to every process behind the target addresses, subject to the network's faults.
    fn transmit(&mut self, sender: usize, targets: u32, message: &Arc<Message>) {
        let (from, source) = (self.processes[sender].id, self.processes[sender].address);
        let lossy = self.schedule.mode == Mode::Safety || self.now < self.calm_us();
        for to in 0..self.processes.len() {
            let target = self.processes[to].address;
            if to == sender || targets >> target & 1 == 0 || self.schedule.is_cut(source, target, self.now) {
                continue;
            }
            if lossy && self.rng.random_bool(self.schedule.loss) {
                continue;
            }
            let copies = if self.rng.random_bool(self.schedule.duplication) { 2 } else { 1 };
            for _ in 0..copies {
                let mut delay = self.schedule.delay_us + self.rng.random_range(0..=self.schedule.jitter_us);
                if lossy && self.rng.random_bool(self.schedule.straggling) {
                    delay *= 10;
                }
                self.at(self.now + delay, Happening::Deliver { to, from, message: message.clone() });
            }
        }
    }

    /// Answers a request from what the process has finalized.
    fn serve(&self, process: usize, request: &Request) -> Vec<Message> {
        let chain = &self.processes[process].chain;
        let above = chain.iter().skip(usize::try_from(request.finalized).unwrap_or(usize::MAX));
        let segment = segment::cut(above.cloned());
        let named = chain.iter().filter(|(block, _)| request.blocks.contains(&block.digest()));
        let blocks = named.map(|(block, _)| Message::Block(Delivery(block.clone())));
        segment.map(Message::Segment).into_iter().chain(blocks).collect()
    }

    fn submit(&mut self) {
        let process = self.rng.random_range(0..self.processes.len());
        let payload = self.payload(self.processes[process].id);
        (self.now, 5u8, process).hash(&mut self.hasher);
        self.step(process, Input::Submit(payload));
        let next = self.rng.random_range(1..=2 * self.schedule.load_us);
        self.at(self.now + next, Happening::Submit);
    }

    fn payload(&mut self, signer: Option<ReplicaId>) -> Payload {
        self.round += 1;
        let round = self.round;
        let body = BodyRef { digest: Digest::in_domain("body", &round.to_le_bytes()), size_bytes: 1000 };
        // Models that wait for this replica's finding are attested first, so that some pass.
        let waiting = (0u16..).zip(&self.invariants.state().accounts).find_map(|(owner, account)| {
            let wanted = account.models.iter().find(|model| {
                signer.is_some_and(|id| {
                    let silent = !model.passed.contains(&id) && !model.failed.contains(&id);
                    model.status == ModelStatus::Pending && model.verifiers.contains(&id) && silent
                })
            })?;
            Some((ReplicaId(owner), wanted.round, wanted.body.digest))
        });
        match (waiting, self.rng.random_range(0..10)) {
            (Some((owner, round, digest)), 0..=6) => {
                let verdict = if self.rng.random_bool(0.8) { Verdict::Passed } else { Verdict::Failed };
                Payload::Attestation { owner, round, digest, verdict }
            }
            (_, 7) => {
                Payload::Delegation { candidate: ReplicaId(self.rng.random_range(0..self.schedule.nodes)) }
            }
            (_, 3..=5) => Payload::TrainingModel { round, body },
            (_, 8) => Payload::TwinModel { twin: 1, round, body },
            _ => Payload::Action { round, content: vec![0; self.rng.random_range(0..200)] },
        }
    }

    /// When faults are over and everybody is up.
    fn calm_us(&self) -> Micros {
        let up = self.schedule.faults.iter().map(|fault| match fault {
            Fault::Crash { at_us, down_us, .. } => at_us + down_us,
            Fault::Cut { .. } => 0,
        });
        up.max().unwrap_or(0).max(self.schedule.calm_us)
    }

    fn is_over(&mut self) -> bool {
        let enough = self.entered.len() as u64 >= self.schedule.views;
        if self.outcome.messages >= MESSAGE_BUDGET {
            return true;
        }
        if self.schedule.mode == Mode::Safety {
            let late = self.now > self.calm_us() + DELAY_BUDGET * self.schedule.bound_us();
            return late || (enough && self.now >= self.schedule.calm_us);
        }
        if self.now < self.calm_us() {
            return false;
        }
        let height = self.invariants.height();
        let config = self.config();
        let longest_view = config.timeout_max_us + config.idle_us + config.slot_us;
        let deadline = self.calm_us() + 30 * longest_view + 300 * self.schedule.bound_us();
        let (goal, deadline) = *self.goal.get_or_insert((height + LIVE_BLOCKS, deadline));
        let behind =
            self.processes.iter().find(|process| self.must_advance(process) && process.height() < goal);
        match behind {
            Some(process) if self.now > deadline => {
                let (name, height) = (trace::name(process), process.height());
                let what = format!("liveness: {name} is at height {height}, {goal} was to be reached");
                self.outcome.violation = Some(what);
                true
            }
            Some(_) => false,
            None => enough,
        }
    }

    /// True for a replica that follows the rules and has some other such replica to hear and to be heard by. One
    /// that nobody hears cannot ask for what it missed.
    fn must_advance(&self, process: &Process) -> bool {
        let Some((from, to)) = self.schedule.lasting() else { return process.is_honest() };
        let cut = |a: u16, b: u16| from >> a & 1 == 1 && to >> b & 1 == 1;
        let connected = |other: &Process| {
            let distinct = other.is_honest() && other.id.is_some() && other.address != process.address;
            distinct && !cut(process.address, other.address) && !cut(other.address, process.address)
        };
        process.is_honest() && self.processes.iter().any(connected)
    }

    fn note(&mut self, line: &str) {
        if self.outcome.trace.len() >= 2 * TRACE_LINES {
            self.outcome.trace.drain(..TRACE_LINES);
        }
        self.outcome.trace.push(format!("{:>9} us  {line}", self.now));
    }

    fn finish(mut self) -> Outcome {
        self.invariants.height().hash(&mut self.hasher);
        let surplus = self.outcome.trace.len().saturating_sub(TRACE_LINES);
        self.outcome.trace.drain(..surplus);
        Outcome {
            views: self.entered.len() as u64,
            nullified: self.nullified.len() as u64,
            blocks: self.invariants.height(),
            transactions: self.invariants.transactions() as u64,
            evidence: self.invariants.evidence,
            epochs: self.invariants.state().epoch,
            trace_hash: self.hasher.finish(),
            ..self.outcome
        }
    }
}

fn key(id: u16) -> PublicKey {
    let mut key = [0x3c; 32];
    key[..2].copy_from_slice(&id.to_le_bytes());
    PublicKey(key)
}
