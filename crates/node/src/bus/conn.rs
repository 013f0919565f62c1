//! A connection as its lane keeps it, and the task that reads it.

use super::config::Timing;
use super::guard::Verdict;
use super::link::{LinkError, LinkReceiver, LinkSender};
use super::seal::{FrameKey, FrameKeys};
use super::stats::Reject;
use super::strangers::StrangerPermit;
use bytes::Bytes;
use dtwn_proto::bus::{Frame, Hello, Received, Unit};
use futures::FutureExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// Bytes in front of the network above which a connection gets nothing more: one frame leaves while the next waits.
const BACKLOG_BYTES_MAX: u64 = 128 * 1024;

/// What happens to a lane from outside.
pub(crate) enum Event {
    /// Somebody who says to be the peer has dialled; the signature on the hello is right.
    Accepted(Box<Accepted>),
    /// A frame with a good tag and the right counter.
    Frame { conn: u64, frame: Frame },
    /// A connection has ended.
    Gone { conn: u64, reject: Option<Reject> },
}

/// A connection that waits for its welcome.
pub(crate) struct Accepted {
    pub(crate) sender: LinkSender,
    pub(crate) receiver: LinkReceiver,
    pub(crate) hello: Hello,
    pub(crate) sealed_hello: Bytes,
    pub(crate) permit: StrangerPermit,
}

/// How a connection came about.
pub(crate) enum Origin {
    /// This node dialled; the welcome has proved the peer.
    Dialled,
    /// The peer dialled, with this number. Until its first frame it may be a hello played back: it stays a stranger.
    Accepted { dial: u64, stranger: Option<StrangerPermit> },
}

/// A connection of a lane.
pub(crate) struct Conn {
    pub(crate) id: u64,
    pub(crate) origin: Origin,
    /// The peer's incarnation.
    pub(crate) boot: u64,
    pub(crate) opened: Instant,
    pub(crate) last_heard: Instant,
    last_sent: Instant,
    /// Units have come that no frame has acknowledged yet.
    pub(crate) owes_ack: bool,
    key: FrameKey,
    counter: u64,
    /// The peer's last stamp and when it came.
    echo: Option<(u64, Instant)>,
    sender: LinkSender,
    reader: JoinHandle<()>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Everything that makes a [`Conn`].
pub(crate) struct NewConn<'a> {
    pub(crate) id: u64,
    pub(crate) origin: Origin,
    pub(crate) boot: u64,
    pub(crate) sender: LinkSender,
    pub(crate) receiver: LinkReceiver,
    pub(crate) keys: FrameKeys,
    pub(crate) events: &'a mpsc::Sender<Event>,
    pub(crate) wake: &'a Arc<Notify>,
}

impl Conn {
    pub(crate) fn new(new: NewConn<'_>, now: Instant) -> Self {
        let NewConn { id, origin, boot, sender, receiver, keys, events, wake } = new;
        let _ = sender.flow().watcher.set(Arc::clone(wake));
        let reader = Reader { id, receiver, key: keys.receive, counter: 0, events: events.clone() };
        let reader = tokio::spawn(reader.run(sender.ended()));
        Self {
            id,
            origin,
            boot,
            opened: now,
            last_heard: now,
            last_sent: now,
            owes_ack: true,
            key: keys.send,
            counter: 0,
            echo: None,
            sender,
            reader,
        }
    }

    /// Whether the peer has proved itself on this connection.
    pub(crate) fn confirmed(&self) -> bool {
        matches!(self.origin, Origin::Dialled | Origin::Accepted { stranger: None, .. })
    }

    /// Whether the network takes more.
    pub(crate) fn has_room(&self) -> bool {
        self.sender.backlog_bytes() < BACKLOG_BYTES_MAX
    }

    /// When this connection should send something, whatever it is.
    pub(crate) fn heartbeat_due(&self, interval: Duration) -> Instant {
        self.last_sent + interval
    }

    /// When it is to be given up.
    pub(crate) fn dies(&self, timing: &Timing) -> Instant {
        if self.confirmed() { self.last_heard + timing.dead } else { self.opened + timing.handshake }
    }

    /// Notes a frame's arrival; a sample of the round-trip time if it has one. `origin` is that of this node's stamps.
    pub(crate) fn heard(&mut self, frame: &Frame, origin: Instant, now: Instant) -> Option<Duration> {
        self.last_heard = now;
        self.echo = Some((frame.stamp_us, now));
        if frame.echo_us == 0 {
            return None;
        }
        let held = frame.echo_us.checked_add(u64::from(frame.held_us))?;
        micros_since(origin, now).checked_sub(held).map(Duration::from_micros)
    }

