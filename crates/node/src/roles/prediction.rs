//! What Eq. 7, 8 and 15 predict for a transfer, for the rates of the radio at its time.
//!
//! Rates that were changed by hand during a run are not known here: a prediction is the model's, and the difference to what
//! was measured is the finding.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use dtwn_model::{
    Plan, cost,
    ids::{BsId, LinkId, StationId},
    plan::LinkKind,
    units::BitsPerSecond,
};

use crate::association::Holder;

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
