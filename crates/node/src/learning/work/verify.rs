//! Whether another's model is good enough: what a verifier holds it against, and how.
//!
//! Two rules, both on what the verifier has itself, so that its finding depends on nothing else:
//!
//! - the model's loss on its samples may exceed that of the global model, from which the model was trained, by `tolerance` at most;
//! - a model whose loss exceeds it at all must have gone the way of the verifier's own: the cosine between the two steps from the
//!   global model is at least `alignment`. That takes one's own step as the root of trust, as in Cao et al. 2021, "FLTrust".
//!
//! Few samples make honest models worse now and then, by as much as a poisoner's are in other rounds, but point their own way
//! no more than others': the loss tells the harm, the cosine the intention.

use crate::learning::learner::Judgement;

/// How much is borne.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    /// Nats by which a model may be worse than the global one.
    pub(super) tolerance: f64,
    /// The least cosine to one's own step, of a model that is worse; −1 for any.
    pub(super) alignment: f64,
}

/// What models of a round are held against.
#[derive(Debug)]
pub(super) struct Yardstick {
    /// The round.
    pub(super) round: u64,
    /// The global model that it began from.
    pub(super) global: Vec<f32>,
    /// How good that is on one's own samples; judged once one's own model is made, as nothing waits for it before.
    pub(super) before: Option<Judgement>,
    /// One's own model, as it was trained; `None` where there was nothing to train.
    pub(super) own: Option<Vec<f32>>,
}

impl Yardstick {
    /// Why a model, judged on one's own samples, is not good enough; `None` when it is.
    pub(super) fn fault(&self, model: &[f32], judged: Option<Judgement>, bounds: Bounds) -> Option<String> {
        let (before, after) = (self.before?.loss, judged?.loss);
        // Not the negation of "at most": a loss that is NaN is no good either.
        let bearable = after <= before + bounds.tolerance;
        if !bearable {
            return Some(format!(
                "its loss here is {after:.3}, that of the global model it began from {before:.3}"
            ));
        }
        if after <= before {
            return None;
        }
        let cosine = cosine(&self.global, model, self.own.as_deref()?);
        (cosine < bounds.alignment).then(|| {
            format!(
                "it goes another way than what is learned here (cosine {cosine:.2}), and its loss here is {after:.3} after {before:.3}"
            )
        })
    }
}

/// The cosine between the ways from one point to two others; NaN where one of them is no way at all.
fn cosine(from: &[f32], one: &[f32], other: &[f32]) -> f64 {
    let (mut product, mut squares) = (0.0, (0.0, 0.0));
    for ((from, one), other) in from.iter().zip(one).zip(other) {
        let (one, other) = (f64::from(one - from), f64::from(other - from));
        product += one * other;
        squares = (squares.0 + one * one, squares.1 + other * other);
    }
    product / (squares.0.sqrt() * squares.1.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { tolerance: 0.5, alignment: 0.0 };

    fn judged(loss: f64) -> Option<Judgement> {
        Some(Judgement { loss, accuracy: 0.5 })
    }

    fn yardstick() -> Yardstick {
        Yardstick { round: 1, global: vec![1.0, 1.0], before: judged(2.0), own: Some(vec![1.5, 1.0]) }
    }

    #[test]
    fn a_model_may_be_a_little_worse_where_it_goes_our_way() {
        let fault = |model: [f32; 2], loss| yardstick().fault(&model, judged(loss), BOUNDS);
        assert_eq!(fault([1.1, 1.9], 2.4), None);
        assert!(fault([1.1, 1.9], 2.6).unwrap().contains("its loss here is 2.600"));
        assert!(fault([1.1, 1.9], f64::NAN).is_some());
        assert!(fault([0.9, 1.9], 2.1).unwrap().contains("cosine -0.11"));
        // Whoever makes the model better may go where he likes, and who stays where it is goes nowhere.
        assert_eq!(fault([0.9, 1.9], 1.9), None);
        assert_eq!(fault([1.0, 1.0], 2.001), None);
    }

    #[test]
    fn without_samples_or_a_model_of_our_own_less_can_be_checked() {
        let blind = Yardstick { before: None, ..yardstick() };
        assert_eq!(blind.fault(&[-9.0, -9.0], None, BOUNDS), None);
        let idle = Yardstick { own: None, ..yardstick() };
        assert_eq!(idle.fault(&[0.5, 1.0], judged(2.4), BOUNDS), None);
        assert!(idle.fault(&[0.5, 1.0], judged(2.6), BOUNDS).is_some());
        let any = Bounds { alignment: -1.0, ..BOUNDS };
        assert_eq!(yardstick().fault(&[0.5, 1.0], judged(2.4), any), None);
    }
}
