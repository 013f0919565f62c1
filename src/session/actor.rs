//! The task that owns a session's state.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dtwn_air::CaptureId;
use dtwn_model::{
    Plan,
    ids::BsId,
    plan::{Association, Role},
    radio::TimeShares,
    topology::{Fading, OrNone},
};
use dtwn_proto::{
    agent::{AgentConfig, FromAgent, ToAgent},
    control::Response,
    event::{
        AssociationDecision, EndReason, Event, Level, NodeCounters, NodeInfo, SESSION, Sample,
        SessionStarted, What,
    },
    frame,
};
use dtwn_sys::userns::Privilege;
use nix::time::{ClockId, clock_gettime};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    Input, Options, RunFiles, Started,
    control::{History, Live, VIEWER_QUEUE_MAX},
    fidelity::Judge,
    manifest,
    medium::Air,
    network::{Network, NodeNet},
    own_program,
    processes::{Expected, Next, NodeProcess, exit_of, last_lines, usage},
    recorder::Recorder,
    reports,
    spawner::{Job, Place, Spawner},
    summary,
};
use crate::{
    agent_program,
    chain::RunChain,
    error::{Error, Result},
    state::RunState,
};

/// How often the medium's counters are judged.
const TICK: Duration = Duration::from_millis(250);
/// Every how many ticks a sample is recorded.
const TICKS_PER_SAMPLE: u32 = 4;
/// Agents that are not ready after this long have failed.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Agents that have not ended this long after being asked are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Frames waiting for an agent at most.
const AGENT_QUEUE_MAX: usize = 256;
/// What connections get to send off answers that are ready.
const ANSWER_TIME: Duration = Duration::from_millis(5);
/// How long viewers may take to read the last events.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the last frames of an agent that has ended may take to be read.
const LAST_FRAMES: Duration = Duration::from_millis(200);
/// Log lines that a crash report carries.
const CRASH_LINES: usize = 10;

/// What a session is made from.
pub(super) struct Parts {
    pub(super) plan: Plan,
    pub(super) topology: String,
    pub(super) options: Options,
    pub(super) privilege: Privilege,
    pub(super) run_dir: PathBuf,
    pub(super) name: String,
    pub(super) begun: Instant,
}

/// A running session.
pub struct Session {
    pub(super) plan: Plan,
    pub(super) topology: String,
    pub(super) options: Options,
    pub(super) privilege: Privilege,
    pub(super) run_dir: PathBuf,
    pub(super) name: String,
    begun: Instant,
    pub(super) air: Air,
    pub(super) network: Vec<NodeNet>,
    pub(super) spawner: Spawner,
    pub(super) place: Place,
    pub(super) processes: Vec<NodeProcess>,
    pub(super) state: RunState,
    pub(super) recorder: Recorder,
    pub(super) judge: Judge,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) epoch_ns: u64,
    pub(super) blocked: Vec<(String, String)>,
    pub(super) captures: HashMap<u32, CaptureId>,
    viewers: Vec<Viewer>,
    farewell: (mpsc::Sender<()>, mpsc::Receiver<()>),
    keys: Vec<ed25519_dalek::SigningKey>,
    shares: TimeShares,
    association: Association,
    slot: u64,
    sequence: u64,
    ring_drops: u64,
    events_refused: u64,
    recorder_failed: bool,
    up: bool,
    ending: Option<(EndReason, tokio::time::Instant)>,
}

struct Viewer {
    live: mpsc::Sender<Live>,
    skipped: u64,
}

