//! Whether another's model is good enough: what a verifier holds it against, and how.
//!
//! Three rules, all on what the verifier has itself, so that its finding depends on nothing else:
//!
//! - the model's loss on its samples may exceed that of the global model, from which the model was trained, by `tolerance` at most;
//! - a model whose loss exceeds it at all must have gone the way of the verifier's own: the cosine between the two steps from the
//!   global model is at least `alignment`. That takes one's own step as the root of trust, as in Cao et al. 2021, "FLTrust";
//! - no other naming of the classes may explain the step better than the labels do, by `mislabel_z` standard errors and as many more than
//!   one explains the verifier's own step better ([`labels`]). That holds for models only that come less far than the verifier's own on
//!   its samples, and whose steps go less far along its own than those of honest ones: less than [`EXPECTED_PART`] of what its own twins
//!   let it expect ([`reliability`]). Of a step that is longer than its own, up to [`LONGER_MAX`] times, it is the length along its own
//!   that counts, not the cosine: fewer twins, trained on more of their samples, go further each its own way, and just as far the common one.
//!
//! Few samples make honest models worse now and then, by as much as a poisoner's are in other rounds, but point their own way
//! no more than others': the loss tells the harm, the cosine the intention. Wrong labels do no harm that could be told from chance
//! while models are young, and then only the third rule finds them. What it asks for besides is for later: where a global model has
//! overshot between some classes, all honest steps back look like ones with other labels, and one's own does too.

use super::labels;
use crate::learning::learner::Examination;

/// Of the cosine to expect, with which a step counts as one that goes with one's own.
const EXPECTED_PART: f64 = 0.75;
/// How many times as long as one's own a step may be that few twins with more training explain. Far longer ones have learned what goes
/// against the global model.
const LONGER_MAX: f64 = 2.0;
/// The least that is expected: of few samples, twins tell too little of it.
const EXPECTED_MIN: f64 = 0.5;
/// Parameters whose mean is taken at a time.
const BLOCK: usize = 4096;

/// How much is borne.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    /// Nats by which a model may be worse than the global one.
    pub(super) tolerance: f64,
    /// The least cosine to one's own step, of a model that is worse; −1 for any.
    pub(super) alignment: f64,
    /// Standard errors by which another naming of the classes may explain a step better.
    pub(super) mislabel_z: f64,
}

/// What models of a round are held against.
#[derive(Debug)]
pub(super) struct Yardstick {
    /// The round.
    pub(super) round: u64,
    /// The global model that it began from.
    pub(super) global: Vec<f32>,
    /// What that makes of one's own samples; put to it once one's own model is made, as nothing waits for it before.
    pub(super) before: Option<Examination>,
    /// One's own model, as it was trained; `None` where there was nothing to train.
    pub(super) own: Option<Vec<f32>>,
    /// What that makes of one's own samples.
    pub(super) after: Option<Examination>,
    /// The cosine to expect between one's own step and that of a BS with as many samples alike; 0 where nothing is known of it.
    pub(super) expected: f64,
}

impl Yardstick {
    /// Why a model, with what it makes of one's own samples, is not good enough; `None` when it is, or nothing can be told for want of
    /// samples.
    pub(super) fn fault(
        &self,
        model: &[f32],
        examined: Option<&Examination>,
        bounds: Bounds,
    ) -> Option<String> {
        let (began, examined) = (self.before.as_ref()?, examined?);
        let (before, after) = (began.judgement.loss, examined.judgement.loss);
        // Not the negation of "at most": a loss that is NaN is no good either.
        let bearable = after <= before + bounds.tolerance;
        if !bearable {
            return Some(format!(
                "its loss here is {after:.3}, that of the global model it began from {before:.3}"
            ));
        }
        let steps = self.own.as_deref().map(|own| Steps::between(&self.global, model, own));
        let least = EXPECTED_PART * self.expected.max(EXPECTED_MIN);
        if steps.is_none_or(|steps| steps.along() < least)
            && let Some(fault) = self.mislabelled(examined, bounds)
        {
            return Some(fault);
        }
        let cosine =
            steps.map(|steps| steps.cosine).filter(|cosine| after > before && *cosine < bounds.alignment)?;
        Some(format!(
            "it goes another way than what is learned here (cosine {cosine:.2}), and its loss here is {after:.3} after {before:.3}"
        ))
    }

