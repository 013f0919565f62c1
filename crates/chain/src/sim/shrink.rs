//! Reducing a schedule that breaks an invariant to what is needed to break it.

use super::Violation;
use super::schedule::Schedule;
use super::world::World;
use crate::core::Rules;

/// Runs spent on reducing one schedule.
const ATTEMPTS: usize = 150;

/// Removes faults, faulty replicas and disturbances as long as the same invariant stays broken, then records the
/// run that is left.
pub(super) fn shrink(schedule: &Schedule, rules: Rules) -> Violation {
    let broken = invariant(&World::run(schedule, rules, false).violation.unwrap_or_default());
    let mut best = schedule.clone();
    let mut attempts = 0;
    loop {
        let smaller = candidates(&best).into_iter().find(|candidate| {
            attempts += 1;
            attempts <= ATTEMPTS
                && World::run(candidate, rules, false)
                    .violation
                    .is_some_and(|what| invariant(&what) == broken)
        });
        match smaller {
            Some(candidate) => best = candidate,
            None => break,
        }
    }
    let outcome = World::run(&best, rules, true);
    Violation {
        seed: schedule.seed,
        what: outcome.violation.unwrap_or_default(),
        schedule: best,
        trace: outcome.trace,
    }
}

/// The invariant's name: what stands before the colon.
fn invariant(what: &str) -> String {
    what.split(':').next().unwrap_or_default().to_string()
}

/// Schedules with one thing less.
fn candidates(schedule: &Schedule) -> Vec<Schedule> {
    let with = |change: &dyn Fn(&mut Schedule)| {
        let mut changed = schedule.clone();
        change(&mut changed);
        changed
    };
    let mut all: Vec<Schedule> = (0..schedule.faults.len())
        .map(|index| {
            with(&|s| {
                s.faults.remove(index);
            })
        })
        .chain((0..schedule.byzantine.len()).map(|index| {
            with(&|s| {
                s.byzantine.remove(index);
            })
        }))
        .collect();
    all.push(with(&|s| s.loss = 0.0));
    all.push(with(&|s| s.duplication = 0.0));
    all.push(with(&|s| s.straggling = 0.0));
    all.push(with(&|s| s.jitter_us = 0));
    all.push(with(&|s| s.sync_us = 0));
    all.push(with(&|s| s.observer = false));
    all.push(with(&|s| s.measured = false));
    all.push(with(&|s| s.slot_us = 0));
    all.push(with(&|s| s.epoch_blocks = 1000));
    all.push(with(&|s| s.load_us = s.calm_us.max(1) * 100));
    all.retain(|candidate| candidate != schedule);
    all
}
