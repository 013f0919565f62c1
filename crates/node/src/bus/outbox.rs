//! Messages on their way to one peer, in one class: what waits, what is under way, what has arrived.
//!
//! Sans-io. Entries stand in sending order. A message gets the sequence of its first unit when that unit is first packed, so
//! what was superseded before leaves no gap; its units keep their sequences however often they are sent. Three marks move
//! over the sequences: `delivered` ≤ `stored` ≤ sent. The room a message takes in the queue is given back on delivery.

use super::config::ClassLimits;
use super::message::{Delivery, Key};
use bytes::Bytes;
use dtwn_proto::bus::{Begin, FRAME_DATA_BYTES, FRAME_UNITS, Received, UNIT_BYTES, Unit};
use std::collections::{HashMap, VecDeque};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What a message or unit costs beside its bytes in every limit, so that empty ones are not free.
pub(crate) const OVERHEAD_BYTES: usize = 64;

/// Units that a message of this length takes.
pub(crate) fn units_of(bytes: usize) -> u64 {
    bytes.div_ceil(UNIT_BYTES).max(1) as u64
}

/// A message as it enters the queue.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) body: Bytes,
    pub(crate) sent_at_ns: u64,
    pub(crate) key: Option<Key>,
    pub(crate) expires: Option<Instant>,
    pub(crate) ticket: oneshot::Sender<Delivery>,
    pub(crate) room: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Queued {
    entry: Entry,
    id: u64,
    /// Sequence of the first unit; 0 while no unit was ever sent.
    first: u64,
    /// A newer message with the same key stands further back.
    superseded: bool,
}

impl Queued {
    fn units(&self) -> u64 {
        units_of(self.entry.body.len())
    }

    fn last(&self) -> u64 {
        self.first + self.units() - 1
    }

    fn cost(&self) -> usize {
        self.entry.body.len() + OVERHEAD_BYTES
    }
}

/// The peer acknowledged what was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FalseAck;

/// Counts of what happened, since the outbox exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) dropped: u64,
    pub(crate) resent: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    window_bytes: usize,
    entries: VecDeque<Queued>,
    /// Waiting messages by key, to be superseded.
    by_key: HashMap<Key, u64>,
    next_id: u64,
    next_sequence: u64,
    /// Where packing goes on: index of an entry and number of a unit in it.
    cursor: (usize, u64),
    stored: u64,
    /// Units sent over the connection in use and not yet stored: sequence, cost, when.
    flying: VecDeque<(u64, usize, Instant)>,
    flying_bytes: usize,
    /// Cost of messages begun and not yet delivered: what the peer may have to hold.
    begun_bytes: usize,
    /// Highest sequence ever sent, to tell a repetition.
    sent_up_to: u64,
    tally: Tally,
}

