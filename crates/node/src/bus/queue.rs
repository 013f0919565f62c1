//! What the application's side and a lane's task share: the outbox, its room, and the counters.

use super::config::ClassLimits;
use super::error::BusError;
use super::message::{Message, Ticket};
use super::outbox::{Entry, OVERHEAD_BYTES, Outbox};
use super::stats::{ClassStats, RejectCounters};
use dtwn_proto::bus::{Class, NodeName};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// One class of traffic with one peer, as the application and the counters see it.
#[derive(Debug)]
pub(crate) struct LaneShared {
    pub(crate) peer: NodeName,
    pub(crate) class: Class,
    limits: ClassLimits,
    outbox: Mutex<Outbox>,
    room: Arc<Semaphore>,
    /// Tells the lane's task that the outbox has something new.
    pub(crate) wake: Arc<Notify>,
    pub(crate) connected: AtomicBool,
    pub(crate) connects: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) rtt_us: AtomicU64,
    pub(crate) rejected: RejectCounters,
}

impl LaneShared {
    pub(crate) fn new(peer: NodeName, class: Class, limits: &ClassLimits) -> Self {
        Self {
            peer,
            class,
            limits: limits.clone(),
            outbox: Mutex::new(Outbox::new(limits)),
            room: Arc::new(Semaphore::new(limits.queue_bytes)),
            wake: Arc::new(Notify::new()),
            connected: AtomicBool::new(false),
            connects: AtomicU64::new(0),
            received: AtomicU64::new(0),
            rtt_us: AtomicU64::new(0),
            rejected: RejectCounters::default(),
        }
    }

    /// The outbox. No panic happens while it is held, so a poisoned lock cannot hide a broken state.
    pub(crate) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room for a message of `bytes`.
    pub(crate) async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, BusError> {
        let need = self.need(bytes)?;
        let room = Arc::clone(&self.room).acquire_many_owned(need).await;
        room.map_err(|_| BusError::Closed(self.peer.clone()))
    }

    /// Queues a message, in room reserved before or found now.
    pub(crate) fn push(
        &self,
        message: Message,
        reserved: Option<OwnedSemaphorePermit>,
        sent_at_ns: u64,
    ) -> Result<Ticket, BusError> {
        let need = self.need(message.body.len())?;
        if self.room.is_closed() {
            return Err(BusError::Closed(self.peer.clone()));
        }
        let now = Instant::now();
        let mut outbox = self.outbox();
        let room = match reserved {
            Some(mut room) => room.split(need as usize).unwrap_or(room),
            None => self.find_room(&mut outbox, &message, need, now)?,
        };
        let (ticket, outcome) = oneshot::channel();
        outbox.push(Entry {
            body: message.body,
            sent_at_ns,
            key: message.supersede,
            expires: message.expires_after.map(|after| now + after),
            ticket,
            room,
        });
        drop(outbox);
        self.wake.notify_one();
        Ok(Ticket(outcome))
    }

    fn find_room(
        &self,
        outbox: &mut Outbox,
        message: &Message,
        need: u32,
        now: Instant,
    ) -> Result<OwnedSemaphorePermit, BusError> {
        // A superseding message takes over the room of the one it replaces, so that a full queue still takes the newest vote.
        let inherited = message.supersede.and_then(|key| outbox.waiting_room(key)).map(|old| {
            let take = old.num_permits().min(need as usize);
            (take, old.split(take))
        });
        if let Some((taken, Some(mut room))) = inherited {
            let missing = need - taken as u32;
            if let Some(more) = self.acquire(missing) {
                room.merge(more);
                return Ok(room);
            }
            if let Some(old) = message.supersede.and_then(|key| outbox.waiting_room(key)) {
                old.merge(room);
            }
            return Err(self.full());
        }
        if let Some(room) = self.acquire(need) {
            return Ok(room);
        }
        outbox.expire(now);
        self.acquire(need).ok_or_else(|| self.full())
    }

    fn acquire(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()
    }

    fn full(&self) -> BusError {
        BusError::Full { peer: self.peer.clone(), class: self.class, limit: self.limits.queue_bytes }
    }

