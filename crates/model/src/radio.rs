//! The channel: Eq. 7–8, path loss and fading.
//!
//! Where the printed equations slip, this follows their meaning: interference is weighed with the interferer's own
//! distance r_{j,m}, N0 is a density times the bandwidth, the downlink loses power on its path as the uplink does, and
//! spectral efficiency may be capped at what modulation and coding reach.

use crate::topology::Fading;
use crate::topology::Radio;
use crate::units::{BitsPerSecond, Decibels, Hertz, Metres};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The constants of Eq. 7–8 in linear units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Channel {
    /// W: the bandwidth of a subchannel.
    pub bandwidth: Hertz,
    /// Noise power in the subchannel, W.
    pub noise_w: f64,
    /// α: the path-loss exponent.
    pub exponent: f64,
    /// Loss at 1 m, on top of distance^(−α).
    pub fixed_loss: Decibels,
    /// Distances below this count as this.
    pub reference: Metres,
    /// Highest spectral efficiency, bit/s/Hz; infinite when uncapped.
    pub se_max: f64,
}

impl Channel {
    /// The channel of a `[radio]` section on a subchannel of the given bandwidth.
    pub fn new(radio: &Radio, bandwidth: Hertz) -> Self {
        Self {
            bandwidth,
            noise_w: radio.noise_density.watts_over(bandwidth),
            exponent: radio.path_loss_exponent,
            fixed_loss: radio.fixed_loss,
            reference: radio.reference_distance,
            se_max: radio.se_max.get().unwrap_or(f64::INFINITY),
        }
    }

    /// The fraction of power that arrives over a distance: r^(−α), less the fixed loss.
    pub fn path_gain(&self, distance: Metres) -> f64 {
        distance.get().max(self.reference.get()).powf(-self.exponent) / self.fixed_loss.factor()
    }

    /// The power that arrives from a transmitter, W: P·h·r^(−α), less the fixed loss.
    ///
    /// `gain` is h, the fading power gain (1 without fading).
    pub fn received_w(&self, power_w: f64, gain: f64, distance: Metres) -> f64 {
        power_w * gain * self.path_gain(distance)
    }

    /// The spectral efficiency, bit/s/Hz, of `log2(1 + S/(I + N))`, capped at `se_max`. Powers in W.
    pub fn spectral_efficiency(&self, signal_w: f64, interference_w: f64) -> f64 {
        (signal_w / (interference_w + self.noise_w)).ln_1p().min(self.se_max * std::f64::consts::LN_2)
            / std::f64::consts::LN_2
    }

    /// The rate of one subchannel used all the time, W·log2(1 + SINR).
    pub fn rate(&self, signal_w: f64, interference_w: f64) -> BitsPerSecond {
        BitsPerSecond::new(self.bandwidth.get() * self.spectral_efficiency(signal_w, interference_w))
    }
}

/// One signal on a subchannel, as received: who sends how strongly from how far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signal {
    /// P: transmit power on the subchannel, W.
    pub power_w: f64,
    /// h: fading power gain.
    pub gain: f64,
    /// r: distance to the receiver.
    pub distance: Metres,
}

impl Signal {
    fn received_w(&self, channel: &Channel) -> f64 {
        channel.received_w(self.power_w, self.gain, self.distance)
    }
}

/// Eq. 7: the uplink rate of a BS, Σ_c τ_c·W·log2(1 + S_c/(I_c + N0·W)).
///
/// `subchannels` yields, for each subchannel, the time share τ_c in `0..=1`, the BS's own signal and the interference
/// power received from other cells, W (sum it with [`interference_w`]).
pub fn uplink_rate(
    channel: &Channel,
    subchannels: impl IntoIterator<Item = (f64, Signal, f64)>,
) -> BitsPerSecond {
    subchannels
        .into_iter()
        .map(|(tau, signal, interference_w)| {
            BitsPerSecond::new(tau * channel.rate(signal.received_w(channel), interference_w).get())
        })
        .sum()
}

/// Eq. 8: the downlink rate to a BS, over all subchannels all the time, with path loss on the signal too.
///
/// Arguments as for [`uplink_rate`], without the time share: a broadcast reaches all BSs at once.
pub fn downlink_rate(
    channel: &Channel,
    subchannels: impl IntoIterator<Item = (Signal, f64)>,
) -> BitsPerSecond {
    uplink_rate(
        channel,
        subchannels.into_iter().map(|(signal, interference_w)| (1.0, signal, interference_w)),
    )
}

