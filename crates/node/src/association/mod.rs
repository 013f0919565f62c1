//! The association in force: which BS keeps which twins, what part of their data trains, and who has which subchannel.
//!
//! Every node holds it in a watch ([`Node::association`]). It begins as the plan's, and changes between rounds
//! where a policy is deployed. Whoever holds twins, dials BSs or reckons with rates follows the watch.
//!
//! A round's decision takes two blocks. The MBS calls ([`Decide`](dtwn_proto::node::Decide)), each BS records the state that it
//! sees, decides for all by the same policy on the same finalized states, and records its own row. The MBS then names the height
//! up to which records count ([`AssociationHeader`]), and what they come to. Every BS works that out for itself from the same
//! prefix and refuses what differs; users, who hold no chain, hear it from their BS. A BS that says nothing keeps its last action.
//!
//! [`Node::association`]: crate::agent::Node::association

pub(crate) mod acting;
pub(crate) mod chair;
pub(crate) mod ground;
pub mod records;

use std::sync::Arc;

use dtwn_model::{
    Plan,
    ids::{BsId, UserId},
    plan::Association,
    radio::TimeShares,
};
use dtwn_proto::node::{Announced, AssociationHeader};
use tokio::sync::watch;

/// What holds from a round on, until the next.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// The first round that it holds for, from 1; 0 for the plan's. It grows with every change, so that it orders them.
    pub round: u64,
    /// Height of the finalized chain whose records made it; 0 for the plan's.
    pub height: u64,
    /// Which BS keeps the twin of each user.
    pub association: Association,
    /// b_i of each BS: the fraction of their samples that its twins train on in a round.
    pub b: Vec<f64>,
    /// τ: the time that each BS has on each subchannel.
    pub tau: TimeShares,
}

impl InForce {
    /// What holds when a run begins: the plan's association, `learning.fraction` for all, equal shares.
    #[must_use]
    pub fn first(plan: &Plan) -> Self {
        Self {
            round: 0,
            height: 0,
            association: plan.association.clone(),
            b: vec![plan.topology().learning.fraction; plan.bs_count()],
            tau: plan.equal_shares(),
        }
    }

    /// The BS that keeps a user's twin; `None` for a user that nobody knows.
    #[must_use]
    pub fn serving(&self, user: UserId) -> Option<BsId> {
        self.association.serving(user)
    }

    /// b of the twins of a BS.
    #[must_use]
    pub fn fraction(&self, bs: BsId) -> f64 {
        self.b.get(bs.index()).copied().unwrap_or(0.0)
    }

    /// b of a user's twin: that of the BS that keeps it. A twin on its way there is trained with it already, by whoever holds it, so
    /// that all twins together train on as many samples as was decided; 0 for a user that nobody knows.
    #[must_use]
    pub fn fraction_of(&self, user: UserId) -> f64 {
        self.serving(user).map_or(0.0, |bs| self.fraction(bs))
    }

    /// [`fraction_of`](Self::fraction_of) all users, in their order.
    #[must_use]
    pub fn fractions(&self, plan: &Plan) -> Arc<[f64]> {
        plan.users().map(|user| self.fraction_of(user.id)).collect()
    }
}

/// The way to the association in force, of one node.
#[derive(Debug)]
pub struct Holder {
    now: watch::Sender<Arc<InForce>>,
}

impl Holder {
    /// Begins with the plan's.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { now: watch::Sender::new(Arc::new(InForce::first(plan))) }
    }

    /// What is in force now.
    #[must_use]
    pub fn now(&self) -> Arc<InForce> {
        self.now.borrow().clone()
    }

    /// Follows what is in force.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<InForce>> {
        self.now.subscribe()
    }

    /// Puts another in force; one that is not newer changes nothing. Whether it did.
    pub fn put(&self, next: InForce) -> bool {
        self.now.send_if_modified(|now| {
            let newer = next.round > now.round;
            if newer {
                *now = Arc::new(next);
            }
            newer
        })
    }
}

