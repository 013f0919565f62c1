//! Messages arriving from one peer, in one class: checked, put together, held until the application has room.
//!
//! Sans-io. Units come in ascending sequence; those seen before are ignored, gaps before a message's first unit are what its
//! sender chose not to send again. Units wait in `pending` until their message's whole length has been granted room, so that
//! incomplete messages can never add up to more than the inbox has. A control unit counts as stored when it is pending, a
//! bulk unit when it is part of its message: bulk senders stop when there is no room, within their window.

use super::config::ClassLimits;
use super::message::Incoming;
use super::outbox::OVERHEAD_BYTES;
use super::stats::Reject;
use bytes::{Bytes, BytesMut};
use dtwn_proto::bus::{Begin, Class, NodeName, Received, UNIT_BYTES, Unit};
use std::collections::VecDeque;
use tokio::sync::OwnedSemaphorePermit;

/// Shorter units are copied out of the network buffer, which they would otherwise keep alive many times their size.
const COPY_BELOW_BYTES: usize = 16 * 1024;

/// A message that has room and is being put together.
#[derive(Debug)]
struct Partial {
    room: OwnedSemaphorePermit,
    begin: Begin,
    data: Data,
    /// Sequence of its last unit so far.
    last: u64,
}

#[derive(Debug)]
enum Data {
    Whole(Bytes),
    Parts(BytesMut),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Inbox {
    class: Class,
    from: NodeName,
    limits: ClassLimits,
    /// Last sequence accepted.
    highest: u64,
    /// Bytes that the last accepted message still lacks.
    lacking: usize,
    pending: VecDeque<Unit>,
    partial: Option<Partial>,
    /// Cost of all messages begun and not yet handed over.
    held_bytes: usize,
    received: Received,
}

impl Inbox {
    pub(crate) fn new(from: NodeName, class: Class, limits: &ClassLimits) -> Self {
        Self {
            class,
            from,
            limits: limits.clone(),
            highest: 0,
            lacking: 0,
            pending: VecDeque::new(),
            partial: None,
            held_bytes: 0,
            received: Received::default(),
        }
    }

    /// What to acknowledge.
    pub(crate) fn received(&self) -> Received {
        self.received
    }

    /// Forgets everything: the peer has started anew.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.from.clone(), self.class, &self.limits);
    }

    /// Takes a unit.
    ///
    /// # Errors
    /// The peer breaks the rules of sequence, length or window; its connection must end.
    pub(crate) fn accept(&mut self, mut unit: Unit) -> Result<(), Reject> {
        if unit.sequence <= self.highest {
            return Ok(());
        }
        match unit.begin {
            Some(begin) => self.check_begin(begin)?,
            None if self.lacking == 0 || unit.sequence != self.highest + 1 => return Err(Reject::Malformed),
            None => {}
        }
        let total = unit.begin.map_or(self.lacking, |begin| begin.total_bytes as usize);
        if unit.data.len() != total.min(UNIT_BYTES) {
            return Err(Reject::Malformed);
        }
        if unit.begin.is_some() {
            self.held_bytes += total + OVERHEAD_BYTES;
        }
        if unit.data.len() < COPY_BELOW_BYTES {
            unit.data = Bytes::copy_from_slice(&unit.data);
        }
        self.lacking = total - unit.data.len();
        self.highest = unit.sequence;
        if self.class == Class::Control {
            self.received.stored = unit.sequence;
        }
        self.pending.push_back(unit);
        Ok(())
    }

    fn check_begin(&self, begin: Begin) -> Result<(), Reject> {
        let total = begin.total_bytes as usize;
        if total > self.limits.message_bytes {
            return Err(Reject::Oversized);
        }
        let fits =
            self.held_bytes == 0 || self.held_bytes + total + OVERHEAD_BYTES <= self.limits.window_bytes;
        if self.lacking > 0 || !fits { Err(Reject::Malformed) } else { Ok(()) }
    }

    /// Room that the next message needs before anything can go on.
    pub(crate) fn wants(&self) -> Option<usize> {
        let next = self.pending.front().filter(|_| self.partial.is_none())?;
        next.begin.map(|begin| (begin.total_bytes as usize + OVERHEAD_BYTES).min(self.limits.inbox_bytes))
    }

    /// Gives that room to it.
    pub(crate) fn grant(&mut self, room: OwnedSemaphorePermit) {
        let Some(Unit { sequence, begin: Some(begin), data }) = self.pending.pop_front() else { return };
        let data = if data.len() == begin.total_bytes as usize {
            Data::Whole(data)
        } else {
            let mut parts = BytesMut::with_capacity(begin.total_bytes as usize);
            parts.extend_from_slice(&data);
            Data::Parts(parts)
        };
        self.received.stored = self.received.stored.max(sequence);
        self.partial = Some(Partial { room, begin, data, last: sequence });
    }

