//! Which user holds which samples.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Gamma};

use super::data::CLASSES;

/// How samples are dealt to users.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scheme {
    /// Independently of their class.
    Iid,
    /// Each user's share of the classes is drawn from a symmetric Dirichlet distribution (Hsu et al. 2019,
    /// "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification"): the smaller
    /// `alpha`, the fewer classes a user has.
    Dirichlet {
        /// Concentration, above 0.
        alpha: f64,
    },
    /// Each user has this many runs of the samples sorted by class (McMahan et al. 2017, "Communication-Efficient Learning of
    /// Deep Networks from Decentralized Data"): about as many classes.
    Shards {
        /// Runs, at least 1.
        per_user: u32,
    },
}

/// Why samples cannot be dealt.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PartitionError {
    /// The users want more than there is.
    #[error("the users hold {wanted} samples together, but the data set has {have} for training")]
    TooFew {
        /// Over all users.
        wanted: usize,
        /// In the data set.
        have: usize,
    },
    /// A concentration that is no positive number.
    #[error("Dirichlet's alpha is {0}; it must be a positive number")]
    Alpha(f64),
    /// No shards.
    #[error("a user needs at least one shard")]
    NoShards,
    /// A label that no class has.
    #[error("a sample has label {0}; there are classes 0 to 9")]
    Label(u8),
}

/// Deals samples, by their labels, to users that want `sizes` of them. The samples of user i, as positions in `labels`, are the
/// i-th element of the result, in random order; no sample has two owners. The same arguments give the same result.
///
/// # Errors
/// [`PartitionError`].
pub fn partition(
    labels: &[u8],
    sizes: &[u32],
    scheme: Scheme,
    seed: u64,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    let wanted = sizes.iter().map(|size| *size as usize).sum();
    if wanted > labels.len() {
        return Err(PartitionError::TooFew { wanted, have: labels.len() });
    }
    if let Some(label) = labels.iter().find(|label| usize::from(**label) >= CLASSES) {
        return Err(PartitionError::Label(*label));
    }
    let mut random = generator(seed);
    let mut all: Vec<u32> = (0..labels.len()).map(|i| u32::try_from(i).unwrap_or(u32::MAX)).collect();
    all.shuffle(&mut random);
    match scheme {
        Scheme::Iid => Ok(deal(&all, sizes)),
        Scheme::Dirichlet { alpha } => dirichlet(labels, &all, sizes, alpha, &mut random),
        Scheme::Shards { per_user: 0 } => Err(PartitionError::NoShards),
        Scheme::Shards { per_user } => {
            // A sample of the right size first, so that all of the sorted list is dealt.
            let mut chosen = all[..wanted].to_vec();
            chosen.sort_by_key(|sample| labels[*sample as usize]);
            Ok(shards(&chosen, sizes, per_user, &mut random))
        }
    }
}

fn generator(seed: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..].copy_from_slice(b"dtwn data partition v1\0\0");
    ChaCha8Rng::from_seed(key)
}

/// Each user's next `size` of `samples`.
fn deal(samples: &[u32], sizes: &[u32]) -> Vec<Vec<u32>> {
    let mut rest = samples;
    let mut next = |size: &u32| {
        let (own, after) = rest.split_at((*size as usize).min(rest.len()));
        rest = after;
        own.to_vec()
    };
    sizes.iter().map(&mut next).collect()
}

fn dirichlet(
    labels: &[u8],
    shuffled: &[u32],
    sizes: &[u32],
    alpha: f64,
    random: &mut ChaCha8Rng,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    let gamma = Gamma::new(alpha, 1.0).ok().filter(|_| alpha.is_finite());
    let gamma = gamma.ok_or(PartitionError::Alpha(alpha))?;
    let mut stock: [Vec<u32>; CLASSES] = Default::default();
    for sample in shuffled {
        stock[usize::from(labels[*sample as usize])].push(*sample);
    }
    let mut user = |size: &u32| {
        let weights: [f64; CLASSES] = std::array::from_fn(|_| gamma.sample(random).max(f64::MIN_POSITIVE));
        (0..*size).filter_map(|_| stock[draw(&weights, &stock, random)?].pop()).collect()
    };
    Ok(sizes.iter().map(&mut user).collect())
}

