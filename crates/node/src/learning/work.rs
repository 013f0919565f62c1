//! The thread on which a node trains, judges and aggregates: one job at a time, so that the node's messages never wait for it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as channel},
    time::{Duration, Instant},
};

use bytes::Bytes;
use dtwn_model::{
    Plan,
    ids::UserId,
    plan::NodePlan,
    topology::{Aggregation, ModelFormat, Poison},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Normal};
use tokio::sync::mpsc;

use super::{
    aggregate::{Rule, aggregate},
    checkpoint::{Global, Identity, Shelf},
    data::Records,
    learner::{Judgement, Learner, LearnerError, MakeLearner, Trained},
    wire::{self, Encoder, Format},
};
use crate::association::InForce;

/// Jobs that may wait: a model of each BS to verify, for the most BSs that verify, and one to train.
const JOBS_MAX: usize = 64;
/// By how much a poisoner steps back for one step of its data.
const FLIPPED_STEPS: f32 = 3.0;
/// Standard deviation of a poisoner's noise.
const NOISE: f32 = 0.1;

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
        /// What says on which part of their samples twins train; without, they train on `learning.fraction` of them.
        in_force: Option<Arc<InForce>>,
    },
    /// Do this to the models of later rounds before they are sent. Nothing follows.
    Spoil(Option<Poison>),
    /// Check another BS's model.
    Verify {
        /// Of which round.
        round: u64,
        /// Whose, by its position among the BSs.
        owner: usize,
        /// The model.
        body: Bytes,
    },
    /// Aggregate the models of a round (Eq. 5) and judge the result.
    Finish {
        /// Which round.
        round: u64,
        /// Models, each with its owner's position and weight, in the order of the positions.
        models: Vec<(usize, Bytes, f64)>,
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
    /// The behaviour models that a round has left: BLAKE3 of the parameters, and their bytes as f32. Follows [`Done::Trained`].
    Behaviour {
        /// Which round.
        round: u64,
        /// By twin.
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
        /// How good it is on our samples.
        judgement: Option<Judgement>,
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
    /// A job that could not be done.
    Failed(String),
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub struct Worker {
    jobs: channel::SyncSender<Job>,
    models: Models,
}

impl Worker {
    /// Starts the thread; it ends when the worker is dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        plan: &Plan,
        node: &NodePlan,
        make: MakeLearner,
    ) -> std::io::Result<(Self, mpsc::Receiver<Done>)> {
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
    ) -> std::io::Result<(Self, mpsc::Receiver<Done>)> {
        let (jobs, queue) = channel::sync_channel(JOBS_MAX);
        let (done, results) = mpsc::channel(JOBS_MAX);
        let (plan, node, state_dir) = (plan.clone(), node.clone(), state_dir.map(Path::to_owned));
        let models = Models::default();
        let behaviour = Arc::clone(&models);
        std::thread::Builder::new().name("learning".into()).spawn(move || {
            let made = make(&plan, &node)
                .and_then(|learner| Works::new(learner, behaviour, &plan, &node, state_dir.as_deref()));
            let mut works = match made {
                Ok(works) => works,
                Err(error) => {
                    // Nobody left to tell is no error.
                    let _ = done.blocking_send(Done::Failed(error.to_string()));
                    return;
                }
            };
            let first = works.learner.twins();
            if !first.is_empty() && done.blocking_send(works.held(&first)).is_err() {
                return;
            }
            while let Ok(job) = queue.recv() {
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
                if let Some(round) = trained
                    && done.blocking_send(works.behaviour(round)).is_err()
                {
                    return;
                }
            }
        })?;
        Ok((Self { jobs, models }, results))
    }

    /// The behaviour models of the twins that are trained here.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Queues a job; `false` when there are too many, or the thread has ended.
    #[must_use]
    pub fn ask(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }
}

/// The state of the thread.
struct Works {
    learner: Box<dyn Learner>,
    rule: Rule,
    encoder: Encoder,
    poison: Option<Poison>,
    tolerance: f64,
    seed: u64,
    /// Our judgement on the global model that the round started from.
    baseline: Option<(u64, Option<Judgement>)>,
    /// The mean weight of a model, for the printed form of Eq. 4: samples of a twin, over the network.
    mean_weight: f64,
    current: Option<Arc<Vec<f32>>>,
    /// Where checkpoints go, in a run.
    shelf: Option<Shelf>,
    behaviour: Models,
}

impl Works {
    fn new(
        learner: Box<dyn Learner>,
        behaviour: Models,
        plan: &Plan,
        node: &NodePlan,
        state_dir: Option<&Path>,
    ) -> Result<Self, LearnerError> {
        let identity = Identity::of(plan).map_err(LearnerError::of)?;
        let shelf = state_dir.map(|dir| Shelf::new(dir, identity, learner.layout()));
        let settings = &plan.topology().learning;
        let rule = match settings.aggregation {
            Aggregation::Mean => Rule::Mean,
            Aggregation::Paper => Rule::Paper,
            Aggregation::Median => Rule::Median,
        };
        let format = match settings.format {
            ModelFormat::F32 => Format::F32,
            ModelFormat::F16 => Format::F16,
            ModelFormat::Int8 => Format::Int8,
        };
        let twins = plan.users().filter(|user| user.samples > 0).count().max(1);
        let samples: f64 = super::learner::weights(plan).iter().sum();
        Ok(Self {
            learner,
            rule,
            encoder: Encoder::new(format),
            poison: settings.poison.get(&node.name).copied(),
            tolerance: settings.tolerance,
            seed: plan.topology().run.seed,
            baseline: None,
            mean_weight: (samples / twins as f64).max(f64::MIN_POSITIVE),
            current: None,
            shelf,
            behaviour,
        })
    }

    fn run(&mut self, job: Job) -> Result<Option<Done>, LearnerError> {
        let done = match job {
            Job::Begin => self.begin(),
            Job::Twins { released, held, models } => self.change_twins(&released, held, models),
            Job::Train { round, global, in_force } => self.train(round, &global, in_force.as_deref()),
            Job::Spoil(kind) => {
                self.poison = kind;
                return Ok(None);
            }
            Job::Verify { round, owner, body } => self.verify(round, owner, &body),
            Job::Finish { round, models } => self.finish(round, &models),
        };
        done.map(Some)
    }

    fn decode(&self, body: &[u8]) -> Result<Vec<f32>, LearnerError> {
        wire::decode(body, self.learner.parameters()).map_err(LearnerError::of)
    }

    /// The model of the last checkpoint, or else the first of all.
    fn begin(&mut self) -> Result<Done, LearnerError> {
        let Some(shelf) = &self.shelf else {
            let first = self.learner.initial();
            return self.global(0, first, Vec::new(), Duration::ZERO);
        };
        let (found, damaged) = shelf.newest().map_err(LearnerError::of)?;
        let unread: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        let mut begun = match found {
            Some(Global { round, parameters, residual }) => {
                self.encoder.restore(residual);
                self.announce(round, parameters, Vec::new(), Duration::ZERO)?
            }
            None => {
                let first = self.learner.initial();
                self.global(0, first, Vec::new(), Duration::ZERO)?
            }
        };
        if let Done::Global { round, restored, trouble, .. } = &mut begun {
            *restored = *round > 0;
            trouble.extend(unread);
        }
        Ok(begun)
    }

    /// Keeps a global model, and makes it ready to be sent.
    fn global(
        &mut self,
        round: u64,
        parameters: Vec<f32>,
        refused: Vec<(usize, String)>,
        aggregate: Duration,
    ) -> Result<Done, LearnerError> {
        let mut unwritten = None;
        let mut parameters = parameters;
        if let Some(shelf) = &self.shelf {
            // What was rounded off before it is written: whoever goes on from here sends the same bytes.
            let global = Global { round, parameters, residual: self.encoder.residual().to_vec() };
            unwritten = shelf.save(&global).err().map(|error| error.to_string());
            parameters = global.parameters;
        }
        let mut done = self.announce(round, parameters, refused, aggregate)?;
        if let Done::Global { trouble, .. } = &mut done {
            trouble.extend(unwritten);
        }
        Ok(done)
    }

    fn announce(
        &mut self,
        round: u64,
        parameters: Vec<f32>,
        refused: Vec<(usize, String)>,
        aggregate: Duration,
    ) -> Result<Done, LearnerError> {
        let judgement = self.learner.judge(&parameters)?;
        let body = Bytes::from(self.encoder.encode(&parameters));
        let digest = digest(&parameters);
        self.current = Some(Arc::new(parameters));
        let (restored, trouble) = (false, Vec::new());
        Ok(Done::Global { round, body, digest, judgement, refused, aggregate, restored, trouble })
    }

    /// Writes our own model; what is rounded off goes on from the round before, also across a restart.
    fn encode(&mut self, round: u64, own: &[f32]) -> Bytes {
        let Some(shelf) = self.shelf.as_ref().filter(|_| self.encoder.rounds()) else {
            return self.encoder.encode(own).into();
        };
        if self.encoder.residual().is_empty() {
            match shelf.residual(round.saturating_sub(1)) {
                Ok(residual) => {
                    let fits = |residual: &Vec<f32>| residual.len() == own.len();
                    self.encoder.restore(residual.filter(fits).unwrap_or_default());
                }
                Err(error) => tracing::warn!(%error, "begins without what was rounded off before"),
            }
        }
        let body = self.encoder.encode(own).into();
        if let Err(error) = shelf.save_residual(round, self.encoder.residual()) {
            tracing::warn!(%error, "what was rounded off is lost if this node is started again");
        }
        body
    }

    fn models(&self) -> MutexGuard<'_, ModelByTwin> {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_twins(
        &mut self,
        released: &[UserId],
        held: Vec<(UserId, Bytes)>,
        models: Vec<(UserId, Bytes)>,
    ) -> Result<Done, LearnerError> {
        released.iter().for_each(|twin| {
            self.models().remove(twin);
        });
        let mut twins = Vec::new();
        for (twin, data) in held {
            match Records::from_bytes(&data) {
                Some(records) if !records.is_empty() => twins.push((twin, records)),
                Some(_) => {}
                None => tracing::warn!(user = twin.0, "the data of a twin have labels that no class has"),
            }
        }
        let changed: Vec<UserId> = twins.iter().map(|(twin, _)| *twin).collect();
        self.learner.change_twins(released, twins)?;
        for (twin, model) in models {
            match self.decode(&model) {
                Ok(model) => {
                    self.models().insert(twin, (0, Arc::new(model)));
                }
                // It is trained from the global model anyway.
                Err(error) => tracing::warn!(user = twin.0, %error, "a behaviour model is none"),
            }
        }
        Ok(self.held(&changed))
    }

    fn held(&self, twins: &[UserId]) -> Done {
        let data = |twin: &UserId| self.learner.data(*twin).map(|(digest, bytes)| (*twin, digest, bytes));
        Done::Held(twins.iter().filter_map(data).collect())
    }

    fn behaviour(&self, round: u64) -> Done {
        let models: Vec<_> = self
            .models()
            .iter()
            .filter(|(_, (of, _))| *of == round)
            .map(|(twin, (_, model))| (*twin, Arc::clone(model)))
            .collect();
        let models = models.into_iter().map(|(twin, model)| (twin, digest(&model), 4 * model.len() as u64));
        Done::Behaviour { round, models: models.collect() }
    }

    fn train(&mut self, round: u64, body: &Bytes, in_force: Option<&InForce>) -> Result<Done, LearnerError> {
        let global = self.decode(body)?;
        self.baseline = Some((round, self.learner.judge(&global)?));
        let began = Instant::now();
        let mut models: Vec<Trained> = Vec::new();
        let twins = self.learner.twins();
        for twin in &twins {
            if let Some(in_force) = in_force {
                self.learner.set_fraction(in_force.fraction_of(*twin));
            }
            models.push(self.learner.train(*twin, round, &global)?);
        }
        let train = began.elapsed();
        if models.is_empty() {
            return Ok(Done::Idle { round, global: body.clone() });
        }
        let samples: u64 = models.iter().map(|model| model.samples).sum();
        let loss =
            models.iter().map(|model| model.loss * model.samples as f64).sum::<f64>() / samples.max(1) as f64;
        let began = Instant::now();
        let scale = if self.rule == Rule::Paper { self.mean_weight } else { 1.0 };
        let parts: Vec<(&[f32], f64)> =
            models.iter().map(|model| (&model.parameters[..], model.samples as f64 / scale)).collect();
        let mut own = aggregate(&parts, self.rule).map_err(LearnerError::of)?;
        let aggregated = began.elapsed();
        let (count, passed) = (models.len(), models.iter().map(|model| model.passed).sum());
        let kept = twins.into_iter().zip(models);
        self.models().extend(kept.map(|(twin, model)| (twin, (round, Arc::new(model.parameters)))));
        let judgement = self.learner.judge(&own)?;
        if let Some(poison) = self.poison {
            spoil(&mut own, &global, poison, self.seed ^ round);
        }
        let body = self.encode(round, &own);
        Ok(Done::Trained {
            round,
            body,
            twins: count,
            samples: passed,
            loss,
            judgement,
            train,
            aggregate: aggregated,
        })
    }

    fn verify(&mut self, round: u64, owner: usize, body: &[u8]) -> Result<Done, LearnerError> {
        let began = Instant::now();
        let (mut fault, mut judgement) = (None, None);
        match self.decode(body) {
            Err(error) => fault = Some(error.to_string()),
            Ok(parameters) => {
                judgement = self.learner.judge(&parameters)?;
                let before = self.baseline.filter(|(of, _)| *of == round).and_then(|(_, judged)| judged);
                if let (Some(before), Some(after)) = (before, judgement) {
                    fault = worse(before, after, self.tolerance);
                }
            }
        }
        let digest = *blake3::hash(body).as_bytes();
        Ok(Done::Verified { round, owner, digest, fault, judgement, took: began.elapsed() })
    }

    fn finish(&mut self, round: u64, models: &[(usize, Bytes, f64)]) -> Result<Done, LearnerError> {
        let began = Instant::now();
        let (mut decoded, mut refused) = (Vec::new(), Vec::new());
        for (owner, body, weight) in models {
            match self.decode(body) {
                Ok(model) => decoded.push((model, *weight)),
                Err(error) => refused.push((*owner, error.to_string())),
            }
        }
        let parts: Vec<(&[f32], f64)> = decoded
            .iter()
            .map(|(model, weight)| (&model[..], if self.rule == Rule::Paper { 1.0 } else { *weight }))
            .collect();
        let next = match (parts.is_empty(), &self.current) {
            // A round without good models leaves the global model as it is.
            (true, Some(current)) => current.as_ref().clone(),
            (true, None) => self.learner.initial(),
            (false, _) => aggregate(&parts, self.rule).map_err(LearnerError::of)?,
        };
        self.global(round, next, refused, began.elapsed())
    }
}

