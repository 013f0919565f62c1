//! The time cost of one iteration: Eq. 12–18 and the learning bound.
//!
//! Times are emulated seconds. Corrections to the printed equations: b is the fraction of a twin's samples used in a
//! round, and what a BS broadcasts in Eq. 15 is either the models of all its twins, as printed, or their one aggregate.

use crate::topology::{Cost, Payload};
use crate::units::{BitsPerSecond, Hertz};

/// Eq. 12: T_cmp, seconds in which a BS of `cpu` trains on `samples` = Σ b_j D_j samples.
pub fn training_s(cost: &Cost, samples: f64, cpu: Hertz) -> f64 {
    samples * cost.cycles_per_sample / cpu.get()
}

/// Eq. 14: T_la, seconds in which a BS aggregates the models of `twins` twins. Left out of Eq. 17, as the paper does.
pub fn aggregation_s(cost: &Cost, twins: u32, cpu: Hertz) -> f64 {
    f64::from(twins) * cost.model_size.bits() * cost.cycles_per_aggregated_bit / cpu.get()
}

/// Eq. 15: T_pt, seconds in which a BS's models reach all M = `stations` BSs: ξ·log2 M·(payload)/R^U.
///
/// Zero for a BS without twins or in a network of one.
pub fn broadcast_s(cost: &Cost, stations: usize, twins: u32, uplink: BitsPerSecond) -> f64 {
    let models = match cost.payload {
        Payload::Twins => f64::from(twins),
        Payload::Aggregate => f64::from(twins.min(1)),
    };
    relay_s(cost, stations, models * cost.model_size.bits(), uplink)
}

/// Eq. 16's first part: seconds in which a block reaches all M_p producers: ξ·log2 M_p·S_B/R^D.
pub fn block_relay_s(cost: &Cost, stations: usize, downlink: BitsPerSecond) -> f64 {
    let producers = (cost.producers as usize).min(stations);
    relay_s(cost, producers, block_bits(cost, stations), downlink)
}

/// Eq. 16's second part for one producer: seconds in which it validates a block: S_B·f^v/f.
pub fn validation_s(cost: &Cost, stations: usize, cpu: Hertz) -> f64 {
    block_bits(cost, stations) * cost.cycles_per_validated_bit / cpu.get()
}

/// S_B in bits: as configured, or one model a BS.
pub fn block_bits(cost: &Cost, stations: usize) -> f64 {
    cost.block_size.get().map_or(stations as f64 * cost.model_size.bits(), |size| size.bits())
}

/// ξ·log2(receivers)·bits/rate; nothing to send takes no time even at rate zero.
fn relay_s(cost: &Cost, receivers: usize, bits: f64, rate: BitsPerSecond) -> f64 {
    if receivers < 2 || bits == 0.0 {
        return 0.0;
    }
    cost.xi * (receivers as f64).log2() * rate.seconds_for(bits)
}

/// What one BS brings to Eq. 17.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BsLoad {
    /// f_i.
    pub cpu: Hertz,
    /// K_i: how many twins it holds.
    pub twins: u32,
    /// Σ b_j D_j over its twins, samples.
    pub samples: f64,
    /// R_i^U (Eq. 7).
    pub uplink: BitsPerSecond,
    /// R_i^D (Eq. 8).
    pub downlink: BitsPerSecond,
}

/// The terms of Eq. 17, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// max_i of Eq. 12.
    pub training_s: f64,
    /// max_i of Eq. 15.
    pub broadcast_s: f64,
    /// Eq. 16: relay of the block at the slowest downlink, and the slowest validation.
    pub block_s: f64,
}

impl Terms {
    /// T of Eq. 17, seconds.
    pub fn total_s(&self) -> f64 {
        self.training_s + self.broadcast_s + self.block_s
    }
}

/// Eq. 17, term by term. The producers are taken to be any of the BSs, so the slowest downlink and processor count.
pub fn terms(cost: &Cost, loads: &[BsLoad]) -> Terms {
    let stations = loads.len();
    let slowest = |time: &dyn Fn(&BsLoad) -> f64| loads.iter().map(time).fold(0.0, f64::max);
    Terms {
        training_s: slowest(&|bs| training_s(cost, bs.samples, bs.cpu)),
        broadcast_s: slowest(&|bs| broadcast_s(cost, stations, bs.twins, bs.uplink)),
        block_s: slowest(&|bs| block_relay_s(cost, stations, bs.downlink))
            + slowest(&|bs| validation_s(cost, stations, bs.cpu)),
    }
}

/// θ_G(b) = 1 − a·(Σ b_n D_n)^(−p): the global accuracy that training on `samples` samples a round buys.
///
/// At most 1, and negative where so few samples teach nothing.
pub fn global_accuracy(cost: &Cost, samples: f64) -> f64 {
    1.0 - cost.theta_a * samples.powf(-cost.theta_p)
}

/// B*: the fewest samples a round with which (18a) holds, θ_G ≥ θ_th: the inverse of [`global_accuracy`].
pub fn samples_needed(cost: &Cost) -> f64 {
    (cost.theta_a / (1.0 - cost.theta_th)).powf(1.0 / cost.theta_p)
}

