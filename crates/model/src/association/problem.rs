//! What is given: the constants of a network, and the state that a policy observes.

use super::Decision;
use crate::cost::{self, BsLoad, Terms};
use crate::geometry::Position;
use crate::radio::Channel;
use crate::topology::{Association, Cost, Fading, Payload};
use crate::units::{BitsPerSecond, Dbm, Hertz, Metres};
use crate::{Plan, Topology};

/// Why a network poses no association problem.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProblemError {
    /// No twins, or none with data.
    #[error("no user holds a sample: there is nothing to train on, and so nothing to decide")]
    NoData,
    /// (18a) asks for more than (18d) allows.
    #[error(
        "θ_G ≥ {theta_th} (18a) takes {needed:.0} samples a round, but b ≤ {b_max} (18d) gives at most {most:.0}; \
         raise cost.b_max, lower cost.theta_th, or add data"
    )]
    Infeasible {
        /// θ_th.
        theta_th: f64,
        /// B*.
        needed: f64,
        /// b_max.
        b_max: f64,
        /// b_max·Σ D.
        most: f64,
    },
}

/// The constants of Eq. 7–18 for a network of M BSs, N twins and C subchannels.
///
/// Twins are exchangeable here: each counts with the mean D̄ = Σ D/N.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// M.
    pub stations: usize,
    /// N.
    pub twins: u32,
    /// C.
    pub subchannels: usize,
    /// D_n of each twin, samples.
    pub samples: Vec<u32>,
    /// Σ D, samples.
    pub samples_total: f64,
    /// Σ b_n D_n that every decision spends, samples: B*, or what b_min makes of all data where that is more.
    pub budget: f64,
    /// f_max of each BS, Hz.
    pub cpu_max_hz: Vec<f64>,
    /// The distance of each BS from the MBS, m.
    pub distance_m: Vec<f64>,
    /// The constants of Eq. 12–18.
    pub cost: Cost,
    /// How instances vary: fading's memory, the range of f, the ring of random networks.
    pub settings: Association,
    /// Whether the gains fade.
    pub fading: Fading,
    /// ρ of the complex channel gain, from one slot to the next.
    pub fading_memory: f64,
    /// The channel between BSs and MBS.
    pub(super) channel: Channel,
    pub(super) power_up_w: f64,
    pub(super) power_down_w: f64,
    pub(super) interference_up_w: f64,
    pub(super) interference_down_w: f64,
}

/// What a policy observes in a slot, and what its decision is charged by.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// f_i now, Hz; M of them.
    pub cpu_hz: Vec<f64>,
    /// Spectral efficiency of each BS's uplink on each subchannel, bit/s/Hz; M × C.
    pub se: Vec<f64>,
    /// R_i^D (Eq. 8), bit/s; M of them.
    pub downlink_bps: Vec<f64>,
    /// K_i in force; M of them.
    pub k: Vec<u32>,
}

impl Problem {
    /// The problem of a planned network.
    ///
    /// # Errors
    /// When nobody holds data, or no b within (18d) reaches θ_th.
    pub fn new(plan: &Plan) -> Result<Self, ProblemError> {
        let topology: &Topology = plan.topology();
        let samples: Vec<u32> = plan.users().map(|user| user.samples).collect();
        let samples_total: f64 = samples.iter().map(|d| f64::from(*d)).sum();
        if samples_total <= 0.0 {
            return Err(ProblemError::NoData);
        }
        let (cost, radio) = (topology.cost.clone(), &topology.radio);
        let (needed, most) = (cost::samples_needed(&cost), cost.b_max * samples_total);
        // A network that just reaches θ_th must not fail by a rounding error.
        if needed > most * (1.0 + 1e-9) {
            let (theta_th, b_max) = (cost.theta_th, cost.b_max);
            return Err(ProblemError::Infeasible { theta_th, needed, b_max, most });
        }
        let watts = |power: Option<Dbm>| power.map_or(0.0, Dbm::watts);
        let mbs: Position = topology.mbs.position_m;
        Ok(Self {
            stations: topology.bs.len(),
            twins: u32::try_from(samples.len()).unwrap_or(u32::MAX),
            subchannels: radio.subchannels as usize,
            budget: needed.clamp(cost.b_min * samples_total, most),
            samples_total,
            samples,
            cpu_max_hz: topology.bs.iter().map(|bs| bs.cpu_hz.get()).collect(),
            distance_m: topology.bs.iter().map(|bs| bs.position_m.distance(mbs).get()).collect(),
            cost,
            settings: topology.association.clone(),
            fading: radio.fading,
            fading_memory: radio.fading_memory,
            channel: Channel::new(radio, radio.bandwidth),
            power_up_w: radio.power.bs.watts(),
            power_down_w: radio.power.mbs.watts(),
            interference_up_w: watts(radio.interference.uplink.get()),
            interference_down_w: watts(radio.interference.downlink.get()),
        })
    }

