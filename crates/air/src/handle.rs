//! The caller's side of the medium: starting it, changing it while it runs, reading its counters.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

use crate::capture::{CaptureFilter, CaptureThread, CaptureWriter, Tap};
use crate::core::Core;
use crate::driver::Driver;
use crate::error::AirError;
use crate::meters::AirSnapshot;
use crate::spec::{AirSpec, EndpointId, LinkId, LinkPatch, LinkProperties, StationId};

/// How the medium uses this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The largest packet, bytes: the TUNs' MTU.
    pub mtu: u16,
    /// Bound on the memory for packets, bytes. Beyond it packets are dropped as `host`.
    pub buffer_bytes_max: u64,
    /// Scheduling slice asked for the medium's thread, ns; `None` leaves the kernel's default. A short slice lets
    /// it run sooner after a timer fires while other processes keep the cores busy.
    pub slice_ns: Option<u64>,
    /// Whether the medium's thread asks for a real-time priority, which only privileged processes get; with it the slice
    /// plays no part. It keeps the medium punctual beside any load.
    pub realtime: bool,
    /// The medium sleeps no shorter than this for a deadline (a packet that comes in wakes it at once), so that
    /// deadlines close together cost one wake-up. Packets may be late by as much.
    pub coalesce_ns: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mtu: 1500,
            buffer_bytes_max: 512 << 20,
            slice_ns: Some(200_000),
            realtime: true,
            coalesce_ns: 50_000,
        }
    }
}

/// The air medium.
#[derive(Debug)]
pub struct Medium;

impl Medium {
    /// Starts the medium on an OS thread of its own. `tuns[i]` is the TUN of `spec.endpoints[i]`: opened without
    /// packet information and without offload, so that each read gives one whole IP packet.
    ///
    /// # Errors
    /// What is wrong with the specification, or the system call that failed. Nothing runs in that case.
    pub fn start(spec: AirSpec, tuns: Vec<OwnedFd>, options: Options) -> Result<MediumHandle, AirError> {
        if tuns.len() != spec.endpoints.len() {
            return Err(AirError::Tuns { tuns: tuns.len(), endpoints: spec.endpoints.len() });
        }
        let endpoints = spec.endpoints.len();
        let names =
            spec.endpoints.iter().map(|e| e.name.clone()).chain(spec.links.iter().map(|l| l.name.clone()));
        let interfaces = names.collect();
        let core = Core::new(spec, options.mtu, options.buffer_bytes_max)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| AirError::io("making the medium's wake-up descriptor")(errno.into()))?;
        let wake = Arc::new(wake);
        let (commands, queue) = channel();
        let driver = Driver::new(core, tuns, Arc::clone(&wake), queue, options.coalesce_ns)?;
        let thread = std::thread::Builder::new()
            .name("air".to_owned())
            .spawn(move || driver.run(options))
            .map_err(AirError::io("starting the medium's thread"))?;
        Ok(MediumHandle {
            commands,
            wake,
            thread: Some(thread),
            interfaces,
            endpoints,
            captures: Mutex::default(),
            capture_next: AtomicU32::new(0),
        })
    }
}

/// Names a running capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CaptureId(pub u32);

type Reply<T> = SyncSender<Result<T, AirError>>;

/// What the handle asks of the medium's thread.
pub(crate) enum Command {
    Patch(Vec<(LinkId, LinkPatch)>, Reply<()>),
    Attach(StationId, StationId, Reply<()>),
    SetOverride(StationId, StationId, Box<LinkProperties>, Reply<()>),
    ClearOverride(StationId, StationId, Reply<()>),
    Block(Vec<(EndpointId, EndpointId)>, Reply<()>),
    Heal(Reply<()>),
    Snapshot(Reply<AirSnapshot>),
    AddTap(Tap, Reply<()>),
    RemoveTap(u32, Reply<()>),
    Stop(Reply<AirSnapshot>),
}

/// Steers a running medium. Each call waits for the medium's thread to act, typically well under a millisecond.
/// Dropping the handle stops the medium.
#[derive(Debug)]
pub struct MediumHandle {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<Result<(), AirError>>>,
    /// Names for captures: endpoints, then links.
    interfaces: Arc<[String]>,
    endpoints: usize,
    captures: Mutex<HashMap<CaptureId, CaptureThread>>,
    capture_next: AtomicU32,
}

impl MediumHandle {
    /// Changes properties of links. All patches are checked before any is applied, and all are applied at one
    /// instant. A packet being sent goes on at the new rate.
    ///
    /// # Errors
    /// [`AirError::Unknown`] or [`AirError::Property`]; nothing has changed then.
    pub fn patch_links(&self, patches: Vec<(LinkId, LinkPatch)>) -> Result<(), AirError> {
        self.ask(|reply| Command::Patch(patches, reply))
    }

