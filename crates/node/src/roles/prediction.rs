//! What Eq. 7, 8 and 15 predict for a transfer, for the rates of the radio at its time.
//!
//! Rates that were changed by hand during a run are not known here: a prediction is the model's, and the difference to what
//! was measured is the finding.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use dtwn_model::{
    Plan,
    cost::{self, BsLoad, Terms},
    ids::{BsId, LinkId, StationId},
    plan::LinkKind,
    units::{BitsPerSecond, Hertz},
};

use crate::{association::Holder, learning::learner::weights_under};

/// Predicts transfer times for one plan.
pub struct Predictor {
    association: Arc<Holder>,
    /// Rates of a slot, under the association of a round.
    rates: RefCell<((u64, u64), HashMap<LinkId, BitsPerSecond>)>,
}

impl Predictor {
    /// For the shares of the association in force.
    pub fn new(association: Arc<Holder>) -> Self {
        Self { association, rates: RefCell::new(((u64::MAX, u64::MAX), HashMap::new())) }
    }

    /// Emulated milliseconds for `bytes` along the links from one station to another: the propagation delays and the
    /// slowest transmitter's airtime (packets follow each other through the links, so only the slowest adds up).
    pub fn transfer_ms(&self, plan: &Plan, from: StationId, to: StationId, bytes: usize, at_ns: u64) -> f64 {
        let path = plan.path_with(from, to, &self.association.now().association);
        let delay_s: f64 = path.iter().map(|link| plan.links[link.index()].settings.delay.seconds()).sum();
        let slowest =
            path.iter().filter_map(|link| self.rate(plan, *link, at_ns)).fold(f64::INFINITY, f64::min);
        let airtime_s = if slowest.is_finite() { bytes as f64 * 8.0 / slowest } else { 0.0 };
        (delay_s + airtime_s) * 1000.0
    }

    /// Eq. 15: emulated milliseconds until the last BS has the model of `bs`.
    pub fn broadcast_ms(&self, plan: &Plan, bs: BsId, at_ns: u64) -> f64 {
        let uplink = plan.links.iter().find(|link| link.kind == LinkKind::Uplink(bs));
        let rate = uplink.and_then(|link| self.rate(plan, link.id, at_ns)).unwrap_or(f64::INFINITY);
        cost::broadcast_s(&plan.topology().cost, plan.bs_count(), 1, BitsPerSecond::new(rate)) * 1000.0
    }

    /// Eq. 17's terms for a round under the association in force, with f_i of each BS.
    pub fn terms(&self, plan: &Plan, cpu: &[Hertz], at_ns: u64) -> Terms {
        let in_force = self.association.now();
        let (counts, samples) =
            (in_force.association.counts(plan.bs_count()), weights_under(plan, &in_force));
        let epochs = f64::from(plan.topology().learning.epochs);
        let rate = |kind: LinkKind| {
            let link = plan.links.iter().find(|link| link.kind == kind);
            let rate = link.and_then(|link| self.rate(plan, link.id, at_ns));
            BitsPerSecond::new(rate.unwrap_or(f64::INFINITY))
        };
        let loads =
            cpu.iter().zip(counts).zip(samples).zip(0..).map(|(((cpu, twins), samples), bs)| BsLoad {
                cpu: *cpu,
                twins,
                samples: epochs * samples,
                uplink: rate(LinkKind::Uplink(BsId(bs))),
                downlink: rate(LinkKind::Downlink(BsId(bs))),
            });
        cost::terms(&plan.topology().cost, &loads.collect::<Vec<_>>())
    }

    fn rate(&self, plan: &Plan, link: LinkId, at_ns: u64) -> Option<f64> {
        let slot = (at_ns as f64 / (plan.coherence_time().seconds() * 1e9).max(1.0)) as u64;
        let (mut rates, now) = (self.rates.borrow_mut(), self.association.now());
        if rates.0 != (slot, now.round) {
            let of_slot = plan.rates_at(slot, &now.tau, &now.association);
            *rates = ((slot, now.round), of_slot.into_iter().collect());
        }
        rates.1.get(&link).copied().or(plan.links[link.index()].rate).map(BitsPerSecond::get)
    }
}

#[cfg(test)]
mod tests {
    use dtwn_model::topology::{self, Overrides};

    use super::*;

    #[test]
    fn the_terms_of_a_round_are_those_of_its_slowest_bs() {
        let text = "[learning]\nfraction = 0.1\nepochs = 2\n[radio]\nfading = \"none\"\n\
                    [[bs]]\nid = \"bs1\"\nposition_m = [100, 0]\n[[bs]]\nid = \"bs2\"\nposition_m = [0, 100]\n\
                    [[users]]\nid = \"ug1\"\ncount = 1\naround = \"bs1\"\nsamples = 500\n\
                    [[users]]\nid = \"ug2\"\ncount = 3\naround = \"bs2\"\nsamples = 500\n";
        let loaded = topology::parse("test.toml", text.into(), &Overrides::default()).unwrap();
        let plan = Plan::new(&loaded.topology).unwrap();
        let cost = &plan.topology().cost;
        let predictor = Predictor::new(Arc::new(Holder::new(&plan)));
        let [slow, fast] = [Hertz::new(1e9), Hertz::new(2e9)];
        // Twice over 150 samples at 2 GHz take longer than twice over 50 at 1 GHz.
        let terms = predictor.terms(&plan, &[slow, fast], 0);
        assert_eq!(terms.training_s, cost::training_s(cost, 300.0, fast));
        let broadcast_s = predictor.broadcast_ms(&plan, BsId(1), 0) / 1000.0;
        // Three twins' models or one aggregate, as `cost.payload` says.
        let models = if terms.broadcast_s > 2.0 * broadcast_s { 3.0 } else { 1.0 };
        assert!((terms.broadcast_s / broadcast_s - models).abs() < 1e-9, "{terms:?} {broadcast_s}");
        assert!(terms.block_s > cost::validation_s(cost, 2, slow) && terms.block_s.is_finite());
    }
}
