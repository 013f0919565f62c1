//! One connection: a ZeroMQ socket of its own behind a guard of its own.

use super::guard::{Flow, Guard, Verdict};
use super::seal::SEALED_BYTES;
use bytes::Bytes;
use futures::StreamExt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream as StdUnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::net::{TcpStream, UnixStream};
use zeromq::util::PeerIdentity;
use zeromq::{
    DealerRecvHalf, DealerSendHalf, DealerSocket, RouterRecvHalf, RouterSendHalf, RouterSocket, Socket,
    SocketEvent, SocketOptions, SocketRecv, SocketSend, ZmqMessage,
};

/// Unsent bytes that the kernel may hold: what lies there can no longer be superseded, and a stalled peer swallows it.
const NOTSENT_LOWAT_BYTES: u32 = 32 * 1024;

/// Why a connection could not be made or used. Only logged: the answer to all of them is another connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Zmq(Box<zeromq::ZmqError>),
    #[error("the connection ended ({0:?})")]
    Ended(Verdict),
}

impl From<zeromq::ZmqError> for LinkError {
    fn from(error: zeromq::ZmqError) -> Self {
        Self::Zmq(Box::new(error))
    }
}

enum SendHalf {
    Dealer(DealerSendHalf),
    /// With the identity under which the ROUTER knows its only peer.
    Router(RouterSendHalf, Bytes),
}

enum RecvHalf {
    Dealer(DealerRecvHalf),
    Router(RouterRecvHalf),
}

/// Sends on a connection. Owns the guard: dropping it ends the connection.
pub(crate) struct LinkSender {
    half: SendHalf,
    guard: Guard,
    /// Bytes handed to ZeroMQ, and those that had left before the first of them.
    handed_bytes: u64,
    before_bytes: u64,
}

/// Receives on a connection.
pub(crate) struct LinkReceiver {
    half: RecvHalf,
}

/// A DEALER over a stream that this node has dialled. `identity` is shown to the peer's ROUTER.
pub(crate) async fn dealer(
    stream: TcpStream,
    identity: &[u8],
) -> Result<(LinkSender, LinkReceiver), LinkError> {
    let mut options = SocketOptions::default();
    options.peer_identity(PeerIdentity::try_from(identity)?);
    let (socket, guard, _) = attach::<DealerSocket>(options, stream).await?;
    let (send, receive) = socket.split();
    Ok((LinkSender::new(SendHalf::Dealer(send), guard), LinkReceiver { half: RecvHalf::Dealer(receive) }))
}

/// A ROUTER over a stream that this node has accepted.
pub(crate) async fn router(stream: TcpStream) -> Result<(LinkSender, LinkReceiver), LinkError> {
    let (socket, guard, peer) = attach::<RouterSocket>(SocketOptions::default(), stream).await?;
    let (send, receive) = socket.split();
    let half = SendHalf::Router(send, Bytes::from(peer));
    Ok((LinkSender::new(half, guard), LinkReceiver { half: RecvHalf::Router(receive) }))
}

/// Puts a ZeroMQ socket behind a guard over `stream` and waits for the ZMTP handshake.
///
/// Cancel-safe, which needs care: a `zeromq` socket dropped during its handshake leaks a task and a descriptor when the
/// handshake then succeeds, for the peer enters a backend that has already been shut down. So the socket waits for the
/// outcome in a task of its own; dropping this future drops the guard, which ends the handshake one way or the other.
async fn attach<S: Socket + 'static>(
    options: SocketOptions,
    stream: TcpStream,
) -> Result<(S, Guard, PeerIdentity), LinkError> {
    tune(&stream)?;
    let (listener, address) = private_listener()?;
    let local = StdUnixStream::connect_addr(&address)?;
    local.set_nonblocking(true)?;
    let guard = Guard::start(stream, UnixStream::from_std(local)?, SEALED_BYTES);
    let settling = tokio::spawn(settle(S::with_options(options), listener));
    match settling.await.unwrap_or(Err(LinkError::Ended(None))) {
        Ok((socket, peer)) => Ok((socket, guard, peer)),
        Err(error) => Err(guard.refusal().map_or(error, |reject| LinkError::Ended(Some(reject)))),
    }
}

/// Accepts the guard's connection, which is in the listener's queue, and waits until its handshake has an outcome.
async fn settle<S: Socket>(mut socket: S, listener: UnixListener) -> Result<(S, PeerIdentity), LinkError> {
    let mut events = socket.monitor();
    let endpoint = socket.bind_listener(zeromq::Listener::Ipc(listener)).await?;
    let peer = loop {
        match events.next().await {
            Some(SocketEvent::Accepted(_, peer)) => break peer,
            Some(SocketEvent::AcceptFailed(error)) => return Err(error.into()),
            Some(_) => {}
            None => return Err(LinkError::Ended(None)),
        }
    };
    // One peer is all this socket ever has.
    socket.unbind(endpoint).await?;
    Ok((socket, peer))
}

/// A Unix listener at an abstract address: it leaves no file, and only this network namespace can see it.
fn private_listener() -> std::io::Result<(UnixListener, UnixAddr)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let name = format!("dtwn-bus-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let address = UnixAddr::from_abstract_name(name)?;
        match UnixListener::bind_addr(&address) {
            // Processes of different PID namespaces can share a number.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            bound => return Ok((bound?, address)),
        }
    }
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    // A connection that is given up must not go on retransmitting over the air.
    stream.set_zero_linger()?;
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)
}

impl LinkSender {
    fn new(half: SendHalf, guard: Guard) -> Self {
        let before_bytes = guard.flow.sent_bytes.load(Relaxed);
        Self { half, guard, handed_bytes: 0, before_bytes }
    }

    /// Hands one envelope to ZeroMQ, which queues it at once: its queue takes 100,000 and the backlog is kept to a few.
    pub(crate) async fn send(&mut self, sealed: Bytes) -> Result<(), LinkError> {
        let header_bytes = if sealed.len() > 255 { 9 } else { 2 };
        self.handed_bytes += (sealed.len() + header_bytes) as u64;
        match &mut self.half {
            SendHalf::Dealer(half) => half.send(ZmqMessage::from(sealed)).await?,
            SendHalf::Router(half, peer) => {
                let mut message = ZmqMessage::from(sealed);
                message.push_front(peer.clone());
                half.send(message).await?;
            }
        }
        Ok(())
    }

    /// Bytes handed over that the TCP socket has not yet taken.
    pub(crate) fn backlog_bytes(&self) -> u64 {
        let sent = self.flow().sent_bytes.load(Relaxed);
        self.handed_bytes.saturating_sub(sent.saturating_sub(self.before_bytes))
    }

    pub(crate) fn flow(&self) -> &Arc<Flow> {
        &self.guard.flow
    }

    /// Resolves when the connection has ended.
    pub(crate) fn ended(&self) -> impl Future<Output = Verdict> + Send + 'static {
        self.guard.ended()
    }
}

impl LinkReceiver {
    /// The next envelope, still sealed. Never resolves once the connection has ended: wait for that beside it.
    pub(crate) async fn recv(&mut self) -> Result<Bytes, LinkError> {
        let message = match &mut self.half {
            RecvHalf::Dealer(half) => half.recv().await?,
            RecvHalf::Router(half) => half.recv().await?,
        };
        // The ROUTER puts the peer's identity in front; the guard has refused anything of several parts.
        let last = message.into_vec().pop();
        last.ok_or(LinkError::Ended(None))
    }
}
