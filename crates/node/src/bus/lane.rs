//! A lane: the task that keeps one class of traffic with one peer going.
//!
//! It owns the lane's connections and its inbox, packs frames from the outbox, and decides when to dial, to switch and to
//! give up. Every turn handles what has happened, sends what can be sent, and sleeps until the next deadline.

use super::config::{Clock, Timing};
use super::conn::{Accepted, Conn, Event, NewConn, Origin, Rtt};
use super::dial::{Dialler, Identity, Opened};
use super::inbox::Inbox;
use super::message::Held;
use super::queue::LaneShared;
use super::seal::{self, Context, End, FrameKeys, Share};
use super::stats::Reject;
use dtwn_proto::bus::{Class, Envelope, Frame, Received, Welcome};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Events handled before the lane sends again, so that acknowledgements share frames.
const EVENTS_PER_TURN: usize = 16;

/// Connections of a lane that say to come from the peer and have not proved it.
const CANDIDATES_MAX: usize = 16;

/// What the control lane tells the bulk lane of the same peer: bulk dials only while control is up, and when control had to
/// be rebuilt, bulk's old connection is stalled as well.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinkState {
    up: bool,
    rebuilt: Option<Instant>,
}

/// Everything a lane is made of.
pub(crate) struct LaneParts {
    pub(crate) shared: Arc<LaneShared>,
    pub(crate) inbox: Inbox,
    pub(crate) dialler: Dialler,
    pub(crate) me: Identity,
    pub(crate) timing: Timing,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    pub(crate) sink: mpsc::UnboundedSender<Held>,
    /// Room for messages of this class from all peers.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) link: watch::Sender<LinkState>,
}

type RoomWait = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// See the module.
pub(crate) struct Lane {
    parts: LaneParts,
    link: watch::Receiver<LinkState>,
    heartbeat: Duration,
    conns: Vec<Conn>,
    next_conn: u64,
    /// The connection over which messages leave.
    out: Option<u64>,
    /// Whether that one has held long enough to count.
    proven: bool,
    /// The connection on which the latest units came.
    source: Option<u64>,
    /// The peer's incarnation: the highest that has proved itself.
    peer_boot: Option<u64>,
    /// The incarnation that the outbox's marks belong to.
    outbox_boot: Option<u64>,
    /// Highest dial of that incarnation that has proved itself.
    accepted_dial: u64,
    room_wait: Option<RoomWait>,
    rtt: Rtt,
    /// Origin of the stamps in frames.
    origin: Instant,
}

impl Lane {
    pub(crate) fn new(parts: LaneParts) -> Self {
        let heartbeat = match parts.shared.class {
            Class::Control => parts.timing.heartbeat,
            Class::Bulk => parts.timing.heartbeat * 2,
        };
        Self {
            link: parts.link.subscribe(),
            parts,
            heartbeat,
            conns: Vec::new(),
            next_conn: 0,
            out: None,
            proven: false,
            source: None,
            peer_boot: None,
            outbox_boot: None,
            accepted_dial: 0,
            room_wait: None,
            rtt: Rtt::default(),
            origin: Instant::now(),
        }
    }

    /// Runs until it is aborted or the application has dropped its receiver.
    pub(crate) async fn run(mut self) {
        while !self.parts.sink.is_closed() {
            let now = Instant::now();
            self.bury(now);
            self.hand_over();
            self.flush(now).await;
            let deadline = self.deadline(now);
            tokio::select! {
                event = self.parts.events.1.recv() => {
                    if let Some(event) = event {
                        self.handle(event).await;
                    }
                    for _ in 1..EVENTS_PER_TURN {
                        match self.parts.events.1.try_recv() {
                            Ok(event) => self.handle(event).await,
                            Err(_) => break,
                        }
                    }
                }
                () = self.parts.shared.wake.notified() => {}
                opened = self.parts.dialler.finished() => match opened {
                    Ok(opened) => self.adopt(opened),
                    Err(Some(reject)) => self.parts.shared.rejected.add(reject),
                    Err(None) => {}
                },
                room = granted(&mut self.room_wait) => {
                    self.room_wait = None;
                    self.parts.inbox.grant(room);
                }
                Ok(()) = self.link.changed(), if self.parts.shared.class == Class::Bulk => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
    }

    async fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Accepted(accepted) => {
                if let Err(reject) = self.welcome(*accepted, now).await {
                    self.parts.shared.rejected.add(reject);
                }
            }
            Event::Frame { conn, frame } => {
                if let Err(reject) = self.take_frame(conn, frame, now) {
                    self.parts.shared.rejected.add(reject);
                    self.remove(conn);
                }
            }
            Event::Gone { conn, reject } => {
                if let Some(reject) = reject {
                    self.parts.shared.rejected.add(reject);
                }
                self.remove(conn);
            }
        }
    }

