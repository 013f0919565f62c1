//! Which twin goes to which BS, once K is decided: Eq. 1.

use super::{Decision, Problem, State};
use crate::Plan;
use crate::cost::{self, Terms};
use crate::ids::BsId;
use crate::plan::Association;
use pathfinding::prelude::{Weights, kuhn_munkres_min};

/// The most twins that are dealt one by one: the assignment takes time with the cube of their number.
pub const ASSIGNED_MAX: usize = 2000;

/// Why twins could not be dealt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// Too many.
    #[error("{twins} twins are more than are assigned one by one; at most {ASSIGNED_MAX}")]
    TooMany {
        /// N.
        twins: usize,
    },
    /// K is not for this many twins, or for another number of BSs.
    #[error("K deals {dealt} twins to {stations} BSs; the rates are of {twins} twins")]
    Misfit {
        /// Σ K.
        dealt: usize,
        /// How many K there are.
        stations: usize,
        /// N.
        twins: usize,
    },
}

/// The assignment of N twins to BSs with quotas K that takes the least access airtime altogether: the sum over users of
/// K_i/R_{n,i}, seconds for one bit when the users of BS i share its band equally.
///
/// `rates_bps` is N × M: what user n would have from BS i alone, bit/s. Solved exactly (Hungarian algorithm), to a picosecond
/// a bit. Σ `k` must be N.
///
/// # Errors
/// When sizes do not fit, or there are more than [`ASSIGNED_MAX`] twins.
pub fn assign(rates_bps: &[f64], k: &[u32]) -> Result<Association, AssignError> {
    let twins = rates_bps.len() / k.len().max(1);
    if twins > ASSIGNED_MAX {
        return Err(AssignError::TooMany { twins });
    }
    // A place is one twin's room at a BS.
    let places: Vec<usize> = k.iter().enumerate().flat_map(|(i, k)| vec![i; *k as usize]).collect();
    if places.len() != twins || k.len() * twins != rates_bps.len() {
        return Err(AssignError::Misfit { dealt: places.len(), stations: k.len(), twins });
    }
    if twins == 0 {
        return Ok(Association::default());
    }
    let airtime_ps: Vec<i64> = rates_bps
        .iter()
        .enumerate()
        .map(|(at, rate)| {
            let ps = f64::from(k[at % k.len()]) / rate.max(f64::MIN_POSITIVE) * 1e12;
            // Sums of 2000 of these fit; NaN would loop for ever.
            if ps.is_finite() { ps.min(1e15) as i64 } else { 1_000_000_000_000_000 }
        })
        .collect();
    let table = Places { airtime_ps: &airtime_ps, places: &places, stations: k.len(), sign: 1 };
    let (_, chosen) = kuhn_munkres_min(&table);
    Ok(Association::new(chosen.into_iter().map(|place| BsId::at(places[place])).collect()))
}

/// The square table of twins by places, which has one column for all places of a BS.
struct Places<'a> {
    airtime_ps: &'a [i64],
    places: &'a [usize],
    stations: usize,
    sign: i64,
}

impl Weights<i64> for Places<'_> {
    fn rows(&self) -> usize {
        self.places.len()
    }

    fn columns(&self) -> usize {
        self.places.len()
    }

    fn at(&self, row: usize, col: usize) -> i64 {
        self.sign * self.airtime_ps[row * self.stations + self.places[col]]
    }

    fn neg(&self) -> Self {
        Self { sign: -self.sign, ..*self }
    }
}

/// A decision for the very twins that a network has.
#[derive(Debug, Clone, PartialEq)]
pub struct Realised {
    /// b_i, moved so that Σ b_i·(data at BS i) = B* holds for the data as dealt.
    pub b: Vec<f64>,
    /// Eq. 17 for the data as dealt.
    pub terms: Terms,
}

impl Problem {
    /// What a decision comes to when twins hold unequal data and are dealt as given: b is projected anew.
    pub fn realise(&self, state: &State, decision: &Decision, dealt: &Association) -> Realised {
        let mut data = vec![0.0; self.stations];
        for (twin, samples) in self.samples.iter().enumerate() {
            if let Some(bs) = dealt.serving(crate::ids::UserId::at(twin)) {
                data[bs.index()] += f64::from(*samples);
            }
        }
        // The share of B* that was meant for each BS, spread over the data that it got.
        let wanted: Vec<f64> = (0..self.stations)
            .map(|i| decision.b[i] * f64::from(decision.k[i]) * self.samples_mean() / data[i])
            .collect();
        let b = self.project_b_onto(&wanted, &data, self.budget);
        let mut loads = self.loads(state, decision);
        for (load, (b, data)) in loads.iter_mut().zip(b.iter().zip(&data)) {
            load.samples = b * data;
        }
        Realised { b, terms: cost::terms(&self.cost, &loads) }
    }
}

