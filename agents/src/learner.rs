//! The learner of a node: the CNN, and the samples of the twins that a base station holds, or the test set of the MBS.

use std::path::Path;

use dtwn_model::Plan;
use dtwn_model::ids::UserId;
use dtwn_model::plan::NodePlan;
use dtwn_model::topology::{Learning, Optimiser as Choice, Partition, Poison};
use dtwn_node::learning::checkpoint::TensorLayout;
use dtwn_node::learning::data::{CLASSES, Cifar10, Records};
use dtwn_node::learning::learner::{self, Judgement, Learner, LearnerError, Trained};
use dtwn_node::learning::partition::{Scheme, partition};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::Device;

use crate::cnn;
use crate::synthetic::{Synthetic, TEST_START};
use crate::training::{Local, Normalisation, Optimiser, Trainer};

/// The learner of a node, for [`dtwn_node::agent::run`].
///
/// # Errors
/// When the data set cannot be read or has too few samples, or libtorch cannot hold the model.
pub fn make(plan: &Plan, node: &NodePlan) -> Result<Box<dyn Learner>, LearnerError> {
    Ok(Box::new(TorchLearner::new(plan, node)?))
}

/// See the module.
#[derive(Debug)]
pub struct TorchLearner {
    trainer: Trainer,
    dataset: &'static str,
    seed: u64,
    local: Local,
    fraction: f64,
    /// What twins train on.
    training: Records,
    /// Each twin's positions in `training`, in the order in which twins are trained.
    twins: Vec<(UserId, Vec<u32>)>,
    /// What models are judged on.
    held_out: Records,
}

impl TorchLearner {
    /// Reads or makes the samples of this node's twins.
    ///
    /// # Errors
    /// As [`make`].
    pub fn new(plan: &Plan, node: &NodePlan) -> Result<Self, LearnerError> {
        let settings = &plan.topology().learning;
        let seed = plan.topology().run.seed;
        let (dataset, normalisation) = dataset_of(settings);
        let trainer = Trainer::new(Device::Cpu, normalisation).map_err(LearnerError::of)?;
        let ids = learner::twins_of(plan, node);
        let mut source = Source::open(plan, settings, seed)?;
        let mut training = Records::default();
        let mut twins = Vec::new();
        if !ids.is_empty() {
            let dealt = source.deal(plan, settings, seed)?;
            let flip = settings.poison.get(&node.name) == Some(&Poison::LabelFlip);
            for id in ids {
                let own = dealt.get(id.index()).map(Vec::as_slice).unwrap_or_default();
                let first = training.len();
                own.iter().try_for_each(|sample| source.copy(*sample, flip, &mut training))?;
                let positions = (first..training.len()).filter_map(|at| u32::try_from(at).ok()).collect();
                twins.push((id, positions));
            }
        }
        let held_out = match twins.is_empty() {
            true => source.test(settings.test_samples),
            false => validation(&training, settings.validation_samples, seed),
        };
        let local = local(settings);
        Ok(Self { trainer, dataset, seed, local, fraction: settings.fraction, training, twins, held_out })
    }
}

impl TorchLearner {
    /// What its twins train on, and how that is normalised.
    pub(crate) fn samples(&self) -> (Normalisation, &Records) {
        (self.trainer.normalisation(), &self.training)
    }
}

impl Learner for TorchLearner {
    fn parameters(&self) -> usize {
        cnn::PARAMETERS
    }

    fn layout(&self) -> Vec<TensorLayout> {
        let shape = |shape: &[i64]| shape.iter().filter_map(|size| usize::try_from(*size).ok()).collect();
        cnn::LAYOUT.iter().map(|part| (part.name.to_owned(), shape(part.shape))).collect()
    }

    fn dataset(&self) -> &str {
        self.dataset
    }

    fn initial(&self) -> Vec<f32> {
        cnn::initial_parameters(self.seed)
    }

    fn twins(&self) -> Vec<UserId> {
        self.twins.iter().map(|(id, _)| *id).collect()
    }

    fn set_fraction(&mut self, fraction: f64) {
        self.fraction = fraction;
    }

    fn train(&mut self, twin: UserId, round: u64, global: &[f32]) -> Result<Trained, LearnerError> {
        let own = self.twins.iter().find(|(id, _)| *id == twin);
        let (_, own) = own.ok_or_else(|| LearnerError(format!("no twin of user {} here", twin.0)))?;
        let seed = seed_of(self.seed, twin, round);
        let mut chosen = own.clone();
        chosen.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let held = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
        chosen.truncate(learner::share(held, self.fraction) as usize);
        let trained = self.trainer.train(global, &self.training, &chosen, &self.local, seed.wrapping_add(1));
        let trained = trained.map_err(LearnerError::of)?;
        Ok(Trained {
            parameters: trained.parameters,
            samples: chosen.len() as u64,
            passed: trained.samples,
            loss: trained.loss,
            busy: trained.busy,
        })
    }

