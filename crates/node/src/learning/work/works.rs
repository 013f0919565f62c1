//! What the thread does.

use std::{
    path::Path,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use dtwn_model::{
    Plan,
    ids::UserId,
    plan::NodePlan,
    topology::{Aggregation, ModelFormat, Poison},
};

use super::{
    Done, Job, ModelByTwin, Models, Orders, digest,
    poison::spoil,
    verify::{Bounds, Yardstick, reliability},
};
use crate::learning::{
    aggregate::{Rule, aggregate},
    checkpoint::{Global, Identity, Shelf},
    data::Records,
    learner::{self, Judgement, Learner, LearnerError, Trained},
    wire::{self, Encoder, Format},
};

/// The state of the thread.
pub(super) struct Works {
    pub(super) learner: Box<dyn Learner>,
    rule: Rule,
    encoder: Encoder,
    poison: Option<Poison>,
    bounds: Bounds,
    seed: u64,
    /// What models of the round are held against, at a BS.
    yardstick: Option<Yardstick>,
    /// The twins that were trained last, each with the samples that it was trained on.
    trained: Vec<(UserId, f64)>,
    /// The mean weight of a model, for the printed form of Eq. 4: samples of a twin, over the network.
    mean_weight: f64,
    current: Option<Arc<Vec<f32>>>,
    /// Where checkpoints go, in a run.
    shelf: Option<Shelf>,
    behaviour: Models,
    pub(super) orders: Arc<Orders>,
}

impl Works {
    pub(super) fn new(
        learner: Box<dyn Learner>,
        behaviour: Models,
        orders: Arc<Orders>,
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
        let samples: f64 = learner::weights(plan).iter().sum();
        Ok(Self {
            learner,
            rule,
            encoder: Encoder::new(format),
            poison: settings.poison.get(&node.name).copied(),
            bounds: Bounds {
                tolerance: settings.tolerance,
                alignment: settings.alignment,
                mislabel_z: settings.mislabel_z,
            },
            seed: plan.topology().run.seed,
            yardstick: None,
            trained: Vec::new(),
            mean_weight: (samples / twins as f64).max(f64::MIN_POSITIVE),
            current: None,
            shelf,
            behaviour,
            orders,
        })
    }

    pub(super) fn run(&mut self, job: Job) -> Result<Option<Done>, LearnerError> {
        let done = match job {
            Job::Begin => self.begin(),
            Job::Twins { released, held, models } => self.change_twins(&released, held, models),
            Job::Train { round, .. } if self.orders.is_past(round) => {
                Ok(Done::Overtaken { round, model: None })
            }
            Job::Verify { round, digest, .. } if self.orders.is_past(round) => {
                Ok(Done::Overtaken { round, model: Some(digest) })
            }
            Job::Train { round, global, fractions } => self.train(round, &global, fractions.as_deref()),
            Job::Spoil(kind) => {
                self.poison = kind;
                return Ok(None);
            }
            Job::Verify { round, owner, digest, body } => self.verify(round, owner, digest, &body),
            Job::Finish { round, models, least } => self.finish(round, &models, least),
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
                let judgement = self.learner.judge(&parameters)?;
                self.announce(round, parameters, judgement, Vec::new(), Duration::ZERO)
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
        // First, as it takes longest: nothing may come between a checkpoint and what is told of its round.
        let judgement = self.learner.judge(&parameters)?;
        let mut unwritten = None;
        let mut parameters = parameters;
        if let Some(shelf) = &self.shelf {
            // What was rounded off before it is written: whoever goes on from here sends the same bytes.
            let global = Global { round, parameters, residual: self.encoder.residual().to_vec() };
            unwritten = shelf.save(&global).err().map(|error| error.to_string());
            parameters = global.parameters;
        }
        let mut done = self.announce(round, parameters, judgement, refused, aggregate);
        if let Done::Global { trouble, .. } = &mut done {
            trouble.extend(unwritten);
        }
        Ok(done)
    }

    /// Makes a global model ready to be sent.
    fn announce(
        &mut self,
        round: u64,
        parameters: Vec<f32>,
        judgement: Option<Judgement>,
        refused: Vec<(usize, String)>,
        aggregate: Duration,
    ) -> Done {
        let body = Bytes::from(self.encoder.encode(&parameters));
        let digest = digest(&parameters);
        self.current = Some(Arc::new(parameters));
        let (restored, trouble) = (false, Vec::new());
        Done::Global { round, body, digest, judgement, refused, aggregate, restored, trouble }
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

    pub(super) fn held(&self, twins: &[UserId]) -> Done {
        let data = |twin: &UserId| self.learner.data(*twin).map(|(digest, bytes)| (*twin, digest, bytes));
        Done::Held(twins.iter().filter_map(data).collect())
    }

    /// What a round's training leaves to be done once its model is on its way: to judge it and what it began from.
    pub(super) fn after(&mut self, round: u64) -> Result<Done, LearnerError> {
        let kept: ModelByTwin = self
            .models()
            .iter()
            .filter(|(_, (of, _))| *of == round)
            .map(|(twin, kept)| (*twin, kept.clone()))
            .collect();
        let mut judgement = None;
        // Models of a round that is over are not checked any more.
        if let Some(yardstick) = self.yardstick.as_mut().filter(|_| !self.orders.is_past(round)) {
            let of = |(twin, samples): &(UserId, f64)| Some((&kept.get(twin)?.1[..], *samples));
            let models: Vec<(&[f32], f64)> = self.trained.iter().filter_map(of).collect();
            yardstick.expected = reliability(&yardstick.global, &models);
            yardstick.before = self.learner.examine(&yardstick.global)?;
            let own = yardstick.own.as_deref();
            yardstick.after = own.map(|own| self.learner.examine(own)).transpose()?.flatten();
            judgement = yardstick.after.as_ref().map(|examined| examined.judgement);
        }
        let told = |(twin, (_, model)): (UserId, (u64, Arc<Vec<f32>>))| {
            (twin, digest(&model), 4 * model.len() as u64)
        };
        Ok(Done::Behaviour { round, judgement, models: kept.into_iter().map(told).collect() })
    }

    fn train(&mut self, round: u64, body: &Bytes, fractions: Option<&[f64]>) -> Result<Done, LearnerError> {
        let global = self.decode(body)?;
        self.yardstick =
            Some(Yardstick { round, global, before: None, own: None, after: None, expected: 0.0 });
        let began = Instant::now();
        let twins = self.learner.twins();
        let models = self.train_twins(&twins, round, fractions);
        let train = began.elapsed();
        if self.orders.is_past(round) {
            let samples = models?.iter().map(|model| model.passed).sum();
            return Ok(Done::Abandoned { round, samples, train });
        }
        if models.as_ref().map_or(true, Vec::is_empty)
            && let Some(yardstick) = &mut self.yardstick
        {
            // Whoever has no model of its own still holds others' against what they began from.
            yardstick.before = self.learner.examine(&yardstick.global)?;
        }
        let models = models?;
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
        self.trained = twins.iter().copied().zip(models.iter().map(|model| model.samples as f64)).collect();
        let kept = twins.into_iter().zip(models);
        self.models().extend(kept.map(|(twin, model)| (twin, (round, Arc::new(model.parameters)))));
        // Others are held against what was trained, whatever is sent.
        if let Some(yardstick) = &mut self.yardstick {
            yardstick.own = Some(own.clone());
            if let Some(poison) = self.poison {
                spoil(&mut own, &yardstick.global, poison, self.seed ^ round);
            }
        }
        let body = self.encode(round, &own);
        Ok(Done::Trained { round, body, twins: count, samples: passed, loss, train, aggregate: aggregated })
    }

    fn train_twins(
        &mut self,
        twins: &[UserId],
        round: u64,
        fractions: Option<&[f64]>,
    ) -> Result<Vec<Trained>, LearnerError> {
        let Some(yardstick) = &self.yardstick else { return Ok(Vec::new()) };
        let mut models = Vec::new();
        for twin in twins {
            if self.orders.is_stopped() {
                return Err(LearnerError("told to stop".into()));
            }
            if self.orders.is_past(round) {
                break;
            }
            if let Some(fractions) = fractions {
                self.learner.set_fraction(fractions.get(twin.index()).copied().unwrap_or(0.0));
            }
            models.push(self.learner.train(*twin, round, &yardstick.global)?);
        }
        Ok(models)
    }

    fn verify(
        &mut self,
        round: u64,
        owner: usize,
        digest: [u8; 32],
        body: &[u8],
    ) -> Result<Done, LearnerError> {
        let began = Instant::now();
        let (fault, judgement) = match self.decode(body) {
            Err(error) => (Some(error.to_string()), None),
            Ok(parameters) => {
                // Without what it began from there is nothing to say of a model, and least of all that it is good.
                let Some(held) = self.yardstick.as_ref().filter(|yardstick| yardstick.round == round) else {
                    return Ok(Done::Unverified { round, owner, digest });
                };
                let examined = self.learner.examine(&parameters)?;
                let fault = held.fault(&parameters, examined.as_ref(), self.bounds);
                (fault, examined.map(|examined| examined.judgement))
            }
        };
        Ok(Done::Verified { round, owner, digest, fault, judgement, took: began.elapsed() })
    }

    fn finish(
        &mut self,
        round: u64,
        models: &[(usize, Bytes, f64)],
        least: usize,
    ) -> Result<Done, LearnerError> {
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
        let next = match (parts.len() < least.max(1), &self.current) {
            // A round with too few models leaves the global model as it is.
            (true, Some(current)) => current.as_ref().clone(),
            (true, None) => self.learner.initial(),
            (false, _) => aggregate(&parts, self.rule).map_err(LearnerError::of)?,
        };
        self.global(round, next, refused, began.elapsed())
    }
}
