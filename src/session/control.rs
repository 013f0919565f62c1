//! The session's end of the control socket.
//!
//! Each connection is a task: it reads one request at a time and hands it to the session, which owns all state. Requests and their
//! number are bounded, and whoever connects must be the user that started the session (the kernel tells, SO_PEERCRED).

use std::{
    fs::File,
    io::{BufReader, Read},
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixStream as StdStream,
    path::PathBuf,
    sync::Arc,
};

use dtwn_proto::{
    VERSION,
    control::{CaptureOf, Hello, Request, Response},
    event::Event,
    frame::{self, FrameError},
    log,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
};

use super::Input;

/// Connections served at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to say who it is.
const GREETING_TIME: std::time::Duration = std::time::Duration::from_secs(2);
/// The most bytes of a request: far above any honest one.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Live events waiting for a viewer at most; a slower viewer misses the rest, and is told how many.
pub const VIEWER_QUEUE_MAX: usize = 4096;

/// How long a viewer waits for the recorder to have written what happened before.
const HISTORY_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// What the session answers a connection.
pub enum Answer {
    /// A message.
    Message(Box<Response>),
    /// Namespaces of a node: whether the first is a user namespace, and the descriptors.
    Namespaces(bool, Vec<OwnedFd>),
    /// A stream of events: the file with those so far and how much of it, then live ones.
    Events(Subscription),
}

/// A viewer's share of the event stream.
pub struct Subscription {
    /// The events until then, if they are wanted.
    pub history: History,
    /// What happens from then on.
    pub live: mpsc::Receiver<Live>,
    /// Held until the viewer has read everything: the session waits for that a moment before it ends.
    pub _farewell: mpsc::Sender<()>,
}

/// The events before a subscription.
pub enum History {
    /// Not wanted.
    Unwanted,
    /// In this file, as far as the recorder will say once it has written them all: the disk may be slow.
    File(PathBuf, std::sync::mpsc::Receiver<u64>),
    /// The recorder has failed, or is behind by more than it can remember.
    Lost,
}

/// An item of the live stream.
#[derive(Debug, Clone)]
pub enum Live {
    /// An event, encoded once for all viewers.
    Event(Arc<[u8]>),
    /// This many events were left out here.
    Skipped(u64),
}

/// A question to the session.
pub struct Question {
    /// What is asked.
    pub request: Request,
    /// A descriptor that came with it.
    pub descriptor: Option<OwnedFd>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// Accepts connections until the session drops the listener's task.
pub async fn serve(listener: UnixListener, inputs: mpsc::Sender<Input>, name: String, run_dir: PathBuf) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: those in use must be given back before another try can succeed.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let inputs = inputs.clone();
        let welcome =
            Response::Welcome { version: VERSION.into(), name: name.clone(), run_dir: run_dir.clone() };
        tokio::spawn(async move {
            if let Err(error) = converse(stream, inputs, welcome).await
                && !matches!(error, FrameError::Closed)
            {
                tracing::debug!(%error, "a control connection ended");
            }
            drop(place);
        });
    }
}

async fn converse(
    mut stream: UnixStream,
    inputs: mpsc::Sender<Input>,
    welcome: Response,
) -> Result<(), FrameError> {
    if stream.peer_cred()?.uid() != nix::unistd::geteuid().as_raw() {
        let refusal = "this session belongs to another user".to_owned();
        return send(&mut stream, &Response::Refused(refusal)).await;
    }
    // Whoever connects and says nothing keeps others out for no longer than this.
    let hello: Hello =
        tokio::time::timeout(GREETING_TIME, receive(&mut stream)).await.map_err(|_| FrameError::Closed)??;
    send(&mut stream, &welcome).await?;
    if hello.version != VERSION {
        return Ok(());
    }
    loop {
        let request: Request = receive(&mut stream).await?;
        if hello.read_only && !request.is_read_only() {
            let refusal = "this connection is read-only".to_owned();
            send(&mut stream, &Response::Refused(refusal)).await?;
            continue;
        }
        if let Request::Capture { of } = request {
            return capture(stream, inputs, of).await;
        }
        let Some(answer) = ask(&inputs, request, None).await else { return Ok(()) };
        match answer {
            Answer::Message(response) => send(&mut stream, &response).await?,
            Answer::Namespaces(user, fds) => return hand_over(stream, user, fds).await,
            Answer::Events(subscription) => return stream_events(stream, subscription).await,
        }
    }
}

async fn ask(inputs: &mpsc::Sender<Input>, request: Request, descriptor: Option<OwnedFd>) -> Option<Answer> {
    let (answer, answered) = oneshot::channel();
    inputs.send(Input::Question(Question { request, descriptor, answer })).await.ok()?;
    answered.await.ok()
}

async fn hand_over(mut stream: UnixStream, user: bool, fds: Vec<OwnedFd>) -> Result<(), FrameError> {
    send(&mut stream, &Response::Namespaces { user, count: fds.len() }).await?;
    let stream = stream.into_std()?;
    let work = move || {
        stream.set_nonblocking(false)?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        dtwn_sys::fdpass::send(&stream, &borrowed).map_err(std::io::Error::other)
    };
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)??;
    Ok(())
}

/// Takes the descriptor that follows the request, and records into it for as long as the client stays.
async fn capture(stream: UnixStream, inputs: mpsc::Sender<Input>, of: CaptureOf) -> Result<(), FrameError> {
    let stream = stream.into_std()?;
    let (stream, descriptor) = tokio::task::spawn_blocking(move || {
        stream.set_nonblocking(false)?;
        let fds = dtwn_sys::fdpass::receive(&stream).map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>((stream, fds.into_iter().next()))
    })
    .await
    .map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    let Some(answer) = ask(&inputs, Request::Capture { of }, descriptor).await else { return Ok(()) };
    let Answer::Message(response) = answer else { return Ok(()) };
    send(&mut stream, &response).await?;
    if let Response::Capturing { id } = *response {
        // The client holds the connection open for as long as it wants packets.
        let _ = stream.read(&mut [0]).await;
        let _ = inputs.send(Input::CaptureOver(id)).await;
        let _ = send(&mut stream, &Response::Done).await;
    }
    Ok(())
}

