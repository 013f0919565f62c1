//! Fitting θ_G = 1 − a·B^(−p), the accuracy that training on B = Σ b_n D_n samples a round buys, to what trainings reached.
//!
//! In logarithms it is a line, ln(1 − θ) = ln a − p·ln B, fitted by ordinary least squares in closed form. Accuracies between a tenth
//! and nine tenths have errors of about the same size in ln(1 − θ), which that asks for.

/// What a training reached.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Point {
    /// B: samples a round, those of repeated passes counted once.
    pub samples: f64,
    /// θ: the share of right answers on samples never trained on.
    pub accuracy: f64,
}

/// The fitted curve, with standard errors.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Fit {
    /// a.
    pub theta_a: f64,
    /// p.
    pub theta_p: f64,
    /// Standard error of a, to first order from that of ln a. It and p's are strongly correlated: the curve is known better than either.
    pub theta_a_error: f64,
    /// Standard error of p.
    pub theta_p_error: f64,
    /// Root mean square of the accuracies' distances from the curve.
    pub residual: f64,
    /// The share of the variance of ln(1 − θ) that the curve explains.
    pub r_squared: f64,
}

impl Fit {
    /// θ_G of so many samples a round.
    #[must_use]
    pub fn accuracy(&self, samples: f64) -> f64 {
        1.0 - self.theta_a * samples.powf(-self.theta_p)
    }
}

/// Why there is no curve.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Two numbers and their errors need three points.
    #[error("{0} points are too few for a curve of two parameters and their errors; 3 are the fewest")]
    TooFew(usize),
    /// The same B everywhere.
    #[error("all points have the same number of samples a round")]
    OneNumber,
    /// No share, or the logarithm of nothing.
    #[error("a point of {samples} samples a round and accuracy {accuracy}: they must be above 0 and below 1")]
    Point {
        /// Its B.
        samples: f64,
        /// Its θ.
        accuracy: f64,
    },
    /// More samples do not buy more accuracy.
    #[error(
        "accuracy does not rise with the samples of a round (p would be {0:.4}): train for other numbers of rounds, by more seeds, or \
         on fractions that differ more"
    )]
    Flat(f64),
}

