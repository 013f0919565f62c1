//! The thread on which a node trains, judges and aggregates: one job at a time, so that the node's messages never wait for it.

mod labels;
mod poison;
mod verify;
mod works;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc as channel,
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use dtwn_model::{Plan, ids::UserId, plan::NodePlan, topology::Poison};
use tokio::sync::mpsc;

use super::learner::{Judgement, MakeLearner};
use works::Works;

/// Jobs that may wait: a model of each BS to verify, for the most BSs that verify, and one to train.
const JOBS_MAX: usize = 64;

/// Twins' behaviour models: each as the twin was trained last, with the round.
pub type Models = Arc<Mutex<ModelByTwin>>;

/// By twin: the round of its latest model, and the model.
pub type ModelByTwin = BTreeMap<UserId, (u64, Arc<Vec<f32>>)>;

/// Something to do.
#[derive(Debug)]
pub enum Job {
    /// Give twins up, and take others over.
    Twins {
        /// Twins to give up.
        released: Vec<UserId>,
        /// Twins with their data, as records one after the other.
        held: Vec<(UserId, Bytes)>,
        /// Behaviour models that came along, as models travel.
        models: Vec<(UserId, Bytes)>,
    },
    /// Write out the parameters that everything starts from, or those of the last checkpoint, and judge them.
    Begin,
    /// Train all twins from this global model and aggregate them (Eq. 4).
    Train {
        /// For which round.
        round: u64,
        /// The global model.
        global: Bytes,
        /// On which part of its samples each user's twin trains, in order of the users; without, on `learning.fraction` of them.
        fractions: Option<Arc<[f64]>>,
    },
    /// Do this to the models of later rounds before they are sent. Nothing follows.
    Spoil(Option<Poison>),
    /// Check another BS's model.
    Verify {
        /// Of which round.
        round: u64,
        /// Whose, by its position among the BSs.
        owner: usize,
        /// BLAKE3 of the body.
        digest: [u8; 32],
        /// The model.
        body: Bytes,
    },
    /// Aggregate the models of a round (Eq. 5) and judge the result.
    Finish {
        /// Which round.
        round: u64,
        /// Models, each with its owner's position and weight, in the order of the positions.
        models: Vec<(usize, Bytes, f64)>,
        /// With fewer that are models the global one stays as it is.
        least: usize,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Done {
    /// A global model to send out, with the judgement on it.
    Global {
        /// The round that made it; 0 for the first.
        round: u64,
        /// As it travels.
        body: Bytes,
        /// BLAKE3 of its parameters.
        digest: blake3::Hash,
        /// On the test set.
        judgement: Option<Judgement>,
        /// Models of the round that were none, by their owner's position, and why.
        refused: Vec<(usize, String)>,
        /// Time that Eq. 5 took, wall.
        aggregate: Duration,
        /// Whether it comes from a checkpoint.
        restored: bool,
        /// Checkpoints that could not be read or written, and why.
        trouble: Vec<String>,
    },
    /// The data of twins that are held here from now on: BLAKE3 and bytes.
    Held(Vec<(UserId, blake3::Hash, u64)>),
    /// There was nothing to train: no twin here has samples.
    Idle {
        /// In which round.
        round: u64,
        /// The global model of that round.
        global: Bytes,
    },
    /// What is told of a round's training once nobody waits for it: how good our model is, and the behaviour models that are left.
    /// Follows [`Done::Trained`].
    Behaviour {
        /// Which round.
        round: u64,
        /// How good the model is on our samples.
        judgement: Option<Judgement>,
        /// By twin: BLAKE3 of the parameters, and their bytes as f32.
        models: Vec<(UserId, blake3::Hash, u64)>,
    },
    /// Our own model.
    Trained {
        /// Of which round.
        round: u64,
        /// As it travels.
        body: Bytes,
        /// Twins trained.
        twins: usize,
        /// Samples that went through.
        samples: u64,
        /// Mean loss over the twins, weighted by samples, in nats.
        loss: f64,
        /// Wall time of training.
        train: Duration,
        /// Wall time of Eq. 4.
        aggregate: Duration,
    },
    /// What we think of another's model.
    Verified {
        /// Of which round.
        round: u64,
        /// Whose.
        owner: usize,
        /// BLAKE3 of the body.
        digest: [u8; 32],
        /// Why it is not good; `None` when it is.
        fault: Option<String>,
        /// On our samples.
        judgement: Option<Judgement>,
        /// Wall time that it took.
        took: Duration,
    },
    /// A model that could not be checked, for want of the global model that it began from.
    Unverified {
        /// Of which round.
        round: u64,
        /// Whose.
        owner: usize,
        /// BLAKE3 of the body.
        digest: [u8; 32],
    },
    /// Training, or the check of the model with a digest, was not begun, as a newer round had: nothing would have come of it.
    Overtaken {
        /// For which round it was.
        round: u64,
        /// Which model was to be checked; `None` where training was asked for.
        model: Option<[u8; 32]>,
    },
    /// Training was abandoned when a newer round began.
    Abandoned {
        /// For which round it was.
        round: u64,
        /// Samples that had gone through.
        samples: u64,
        /// Wall time that these took.
        train: Duration,
    },
    /// A job that could not be done.
    Failed(String),
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub struct Worker {
    jobs: channel::SyncSender<Option<Job>>,
    models: Models,
    orders: Arc<Orders>,
}

/// What comes from the thread. Dropping it ends the thread, and waits until it has: libtorch takes itself down when `main` returns, and
/// a thread that still computes then would crash the program.
#[derive(Debug)]
pub struct Results {
    done: mpsc::Receiver<Done>,
    jobs: channel::SyncSender<Option<Job>>,
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread looks at between twins.
#[derive(Debug, Default)]
struct Orders {
    /// Whether it is to end.
    stop: AtomicBool,
    /// The newest round that has begun. While training takes longer than rounds, the thread would come ever further behind if it did
    /// what older ones asked for.
    newest: AtomicU64,
}

impl Orders {
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn begin(&self, round: u64) {
        self.newest.fetch_max(round, Ordering::Relaxed);
    }

    fn is_past(&self, round: u64) -> bool {
        self.newest.load(Ordering::Relaxed) > round
    }
}

impl Results {
    /// The next one; `None` when the thread has ended.
    pub async fn recv(&mut self) -> Option<Done> {
        self.done.recv().await
    }

    /// As [`recv`](Self::recv), outside asynchronous code.
    pub fn blocking_recv(&mut self) -> Option<Done> {
        self.done.blocking_recv()
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        self.orders.stop();
        self.done.close();
        // Wakes a thread that waits for a job; with a full queue it does not wait.
        let _ = self.jobs.try_send(None);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Done {
    /// What it is, in a word: models are too much for a message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Global { .. } => "a global model",
            Self::Held(_) => "data of twins",
            Self::Idle { .. } => "nothing to train",
            Self::Behaviour { .. } => "behaviour models",
            Self::Trained { .. } => "a trained model",
            Self::Verified { .. } => "a finding",
            Self::Unverified { .. } => "no finding",
            Self::Overtaken { .. } => "work that was overtaken",
            Self::Abandoned { .. } => "training that was abandoned",
            Self::Failed(_) => "a failure",
        }
    }
}

impl Worker {
    /// Starts the thread; it ends when the results are dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(plan: &Plan, node: &NodePlan, make: MakeLearner) -> std::io::Result<(Self, Results)> {
        Self::start_in(plan, node, make, None)
    }

    /// As [`start`](Self::start), with a folder for checkpoints, which it goes on from.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start_in(
        plan: &Plan,
        node: &NodePlan,
        make: MakeLearner,
        state_dir: Option<&Path>,
    ) -> std::io::Result<(Self, Results)> {
        let (jobs, queue) = channel::sync_channel(JOBS_MAX);
        let (done, results) = mpsc::channel(JOBS_MAX);
        let (plan, node, state_dir) = (plan.clone(), node.clone(), state_dir.map(Path::to_owned));
        let (models, orders) = (Models::default(), Arc::<Orders>::default());
        let (behaviour, told) = (Arc::clone(&models), Arc::clone(&orders));
        let thread = std::thread::Builder::new().name("learning".into()).spawn(move || {
            let made = make(&plan, &node)
                .and_then(|learner| Works::new(learner, behaviour, told, &plan, &node, state_dir.as_deref()));
            match made {
                Ok(works) => work(works, &queue, &done),
                // Nobody left to tell is no error.
                Err(error) => drop(done.blocking_send(Done::Failed(error.to_string()))),
            }
        })?;
        let (jobs_too, orders_too) = (jobs.clone(), Arc::clone(&orders));
        let results = Results { done: results, jobs: jobs_too, orders: orders_too, thread: Some(thread) };
        Ok((Self { jobs, models, orders }, results))
    }

    /// The behaviour models of the twins that are trained here.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Lets what was asked for older rounds go, where it is not done yet: it is answered by [`Done::Overtaken`].
    pub fn begin(&self, round: u64) {
        self.orders.begin(round);
    }

    /// Queues a job; `false` when there are too many, or the thread has ended.
    #[must_use]
    pub fn ask(&self, job: Job) -> bool {
        self.jobs.try_send(Some(job)).is_ok()
    }
}

/// Does jobs until there is nobody to tell of them, or nobody to ask for more.
fn work(mut works: Works, queue: &channel::Receiver<Option<Job>>, done: &mpsc::Sender<Done>) {
    let first = works.learner.twins();
    if !first.is_empty() && done.blocking_send(works.held(&first)).is_err() {
        return;
    }
    while let Ok(Some(job)) = queue.recv() {
        if works.orders.is_stopped() {
            return;
        }
        let result = works.run(job).unwrap_or_else(|error| Some(Done::Failed(error.to_string())));
        let Some(result) = result else { continue };
        let trained = match &result {
            Done::Trained { round, .. } => Some(*round),
            _ => None,
        };
        if done.blocking_send(result).is_err() {
            return;
        }
        // What waits for the model need not wait for this too.
        if let Some(round) = trained {
            let after = works.after(round).unwrap_or_else(|error| Done::Failed(error.to_string()));
            if done.blocking_send(after).is_err() {
                return;
            }
        }
    }
}

/// BLAKE3 of parameters as little-endian f32.
#[must_use]
pub fn digest(parameters: &[f32]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for chunk in parameters.chunks(4096) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.finalize()
}