    fn judge(&mut self, parameters: &[f32]) -> Result<Option<Judgement>, LearnerError> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let all: Vec<u32> = (0..self.held_out.len()).filter_map(|at| u32::try_from(at).ok()).collect();
        let judged = self.trainer.judge(parameters, &self.held_out, &all).map_err(LearnerError::of)?;
        Ok(Some(Judgement { loss: judged.loss, accuracy: judged.accuracy }))
    }
}

/// What the users of a plan hold together, and what the MBS judges models on.
#[derive(Debug)]
pub struct Pool {
    /// `synthetic` or `cifar-10`.
    pub dataset: &'static str,
    /// How its images are normalised.
    pub normalisation: Normalisation,
    /// All that twins train on.
    pub training: Records,
    /// The MBS's samples.
    pub test: Records,
}

/// Puts the samples of all users in one place.
///
/// # Errors
/// As [`make`].
pub fn pool(plan: &Plan) -> Result<Pool, LearnerError> {
    let settings = &plan.topology().learning;
    let seed = plan.topology().run.seed;
    let (dataset, normalisation) = dataset_of(settings);
    let mut source = Source::open(plan, settings, seed)?;
    let mut training = Records::default();
    for sample in source.deal(plan, settings, seed)?.into_iter().flatten() {
        source.copy(sample, false, &mut training)?;
    }
    let test = source.test(settings.test_samples);
    Ok(Pool { dataset, normalisation, training, test })
}

/// The name of what is learned from, and how its images are normalised.
pub(crate) fn dataset_of(settings: &Learning) -> (&'static str, Normalisation) {
    match settings.data {
        Some(_) => ("cifar-10", Normalisation::CIFAR10),
        None => ("synthetic", Normalisation::SYNTHETIC),
    }
}

/// Where samples come from.
enum Source {
    /// Made when asked for.
    Synthetic(Synthetic),
    /// Read from disk.
    Cifar10(Cifar10),
}

impl Source {
    fn open(plan: &Plan, settings: &Learning, seed: u64) -> Result<Self, LearnerError> {
        let Some(dir) = &settings.data else { return Ok(Self::Synthetic(Synthetic::new(seed))) };
        Ok(Self::Cifar10(Cifar10::for_network(Path::new(dir), plan).map_err(LearnerError::of)?))
    }

    /// Deals the training samples to all users: the same at every node.
    fn deal(&self, plan: &Plan, settings: &Learning, seed: u64) -> Result<Vec<Vec<u32>>, LearnerError> {
        let sizes: Vec<u32> = plan.users().map(|user| user.samples).collect();
        let labels: Vec<u8> = match self {
            Self::Synthetic(set) => {
                let count: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
                (0..count).map(|index| set.label(index)).collect()
            }
            Self::Cifar10(set) => set.training.labels().collect(),
        };
        let scheme = match settings.partition {
            Partition::Iid => Scheme::Iid,
            Partition::Dirichlet => Scheme::Dirichlet { alpha: settings.alpha },
            Partition::Shards => Scheme::Shards { per_user: settings.shards },
        };
        partition(&labels, &sizes, scheme, seed).map_err(LearnerError::of)
    }

    /// Adds a training sample to `records`, with label 9 − label where it is to be wrong.
    fn copy(&mut self, sample: u32, flip: bool, records: &mut Records) -> Result<(), LearnerError> {
        let turn = |label: u8| if flip { (CLASSES - 1) as u8 - label } else { label };
        let added = match self {
            Self::Synthetic(set) => {
                let made = set.sample(sample.into());
                records.push(turn(made.label), &made.image)
            }
            Self::Cifar10(set) => {
                let found = set.training.get(sample as usize);
                found.is_some_and(|(label, image)| records.push(turn(label), image))
            }
        };
        match added {
            true => Ok(()),
            false => Err(LearnerError(format!("there is no training sample {sample}"))),
        }
    }

    /// The first samples of the test set.
    fn test(&self, count: u32) -> Records {
        let mut records = Records::default();
        for index in 0..count {
            match self {
                Self::Synthetic(set) => {
                    let made = set.sample(TEST_START + u64::from(index));
                    records.push(made.label, &made.image);
                }
                Self::Cifar10(set) => {
                    let Some((label, image)) = set.test.get(index as usize) else { break };
                    records.push(label, image);
                }
            }
        }
        records
    }
}

