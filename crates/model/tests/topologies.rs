//! The topologies that come with the program are sound, and `paper.toml` has the balance that its comments claim.

use dtwn_model::cost::{BsLoad, Terms, block_bits, global_accuracy, samples_needed, terms};
use dtwn_model::topology::{Cost, LinkClasses, Overrides, Payload, Topology, load, parse};
use dtwn_model::units::BitsPerSecond;
use dtwn_model::{Loaded, Plan};
use std::path::{Path, PathBuf};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topologies")
}

fn loaded(name: &str) -> Loaded {
    load(shipped().join(name), &Overrides::default()).unwrap_or_else(|e| panic!("{e}\n{:#?}", e.problems()))
}

fn plan(name: &str) -> Plan {
    Plan::new(&loaded(name).topology).unwrap_or_else(|e| panic!("{e}"))
}

/// Coherence slots over which fading is averaged: 200 s.
const SLOTS: u64 = 200;

/// The mean terms of Eq. 17 for the average policy under a payload.
fn average_terms(plan: &Plan, payload: Payload) -> Terms {
    let cost = Cost { payload, ..plan.topology().cost.clone() };
    let all: Vec<Terms> = (0..SLOTS).map(|slot| terms(&cost, &plan.average_loads(slot))).collect();
    let mean = |term: fn(&Terms) -> f64| all.iter().map(term).sum::<f64>() / SLOTS as f64;
    Terms {
        training_s: mean(|t| t.training_s),
        broadcast_s: mean(|t| t.broadcast_s),
        block_s: mean(|t| t.block_s),
    }
}

#[test]
fn every_shipped_file_loads_plans_and_renders() {
    let mut seen = 0;
    let paths = std::fs::read_dir(shipped()).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|ext| ext == "toml")) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let first = loaded(&name);
        Plan::new(&first.topology).unwrap();
        let again = parse(&path, first.rendered.clone(), &Overrides::default()).unwrap();
        assert_eq!(first, again, "{name}");
        assert_eq!(format!("{}.toml", first.topology.run.name), name);
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn paper_is_the_paper_s_network() {
    let plan = plan("paper.toml");
    let topology = plan.topology();
    assert_eq!((plan.nodes.len(), plan.bs_count(), plan.user_count()), (11, 5, 100));
    let ghz: Vec<f64> = topology.bs.iter().map(|bs| bs.cpu_hz.get() / 1e9).collect();
    assert_eq!(ghz, [2.6, 1.8, 3.6, 2.4, 2.4]);
    assert_eq!(topology.radio.bandwidth.to_string(), "30 MHz");
    assert_eq!(topology.radio.noise_density.to_string(), "-174 dBm/Hz");
    assert_eq!((topology.radio.power.bs.get(), topology.radio.power.mbs.get()), (34.0, 42.0));
    assert_eq!(topology.cost.model_size.get(), 2_156_490 * 4);
    assert_eq!(plan.association.counts(5), [20; 5]);
    assert_eq!(plan.users().map(|user| user.samples).sum::<u32>(), 50_000);
    let samples: Vec<u32> = plan.users().map(|user| user.samples).collect();
    assert!(samples.iter().all(|n| (250..=850).contains(n)), "{samples:?}");
    assert!(samples.iter().any(|n| *n < 400) && samples.iter().any(|n| *n > 600), "{samples:?}");
}

#[test]
fn paper_balances_the_terms_of_eq_17() {
    let Terms { training_s, broadcast_s, block_s } = average_terms(&plan("paper.toml"), Payload::Twins);
    let all = [training_s, broadcast_s, block_s];
    let (least, most) =
        (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(0.0, f64::max));
    assert!(most / least <= 3.0, "{all:?}");
    // What the file's head says.
    assert!(
        (training_s - 3.3).abs() < 0.1 && (broadcast_s - 8.5).abs() < 0.2 && (block_s - 2.9).abs() < 0.1,
        "{all:?}"
    );
}

#[test]
fn paper_leaves_the_association_something_to_decide() {
    let cost = &loaded("paper.toml").topology.cost;
    let needed = samples_needed(cost);
    // θ_th binds, and b can be spread around its mean on both sides (18d).
    let b = needed / 50_000.0;
    assert!(cost.b_min * 1.2 < b && b < cost.b_max / 1.2, "{b}");
    assert!((7_300.0..7_500.0).contains(&needed), "{needed}");
    assert!((global_accuracy(cost, needed) - cost.theta_th).abs() < 1e-9);
    assert_eq!(block_bits(cost, 5), 5.0 * 2_156_490.0 * 32.0);
}

