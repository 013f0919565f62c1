//! The medium's thread: waits for packets and deadlines, and moves packets between the TUNs and the core.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::capture::{Taps, clock_ns};
use crate::core::{Buffer, Core};
use crate::error::AirError;
use crate::forward::set_nonblocking;
use crate::handle::{Command, CommandQueue, Options};
use crate::meters::AirSnapshot;
use crate::spec::EndpointId;

/// Packets read from one TUN before the others have their turn.
const BATCH: usize = 64;

/// TUNs served in one turn; the rest are found ready in the next.
const READY: usize = 64;

/// The epoll tag of the wake-up descriptor; TUNs have their endpoint's number.
const WAKE: u64 = u64::MAX;

pub(crate) struct Driver {
    core: Core,
    tuns: Vec<OwnedFd>,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    commands: CommandQueue,
    taps: Taps,
    /// What packets are read into.
    buffer: Buffer,
    coalesce_ns: u64,
}

/// Asks for what makes the calling thread run soon after its timers fire. Without any of it the medium still works, and its
/// lateness shows.
fn be_punctual(options: Options) {
    if let Err(error) = dtwn_sys::sched::set_timer_slack_ns(1) {
        tracing::warn!(%error, "the medium keeps the default timer slack");
    }
    if options.realtime {
        match dtwn_sys::sched::set_round_robin() {
            Ok(()) => return,
            Err(error) => tracing::info!(%error, "the medium has the priority of any other thread"),
        }
    }
    if let Some(slice_ns) = options.slice_ns
        && let Err(error) = dtwn_sys::sched::set_slice_ns(slice_ns)
    {
        tracing::info!(%error, "the medium keeps the default scheduling slice");
    }
}

/// Whether the thread goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

fn now() -> u64 {
    clock_ns(ClockId::Monotonic)
}

impl Driver {
    pub(crate) fn new(
        mut core: Core,
        tuns: Vec<OwnedFd>,
        wake: Arc<OwnedFd>,
        commands: CommandQueue,
        coalesce_ns: u64,
    ) -> Result<Self, AirError> {
        let fail = |what| move |errno: Errno| AirError::io(what)(errno.into());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(fail("making an epoll descriptor"))?;
        epoll::add(&epoll, &*wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)
            .map_err(fail("watching the wake-up descriptor"))?;
        for (index, tun) in tuns.iter().enumerate() {
            set_nonblocking(tun)?;
            epoll::add(&epoll, tun, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)
                .map_err(fail("watching a TUN"))?;
        }
        let buffer = core.read_buffer().ok_or(AirError::Stopped)?;
        Ok(Self { core, tuns, epoll, wake, commands, taps: Taps::default(), buffer, coalesce_ns })
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self, options: Options) -> Result<(), AirError> {
        be_punctual(options);
        let mut ready = Vec::with_capacity(READY);
        while self.turn(&mut ready)? == Flow::Go {}
        Ok(())
    }

    fn turn(&mut self, ready: &mut Vec<epoll::Event>) -> Result<Flow, AirError> {
        self.core.advance(now());
        self.write_due();
        self.wait(ready)?;
        self.core.found_ready(now());
        let mut flow = Flow::Go;
        for event in ready.drain(..) {
            match event.data.u64() {
                WAKE => flow = self.obey(),
                endpoint => self.read(endpoint as usize),
            }
        }
        Ok(flow)
    }