    /// Moves a station (and all below it) under another parent, with the same links. Packets already inside the
    /// medium find their way from where they are.
    ///
    /// # Errors
    /// [`AirError::Unknown`], [`AirError::Root`] or [`AirError::Cycle`]; nothing has changed then.
    pub fn attach(&self, station: StationId, parent: StationId) -> Result<(), AirError> {
        self.ask(|reply| Command::Attach(station, parent, reply))
    }

    /// Adds a virtual link that packets from one station to the other pass last, or replaces its properties.
    ///
    /// # Errors
    /// [`AirError::Unknown`] or [`AirError::Property`]; nothing has changed then.
    pub fn set_override(&self, from: StationId, to: StationId, link: LinkProperties) -> Result<(), AirError> {
        self.ask(|reply| Command::SetOverride(from, to, Box::new(link), reply))
    }

    /// Removes a virtual link, if there is one. Packets inside it go on.
    ///
    /// # Errors
    /// [`AirError::Unknown`] for a station that does not exist.
    pub fn clear_override(&self, from: StationId, to: StationId) -> Result<(), AirError> {
        self.ask(|reply| Command::ClearOverride(from, to, reply))
    }

    /// Drops from now on every packet from the first endpoint of a pair to the second, at the entry of the next
    /// link on its way. Pairs are directed and add to those blocked before; a partition names both directions.
    ///
    /// # Errors
    /// [`AirError::Unknown`]; nothing has changed then.
    pub fn block(&self, pairs: Vec<(EndpointId, EndpointId)>) -> Result<(), AirError> {
        self.ask(|reply| Command::Block(pairs, reply))
    }

    /// Ends every partition.
    ///
    /// # Errors
    /// [`AirError::Stopped`].
    pub fn heal(&self) -> Result<(), AirError> {
        self.ask(Command::Heal)
    }

    /// The counters now. Starts a new interval for the interval summaries.
    ///
    /// # Errors
    /// [`AirError::Stopped`].
    pub fn snapshot(&self) -> Result<AirSnapshot, AirError> {
        self.ask(Command::Snapshot)
    }

    /// Starts to record packets as pcapng into `writer`. A slow writer loses records (counted as
    /// `capture_missed`), never packets.
    ///
    /// # Errors
    /// [`AirError::Unknown`] for a filter that names nothing, [`AirError::Io`] when the writer's thread cannot start.
    pub fn capture(&self, filter: CaptureFilter, writer: CaptureWriter) -> Result<CaptureId, AirError> {
        let id = self.capture_next.fetch_add(1, Ordering::Relaxed);
        let names = Arc::clone(&self.interfaces);
        let (tap, thread) = crate::capture::start(id, filter, writer, names, self.endpoints)?;
        self.ask(|reply| Command::AddTap(tap, reply))?;
        self.captures.lock().unwrap_or_else(PoisonError::into_inner).insert(CaptureId(id), thread);
        Ok(CaptureId(id))
    }

    /// Ends a capture once everything recorded is written, and gives the writer back.
    ///
    /// # Errors
    /// [`AirError::Capture`] for a capture that has ended, [`AirError::Io`] when writing failed.
    pub fn stop_capture(&self, capture: CaptureId) -> Result<CaptureWriter, AirError> {
        let thread = self.captures.lock().unwrap_or_else(PoisonError::into_inner).remove(&capture);
        let thread = thread.ok_or(AirError::Capture(capture.0))?;
        self.ask(|reply| Command::RemoveTap(capture.0, reply))?;
        finish(thread)
    }

    /// Stops the medium, closes the TUN descriptors, lets running captures finish and returns the last counters.
    /// Packets inside are discarded.
    ///
    /// # Errors
    /// The error that ended the thread before, if one did.
    pub fn stop(mut self) -> Result<AirSnapshot, AirError> {
        let last = self.ask(Command::Stop);
        self.join()?;
        last
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, AirError> {
        let (reply, answer) = sync_channel(1);
        self.commands.send(command(reply)).map_err(|_| AirError::Stopped)?;
        self.wake();
        answer.recv().map_err(|_| AirError::Stopped)?
    }

    /// The counter of an eventfd only overflows after 2^64 − 2 unread wake-ups, so the result says nothing.
    fn wake(&self) {
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    fn join(&mut self) -> Result<(), AirError> {
        let result = match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(AirError::Stopped),
        };
        // Their taps ended with the medium's thread.
        let captures = std::mem::take(self.captures.get_mut().unwrap_or_else(PoisonError::into_inner));
        for (id, thread) in captures {
            if let Err(error) = finish(thread) {
                tracing::warn!(capture = id.0, %error, "a capture is incomplete");
            }
        }
        result
    }
}

impl Drop for MediumHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // A medium that has already ended has nothing left to stop.
            let _ = self.ask(Command::Stop);
            let _ = self.join();
        }
    }
}

fn finish(capture: CaptureThread) -> Result<CaptureWriter, AirError> {
    let written = capture.join().map_err(|_| AirError::Stopped)?;
    written.map_err(AirError::io("writing a capture"))
}

pub(crate) type CommandQueue = Receiver<Command>;
