//! What the application sends and receives.

use super::config::Clock;
use super::error::BusError;
use super::queue::LaneShared;
use bytes::Bytes;
use dtwn_proto::bus::{Class, NodeName};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Marks messages of which only the newest matters, as a vote or a state report. Chosen by the application, per peer and
/// class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub u64);

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Control or bulk; each has limits, queues and connections of its own.
    pub class: Class,
    /// While a message with the same key still waits to be sent, this one takes its place in the queue.
    pub supersede: Option<Key>,
    /// The message is dropped when it could not be sent within this wall time. `None`: it waits as long as it takes.
    pub expires_after: Option<Duration>,
    /// The bytes.
    pub body: Bytes,
}

impl Message {
    /// A control message that nothing supersedes and that does not expire.
    pub fn control(body: impl Into<Bytes>) -> Self {
        Self { class: Class::Control, supersede: None, expires_after: None, body: body.into() }
    }

    /// A bulk message that nothing supersedes and that does not expire.
    pub fn bulk(body: impl Into<Bytes>) -> Self {
        Self { class: Class::Bulk, ..Self::control(body) }
    }

    /// The same with a supersede key.
    #[must_use]
    pub fn superseding(mut self, key: Key) -> Self {
        self.supersede = Some(key);
        self
    }

    /// The same with an expiry.
    #[must_use]
    pub fn expiring(mut self, after: Duration) -> Self {
        self.expires_after = Some(after);
        self
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The peer handed it to its application, once within the peer's incarnation.
    Delivered,
    /// A newer message with the same key took its place. An earlier copy may have arrived.
    Superseded,
    /// It waited longer than it was allowed to. An earlier copy may have arrived.
    Expired,
    /// The peer was removed, or the bus stopped. The message may have arrived.
    Abandoned,
}

/// Resolves to what became of a message. Dropping it changes nothing for the message.
#[derive(Debug)]
pub struct Ticket(pub(crate) oneshot::Receiver<Delivery>);

impl Future for Ticket {
    type Output = Delivery;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Delivery> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| outcome.unwrap_or(Delivery::Abandoned))
    }
}

/// A message received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Who sent it; proved by its signature.
    pub from: NodeName,
    /// The class it was sent in.
    pub class: Class,
    /// The bytes.
    pub body: Bytes,
    /// Emulated time at which the sender's application sent it, in nanoseconds, by the sender's clock.
    pub sent_at_ns: u64,
    /// Emulated time at which its last byte was here, in nanoseconds.
    pub received_at_ns: u64,
}

/// A message on its way to the application, with the memory it holds of its class's inbox.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) incoming: Incoming,
    pub(crate) _room: OwnedSemaphorePermit,
}

/// Where received messages come out: in order per peer and class, without order between them.
#[derive(Debug)]
pub struct Receiver(pub(crate) mpsc::UnboundedReceiver<Held>);

impl Receiver {
    /// The next message; `None` once the bus has stopped. Cancel-safe.
    ///
    /// Messages that are not taken fill the inbox; then peers are acknowledged nothing and their queues fill in turn.
    pub async fn recv(&mut self) -> Option<Incoming> {
        self.0.recv().await.map(|held| held.incoming)
    }

    /// The next message, if one is here.
    pub fn try_recv(&mut self) -> Option<Incoming> {
        self.0.try_recv().ok().map(|held| held.incoming)
    }
}

#[cfg(test)]
impl Receiver {
    /// These messages, and then the end of the bus.
    pub(crate) fn of(messages: impl IntoIterator<Item = Incoming>) -> Self {
        let (sink, source) = mpsc::unbounded_channel();
        let room = Arc::new(tokio::sync::Semaphore::new(0));
        for incoming in messages {
            let room = Arc::clone(&room).try_acquire_many_owned(0).unwrap();
            sink.send(Held { incoming, _room: room }).unwrap();
        }
        Self(source)
    }
}

/// Room in a peer's queue, from [`Bus::reserve`](super::Bus::reserve).
pub struct Reservation {
    pub(crate) lane: Arc<LaneShared>,
    pub(crate) room: OwnedSemaphorePermit,
    pub(crate) bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Reservation {
    /// Sends a message in the reserved room.
    ///
    /// # Errors
    /// [`BusError::Reservation`] if the message is longer or of another class than was reserved.
    pub fn send(self, message: Message) -> Result<Ticket, BusError> {
        if message.body.len() > self.bytes || message.class != self.lane.class {
            return Err(BusError::Reservation { bytes: message.body.len(), reserved: self.bytes });
        }
        self.lane.push(message, Some(self.room), self.clock.now_ns())
    }
}
