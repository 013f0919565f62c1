//! Whether a model was trained on wrong labels.
//!
//! A model that was trained with classes mixed up (each 9 − label, say) need not do harm at once: with classes taken for similar ones
//! it learns what they have in common, and its loss goes down with everybody's, its step goes everybody's way. What gives it away is what
//! its step does to the scores of single classes. Let s_k(x) be by how much the step raised the score of class k for sample x, less the
//! mean over all samples. A step that learned from right labels raises scores where samples are of that class,
//!
//! ```text
//! A(k, j) = mean of s_k(x) over the samples of class j,    Σ_j A(j, j) ≥ Σ_j A(σ(j), j) for every σ that renames classes
//! ```
//!
//! since A is, for a small step and classes that are as frequent, the product of the classes' mean features with themselves, and of all
//! ways to pair vectors each with itself sums up to most (rearrangement). With labels that were renamed by some σ, that σ comes to more.
//!
//! So: find the σ that explains the step best on nine tenths of the samples (an assignment problem), and see on the others whether it
//! explains it better than the labels as they are, d(x) = s_σ(y)(x) − s_y(x); ten times, until all have been among the others. As no
//! sample has a say in the σ that it is held against, the mean of d over its standard error is a z-score: at most 0 in expectation for a
//! model of right labels, whatever σ. (The ten σ hang on nearly the same samples, so that z spreads somewhat wider than a normal variable
//! would.) To look at the outputs of single classes is the idea of Jebreel et al. 2022, "LFighter".

use pathfinding::prelude::{Matrix, kuhn_munkres};

use crate::learning::{data::CLASSES, learner::Examination};

/// Parts of the samples that are held against the others in turn.
const PARTS: usize = 10;
/// With fewer samples nothing can be told.
const SAMPLES_MIN: usize = 3 * PARTS;
/// Steps of the assignment's weights, of which the largest has so many.
const WEIGHT_MAX: f64 = 1e12;

/// For each class, which one it was taken for.
pub(super) type Renaming = [usize; CLASSES];

/// What the samples say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Finding {
    /// By how many standard errors another naming of the classes explains the step better than the labels do.
    pub(super) z: f64,
    /// That naming, from all samples.
    pub(super) renaming: Renaming,
}

impl Finding {
    /// The classes that are named otherwise, as `3→6, 6→3`.
    pub(super) fn renamed(&self) -> String {
        let moved = self.renaming.iter().enumerate().filter(|(class, other)| class != *other);
        moved.map(|(class, other)| format!("{class}→{other}")).collect::<Vec<_>>().join(", ")
    }
}

/// Holds the step from one model to another against the labels; `None` where there are too few samples, or the two were not put
/// to the same ones.
pub(super) fn examine(before: &Examination, after: &Examination) -> Option<Finding> {
    let labels = &after.labels;
    let fits = |examined: &Examination| examined.scores.len() == CLASSES * labels.len();
    let known = labels.iter().all(|label| usize::from(*label) < CLASSES);
    if labels.len() < SAMPLES_MIN || before.labels != *labels || !fits(before) || !fits(after) || !known {
        return None;
    }
    let difference = |(after, before): (&f32, &f32)| f64::from(*after) - f64::from(*before);
    let raised: Vec<f64> = after.scores.iter().zip(&before.scores).map(difference).collect();
    let samples: Vec<(usize, &[f64])> =
        labels.iter().map(|label| usize::from(*label)).zip(raised.chunks_exact(CLASSES)).collect();
    let mut gains = Vec::with_capacity(samples.len());
    for part in 0..PARTS {
        let (others, own): (Vec<_>, Vec<_>) =
            samples.iter().enumerate().partition(|(at, _)| at % PARTS != part);
        let others: Vec<(usize, &[f64])> = others.into_iter().map(|(_, sample)| *sample).collect();
        let means = means(&others);
        let renaming = best_renaming(&others, &means);
        gains.extend(own.into_iter().map(|(_, (label, raised))| {
            let other = renaming[*label];
            (raised[other] - means[other]) - (raised[*label] - means[*label])
        }));
    }
    let renaming = best_renaming(&samples, &means(&samples));
    Some(Finding { z: z_score(&gains), renaming })
}

/// The mean of each class's raise over samples.
fn means(samples: &[(usize, &[f64])]) -> Renamed {
    let mut means = [0.0; CLASSES];
    for (_, raised) in samples {
        means.iter_mut().zip(*raised).for_each(|(mean, raised)| *mean += raised / samples.len() as f64);
    }
    means
}

type Renamed = [f64; CLASSES];