/// What is announced, where it fits the network: it comes from another process.
#[must_use]
pub fn in_force_of(plan: &Plan, header: &AssociationHeader, announced: &Announced) -> Option<InForce> {
    let (stations, subchannels) = (plan.bs_count(), plan.topology().radio.subchannels as usize);
    let Announced { serving, b, tau } = announced;
    let fits = serving.len() == plan.user_count()
        && serving.iter().all(|bs| usize::from(*bs) < stations)
        && b.len() == stations
        && b.iter().all(|b| (0.0..=1.0).contains(b))
        && tau.len() == stations * subchannels;
    let rows: Vec<Vec<f64>> = tau.chunks(subchannels.max(1)).map(<[f64]>::to_vec).collect();
    let tau = TimeShares::new(&rows).ok().filter(|_| fits)?;
    let association = Association::new(serving.iter().map(|bs| BsId(u32::from(*bs))).collect());
    Some(InForce { round: header.round, height: header.height, association, b: b.clone(), tau })
}

/// An association of `users` users as it is announced.
fn announced_of(in_force: &InForce, users: usize) -> Announced {
    let serving = (0..users).map(|user| {
        let bs = in_force.serving(UserId(u32::try_from(user).unwrap_or(u32::MAX)));
        bs.and_then(|bs| u16::try_from(bs.0).ok()).unwrap_or(u16::MAX)
    });
    let (stations, subchannels) = (in_force.tau.stations(), in_force.tau.subchannels());
    let tau = (0..stations).flat_map(|bs| (0..subchannels).map(move |c| (bs, c)));
    Announced {
        serving: serving.collect(),
        b: in_force.b.clone(),
        tau: tau.map(|(bs, c)| in_force.tau.get(bs, c)).collect(),
    }
}

/// Whether two say the same, but for the last digits.
fn agrees(one: &InForce, other: &InForce) -> bool {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9;
    let (one_tau, other_tau) = (announced_of(one, 0).tau, announced_of(other, 0).tau);
    one.association == other.association
        && one.b.len() == other.b.len()
        && one.b.iter().zip(&other.b).all(near)
        && one_tau.len() == other_tau.len()
        && one_tau.iter().zip(&other_tau).all(near)
}

#[cfg(test)]
mod tests {
    use dtwn_model::topology::{self, Overrides};

    use super::*;

    #[test]
    fn what_is_in_force_only_goes_forward() {
        let text = "[[bs]]\nid = \"bs1\"\nposition_m = [100, 0]\n[[bs]]\nid = \"bs2\"\nposition_m = [0, 100]\n\
                    [[users]]\nid = \"ug1\"\ncount = 3\naround = \"bs2\"\n";
        let loaded = topology::parse("test.toml", text.into(), &Overrides::default()).unwrap();
        let plan = Plan::new(&loaded.topology).unwrap();
        let holder = Holder::new(&plan);
        let mut watch = holder.watch();
        assert_eq!(holder.now().serving(UserId(2)), Some(BsId(1)));
        assert_eq!(holder.now().serving(UserId(3)), None);
        let moved = |round| InForce {
            round,
            association: Association::new(vec![BsId(0); 3]),
            ..InForce::first(&plan)
        };
        assert!(!holder.put(moved(0)));
        assert!(!watch.has_changed().unwrap());
        assert!(holder.put(moved(3)));
        assert!(!holder.put(InForce { round: 2, ..InForce::first(&plan) }));
        assert_eq!(watch.borrow_and_update().serving(UserId(0)), Some(BsId(0)));
    }

    #[test]
    fn a_twin_trains_with_the_b_of_the_base_station_that_keeps_it() {
        let text = "[[bs]]\nid = \"bs1\"\nposition_m = [100, 0]\n[[bs]]\nid = \"bs2\"\nposition_m = [0, 100]\n\
                    [[users]]\nid = \"ug1\"\ncount = 2\naround = \"bs2\"\n";
        let loaded = topology::parse("test.toml", text.into(), &Overrides::default()).unwrap();
        let plan = Plan::new(&loaded.topology).unwrap();
        let in_force = InForce {
            association: Association::new(vec![BsId(1), BsId(0)]),
            b: vec![0.1, 0.3],
            ..InForce::first(&plan)
        };
        let b = [0, 1, 2].map(|user| in_force.fraction_of(UserId(user)));
        assert_eq!(b, [0.3, 0.1, 0.0]);
    }
}
