//! What a session does when it is asked.

use std::{fs::File, io::Write, os::fd::OwnedFd};

use dtwn_air::CaptureFilter;
use dtwn_model::{plan::Role, suggest, topology::Poison};
use dtwn_proto::{
    agent::ToAgent,
    control::{
        CaptureOf, LinkChange, LinkStatus, NodeAction, NodeStatus, Request, Response, Status, TwinStatus,
    },
    event::{EndReason, TwinAge, What},
};
use nix::sys::signal::Signal;

use super::{
    actor::{Session, monotonic_ns, signal},
    control::{Answer, Question},
    processes::Expected,
};
use crate::error::{Error, Result};

impl Session {
    /// Answers a question; a failure is an answer too.
    pub(super) fn answer(&mut self, question: Question) {
        let answer = match self.act(question.request, question.descriptor) {
            Ok(answer) => answer,
            Err(error) => Answer::Message(Box::new(Response::Refused(error.to_string()))),
        };
        // A client that has gone needs no answer.
        let _ = question.answer.send(answer);
    }

    fn act(&mut self, request: Request, descriptor: Option<OwnedFd>) -> Result<Answer> {
        match request {
            Request::Status => return Ok(message(Response::Status(Box::new(self.status())))),
            Request::Subscribe { history } => return Ok(Answer::Events(self.subscribe(history))),
            Request::Enter { node } => {
                let node = self.node(&node)?;
                let (user, fds) = self.namespaces_of(node)?;
                return Ok(Answer::Namespaces(user, fds));
            }
            Request::Capture { of } => return self.capture(of, descriptor),
            Request::SetLink { from, to, change } => self.set_link(&from, &to, &change)?,
            Request::Partition { groups, one_way } => self.partition(groups, one_way)?,
            Request::Heal => {
                self.air.heal()?;
                self.blocked.clear();
                self.emit(What::Healed);
            }
            Request::Node { node, action } => self.act_on_node(&node, action)?,
            Request::Poison { node, kind } => self.poison(&node, kind)?,
            Request::Stop { signal } => self.end(signal.map_or(EndReason::Asked, EndReason::Signal)),
        }
        Ok(message(Response::Done))
    }

    fn set_link(&mut self, from: &str, to: &str, change: &LinkChange) -> Result<()> {
        let text = describe(change);
        if text.is_empty() {
            return Err(Error::Refused("nothing to change: name at least one property".into()));
        }
        let now = self.air.change(from, to, change)?;
        self.emit(What::LinkChanged { link: now.name.clone(), change: text, now });
        Ok(())
    }

    fn partition(&mut self, groups: Vec<Vec<String>>, one_way: bool) -> Result<()> {
        if groups.len() < 2 || groups.iter().any(Vec::is_empty) {
            return Err(Error::Refused("a partition needs at least two groups of nodes".into()));
        }
        let mut seen = std::collections::HashSet::new();
        for name in groups.iter().flatten() {
            self.node(name)?;
            if !seen.insert(name) {
                return Err(Error::Refused(format!("{name} is named twice")));
            }
        }
        let mut pairs = Vec::new();
        for (i, group) in groups.iter().enumerate() {
            for (j, other) in groups.iter().enumerate() {
                if i != j && (!one_way || i == 0) {
                    pairs.extend(group.iter().flat_map(|a| other.iter().map(|b| (a.clone(), b.clone()))));
                }
            }
        }
        self.air.block(&pairs)?;
        for pair in pairs {
            if !self.blocked.contains(&pair) {
                self.blocked.push(pair);
            }
        }
        self.emit(What::Partitioned { groups, one_way });
        Ok(())
    }

    fn act_on_node(&mut self, name: &str, action: NodeAction) -> Result<()> {
        let node = self.node(name)?;
        let Some(pid) = self.processes[node].pid else {
            if action == NodeAction::Restart {
                // Down for good by its policy, or in its backoff: the next boot count makes a pending restart void.
                self.processes[node].boot += 1;
                let (inputs, boot) = (self.inputs.clone(), self.processes[node].boot);
                tokio::spawn(async move {
                    let _ = inputs.send(super::Input::RestartDue(node, boot)).await;
                });
                return Ok(());
            }
            return Err(Error::Refused(format!(
                "{name} has no process now; `dtwn restart {name}` starts one"
            )));
        };
        let failed = |errno| Error::Refused(format!("{name} (pid {pid}) does not take signals: {errno}"));
        match action {
            NodeAction::Kill => {
                self.processes[node].expected = Expected::Killed;
                signal(pid, Signal::SIGKILL).map_err(failed)?;
            }
            NodeAction::Pause | NodeAction::Resume => {
                let paused = action == NodeAction::Pause;
                signal(pid, if paused { Signal::SIGSTOP } else { Signal::SIGCONT }).map_err(failed)?;
                self.processes[node].paused = paused;
                self.emit(What::NodePaused { node: name.to_owned(), paused });
            }
            NodeAction::Restart => {
                self.processes[node].expected = Expected::Restart;
                let asked = self.processes[node]
                    .to_agent
                    .as_ref()
                    .is_some_and(|to| to.try_send(ToAgent::Stop).is_ok());
                if !asked || self.processes[node].paused {
                    signal(pid, Signal::SIGKILL).map_err(failed)?;
                } else {
                    self.kill_unless_gone(node);
                }
            }
        }
        Ok(())
    }