    /// Why a model counts as one that learned other labels than one's own.
    fn mislabelled(&self, examined: &Examination, bounds: Bounds) -> Option<String> {
        let began = self.before.as_ref()?;
        let own = self.after.as_ref();
        if own.is_some_and(|own| examined.judgement.loss <= own.judgement.loss) {
            return None;
        }
        let of_own = own.and_then(|own| labels::examine(began, own)).map_or(0.0, |found| found.z);
        let found = labels::examine(began, examined)?;
        let (z, renamed) = (found.z, found.renamed());
        (z >= bounds.mislabel_z + of_own.max(0.0)).then(|| {
            format!("its step fits the samples here better with other labels (z {z:.1}, our own {of_own:.1}: {renamed})")
        })
    }
}

/// The cosine to expect between a BS's own step and that of another one with as many samples of the same kind: S/‖d‖², where ‖d‖² is the
/// squared length of its own step, the weighted mean of its twins', and S what is left of it without what differs between twins by
/// chance. With weights p, Σ p = 1, and V = Σ p ‖w − w̄‖² / (1 − Σ p²) the variance of twins, that part is V·Σ p². 0 for less than
/// two twins.
pub(super) fn reliability(global: &[f32], models: &[(&[f32], f64)]) -> f64 {
    let total: f64 = models.iter().map(|(_, weight)| weight).sum();
    let concentration: f64 = models.iter().map(|(_, weight)| (weight / total).powi(2)).sum();
    // Σ p ‖w − w̄‖² is Σ p ‖d‖² − ‖d̄‖², which takes one pass over each model; in blocks, whose mean stays in the cache.
    let (mut length, mut squares) = (0.0, 0.0);
    let mut mean = [0.0; BLOCK];
    for (block, global) in global.chunks(BLOCK).enumerate() {
        let mean = &mut mean[..global.len()];
        mean.fill(0.0);
        for (model, weight) in models {
            let part = weight / total;
            let values = model.iter().skip(block * BLOCK);
            for ((mean, value), global) in mean.iter_mut().zip(values).zip(global) {
                let step = f64::from(value - global);
                *mean += part * step;
                squares += part * step * step;
            }
        }
        length += mean.iter().map(|step| step * step).sum::<f64>();
    }
    let noise = (squares - length) / (1.0 - concentration) * concentration;
    let kept = (length - noise) / length;
    if kept.is_finite() { kept.max(0.0) } else { 0.0 }
}

/// Another's step from the global model beside one's own.
#[derive(Debug, Clone, Copy)]
struct Steps {
    /// The cosine between the two; NaN where one of them is none at all.
    cosine: f64,
    /// The length of the other's over that of one's own.
    longer: f64,
}

impl Steps {
    fn between(global: &[f32], other: &[f32], own: &[f32]) -> Self {
        let (mut product, mut others, mut owns) = (0.0, 0.0, 0.0);
        for ((global, other), own) in global.iter().zip(other).zip(own) {
            let (other, own) = (f64::from(other - global), f64::from(own - global));
            product += other * own;
            (others, owns) = (others + other * other, owns + own * own);
        }
        let (other, own) = (f64::sqrt(others), f64::sqrt(owns));
        Self { cosine: product / (other * own), longer: other / own }
    }