/// Fits a and p.
///
/// # Errors
/// [`FitError`].
pub fn fit(points: &[Point]) -> Result<Fit, FitError> {
    if points.len() < 3 {
        return Err(FitError::TooFew(points.len()));
    }
    let bad = |point: &&Point| {
        !(point.samples.is_finite() && point.samples > 0.0 && (0.0..1.0).contains(&point.accuracy))
    };
    if let Some(Point { samples, accuracy }) = points.iter().find(bad).copied() {
        return Err(FitError::Point { samples, accuracy });
    }
    let line: Vec<(f64, f64)> =
        points.iter().map(|point| (point.samples.ln(), (-point.accuracy).ln_1p())).collect();
    let count = line.len() as f64;
    let mean_x = line.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = line.iter().map(|(_, y)| y).sum::<f64>() / count;
    let xx: f64 = line.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let yy: f64 = line.iter().map(|(_, y)| (y - mean_y).powi(2)).sum();
    let xy: f64 = line.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    // Numbers of samples are whole, so anything below this is rounding.
    if xx < 1e-12 {
        return Err(FitError::OneNumber);
    }
    let slope = xy / xx;
    let intercept = mean_y - slope * mean_x;
    if slope >= 0.0 {
        return Err(FitError::Flat(-slope));
    }
    let rest: f64 = line.iter().map(|(x, y)| (y - intercept - slope * x).powi(2)).sum();
    let variance = rest / (count - 2.0);
    let theta_a = intercept.exp();
    let mut fit = Fit {
        theta_a,
        theta_p: -slope,
        theta_a_error: theta_a * (variance * (1.0 / count + mean_x * mean_x / xx)).sqrt(),
        theta_p_error: (variance / xx).sqrt(),
        residual: 0.0,
        r_squared: 1.0 - rest / yy,
    };
    let off = |point: &Point| (point.accuracy - fit.accuracy(point.samples)).powi(2);
    fit.residual = (points.iter().map(off).sum::<f64>() / count).sqrt();
    Ok(fit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(a: f64, p: f64, samples: &[f64]) -> Vec<Point> {
        samples.iter().map(|&samples| Point { samples, accuracy: 1.0 - a * samples.powf(-p) }).collect()
    }

    #[test]
    fn points_on_a_curve_give_the_curve() {
        let fit = fit(&points(10.4, 0.35, &[2500.0, 5000.0, 10_000.0, 20_000.0])).unwrap();
        assert!((fit.theta_a - 10.4).abs() < 1e-9 && (fit.theta_p - 0.35).abs() < 1e-12, "{fit:?}");
        assert!(fit.theta_a_error < 1e-6 && fit.theta_p_error < 1e-8 && fit.residual < 1e-9, "{fit:?}");
        assert!((fit.r_squared - 1.0).abs() < 1e-9);
        assert!((fit.accuracy(10_000.0) - (1.0 - 10.4 * 10_000f64.powf(-0.35))).abs() < 1e-9);
    }

    #[test]
    fn standard_errors_by_hand() {
        // ln B = 0, 1, 2 and ln(1 − θ) = −1, −1.1, −1.8: slope −0.4, intercept −0.9, residuals −0.1, 0.2, −0.1.
        let of = |x: f64, y: f64| Point { samples: x.exp(), accuracy: 1.0 - y.exp() };
        let fit = fit(&[of(0.0, -1.0), of(1.0, -1.1), of(2.0, -1.8)]).unwrap();
        assert!((fit.theta_p - 0.4).abs() < 1e-12 && (fit.theta_a - (-0.9f64).exp()).abs() < 1e-12);
        // s² = 0.06/1, Σ(x − 1)² = 2; se(ln a) = √(0.06·(1/3 + 1/2)).
        assert!((fit.theta_p_error - 0.03f64.sqrt()).abs() < 1e-12);
        assert!((fit.theta_a_error - (-0.9f64).exp() * 0.05f64.sqrt()).abs() < 1e-12);
        assert!((fit.r_squared - (1.0 - 0.06 / 0.38)).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_curve_is_named() {
        assert_eq!(fit(&points(1.0, 0.5, &[10.0, 20.0])).unwrap_err(), FitError::TooFew(2));
        assert_eq!(fit(&points(1.0, 0.5, &[10.0; 4])).unwrap_err(), FitError::OneNumber);
        assert!(matches!(fit(&points(0.5, -0.1, &[1.0, 2.0, 4.0])).unwrap_err(), FitError::Flat(_)));
        let mut wrong = points(1.0, 0.5, &[10.0, 20.0, 40.0]);
        wrong[1].accuracy = f64::NAN;
        assert!(matches!(fit(&wrong).unwrap_err(), FitError::Point { samples: 20.0, .. }));
        wrong[1].accuracy = 1.0;
        assert!(fit(&wrong).unwrap_err().to_string().contains("below 1"));
    }

    proptest! {
        /// Least squares: what noise does to p and to the residual is bounded by the noise.
        #[test]
        fn errors_are_as_large_as_the_noise(
            noise in proptest::collection::vec(-0.01f64..0.01, 12),
            a in 2.0f64..8.0,
            p in 0.15f64..0.35,
        ) {
            let mut points = points(a, p, &[2e3, 4e3, 8e3, 16e3].repeat(3));
            let exact: Vec<f64> = points.iter().map(|point| (-point.accuracy).ln_1p()).collect();
            points.iter_mut().zip(&noise).for_each(|(point, noise)| point.accuracy += noise);
            prop_assume!(points.iter().all(|point| (0.0..0.9).contains(&point.accuracy)));
            let off: f64 =
                points.iter().zip(&exact).map(|(point, exact)| ((-point.accuracy).ln_1p() - exact).powi(2)).sum();
            // Σ (x − mean)² of ln 2, 3 times each at ±½ and ±1½ of it.
            let xx = 15.0 * 2f64.ln().powi(2);
            let fit = fit(&points).unwrap();
            prop_assert!((fit.theta_p - p).abs() <= (off / xx).sqrt() + 1e-9);
            prop_assert!(fit.theta_p_error <= (off / 10.0 / xx).sqrt() + 1e-9);
        }
    }
}
