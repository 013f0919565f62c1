//! The verdict on a run: whether the machine kept up with the network that it emulates.
//!
//! | verdict | when |
//! | --- | --- |
//! | `invalid` | the host dropped a packet, or a backlogged transmitter was more than 5 % off its rate for a while |
//! | `degraded` | over the run, some link, or all together, delivered more than 1 % of the packets later than max(1 ms, 5 % of its delay), emulated; or a BS trained for longer than its processor would have (Eq. 12) |
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
/// Share of late packets above which delays have a tail that the network described does not have.
const LATE_MAX: f64 = 0.01;
/// Standard normal deviate of how sure one must be that a link's share of late packets is above [`LATE_MAX`] (99.95 %): among
/// hundreds of links with a hundred packets each, two that are late somewhere prove nothing.
const SURE: f64 = 3.29;

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
        let (mut all_late, mut all_written) = (0, 0);
        for (index, (name, meters)) in links.enumerate() {
            self.judge_rate(index, name, meters);
            (all_late, all_written) = (all_late + meters.late, all_written + meters.written);
            let share = meters.late as f64 / meters.written.max(1) as f64;
            if surely_late(meters.late, meters.written) && late.is_none_or(|(_, worst)| share > worst) {
                late = Some((name, share));
            }
        }
        if late.is_none() && surely_late(all_late, all_written) {
            late = Some(("all links together", all_late as f64 / all_written as f64));
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

/// Whether more than [`LATE_MAX`] of the packets are late, by the lower end of Wilson's score interval (Wilson 1927).
fn surely_late(late: u64, written: u64) -> bool {
    if written == 0 {
        return false;
    }
    let (n, share) = (written as f64, late as f64 / written as f64);
    let spread = SURE * (share * (1.0 - share) / n + (SURE / (2.0 * n)).powi(2)).sqrt();
    (share + SURE * SURE / (2.0 * n) - spread) / (1.0 + SURE * SURE / n) > LATE_MAX
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
    fn late_packets_degrade_a_run_for_as_long_as_they_are_surely_more_than_one_in_a_hundred() {
        let meters = |late, written| LinkMeters { written, late, ..LinkMeters::default() };
        assert_eq!(judge(&[("a", meters(30, 1000))], 0).verdict, Verdict::Degraded);
        assert_eq!(judge(&[("a", meters(1100, 100_000))], 0).verdict, Verdict::Ok);
        assert_eq!(judge(&[("a", meters(1200, 100_000))], 0).verdict, Verdict::Degraded);
        assert_eq!(judge(&[("a", meters(11, 100_000))], 0).verdict, Verdict::Ok);
        // Three of a hundred may be chance; half of them are not.
        assert_eq!(judge(&[("a", meters(3, 100))], 0).verdict, Verdict::Ok);
        assert_eq!(judge(&[("a", meters(10, 20))], 0).verdict, Verdict::Degraded);
    }

    #[test]
    fn what_no_link_proves_all_may_prove_together() {
        let few = LinkMeters { written: 100, late: 3, ..LinkMeters::default() };
        let names: Vec<String> = (0..200).map(|link| format!("bs>ug1.{link}")).collect();
        let links: Vec<(&str, LinkMeters)> = names.iter().map(|name| (name.as_str(), few)).collect();
        let fidelity = judge(&links, 0);
        assert_eq!(fidelity.verdict, Verdict::Degraded);
        assert_eq!(fidelity.reasons, ["3.0 % of the packets of all links together were delivered late"]);
    }
}
