//! The average policy: what Eq. 17 costs when nothing is decided.

use super::{LinkKind, Plan};
use crate::cost::{BsLoad, samples_needed};
use crate::units::BitsPerSecond;

impl Plan {
    /// Each BS's part in Eq. 17 under the average policy, in a coherence slot: N/M twins each (the first N mod M one
    /// more), 1/M of every subchannel, and the same b for all twins, just large enough for (18a) within (18d). Twins
    /// count with the mean D.
    pub fn average_loads(&self, slot: u64) -> Vec<BsLoad> {
        let (stations, users) = (self.bs_count, self.user_count());
        let data: f64 = self.users().map(|user| f64::from(user.samples)).sum();
        let cost = &self.topology.cost;
        let b = if data > 0.0 { (samples_needed(cost) / data).clamp(cost.b_min, cost.b_max) } else { 0.0 };
        let mut loads: Vec<BsLoad> = self
            .topology
            .bs
            .iter()
            .enumerate()
            .map(|(i, bs)| {
                let twins = users / stations + usize::from(i < users % stations);
                BsLoad {
                    cpu: bs.cpu_hz,
                    twins: u32::try_from(twins).unwrap_or(u32::MAX),
                    samples: b * data * twins as f64 / users.max(1) as f64,
                    uplink: BitsPerSecond::default(),
                    downlink: BitsPerSecond::default(),
                }
            })
            .collect();
        let fixed = self.links.iter().filter_map(|link| Some((link.id, link.rate?)));
        let radio = self.rates_at(slot, &self.equal_shares(), &self.association);
        // The radio's rates come last: they replace those of slot 0.
        for (id, rate) in fixed.chain(radio) {
            match self.links[id.index()].kind {
                LinkKind::Uplink(bs) => loads[bs.index()].uplink = rate,
                LinkKind::Downlink(bs) => loads[bs.index()].downlink = rate,
                _ => {}
            }
        }
        loads
    }
}