/// How twins are trained.
pub(crate) fn local(settings: &Learning) -> Local {
    Local {
        epochs: settings.epochs,
        batch: settings.batch as usize,
        learning_rate: settings.learning_rate,
        optimiser: match settings.optimiser {
            Choice::Sgd => Optimiser::Sgd { momentum: settings.momentum },
            Choice::Adam => Optimiser::Adam,
        },
        proximal_mu: settings.proximal_mu,
        augment: settings.augment,
    }
}

/// A slice of the twins' samples, drawn once, on which the models of others are judged.
fn validation(training: &Records, count: u32, seed: u64) -> Records {
    let mut order: Vec<usize> = (0..training.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut records = Records::default();
    for at in order.into_iter().take(count as usize) {
        if let Some((label, image)) = training.get(at) {
            records.push(label, image);
        }
    }
    records
}

/// What decides the samples and their order for a twin in a round.
fn seed_of(seed: u64, twin: UserId, round: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("dtwn twin training v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&twin.0.to_le_bytes());
    hasher.update(&round.to_le_bytes());
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

#[cfg(test)]
mod tests {
    use dtwn_model::topology::{self, Overrides};

    use super::*;

    fn plan(learning: &str) -> Plan {
        let text = format!(
            "[run]\nseed = 7\n[learning]\nlearner = \"torch\"\n{learning}\n[[bs]]\nid = \"bs1\"\n\
             position_m = [100, 0]\n[[users]]\nid = \"ug1\"\ncount = 3\naround = \"bs1\"\nsamples = 60\n"
        );
        let loaded = topology::parse("test.toml", text, &Overrides::default()).unwrap();
        Plan::new(&loaded.topology).unwrap()
    }

    fn of(plan: &Plan, node: &str) -> TorchLearner {
        TorchLearner::new(plan, plan.node(node).unwrap()).unwrap()
    }

    #[test]
    fn the_same_seed_trains_the_same_models() {
        let plan = plan("fraction = 0.5\ntest_samples = 50");
        let (mut one, mut two) = (of(&plan, "bs1"), of(&plan, "bs1"));
        let global = one.initial();
        assert_eq!(global, of(&plan, "mbs").initial());
        assert_eq!(one.twins().len(), 3);
        let twin = one.twins()[1];
        let first = one.train(twin, 1, &global).unwrap();
        assert_eq!((first.samples, first.passed), (30, 30));
        assert!(first.parameters == two.train(twin, 1, &global).unwrap().parameters);
        assert!(first.parameters != one.train(twin, 2, &global).unwrap().parameters);
        assert!(first.parameters != one.train(one.twins()[0], 1, &global).unwrap().parameters);
    }

    #[test]
    fn the_mbs_judges_on_samples_that_no_twin_has() {
        let plan = plan("test_samples = 50");
        let mut mbs = of(&plan, "mbs");
        assert!(mbs.twins().is_empty() && mbs.held_out.len() == 50);
        let judged = mbs.judge(&mbs.initial()).unwrap().unwrap();
        assert!((2.0..3.0).contains(&judged.loss), "{judged:?}");
        let bs = of(&plan, "bs1");
        let images = |records: &Records| -> std::collections::HashSet<Vec<u8>> {
            (0..records.len()).map(|at| records.get(at).unwrap().1.to_vec()).collect()
        };
        assert!(images(&bs.training).is_disjoint(&images(&mbs.held_out)));
    }

    #[test]
    fn label_flippers_train_on_turned_labels() {
        let (good, bad) = (plan(""), plan("poison = { bs1 = \"label-flip\" }"));
        let (good, bad) = (of(&good, "bs1"), of(&bad, "bs1"));
        let turned: Vec<u8> = good.training.labels().map(|label| 9 - label).collect();
        assert_eq!(turned, bad.training.labels().collect::<Vec<_>>());
    }

    #[test]
    fn data_that_is_missing_or_too_small_is_named() {
        let error = |dir: &Path, node: &str| {
            let plan = plan(&format!("data = {:?}", dir.to_str().unwrap()));
            TorchLearner::new(&plan, plan.node(node).unwrap()).unwrap_err().to_string()
        };
        let dir = tempfile::tempdir().unwrap();
        assert!(error(dir.path(), "mbs").contains("scripts/cifar10"));
        let names = dtwn_node::learning::data::TRAINING_FILES;
        for name in names.into_iter().chain([dtwn_node::learning::data::TEST_FILE]) {
            std::fs::write(dir.path().join(name), vec![0; 3073]).unwrap();
        }
        assert!(error(dir.path(), "mbs").contains("hold 180 samples together"));
        assert!(error(dir.path(), "bs1").contains("hold 180 samples together"));
    }
}