/// Why a model is not good enough; `None` when it is.
fn worse(before: Judgement, after: Judgement, tolerance: f64) -> Option<String> {
    let (before, after) = (before.loss, after.loss);
    // Not the negation of "at most": a loss that is NaN is no good either.
    if after <= before + tolerance {
        return None;
    }
    Some(format!("its loss here is {after:.3}, that of the global model it began from {before:.3}"))
}

/// What a bad BS makes of its model.
fn spoil(own: &mut [f32], global: &[f32], poison: Poison, seed: u64) {
    match poison {
        Poison::SignFlip => {
            own.iter_mut()
                .zip(global)
                .for_each(|(own, global)| *own = global - FLIPPED_STEPS * (*own - global));
        }
        Poison::Noise => {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            if let Ok(noise) = Normal::new(0.0, NOISE) {
                own.iter_mut().for_each(|value| *value += noise.sample(&mut random));
            }
        }
        Poison::Nan => own.iter_mut().take(1).for_each(|value| *value = f32::NAN),
        // Done to the labels, before training.
        Poison::LabelFlip => {}
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

#[cfg(test)]
mod tests {
    use dtwn_model::topology::{self, Overrides};

    use super::*;
    use crate::learning::learner::twins_of;

    /// Learns two numbers: training moves towards 1, 1 and the loss is the distance from there.
    struct Toy(Vec<UserId>, f64);

    impl Learner for Toy {
        fn parameters(&self) -> usize {
            2
        }
        fn dataset(&self) -> &'static str {
            "toy"
        }
        fn initial(&self) -> Vec<f32> {
            vec![0.0, 0.0]
        }
        fn twins(&self) -> Vec<UserId> {
            self.0.clone()
        }
        fn set_fraction(&mut self, fraction: f64) {
            self.1 = fraction;
        }
        fn change_twins(
            &mut self,
            released: &[UserId],
            held: Vec<(UserId, Records)>,
        ) -> Result<(), LearnerError> {
            self.0.retain(|twin| !released.contains(twin));
            self.0.extend(held.into_iter().map(|(twin, _)| twin));
            Ok(())
        }
        fn data(&self, _: UserId) -> Option<(blake3::Hash, u64)> {
            None
        }
        fn train(&mut self, twin: UserId, _: u64, global: &[f32]) -> Result<Trained, LearnerError> {
            let parameters = global.iter().map(|value| value + (1.0 - value) / 2.0).collect();
            let samples = ((1.0 + f64::from(twin.0)) * self.1) as u64;
            Ok(Trained { parameters, samples, passed: samples, loss: 1.0, busy: Duration::ZERO })
        }
        fn judge(&mut self, parameters: &[f32]) -> Result<Option<Judgement>, LearnerError> {
            let loss = parameters.iter().map(|value| f64::from((1.0 - value).abs())).sum();
            Ok(Some(Judgement { loss, accuracy: 0.5 }))
        }
    }

    fn plan(poison: &str) -> Plan {
        let text = format!(
            "[learning]\nlearner = \"torch\"\n{poison}\n[[bs]]\nid = \"bs1\"\nposition_m = [100, 0]\n\
             [[users]]\nid = \"ug1\"\ncount = 3\naround = \"bs1\"\n"
        );
        let loaded = topology::parse("test.toml", text, &Overrides::default()).unwrap();
        Plan::new(&loaded.topology).unwrap()
    }

    fn worker(poison: &str) -> (Worker, mpsc::Receiver<Done>) {
        let plan = plan(poison);
        let make: MakeLearner = |plan, node| Ok(Box::new(Toy(twins_of(plan, node), 1.0)));
        Worker::start(&plan, plan.node("bs1").unwrap(), make).unwrap()
    }

    fn next(worker: &Worker, done: &mut mpsc::Receiver<Done>, job: Job) -> Done {
        assert!(worker.ask(job));
        loop {
            match done.blocking_recv().unwrap() {
                // Told beside what was asked for.
                Done::Held(_) | Done::Behaviour { .. } => {}
                other => return other,
            }
        }
    }

    fn body(parameters: &[f32]) -> Bytes {
        Encoder::new(Format::F32).encode(parameters).into()
    }

    #[test]
    fn what_is_in_force_says_how_many_samples_twins_train_on() {
        let (worker, mut done) = worker("");
        let plan = plan("");
        for (b, expected) in [(1.0, 6), (3.0, 18)] {
            let in_force = InForce { b: vec![b], ..InForce::first(&plan) };
            let job = Job::Train { round: 1, global: body(&[0.0, 0.0]), in_force: Some(Arc::new(in_force)) };
            let Done::Trained { samples, .. } = next(&worker, &mut done, job) else { panic!() };
            assert_eq!(samples, expected);
        }
    }

    #[test]
    fn a_round_goes_from_the_first_model_to_a_better_one() {
        let (worker, mut done) = worker("");
        let Done::Global { round: 0, body: first, judgement, .. } = next(&worker, &mut done, Job::Begin)
        else {
            panic!()
        };
        assert_eq!(judgement.unwrap().loss, 2.0);
        let job = Job::Train { round: 1, global: first, in_force: None };
        let Done::Trained { round: 1, body: own, twins: 3, samples: 6, .. } = next(&worker, &mut done, job)
        else {
            panic!()
        };
        assert_eq!(wire::decode(&own, 2).unwrap(), [0.5, 0.5]);
        let job = Job::Finish { round: 1, models: vec![(0, own, 6.0), (1, body(&[1.0, 1.0]), 6.0)] };
        let Done::Global { round: 1, body: global, judgement, digest: sealed, .. } =
            next(&worker, &mut done, job)
        else {
            panic!()
        };
        assert_eq!(wire::decode(&global, 2).unwrap(), [0.75, 0.75]);
        assert_eq!((judgement.unwrap().loss, sealed), (0.5, digest(&[0.75, 0.75])));
        // Without good models the global one stays.
        let Done::Global { digest: kept, .. } =
            next(&worker, &mut done, Job::Finish { round: 2, models: Vec::new() })
        else {
            panic!()
        };
        assert_eq!(kept, sealed);
    }

    #[test]
    fn twins_change_between_rounds_and_leave_their_models() {
        let (worker, mut done) = worker("");
        let data = Bytes::from(vec![1; crate::learning::data::RECORD_BYTES]);
        let job = Job::Twins {
            released: vec![UserId(0), UserId(1)],
            held: vec![(UserId(9), data)],
            models: vec![(UserId(9), body(&[3.0, 4.0])), (UserId(2), Bytes::from_static(b"none"))],
        };
        assert!(worker.ask(job));
        assert!(matches!(done.blocking_recv().unwrap(), Done::Held(_)));
        assert!(matches!(done.blocking_recv().unwrap(), Done::Held(_)));
        let of = |twin| {
            worker.models().lock().unwrap().get(&UserId(twin)).map(|(round, model)| (*round, model.to_vec()))
        };
        assert_eq!((of(9), of(2)), (Some((0, vec![3.0, 4.0])), None));
        let job = Job::Train { round: 1, global: body(&[0.0, 0.0]), in_force: None };
        let Done::Trained { twins: 2, .. } = next(&worker, &mut done, job) else { panic!() };
        let Done::Behaviour { round: 1, models } = done.blocking_recv().unwrap() else { panic!() };
        let half = digest(&[0.5, 0.5]);
        assert_eq!(models, [(UserId(2), half, 8), (UserId(9), half, 8)]);
        let released = vec![UserId(2), UserId(9)];
        assert!(worker.ask(Job::Twins { released, held: Vec::new(), models: Vec::new() }));
        assert!(matches!(done.blocking_recv().unwrap(), Done::Held(_)));
        assert_eq!(of(9), None);
        let job = Job::Train { round: 2, global: body(&[0.0, 0.0]), in_force: None };
        assert!(matches!(next(&worker, &mut done, job), Done::Idle { round: 2, .. }));
    }

    #[test]
    fn bad_models_are_found_out() {
        let (worker, mut done) = worker("");
        next(&worker, &mut done, Job::Train { round: 1, global: body(&[0.0, 0.0]), in_force: None });
        let mut fault = |of: Bytes| {
            let job = Job::Verify { round: 1, owner: 2, body: of };
            let Done::Verified { round: 1, owner: 2, fault, .. } = next(&worker, &mut done, job) else {
                panic!()
            };
            fault
        };
        assert_eq!(fault(body(&[0.5, 0.5])), None);
        assert!(fault(body(&[-1.0, -1.0])).unwrap().contains("its loss here is 4.000"));
        assert!(fault(body(&[0.5, f32::NAN])).unwrap().contains("not a finite number"));
        assert!(fault(body(&[0.5])).unwrap().contains("1 parameters where 2"));
    }

    #[test]
    fn a_poisoner_sends_what_its_poison_says() {
        let (worker, mut done) = worker("poison = { bs1 = \"sign-flip\" }");
        let mut own = || {
            let job = Job::Train { round: 1, global: body(&[0.0, 0.0]), in_force: None };
            let Done::Trained { body: own, .. } = next(&worker, &mut done, job) else { panic!() };
            wire::decode(&own, 2).unwrap()
        };
        assert_eq!(own(), [-1.5, -1.5]);
        assert!(worker.ask(Job::Spoil(None)));
        assert_eq!(own(), [0.5, 0.5]);
        assert!(worker.ask(Job::Spoil(Some(Poison::SignFlip))));
        assert_eq!(own(), [-1.5, -1.5]);
    }

    #[test]
    fn a_job_that_fails_says_why_and_the_next_one_is_done() {
        let (worker, mut done) = worker("");
        let job = Job::Train { round: 1, global: Bytes::from_static(b"no model"), in_force: None };
        assert!(matches!(next(&worker, &mut done, job), Done::Failed(why) if why.contains("not a model")));
        assert!(matches!(next(&worker, &mut done, Job::Begin), Done::Global { .. }));
    }
}