    /// Waits for a packet, a command or the next deadline.
    fn wait(&self, ready: &mut Vec<epoll::Event>) -> Result<(), AirError> {
        let timeout = self.core.next_deadline().map(|deadline| {
            let left = match deadline.saturating_sub(now()) {
                0 => 0,
                left => left.max(self.coalesce_ns),
            };
            Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as _ }
        });
        match epoll::wait(&self.epoll, spare_capacity(ready), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(AirError::io("waiting for packets")(errno.into())),
        }
    }

    /// Reads a batch from a TUN; what passes without delay is written at once.
    fn read(&mut self, index: usize) {
        let endpoint = EndpointId(index as u16);
        for _ in 0..BATCH {
            match rustix::io::read(&self.tuns[index], &mut *self.buffer) {
                Ok(0) => return self.abandon(endpoint, Errno::NODEV),
                Ok(len) => {
                    self.core.ingress(endpoint, &mut self.buffer, len, now());
                    self.write_due();
                }
                Err(Errno::AGAIN) => return self.core.set_backlogged(endpoint, false, now()),
                Err(Errno::INTR) => {}
                Err(errno) => return self.abandon(endpoint, errno),
            }
        }
        self.core.set_backlogged(endpoint, true, now());
    }

    /// A TUN that cannot be read any more, because its interface was deleted, would be reported ready for ever.
    fn abandon(&mut self, endpoint: EndpointId, errno: Errno) {
        tracing::warn!(endpoint = endpoint.0, %errno, "a TUN cannot be read any more");
        self.core.set_backlogged(endpoint, false, now());
        if let Err(errno) = epoll::delete(&self.epoll, &self.tuns[endpoint.index()]) {
            tracing::warn!(endpoint = endpoint.0, %errno, "a TUN stays watched");
        }
    }

    fn write_due(&mut self) {
        while let Some(delivery) = self.core.pop_delivery() {
            let at = now();
            let tun = &self.tuns[delivery.endpoint.index()];
            let taken = rustix::io::write(tun, delivery.bytes()).is_ok();
            self.core.written(delivery, at, taken);
        }
    }

    fn obey(&mut self) -> Flow {
        // Level-triggered: the counter must be read, its value says nothing.
        let _ = rustix::io::read(&*self.wake, &mut [0u8; 8]);
        loop {
            match self.commands.try_recv() {
                Ok(command) => {
                    if self.execute(command) == Flow::Stop {
                        return Flow::Stop;
                    }
                }
                Err(TryRecvError::Empty) => return Flow::Go,
                Err(TryRecvError::Disconnected) => return Flow::Stop,
            }
        }
    }

    fn execute(&mut self, command: Command) -> Flow {
        let core = &mut self.core;
        // Whoever asked may have stopped waiting for the answer.
        match command {
            Command::Patch(patches, reply) => drop(reply.send(core.patch_links(&patches, now()))),
            Command::Attach(station, parent, reply) => drop(reply.send(core.attach(station, parent, now()))),
            Command::SetOverride(from, to, link, reply) => {
                drop(reply.send(core.set_override(from, to, *link, now())));
            }
            Command::ClearOverride(from, to, reply) => {
                drop(reply.send(core.clear_override(from, to, now())));
            }
            Command::Block(pairs, reply) => drop(reply.send(core.block(&pairs, now()))),
            Command::Heal(reply) => {
                core.heal(now());
                drop(reply.send(Ok(())));
            }
            Command::Snapshot(reply) => drop(reply.send(Ok(self.snapshot()))),
            Command::AddTap(tap, reply) => {
                self.taps.add(tap);
                core.set_observer(Some(Box::new(self.taps.clone())));
                drop(reply.send(Ok(())));
            }
            Command::RemoveTap(id, reply) => {
                let left = self.taps.remove(id);
                if matches!(left, Ok(true)) {
                    core.set_observer(None);
                }
                drop(reply.send(left.map(|_| ())));
            }
            Command::Stop(reply) => {
                drop(reply.send(Ok(self.snapshot())));
                return Flow::Stop;
            }
        }
        Flow::Go
    }

    fn snapshot(&mut self) -> AirSnapshot {
        let mut snapshot = self.core.snapshot(now());
        snapshot.cpu_ns = clock_ns(ClockId::ThreadCPUTime);
        snapshot.totals.capture_missed = self.taps.missed();
        snapshot
    }
}