/// The naming of classes whose scores were raised most, on the whole.
fn best_renaming(samples: &[(usize, &[f64])], means: &Renamed) -> Renaming {
    // A(k, j), row j.
    let mut table = [[0.0; CLASSES]; CLASSES];
    let mut counts = [0.0; CLASSES];
    for (label, raised) in samples {
        counts[*label] += 1.0;
        for ((sum, raised), mean) in table[*label].iter_mut().zip(*raised).zip(means) {
            *sum += raised - mean;
        }
    }
    for (row, count) in table.iter_mut().zip(counts) {
        row.iter_mut().for_each(|sum| *sum /= f64::max(count, 1.0));
    }
    let largest = table.iter().flatten().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    #[expect(clippy::cast_possible_truncation, reason = "at most the largest weight")]
    let weight = |value: f64| (value / largest * WEIGHT_MAX) as i64;
    let weights = Matrix::from_fn(CLASSES, CLASSES, |(class, other)| weight(table[class][other]));
    let (_, chosen) = kuhn_munkres(&weights);
    std::array::from_fn(|class| chosen.get(class).copied().unwrap_or(class))
}

/// Mean over its standard error; 0 where nothing varies.
fn z_score(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let z = mean / (variance / count).sqrt();
    if z.is_finite() { z } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution as _, StandardNormal};

    use super::*;
    use crate::learning::learner::Judgement;

    fn examined(labels: &[u8], scores: Vec<f32>) -> Examination {
        Examination { judgement: Judgement { loss: 1.0, accuracy: 0.5 }, labels: labels.to_vec(), scores }
    }

    /// The step of a model that learned a little from labels renamed by σ: classes have features of which neighbours in pairs (0 and 9,
    /// 1 and 8, …) have most in common.
    fn step(
        seed: u64,
        samples: usize,
        signal: f64,
        rename: impl Fn(usize) -> usize,
    ) -> (Examination, Examination) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let labels: Vec<u8> = (0..samples).map(|_| random.random_range(0..10)).collect();
        let before: Vec<f32> = (0..CLASSES * samples).map(|_| StandardNormal.sample(&mut random)).collect();
        let mut after = before.clone();
        for (row, label) in after.chunks_exact_mut(CLASSES).zip(&labels) {
            for (class, score) in row.iter_mut().enumerate() {
                let source = (0..CLASSES).find(|of| rename(*of) == class).unwrap();
                let kinship = match usize::from(*label) {
                    same if same == source => 1.0,
                    pair if pair == CLASSES - 1 - source => 0.6,
                    _ => 0.0,
                };
                let noise: f64 = StandardNormal.sample(&mut random);
                // Whatever raises the scores of all samples alike says nothing.
                *score += (signal * kinship + noise + class as f64) as f32;
            }
        }
        (examined(&labels, before), examined(&labels, after))
    }

    #[test]
    fn a_step_that_learned_other_labels_is_found_out_and_no_other_one() {
        let mut highest = f64::NEG_INFINITY;
        for seed in 0..20 {
            let (before, after) = step(seed, 200, 1.5, |class| class);
            highest = highest.max(examine(&before, &after).unwrap().z);
            let (before, after) = step(seed, 200, 1.5, |class| CLASSES - 1 - class);
            let found = examine(&before, &after).unwrap();
            assert!(found.z > 2.5, "seed {seed}: {found:?}");
            let (before, after) = step(seed, 200, 1.5, |class| (class + 1) % CLASSES);
            let found = examine(&before, &after).unwrap();
            assert!(found.z > 5.0, "seed {seed}: {found:?}");
            assert_eq!(found.renaming, std::array::from_fn(|class| (class + 1) % CLASSES));
            assert!(found.renamed().starts_with("0→1, 1→2"), "{}", found.renamed());
        }
        assert!(highest < 1.0, "{highest}");
    }

    #[test]
    fn a_step_without_meaning_seldom_looks_like_one_with_wrong_labels() {
        let z = (0..300).map(|seed| {
            let (before, after) = step(seed, 200, 0.0, |class| class);
            examine(&before, &after).unwrap().z
        });
        let far = z.filter(|z| *z > 2.5).count();
        // The renamings of the ten parts have most samples in common, so that it is 3 % rather than the 0.6 % of a normal variable.
        assert!(far < 20, "{far}");
    }

    #[test]
    fn where_nothing_can_be_told_nothing_is() {
        let (before, after) = step(1, 200, 1.0, |class| class);
        assert_eq!(examine(&before, &before).unwrap().z, 0.0);
        let (few, fewer) = step(1, SAMPLES_MIN - 1, 1.0, |class| class);
        assert_eq!(examine(&few, &fewer), None);
        assert_eq!(examine(&few, &after), None);
        let none = examined(&[], Vec::new());
        assert_eq!(examine(&none, &none), None);
        let short = Examination { scores: vec![0.0; 7], ..after.clone() };
        assert_eq!(examine(&before, &short), None);
        let strange = Examination { labels: vec![10; 200], ..after.clone() };
        assert_eq!(examine(&Examination { labels: vec![10; 200], ..before }, &strange), None);
        // Only one class is there.
        let one = |of: &Examination| Examination { labels: vec![3; 200], ..of.clone() };
        assert!(examine(&one(&after), &one(&after)).unwrap().z.abs() < 1e-9);
    }
}
