//! What nodes may report. Views, summary and the run's end rest on events, and a node that was taken over, or has a bug, may send any.
//!
//! Each role speaks of what it does, and of nobody outside the network: so what is kept by name is bounded by the network's size.

use dtwn_model::{
    Plan,
    plan::{NodePlan, Role},
};
use dtwn_proto::event::{Transfer, What};

/// Bytes of a text; a Notice with a path or an error takes a few hundred.
const TEXT_BYTES_MAX: usize = 4096;

/// Whether an event may come from a node. Only the session speaks of processes, links and verdicts.
pub(super) fn may_come_from(plan: &Plan, node: &NodePlan, what: &What) -> bool {
    let (mbs, bs) = (node.role == Role::Mbs, matches!(node.role, Role::Bs(_)));
    let is_short = |text: &String| text.len() <= TEXT_BYTES_MAX;
    match what {
        What::Notice { text, .. } => is_short(text),
        What::Round(round) => mbs && are_stations(plan, [&round.completed_by, &round.missed_by]),
        What::Association(decision) => {
            let entries = [decision.k.len(), decision.b.len(), decision.serving.len()];
            mbs && are_stations(plan, [&decision.kept_by])
                && entries == [plan.bs_count(), plan.bs_count(), plan.user_count()]
                && is_short(&decision.policy)
        }
        What::GlobalModel(model) => {
            mbs && are_stations(plan, [&model.accepted, &model.rejected, &model.late])
                && [&model.dataset, &model.digest].into_iter().all(is_short)
        }
        What::Decided { .. } | What::LocalModel(_) | What::TrainingAbandoned(_) => bs,
        What::TwinAges { each, .. } => {
            bs && each.len() <= plan.user_count() && each.iter().all(|age| is_user(plan, &age.twin))
        }
        What::Verification(finding) => {
            bs && is_station(plan, &finding.owner) && finding.fault.iter().all(is_short)
        }
        What::TwinMoved(twin) => {
            bs && twin.to == node.name && is_station(plan, &twin.from) && is_user(plan, &twin.twin)
        }
        What::Transfer(transfer) => {
            (mbs || bs)
                && transfer.to == node.name
                && Transfer::KINDS.contains(&transfer.kind.as_str())
                && plan.station(&transfer.from).is_some()
        }
        What::ChainProgress(progress) => {
            let producers = progress.election.iter().flat_map(|election| &election.producers);
            let missed = progress.missed.iter().map(|(name, _)| name);
            let offenders = progress.evidence.iter().map(|offence| &offence.offender);
            (mbs || bs)
                && producers.chain(missed).chain(offenders).all(|name| is_station(plan, name))
                && progress.missed.len() <= plan.bs_count()
                && progress.coins.len() <= plan.bs_count()
                && is_short(&progress.tip)
        }
        What::ChainBlocks { blocks, .. } => {
            let known = |leader: &String| is_station(plan, leader);
            (mbs || bs) && blocks.iter().all(|block| known(&block.leader) && is_short(&block.digest))
        }
        What::ChainConflict { text, .. } => (mbs || bs) && is_short(text),
        _ => false,
    }
}

/// Whether all of some lists name BSs, and none more than there are.
fn are_stations<const N: usize>(plan: &Plan, lists: [&Vec<String>; N]) -> bool {
    let all =
        |list: &Vec<String>| list.len() <= plan.bs_count() && list.iter().all(|name| is_station(plan, name));
    lists.into_iter().all(all)
}

fn is_station(plan: &Plan, name: &str) -> bool {
    role_of(plan, name).is_some_and(|role| matches!(role, Role::Bs(_)))
}

fn is_user(plan: &Plan, name: &str) -> bool {
    role_of(plan, name) == Some(Role::Users)
}

/// The role of the node that a station is of.
fn role_of(plan: &Plan, name: &str) -> Option<Role> {
    let node = plan.station(name)?.node;
    plan.nodes.get(node.index()).map(|node| node.role)
}

#[cfg(test)]
mod tests {
    use dtwn_model::topology::{self, Overrides};
    use dtwn_proto::event::{GlobalModel, Level, Round, TwinMoved, Verification};