    fn poison(&mut self, name: &str, kind: Option<String>) -> Result<()> {
        let node = self.node(name)?;
        if !matches!(self.plan.nodes[node].role, Role::Bs(_)) {
            return Err(Error::Refused(format!("{name} is no base station: only those train models")));
        }
        if !self.plan.topology().learning.trains() {
            let why = "nothing is trained in this run: the topology needs `[learning] learner = \"torch\"`";
            return Err(Error::Refused(why.into()));
        }
        if self.plan.topology().learning.poison.get(name) == Some(&Poison::LabelFlip) {
            let why =
                "has had the labels of its twins turned since the start of the run: no order changes that";
            return Err(Error::Refused(format!("{name} {why}; leave it out of [learning.poison]")));
        }
        if let Some(kind) = kind.as_ref().filter(|kind| Poison::live(kind).is_none()) {
            let known: Vec<_> = Poison::LIVE.map(Poison::name).into();
            let help = "`label-flip` has to be in the topology ([learning.poison]), as twins get their data at the start";
            return Err(Error::Refused(format!("`{kind}` is none of {}, none; {help}", known.join(", "))));
        }
        if let Some(to_agent) = &self.processes[node].to_agent
            && to_agent.try_send(ToAgent::Poison(kind.clone())).is_err()
        {
            return Err(Error::Refused(format!("{name} does not take orders now; try again")));
        }
        self.processes[node].poison = Some(kind.clone());
        self.emit(What::NodePoisoned { node: name.to_owned(), kind });
        Ok(())
    }

    /// Kills a process that does not follow its order to stop.
    fn kill_unless_gone(&self, node: usize) {
        let (inputs, boot) = (self.inputs.clone(), self.processes[node].boot);
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            let _ = inputs.send(super::Input::StopOverdue(node, boot)).await;
        });
    }

    fn capture(&mut self, of: CaptureOf, descriptor: Option<OwnedFd>) -> Result<Answer> {
        let Some(descriptor) = descriptor else {
            return Err(Error::Refused("a capture needs a file to write to".into()));
        };
        let filter = match of {
            CaptureOf::Everything => CaptureFilter::All,
            CaptureOf::Node(name) => {
                self.node(&name)?;
                CaptureFilter::Endpoint(self.air.endpoint(&name)?)
            }
            CaptureOf::Link { from, to } => CaptureFilter::Link(self.air.link_id(&from, &to)?),
        };
        let writer: Box<dyn Write + Send> = Box::new(File::from(descriptor));
        let id = self.air.medium().capture(filter, writer)?;
        self.captures.insert(id.0, id);
        Ok(message(Response::Capturing { id: id.0 }))
    }

    /// Ends a capture whose client has gone.
    pub(super) fn stop_capture(&mut self, id: u32) {
        if let Some(id) = self.captures.remove(&id)
            && let Err(error) = self.air.medium().stop_capture(id)
        {
            // A reader that has gone is how most captures into a pipe end.
            tracing::info!(%error, "a capture ended");
        }
    }

    fn node(&self, name: &str) -> Result<usize> {
        self.plan.nodes.iter().position(|node| node.name == name).ok_or_else(|| {
            let names = self.plan.nodes.iter().map(|node| node.name.as_str());
            let hint = suggest(name, names).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            Error::Refused(format!("there is no node `{name}` in {}{hint}", self.name))
        })
    }

    fn status(&self) -> Status {
        let wall_s = monotonic_ns().saturating_sub(self.epoch_ns) as f64 / 1e9;
        let nodes = self.state.nodes.values().map(|node| NodeStatus {
            name: node.info.name.clone(),
            role: node.info.role.clone(),
            address: node.info.address.clone(),
            state: node.phase.as_str().into(),
            pid: node.pid,
            exit: node.exit,
            restarts: node.restarts,
            used: node.used.clone(),
        });
        let links = self
            .state
            .links
            .values()
            .map(|link| LinkStatus { info: link.info.clone(), counters: link.counters.clone() });
        let of_bs = |(bs, age): &(String, TwinAge)| TwinStatus { bs: bs.clone(), age: age.clone() };
        let twins = self.state.twins.values().map(of_bs);
        Status {
            schema: dtwn_proto::EVENT_SCHEMA,
            name: self.name.clone(),
            pid: std::process::id(),
            run_dir: self.run_dir.clone(),
            emulated_s: self.emulated_ns() as f64 / 1e9,
            wall_s,
            dilation: self.plan.dilation,
            fidelity: self.state.fidelity.clone(),
            rounds: self.state.rounds,
            nodes: nodes.collect(),
            links: links.collect(),
            twins: twins.collect(),
            blocked: self.blocked.clone(),
        }
    }
}

fn message(response: Response) -> Answer {
    Answer::Message(Box::new(response))
}

/// A change in words; empty when it changes nothing.
fn describe(change: &LinkChange) -> String {
    let mut words: Vec<String> =
        change.reset.then(|| "as the topology has it".to_owned()).into_iter().collect();
    let mut add =
        |name: &str, value: Option<String>| words.extend(value.map(|value| format!("{name} {value}")));
    let ms = |value: Option<f64>| value.map(|ms| format!("{ms} ms"));
    let share = |value: Option<f64>| value.map(|share| format!("{} %", share * 100.0));
    add("delay", ms(change.delay_ms));
    add("jitter", ms(change.jitter_ms));
    add("loss", share(change.loss));
    add("rate", change.rate_bps.map(|bps| format!("{:.3} Mbit/s", bps / 1e6)));
    add("duplicate", share(change.duplicate));
    add("corrupt", share(change.corrupt));
    add("reorder", share(change.reorder));
    add("queue", change.queue_bytes.map(|bytes| format!("{bytes} B")));
    words.extend(change.up.map(|up| if up { "up".to_owned() } else { "down".to_owned() }));
    words.join(", ")
}
