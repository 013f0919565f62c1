//! Quantiles, and the intervals that chance alone explains.

/// The standard normal quantile of a two-sided 99.9 % interval.
pub const Z_999: f64 = 3.290_526_731_491_9;

/// The value below which a share `q` of the sorted values lies (nearest rank); NaN for none.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// The values in order.
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The median: of an even number of values the mean of the two in the middle; NaN for none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let values = sorted(values);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => values[middle - 1].midpoint(values[middle]),
    }
}

/// The counts between which a binomial variable of `n` trials with probability `p` lies with probability of at least
/// 99.9 %: at most 0.05 % of its mass is below the first and at most 0.05 % above the second.
pub fn binomial_999(n: u64, p: f64) -> (u64, u64) {
    let tail = 0.0005;
    let (mut cumulated, mut low) = (0.0, None);
    let mut log_mass = n as f64 * (-p).ln_1p();
    for k in 0..=n {
        cumulated += log_mass.exp();
        if low.is_none() && cumulated > tail {
            low = Some(k);
        }
        if cumulated >= 1.0 - tail {
            return (low.unwrap_or(0), k);
        }
        // P(k + 1) / P(k) = (n − k) p / ((k + 1) (1 − p)).
        log_mass += ((n - k) as f64 * p / ((k + 1) as f64 * (1.0 - p))).ln();
    }
    (low.unwrap_or(0), n)
}

/// Lengths of the runs of `true`.
pub fn bursts(lost: &[bool]) -> Vec<u64> {
    lost.chunk_by(|a, b| a == b).filter(|run| run[0]).map(|run| run.len() as u64).collect()
}
