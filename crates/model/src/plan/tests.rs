//! Plans of small networks.

use super::*;
use crate::radio::Channel;
use crate::topology::{Overrides, RateSource, parse};
use std::collections::HashSet;

const NETWORK: &str = r#"
[[bs]]
id = "bs1"
position_m = [200, 0]
[[bs]]
id = "bs2"
position_m = [0, 300]
[[users]]
id = "ug1"
count = 3
around = "bs1"
[[users]]
id = "ug2"
count = 2
positions_m = [[0, 250], [200, 50]]
samples = [10, 20]
"#;

fn plan_of(more: &str) -> Plan {
    let loaded = parse("t.toml", format!("{NETWORK}\n{more}"), &Overrides::default());
    Plan::new(&loaded.unwrap_or_else(|e| panic!("{:?}", e.problems())).topology).unwrap()
}

fn names(plan: &Plan, path: &[LinkId]) -> Vec<String> {
    path.iter().map(|id| plan.links[id.index()].name.clone()).collect()
}

fn path(plan: &Plan, from: &str, to: &str) -> Vec<String> {
    names(plan, &plan.path(plan.station(from).unwrap().id, plan.station(to).unwrap().id))
}

#[test]
fn everyone_is_where_their_index_says() {
    let plan = plan_of("");
    assert_eq!((plan.nodes.len(), plan.stations.len(), plan.links.len()), (5, 8, 14));
    assert_eq!((plan.bs_count(), plan.user_count()), (2, 5));
    for (i, node) in plan.nodes.iter().enumerate() {
        assert_eq!(node.id.index(), i);
    }
    for (i, station) in plan.stations.iter().enumerate() {
        assert_eq!(station.id.index(), i);
        if let Some(attachment) = station.attachment {
            let (up, down) = (&plan.links[attachment.up.index()], &plan.links[attachment.down.index()]);
            assert_eq!((up.from, up.to), (station.id, attachment.parent));
            assert_eq!((down.from, down.to), (attachment.parent, station.id));
        }
    }
    for (i, link) in plan.links.iter().enumerate() {
        assert_eq!(link.id.index(), i);
    }
    let names: HashSet<_> = plan.links.iter().map(|link| &link.name).collect();
    assert_eq!(names.len(), plan.links.len());
    assert_eq!(plan.node("bs2").unwrap().role, Role::Bs(BsId(1)));
    assert_eq!(plan.user_station(UserId(3)), plan.station("ug2.1").unwrap().id);
    assert_eq!(plan.users().map(|user| user.samples).collect::<Vec<_>>(), [500, 500, 500, 10, 20]);
}

#[test]
fn users_stand_by_their_bs_or_the_nearest_one() {
    let plan = plan_of("");
    let serving: Vec<u32> = (0..5).map(|u| plan.association.serving(UserId(u)).unwrap().0).collect();
    assert_eq!(serving, [0, 0, 0, 1, 0]);
    assert_eq!(plan.association.counts(2), [4, 1]);
    assert_eq!(plan.association.users_of(BsId(1)).collect::<Vec<_>>(), [UserId(3)]);
    for user in plan.users().take(3) {
        assert!((10.0..=150.0).contains(&user.position.distance(Position { x: 200.0, y: 0.0 }).get()));
    }
    // Another group leaves these where they are; another seed does not.
    let more = plan_of("[[users]]\nid = \"ug0\"\naround = \"bs2\"");
    let again = plan_of("[run]\nseed = 2");
    let first = |plan: &Plan| plan.users().next().unwrap().position;
    assert_eq!(first(&more), first(&plan));
    assert_ne!(first(&again), first(&plan));
}

#[test]
fn every_address_finds_its_station_and_no_other() {
    let plan = plan_of("");
    let hosts = plan.hosts();
    assert_eq!(hosts.len(), 5 + 5);
    for (address, name) in &hosts {
        let expected = if name == "ug1" || name == "ug2" { format!("{name}.1") } else { name.clone() };
        assert_eq!(plan.station_at(*address).unwrap().name, expected);
    }
    for user in plan.users() {
        assert_eq!(plan.station_at(address::alias(user.id, Some(BsId(1)))).unwrap().name, "bs2");
        assert_eq!(plan.station_at(address::alias(user.id, None)).unwrap().name, "mbs");
    }
    let all: HashSet<_> = plan.nodes.iter().flat_map(|node| &node.addresses).collect();
    assert_eq!(all.len(), 3 + 5);
    assert_eq!(plan.station_at("10.0.2.1".parse().unwrap()), None);
    assert_eq!(plan.node("ug2").unwrap().main, "10.64.0.3".parse::<Ipv4Addr>().unwrap());
    assert!(plan.node("mbs").unwrap().answers_aliases() && !plan.node("ug1").unwrap().answers_aliases());
}