/// The interference power at a receiver, W: Σ_j P_j·h_j·r_j^(−α), each over its own distance.
pub fn interference_w(channel: &Channel, interferers: &[Signal]) -> f64 {
    interferers.iter().map(|signal| signal.received_w(channel)).sum()
}

/// Why a table of time shares is none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TimeSharesError {
    /// The rows have different lengths.
    #[error("BS {bs} has {found} time shares where the first has {expected}")]
    Ragged {
        /// The BS, from 0.
        bs: usize,
        /// How many it has.
        found: usize,
        /// How many the first has.
        expected: usize,
    },
    /// A share is not a number from 0 to 1.
    #[error("the time share of BS {bs} on subchannel {subchannel} is {share}; allowed: 0 to 1")]
    Share {
        /// The BS, from 0.
        bs: usize,
        /// The subchannel, from 0.
        subchannel: usize,
        /// The share.
        share: f64,
    },
    /// The shares of a subchannel add up to more than its time (18c).
    #[error("the time shares of subchannel {subchannel} add up to {sum}; allowed: at most 1 (18c)")]
    Oversubscribed {
        /// The subchannel, from 0.
        subchannel: usize,
        /// Their sum.
        sum: f64,
    },
}

/// τ: the fraction of time that each BS has on each subchannel. Holds Σ_i τ_{i,c} ≤ 1 (18c) by construction.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeShares {
    /// τ_{i,c} at `i · subchannels + c`.
    shares: Vec<f64>,
    subchannels: usize,
}

impl TimeShares {
    /// Room for rounding in sums that are meant to be 1.
    const SLACK: f64 = 1e-9;

    /// From one row a BS, one column a subchannel.
    ///
    /// # Errors
    /// Rows of different lengths, a share outside 0 to 1 or NaN, or a subchannel whose shares exceed 1.
    pub fn new(rows: &[Vec<f64>]) -> Result<Self, TimeSharesError> {
        let subchannels = rows.first().map_or(0, Vec::len);
        for (bs, row) in rows.iter().enumerate() {
            if row.len() != subchannels {
                return Err(TimeSharesError::Ragged { bs, found: row.len(), expected: subchannels });
            }
            if let Some((subchannel, &share)) =
                row.iter().enumerate().find(|(_, share)| !(0.0..=1.0).contains(*share))
            {
                return Err(TimeSharesError::Share { bs, subchannel, share });
            }
        }
        for subchannel in 0..subchannels {
            let sum: f64 = rows.iter().map(|row| row[subchannel]).sum();
            if sum > 1.0 + Self::SLACK {
                return Err(TimeSharesError::Oversubscribed { subchannel, sum });
            }
        }
        Ok(Self { shares: rows.concat(), subchannels })
    }

    /// Every BS has 1/M of every subchannel.
    pub fn equal(stations: usize, subchannels: usize) -> Self {
        Self { shares: vec![1.0 / stations.max(1) as f64; stations * subchannels], subchannels }
    }

    /// τ_{i,c}; zero outside the table.
    pub fn get(&self, bs: usize, subchannel: usize) -> f64 {
        if subchannel >= self.subchannels {
            return 0.0;
        }
        self.shares.get(bs * self.subchannels + subchannel).copied().unwrap_or(0.0)
    }

    /// C: how many subchannels.
    pub fn subchannels(&self) -> usize {
        self.subchannels
    }

    /// M: how many BSs.
    pub fn stations(&self) -> usize {
        self.shares.len().checked_div(self.subchannels).unwrap_or(0)
    }
}

/// Which direction of which station a fading process belongs to: different numbers fade independently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FadingPath(pub u32);

/// The fading power gain h of every path, subchannel and coherence slot, a pure function of the seed.
///
/// Rayleigh: the complex gain g is Gaussian with mean power 1 and follows g_t = ρ·g_{t−1} + √(1−ρ²)·w_t. So that any slot
/// can be asked for without walking from the first, g_t is computed as that recursion's weighted sum of past
/// innovations w, cut where ρ^k falls below 10^−3 (which leaves 10^−6 of the power) and scaled to mean power 1.
#[derive(Debug, Clone)]
pub struct FadingProcess {
    fading: Fading,
    seed: u64,
    /// ρ^k for the innovation k slots ago, scaled to Σ weight² = 1.
    weights: Vec<f64>,
}