async fn stream_events(mut stream: UnixStream, mut subscription: Subscription) -> Result<(), FrameError> {
    match subscription.history {
        History::Unwanted => {}
        History::File(path, written) => {
            stream = send_history(stream, path, written).await?;
            send(&mut stream, &Response::Live).await?;
        }
        History::Lost => {
            send(&mut stream, &lost()).await?;
            send(&mut stream, &Response::Live).await?;
        }
    }
    while let Some(item) = subscription.live.recv().await {
        match item {
            Live::Event(frame) => stream.write_all(&frame).await?,
            Live::Skipped(count) => send(&mut stream, &Response::Skipped(count)).await?,
        }
    }
    Ok(())
}

fn lost() -> Response {
    Response::Refused("the events so far cannot be read: the run's disk is full, broken or too slow".into())
}

/// Copies events from the file to the client once they are written, off the session's thread: neither a slow disk nor a client that
/// reads slowly holds up anybody else.
async fn send_history(
    stream: UnixStream,
    path: PathBuf,
    written: std::sync::mpsc::Receiver<u64>,
) -> Result<UnixStream, FrameError> {
    let std_stream = stream.into_std()?;
    let copied: Result<StdStream, FrameError> = tokio::task::spawn_blocking(move || {
        std_stream.set_nonblocking(false)?;
        let Ok(bytes) = written.recv_timeout(HISTORY_TIME) else {
            frame::write(&mut &std_stream, &lost())?;
            std_stream.set_nonblocking(true)?;
            return Ok(std_stream);
        };
        let file = BufReader::new(File::open(&path)?.take(bytes));
        let mut reader = log::Reader::new(file).map_err(std::io::Error::other)?;
        let mut out = std::io::BufWriter::new(&std_stream);
        while let Some(event) = reader.next_event::<Event>().map_err(std::io::Error::other)? {
            frame::write(&mut out, &Response::Event(Box::new(event)))?;
        }
        std::io::Write::flush(&mut out)?;
        drop(out);
        std_stream.set_nonblocking(true)?;
        Ok(std_stream)
    })
    .await
    .map_err(std::io::Error::other)?;
    Ok(UnixStream::from_std(copied?)?)
}

/// Writes a message to an asynchronous stream.
pub async fn send(stream: &mut UnixStream, message: &impl Serialize) -> Result<(), FrameError> {
    stream.write_all(&frame::encode(message)?).await?;
    Ok(())
}

async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, FrameError> {
    read_frame(stream, REQUEST_BYTES_MAX).await
}

/// Reads a message of at most `bytes_max` from an asynchronous stream.
pub async fn read_frame<T: DeserializeOwned>(
    stream: &mut (impl AsyncReadExt + Unpin),
    bytes_max: usize,
) -> Result<T, FrameError> {
    let mut prefix = [0; 4];
    if let Err(error) = stream.read_exact(&mut prefix).await {
        return Err(match error.kind() {
            std::io::ErrorKind::UnexpectedEof => FrameError::Closed,
            _ => FrameError::Io(error),
        });
    }
    let length = frame::body_length(prefix)?;
    if length > bytes_max {
        return Err(FrameError::TooLarge(length));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    frame::decode(&body)
}

#[cfg(test)]
mod tests {
    use dtwn_proto::{
        event::{Level, What},
        frame::BODY_BYTES_MAX,
    };

    use super::*;
    use crate::session::recorder::Recorder;

    /// What a viewer hears first.
    async fn heard(history: History) -> (Vec<Response>, tokio::task::JoinHandle<Result<(), FrameError>>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // Nothing happens later: the stream ends with what was before.
        let live = mpsc::channel(1).1;
        let subscription = Subscription { history, live, _farewell: mpsc::channel(1).0 };
        let serving = tokio::spawn(stream_events(ours, subscription));
        let mut all = Vec::new();
        while let Ok(response) = read_frame::<Response>(&mut theirs, BODY_BYTES_MAX).await {
            all.push(response);
        }
        (all, serving)
    }

    #[tokio::test]
    async fn a_viewer_gets_what_was_before_however_late_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(dir.path()).unwrap();
        let what = What::Notice { level: Level::Info, text: "long ago".into() };
        recorder.record(Event { node: "bs1".into(), sequence: 0, at_ns: 1, wall_unix_ns: 0, what });
        let length = recorder.flush().unwrap().recv().unwrap();
        let (answer, written) = std::sync::mpsc::sync_channel(1);
        // Longer than the session itself could ever wait for its disk.
        let slow = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(800));
            answer.send(length)
        });
        let (all, serving) = heard(History::File(Recorder::path(dir.path()), written)).await;
        slow.join().unwrap().unwrap();
        serving.await.unwrap().unwrap();
        assert!(matches!(&all[..], [Response::Event(event), Response::Live] if event.at_ns == 1), "{all:?}");
    }

    #[tokio::test]
    async fn a_viewer_is_told_that_what_was_before_is_lost() {
        let (dropped, written) = std::sync::mpsc::sync_channel(1);
        drop(dropped);
        for history in [History::Lost, History::File("none".into(), written)] {
            let (all, serving) = heard(history).await;
            serving.await.unwrap().unwrap();
            assert!(matches!(&all[..], [Response::Refused(_), Response::Live]), "{all:?}");
        }
    }
}