impl Outbox {
    pub(crate) fn new(limits: &ClassLimits) -> Self {
        Self {
            window_bytes: limits.window_bytes,
            entries: VecDeque::new(),
            by_key: HashMap::new(),
            next_id: 0,
            next_sequence: 1,
            cursor: (0, 0),
            stored: 0,
            flying: VecDeque::new(),
            flying_bytes: 0,
            begun_bytes: 0,
            sent_up_to: 0,
            tally: Tally::default(),
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// The room held by the waiting message with this key.
    pub(crate) fn waiting_room(&mut self, key: Key) -> Option<&mut OwnedSemaphorePermit> {
        let index = self.index_of(*self.by_key.get(&key)?)?;
        Some(&mut self.entries[index].entry.room)
    }

    /// Queues a message, in the place of a waiting one with the same key if there is one.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.tally.sent += 1;
        let key = entry.key;
        if let Some(index) = key.and_then(|key| self.by_key.get(&key)).and_then(|&id| self.index_of(id)) {
            let old = std::mem::replace(&mut self.entries[index].entry, entry);
            self.tally.dropped += 1;
            let _ = old.ticket.send(Delivery::Superseded);
            return;
        }
        if key.is_some() {
            // One under way is not sent again after a reconnect, now that a newer one follows.
            self.entries
                .iter_mut()
                .filter(|queued| queued.entry.key == key)
                .for_each(|queued| queued.superseded = true);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.entries.push_back(Queued { entry, id, first: 0, superseded: false });
        if let Some(key) = key {
            self.by_key.insert(key, id);
        }
    }

    fn index_of(&self, id: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |queued| queued.id).ok()
    }

    /// Units for the next frame, in sequence; empty if there is nothing to send or the window is full.
    pub(crate) fn pack(&mut self, now: Instant) -> Vec<Unit> {
        let mut units = Vec::new();
        let mut data_bytes = 0;
        while units.len() < FRAME_UNITS {
            let Some(length) = self.peek(now) else { break };
            if data_bytes + length > FRAME_DATA_BYTES || !self.window_takes(length) {
                break;
            }
            data_bytes += length;
            units.push(self.take(length, now));
        }
        units
    }

    /// Length of the unit at the cursor. Skips what need not be sent.
    fn peek(&mut self, now: Instant) -> Option<usize> {
        loop {
            let (index, unit) = self.cursor;
            let queued = self.entries.get(index)?;
            let expired = queued.entry.expires.is_some_and(|expires| expires <= now);
            if queued.first == 0 && expired {
                self.drop_at(index, Delivery::Expired);
            } else if queued.first > 0 && unit >= queued.units() {
                self.cursor = (index + 1, 0);
            } else if queued.first > 0 && queued.first + unit <= self.stored {
                self.cursor.1 += 1;
            } else {
                return Some(
                    queued.entry.body.len().saturating_sub(unit as usize * UNIT_BYTES).min(UNIT_BYTES),
                );
            }
        }
    }

    fn window_takes(&self, unit_bytes: usize) -> bool {
        let flying_fits =
            self.flying.is_empty() || self.flying_bytes + unit_bytes + OVERHEAD_BYTES <= self.window_bytes;
        let queued = &self.entries[self.cursor.0];
        // A message longer than the window goes alone; the peer has reserved its whole length.
        let begun_fits = queued.first > 0
            || self.begun_bytes == 0
            || self.begun_bytes + queued.cost() <= self.window_bytes;
        flying_fits && begun_fits
    }

    fn take(&mut self, length: usize, now: Instant) -> Unit {
        let (index, number) = self.cursor;
        self.cursor.1 += 1;
        let queued = &mut self.entries[index];
        if queued.first == 0 {
            queued.first = self.next_sequence;
            self.next_sequence += queued.units();
            self.begun_bytes += queued.cost();
            if let Some(key) = queued.entry.key {
                self.by_key.remove(&key);
            }
        }
        let sequence = queued.first + number;
        if sequence <= self.sent_up_to {
            self.tally.resent += 1;
        }
        self.sent_up_to = self.sent_up_to.max(sequence);
        self.flying.push_back((sequence, length + OVERHEAD_BYTES, now));
        self.flying_bytes += length + OVERHEAD_BYTES;
        let start = number as usize * UNIT_BYTES;
        let begin =
            Begin { total_bytes: queued.entry.body.len() as u32, sent_at_ns: queued.entry.sent_at_ns };
        Unit {
            sequence,
            begin: (number == 0).then_some(begin),
            data: queued.entry.body.slice(start..start + length),
        }
    }

    /// Takes an acknowledgement of the incarnation that the connection in use belongs to.
    pub(crate) fn acknowledge(&mut self, received: Received) -> Result<(), FalseAck> {
        if received.delivered > received.stored || received.stored > self.sent_up_to {
            return Err(FalseAck);
        }
        self.stored = self.stored.max(received.stored);
        while let Some(&(sequence, cost, _)) = self.flying.front()
            && sequence <= self.stored
        {
            self.flying.pop_front();
            self.flying_bytes -= cost;
        }
        while let Some(front) = self.entries.front()
            && front.first > 0
            && front.last() <= received.delivered
        {
            self.tally.acked += 1;
            self.remove(0, Delivery::Delivered);
        }
        Ok(())
    }

    /// Starts over on a new connection, to a peer that says what it holds. `reborn`: the peer is another incarnation than
    /// before and has forgotten everything.
    pub(crate) fn rewind(&mut self, received: Received, reborn: bool, now: Instant) -> Result<(), FalseAck> {
        if reborn {
            self.stored = 0;
        }
        self.flying.clear();
        self.flying_bytes = 0;
        self.acknowledge(received)?;
        let stored = self.stored;
        let mut index = 0;
        while let Some(queued) = self.entries.get(index)
            && queued.first > 0
        {
            // What the peer says it holds may be outdated: frames can still come in over the old connection. A message of
            // several units may thus have begun there, and one that has begun must be finished.
            let untouched = queued.first > stored && queued.units() == 1;
            let expired = queued.entry.expires.is_some_and(|expires| expires <= now);
            if untouched && queued.superseded {
                self.drop_at(index, Delivery::Superseded);
            } else if untouched && expired {
                self.drop_at(index, Delivery::Expired);
            } else {
                index += 1;
            }
        }
        self.cursor = (0, 0);
        Ok(())
    }

    /// When the oldest unit under way was sent.
    pub(crate) fn oldest_flying(&self) -> Option<Instant> {
        self.flying.front().map(|&(_, _, when)| when)
    }

    /// Drops what waits too long already, to make room.
    pub(crate) fn expire(&mut self, now: Instant) {
        let mut index = self.cursor.0;
        while let Some(queued) = self.entries.get(index) {
            if queued.first == 0 && queued.entry.expires.is_some_and(|expires| expires <= now) {
                self.drop_at(index, Delivery::Expired);
            } else {
                index += 1;
            }
        }
    }

    /// Gives up everything.
    pub(crate) fn abandon(&mut self) {
        while !self.entries.is_empty() {
            self.drop_at(0, Delivery::Abandoned);
        }
    }

    fn drop_at(&mut self, index: usize, delivery: Delivery) {
        self.tally.dropped += 1;
        self.remove(index, delivery);
    }

    fn remove(&mut self, index: usize, delivery: Delivery) {
        let Some(queued) = self.entries.remove(index) else { return };
        if queued.first > 0 {
            self.begun_bytes -= queued.cost();
        } else if let Some(key) = queued.entry.key {
            self.by_key.remove(&key);
        }
        self.cursor = match self.cursor.0.cmp(&index) {
            std::cmp::Ordering::Greater => (self.cursor.0 - 1, self.cursor.1),
            std::cmp::Ordering::Equal => (index, 0),
            std::cmp::Ordering::Less => self.cursor,
        };
        let _ = queued.entry.ticket.send(delivery);
    }
}

#[cfg(test)]
mod tests;
