//! The verdict on a run: whether the machine kept up with the network that it emulates.
//!
//! | verdict | when |
//! | --- | --- |
//! | `invalid` | the host dropped a packet, or a backlogged transmitter was more than 5 % off its rate for a while |
//! | `degraded` | over the run, some link delivered more than 1 % of its packets later than max(1 ms, 5 % of its delay), emulated; or a BS trained for longer than its processor would have (Eq. 12) |
//! | `ok` | otherwise |
//!
//! `invalid` stays: what was measured under it is in the figures. `degraded` speaks of the run so far, and a late start may be
//! outweighed.

use dtwn_air::{AirSnapshot, LinkMeters};
use dtwn_proto::event::{Fidelity, Verdict};

/// Relative error of a backlogged transmitter's rate above which figures are no longer those of the network described.
const RATE_ERROR_MAX: f64 = 0.05;
/// Backlogged time over which a rate is judged, nanoseconds.
const WINDOW_NS: u64 = 500_000_000;
/// Packets below which a 99th percentile says nothing.
const PACKETS_MIN: u64 = 100;

/// Judges snapshots of the medium's counters, which are cumulative.
#[derive(Debug, Default)]
pub struct Judge {
    now: Fidelity,
    /// The transmitter that was furthest off its rate, and by how much.
    off: Option<(String, f64)>,
    /// Each link's counters at the start of the window that is open for it.
    windows: Vec<Backlog>,
}

/// A link's counters of backlogged time.
#[derive(Debug, Clone, Copy, Default)]
struct Backlog {
    ns: u64,
    bytes: f64,
    capacity_bytes: f64,
}

impl Backlog {
    fn of(meters: &LinkMeters) -> Self {
        Self {
            ns: meters.backlogged_ns,
            bytes: meters.backlogged_bytes,
            capacity_bytes: meters.backlogged_capacity_bytes,
        }
    }
}

impl Judge {
    /// Takes the counters into account; `ring_drops` are packets that found no room in a TUN's ring, `overruns` trainings
    /// that took longer than Eq. 12 allows.
    pub fn judge<'a>(
        &mut self,
        snapshot: &AirSnapshot,
        links: impl Iterator<Item = (&'a str, &'a LinkMeters)>,
        ring_drops: u64,
        overruns: u64,
        dilation: f64,
    ) -> &Fidelity {
        let mut now = Fidelity {
            verdict: Verdict::Ok,
            reasons: Vec::new(),
            lateness_us_p50: emulated_us(snapshot.lateness.overall.p50_ns, dilation),
            lateness_us_p99: emulated_us(snapshot.lateness.overall.p99_ns, dilation),
            host_drops: snapshot.totals.drops.host + ring_drops,
        };
        if now.host_drops > 0 {
            let reason = format!("the host dropped {} packets", now.host_drops);
            blame(&mut now, Verdict::Invalid, reason);
        }
        let mut late: Option<(&str, f64)> = None;
        for (index, (name, meters)) in links.enumerate() {
            self.judge_rate(index, name, meters);
            let share = meters.late as f64 / meters.written.max(1) as f64;
            if meters.written >= PACKETS_MIN && share > 0.01 && late.is_none_or(|(_, worst)| share > worst) {
                late = Some((name, share));
            }
        }
        if let Some((name, error)) = &self.off {
            let reason = format!("while backlogged, {name} was {:+.1} % off its rate", error * 100.0);
            blame(&mut now, Verdict::Invalid, reason);
        }
        if let Some((name, share)) = late {
            let reason = format!("{:.1} % of the packets of {name} were delivered late", share * 100.0);
            blame(&mut now, Verdict::Degraded, reason);
        }
        if overruns > 0 {
            let reason =
                format!("{overruns} trainings took longer than Eq. 12 allows; use more run.dilation");
            blame(&mut now, Verdict::Degraded, reason);
        }
        self.now = now;
        &self.now
    }

    /// The verdict so far.
    pub fn verdict(&self) -> &Fidelity {
        &self.now
    }

    /// Closes a link's window once it holds enough backlogged time, and remembers the worst rate seen.
    fn judge_rate(&mut self, index: usize, name: &str, meters: &LinkMeters) {
        if self.windows.len() <= index {
            self.windows.resize(index + 1, Backlog::default());
        }
        let (now, before) = (Backlog::of(meters), self.windows[index]);
        if now.ns.saturating_sub(before.ns) < WINDOW_NS {
            return;
        }
        self.windows[index] = now;
        let capacity_bytes = now.capacity_bytes - before.capacity_bytes;
        if capacity_bytes <= 0.0 {
            return;
        }
        let error = (now.bytes - before.bytes) / capacity_bytes - 1.0;
        let worst = self.off.as_ref().map_or(RATE_ERROR_MAX, |(_, worst)| worst.abs());
        if error.abs() > worst {
            self.off = Some((name.to_owned(), error));
        }
    }
}