    /// D̄: the mean data of a twin, samples.
    pub fn samples_mean(&self) -> f64 {
        self.samples_total / f64::from(self.twins)
    }

    /// W: the bandwidth of a subchannel, Hz.
    pub fn bandwidth_hz(&self) -> f64 {
        self.channel.bandwidth.get()
    }

    /// Highest spectral efficiency, bit/s/Hz; infinite when uncapped.
    pub(super) fn se_max(&self) -> f64 {
        self.channel.se_max
    }

    /// Whether a BS broadcasts a model a twin (`true`) or one aggregate (Eq. 15).
    pub fn counts_twins(&self) -> bool {
        self.cost.payload == Payload::Twins
    }

    /// c0: bits·ξ·log2 M of Eq. 15 for one model, so that T_pt = c0·(models)/R^U.
    pub fn broadcast_bits(&self) -> f64 {
        self.cost.xi * (self.stations as f64).log2() * self.cost.model_size.bits()
    }

    /// Spectral efficiency of an uplink over a distance at a fading gain, bit/s/Hz (Eq. 7).
    pub fn se_up(&self, distance_m: f64, gain: f64) -> f64 {
        let received = self.channel.received_w(self.power_up_w, gain, Metres::new(distance_m));
        self.channel.spectral_efficiency(received, self.interference_up_w)
    }

    /// R_i^U (Eq. 7) of each BS under time shares τ (M × C), bit/s.
    pub fn uplink_bps(&self, state: &State, tau: &[f64]) -> Vec<f64> {
        let rows = tau.chunks_exact(self.subchannels).zip(state.se.chunks_exact(self.subchannels));
        rows.map(|(tau, se)| self.bandwidth_hz() * tau.iter().zip(se).map(|(t, s)| t * s).sum::<f64>())
            .collect()
    }

    /// What each BS brings to Eq. 17 under a decision.
    pub fn loads(&self, state: &State, decision: &Decision) -> Vec<BsLoad> {
        let uplink = self.uplink_bps(state, &decision.tau);
        (0..self.stations)
            .map(|i| BsLoad {
                cpu: Hertz::new(state.cpu_hz[i]),
                twins: decision.k[i],
                samples: decision.b[i] * f64::from(decision.k[i]) * self.samples_mean(),
                uplink: BitsPerSecond::new(uplink[i]),
                downlink: BitsPerSecond::new(state.downlink_bps[i]),
            })
            .collect()
    }

    /// Eq. 17, term by term: what a decision costs in a state.
    ///
    /// Infinite where a BS that has something to broadcast has no time on any subchannel.
    pub fn terms(&self, state: &State, decision: &Decision) -> Terms {
        cost::terms(&self.cost, &self.loads(state, decision))
    }

    /// The state of the plan's own network in a coherence slot: every f_i at its maximum, gains as the air has them.
    pub fn state_at(&self, plan: &Plan, slot: u64) -> State {
        let gains = plan.cell_gains(slot);
        let (m, c) = (self.stations, self.subchannels);
        let se = (0..m * c).map(|at| self.se_up(self.distance_m[at / c], gains.up[at])).collect();
        let downlink_bps = (0..m).map(|i| self.downlink_bps(self.distance_m[i], &gains.down[i * c..][..c]));
        State {
            cpu_hz: self.cpu_max_hz.clone(),
            se,
            downlink_bps: downlink_bps.collect(),
            k: plan.association.counts(m),
        }
    }

    /// R^D over a distance (Eq. 8), with one gain a subchannel, bit/s.
    pub fn downlink_bps(&self, distance_m: f64, gains: &[f64]) -> f64 {
        let path = self.channel.path_gain(Metres::new(distance_m));
        let se = gains.iter().map(|gain| {
            self.channel.spectral_efficiency(self.power_down_w * gain * path, self.interference_down_w)
        });
        self.bandwidth_hz() * se.sum::<f64>()
    }
}
