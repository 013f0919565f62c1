//! What happens in one simulated run, drawn from a seed: network, faults, faulty replicas, load.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Mode, SimOptions};
use crate::types::Micros;

/// How a Byzantine replica misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Misbehaviour {
    /// Proposes different blocks to different replicas, also on old parents.
    EquivocatingLeader,
    /// Votes for every proposal it sees, and to nullify and to finalize the same views.
    DoubleVoter,
    /// Keeps messages from some or all of the others.
    Withholder,
    /// Sends old messages, its own and those of others, again.
    StaleReplayer,
    /// Sends damaged and nonsensical messages.
    GarbageSender,
    /// Runs twice, with one identity and two disks.
    SharedIdentity,
}

const MISBEHAVIOURS: [Misbehaviour; 6] = [
    Misbehaviour::EquivocatingLeader,
    Misbehaviour::DoubleVoter,
    Misbehaviour::Withholder,
    Misbehaviour::StaleReplayer,
    Misbehaviour::GarbageSender,
    Misbehaviour::SharedIdentity,
];

/// What a crash does to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFault {
    /// Some of what was not synced is missing.
    Short,
    /// And the last record left is torn.
    Torn,
    /// Everything is lost; the replica comes back by way of [`crate::store::Store::replace`].
    Wiped,
}

/// A fault with a time. Sets of replicas are bit masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A replica is killed and comes back from its disk.
    Crash {
        /// Which replica.
        node: u16,
        /// When it is killed.
        at_us: Micros,
        /// How long it stays down.
        down_us: Micros,
        /// What becomes of the disk.
        disk: DiskFault,
    },
    /// Messages from some replicas to others are lost; one direction only.
    Cut {
        /// From these.
        from: u32,
        /// To these.
        to: u32,
        /// From this time.
        start_us: Micros,
        /// Until this time.
        end_us: Micros,
    },
}

/// Everything about one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Schedule {
    /// The seed that it and every random choice in the run come from.
    pub seed: u64,
    /// What is being proved.
    pub mode: Mode,
    /// Base stations.
    pub nodes: u16,
    /// Producers per epoch.
    pub producers: u16,
    /// An observer follows the chain as well.
    pub observer: bool,
    /// Least message delay.
    pub delay_us: Micros,
    /// Random delay on top, uniform; this also reorders messages.
    pub jitter_us: Micros,
    /// Probability that a message is lost, until the run turns calm.
    pub loss: f64,
    /// Probability that a message arrives twice.
    pub duplication: f64,
    /// Probability that a message takes ten times as long.
    pub straggling: f64,
    /// Time that a disk takes to sync.
    pub sync_us: Micros,
    /// Blocks per epoch.
    pub epoch_blocks: u64,
    /// Slot interval T.
    pub slot_us: Micros,
    /// How long leaders without transactions wait.
    pub idle_us: Micros,
    /// Certificates are broadcast when assembled.
    pub eager_certificates: bool,
    /// Round trips are measured.
    pub measured: bool,
    /// Mean time between submitted transactions.
    pub load_us: Micros,
    /// Faults.
    pub faults: Vec<Fault>,
    /// Byzantine replicas.
    pub byzantine: Vec<(u16, Misbehaviour)>,
    /// When faults end (and in liveness mode, losses).
    pub calm_us: Micros,
    /// Views to reach.
    pub views: u64,
}