fn blame(fidelity: &mut Fidelity, verdict: Verdict, reason: String) {
    fidelity.verdict = fidelity.verdict.max(verdict);
    fidelity.reasons.push(reason);
}

fn emulated_us(wall_ns: u64, dilation: f64) -> f64 {
    wall_ns as f64 / 1000.0 / dilation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(links: &[(&str, LinkMeters)], ring_drops: u64) -> Fidelity {
        let snapshot = AirSnapshot::default();
        let links = links.iter().map(|(name, meters)| (*name, meters));
        Judge::default().judge(&snapshot, links, ring_drops, 0, 1.0).clone()
    }

    fn backlogged(carried: f64) -> LinkMeters {
        LinkMeters {
            backlogged_ns: 1_000_000_000,
            backlogged_bytes: carried,
            backlogged_capacity_bytes: 1000.0,
            ..LinkMeters::default()
        }
    }

    #[test]
    fn an_idle_network_is_ok() {
        assert_eq!(judge(&[("bs1>mbs", LinkMeters::default())], 0).verdict, Verdict::Ok);
    }

    #[test]
    fn training_slower_than_the_processor_that_it_stands_for_degrades_a_run() {
        let none: [(&str, &LinkMeters); 0] = [];
        let mut judge = Judge::default();
        let fidelity = judge.judge(&AirSnapshot::default(), none.into_iter(), 0, 2, 1.0);
        assert_eq!(fidelity.verdict, Verdict::Degraded);
        assert!(fidelity.reasons[0].starts_with("2 trainings"), "{:?}", fidelity.reasons);
    }

    #[test]
    fn one_packet_dropped_by_the_host_makes_a_run_invalid() {
        let fidelity = judge(&[], 1);
        assert_eq!(fidelity.verdict, Verdict::Invalid);
        assert_eq!(fidelity.host_drops, 1);
    }

    #[test]
    fn a_backlogged_transmitter_may_be_five_percent_off_its_rate() {
        assert_eq!(judge(&[("a", backlogged(951.0))], 0).verdict, Verdict::Ok);
        let off = judge(&[("a", backlogged(951.0)), ("b", backlogged(900.0))], 0);
        assert_eq!(off.verdict, Verdict::Invalid);
        assert_eq!(off.reasons, ["while backlogged, b was -10.0 % off its rate"]);
    }

    #[test]
    fn a_rate_that_was_wrong_for_a_while_is_not_outweighed_later() {
        let mut judge = Judge::default();
        let snapshot = AirSnapshot::default();
        let mut meters = backlogged(900.0);
        assert_eq!(judge.judge(&snapshot, [("a", &meters)].into_iter(), 0, 0, 1.0).verdict, Verdict::Invalid);
        meters.backlogged_ns *= 100;
        meters.backlogged_bytes += 99_000.0;
        meters.backlogged_capacity_bytes += 99_000.0;
        let later = judge.judge(&snapshot, [("a", &meters)].into_iter(), 0, 0, 1.0);
        assert_eq!(later.verdict, Verdict::Invalid);
        assert_eq!(later.reasons, ["while backlogged, a was -10.0 % off its rate"]);
    }

    #[test]
    fn late_packets_degrade_a_run_for_as_long_as_they_are_one_in_a_hundred() {
        let late = LinkMeters { written: 1000, late: 11, ..LinkMeters::default() };
        let fine = LinkMeters { written: 100_000, late: 11, ..LinkMeters::default() };
        let few = LinkMeters { written: 99, late: 99, ..LinkMeters::default() };
        assert_eq!(judge(&[("a", late)], 0).verdict, Verdict::Degraded);
        assert_eq!(judge(&[("a", fine)], 0).verdict, Verdict::Ok);
        assert_eq!(judge(&[("a", few)], 0).verdict, Verdict::Ok);
    }
}