    /// Puts units together; the next complete message with the room it holds, if there is one.
    pub(crate) fn next(&mut self, now_ns: u64) -> Option<(Incoming, OwnedSemaphorePermit)> {
        let partial = self.partial.as_mut()?;
        let total = partial.begin.total_bytes as usize;
        if let Data::Parts(parts) = &mut partial.data {
            while parts.len() < total {
                let unit = self.pending.pop_front()?;
                parts.extend_from_slice(&unit.data);
                self.received.stored = self.received.stored.max(unit.sequence);
                partial.last = unit.sequence;
            }
        }
        let partial = self.partial.take()?;
        self.held_bytes -= total + OVERHEAD_BYTES;
        self.received.delivered = partial.last;
        let body = match partial.data {
            Data::Whole(body) => body,
            Data::Parts(parts) => parts.freeze(),
        };
        let incoming = Incoming {
            from: self.from.clone(),
            class: self.class,
            body,
            sent_at_ns: partial.begin.sent_at_ns,
            received_at_ns: now_ns,
        };
        Some((incoming, partial.room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    const LIMITS: ClassLimits =
        ClassLimits { message_bytes: 300_000, queue_bytes: 0, window_bytes: 200_000, inbox_bytes: 1_000_000 };

    struct Bench {
        inbox: Inbox,
        room: Arc<Semaphore>,
    }

    impl Bench {
        fn new(class: Class) -> Self {
            let inbox = Inbox::new(NodeName::new("peer").unwrap(), class, &LIMITS);
            Self { inbox, room: Arc::new(Semaphore::new(LIMITS.inbox_bytes)) }
        }

        /// Everything that can be handed over now, its room given back.
        fn drain(&mut self) -> Vec<Bytes> {
            let mut out = Vec::new();
            loop {
                if let Some((incoming, _room)) = self.inbox.next(0) {
                    out.push(incoming.body);
                } else if let Some(bytes) = self.inbox.wants() {
                    let room = Arc::clone(&self.room).try_acquire_many_owned(bytes as u32);
                    match room {
                        Ok(room) => self.inbox.grant(room),
                        Err(_) => return out,
                    }
                } else {
                    return out;
                }
            }
        }
    }

    fn units(first: u64, body: &[u8]) -> Vec<Unit> {
        let begin = Begin { total_bytes: body.len() as u32, sent_at_ns: 7 };
        let mut chunks: Vec<&[u8]> = body.chunks(UNIT_BYTES).collect();
        if chunks.is_empty() {
            chunks.push(b"");
        }
        let unit = |(index, data): (usize, &&[u8])| Unit {
            sequence: first + index as u64,
            begin: (index == 0).then_some(begin),
            data: Bytes::copy_from_slice(data),
        };
        chunks.iter().enumerate().map(unit).collect()
    }

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn messages_of_every_length_come_out_whole_and_once() {
        for class in Class::ALL {
            let mut bench = Bench::new(class);
            let mut sequence = 1;
            for length in [0, 1, UNIT_BYTES - 1, UNIT_BYTES, UNIT_BYTES + 1, 2 * UNIT_BYTES, 190_000] {
                let body = body(length);
                let units = units(sequence, &body);
                sequence += units.len() as u64;
                // Each unit twice, as after a reconnect.
                for unit in units.iter().flat_map(|unit| [unit, unit]) {
                    bench.inbox.accept(unit.clone()).unwrap();
                }
                assert_eq!(bench.drain(), vec![Bytes::from(body)], "{class}, {length} bytes");
                let done = sequence - 1;
                assert_eq!(bench.inbox.received(), Received { stored: done, delivered: done });
            }
            assert_eq!(bench.inbox.held_bytes, 0);
        }
    }

    #[test]
    fn gaps_are_allowed_before_a_message_but_not_inside() {
        let mut bench = Bench::new(Class::Control);
        bench.inbox.accept(units(5, b"five")[0].clone()).unwrap();
        bench.inbox.accept(units(9, b"nine")[0].clone()).unwrap();
        bench.inbox.accept(units(7, b"late")[0].clone()).unwrap();
        assert_eq!(bench.drain(), vec![Bytes::from("five"), Bytes::from("nine")]);
        let long = units(10, &body(3 * UNIT_BYTES));
        bench.inbox.accept(long[0].clone()).unwrap();
        assert_eq!(bench.inbox.accept(long[2].clone()), Err(Reject::Malformed));
        assert_eq!(
            bench.inbox.accept(units(11, b"new")[0].clone()),
            Err(Reject::Malformed),
            "inside another message"
        );
        bench.inbox.accept(long[1].clone()).unwrap();
    }

    #[test]
    fn rule_breakers_are_refused() {
        let mut bench = Bench::new(Class::Bulk);
        let begin = |total_bytes| Some(Begin { total_bytes, sent_at_ns: 0 });
        let unit = |sequence, begin, length| Unit { sequence, begin, data: Bytes::from(vec![0; length]) };
        assert_eq!(bench.inbox.accept(unit(1, begin(300_001), UNIT_BYTES)), Err(Reject::Oversized));
        assert_eq!(bench.inbox.accept(unit(1, None, 5)), Err(Reject::Malformed), "no beginning");
        assert_eq!(bench.inbox.accept(unit(1, begin(100_000), 5)), Err(Reject::Malformed), "short unit");
        assert_eq!(bench.inbox.accept(unit(1, begin(5), 6)), Err(Reject::Malformed), "more than announced");
        // The window: a message over it goes alone, and nothing beside it.
        for unit in units(1, &body(250_000)) {
            bench.inbox.accept(unit).unwrap();
        }
        assert_eq!(bench.inbox.accept(units(9, b"x")[0].clone()), Err(Reject::Malformed));
        assert_eq!(bench.drain().len(), 1);
        bench.inbox.accept(units(9, b"x")[0].clone()).unwrap();
    }

    #[test]
    fn without_room_bulk_units_are_not_stored_and_control_units_are() {
        for (class, stored) in [(Class::Bulk, 0), (Class::Control, 3)] {
            let mut bench = Bench::new(class);
            let taken = Arc::clone(&bench.room).try_acquire_many_owned(900_000).unwrap();
            for unit in units(1, &body(150_000)) {
                bench.inbox.accept(unit).unwrap();
            }
            assert!(bench.drain().is_empty());
            assert_eq!(bench.inbox.received(), Received { stored, delivered: 0 });
            drop(taken);
            assert_eq!(bench.drain().len(), 1);
            assert_eq!(bench.inbox.received(), Received { stored: 3, delivered: 3 });
        }
    }
}
