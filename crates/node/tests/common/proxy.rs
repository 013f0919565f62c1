//! A TCP relay between two buses that records, cuts and goes silent.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use super::common::{config, peer};
use dtwn_node::bus::{Bus, Receiver, Timing};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast};

#[derive(Default)]
pub struct State {
    /// Whether to keep what is passed on.
    pub record: AtomicBool,
    /// What each connection's dialler has sent so far, while that was set.
    pub recorded: Mutex<Vec<Vec<u8>>>,
    /// Connections so far.
    pub connections: AtomicUsize,
    /// Passes nothing on, in neither direction, while set.
    pub silent: AtomicBool,
    resumed: Notify,
}

pub struct Proxy {
    pub address: SocketAddr,
    pub state: Arc<State>,
    cut: broadcast::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (cut, _) = broadcast::channel(1);
        let (shared, cutter) = (Arc::clone(&state), cut.clone());
        let task = tokio::spawn(async move {
            let mut relays = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (client, _) = accepted.unwrap();
                        let Ok(server) = TcpStream::connect(target).await else { continue };
                        relays.spawn(relay(client, server, Arc::clone(&shared), cutter.subscribe()));
                    }
                    Some(_) = relays.join_next() => {}
                }
            }
        });
        Self { address, state, cut, task }
    }

    /// Ends every connection.
    pub fn cut(&self) {
        let _ = self.cut.send(());
    }

    pub fn silence(&self, silent: bool) {
        self.state.silent.store(silent, SeqCst);
        self.state.resumed.notify_waiters();
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }
}

async fn relay(
    mut client: TcpStream,
    mut server: TcpStream,
    state: Arc<State>,
    mut cut: broadcast::Receiver<()>,
) {
    let index = {
        let mut recorded = state.recorded.lock().unwrap();
        recorded.push(Vec::new());
        recorded.len() - 1
    };
    state.connections.fetch_add(1, SeqCst);
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let forth = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            while state.silent.load(SeqCst) {
                let _ = tokio::time::timeout(std::time::Duration::from_millis(20), state.resumed.notified())
                    .await;
            }
            if state.record.load(SeqCst) {
                state.recorded.lock().unwrap()[index].extend(&buffer[..count]);
            }
            if to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            while state.silent.load(SeqCst) {
                let _ = tokio::time::timeout(std::time::Duration::from_millis(20), state.resumed.notified())
                    .await;
            }
            if to_client.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = forth => {}
        () = back => {}
        _ = cut.recv() => {}
    }
}

/// `b` listens, `a` dials it through a proxy.
pub async fn through_proxy(timing: Timing) -> ((Bus, Receiver), (Bus, Receiver), Proxy) {
    let mut listening = config("b", Some("127.0.0.1:0"), vec![peer("a", &[])]);
    listening.timing = timing.clone();
    let b = Bus::start(listening).await.unwrap();
    let proxy = Proxy::to(b.0.local_addr().unwrap()).await;
    let mut dialling = config("a", None, vec![peer("b", &[proxy.address])]);
    dialling.timing = timing;
    (Bus::start(dialling).await.unwrap(), b, proxy)
}
