//! Decisions, and the projections that make any numbers feasible: (18a)–(18d).

use super::Problem;

/// K, b and τ of all BSs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// K_i: how many twins each BS keeps; their sum is N (18b).
    pub k: Vec<u32>,
    /// b_i: the fraction of their samples that the twins of each BS train on (18d), with Σ b_i·K_i·D̄ = B* (18a).
    pub b: Vec<f64>,
    /// τ_{i,c}: the fraction of time that BS i has on subchannel c (18c); M × C.
    pub tau: Vec<f64>,
}

/// A decision before K is a number of twins.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Relaxed {
    /// K_i/N of each BS: not negative, sum 1.
    pub share: Vec<f64>,
    /// b_i of each BS.
    pub b: Vec<f64>,
    /// τ_{i,c}; M × C.
    pub tau: Vec<f64>,
}

/// What makes a decision none of a problem's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecisionError {
    /// It is for a network of another size.
    #[error("{what} has {found} entries where this network needs {expected}")]
    Size {
        /// `K`, `b` or `τ`.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// (18b) does not hold.
    #[error("the K of all BSs add up to {sum} twins; there are {twins} (18b)")]
    Twins {
        /// Σ K.
        sum: u64,
        /// N.
        twins: u32,
    },
    /// (18d) does not hold.
    #[error("b of BS {station} is {b}; allowed: {b_min} to {b_max} (18d)")]
    Fraction {
        /// The BS, from 1.
        station: usize,
        /// Its b.
        b: f64,
        /// b_min.
        b_min: f64,
        /// b_max.
        b_max: f64,
    },
    /// (18a) does not hold.
    #[error("the BSs train on {samples:.1} samples a round; θ_G ≥ θ_th takes {needed:.1} (18a)")]
    Samples {
        /// Σ b K D̄.
        samples: f64,
        /// B*.
        needed: f64,
    },
    /// (18c) does not hold.
    #[error(transparent)]
    Shares(#[from] crate::radio::TimeSharesError),
}

/// Room for rounding in sums that are meant to be exact.
const SLACK: f64 = 1e-6;

impl Problem {
    /// Whether a decision is feasible: right sizes, and (18a)–(18d).
    ///
    /// # Errors
    /// The first constraint that it violates.
    pub fn check(&self, decision: &Decision) -> Result<(), DecisionError> {
        let (m, c) = (self.stations, self.subchannels);
        let sizes =
            [("K", decision.k.len(), m), ("b", decision.b.len(), m), ("τ", decision.tau.len(), m * c)];
        for (what, found, expected) in sizes {
            if found != expected {
                return Err(DecisionError::Size { what, found, expected });
            }
        }
        let sum: u64 = decision.k.iter().map(|k| u64::from(*k)).sum();
        if sum != u64::from(self.twins) {
            return Err(DecisionError::Twins { sum, twins: self.twins });
        }
        let (b_min, b_max) = (self.cost.b_min, self.cost.b_max);
        let allowed = b_min - SLACK..=b_max + SLACK;
        if let Some((i, &b)) = decision.b.iter().enumerate().find(|(_, b)| !allowed.contains(*b)) {
            return Err(DecisionError::Fraction { station: i + 1, b, b_min, b_max });
        }
        let samples = self.samples_spent(&decision.k, &decision.b);
        if samples < self.budget * (1.0 - SLACK) {
            return Err(DecisionError::Samples { samples, needed: self.budget });
        }
        let rows: Vec<Vec<f64>> = decision.tau.chunks(c.max(1)).map(<[f64]>::to_vec).collect();
        crate::radio::TimeShares::new(&rows)?;
        Ok(())
    }

    /// Σ b_i·K_i·D̄, samples.
    pub fn samples_spent(&self, k: &[u32], b: &[f64]) -> f64 {
        k.iter().zip(b).map(|(k, b)| f64::from(*k) * b).sum::<f64>() * self.samples_mean()
    }

    /// The feasible decision nearest to a relaxed one: K by largest remainder, b by [`project_b`](Self::project_b), τ by
    /// [`normalise_shares`].
    pub fn round(&self, relaxed: &Relaxed) -> Decision {
        let k = largest_remainder(&relaxed.share, self.twins);
        let b = self.project_b(&relaxed.b, &k);
        let mut tau = relaxed.tau.clone();
        normalise_shares(&mut tau, self.stations, self.subchannels);
        Decision { k, b, tau }
    }

    /// The Euclidean projection of b, taken twin by twin, onto (18a) and (18d): Σ b_i·K_i·D̄ = B* with b_min ≤ b_i ≤ b_max.
    ///
    /// All twins move by the same amount until they meet a bound. Entries that are no numbers count as the mean.
    pub fn project_b(&self, wanted: &[f64], k: &[u32]) -> Vec<f64> {
        let weights: Vec<f64> = k.iter().map(|k| f64::from(*k) * self.samples_mean()).collect();
        self.project_b_onto(wanted, &weights, self.budget)
    }

    /// As [`project_b`](Self::project_b), with `data` samples at each BS and a sum of `budget`.
    pub(super) fn project_b_onto(&self, wanted: &[f64], data: &[f64], budget: f64) -> Vec<f64> {
        let (b_min, b_max) = (self.cost.b_min, self.cost.b_max);
        let mean = budget / self.samples_total;
        let wanted: Vec<f64> = wanted.iter().map(|b| if b.is_finite() { *b } else { mean }).collect();
        let spent = |shift: f64| -> f64 {
            wanted.iter().zip(data).map(|(b, d)| (b + shift).clamp(b_min, b_max) * d).sum()
        };
        let least = wanted.iter().copied().fold(f64::INFINITY, f64::min);
        let most = wanted.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // At `low` all stand at b_min, at `high` all at b_max; what is spent grows in between.
        let (mut low, mut high) = (b_min - most, b_max - least);
        // Halving 60 times leaves less than the rounding of the sum.
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if spent(middle) < budget { low = middle } else { high = middle }
        }
        wanted.iter().map(|b| (b + high).clamp(b_min, b_max)).collect()
    }
}