    /// Sends a frame with these units.
    pub(crate) async fn send(
        &mut self,
        units: Vec<Unit>,
        received: Received,
        origin: Instant,
    ) -> Result<(), LinkError> {
        let now = Instant::now();
        self.counter += 1;
        let (echo_us, held) = self.echo.map_or((0, Duration::ZERO), |(stamp, at)| (stamp, now - at));
        let frame = Frame {
            counter: self.counter,
            received,
            stamp_us: micros_since(origin, now),
            echo_us,
            held_us: u32::try_from(held.as_micros()).unwrap_or(u32::MAX),
            units,
        };
        self.last_sent = now;
        self.owes_ack = false;
        self.sender.send(self.key.seal(frame)).await
    }
}

/// Microseconds between two instants, at least 1 so that 0 can stand for none.
fn micros_since(origin: Instant, now: Instant) -> u64 {
    u64::try_from((now - origin).as_micros()).unwrap_or(u64::MAX).max(1)
}

struct Reader {
    id: u64,
    receiver: LinkReceiver,
    key: FrameKey,
    counter: u64,
    events: mpsc::Sender<Event>,
}

impl Reader {
    async fn run(mut self, ended: impl Future<Output = Verdict>) {
        tokio::pin!(ended);
        let reject = loop {
            tokio::select! {
                // What came before the end still counts.
                biased;
                sealed = self.receiver.recv() => match sealed {
                    Ok(sealed) => match self.open(&sealed) {
                        Ok(frame) => {
                            if self.events.send(Event::Frame { conn: self.id, frame }).await.is_err() {
                                return;
                            }
                        }
                        Err(reject) => break Some(reject),
                    },
                    Err(_) => break ended.now_or_never().flatten().or(Some(Reject::Malformed)),
                },
                verdict = &mut ended => break verdict,
            }
        };
        let _ = self.events.send(Event::Gone { conn: self.id, reject }).await;
    }

    fn open(&mut self, sealed: &Bytes) -> Result<Frame, Reject> {
        let frame = self.key.open(sealed)?;
        if frame.counter <= self.counter {
            return Err(Reject::Replayed);
        }
        if frame.counter != self.counter + 1 {
            return Err(Reject::Malformed);
        }
        self.counter = frame.counter;
        Ok(frame)
    }
}

/// Round-trip time estimate, RFC 6298 §2.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rtt {
    estimate: Option<(Duration, Duration)>,
}

impl Rtt {
    pub(crate) fn sample(&mut self, rtt: Duration, least: Duration) {
        // A frame that sat out an outage says nothing of the path; a path that has really grown slow gets there in steps.
        let rtt = rtt.min(self.patience(least) * 2);
        self.estimate = Some(match self.estimate {
            None => (rtt, rtt / 2),
            Some((smoothed, variation)) => {
                let variation = (variation * 3 + smoothed.abs_diff(rtt)) / 4;
                ((smoothed * 7 + rtt) / 8, variation)
            }
        });
    }

    /// The smoothed round-trip time; zero until measured.
    pub(crate) fn smoothed(&self) -> Duration {
        self.estimate.map_or(Duration::ZERO, |(smoothed, _)| smoothed)
    }

    /// After how long without an answer something is wrong, but not before `least`.
    pub(crate) fn patience(&self, least: Duration) -> Duration {
        self.estimate.map_or(least, |(smoothed, variation)| least.max(2 * smoothed + 4 * variation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtt_follows_rfc_6298() {
        let mut rtt = Rtt::default();
        let ms = Duration::from_millis;
        assert_eq!((rtt.smoothed(), rtt.patience(ms(5))), (Duration::ZERO, ms(5)));
        rtt.sample(ms(100), ms(900));
        assert_eq!((rtt.smoothed(), rtt.patience(ms(5))), (ms(100), ms(400)));
        rtt.sample(ms(20), ms(900));
        // SRTT = 7/8·100 + 1/8·20; RTTVAR = 3/4·50 + 1/4·80.
        assert_eq!(
            (rtt.smoothed(), rtt.patience(ms(5))),
            (ms(90), ms(180) + 4 * Duration::from_micros(57_500))
        );
        assert_eq!(rtt.patience(ms(900)), ms(900));
        rtt.sample(ms(60_000), ms(5));
        assert!(rtt.smoothed() < ms(200), "an outage counts as twice the patience: {:?}", rtt.smoothed());
    }
}
