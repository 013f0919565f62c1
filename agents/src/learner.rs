//! The learner of a node: the CNN, and the samples of the twins that a base station holds, or the test set of the MBS.

use dtwn_model::Plan;
use dtwn_model::ids::UserId;
use dtwn_model::plan::{NodePlan, Role};
use dtwn_model::topology::{Learning, Optimiser as Choice, Poison};
use dtwn_node::learning::checkpoint::TensorLayout;
use dtwn_node::learning::data::{CLASSES, Records};
use dtwn_node::learning::learner::{self, Examination, HoldOut, Learner, LearnerError, Trained};
use dtwn_node::learning::source::Source;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::Device;

use crate::Error;
use crate::cnn;
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
    /// Whether its labels are wrong on purpose.
    flip: bool,
    /// The part of a twin's samples that are held out.
    part: f64,
    validation_samples: u32,
    /// All samples of the twins.
    samples: Records,
    /// Each twin's positions in `samples`, in the order in which twins are trained.
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
        let flip = settings.poison.get(&node.name) == Some(&Poison::LabelFlip);
        let mut source = Source::open(plan, settings, seed)?;
        let mut samples = Records::default();
        let mut twins = Vec::new();
        if !ids.is_empty() {
            let dealt = source.deal(plan, settings, seed)?;
            for id in ids {
                let own = dealt.get(id.index()).map(Vec::as_slice).unwrap_or_default();
                let first = samples.len();
                own.iter().try_for_each(|sample| source.copy(*sample, flip, &mut samples))?;
                let positions = (first..samples.len()).filter_map(|at| u32::try_from(at).ok()).collect();
                twins.push((id, positions));
            }
        }
        let mut new = Self {
            trainer,
            dataset,
            seed,
            local: local(settings),
            fraction: settings.fraction,
            flip,
            part: settings.held_out,
            validation_samples: settings.validation_samples,
            samples,
            twins,
            held_out: Records::default(),
        };
        new.held_out = match node.role {
            Role::Mbs => source.test(settings.test_samples),
            _ => new.hold_out(),
        };
        Ok(new)
    }
}

impl TorchLearner {
    /// What its twins train on, and how that is normalised.
    pub(crate) fn samples(&self) -> (Normalisation, &Records) {
        (self.trainer.normalisation(), &self.samples)
    }

    /// How many samples of each twin are trained on in a round.
    pub(crate) fn chosen(&self) -> Vec<usize> {
        self.twins.iter().map(|(twin, own)| self.share(*twin, own) as usize).collect()
    }

    fn share(&self, twin: UserId, own: &[u32]) -> u32 {
        let held = u32::try_from(own.len()).unwrap_or(u32::MAX);
        HoldOut::of(twin, self.part).share(held, self.fraction)
    }

    /// Some of the samples that the twins here hold out, drawn by the seed.
    fn hold_out(&self) -> Records {
        let mut places = Vec::new();
        for (twin, own) in &self.twins {
            places.extend(parted(*twin, self.part, own, true));
        }
        places.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed));
        let mut records = Records::default();
        for at in places.into_iter().take(self.validation_samples as usize) {
            if let Some((label, image)) = self.samples.get(at as usize) {
                records.push(label, image);
            }
        }
        records
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

    fn change_twins(
        &mut self,
        released: &[UserId],
        held: Vec<(UserId, Records)>,
    ) -> Result<(), LearnerError> {
        let (before, mut twins) = (std::mem::take(&mut self.samples), std::mem::take(&mut self.twins));
        twins.retain(|(id, _)| !released.contains(id) && held.iter().all(|(new, _)| new != id));
        let mut all: Vec<(UserId, Records, Vec<u32>, bool)> =
            held.into_iter().map(|(id, records)| (id, records, Vec::new(), self.flip)).collect();
        all.extend(twins.into_iter().map(|(id, positions)| (id, Records::default(), positions, false)));
        // One order, however twins came.
        all.sort_by_key(|(id, ..)| *id);
        for (id, records, positions, flip) in all {
            let first = self.samples.len();
            let kept = positions.iter().filter_map(|at| before.get(*at as usize));
            let new = (0..records.len()).filter_map(|at| records.get(at));
            for (label, image) in kept.chain(new) {
                let label = if flip { (CLASSES - 1) as u8 - label } else { label };
                self.samples.push(label, image);
            }
            let positions = (first..self.samples.len()).filter_map(|at| u32::try_from(at).ok()).collect();
            self.twins.push((id, positions));
        }
        self.held_out = self.hold_out();
        Ok(())
    }

    fn data(&self, twin: UserId) -> Option<(blake3::Hash, u64)> {
        let (_, own) = self.twins.iter().find(|(id, _)| *id == twin)?;
        let mut hasher = blake3::Hasher::new();
        for (label, image) in own.iter().filter_map(|at| self.samples.get(*at as usize)) {
            // What is recorded are the user's data, not what a BS makes of them.
            let label = if self.flip { (CLASSES - 1) as u8 - label } else { label };
            hasher.update(&[label]).update(image);
        }
        Some((hasher.finalize(), hasher.count()))
    }

    fn train(&mut self, twin: UserId, round: u64, global: &[f32]) -> Result<Trained, LearnerError> {
        let own = self.twins.iter().find(|(id, _)| *id == twin);
        let (_, own) = own.ok_or_else(|| LearnerError(format!("no twin of user {} here", twin.0)))?;
        let seed = seed_of(self.seed, twin, round);
        let mut chosen: Vec<u32> = parted(twin, self.part, own, false).collect();
        chosen.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        chosen.truncate(self.share(twin, own) as usize);
        let trained = self.trainer.train(global, &self.samples, &chosen, &self.local, seed.wrapping_add(1));
        let trained = trained.map_err(|error| match error {
            Error::NotFinite { .. } => LearnerError(format!(
                "the twin of user {} diverged in round {round} ({error}); try a lower learning.learning_rate",
                twin.0
            )),
            other => LearnerError::of(other),
        })?;
        Ok(Trained {
            parameters: trained.parameters,
            samples: chosen.len() as u64,
            passed: trained.samples,
            loss: trained.loss,
            busy: trained.busy,
        })
    }

    fn examine(&mut self, parameters: &[f32]) -> Result<Option<Examination>, LearnerError> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        self.trainer.examine(parameters, &self.held_out).map(Some).map_err(LearnerError::of)
    }
}