#[test]
fn paths_climb_to_the_common_ancestor_and_descend() {
    let plan = plan_of("");
    assert_eq!(path(&plan, "bs1", "mbs"), ["bs1>mbs"]);
    assert_eq!(path(&plan, "mbs", "bs2"), ["mbs>bs2"]);
    assert_eq!(path(&plan, "bs1", "bs2"), ["bs1>mbs", "mbs>bs2"]);
    assert_eq!(path(&plan, "ug1.1", "ug1.2"), ["ug1.1>bs", "bs>ug1.2"]);
    assert_eq!(path(&plan, "ug1.3", "bs2"), ["ug1.3>bs", "bs1>mbs", "mbs>bs2"]);
    assert_eq!(path(&plan, "ug1.1", "ug2.1"), ["ug1.1>bs", "bs1>mbs", "mbs>bs2", "bs>ug2.1"]);
    assert!(path(&plan, "bs1", "bs1").is_empty());
    // Served by another BS, a user's packets take another way over the same access link.
    let (user, bs1) = (plan.station("ug2.1").unwrap().id, plan.station("bs1").unwrap().id);
    assert_eq!(names(&plan, &plan.path(user, bs1)), ["ug2.1>bs", "bs2>mbs", "mbs>bs1"]);
    let moved = Association::new(vec![BsId(0); 5]);
    assert_eq!(names(&plan, &plan.path_with(user, bs1, &moved)), ["ug2.1>bs"]);
    // An association that names nobody changes nothing.
    let nobody = Association::new(vec![BsId(9); 5]);
    assert_eq!(plan.path_with(user, bs1, &nobody), plan.path(user, bs1));
}

#[test]
fn overrides_change_neighbours_and_join_others() {
    let plan = plan_of(
        "[[link.override]]\nfrom = \"bs1\"\nto = \"mbs\"\nrate = \"10 Mbit/s\"\n\
         [[link.override]]\nfrom = \"mbs\"\nto = \"bs1\"\ndelay = \"50 ms\"\n\
         [[link.override]]\nfrom = \"bs1\"\nto = \"bs2\"\nloss = \"30%\"\n\
         [[link.override]]\nfrom = \"bs1\"\nto = \"bs2\"\ndelay = \"1 ms\"\n\
         [[link.override]]\nfrom = \"ug1\"\nto = \"bs1\"\nmtu = \"1 kB\"\n\
         [[link.override]]\nfrom = \"ug1\"\nto = \"ug2.1\"\nup = false\n",
    );
    let link = |name: &str| plan.links.iter().find(|link| link.name == name).unwrap();
    assert_eq!(link("bs1>mbs").rate, Some(BitsPerSecond::new(10e6)));
    assert_eq!(link("mbs>bs1").settings.delay, Interval::from_millis(50));
    assert_eq!(link("bs2>mbs").settings.delay, Interval::from_millis(2));
    assert_eq!(path(&plan, "bs1", "bs2"), ["bs1>mbs", "mbs>bs2", "bs1>bs2"]);
    assert_eq!(path(&plan, "bs2", "bs1"), ["bs2>mbs", "mbs>bs1"]);
    let joined = link("bs1>bs2");
    assert_eq!((joined.kind, joined.rate), (LinkKind::Virtual, None));
    assert_eq!((joined.settings.loss.mean(), joined.settings.delay), (0.3, Interval::from_millis(1)));
    assert_eq!(plan.mtu, Bytes::new(1000));
    assert_eq!(plan.links.iter().filter(|link| !link.settings.up).count(), 3);
    // A fixed rate is not the radio's to change.
    let rates = plan.rates_at(3, &plan.equal_shares(), &plan.association);
    assert!(rates.iter().all(|(id, _)| plan.links[id.index()].settings.rate == RateSource::Radio));
    assert_eq!(rates.len(), 14 - 1);
}