impl Session {
    pub(super) fn new(
        parts: Parts,
        network: Network,
        spawner: Spawner,
        place: Place,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self> {
        for dir in ["logs", "state"] {
            let path = parts.run_dir.join(dir);
            fs::create_dir_all(&path).map_err(Error::file("create", path))?;
        }
        let recorder = Recorder::start(&parts.run_dir)?;
        let plan = parts.plan;
        let air = Air::start(&plan, network.tuns)?;
        let seed = plan.topology().run.seed;
        let keys: Vec<_> = (0..plan.nodes.len()).map(|node| node_key(seed, node)).collect();
        manifest::write(&parts.run_dir, &plan, &parts.options, &network.tcp, parts.privilege)?;
        crate::chain::write_keys(&parts.run_dir, &verifying_keys(&plan, &keys))?;
        let mut session = Self {
            processes: plan.nodes.iter().map(|_| NodeProcess::default()).collect(),
            shares: plan.equal_shares(),
            association: plan.association.clone(),
            plan,
            topology: parts.topology,
            options: parts.options,
            privilege: parts.privilege,
            run_dir: parts.run_dir,
            name: parts.name,
            begun: parts.begun,
            air,
            network: network.nodes,
            spawner,
            place,
            state: RunState::default(),
            recorder,
            judge: Judge::default(),
            inputs,
            epoch_ns: monotonic_ns(),
            blocked: Vec::new(),
            captures: HashMap::new(),
            viewers: Vec::new(),
            farewell: mpsc::channel(1),
            keys,
            slot: 0,
            sequence: 0,
            ring_drops: 0,
            events_refused: 0,
            recorder_failed: false,
            up: false,
            ending: None,
        };
        session.emit(What::SessionStarted(session.describe()));
        if let Some(origin) = session.options.resumed.clone() {
            let (run, round, digest) = (origin.run_dir.display(), origin.round, origin.digest);
            let text = format!("goes on from round {round} of {run}, model {digest}");
            session.notice(Level::Info, text);
        }
        for text in network.warnings.into_iter().chain(std::mem::take(&mut session.place.warnings)) {
            session.notice(Level::Warning, text);
        }
        Ok(session)
    }

    /// Runs until the end, whatever ends it, and leaves a summary.
    ///
    /// # Errors
    /// When the network fails before it is up; later failures are events of the run.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Input>) -> Result<()> {
        spawn_signal_task(self.inputs.clone())?;
        for node in 0..self.plan.nodes.len() {
            self.start_node(node).await?;
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut slots = interval(self.coherence_wall());
        slots.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let end = self.end_of_duration();
        let mut tick_count = 0_u32;
        loop {
            let deadline = self.deadline(end);
            tokio::select! {
                input = queue.recv() => match input {
                    Some(input) => self.take(input).await,
                    None => break,
                },
                _ = ticks.tick() => {
                    tick_count = tick_count.wrapping_add(1);
                    self.tick(tick_count.is_multiple_of(TICKS_PER_SAMPLE));
                }
                _ = slots.tick(), if self.fades() => self.next_slot(),
                () = tokio::time::sleep_until(deadline) => {
                    if self.pass_deadline() {
                        break;
                    }
                }
            }
            if self.ending.is_some() && self.processes.iter().all(|process| process.pid.is_none()) {
                break;
            }
        }
        self.finish().await
    }

    /// Records an event of the session itself.
    pub(super) fn emit(&mut self, what: What) {
        let sequence = self.sequence;
        self.sequence += 1;
        let at_ns = self.emulated_ns();
        self.publish(Event { node: SESSION.into(), sequence, at_ns, wall_unix_ns: unix_ns(), what });
    }

    /// Records something that a person should know.
    pub(super) fn notice(&mut self, level: Level, text: String) {
        match level {
            Level::Info => tracing::info!("{text}"),
            Level::Warning => tracing::warn!("{text}"),
            Level::Error => tracing::error!("{text}"),
        }
        self.emit(What::Notice { level, text });
    }

    /// Ends the run, once; asks every agent to stop.
    pub(super) fn end(&mut self, reason: EndReason) {
        if self.ending.is_some() {
            return;
        }
        tracing::info!(?reason, "the run ends");
        self.ending = Some((reason, tokio::time::Instant::now() + STOP_TIMEOUT));
        // What the agents have used can only be read while they are there.
        self.tick(true);
        for process in &mut self.processes {
            process.expected = Expected::Stop;
            // A paused process would never read its order to stop.
            if process.paused
                && let Some(pid) = process.pid
            {
                let _ = signal(pid, nix::sys::signal::Signal::SIGCONT);
            }
            if let Some(to_agent) = &process.to_agent {
                let _ = to_agent.try_send(ToAgent::Stop);
            }
        }
    }

    /// Adds a viewer: it gets what the recorder was handed before, and then all that happens from now on.
    pub(super) fn subscribe(&mut self, history: bool) -> super::control::Subscription {
        let (sender, live) = mpsc::channel(VIEWER_QUEUE_MAX);
        let history = match history {
            true => self
                .recorder
                .flush()
                .map_or(History::Lost, |written| History::File(Recorder::path(&self.run_dir), written)),
            false => History::Unwanted,
        };
        self.viewers.push(Viewer { live: sender, skipped: 0 });
        super::control::Subscription { history, live, _farewell: self.farewell.0.clone() }
    }

    /// Starts a node's process.
    pub(super) async fn start_node(&mut self, node: usize) -> Result<()> {
        let name = self.plan.nodes[node].name.clone();
        let state_dir = RunFiles::state(&self.run_dir, &name);
        fs::create_dir_all(&state_dir).map_err(Error::file("create", &state_dir))?;
        let log_path = RunFiles::log(&self.run_dir, &name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(Error::file("create", &log_path))?;
        let log_copy = log.try_clone().map_err(Error::file("write", &log_path))?;
        let mut command = self.agent_of(node)?;
        let program = PathBuf::from(command.get_program());
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().map_err(Error::file("make", "a socket pair"))?;
        // The agent finds the session on its standard input: no descriptor number to agree on, none to leak.
        command.stdin(OwnedFd::from(theirs)).stdout(log).stderr(log_copy);
        let job = Job {
            command,
            network: self.network[node].namespace.try_clone()?.into(),
            mounts: self.place.mounts.try_clone().map_err(Error::file("duplicate", "a namespace"))?,
            directory: state_dir.clone(),
        };
        let mut child = self.spawner.spawn(job).await.map_err(Error::file("start", &program))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let boot = self.processes[node].boot;

        ours.set_nonblocking(true).map_err(Error::file("set up", "a socket pair"))?;
        let stream =
            tokio::net::UnixStream::from_std(ours).map_err(Error::file("set up", "a socket pair"))?;
        let (to_agent, orders) = mpsc::channel(AGENT_QUEUE_MAX);
        let conversation = tokio::spawn(converse(stream, node, boot, orders, self.inputs.clone()));
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                // Its last frames come before its end; a child that has inherited the socket must not hold that up.
                let _ = tokio::time::timeout(LAST_FRAMES, conversation).await;
                let _ = inputs.send(Input::Exited(node, boot, status)).await;
            }
        });
        let config = AgentConfig {
            node: name.clone(),
            topology: self.topology.clone(),
            epoch_monotonic_ns: self.epoch_ns,
            boot,
            signing_key: self.keys[node].to_bytes(),
            verifying_keys: verifying_keys(&self.plan, &self.keys),
            state_dir,
            policy_file: RunFiles::policy(&self.run_dir, &self.plan),
        };
        let _ = to_agent.try_send(ToAgent::Start(Box::new(config)));
        if let Some(poison) = &self.processes[node].poison {
            let _ = to_agent.try_send(ToAgent::Poison(poison.clone()));
        }
        self.processes[node].begin(pid, to_agent);
        let restarts = self.processes[node].started_count - 1;
        self.emit(What::NodeStarted { node: name, pid, restarts });
        Ok(())
    }

    /// The command line of a node's agent: this program, or the one with libtorch where the node trains.
    fn agent_of(&self, node: usize) -> Result<Command> {
        let planned = &self.plan.nodes[node];
        let trains = self.plan.topology().learning.trains() && !matches!(planned.role, Role::Users);
        let mut command = if trains {
            let mut command = Command::new(agent_program::find().ok_or_else(agent_program::missing)?);
            command.arg("node").envs(dtwn_node::learning::ENVIRONMENT);
            command
        } else {
            let mut command = Command::new(own_program()?);
            command.arg("__agent");
            command
        };
        command.arg(&planned.name);
        Ok(command)
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Question(question) => self.answer(question),
            Input::CaptureOver(id) => self.stop_capture(id),
            Input::Agent(node, boot, frame) => self.take_frame(node, boot, *frame),
            Input::Exited(node, boot, status) => self.take_exit(node, boot, status),
            Input::RestartDue(node, boot) => {
                let due = self.processes[node].boot == boot && self.processes[node].pid.is_none();
                if due
                    && self.ending.is_none()
                    && let Err(error) = self.start_node(node).await
                {
                    let name = self.plan.nodes[node].name.clone();
                    self.notice(Level::Error, format!("{name} could not be started again: {error}"));
                    self.end(EndReason::NodeFailed(name));
                }
            }
            Input::StopOverdue(node, boot) => {
                let process = &self.processes[node];
                if process.boot == boot
                    && let Some(pid) = process.pid
                {
                    let _ = signal(pid, nix::sys::signal::Signal::SIGKILL);
                }
            }
            Input::Signal(number) => match self.ending {
                None => self.end(EndReason::Signal(number)),
                // The second signal does not wait for anybody.
                Some(_) => self.kill_all(),
            },
        }
    }

    fn take_frame(&mut self, node: usize, boot: u64, frame: FromAgent) {
        if self.processes[node].boot != boot {
            return;
        }
        let name = self.plan.nodes[node].name.clone();
        match frame {
            FromAgent::Hello { program, version } if version != dtwn_proto::VERSION => {
                let ours = dtwn_proto::VERSION;
                let text = format!("{name} runs {program} {version}, this session is dtwn {ours}");
                self.notice(Level::Error, text);
                self.end(EndReason::NodeFailed(name));
            }
            FromAgent::Hello { .. } => {}
            FromAgent::Ready => {
                self.processes[node].ready = true;
                self.emit(What::NodeReady { node: name, agent: format!("dtwn {}", dtwn_proto::VERSION) });
                self.check_up();
            }
            FromAgent::Event { sequence, at_ns, what } => {
                if !reports::may_come_from(&self.plan, &self.plan.nodes[node], &what) {
                    return self.refuse(node, &name);
                }
                if let What::Association(decision) = &what {
                    self.associate(decision);
                }
                let rounds = self.state.rounds;
                self.publish(Event { node: name, sequence, at_ns, wall_unix_ns: unix_ns(), what });
                if self.state.rounds > rounds
                    && self.options.rounds.is_some_and(|max| self.state.rounds >= max)
                {
                    self.end(EndReason::Finished);
                }
            }
            FromAgent::Queues { send_queue_bytes } => {
                self.processes[node].send_queue_bytes = send_queue_bytes;
            }
        }
    }

    /// Counts an event that a node may not report; whoever watches is told once a process.
    fn refuse(&mut self, node: usize, name: &str) {
        self.events_refused += 1;
        if !std::mem::replace(&mut self.processes[node].refused, true) {
            let text = format!("{name} reports what it has no say in, or names what is not in this network");
            self.notice(Level::Warning, text);
        }
    }

    fn take_exit(&mut self, node: usize, boot: u64, status: std::process::ExitStatus) {
        if self.processes[node].boot != boot {
            return;
        }
        let name = self.plan.nodes[node].name.clone();
        let exit = exit_of(status);
        let expected = self.processes[node].expected != Expected::No;
        let last_log = match expected {
            true => Vec::new(),
            false => last_lines(&RunFiles::log(&self.run_dir, &name), CRASH_LINES),
        };
        let next = self.processes[node].end(exit, self.plan.topology().run.restart);
        self.processes[node].boot += 1;
        self.emit(What::NodeExited { node: name.clone(), exit, expected, last_log });
        match next {
            Next::StayDown => self.check_up(),
            Next::Fail => self.end(EndReason::NodeFailed(name)),
            Next::Restart(pause) => {
                let (inputs, boot) = (self.inputs.clone(), self.processes[node].boot);
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    let _ = inputs.send(Input::RestartDue(node, boot)).await;
                });
            }
        }
    }

    /// Says that the network is up when the last agent is ready.
    fn check_up(&mut self) {
        if self.up || !self.processes.iter().all(|process| process.ready) {
            return;
        }
        self.up = true;
        let bringup_ms = self.begun.elapsed().as_secs_f64() * 1000.0;
        self.emit(What::Up { bringup_ms });
        super::announce(&Started::Ready { bringup_ms });
    }

    fn publish(&mut self, event: Event) {
        self.state.apply(&event);
        if !self.viewers.is_empty() {
            let encoded = frame::encode(&Response::Event(Box::new(event.clone())));
            if let Ok(bytes) = encoded {
                let bytes: Arc<[u8]> = bytes.into();
                self.viewers.retain_mut(|viewer| viewer.show(&bytes));
            }
        }
        self.recorder.record(event);
    }

    fn tick(&mut self, sample: bool) {
        if sample {
            self.count_ring_drops();
        }
        let Ok(snapshot) = self.air.medium().snapshot() else {
            if self.ending.is_none() {
                self.notice(Level::Error, "the air medium has stopped".into());
                self.end(EndReason::NodeFailed("air".into()));
            }
            return;
        };
        let before = self.judge.verdict().clone();
        let meters = self.air.named_meters(&snapshot);
        let now = self
            .judge
            .judge(&snapshot, meters, self.ring_drops, self.state.learning.overruns, self.plan.dilation)
            .clone();
        if (now.verdict, &now.reasons) != (before.verdict, &before.reasons) || sample {
            let changed = now.verdict != before.verdict;
            self.state.fidelity = now.clone();
            if changed {
                self.emit(What::Fidelity(now));
            }
        }
        if sample {
            let links = self.air.counters(&snapshot);
            let nodes = self.node_counters();
            let session_cpu_s = usage(std::process::id() as i32).map_or(0.0, |(cpu_s, _)| cpu_s);
            let lateness_us_p99 = snapshot.lateness.interval.p99_ns as f64 / 1000.0 / self.plan.dilation;
            self.emit(What::Sample(Sample { links, nodes, session_cpu_s, lateness_us_p99 }));
        }
        if !self.recorder_failed
            && let Some(why) = self.recorder.failure()
        {
            self.recorder_failed = true;
            self.notice(Level::Error, why);
        }
    }

    fn next_slot(&mut self) {
        let coherence_ns = (self.plan.coherence_time().seconds() * 1e9).max(1.0);
        let slot = (self.emulated_ns().max(0) as f64 / coherence_ns) as u64;
        if slot == self.slot {
            return;
        }
        self.slot = slot;
        self.set_rates();
    }

    /// Sets the rates of the slot, the time shares and the association in force.
    fn set_rates(&mut self) {
        let slot = self.slot;
        let rates = self.plan.rates_at(slot, &self.shares, &self.association);
        match self.air.set_rates(&rates) {
            Ok(rates) if !rates.is_empty() => self.emit(What::Rates { slot, rates }),
            Ok(_) => {}
            Err(error) => self.notice(Level::Error, format!("rates could not be set: {error}")),
        }
    }

    /// Gives the links the rates of what was decided; loss and delay stay. Whoever sends it may be wrong.
    fn associate(&mut self, decision: &AssociationDecision) {
        let stations = self.plan.bs_count();
        let subchannels = self.plan.topology().radio.subchannels as usize;
        let rows: Vec<Vec<f64>> = decision.tau.chunks(subchannels.max(1)).map(<[f64]>::to_vec).collect();
        let shares = TimeShares::new(&rows).ok().filter(|_| decision.tau.len() == stations * subchannels);
        let known = decision.serving.iter().all(|bs| usize::from(*bs) < stations);
        let (Some(shares), true, true) = (shares, known, decision.serving.len() == self.plan.user_count())
        else {
            let text = format!("round {}: an association that is none of this network", decision.round);
            return self.notice(Level::Error, text);
        };
        let serving = decision.serving.iter().map(|bs| BsId(u32::from(*bs))).collect();
        let next = Association::new(serving);
        for user in self.plan.users() {
            let (Some(old), Some(new)) = (self.association.serving(user.id), next.serving(user.id)) else {
                continue;
            };
            if old != new
                && let Err(error) = self.air.hand_over(&self.plan, user.station, new)
            {
                tracing::error!(user = user.name, %error, "could not be handed over");
            }
        }
        (self.shares, self.association) = (shares, next);
        self.set_rates();
    }

    fn count_ring_drops(&mut self) {
        let dropped = |net: &mut NodeNet| net.stats().map_or(0, |stats| stats.tx_dropped);
        self.ring_drops = self.network.iter_mut().map(dropped).sum();
    }

    fn node_counters(&self) -> Vec<NodeCounters> {
        let nodes = self.plan.nodes.iter().zip(&self.processes);
        nodes
            .filter_map(|(node, process)| {
                let (cpu_s, rss_bytes) = usage(process.pid?)?;
                Some(NodeCounters {
                    node: node.name.clone(),
                    cpu_s,
                    rss_bytes,
                    send_queue_bytes: process.send_queue_bytes,
                })
            })
            .collect()
    }

    /// The next moment at which something ends by itself.
    fn deadline(&self, end: Option<tokio::time::Instant>) -> tokio::time::Instant {
        let start = tokio::time::Instant::from_std(self.begun) + START_TIMEOUT;
        let far = tokio::time::Instant::now() + Duration::from_secs(3600);
        match (&self.ending, self.up) {
            (Some((_, deadline)), _) => *deadline,
            // A run that is over before its nodes are ready ends as soon as they are.
            (None, false) => start,
            (None, true) => end.unwrap_or(far),
        }
    }

    /// Acts on a deadline; whether the session must end now.
    fn pass_deadline(&mut self) -> bool {
        if self.ending.is_some() {
            self.kill_all();
            return true;
        }
        if !self.up {
            let waiting = self.plan.nodes.iter().zip(&self.processes).filter(|(_, process)| !process.ready);
            let names: Vec<_> = waiting.map(|(node, _)| node.name.clone()).collect();
            self.notice(Level::Error, format!("not ready after {START_TIMEOUT:?}: {}", names.join(", ")));
            self.end(EndReason::NodeFailed(names.into_iter().next().unwrap_or_default()));
        } else if self.duration_is_over() {
            self.end(EndReason::Finished);
        }
        false
    }

    fn duration_is_over(&self) -> bool {
        match self.plan.topology().run.duration {
            OrNone::Some(duration) => self.emulated_ns() as f64 >= duration.seconds() * 1e9,
            OrNone::None => false,
        }
    }

    fn end_of_duration(&self) -> Option<tokio::time::Instant> {
        match self.plan.topology().run.duration {
            OrNone::Some(duration) => {
                let passed = Duration::from_nanos(monotonic_ns().saturating_sub(self.epoch_ns));
                let left = duration.in_wall(self.plan.dilation).saturating_sub(passed);
                Some(tokio::time::Instant::now() + left)
            }
            OrNone::None => None,
        }
    }

    fn kill_all(&mut self) {
        for process in &self.processes {
            if let Some(pid) = process.pid {
                let _ = signal(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    /// Takes everything down, in the order that loses nothing: agents are gone, so the counters are final.
    async fn finish(mut self) -> Result<()> {
        let teardown = Instant::now();
        let never_up = !self.up;
        self.tick(true);
        let fidelity = self.judge.verdict().clone();
        self.emit(What::Fidelity(fidelity));
        self.compare_chains();
        let reason = self.ending.take().map_or(EndReason::Asked, |(reason, _)| reason);
        self.emit(What::Ended { reason: reason.clone() });
        self.viewers.clear();
        drop(self.spawner);
        drop(self.air);
        drop(self.network);
        self.recorder.finish();
        let (sender, mut viewers_gone) = self.farewell;
        drop(sender);
        let _ = tokio::time::timeout(FAREWELL, viewers_gone.recv()).await;
        // Whoever asked for the end gets an answer, even where no agent was left to wait for.
        tokio::time::sleep(ANSWER_TIME).await;
        let teardown_ms = teardown.elapsed().as_secs_f64() * 1000.0;
        let written = summary::write(
            &self.run_dir,
            &self.state,
            &self.plan,
            (teardown_ms, self.events_refused),
            self.recorder.failure().as_deref(),
        );
        if never_up {
            let last = self.state.notices.back().map(|(_, _, _, text)| text.clone());
            return Err(Error::Start {
                message: last.unwrap_or_else(|| format!("it ended before the network was up: {reason:?}")),
                help: format!("see {}", self.run_dir.join("logs").display()),
                code: crate::exit::NODE_FAILED,
            });
        }
        written
    }

    /// Looks whether the chains that the nodes kept contradict each other, now that nobody writes to them any more.
    fn compare_chains(&mut self) {
        if !self.up || !self.plan.topology().chain.is_on(self.plan.bs_count()) {
            return;
        }
        let keys = verifying_keys(&self.plan, &self.keys);
        let compared = RunChain::of_plan(&self.run_dir, &self.plan, &keys).and_then(|chain| chain.compare());
        match compared {
            Ok((comparison, unreadable)) => {
                for error in unreadable {
                    self.notice(Level::Warning, format!("left out when the chains were compared: {error}"));
                }
                for conflict in comparison.first_conflicts {
                    let held: Vec<_> =
                        conflict.blocks.iter().map(|(node, digest)| format!("{node} {digest}")).collect();
                    let text = format!("the stores hold different blocks: {}", held.join(", "));
                    self.emit(What::ChainConflict { height: conflict.height, text });
                }
            }
            Err(error) => {
                self.notice(Level::Error, format!("the nodes' chains could not be compared: {error}"));
            }
        }
    }

    /// Emulated nanoseconds since the epoch.
    pub(super) fn emulated_ns(&self) -> i64 {
        let wall = monotonic_ns() as f64 - self.epoch_ns as f64;
        (wall / self.plan.dilation) as i64
    }

    fn fades(&self) -> bool {
        self.ending.is_none() && self.plan.topology().radio.fading != Fading::None
    }

    fn coherence_wall(&self) -> Duration {
        self.plan.coherence_time().in_wall(self.plan.dilation).max(Duration::from_millis(1))
    }

    fn describe(&self) -> SessionStarted {
        let topology = self.plan.topology();
        SessionStarted {
            name: self.name.clone(),
            seed: topology.run.seed,
            dilation: self.plan.dilation,
            version: dtwn_proto::VERSION.into(),
            nodes: self
                .plan
                .nodes
                .iter()
                .map(|node| NodeInfo {
                    name: node.name.clone(),
                    role: role_name(node.role).into(),
                    address: node.main.to_string(),
                    users: node.users.len() as u32,
                })
                .collect(),
            links: self.air.infos().cloned().collect(),
        }
    }

    /// Descriptors of the namespaces that a program enters to be at a node.
    pub(super) fn namespaces_of(&self, node: usize) -> Result<(bool, Vec<OwnedFd>)> {
        let duplicate =
            |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().map_err(Error::file("duplicate", "a namespace"));
        let mut fds = Vec::new();
        let user = self.privilege == Privilege::Unprivileged;
        if user {
            let path = "/proc/self/ns/user";
            fds.push(File::open(path).map_err(Error::file("open", path))?.into());
        }
        fds.push(duplicate(&self.network[node].namespace)?);
        fds.push(duplicate(&self.place.pid)?);
        fds.push(duplicate(&self.place.mounts)?);
        Ok((user, fds))
    }
}

impl Viewer {
    /// Hands an event to the viewer, or counts it as left out; whether the viewer is still there.
    fn show(&mut self, frame: &Arc<[u8]>) -> bool {
        if self.skipped > 0 && self.live.try_send(Live::Skipped(self.skipped)).is_ok() {
            self.skipped = 0;
        }
        match self.live.try_send(Live::Event(Arc::clone(frame))) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.skipped += 1;
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// Carries frames between an agent and the session until either goes.
async fn converse(
    stream: tokio::net::UnixStream,
    node: usize,
    boot: u64,
    mut orders: mpsc::Receiver<ToAgent>,
    inputs: mpsc::Sender<Input>,
) {
    use tokio::io::AsyncWriteExt;
    let (mut reader, mut writer) = stream.into_split();
    let write = async move {
        while let Some(order) = orders.recv().await {
            let Ok(bytes) = frame::encode(&order) else { continue };
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let read = async move {
        loop {
            match super::control::read_frame::<FromAgent>(&mut reader, frame::BODY_BYTES_MAX).await {
                Ok(frame) => {
                    if inputs.send(Input::Agent(node, boot, Box::new(frame))).await.is_err() {
                        return;
                    }
                }
                Err(frame::FrameError::Malformed(error)) => {
                    // The length is known, so the stream goes on behind the frame that did not decode.
                    tracing::warn!(node, %error, "an agent sent a frame that does not decode");
                }
                Err(_) => return,
            }
        }
    };
    tokio::join!(write, read);
}

fn spawn_signal_task(inputs: mpsc::Sender<Input>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(Error::file("listen for", "signals"));
    let (mut interrupt, mut terminate, mut hangup) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
                // The terminal that started the session has gone; the session stays.
                _ = hangup.recv() => continue,
            };
            if inputs.send(Input::Signal(number)).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Sends a signal to a process of ours.
pub(super) fn signal(pid: i32, signal: nix::sys::signal::Signal) -> nix::Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)
}

/// A node's key, from the seed: two runs of one topology have the same identities.
fn node_key(seed: u64, node: usize) -> ed25519_dalek::SigningKey {
    let mut hasher = blake3::Hasher::new_derive_key("dtwn node signing key v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(node as u64).to_le_bytes());
    ed25519_dalek::SigningKey::from_bytes(hasher.finalize().as_bytes())
}

/// The nodes' public keys.
fn verifying_keys(plan: &Plan, keys: &[ed25519_dalek::SigningKey]) -> Vec<(String, [u8; 32])> {
    let nodes = plan.nodes.iter().zip(keys);
    nodes.map(|(node, key)| (node.name.clone(), key.verifying_key().to_bytes())).collect()
}

/// The role as events name it.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Mbs => "mbs",
        Role::Bs(_) => "bs",
        Role::Users => "users",
    }
}

pub(super) fn monotonic_ns() -> u64 {
    // CLOCK_MONOTONIC exists on every Linux.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}