    /// Room that a message takes: its cost, but never more than the queue has.
    fn need(&self, bytes: usize) -> Result<u32, BusError> {
        if bytes > self.limits.message_bytes {
            return Err(BusError::TooLong { class: self.class, bytes, limit: self.limits.message_bytes });
        }
        Ok((bytes + OVERHEAD_BYTES).min(self.limits.queue_bytes) as u32)
    }

    /// Refuses further messages and gives up those that are queued.
    pub(crate) fn close(&self) {
        self.room.close();
        self.outbox().abandon();
        self.connected.store(false, Relaxed);
    }

    /// Bytes queued, sent or not, until they are acknowledged.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.limits.queue_bytes.saturating_sub(self.room.available_permits())
    }

    pub(crate) fn stats(&self) -> ClassStats {
        let tally = self.outbox().tally();
        ClassStats {
            connected: self.connected.load(Relaxed),
            queue_bytes: self.queued_bytes() as u64,
            sent: tally.sent,
            acked: tally.acked,
            dropped: tally.dropped,
            resent: tally.resent,
            received: self.received.load(Relaxed),
            connects: self.connects.load(Relaxed),
            rtt: Duration::from_micros(self.rtt_us.load(Relaxed)),
            rejected: self.rejected.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::message::{Delivery, Key};

    fn lane(queue_bytes: usize) -> LaneShared {
        let limits = ClassLimits { message_bytes: 1000, queue_bytes, window_bytes: 1000, inbox_bytes: 1000 };
        LaneShared::new(NodeName::new("peer").unwrap(), Class::Control, &limits)
    }

    fn message(bytes: usize) -> Message {
        Message::control(vec![0; bytes])
    }

    #[test]
    fn a_full_queue_says_so_and_queues_nothing() {
        let lane = lane(1000);
        lane.push(message(800), None, 0).unwrap();
        assert!(matches!(lane.push(message(100), None, 0), Err(BusError::Full { limit: 1000, .. })));
        assert!(matches!(lane.push(message(1001), None, 0), Err(BusError::TooLong { bytes: 1001, .. })));
        lane.push(message(0), None, 0).unwrap();
        assert_eq!(lane.stats().queue_bytes, 800 + 2 * OVERHEAD_BYTES as u64);
    }

    #[tokio::test]
    async fn a_superseding_message_inherits_room_in_a_full_queue() {
        let lane = lane(500);
        let first = lane.push(message(400).superseding(Key(1)), None, 0).unwrap();
        assert!(matches!(lane.push(message(10), None, 0), Err(BusError::Full { .. })));
        let second = lane.push(message(300).superseding(Key(1)), None, 0).unwrap();
        assert_eq!(first.await, Delivery::Superseded);
        assert_eq!(lane.stats().queue_bytes, 364);
        // When even that is too little, the older message stays.
        lane.push(message(10), None, 0).unwrap();
        let refused = lane.push(message(410).superseding(Key(1)), None, 0);
        assert!(matches!(refused, Err(BusError::Full { .. })));
        assert_eq!(lane.stats().queue_bytes, 364 + 74);
        let sizes: Vec<_> = lane.outbox().pack(Instant::now()).iter().map(|unit| unit.data.len()).collect();
        assert_eq!(sizes, [300, 10]);
        drop(second);
    }

    #[test]
    fn expired_messages_make_room() {
        let lane = lane(500);
        lane.push(message(400).expiring(Duration::ZERO), None, 0).unwrap();
        lane.push(message(300), None, 0).unwrap();
        assert_eq!(lane.stats().dropped, 1);
    }

    #[tokio::test]
    async fn closing_abandons_and_refuses() {
        let lane = lane(500);
        let ticket = lane.push(message(4), None, 0).unwrap();
        lane.close();
        assert_eq!(ticket.await, Delivery::Abandoned);
        assert!(matches!(lane.push(message(4), None, 0), Err(BusError::Closed(_))));
        assert!(matches!(lane.reserve(4).await, Err(BusError::Closed(_))));
    }
}