    /// Answers a hello. The connection stays a stranger until its first frame.
    async fn welcome(&mut self, accepted: Accepted, now: Instant) -> Result<(), Reject> {
        let Accepted { mut sender, receiver, hello, sealed_hello, permit } = accepted;
        if self.outdated(hello.boot, hello.dial) {
            return Err(Reject::Replayed);
        }
        let same = self.peer_boot == Some(hello.boot);
        let received = if same { self.parts.inbox.received() } else { Received::default() };
        let share = Share::fresh();
        let welcome = Welcome { boot: self.parts.me.boot, share: share.public(), received };
        let context = Context::welcome(&sealed_hello);
        let sealed = seal::seal(&Envelope::Welcome(welcome), &context, &self.parts.me.key);
        let keys = FrameKeys::agree(End::Accepted, &share, hello.share, &sealed_hello, &sealed)?;
        if sender.send(sealed).await.is_err() {
            return Ok(());
        }
        let candidates = self.conns.iter().filter(|conn| !conn.confirmed()).count();
        if candidates >= CANDIDATES_MAX
            && let Some(oldest) = self.conns.iter().position(|conn| !conn.confirmed())
        {
            self.conns.remove(oldest);
        }
        let origin = Origin::Accepted { dial: hello.dial, stranger: Some(permit) };
        self.add(origin, hello.boot, sender, receiver, keys, now);
        Ok(())
    }

    /// Whether a dial is older than the latest that has proved itself.
    fn outdated(&self, boot: u64, dial: u64) -> bool {
        self.peer_boot.is_some_and(|known| (boot, dial) <= (known, self.accepted_dial))
    }

    fn add(
        &mut self,
        origin: Origin,
        boot: u64,
        sender: super::link::LinkSender,
        receiver: super::link::LinkReceiver,
        keys: FrameKeys,
        now: Instant,
    ) -> u64 {
        let id = self.next_conn;
        self.next_conn += 1;
        let (events, wake) = (&self.parts.events.0, &self.parts.shared.wake);
        self.conns.push(Conn::new(NewConn { id, origin, boot, sender, receiver, keys, events, wake }, now));
        id
    }

    /// A dial has succeeded: its connection takes over, unless the old one has come back to life.
    fn adopt(&mut self, opened: Opened) {
        let now = Instant::now();
        let boot = opened.welcome.boot;
        let known = self.peer_boot;
        if known.is_some_and(|known| boot < known) {
            self.parts.shared.rejected.add(Reject::Replayed);
            return;
        }
        if known == Some(boot) && !self.wants_dial(now) {
            return;
        }
        self.meet(boot);
        let Opened { sender, receiver, keys, welcome } = opened;
        if let Some(old) = self.out.take() {
            self.conns.retain(|conn| conn.id != old);
        }
        let id = self.add(Origin::Dialled, boot, sender, receiver, keys, now);
        self.parts.dialler.stop();
        self.leave_by(id, boot, welcome.received, now);
    }

    /// From now on messages leave over this connection.
    fn leave_by(&mut self, id: u64, boot: u64, received: Received, now: Instant) {
        let reborn = self.outbox_boot.replace(boot).is_some_and(|earlier| earlier != boot);
        if self.parts.shared.outbox().rewind(received, reborn, now).is_err() {
            self.parts.shared.rejected.add(Reject::Malformed);
            self.remove(id);
            return;
        }
        self.out = Some(id);
        self.proven = false;
        self.parts.shared.connects.fetch_add(1, Relaxed);
        self.parts.shared.connected.store(true, Relaxed);
        self.announce(true, Some(now));
    }