impl Schedule {
    /// Draws the schedule of a seed.
    #[must_use]
    pub fn draw(seed: u64, options: &SimOptions) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mode = options.mode.unwrap_or(if seed.is_multiple_of(2) { Mode::Safety } else { Mode::Liveness });
        let nodes = options.nodes.unwrap_or_else(|| rng.random_range(4..=7));
        let producers = if nodes > 4 && rng.random_bool(0.3) { rng.random_range(4..nodes) } else { nodes };
        let faults = (producers - 1) / 3;
        let count = options.byzantine.unwrap_or_else(|| rng.random_range(0..=faults)).min(faults);
        let mut byzantine = Vec::new();
        while byzantine.len() < usize::from(count) {
            let node = rng.random_range(0..nodes);
            if byzantine.iter().all(|(other, _)| *other != node) {
                byzantine.push((node, MISBEHAVIOURS[rng.random_range(0..MISBEHAVIOURS.len())]));
            }
        }
        let delay_us = [500, 2_000, 10_000, 40_000][rng.random_range(0..4)];
        let calm_us = delay_us * rng.random_range(60..400);
        let loss = options.loss.unwrap_or_else(|| {
            // Most faults show at moderate loss; half is the worst that is promised.
            [0.0, 0.05, 0.2, 0.35, 0.5][rng.random_range(0..5)]
        });
        let mut schedule = Self {
            seed,
            mode,
            nodes,
            producers,
            observer: rng.random_bool(0.2),
            delay_us,
            jitter_us: delay_us * [0, 1, 3][rng.random_range(0..3)],
            loss,
            duplication: [0.0, 0.02, 0.2][rng.random_range(0..3)],
            straggling: [0.0, 0.02, 0.1][rng.random_range(0..3)],
            sync_us: [0, delay_us / 4, 2 * delay_us][rng.random_range(0..3)],
            epoch_blocks: rng.random_range(2..30),
            slot_us: if rng.random_bool(0.3) { 2 * delay_us } else { 0 },
            idle_us: if rng.random_bool(0.5) { delay_us / 2 } else { 20 * delay_us },
            eager_certificates: rng.random_bool(0.6),
            measured: rng.random_bool(0.5),
            load_us: delay_us * rng.random_range(2..40),
            faults: Vec::new(),
            byzantine,
            calm_us,
            views: options.views,
        };
        schedule.draw_faults(&mut rng);
        schedule
    }

    fn draw_faults(&mut self, rng: &mut ChaCha8Rng) {
        let all = (1u32 << self.nodes) - 1;
        for _ in 0..rng.random_range(0..4) {
            self.faults.push(Fault::Crash {
                node: rng.random_range(0..self.nodes),
                at_us: rng.random_range(0..self.calm_us),
                down_us: self.delay_us * rng.random_range(0..60),
                disk: draw_disk(rng),
            });
        }
        // Now and then everybody loses power together.
        if rng.random_bool(0.15) {
            let at_us = rng.random_range(0..self.calm_us);
            for node in 0..self.nodes {
                self.faults.push(Fault::Crash {
                    node,
                    at_us,
                    down_us: self.delay_us * 5,
                    disk: draw_disk(rng),
                });
            }
        }
        for _ in 0..rng.random_range(0..3) {
            let side = rng.random_range(1..all);
            let start_us = rng.random_range(0..self.calm_us);
            let end_us = start_us + rng.random_range(0..self.calm_us - start_us + 1);
            self.faults.push(Fault::Cut { from: side, to: all & !side, start_us, end_us });
            if rng.random_bool(0.6) {
                self.faults.push(Fault::Cut { from: all & !side, to: side, start_us, end_us });
            }
        }
        if let Some(victim) = self.lasting_victim(rng) {
            if rng.random_bool(0.3) {
                let at_us = rng.random_range(0..self.calm_us);
                let down_us = self.delay_us * rng.random_range(0..60);
                self.faults.push(Fault::Crash { node: victim, at_us, down_us, disk: DiskFault::Wiped });
                return;
            }
            let bit = 1 << victim;
            let some = rng.random_range(1..all) & !bit;
            let (from, to) = if rng.random_bool(0.5) { (bit, some) } else { (some, bit) };
            self.faults.push(Fault::Cut { from, to, start_us: self.calm_us / 2, end_us: Micros::MAX });
        }
    }

    /// Whose links, in one direction, stay cut for good, or whose disk is wiped: a replica that the quorum can do without, so only when
    /// fewer than f others are faulty.
    fn lasting_victim(&self, rng: &mut ChaCha8Rng) -> Option<u16> {
        if self.byzantine.len() >= usize::from((self.producers - 1) / 3) || !rng.random_bool(0.4) {
            return None;
        }
        let victim = rng.random_range(0..self.nodes);
        self.byzantine.iter().all(|(node, _)| *node != victim).then_some(victim)
    }

    /// True when messages from one replica to another are lost at a time.
    #[must_use]
    pub(super) fn is_cut(&self, from: u16, to: u16, now: Micros) -> bool {
        self.faults.iter().any(|fault| match fault {
            Fault::Cut { from: sources, to: targets, start_us, end_us } => {
                sources >> from & 1 == 1 && targets >> to & 1 == 1 && (*start_us..*end_us).contains(&now)
            }
            Fault::Crash { .. } => false,
        })
    }

    /// The replica whose links never heal, if any; what it must achieve depends on what is left to it.
    #[must_use]
    pub(super) fn lasting(&self) -> Option<(u32, u32)> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Cut { from, to, end_us: Micros::MAX, .. } => Some((*from, *to)),
            _ => None,
        })
    }

    /// Longest ordinary one-way delay.
    #[must_use]
    pub(super) fn bound_us(&self) -> Micros {
        self.delay_us + self.jitter_us
    }
}

fn draw_disk(rng: &mut ChaCha8Rng) -> DiskFault {
    if rng.random_bool(0.5) { DiskFault::Torn } else { DiskFault::Short }
}