impl FadingProcess {
    /// The least weight of an innovation, before scaling.
    const CUT: f64 = 1e-3;
    /// ρ above which memory is cut short: 100,000 slots of it.
    const LENGTH_MAX: usize = 100_000;

    /// `memory` is ρ in [0, 1).
    pub fn new(fading: Fading, memory: f64, seed: u64) -> Self {
        let raw: Vec<f64> = std::iter::successors(Some(1.0), |w| Some(w * memory))
            .take_while(|w| *w >= Self::CUT)
            .take(Self::LENGTH_MAX)
            .collect();
        let norm = raw.iter().map(|w| w * w).sum::<f64>().sqrt();
        Self { fading, seed, weights: raw.into_iter().map(|w| w / norm).collect() }
    }

    /// h of a path on a subchannel in a coherence slot. Mean 1; exactly 1 without fading.
    pub fn gain(&self, path: FadingPath, subchannel: u32, slot: u64) -> f64 {
        if self.fading == Fading::None {
            return 1.0;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(path.0) << 32 | u64::from(subchannel));
        // Innovation n stands at the n-th group of four words; shifted so that slot 0 has a past.
        rng.set_word_pos(u128::from(slot) * 4);
        let (mut re, mut im) = (0.0, 0.0);
        // Oldest first: the words of consecutive slots follow each other.
        for weight in self.weights.iter().rev() {
            // A complex Gaussian of mean power 1: exponential power, uniform phase. 1 − u lies in (0, 1].
            let amplitude = (-(1.0 - rng.random::<f64>()).ln()).sqrt();
            let (sin, cos) = (rng.random::<f64>() * std::f64::consts::TAU).sin_cos();
            re += weight * amplitude * cos;
            im += weight * amplitude * sin;
        }
        re * re + im * im
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Dbm;
    use proptest::prelude::*;

    fn channel() -> Channel {
        Channel::new(&Radio { se_max: crate::topology::OrNone::None, ..Radio::default() }, Hertz::new(30e6))
    }

    fn bs_at(metres: f64) -> Signal {
        Signal { power_w: Dbm::new(34.0).watts(), gain: 1.0, distance: Metres::new(metres) }
    }

    #[test]
    fn eq_7_by_hand() {
        // 34 dBm − 30 dB − 35·log10(200) dB = 34 − 30 − 80.5361 = −76.5361 dBm; noise −174 + 74.7712 = −99.2288 dBm.
        // SNR 22.6927 dB = 185.90; log2(186.90) = 7.54613 bit/s/Hz; a fifth of 30 MHz: 45.2768 Mbit/s.
        let rate = uplink_rate(&channel(), [(0.2, bs_at(200.0), 0.0)]);
        assert!((rate.get() / 45.2768e6 - 1.0).abs() < 1e-5, "{rate}");
        // Two subchannels, one with twice the noise's power on top: SINR 185.90/3 = 61.967, log2(62.967) = 5.97652.
        let channel = channel();
        let both =
            uplink_rate(&channel, [(0.2, bs_at(200.0), 0.0), (0.5, bs_at(200.0), 2.0 * channel.noise_w)]);
        assert!((both.get() / (45.2768e6 + 89.6478e6) - 1.0).abs() < 1e-5, "{both}");
    }

    #[test]
    fn eq_8_by_hand_and_the_cap() {
        // 8 dB more than above: SNR 30.6927 dB = 1172.9; log2(1173.9) = 10.19709; three subchannels of 30 MHz.
        let signal = Signal { power_w: Dbm::new(42.0).watts(), ..bs_at(200.0) };
        let rate = downlink_rate(&channel(), [(signal, 0.0); 3]);
        assert!((rate.get() / 917.738e6 - 1.0).abs() < 1e-5, "{rate}");
        let capped = Channel { se_max: 7.4, ..channel() };
        assert!((downlink_rate(&capped, [(signal, 0.0); 3]).get() - 3.0 * 30e6 * 7.4).abs() < 1.0);
    }

    #[test]
    fn interference_uses_the_interferers_own_distance() {
        let channel = channel();
        let near = interference_w(&channel, &[bs_at(100.0)]);
        let far = interference_w(&channel, &[bs_at(1000.0)]);
        // Ten times the distance at α = 3.5: 35 dB less.
        assert!((near / far / 10f64.powf(3.5) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn time_shares_are_checked() {
        assert!(TimeShares::new(&[vec![0.5, 0.2], vec![0.5, 0.9]]).is_err());
        assert!(matches!(
            TimeShares::new(&[vec![0.5, 0.2], vec![0.6, 0.1]]),
            Err(TimeSharesError::Oversubscribed { subchannel: 0, .. })
        ));
        assert!(matches!(TimeShares::new(&[vec![f64::NAN]]), Err(TimeSharesError::Share { .. })));
        assert!(matches!(TimeShares::new(&[vec![-0.1]]), Err(TimeSharesError::Share { .. })));
        assert!(matches!(TimeShares::new(&[vec![0.1], vec![]]), Err(TimeSharesError::Ragged { bs: 1, .. })));
        let equal = TimeShares::equal(5, 3);
        assert_eq!((equal.stations(), equal.subchannels(), equal.get(4, 2)), (5, 3, 0.2));
        assert_eq!(equal.get(0, 3), 0.0);
    }

    #[test]
    fn fading_is_seeded_independent_and_of_mean_one() {
        let process = FadingProcess::new(Fading::Rayleigh, 0.9, 7);
        let again = FadingProcess::new(Fading::Rayleigh, 0.9, 7);
        assert_eq!(process.gain(FadingPath(3), 2, 41).to_bits(), again.gain(FadingPath(3), 2, 41).to_bits());
        assert_ne!(process.gain(FadingPath(3), 2, 41), process.gain(FadingPath(2), 3, 41));
        let other = FadingProcess::new(Fading::Rayleigh, 0.9, 8);
        assert_ne!(process.gain(FadingPath(3), 2, 41), other.gain(FadingPath(3), 2, 41));
        // 4,000 independent paths: the mean of an exponential has σ = 1/√4000 = 1.6 %.
        let gains: Vec<f64> = (0..4000).map(|path| process.gain(FadingPath(path), 0, 5)).collect();
        let mean = gains.iter().sum::<f64>() / 4000.0;
        assert!((mean - 1.0).abs() < 0.08, "{mean}");
        // P(h < ln 2) = 1/2 for an exponential.
        let below = gains.iter().filter(|h| **h < std::f64::consts::LN_2).count();
        assert!((1870..2130).contains(&below), "{below}");
        assert_eq!(FadingProcess::new(Fading::None, 0.9, 7).gain(FadingPath(0), 0, 0), 1.0);
    }

    #[test]
    fn fading_remembers_as_ar_1_does() {
        // The power of a complex Gaussian AR(1) has autocorrelation ρ^(2k).
        let process = FadingProcess::new(Fading::Rayleigh, 0.9, 1);
        for (lag, expected) in [(1, 0.81), (5, 0.9f64.powi(10))] {
            let pairs: Vec<(f64, f64)> = (0..4000)
                .map(|path| {
                    (process.gain(FadingPath(path), 1, 9), process.gain(FadingPath(path), 1, 9 + lag))
                })
                .collect();
            let covariance = pairs.iter().map(|(a, b)| (a - 1.0) * (b - 1.0)).sum::<f64>() / 4000.0;
            assert!((covariance - expected).abs() < 0.12, "lag {lag}: {covariance} against {expected}");
        }
    }

    proptest! {
        #[test]
        fn rate_falls_with_distance_and_interference(r in 1.0f64..2000.0, further in 1.01f64..3.0, i in 0.0f64..1e-10) {
            let channel = channel();
            let rate = |r, i| uplink_rate(&channel, [(1.0, bs_at(r), i)]).get();
            prop_assert!(rate(r * further, i) < rate(r, i));
            prop_assert!(rate(r, i + channel.noise_w) < rate(r, i));
        }

        #[test]
        fn rate_is_linear_in_tau(tau in 0.0f64..=0.5, k in 0.0f64..=2.0, r in 1.0f64..2000.0) {
            let rate = |tau| uplink_rate(&channel(), [(tau, bs_at(r), 0.0)]).get();
            prop_assert!((rate(k * tau) - k * rate(tau)).abs() <= 1e-9 * rate(1.0));
        }

        #[test]
        fn no_table_of_shares_exceeds_a_subchannel(
            rows in prop::collection::vec(prop::collection::vec(0.0f64..=1.0, 3), 1..6)
        ) {
            let fits = (0..3).all(|c| rows.iter().map(|row| row[c]).sum::<f64>() <= 1.0 + 1e-9);
            prop_assert_eq!(TimeShares::new(&rows).is_ok(), fits);
        }
    }
}
