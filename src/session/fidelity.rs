//! The verdict on a run: whether the machine kept up with the network that it emulates.
//!
//! | verdict | when |
//! | --- | --- |
//! | `invalid` | the host dropped a packet, or a backlogged transmitter was more than 5 % off its rate |
//! | `degraded` | on some link more than 1 % of the packets came later than max(1 ms, 5 % of the link's delay), or computing overran |
//! | `ok` | otherwise |
//!
//! A verdict never improves: what was measured before stays in the figures.

use dtwn_air::{AirSnapshot, LinkMeters};
use dtwn_proto::event::{Fidelity, Verdict};

/// Relative error of a backlogged transmitter's rate above which figures are no longer those of the network described.
const RATE_ERROR_MAX: f64 = 0.05;
/// Backlogged time below which a rate is not judged, nanoseconds.
const BACKLOG_NS_MIN: u64 = 200_000_000;
/// Packets below which a 99th percentile says nothing.
const PACKETS_MIN: u64 = 100;

/// Judges snapshots of the medium's counters, which are cumulative.
#[derive(Debug, Default)]
pub struct Judge {
    worst: Fidelity,
}

impl Judge {
    /// Takes the counters into account; `ring_drops` are packets that found no room in a TUN's ring.
    pub fn judge<'a>(
        &mut self,
        snapshot: &AirSnapshot,
        links: impl Iterator<Item = (&'a str, &'a LinkMeters)>,
        ring_drops: u64,
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
        let mut off: Option<(&str, f64)> = None;
        for (name, meters) in links {
            let error = rate_error(meters);
            if error.abs() > RATE_ERROR_MAX && off.is_none_or(|(_, worst)| error.abs() > worst.abs()) {
                off = Some((name, error));
            }
            let share = meters.late as f64 / meters.written.max(1) as f64;
            if meters.written >= PACKETS_MIN && share > 0.01 && late.is_none_or(|(_, worst)| share > worst) {
                late = Some((name, share));
            }
        }
        if let Some((name, error)) = off {
            let reason = format!("while backlogged, {name} was {:+.1} % off its rate", error * 100.0);
            blame(&mut now, Verdict::Invalid, reason);
        }
        if let Some((name, share)) = late {
            let reason = format!("{:.1} % of the packets of {name} were delivered late", share * 100.0);
            blame(&mut now, Verdict::Degraded, reason);
        }
        // Cumulative counters may recover (a late packet's share shrinks as others follow), a verdict does not.
        if now.verdict < self.worst.verdict {
            now.verdict = self.worst.verdict;
            now.reasons.clone_from(&self.worst.reasons);
        }
        self.worst = now;
        &self.worst
    }

    /// The verdict so far.
    pub fn verdict(&self) -> &Fidelity {
        &self.worst
    }
}

fn rate_error(meters: &LinkMeters) -> f64 {
    if meters.backlogged_ns < BACKLOG_NS_MIN || meters.backlogged_capacity_bytes <= 0.0 {
        return 0.0;
    }
    meters.backlogged_bytes / meters.backlogged_capacity_bytes - 1.0
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
        Judge::default().judge(&snapshot, links, ring_drops, 1.0).clone()
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
    fn late_packets_degrade_a_run_for_good() {
        let late = LinkMeters { written: 1000, late: 11, ..LinkMeters::default() };
        let fine = LinkMeters { written: 100_000, late: 11, ..LinkMeters::default() };
        let mut judge = Judge::default();
        let snapshot = AirSnapshot::default();
        assert_eq!(judge.judge(&snapshot, [("a", &late)].into_iter(), 0, 1.0).verdict, Verdict::Degraded);
        assert_eq!(judge.judge(&snapshot, [("a", &fine)].into_iter(), 0, 1.0).verdict, Verdict::Degraded);
        assert_eq!(judge.verdict().reasons.len(), 1);
    }
}
