//! Writes the run's events to its directory, on a thread of its own: a slow or full disk never holds up the session.
//!
//! The queue to the thread is bounded. When it is full, or the disk refuses, the run goes on and the recorder says so loudly: its
//! failure is an event to viewers and a reason in the summary.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use dtwn_proto::{
    event::Event,
    log::{self, LogError},
};

use crate::error::{Error, Result};

/// Events waiting for the disk at most; at a thousand a second, some eight seconds of a stalled disk.
const QUEUE_MAX: usize = 8192;

/// A handle to the thread that writes the event file.
#[derive(Debug)]
pub struct Recorder {
    queue: Option<SyncSender<Order>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    Write(Box<Event>),
    /// Write out what is buffered and say how far the file goes.
    Flush(SyncSender<u64>),
}

#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Recorder {
    /// The event file of a run directory.
    pub fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("events.dtwn")
    }

    /// Opens the event file of a run directory before anything happens that belongs into it.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn start(run_dir: &Path) -> Result<Self> {
        let path = Self::path(run_dir);
        let mut file = File::create(&path).map_err(Error::file("create", &path))?;
        file.write_all(&log::header()).map_err(Error::file("write", &path))?;
        let shared = Arc::new(Shared::default());
        let (queue, orders) = sync_channel(QUEUE_MAX);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || write_all(file, &orders, &for_thread))
            .map_err(Error::file("start", "the recorder's thread"))?;
        Ok(Self { queue: Some(queue), shared, thread: Some(thread) })
    }

    /// Records an event; never waits.
    pub fn record(&self, event: Event) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            queue.try_send(Order::Write(Box::new(event)))
        {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks for all recorded events to be in the file; the answer is the file's length in bytes. `None` when the recorder is
    /// too busy or has failed.
    pub fn flush(&self) -> Option<Receiver<u64>> {
        let (answer, answered) = sync_channel(1);
        self.queue.as_ref()?.try_send(Order::Flush(answer)).ok()?;
        Some(answered)
    }

    /// What went wrong, if anything did: events that are missing from the file, and why.
    pub fn failure(&self) -> Option<String> {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (failure, lost) {
            (Some(why), lost) => Some(format!("{lost} events could not be recorded: {why}")),
            (None, 0) => None,
            (None, lost) => Some(format!("{lost} events could not be recorded: the disk is too slow")),
        }
    }

    /// Writes what is pending and closes the file.
    pub fn finish(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_all(file: File, orders: &Receiver<Order>, shared: &Shared) {
    let mut out = std::io::BufWriter::with_capacity(256 * 1024, file);
    let mut written = log::HEADER_BYTES as u64;
    let mut failed = false;
    loop {
        // Events that arrive together share a write; with none waiting, nothing stays in memory, where a kill -9 loses it.
        let order = match orders.try_recv() {
            Ok(order) => order,
            Err(TryRecvError::Empty) => {
                failed = failed || !keep(shared, &out.flush().map_err(LogError::Io));
                match orders.recv() {
                    Ok(order) => order,
                    Err(_) => break,
                }
            }
            Err(TryRecvError::Disconnected) => break,
        };
        match order {
            Order::Write(_) if failed => {
                shared.lost.fetch_add(1, Ordering::Relaxed);
            }
            Order::Write(event) => {
                let mut record = Vec::with_capacity(256);
                let result = log::append(&mut record, &*event);
                failed = !keep(shared, &result.and_then(|()| Ok(out.write_all(&record)?)));
                written += record.len() as u64;
            }
            Order::Flush(answer) => {
                failed = failed || !keep(shared, &out.flush().map_err(LogError::Io));
                let _ = answer.try_send(written);
            }
        }
    }
    if !failed {
        keep(shared, &out.flush().map_err(LogError::Io));
    }
}

/// Notes a failure; whether there was none.
fn keep(shared: &Shared, result: &std::result::Result<(), LogError>) -> bool {
    if let Err(error) = result {
        shared.lost.fetch_add(1, Ordering::Relaxed);
        *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
    result.is_ok()
}