    fn announce(&self, up: bool, rebuilt: Option<Instant>) {
        if self.parts.shared.class == Class::Control {
            self.parts.link.send_modify(|state| {
                state.up = up;
                state.rebuilt = rebuilt.or(state.rebuilt);
            });
        }
    }

    /// The peer has proved to be of this incarnation. One newer than known has forgotten everything, and its connections
    /// and half messages of before are worth nothing.
    fn meet(&mut self, boot: u64) {
        if self.peer_boot == Some(boot) {
            return;
        }
        self.peer_boot = Some(boot);
        self.accepted_dial = 0;
        self.room_wait = None;
        self.parts.inbox.reset();
        let stale: Vec<u64> = self.conns.iter().filter(|conn| conn.boot < boot).map(|conn| conn.id).collect();
        stale.into_iter().for_each(|id| self.remove(id));
    }

    /// Ends a connection.
    fn remove(&mut self, id: u64) {
        self.conns.retain(|conn| conn.id != id);
        if self.out == Some(id) {
            self.out = None;
            self.parts.shared.connected.store(false, Relaxed);
            self.announce(false, None);
        }
    }

    fn take_frame(&mut self, id: u64, frame: Frame, now: Instant) -> Result<(), Reject> {
        let Some(index) = self.conns.iter().position(|conn| conn.id == id) else { return Ok(()) };
        if !self.conns[index].confirmed() {
            self.confirm(index, frame.received, now)?;
        }
        let Some(conn) = self.conns.iter_mut().find(|conn| conn.id == id) else { return Ok(()) };
        if let Some(sample) = conn.heard(&frame, self.origin, now) {
            self.rtt.sample(sample, self.parts.timing.suspect);
            self.parts.shared.rtt_us.store(self.rtt.smoothed().as_micros() as u64, Relaxed);
        }
        if self.outbox_boot == Some(conn.boot) {
            self.parts.shared.outbox().acknowledge(frame.received).map_err(|_| Reject::Malformed)?;
        }
        if !frame.units.is_empty() {
            conn.owes_ack = true;
            self.source = Some(id);
        }
        for unit in frame.units {
            self.parts.inbox.accept(unit)?;
        }
        Ok(())
    }

    /// The first frame on an accepted connection: under a key made with the welcome's share, so the peer itself is there now.
    fn confirm(&mut self, index: usize, received: Received, now: Instant) -> Result<(), Reject> {
        let conn = &mut self.conns[index];
        let Origin::Accepted { dial, ref mut stranger } = conn.origin else { return Ok(()) };
        let (id, boot) = (conn.id, conn.boot);
        *stranger = None;
        if self.outdated(boot, dial) {
            return Err(Reject::Replayed);
        }
        self.meet(boot);
        self.accepted_dial = dial;
        let replaced =
            |conn: &Conn| conn.id != id && conn.confirmed() && matches!(conn.origin, Origin::Accepted { .. });
        let old: Vec<u64> = self.conns.iter().filter(|conn| replaced(conn)).map(|conn| conn.id).collect();
        old.into_iter().for_each(|id| self.remove(id));
        if !self.parts.dialler.dials() {
            self.leave_by(id, boot, received, now);
        }
        Ok(())
    }

    /// Gives complete messages to the application, as far as there is room.
    fn hand_over(&mut self) {
        let mut delivered = false;
        loop {
            while let Some((incoming, room)) = self.parts.inbox.next(self.parts.clock.now_ns()) {
                self.parts.shared.received.fetch_add(1, Relaxed);
                delivered = true;
                if self.parts.sink.send(Held { incoming, _room: room }).is_err() {
                    return;
                }
            }
            let Some(bytes) = self.parts.inbox.wants().filter(|_| self.room_wait.is_none()) else { break };
            let room = Arc::clone(&self.parts.room);
            match Arc::clone(&room).try_acquire_many_owned(bytes as u32) {
                Ok(room) => self.parts.inbox.grant(room),
                Err(_) => self.room_wait = Some(Box::pin(room.acquire_many_owned(bytes as u32))),
            }
        }
        let source = self.source;
        if delivered && let Some(conn) = self.conns.iter_mut().find(|conn| Some(conn.id) == source) {
            conn.owes_ack = true;
        }
    }

