//! The guard between a ZeroMQ socket and the network.
//!
//! It owns the TCP stream and passes its bytes to and from the ZeroMQ socket, which listens on an abstract Unix socket that
//! nobody else is told of. What comes from the network is checked against ZMTP 3 (RFC 23) as far as it decides what the
//! `zeromq` crate will allocate: one NULL greeting, one READY command, then single-part message frames of bounded length.

use super::stats::Reject;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf as TcpRead, WriteHalf as TcpWrite};
use tokio::net::unix::{ReadHalf as UnixRead, WriteHalf as UnixWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

const GREETING_BYTES: usize = 64;
/// Longest READY command: socket type and an identity take less than 300 bytes.
const READY_BYTES_MAX: u64 = 512;
const RELAY_BUFFER_BYTES: usize = 64 * 1024;

const FLAG_MORE: u8 = 1;
const FLAG_LONG: u8 = 2;
const FLAG_COMMAND: u8 = 4;

/// Follows a ZMTP byte stream and refuses what a bus peer never sends.
#[derive(Debug)]
pub(crate) struct ZmtpFilter {
    state: State,
    frame_bytes_max: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Bytes of the greeting seen.
    Greeting(usize),
    Flags {
        ready: bool,
    },
    Length {
        ready: bool,
        missing: u8,
        length: u64,
    },
    Body {
        left: u64,
    },
}

impl ZmtpFilter {
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self { state: State::Greeting(0), frame_bytes_max: frame_bytes_max as u64 }
    }

    /// Takes the next bytes of the stream. On an error none of them may be passed on.
    pub(crate) fn check(&mut self, mut bytes: &[u8]) -> Result<(), Reject> {
        while let Some(&byte) = bytes.first() {
            if let State::Body { left } = self.state {
                let skip = left.min(bytes.len() as u64);
                bytes = &bytes[skip as usize..];
                self.state = if left == skip {
                    State::Flags { ready: true }
                } else {
                    State::Body { left: left - skip }
                };
                continue;
            }
            bytes = &bytes[1..];
            self.state = match self.state {
                State::Greeting(at) => Self::greeting(at, byte)?,
                State::Flags { ready } => Self::flags(ready, byte)?,
                State::Length { ready, missing, length } => {
                    self.length(ready, missing, length << 8 | u64::from(byte))?
                }
                State::Body { .. } => continue,
            };
        }
        Ok(())
    }

    /// RFC 23: signature 0xFF … 0x7F, version 3 or later, mechanism NULL padded with zeros, filler.
    fn greeting(at: usize, byte: u8) -> Result<State, Reject> {
        const MECHANISM: &[u8] = b"NULL";
        let right = match at {
            0 => byte == 0xFF,
            9 => byte == 0x7F,
            10 => byte >= 3,
            12..32 => byte == MECHANISM.get(at - 12).copied().unwrap_or(0),
            _ => true,
        };
        match (right, at + 1) {
            (false, _) => Err(Reject::Malformed),
            (true, GREETING_BYTES) => Ok(State::Flags { ready: false }),
            (true, next) => Ok(State::Greeting(next)),
        }
    }

    fn flags(ready: bool, byte: u8) -> Result<State, Reject> {
        let known = byte & !(FLAG_MORE | FLAG_LONG | FLAG_COMMAND) == 0;
        let command = byte & FLAG_COMMAND != 0;
        if !known || byte & FLAG_MORE != 0 || command == ready {
            return Err(Reject::Malformed);
        }
        Ok(State::Length { ready, missing: if byte & FLAG_LONG != 0 { 8 } else { 1 }, length: 0 })
    }

    fn length(&self, ready: bool, missing: u8, length: u64) -> Result<State, Reject> {
        if missing > 1 {
            return Ok(State::Length { ready, missing: missing - 1, length });
        }
        let limit = if ready { self.frame_bytes_max } else { READY_BYTES_MAX };
        match length {
            0 => Ok(State::Flags { ready: true }),
            left if left <= limit => Ok(State::Body { left }),
            _ => Err(Reject::Oversized),
        }
    }
}

/// How much has left towards the network, and who waits to hear of it.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Bytes taken by the TCP socket.
    pub(crate) sent_bytes: AtomicU64,
    /// Told of every advance; the lane's, once the connection belongs to one.
    pub(crate) watcher: std::sync::OnceLock<Arc<Notify>>,
}

/// Why a guard ended. `None`: either side closed the connection.
pub(crate) type Verdict = Option<Reject>;

/// A running guard. Dropping it resets the TCP connection and closes the ZeroMQ socket's side.
#[derive(Debug)]
pub(crate) struct Guard {
    task: JoinHandle<()>,
    pub(crate) flow: Arc<Flow>,
    verdict: watch::Receiver<Option<Verdict>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Guard {
    /// Starts relaying between the two streams.
    pub(crate) fn start(network: TcpStream, socket: UnixStream, frame_bytes_max: usize) -> Self {
        let flow = Arc::new(Flow::default());
        let (done, verdict) = watch::channel(None);
        let relayed = Arc::clone(&flow);
        let task = tokio::spawn(async move {
            let (mut network, mut socket) = (network, socket);
            let verdict = relay(&mut network, &mut socket, ZmtpFilter::new(frame_bytes_max), &relayed).await;
            // Before the streams close: whoever sees the end can then see the reason.
            done.send_replace(Some(verdict));
        });
        Self { task, flow, verdict }
    }

    /// Why it has refused the peer's bytes, if it has.
    pub(crate) fn refusal(&self) -> Option<Reject> {
        self.verdict.borrow().flatten()
    }

    /// Resolves when the connection has ended, again and again.
    pub(crate) fn ended(&self) -> impl Future<Output = Verdict> + Send + 'static {
        let mut verdict = self.verdict.clone();
        async move { verdict.wait_for(Option::is_some).await.ok().and_then(|verdict| *verdict).flatten() }
    }
}

