//! Proof by simulation: the real core of every replica, in virtual time, under seeded faults.
//!
//! A seed determines a [`Schedule`] and every random choice in its run; the same seed gives the same trace. After
//! every step the invariants are checked: agreement on finalized blocks, no finalized view nullified, conservation of
//! coins, heights ascending by one, every finalized transaction valid and unique, no replica that follows the rules
//! ever contradicting itself, being punished, or voting across a view that is not nullified. Safety mode keeps losses
//! up to the end and asks for nothing more. Liveness mode ends losses at a time (lasting one-way cuts and Byzantine
//! replicas stay) and asks that every replica that can be reached finalizes new blocks soon.
//!
//! Signatures are those of a stub, so that time goes into the protocol.

mod byzantine;
mod invariants;
mod process;
mod schedule;
mod shrink;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

pub use self::schedule::{DiskFault, Fault, Misbehaviour, Schedule};
use self::world::World;
use crate::core::Rules;
use crate::types::Micros;

/// What a schedule is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing bad ever happens, however long faults last.
    Safety,
    /// Something good happens once the network behaves.
    Liveness,
}

/// What to simulate.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Seeds, one schedule each.
    pub seeds: Range<u64>,
    /// Base stations, 4 to 20; drawn from 4 to 7 when not given.
    pub nodes: Option<u16>,
    /// Byzantine replicas, at most f; drawn when not given.
    pub byzantine: Option<u16>,
    /// Probability that a message is lost, 0 to 0.5; drawn when not given.
    pub loss: Option<f64>,
    /// What to show; even seeds safety and odd seeds liveness when not given.
    pub mode: Option<Mode>,
    /// Views that each schedule goes through.
    pub views: u64,
    /// Threads that share the seeds.
    pub threads: usize,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self { seeds: 0..1000, nodes: None, byzantine: None, loss: None, mode: None, views: 50, threads: 2 }
    }
}

impl SimOptions {
    /// Checks that the options can be simulated.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming what is out of range.
    pub fn check(&self) -> crate::Result<()> {
        let problem = if self.nodes.is_some_and(|nodes| !(4..=20).contains(&nodes)) {
            "the simulator takes 4 to 20 nodes"
        } else if self.loss.is_some_and(|loss| !(0.0..=0.5).contains(&loss)) {
            "the simulator takes a loss between 0 and 0.5"
        } else if self.byzantine.zip(self.nodes).is_some_and(|(count, nodes)| count > (nodes - 1) / 3) {
            "at most f = (n - 1) / 3 nodes can be Byzantine"
        } else if self.seeds.is_empty() {
            "the range of seeds is empty"
        } else if self.views == 0 || self.threads == 0 {
            "views and threads must be at least 1"
        } else {
            return Ok(());
        };
        Err(crate::Error::Config(problem.into()))
    }
}

/// A broken invariant.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// The seed that shows it.
    pub seed: u64,
    /// Which invariant, and how.
    pub what: String,
    /// The schedule, reduced to what is needed to break it.
    pub schedule: Schedule,
    /// The end of the reduced run, up to the violation.
    pub trace: Vec<String>,
}

/// What a simulation found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SimReport {
    /// Schedules run.
    pub schedules: u64,
    /// Of these, those that tested liveness.
    pub liveness_schedules: u64,
    /// Schedules that ended before they went through the views asked for.
    pub short_schedules: u64,
    /// Views entered, over all schedules.
    pub views: u64,
    /// Views that ended without a block.
    pub nullified_views: u64,
    /// Blocks finalized.
    pub blocks: u64,
    /// Transactions finalized.
    pub transactions: u64,
    /// Offences punished.
    pub evidence: u64,
    /// Epochs completed.
    pub epochs: u64,
    /// Restarts from disk.
    pub restarts: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Longest time from an honest proposal to its finalization, in message delay bounds, once the network was calm.
    pub worst_finality_delays: f64,
    /// The same in milliseconds of virtual time.
    pub worst_finality_ms: f64,
    /// Longest such time while faults lasted, in milliseconds of virtual time.
    pub worst_faulty_finality_ms: f64,
    /// Digest of everything that happened in all schedules: equal for equal seeds and options.
    pub trace_digest: u64,
    /// Broken invariants.
    pub violations: Vec<Violation>,
}

/// What one schedule came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) views: u64,
    pub(crate) nullified: u64,
    pub(crate) blocks: u64,
    pub(crate) transactions: u64,
    pub(crate) evidence: u64,
    pub(crate) epochs: u64,
    pub(crate) restarts: u64,
    pub(crate) messages: u64,
    pub(crate) calm_finality_us: Micros,
    pub(crate) faulty_finality_us: Micros,
    pub(crate) violation: Option<String>,
    /// Hash of everything that happened, in order.
    pub(crate) trace_hash: u64,
    pub(crate) trace: Vec<String>,
}

/// Runs a schedule for every seed.
///
/// # Errors
/// [`crate::Error::Config`] when the options are out of range.
pub fn run(options: &SimOptions) -> crate::Result<SimReport> {
    options.check()?;
    Ok(run_with(options, Rules::default(), &|_| {}))
}

/// As [`run`], calling `progress` with the number of schedules done from time to time.
///
/// # Errors
/// As [`run`].
pub fn run_observed(options: &SimOptions, progress: &(dyn Fn(u64) + Sync)) -> crate::Result<SimReport> {
    options.check()?;
    Ok(run_with(options, Rules::default(), progress))
}

fn run_with(options: &SimOptions, rules: Rules, progress: &(dyn Fn(u64) + Sync)) -> SimReport {
    let next = AtomicU64::new(options.seeds.start);
    let done = AtomicU64::new(0);
    let report = Mutex::new((SimReport::default(), BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.seeds.end {
                        return;
                    }
                    let schedule = Schedule::draw(seed, options);
                    let outcome = World::run(&schedule, rules, false);
                    let violation = outcome.violation.as_ref().map(|_| shrink::shrink(&schedule, rules));
                    // Only poisoned if another thread panicked while adding; then the scope panics anyway.
                    let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    report.0.add(&schedule, &outcome);
                    if let Some(violation) = violation {
                        report.1.insert(seed, violation);
                    }
                    drop(report);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let (mut report, violations) = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.violations = violations.into_values().collect();
    report
}

impl SimReport {
    fn add(&mut self, schedule: &Schedule, outcome: &Outcome) {
        self.schedules += 1;
        self.liveness_schedules += u64::from(schedule.mode == Mode::Liveness);
        self.short_schedules += u64::from(outcome.views < schedule.views && outcome.violation.is_none());
        self.views += outcome.views;
        self.nullified_views += outcome.nullified;
        self.blocks += outcome.blocks;
        self.transactions += outcome.transactions;
        self.evidence += outcome.evidence;
        self.epochs += outcome.epochs;
        self.restarts += outcome.restarts;
        self.messages += outcome.messages;
        // Commutative, since threads finish schedules in any order.
        self.trace_digest =
            self.trace_digest.wrapping_add(outcome.trace_hash.rotate_left((schedule.seed % 64) as u32));
        let calm = outcome.calm_finality_us as f64;
        self.worst_finality_delays = self.worst_finality_delays.max(calm / schedule.bound_us() as f64);
        self.worst_finality_ms = self.worst_finality_ms.max(calm / 1000.0);
        self.worst_faulty_finality_ms =
            self.worst_faulty_finality_ms.max(outcome.faulty_finality_us as f64 / 1000.0);
    }
}

#[cfg(test)]
mod tests;
