//! Accepting connections, up to a hello with a good signature.

use super::conn::{Accepted, Event};
use super::link::{self, LinkError};
use super::seal::{self, Context};
use super::stats::{Reject, RejectCounters};
use dtwn_proto::bus::{Class, Envelope, Hello, NodeName};
use ed25519_dalek::VerifyingKey;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Pause after a failed accept, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Counts connections that have not proved who they are, in all and by address.
#[derive(Debug)]
pub(crate) struct Strangers {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
    pub(crate) rejected: RejectCounters,
}

/// A stranger's place; dropping it frees it.
#[derive(Debug)]
pub(crate) struct StrangerPermit {
    strangers: Arc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default(), rejected: RejectCounters::default() })
    }

    /// A place for a connection from `address`, unless all or a quarter of all that come from it are taken.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<StrangerPermit> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&address).copied().unwrap_or(0);
        if all >= self.max || own >= self.max.div_ceil(4) {
            return None;
        }
        open.insert(address, own + 1);
        Some(StrangerPermit { strangers: Arc::clone(self), address })
    }

    pub(crate) fn open(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for StrangerPermit {
    fn drop(&mut self) {
        let mut open = self.strangers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Finds the key and the lane of a peer.
pub(crate) trait Directory: Send + Sync + 'static {
    /// `None`: no such peer.
    fn look_up(&self, peer: &NodeName, class: Class) -> Option<(VerifyingKey, mpsc::Sender<Event>)>;
}

/// The accepting side of a bus.
pub(crate) struct Acceptor<D> {
    pub(crate) me: NodeName,
    pub(crate) listener: TcpListener,
    pub(crate) strangers: Arc<Strangers>,
    pub(crate) handshake: Duration,
    pub(crate) directory: Arc<D>,
}

impl<D: Directory> Acceptor<D> {
    /// Accepts until it is aborted.
    pub(crate) async fn run(self) {
        let acceptor = Arc::new(self);
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = acceptor.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        // Closing at once is the cheapest answer to a flood; peers dial again.
                        if let Some(permit) = acceptor.strangers.admit(address.ip()) {
                            handshakes.spawn(Arc::clone(&acceptor).greet(stream, permit));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept connections");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = handshakes.join_next() => {}
            }
        }
    }

    async fn greet(self: Arc<Self>, stream: TcpStream, permit: StrangerPermit) {
        let strangers = Arc::clone(&permit.strangers);
        match tokio::time::timeout(self.handshake, self.handshake(stream, permit)).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(reject)) => {
                if let Some(reject) = reject {
                    strangers.rejected.add(reject);
                }
            }
        }
    }

    /// Reads a hello and hands the connection to its lane. `Err(None)`: it ended without fault.
    async fn handshake(&self, stream: TcpStream, permit: StrangerPermit) -> Result<(), Option<Reject>> {
        let verdict = |error| match error {
            LinkError::Ended(verdict) => verdict,
            LinkError::Io(_) => None,
            LinkError::Zmq(_) => Some(Reject::Malformed),
        };
        let (sender, mut receiver) = link::router(stream).await.map_err(verdict)?;
        let sealed_hello = tokio::select! {
            biased;
            sealed = receiver.recv() => sealed.map_err(verdict)?,
            verdict = sender.ended() => return Err(verdict),
        };
        let Envelope::Hello(hello) = seal::peek(&sealed_hello)? else {
            return Err(Some(Reject::Malformed));
        };
        let lane = self.identify(&hello, &sealed_hello)?;
        let accepted = Accepted { sender, receiver, hello, sealed_hello, permit };
        let _ = lane.send(Event::Accepted(Box::new(accepted))).await;
        Ok(())
    }

    fn identify(&self, hello: &Hello, sealed: &[u8]) -> Result<mpsc::Sender<Event>, Reject> {
        let (key, lane) = self.directory.look_up(&hello.from, hello.class).ok_or(Reject::BadSignature)?;
        seal::verify(sealed, &Context::hello(), &key)?;
        // Signed by the right peer, but to somebody else: it was taken from another node's connection.
        if hello.to == self.me { Ok(lane) } else { Err(Reject::Replayed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_a_quarter_of_the_places_and_all_get_them_back() {
        let strangers = Strangers::new(8);
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let mut held: Vec<_> = (0..2).map(|_| strangers.admit(address(1)).unwrap()).collect();
        assert!(strangers.admit(address(1)).is_none());
        held.extend(
            (2..5).flat_map(|last| [address(last); 2]).map(|address| strangers.admit(address).unwrap()),
        );
        assert_eq!(strangers.open(), 8);
        assert!(strangers.admit(address(9)).is_none());
        held.clear();
        assert_eq!(strangers.open(), 0);
        assert!(strangers.admit(address(1)).is_some());
    }
}