impl Plan {
    /// What each user would have from each BS on the access band alone and without fading, bit/s: N × M.
    pub fn access_rates_bps(&self) -> Vec<f64> {
        let radio = &self.topology().radio;
        let channel = crate::radio::Channel::new(radio, radio.access.bandwidth);
        let other_cells_w = radio.interference.access.get().map_or(0.0, crate::units::Dbm::watts);
        let rate = |user: crate::geometry::Position, bs: crate::geometry::Position| {
            let signal_w = channel.received_w(radio.power.user.watts(), 1.0, user.distance(bs));
            channel.rate(signal_w, other_cells_w).get()
        };
        let stations = &self.topology().bs;
        self.users()
            .flat_map(|user| stations.iter().map(move |bs| rate(user.position, bs.position_m)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan_of;
    use super::super::{Average, Optimal, Policy};
    use super::*;
    use crate::ids::UserId;

    /// The least cost over all ways to deal, by trying them.
    fn brute_force(cost: &dyn Fn(usize, usize) -> f64, left: &mut [u32], twin: usize, twins: usize) -> f64 {
        if twin == twins {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for i in 0..left.len() {
            if left[i] > 0 {
                left[i] -= 1;
                best = best.min(cost(twin, i) + brute_force(cost, left, twin + 1, twins));
                left[i] += 1;
            }
        }
        best
    }

    #[test]
    fn dealing_is_the_cheapest_there_is() {
        let k = [3, 2, 2];
        for seed in 0..20u32 {
            let rates: Vec<f64> =
                (0..21).map(|i| f64::from((i * 7919 + seed * 104_729) % 97 + 3) * 1e6).collect();
            let cost = |twin: usize, bs: usize| f64::from(k[bs]) / rates[twin * 3 + bs];
            let dealt = assign(&rates, &k).unwrap();
            assert_eq!(dealt.counts(3), k);
            let found: f64 = (0..7).map(|n| cost(n, dealt.serving(UserId::at(n)).unwrap().index())).sum();
            let best = brute_force(&cost, &mut k.clone(), 0, 7);
            assert!((found / best - 1.0).abs() < 1e-6, "{found} {best}");
        }
    }

    #[test]
    fn what_cannot_be_dealt_is_refused() {
        assert!(matches!(assign(&[1.0; 6], &[1, 1]), Err(AssignError::Misfit { dealt: 2, twins: 3, .. })));
        assert!(matches!(assign(&[1.0; 7], &[1, 2]), Err(AssignError::Misfit { .. })));
        assert!(matches!(assign(&vec![1.0; 2001], &[2001]), Err(AssignError::TooMany { twins: 2001 })));
        // No rate at all is dear, and no reason to hang.
        assert_eq!(assign(&[0.0, 1e6, f64::NAN, 1e6], &[1, 1]).unwrap().counts(2), [1, 1]);
        assert_eq!(assign(&[], &[0, 0]), Ok(Association::default()));
    }

    #[test]
    fn users_go_to_the_bs_beside_them() {
        let plan = plan_of(5, "");
        let dealt = assign(&plan.access_rates_bps(), &plan.association.counts(5)).unwrap();
        let moved = (0..100).filter(|n| dealt.serving(UserId(*n)) != plan.association.serving(UserId(*n)));
        // Every BS has as many places as users around it, and the BSs stand apart.
        assert!(moved.count() <= 10);
    }

    #[test]
    fn unequal_data_costs_little_and_never_less_than_the_bound() {
        let mut problem = Problem::new(&plan_of(5, "")).unwrap();
        let plan = plan_of(5, "");
        let state = problem.state_at(&plan, 3);
        let equal = assign(&plan.access_rates_bps(), &Average.decide(&problem, &state).unwrap().k).unwrap();
        let average = Average.decide(&problem, &state).unwrap();
        let realised = problem.realise(&state, &average, &equal);
        assert!((realised.terms.total_s() / problem.terms(&state, &average).total_s() - 1.0).abs() < 1e-9);

        for (n, samples) in problem.samples.iter_mut().enumerate() {
            *samples = if n % 2 == 0 { 300 } else { 700 };
        }
        let best = Optimal.decide(&problem, &state).unwrap();
        let dealt = assign(&plan.access_rates_bps(), &best.k).unwrap();
        let realised = problem.realise(&state, &best, &dealt);
        let spent: f64 = (0..100)
            .map(|n| {
                realised.b[dealt.serving(UserId(n)).unwrap().index()] * f64::from(problem.samples[n as usize])
            })
            .sum();
        assert!((spent / problem.budget - 1.0).abs() < 1e-9);
        let bound = Optimal::bound_s(&problem, &state).unwrap() + realised.terms.block_s;
        assert!(bound <= realised.terms.total_s() && realised.terms.total_s() < bound * 1.05);
    }
}