/// Those of a twin's samples that are held out, or those that are not, in their order.
fn parted(twin: UserId, part: f64, own: &[u32], held_out: bool) -> impl Iterator<Item = u32> {
    let holdout = HoldOut::of(twin, part);
    (0..).zip(own).filter(move |(place, _)| holdout.holds(*place) == held_out).map(|(_, at)| *at)
}

/// What the users of a plan hold together, and what the MBS judges models on.
#[derive(Debug)]
pub struct Pool {
    /// `synthetic` or `cifar-10`.
    pub dataset: &'static str,
    /// How its images are normalised.
    pub normalisation: Normalisation,
    /// All that twins may train on.
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
    for (user, own) in plan.users().zip(source.deal(plan, settings, seed)?) {
        parted(user.id, settings.held_out, &own, false)
            .try_for_each(|sample| source.copy(sample, false, &mut training))?;
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
    use std::path::Path;

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
    fn a_twin_that_diverges_says_which_and_what_to_do() {
        let plan = plan("learning_rate = 1e30\nfraction = 1.0\nbatch = 10");
        let mut learner = of(&plan, "bs1");
        let (twin, global) = (learner.twins()[1], learner.initial());
        let said = learner.train(twin, 3, &global).unwrap_err().to_string();
        assert!(said.contains("user 1 diverged in round 3"), "{said}");
        assert!(said.contains("learning_rate"), "{said}");
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
        assert!(images(&bs.samples).is_disjoint(&images(&mbs.held_out)));
    }

    #[test]
    fn twins_come_and_go_with_their_samples() {
        let plan = plan("");
        let mut bs = of(&plan, "bs1");
        let users = bs.twins();
        let dealt = dtwn_node::learning::source::samples_of(&plan, &users).unwrap();
        let global = bs.initial();
        let (before, data) = (bs.train(users[1], 1, &global).unwrap(), bs.data(users[1]).unwrap());
        assert_eq!(data, (blake3::hash(dealt[1].as_bytes()), dealt[1].as_bytes().len() as u64));
        bs.change_twins(&users, Vec::new()).unwrap();
        assert!(bs.twins().is_empty() && bs.judge(&global).unwrap().is_none());
        // In another order and in two steps: they are trained alike.
        bs.change_twins(&[], vec![(users[2], dealt[2].clone()), (users[1], dealt[1].clone())]).unwrap();
        bs.change_twins(&[], vec![(users[0], dealt[0].clone())]).unwrap();
        assert_eq!((bs.twins(), bs.data(users[1])), (users.clone(), Some(data)));
        assert!(bs.train(users[1], 1, &global).unwrap().parameters == before.parameters);
        assert_eq!(bs.samples, of(&plan, "bs1").samples);
    }

    #[test]
    fn label_flippers_train_on_turned_labels() {
        let (good, bad) = (plan(""), plan("poison = { bs1 = \"label-flip\" }"));
        let (good, bad) = (of(&good, "bs1"), of(&bad, "bs1"));
        let turned: Vec<u8> = good.samples.labels().map(|label| 9 - label).collect();
        assert_eq!(turned, bad.samples.labels().collect::<Vec<_>>());
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
