//! A figure over time, of any length, in bounded memory.

/// Points kept at most: more than a figure has columns of pixels.
const POINTS_MAX: usize = 720;

/// What stands for several values where there are too many to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thinning {
    /// Their mean.
    #[default]
    Mean,
    /// The largest, so that a peak is never lost.
    Peak,
}

/// Values over emulated time. When there are too many, neighbours become one.
#[derive(Debug, Clone, Default)]
pub struct Series {
    points: Vec<(f64, f64)>,
    thinning: Thinning,
    /// Values that a point stands for.
    stride: usize,
    pending: Vec<(f64, f64)>,
}

impl Series {
    /// An empty one.
    pub fn new(thinning: Thinning) -> Self {
        Self { points: Vec::new(), thinning, stride: 1, pending: Vec::new() }
    }

    /// Adds a value at an emulated time in seconds; what is not finite is left out.
    pub fn push(&mut self, at_s: f64, value: f64) {
        if !at_s.is_finite() || !value.is_finite() {
            return;
        }
        self.pending.push((at_s, value));
        if self.pending.len() >= self.stride.max(1) {
            let pending = std::mem::take(&mut self.pending);
            self.points.push(self.merge(&pending));
        }
        if self.points.len() >= POINTS_MAX {
            self.points = self.points.chunks(2).map(|pair| self.merge(pair)).collect();
            self.stride = self.stride.max(1) * 2;
        }
    }

    /// The points: time in seconds, value.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// Values that each point stands for.
    pub fn stride(&self) -> usize {
        self.stride.max(1)
    }

    fn merge(&self, values: &[(f64, f64)]) -> (f64, f64) {
        let count = values.len().max(1) as f64;
        let at_s = values.iter().map(|(at_s, _)| at_s).sum::<f64>() / count;
        let value = match self.thinning {
            Thinning::Mean => values.iter().map(|(_, value)| value).sum::<f64>() / count,
            Thinning::Peak => values.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max),
        };
        (at_s, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_series_stay_short_and_keep_their_mean_or_peak() {
        for (thinning, expected) in [(Thinning::Mean, 1.5), (Thinning::Peak, 2.0)] {
            let mut series = Series::new(thinning);
            (0..100_000).for_each(|index| series.push(f64::from(index), f64::from(1 + index % 2)));
            series.push(f64::NAN, 1.0);
            series.push(1.0, f64::INFINITY);
            assert!(series.points().len() < POINTS_MAX);
            assert!(series.points().len() > POINTS_MAX / 4);
            assert!(series.points().iter().all(|(_, value)| (value - expected).abs() < 1e-9));
            assert!(series.points().windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
