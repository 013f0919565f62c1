//! The store on a thread of its own: whatever waits is synced together, so a busy disk makes larger batches and not a longer
//! queue.

use std::{sync::Arc, sync::mpsc as std_mpsc, thread};

use dtwn_chain::{
    Error,
    message::{Message, Request},
    record::Record,
    store::Store,
    types::{Digest, Height, ReplicaId},
};
use tokio::sync::mpsc;

use super::ChainError;

/// What the driver wants of the store.
pub(super) enum Job {
    /// Append a record; [`Done::Persisted`] follows.
    Append(u64, Record),
    /// Answer a request from the finalized chain.
    Serve(Option<ReplicaId>, Request),
    /// Keep a body that was complete at this height.
    PutBody(Digest, Arc<[u8]>, Height),
    /// Look a body up.
    LoadBody(Digest),
    /// Drop bodies that were complete before this height.
    PruneBodies(Height),
}

/// What came of it.
pub(super) enum Done {
    /// Every record up to this one is durable, so many since the last time.
    Persisted(u64, usize),
    /// Answers for somebody.
    Served(Option<ReplicaId>, Vec<Message>),
    /// A body that was looked up and found.
    Body(Arc<[u8]>),
    /// The store cannot go on.
    Failed(Error),
}

/// The way to the thread. It ends when this is dropped.
pub(super) struct Disk {
    jobs: std_mpsc::Sender<Job>,
}

impl Disk {
    /// Starts the thread. The driver bounds what it asks for, so the channels need no bound of their own.
    pub(super) fn start(store: Store) -> Result<(Self, mpsc::UnboundedReceiver<Done>), ChainError> {
        let (jobs, queue) = std_mpsc::channel();
        let (done, results) = mpsc::unbounded_channel();
        thread::Builder::new()
            .name("chain-store".into())
            .spawn(move || work(store, &queue, &done))
            .map_err(|error| ChainError::Disk(format!("cannot be started: {error}")))?;
        Ok((Self { jobs }, results))
    }

    /// Queues a job.
    pub(super) fn ask(&self, job: Job) -> Result<(), ChainError> {
        self.jobs.send(job).map_err(|_| ChainError::Disk("has ended".into()))
    }
}

fn work(mut store: Store, queue: &std_mpsc::Receiver<Job>, done: &mpsc::UnboundedSender<Done>) {
    while let Ok(first) = queue.recv() {
        let mut jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).collect();
        let mut others = Vec::new();
        let mut records = Vec::new();
        let mut last = 0;
        for job in jobs.drain(..) {
            match job {
                Job::Append(number, record) => {
                    records.push(record);
                    last = number;
                }
                other => others.push(other),
            }
        }
        let mut outcome = store.append(&records);
        if outcome.is_ok() && last > 0 {
            let _ = done.send(Done::Persisted(last, records.len()));
        }
        for job in others {
            if outcome.is_ok() {
                outcome = answer(&store, job, done);
            }
        }
        if let Err(error) = outcome {
            let _ = done.send(Done::Failed(error));
            return;
        }
    }
}

fn answer(store: &Store, job: Job, done: &mpsc::UnboundedSender<Done>) -> dtwn_chain::Result<()> {
    match job {
        Job::Append(..) => {}
        Job::Serve(to, request) => {
            let _ = done.send(Done::Served(to, store.serve(&request)?));
        }
        Job::PutBody(digest, bytes, height) => store.put_body(&digest, &bytes, height)?,
        Job::LoadBody(digest) => match store.body(&digest) {
            Ok(Some(bytes)) => {
                let _ = done.send(Done::Body(bytes));
            }
            Ok(None) => {}
            // Others have it too: a body is not worth ending the replica for.
            Err(error) => tracing::warn!(%digest, %error, "a body could not be read"),
        },
        Job::PruneBodies(height) => {
            let count = store.prune_bodies(height)?;
            tracing::debug!(count, height, "old bodies were dropped");
        }
    }
    Ok(())
}