    /// How far the other's goes along one's own, which is as long as 1: the cosine, times by how much it is longer.
    fn along(&self) -> f64 {
        self.cosine * self.longer.clamp(1.0, LONGER_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::learner::Judgement;

    const BOUNDS: Bounds = Bounds { tolerance: 0.5, alignment: 0.0, mislabel_z: 2.5 };

    fn judged(loss: f64) -> Examination {
        let judgement = Judgement { loss, accuracy: 0.5 };
        Examination { judgement, labels: Vec::new(), scores: Vec::new() }
    }

    fn yardstick() -> Yardstick {
        Yardstick {
            round: 1,
            global: vec![1.0, 1.0],
            before: Some(judged(2.0)),
            own: Some(vec![1.5, 1.0]),
            after: None,
            expected: 0.8,
        }
    }

    #[test]
    fn a_model_may_be_a_little_worse_where_it_goes_our_way() {
        let fault = |model: [f32; 2], loss| yardstick().fault(&model, Some(&judged(loss)), BOUNDS);
        assert_eq!(fault([1.1, 1.9], 2.4), None);
        assert!(fault([1.1, 1.9], 2.6).unwrap().contains("its loss here is 2.600"));
        assert!(fault([1.1, 1.9], f64::NAN).is_some());
        assert!(fault([0.9, 1.9], 2.1).unwrap().contains("cosine -0.11"));
        // Whoever makes the model better may go where he likes, and who stays where it is goes nowhere.
        assert_eq!(fault([0.9, 1.9], 1.9), None);
        assert_eq!(fault([1.0, 1.0], 2.001), None);
    }

    #[test]
    fn a_model_that_is_better_may_have_learned_wrong_labels_all_the_same() {
        let labels: Vec<u8> = (0..40).map(|at| at % 10).collect();
        let scores = |of: fn(u8) -> usize| -> Vec<f32> {
            let mut scores = vec![0.0; 400];
            labels
                .iter()
                .enumerate()
                .for_each(|(at, label)| scores[10 * at + of(*label)] = 1.0 + at as f32 / 40.0);
            scores
        };
        let with = |loss, scores| Examination { labels: labels.clone(), scores, ..judged(loss) };
        let held = Yardstick { before: Some(with(2.0, vec![0.0; 400])), ..yardstick() };
        let fault = |examined: &Examination, bounds| held.fault(&[1.1, 1.9], Some(examined), bounds);
        // It has a cosine of 0.11 where 0.8 is to be expected.
        assert_eq!(fault(&with(1.9, scores(usize::from)), BOUNDS), None);
        let flipped = with(1.9, scores(|label| 9 - usize::from(label)));
        let said = fault(&flipped, BOUNDS).unwrap();
        assert!(said.contains("other labels") && said.contains("0→9, 1→8"), "{said}");
        assert_eq!(fault(&flipped, Bounds { mislabel_z: 1e9, ..BOUNDS }), None);
        // A step back from where the global model has overshot has as much in common with ours as to be expected.
        assert_eq!(held.fault(&[1.5, 1.4], Some(&flipped), BOUNDS), None);
        // Few twins with much training go far, each its own way: twice as long with a cosine of 0.35. Ever longer ones are not borne.
        assert_eq!(held.fault(&[1.35, 1.94], Some(&flipped), BOUNDS), None);
        assert!(held.fault(&[1.55, 5.97], Some(&flipped), BOUNDS).is_some());
        // Whoever comes further than we do is none to learn from.
        let further = Yardstick { after: Some(judged(1.95)), ..held };
        assert_eq!(further.fault(&[1.1, 1.9], Some(&flipped), BOUNDS), None);
        // Where our own step looks like one with other labels too, that says nothing of others.
        let overshot = Yardstick {
            after: Some(Examination { judgement: judged(1.8).judgement, ..flipped.clone() }),
            ..further
        };
        assert_eq!(overshot.fault(&[1.1, 1.9], Some(&flipped), BOUNDS), None);
        let alone = Yardstick { own: None, after: None, expected: 0.0, ..overshot };
        assert!(alone.fault(&[1.5, 1.4], Some(&flipped), BOUNDS).is_some());
    }

    #[test]
    fn twins_tell_what_is_to_be_expected_of_others() {
        // Twenty twins that go one way together, by 1, and each by chance another: as 1 to 2 in each of 200 directions.
        let steps = |seed: u64, twins: usize| -> Vec<Vec<f32>> {
            use rand::SeedableRng as _;
            use rand_distr::Distribution as _;
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut step = || 1.0 + rand_distr::Normal::new(0.0, 2.0).unwrap().sample(&mut random);
            (0..twins).map(|_| (0..200).map(|_| step()).collect()).collect()
        };
        let global = vec![0.0; 200];
        let mean = |models: &[Vec<f32>]| -> Vec<f32> {
            (0..200)
                .map(|at| models.iter().map(|model| model[at]).sum::<f32>() / models.len() as f32)
                .collect()
        };
        let expected = |models: &[Vec<f32>]| {
            reliability(&global, &models.iter().map(|model| (&model[..], 3.0)).collect::<Vec<_>>())
        };
        let (one, other) = (steps(1, 20), steps(2, 20));
        let found = Steps::between(&global, &mean(&other), &mean(&one)).cosine;
        let expected_of = expected(&one);
        // 1 / (1 + 4/20).
        assert!((expected_of - 0.83).abs() < 0.06 && (found - 0.83).abs() < 0.06, "{expected_of} {found}");
        assert_eq!(expected(&one[..1]), 0.0);
        assert_eq!(expected(&[]), 0.0);
        assert_eq!(expected(&[global.clone(), global.clone()]), 0.0);
    }

    #[test]
    fn without_samples_or_a_model_of_our_own_less_can_be_checked() {
        let blind = Yardstick { before: None, ..yardstick() };
        assert_eq!(blind.fault(&[-9.0, -9.0], None, BOUNDS), None);
        let idle = Yardstick { own: None, ..yardstick() };
        assert_eq!(idle.fault(&[0.5, 1.0], Some(&judged(2.4)), BOUNDS), None);
        assert!(idle.fault(&[0.5, 1.0], Some(&judged(2.6)), BOUNDS).is_some());
        let any = Bounds { alignment: -1.0, ..BOUNDS };
        assert_eq!(yardstick().fault(&[0.5, 1.0], Some(&judged(2.4)), any), None);
    }
}