#[test]
fn rates_are_those_of_the_formulae() {
    let plan = plan_of("[radio]\nsubchannels = 3\nse_max = \"none\"");
    let radio = &plan.topology().radio;
    let (cell, access) = (Channel::new(radio, radio.bandwidth), Channel::new(radio, radio.access.bandwidth));
    let rate = |name: &str| plan.links.iter().find(|link| link.name == name).unwrap().rate.unwrap().get();
    let expected = |channel: &Channel, dbm: f64, metres: f64| {
        let power = crate::units::Dbm::new(dbm).watts();
        channel.rate(channel.received_w(power, 1.0, crate::units::Metres::new(metres)), 0.0).get()
    };
    let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-12;
    assert!(close(rate("bs1>mbs"), 3.0 * 0.5 * expected(&cell, 34.0, 200.0)));
    assert!(close(rate("mbs>bs2"), 3.0 * expected(&cell, 42.0, 300.0)));
    // ug2.1 has bs2 for itself, 50 m away; ug2.2 shares bs1 with three others.
    assert!(close(rate("ug2.1>bs"), expected(&access, 23.0, 50.0)));
    assert!(close(rate("bs>ug2.2"), expected(&access, 34.0, 50.0) / 4.0));
}

#[test]
fn rates_follow_slot_shares_and_association() {
    let plan = plan_of("[radio]\nfading = \"rayleigh\"\nsubchannels = 4");
    let tau = plan.equal_shares();
    let at = |slot| plan.rates_at(slot, &tau, &plan.association);
    assert_eq!(at(17), at(17));
    assert_ne!(at(17), at(18));
    assert!(at(0).iter().all(|(id, rate)| plan.links[id.index()].rate == Some(*rate)));
    let all_to_bs2 = TimeShares::new(&[vec![0.0; 4], vec![1.0; 4]]).unwrap();
    let rates = plan.rates_at(0, &all_to_bs2, &plan.association);
    assert_eq!(rates[0].1, BitsPerSecond::new(0.0));
    assert!((rates[2].1.get() / at(0)[2].1.get() - 2.0).abs() < 1e-9);
    // One user fewer at bs1: the remaining three have a third each.
    let moved = Association::new(vec![BsId(0), BsId(0), BsId(0), BsId(1), BsId(1)]);
    let access_of_first = plan.stations[3].attachment.unwrap().up;
    let of = |rates: &[(LinkId, BitsPerSecond)]| {
        rates.iter().find(|(id, _)| *id == access_of_first).unwrap().1.get()
    };
    let after = plan.rates_at(0, &tau, &moved);
    assert!((of(&after) / of(&at(0)) - 4.0 / 3.0).abs() < 1e-9);
}

#[test]
fn offered_load_adds_up_what_can_be_busy() {
    let plan = plan_of("[link.access]\nrate = \"1 Mbit/s\"");
    let offered = plan.offered(0);
    let sum = |names: &[&str]| -> f64 {
        plan.links.iter().filter(|l| names.contains(&l.name.as_str())).map(|l| l.rate.unwrap().get()).sum()
    };
    assert!((offered.uplink.get() - sum(&["bs1>mbs", "bs2>mbs"])).abs() < 1.0);
    assert!((offered.downlink.get() - sum(&["mbs>bs1", "mbs>bs2"])).abs() < 1.0);
    assert!((offered.access.get() - 10e6).abs() < 1.0);
    assert!(
        (offered.total().get() - plan.links.iter().map(|l| l.rate.unwrap().get()).sum::<f64>()).abs() < 1.0
    );
    assert_eq!(plan.offered_peak(50), offered);
}

#[test]
fn hand_made_topologies_are_checked_too() {
    let bs = |id: &str| crate::topology::Bs {
        id: id.to_owned(),
        position_m: Position { x: 1.0, y: 1.0 },
        ..crate::topology::Bs::default()
    };
    let of = |bs| Plan::new(&Topology { bs, ..Topology::default() });
    assert!(matches!(of(vec![]), Err(PlanError::NoBs)));
    assert!(matches!(of(vec![bs("a"); 255]), Err(PlanError::TooMany { count: 255, max: 254, .. })));
    assert!(matches!(of(vec![bs("a"), bs("a")]), Err(PlanError::Duplicate { .. })));
    assert!(matches!(of(vec![bs("mbs")]), Err(PlanError::Duplicate { .. })));
    let mut topology = Topology { bs: vec![bs("a")], ..Topology::default() };
    topology.link.overrides = vec![crate::topology::LinkOverride {
        from: "a".to_owned(),
        to: "b".to_owned(),
        ..crate::topology::LinkOverride::default()
    }];
    assert!(matches!(Plan::new(&topology), Err(PlanError::Unknown { name }) if name == "b"));
    assert!(of((0..254).map(|i| bs(&format!("b{i}"))).collect()).is_ok());
}