/// T(θ_G) = 1/(1 − θ_G), the bound on global iterations of Eq. 11 for a fixed local accuracy. Infinite at θ_G ≥ 1.
pub fn iterations(theta_g: f64) -> f64 {
    if theta_g >= 1.0 { f64::INFINITY } else { 1.0 / (1.0 - theta_g) }
}

/// The objective of (18): T/(1 − θ_G), seconds.
pub fn objective_s(cost: &Cost, loads: &[BsLoad]) -> f64 {
    let samples = loads.iter().map(|bs| bs.samples).sum();
    terms(cost, loads).total_s() * iterations(global_accuracy(cost, samples))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::OrNone;
    use crate::units::Bytes;
    use proptest::prelude::*;

    fn cost() -> Cost {
        Cost {
            cycles_per_sample: 2e6,
            cycles_per_aggregated_bit: 0.5,
            cycles_per_validated_bit: 10.0,
            xi: 0.5,
            model_size: Bytes::new(1_000_000),
            block_size: OrNone::None,
            producers: 4,
            payload: Payload::Twins,
            theta_th: 0.7,
            theta_a: 10.0,
            theta_p: 0.5,
            b_min: 0.1,
            b_max: 1.0,
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs().max(1.0)
    }

    #[test]
    fn eq_12_to_16_by_hand() {
        let cost = cost();
        let rate = BitsPerSecond::new(80e6);
        // 3000 samples of 2 Mcycles on 2 GHz.
        assert!(close(training_s(&cost, 3000.0, Hertz::new(2e9)), 3.0));
        // 20 models of 8 Mbit at half a cycle a bit on 2 GHz.
        assert!(close(aggregation_s(&cost, 20, Hertz::new(2e9)), 0.04));
        // ½·log2 8·(20 · 8 Mbit)/80 Mbit/s = 1.5 · 2 s.
        assert!(close(broadcast_s(&cost, 8, 20, rate), 3.0));
        let aggregate = Cost { payload: Payload::Aggregate, ..cost.clone() };
        assert!(close(broadcast_s(&aggregate, 8, 20, rate), 0.15));
        assert_eq!(broadcast_s(&cost, 8, 0, BitsPerSecond::new(0.0)), 0.0);
        assert_eq!(broadcast_s(&cost, 1, 20, rate), 0.0);
        // S_B = 8 · 8 Mbit; ½·log2 4·64/80 = 0.8 s; 64e6 · 10 cycles on 2 GHz = 0.32 s.
        assert!(close(block_relay_s(&cost, 8, rate), 0.8));
        assert!(close(validation_s(&cost, 8, Hertz::new(2e9)), 0.32));
        let small = Cost { block_size: OrNone::Some(Bytes::new(500_000)), ..cost };
        assert!(close(block_relay_s(&small, 8, rate), 0.05));
    }

    #[test]
    fn eq_17_and_18_by_hand() {
        let cost = cost();
        let load = |cpu, twins, samples, up, down| BsLoad {
            cpu: Hertz::new(cpu),
            twins,
            samples,
            uplink: BitsPerSecond::new(up),
            downlink: BitsPerSecond::new(down),
        };
        let loads = [load(2e9, 10, 500.0, 40e6, 160e6), load(1e9, 5, 400.0, 10e6, 320e6)];
        let terms = terms(&cost, &loads);
        // max(0.5, 0.8); ½·log2 2·max(80/40, 40/10) = 2; M_p capped at M = 2: ½·16/160 + 16e6·10/1e9.
        assert!(close(terms.training_s, 0.8));
        assert!(close(terms.broadcast_s, 2.0));
        assert!(close(terms.block_s, 0.05 + 0.16));
        // θ_G = 1 − 10/√900 = 2/3, so 3.01 s thrice.
        assert!(close(objective_s(&cost, &loads), 3.0 * 3.01));
    }

    #[test]
    fn the_accuracy_bound_by_hand() {
        let cost = cost();
        assert!(close(global_accuracy(&cost, 10_000.0), 0.9));
        // 10/√B = 0.3.
        assert!(close(samples_needed(&cost), 10_000.0 / 9.0));
        assert!(close(iterations(0.75), 4.0));
        assert_eq!(iterations(1.0), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn samples_needed_inverts_the_accuracy(a in 1.0f64..20.0, p in 0.2f64..0.9, th in 0.1f64..0.95) {
            let cost = Cost { theta_a: a, theta_p: p, theta_th: th, ..cost() };
            prop_assert!((global_accuracy(&cost, samples_needed(&cost)) - th).abs() < 1e-9);
        }

        #[test]
        fn more_work_never_takes_less_time(samples in 0.0f64..1e5, more in 0.0f64..1e5, twins in 0u32..200) {
            let (cost, cpu, rate) = (cost(), Hertz::new(2e9), BitsPerSecond::new(1e8));
            prop_assert!(training_s(&cost, samples + more, cpu) >= training_s(&cost, samples, cpu));
            prop_assert!(broadcast_s(&cost, 5, twins + 1, rate) > broadcast_s(&cost, 5, twins, rate));
        }
    }
}