#[test]
fn paper_fits_two_cores() {
    let plan = plan("paper.toml");
    let live = average_terms(&plan, Payload::Aggregate);
    assert!(live.total_s() * plan.dilation <= 42.0, "{live:?}");
    // The machine trains 800 samples a second beside the network, all BSs together: every BS must be slower than that, or it
    // overruns.
    let loads = plan.average_loads(0);
    let machine_s = loads.iter().map(|bs| bs.samples).sum::<f64>() / 800.0;
    let cycles = plan.topology().cost.cycles_per_sample;
    for bs in &loads {
        assert!(bs.samples * cycles / bs.cpu.get() * plan.dilation > machine_s, "{bs:?}");
    }
    // All downlinks busy at once, on the host's clock.
    let downlink = |slot| plan.offered(slot).downlink.in_wall(plan.dilation).get();
    let mean = (0..SLOTS).map(downlink).sum::<f64>() / SLOTS as f64;
    assert!(mean < 1.2e9, "{mean}");
    let peak = plan.offered_peak(SLOTS);
    assert!(peak.downlink.in_wall(plan.dilation).get() < 1.4e9, "{peak:?}");
    assert!(peak.total().in_wall(plan.dilation).get() < 2e9, "{peak:?}");
}

#[test]
fn where_files_lie_and_how_long_a_run_takes_change_nothing_that_is_learned() {
    let paper = loaded("paper.toml").topology;
    let with = |change: fn(&mut Topology)| {
        let mut other = paper.clone();
        change(&mut other);
        other.fingerprint().unwrap()
    };
    let same = paper.fingerprint().unwrap();
    assert_eq!(with(|other| other.run.dilation *= 2.0), same);
    // What a run calls its own copy.
    assert_eq!(with(|other| other.association.file = Some("policy".into())), same);
    assert_ne!(with(|other| other.association.file = None), same);
    assert_ne!(with(|other| other.learning.epochs += 1), same);
}

#[test]
fn lossy_is_paper_with_other_links() {
    let (mut paper, mut lossy) = (loaded("paper.toml").topology, loaded("lossy.toml").topology);
    assert!((lossy.link.uplink.loss.mean() - 0.0192).abs() < 1e-3, "{}", lossy.link.uplink.loss.mean());
    assert!((lossy.link.access.loss.mean() - 0.0385).abs() < 1e-3, "{}", lossy.link.access.loss.mean());
    for topology in [&mut paper, &mut lossy] {
        topology.link = LinkClasses::default();
        topology.run.name = String::new();
    }
    assert_eq!(paper, lossy);
}

#[test]
fn small_and_scale_are_what_their_comments_say() {
    let small = plan("small.toml");
    assert_eq!((small.bs_count(), small.user_count(), small.nodes.len()), (4, 8, 9));
    let loads = small.average_loads(0);
    let rates = |bs: &BsLoad| ((bs.uplink.get() / 1e3).round(), (bs.downlink.get() / 1e3).round());
    assert!(loads.iter().all(|bs| rates(bs) == (111_000.0, 444_000.0)), "{loads:?}");
    let offered = small.offered(0);
    assert!(offered.downlink.in_wall(small.dilation) < BitsPerSecond::new(0.61e9), "{offered:?}");
    let round_s = terms(&small.topology().cost, &loads).total_s() * small.dilation;
    assert!(round_s < 11.0, "{round_s}");

    let scale = plan("scale-100.toml");
    assert_eq!((scale.bs_count(), scale.user_count(), scale.nodes.len()), (100, 0, 101));
    assert_eq!(scale.offered_peak(1).total(), BitsPerSecond::new(2e9));
    assert!(std::fs::read_to_string(shipped().join("scale-100.toml")).unwrap().lines().count() < 40);
}

#[test]
fn an_override_changes_what_the_plan_is_built_from() {
    let mut overrides = Overrides::default();
    overrides.set("radio.subchannels=10");
    let topology: Topology = load(shipped().join("small.toml"), &overrides).unwrap().topology;
    let (more, fewer) = (Plan::new(&topology).unwrap().offered(0), plan("small.toml").offered(0));
    assert!((more.downlink.get() / fewer.downlink.get() - 5.0).abs() < 1e-9);
}

/// The paths of all keys of a table, lists as their first entry.
fn keys(prefix: &str, value: &toml::Value, found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, inner) in table {
                keys(&format!("{prefix}.{key}"), inner, found);
            }
        }
        toml::Value::Array(list) if list.first().is_some_and(toml::Value::is_table) => {
            keys(prefix, &list[0], found);
        }
        _ => found.push(prefix.trim_start_matches('.').to_owned()),
    }
}

#[test]
fn the_read_me_names_every_key() {
    let text = std::fs::read_to_string(shipped().join("README.md")).unwrap();
    let mut found = Vec::new();
    keys("", &toml::Value::Table(loaded("lossy.toml").rendered.parse().unwrap()), &mut found);
    assert!(found.len() > 80, "{found:?}");
    for key in &found {
        let last = key.rsplit('.').next().unwrap();
        // Long forms stand in full; keys that many tables share stand once, by their last part.
        let named = [
            format!("`{key}`"),
            format!("`.{last}`"),
            format!("`{last}`"),
            format!("{last},"),
            format!("{last} }}"),
        ];
        assert!(named.iter().any(|name| text.contains(name)), "{key}");
    }
}