/// Whole numbers that add up to `total` in the proportion of `shares`, by largest remainder; ties go to the first.
///
/// Shares that are negative or no numbers count as 0; if none is left, all count the same. Empty for no shares.
pub fn largest_remainder(shares: &[f64], total: u32) -> Vec<u32> {
    let clean: Vec<f64> = shares.iter().map(|s| if s.is_finite() { s.max(0.0) } else { 0.0 }).collect();
    let sum: f64 = clean.iter().sum();
    let exact: Vec<f64> = match sum > 0.0 && sum.is_finite() {
        true => clean.iter().map(|s| s / sum * f64::from(total)).collect(),
        false => vec![f64::from(total) / shares.len().max(1) as f64; shares.len()],
    };
    let mut whole: Vec<u32> = exact.iter().map(|x| x.floor() as u32).collect();
    let given: u32 = whole.iter().sum();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    // A stable sort: equal remainders keep their order.
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    for &i in order.iter().cycle().take(total.saturating_sub(given) as usize) {
        whole[i] += 1;
    }
    whole
}

/// Scales each subchannel's shares (M × C) to a sum of 1 (18c). Negative entries and those that are no numbers count as 0; a
/// subchannel that nobody wants is shared equally.
pub fn normalise_shares(tau: &mut [f64], stations: usize, subchannels: usize) {
    for share in tau.iter_mut() {
        *share = if share.is_finite() { share.max(0.0) } else { 0.0 };
    }
    for c in 0..subchannels {
        let sum: f64 = (0..stations).map(|i| tau[i * subchannels + c]).sum();
        for i in 0..stations {
            let share = &mut tau[i * subchannels + c];
            *share = if sum > 0.0 { *share / sum } else { 1.0 / stations as f64 };
        }
    }
}

/// Softmax over the BSs of each subchannel: logits (M × C) become shares that add up to 1 on each.
pub fn softmax_by_station(logits: &[f64], stations: usize, subchannels: usize) -> Vec<f64> {
    let mut shares = vec![0.0; logits.len()];
    for c in 0..subchannels {
        let column = (0..stations).map(|i| logits[i * subchannels + c]);
        let most = column.fold(f64::NEG_INFINITY, f64::max);
        for i in 0..stations {
            shares[i * subchannels + c] = (logits[i * subchannels + c] - most).exp();
        }
    }
    normalise_shares(&mut shares, stations, subchannels);
    shares
}
