//! The samples of a run: CIFAR-10's or synthetic ones, and whose they are.

use std::path::Path;

use dtwn_model::{
    Plan,
    ids::UserId,
    topology::{Learning, Partition},
};

use super::{
    data::{CLASSES, Cifar10, Records},
    learner::LearnerError,
    partition::{Scheme, partition},
    synthetic::{Synthetic, TEST_START},
};

/// Where samples come from.
#[derive(Debug)]
pub enum Source {
    /// Made when asked for.
    Synthetic(Synthetic),
    /// Read from disk.
    Cifar10(Cifar10),
}

impl Source {
    /// Opens the set of a run.
    ///
    /// # Errors
    /// When files cannot be read or have too few samples for all users.
    pub fn open(plan: &Plan, settings: &Learning, seed: u64) -> Result<Self, LearnerError> {
        let Some(dir) = &settings.data else { return Ok(Self::Synthetic(Synthetic::new(seed))) };
        Ok(Self::Cifar10(Cifar10::for_network(Path::new(dir), plan).map_err(LearnerError::of)?))
    }

    /// Deals the training samples to all users: the same at every node.
    ///
    /// # Errors
    /// When there are too few for them.
    pub fn deal(&self, plan: &Plan, settings: &Learning, seed: u64) -> Result<Vec<Vec<u32>>, LearnerError> {
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
    ///
    /// # Errors
    /// When there is no such sample.
    pub fn copy(&mut self, sample: u32, flip: bool, records: &mut Records) -> Result<(), LearnerError> {
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
    #[must_use]
    pub fn test(&self, count: u32) -> Records {
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

/// The samples of some users, in the order of the users: what each of them would hold in the field.
///
/// # Errors
/// As [`Source::open`] and [`Source::deal`].
pub fn samples_of(plan: &Plan, users: &[UserId]) -> Result<Vec<Records>, LearnerError> {
    let (settings, seed) = (&plan.topology().learning, plan.topology().run.seed);
    let mut source = Source::open(plan, settings, seed)?;
    let dealt = source.deal(plan, settings, seed)?;
    let of = |user: &UserId| {
        let mut records = Records::default();
        let own = dealt.get(user.index()).map(Vec::as_slice).unwrap_or_default();
        own.iter().try_for_each(|sample| source.copy(*sample, false, &mut records))?;
        Ok(records)
    };
    users.iter().map(of).collect()
}
