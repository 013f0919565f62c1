//! How models become one: Eq. 4 at a BS, Eq. 5 at the MBS.

/// How models are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// The mean weighted by samples: Σ D w / Σ D.
    #[default]
    Mean,
    /// As printed, (1/n) Σ D w: Eq. 4 with D scaled to a mean of 1 over all twins of the network, or nothing would average, and
    /// Eq. 5 with D = 1. A BS whose twins hold more than others' gives a longer vector, not a heavier one.
    Paper,
    /// The median of each parameter, unweighted: up to half of the models may be arbitrary (Yin et al. 2018,
    /// "Byzantine-Robust Distributed Learning").
    Median,
}

/// Why models cannot be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// None are given.
    #[error("there is no model to aggregate")]
    Nothing,
    /// Models of different lengths.
    #[error("a model of {found} parameters among models of {expected}")]
    Length {
        /// Of the first model.
        expected: usize,
        /// Of another.
        found: usize,
    },
    /// A weight that is no positive number.
    #[error("a model's weight is not a positive number")]
    Weight,
    /// The result is not finite.
    #[error("parameter {0} of the aggregate is not a finite number")]
    NotFinite(usize),
}

/// Puts models together, each with its weight D (samples). Sums run in the order given, in double precision: the same models in the
/// same order give the same bits.
///
/// # Errors
/// [`AggregateError`].
pub fn aggregate(models: &[(&[f32], f64)], rule: Rule) -> Result<Vec<f32>, AggregateError> {
    let (first, _) = models.first().ok_or(AggregateError::Nothing)?;
    let expected = first.len();
    if let Some((other, _)) = models.iter().find(|(model, _)| model.len() != expected) {
        return Err(AggregateError::Length { expected, found: other.len() });
    }
    if models.iter().any(|(_, weight)| !(weight.is_finite() && *weight > 0.0)) {
        return Err(AggregateError::Weight);
    }
    let values = match rule {
        Rule::Mean => weighted(models, expected, models.iter().map(|(_, weight)| weight).sum()),
        Rule::Paper => weighted(models, expected, models.len() as f64),
        Rule::Median => median(models, expected),
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(AggregateError::NotFinite(index)),
        None => Ok(values),
    }
}

fn weighted(models: &[(&[f32], f64)], length: usize, total: f64) -> Vec<f32> {
    let mut sums = vec![0.0_f64; length];
    for (model, weight) in models {
        let share = weight / total;
        sums.iter_mut().zip(*model).for_each(|(sum, value)| *sum += share * f64::from(*value));
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

fn median(models: &[(&[f32], f64)], length: usize) -> Vec<f32> {
    let mut column = Vec::with_capacity(models.len());
    let mut at = |index: usize| {
        column.clear();
        column.extend(models.iter().map(|(model, _)| model[index]));
        column.sort_by(f32::total_cmp);
        let middle = column.len() / 2;
        match column.len() % 2 {
            0 => (column[middle - 1] + column[middle]) / 2.0,
            _ => column[middle],
        }
    };
    (0..length).map(&mut at).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mean_is_weighted_by_samples() {
        let models: [(&[f32], f64); 2] = [(&[1.0, 4.0], 100.0), (&[3.0, 0.0], 300.0)];
        assert_eq!(aggregate(&models, Rule::Mean).unwrap(), [2.5, 1.0]);
    }

    #[test]
    fn the_printed_sum_is_a_mean_only_for_weights_of_mean_1() {
        let of = |a, b| {
            let models: [(&[f32], f64); 2] = [(&[1.0, 4.0], a), (&[3.0, 0.0], b)];
            aggregate(&models, Rule::Paper).unwrap()
        };
        assert_eq!(of(0.5, 1.5), [2.5, 1.0]);
        assert_eq!(of(1.0, 3.0), [5.0, 2.0]);
    }

    #[test]
    fn the_median_bears_a_minority_of_anything() {
        let models: [(&[f32], f64); 5] =
            [(&[1.0], 1.0), (&[1.1], 1.0), (&[0.9], 1.0), (&[1e30], 1.0), (&[f32::NAN], 1.0)];
        assert_eq!(aggregate(&models, Rule::Median).unwrap(), [1.1]);
        let even: [(&[f32], f64); 2] = [(&[1.0], 9.0), (&[2.0], 1.0)];
        assert_eq!(aggregate(&even, Rule::Median).unwrap(), [1.5]);
    }

    #[test]
    fn what_cannot_be_aggregated_is_refused() {
        let error = |models: &[(&[f32], f64)]| aggregate(models, Rule::Mean).unwrap_err();
        assert_eq!(error(&[]), AggregateError::Nothing);
        let lengths: [(&[f32], f64); 2] = [(&[1.0], 1.0), (&[1.0, 2.0], 1.0)];
        assert_eq!(error(&lengths), AggregateError::Length { expected: 1, found: 2 });
        assert_eq!(error(&[(&[1.0], 0.0)]), AggregateError::Weight);
        assert_eq!(error(&[(&[1.0], f64::NAN)]), AggregateError::Weight);
        assert_eq!(error(&[(&[1.0, f32::NAN], 1.0)]), AggregateError::NotFinite(1));
    }

    proptest! {
        /// Any aggregate lies between the smallest and the largest of what it is made of.
        #[test]
        fn an_aggregate_lies_within_its_models(
            values in proptest::collection::vec((-5.0f32..5.0, 0.1f64..100.0), 1..12),
        ) {
            let models: Vec<[f32; 1]> = values.iter().map(|(value, _)| [*value]).collect();
            let models: Vec<(&[f32], f64)> =
                models.iter().zip(&values).map(|(model, (_, weight))| (&model[..], *weight)).collect();
            let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), (v, _)| (l.min(*v), h.max(*v)));
            for rule in [Rule::Mean, Rule::Median] {
                let got = aggregate(&models, rule).unwrap()[0];
                prop_assert!(got >= low - 1e-4 && got <= high + 1e-4);
            }
        }
    }
}