    /// Sends what is due, on each connection as far as the network takes it.
    async fn flush(&mut self, now: Instant) {
        let mut broken = Vec::new();
        for conn in self.conns.iter_mut().filter(|conn| conn.confirmed()) {
            while conn.has_room() {
                let units =
                    if self.out == Some(conn.id) { self.parts.shared.outbox().pack(now) } else { Vec::new() };
                let due = conn.owes_ack || conn.heartbeat_due(self.heartbeat) <= now;
                if units.is_empty() && !due {
                    break;
                }
                let received = match self.peer_boot == Some(conn.boot) {
                    true => self.parts.inbox.received(),
                    false => Received::default(),
                };
                if conn.send(units, received, self.origin).await.is_err() {
                    broken.push(conn.id);
                    break;
                }
            }
        }
        broken.into_iter().for_each(|id| self.remove(id));
    }

    /// Drops connections that have been silent too long.
    fn bury(&mut self, now: Instant) {
        let timing = &self.parts.timing;
        let dead: Vec<u64> =
            self.conns.iter().filter(|conn| conn.dies(timing) <= now).map(|conn| conn.id).collect();
        dead.into_iter().for_each(|id| self.remove(id));
        let held =
            |conn: &Conn| Some(conn.id) == self.out && conn.opened + self.parts.timing.redial_max * 10 <= now;
        if !self.proven && self.conns.iter().any(held) {
            self.proven = true;
            self.parts.dialler.forgive();
        }
    }

    /// Whether a new connection should be on its way.
    fn wants_dial(&self, now: Instant) -> bool {
        let control = self.parts.shared.class == Class::Control;
        self.parts.dialler.dials()
            && (control || self.link.borrow().up)
            && self.suspicious_at().is_none_or(|at| at <= now)
    }

    /// When the connection in use becomes suspicious; `None` if there is none.
    fn suspicious_at(&self) -> Option<Instant> {
        let conn = self.conns.iter().find(|conn| Some(conn.id) == self.out)?;
        let patience = self.rtt.patience(self.parts.timing.suspect);
        let silent = conn.last_heard + self.heartbeat + patience;
        let other = match self.parts.shared.class {
            // The peer stores control units at once, so an acknowledgement owed for long is a link in trouble. A bulk unit
            // may simply be on its way.
            Class::Control => self.parts.shared.outbox().oldest_flying().map(|sent| sent + patience),
            Class::Bulk => {
                let rebuilt = self.link.borrow().rebuilt.filter(|&rebuilt| rebuilt > conn.last_heard);
                rebuilt.map(|rebuilt| rebuilt.max(conn.last_heard + patience))
            }
        };
        Some(other.map_or(silent, |other| silent.min(other)))
    }

    /// When the next turn is due at the latest. Starts the dials that are due.
    fn deadline(&mut self, now: Instant) -> Instant {
        let mut deadline = now + self.heartbeat;
        for conn in &self.conns {
            deadline = deadline.min(conn.dies(&self.parts.timing));
            if conn.confirmed() && conn.has_room() {
                deadline = deadline.min(conn.heartbeat_due(self.heartbeat));
            }
        }
        if self.wants_dial(now) {
            deadline = deadline.min(self.parts.dialler.poll(now, self.rtt.smoothed()));
        } else if let Some(at) = self.suspicious_at().filter(|&at| at > now) {
            deadline = deadline.min(at);
        }
        deadline
    }
}

/// Resolves when the inbox has the room that was asked for.
async fn granted(wait: &mut Option<RoomWait>) -> OwnedSemaphorePermit {
    match wait {
        Some(wait) => match wait.await {
            Ok(room) => room,
            // The room closes with the bus, which aborts this task.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