/// A class with samples left, with a probability in proportion to its weight; classes that are used up drop out.
fn draw(weights: &[f64; CLASSES], stock: &[Vec<u32>; CLASSES], random: &mut ChaCha8Rng) -> Option<usize> {
    let left = |class: &usize| !stock[*class].is_empty();
    let total: f64 = (0..CLASSES).filter(left).map(|class| weights[class]).sum();
    let mut at = random.random_range(0.0..1.0) * total;
    let mut last = None;
    for class in (0..CLASSES).filter(left) {
        last = Some(class);
        at -= weights[class];
        if at < 0.0 {
            break;
        }
    }
    last
}

/// Cuts `sorted` into runs and gives each user `per_user` of them, drawn at random.
fn shards(sorted: &[u32], sizes: &[u32], per_user: u32, random: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
    // (user, length): a user's size spread over its runs as evenly as can be.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (user, size) in sizes.iter().enumerate() {
        runs.extend(
            (0..per_user).map(|i| (user, (size / per_user + u32::from(i < size % per_user)) as usize)),
        );
    }
    runs.shuffle(random);
    let mut users: Vec<Vec<u32>> = vec![Vec::new(); sizes.len()];
    let mut rest = sorted;
    for (user, length) in runs {
        let (own, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        users[user].extend_from_slice(own);
    }
    users.iter_mut().for_each(|own| own.shuffle(random));
    users
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn labels(count: usize) -> Vec<u8> {
        (0..count).map(|i| (i % CLASSES) as u8).collect()
    }

    fn classes(labels: &[u8], own: &[u32]) -> usize {
        own.iter().map(|sample| labels[*sample as usize]).collect::<HashSet<_>>().len()
    }

    fn mean_classes(scheme: Scheme) -> f64 {
        let labels = labels(10_000);
        let users = partition(&labels, &[50; 100], scheme, 1).unwrap();
        users.iter().map(|own| classes(&labels, own) as f64).sum::<f64>() / 100.0
    }

    #[test]
    fn schemes_differ_in_how_many_classes_a_user_has() {
        // 50 samples of 10 classes: all but 10·0.9^50 = 0.05 classes are there.
        assert!(mean_classes(Scheme::Iid) > 9.8);
        let alpha = |alpha| mean_classes(Scheme::Dirichlet { alpha });
        assert!(alpha(100.0) > 9.5 && alpha(0.1) < 4.0, "{} {}", alpha(100.0), alpha(0.1));
        let two = mean_classes(Scheme::Shards { per_user: 2 });
        assert!((1.5..=3.0).contains(&two), "{two}");
    }

    #[test]
    fn the_seed_decides() {
        let labels = labels(500);
        for scheme in [Scheme::Iid, Scheme::Dirichlet { alpha: 0.5 }, Scheme::Shards { per_user: 3 }] {
            let deal = |seed| partition(&labels, &[10, 20, 30], scheme, seed).unwrap();
            assert_eq!(deal(7), deal(7));
            assert_ne!(deal(7), deal(8));
        }
    }

    #[test]
    fn impossible_wishes_are_refused() {
        let labels = labels(50);
        let refused = |sizes: &[u32], scheme| partition(&labels, sizes, scheme, 0).unwrap_err();
        assert_eq!(refused(&[25, 26], Scheme::Iid), PartitionError::TooFew { wanted: 51, have: 50 });
        assert!(matches!(refused(&[5], Scheme::Dirichlet { alpha: 0.0 }), PartitionError::Alpha(_)));
        assert!(matches!(refused(&[5], Scheme::Dirichlet { alpha: f64::NAN }), PartitionError::Alpha(_)));
        assert_eq!(refused(&[5], Scheme::Shards { per_user: 0 }), PartitionError::NoShards);
        assert_eq!(partition(&[10], &[1], Scheme::Iid, 0), Err(PartitionError::Label(10)));
    }

    proptest! {
        #[test]
        fn everyone_gets_what_they_want_and_nothing_has_two_owners(
            sizes in proptest::collection::vec(0u32..40, 1..20),
            spare in 0usize..50,
            alpha in 0.01f64..10.0,
            per_user in 1u32..6,
            seed: u64,
        ) {
            let wanted: usize = sizes.iter().map(|size| *size as usize).sum();
            let labels = labels(wanted + spare);
            for scheme in [Scheme::Iid, Scheme::Dirichlet { alpha }, Scheme::Shards { per_user }] {
                let users = partition(&labels, &sizes, scheme, seed).unwrap();
                prop_assert_eq!(users.iter().map(|own| own.len() as u32).collect::<Vec<_>>(), sizes.clone());
                let all: HashSet<u32> = users.iter().flatten().copied().collect();
                prop_assert_eq!(all.len(), wanted);
                prop_assert!(all.iter().all(|sample| (*sample as usize) < labels.len()));
            }
        }
    }
}