async fn relay(
    network: &mut TcpStream,
    socket: &mut UnixStream,
    mut filter: ZmtpFilter,
    flow: &Flow,
) -> Verdict {
    let (mut from_network, mut to_network) = network.split();
    let (mut from_socket, mut to_socket) = socket.split();
    tokio::select! {
        verdict = inward(&mut from_network, &mut to_socket, &mut filter) => verdict,
        () = outward(&mut from_socket, &mut to_network, flow) => None,
    }
}

async fn inward(network: &mut TcpRead<'_>, socket: &mut UnixWrite<'_>, filter: &mut ZmtpFilter) -> Verdict {
    let mut buffer = vec![0; RELAY_BUFFER_BYTES];
    loop {
        let count = network.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            return None;
        }
        if let Err(reject) = filter.check(&buffer[..count]) {
            return Some(reject);
        }
        if socket.write_all(&buffer[..count]).await.is_err() {
            return None;
        }
    }
}

async fn outward(socket: &mut UnixRead<'_>, network: &mut TcpWrite<'_>, flow: &Flow) {
    let mut buffer = vec![0; RELAY_BUFFER_BYTES];
    loop {
        let count = socket.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            return;
        }
        let mut written = 0;
        while written < count {
            // Counted piece by piece: over a slow link the buffer alone is half a second.
            match network.write(&buffer[written..count]).await {
                Ok(0) | Err(_) => return,
                Ok(piece) => {
                    written += piece;
                    flow.sent_bytes.fetch_add(piece as u64, Relaxed);
                    if let Some(watcher) = flow.watcher.get() {
                        watcher.notify_one();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn opening() -> Vec<u8> {
        let mut bytes = vec![0; GREETING_BYTES];
        bytes[0] = 0xFF;
        bytes[9] = 0x7F;
        bytes[10] = 3;
        bytes[12..16].copy_from_slice(b"NULL");
        bytes.extend([FLAG_COMMAND, 6]);
        bytes.extend(b"\x05READY");
        bytes
    }

    fn long(length: u64) -> Vec<u8> {
        [&[FLAG_LONG][..], &length.to_be_bytes()].concat()
    }

    fn after_opening(rest: &[u8]) -> Result<(), Reject> {
        let mut filter = ZmtpFilter::new(1000);
        filter.check(&opening()).unwrap();
        filter.check(rest)
    }

    #[test]
    fn messages_up_to_the_limit_pass() {
        let whole =
            [opening(), vec![0, 3, 1, 2, 3], long(1000), vec![9; 1000], vec![0, 0], vec![0, 1, 7]].concat();
        for piece in [1, 2, 7, 4096] {
            let mut filter = ZmtpFilter::new(1000);
            for chunk in whole.chunks(piece) {
                assert_eq!(filter.check(chunk), Ok(()));
            }
        }
    }

    #[test]
    fn absurd_lengths_are_refused_before_the_header_is_complete_downstream() {
        for length in [1001, 1 << 50, u64::MAX] {
            let header = long(length);
            let mut filter = ZmtpFilter::new(1000);
            filter.check(&opening()).unwrap();
            assert_eq!(filter.check(&header[..8]), Ok(()));
            assert_eq!(filter.check(&header[8..]), Err(Reject::Oversized));
        }
        let mut filter = ZmtpFilter::new(1000);
        filter.check(&opening()[..GREETING_BYTES]).unwrap();
        let ready = [&[FLAG_COMMAND | FLAG_LONG][..], &(READY_BYTES_MAX + 1).to_be_bytes()].concat();
        assert_eq!(filter.check(&ready), Err(Reject::Oversized));
    }

    #[test]
    fn multipart_later_commands_and_unknown_flags_are_refused() {
        for flags in [FLAG_MORE, FLAG_COMMAND, FLAG_COMMAND | FLAG_LONG, 8, 0xFF] {
            assert_eq!(after_opening(&[flags]), Err(Reject::Malformed), "{flags:#x}");
        }
        let mut filter = ZmtpFilter::new(1000);
        filter.check(&opening()[..GREETING_BYTES]).unwrap();
        assert_eq!(filter.check(&[0]), Err(Reject::Malformed), "a message before READY");
    }

    #[test]
    fn other_protocols_and_mechanisms_are_refused() {
        for (at, byte) in [(0, b'G'), (9, 0), (10, 2), (12, b'P'), (16, b'X')] {
            let mut bytes = opening();
            bytes[at] = byte;
            assert_eq!(ZmtpFilter::new(1000).check(&bytes), Err(Reject::Malformed), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics_and_splits_do_not_matter(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(bytes.len());
            let mut whole = ZmtpFilter::new(100);
            let mut split = ZmtpFilter::new(100);
            for filter in [&mut whole, &mut split] {
                filter.check(&opening()).unwrap();
            }
            let in_two = split.check(&bytes[..cut]).and_then(|()| split.check(&bytes[cut..]));
            prop_assert_eq!(whole.check(&bytes), in_two);
        }
    }
}