    use super::*;

    fn plan() -> Plan {
        let text = include_str!("../../topologies/small.toml").to_owned();
        Plan::new(&topology::parse("small.toml", text, &Overrides::default()).unwrap().topology).unwrap()
    }

    fn round(names: &[&str]) -> What {
        let completed_by = names.iter().map(|name| (*name).to_owned()).collect();
        What::Round(Round { round: 1, completed_by, missed_by: vec![], duration_ms: 1.0, predicted_ms: None })
    }

    fn by(plan: &Plan, node: &str, what: &What) -> bool {
        may_come_from(plan, plan.node(node).unwrap(), what)
    }

    #[test]
    fn only_the_mbs_ends_rounds_and_makes_global_models() {
        let plan = plan();
        let model = What::GlobalModel(GlobalModel {
            round: 9,
            dataset: "synthetic".into(),
            digest: "ab".into(),
            accepted: vec!["bs1".into()],
            rejected: vec![],
            late: vec![],
            test_loss: None,
            test_accuracy: None,
            aggregate_wall_ms: 1.0,
            restored: false,
        });
        let association = What::Association(Box::default());
        for what in [&round(&["bs1"]), &model, &association] {
            assert!(!by(&plan, "ug1", what) && !by(&plan, "bs1", what), "{what:?}");
        }
        assert!(by(&plan, "mbs", &round(&["bs1", "bs4"])) && by(&plan, "mbs", &model));
        assert!(!by(&plan, "mbs", &round(&["bs9"])) && !by(&plan, "mbs", &round(&["ug1.1"])));
        assert!(!by(&plan, "mbs", &round(&["bs1"; 5])) && !by(&plan, "mbs", &association));
        assert!(!by(&plan, "mbs", &What::Healed));
    }

    #[test]
    fn what_is_kept_by_name_names_what_there_is() {
        let plan = plan();
        let transfer = |kind: &str, from: &str, to: &str| {
            let (kind, from, to) = (kind.into(), from.into(), to.into());
            What::Transfer(Transfer { kind, from, to, bytes: 1, measured_ms: 1.0, predicted_ms: 1.0 })
        };
        assert!(by(&plan, "bs1", &transfer("twin-state", "ug1.1", "bs1")));
        assert!(by(&plan, "mbs", &transfer("model-up", "bs1", "mbs")));
        assert!(!by(&plan, "bs1", &transfer("mine", "ug1.1", "bs1")));
        assert!(!by(&plan, "bs1", &transfer("twin-state", "ug9.1", "bs1")));
        assert!(!by(&plan, "bs1", &transfer("twin-state", "ug1.1", "bs2")));
        assert!(!by(&plan, "ug1", &transfer("twin-state", "bs1", "ug1")));
        let moved = |twin: &str, from: &str| {
            let (twin, from, to) = (twin.into(), from.into(), "bs1".into());
            What::TwinMoved(TwinMoved {
                twin,
                from,
                to,
                epoch: 2,
                from_round: 1,
                samples: 1,
                bytes: 1,
                took_ms: 1.0,
            })
        };
        assert!(by(&plan, "bs1", &moved("ug1.1", "bs2")) && !by(&plan, "bs2", &moved("ug1.1", "bs1")));
        assert!(!by(&plan, "bs1", &moved("ug1", "bs2")) && !by(&plan, "bs1", &moved("ug1.1", "mbs")));
        let finding = |owner: &str| {
            What::Verification(Verification {
                round: 1,
                owner: owner.into(),
                fault: None,
                loss: None,
                verify_wall_ms: 1.0,
                verify_ms: 1.0,
                predicted_ms: 1.0,
            })
        };
        assert!(by(&plan, "bs1", &finding("bs2")) && !by(&plan, "bs1", &finding("somebody")));
        let notice = |bytes| What::Notice { level: Level::Info, text: "x".repeat(bytes) };
        assert!(by(&plan, "ug1", &notice(10)) && !by(&plan, "ug1", &notice(TEXT_BYTES_MAX + 1)));
    }
}
