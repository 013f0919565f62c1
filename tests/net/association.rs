//! `dtwn compare` and `dtwn figures`, as a person or a script uses them.

use std::fs;

use crate::common::Rig;

/// The paper's network, written where the caller may read it.
fn paper(rig: &Rig) -> String {
    let path = rig.path().join("paper.toml");
    fs::write(&path, include_str!("../../topologies/paper.toml")).unwrap();
    fs::write(rig.path().join("paper.policy"), include_str!("../../topologies/paper.policy")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn association_policies_are_compared_on_the_same_states() {
    let rig = Rig::as_caller();
    let paper = paper(&rig);
    let compare = |more: &[&str]| {
        let arguments = ["compare", &paper, "--json", "--instances", "10", "--set", "cost.payload=twins"];
        rig.run(arguments.into_iter().chain(more.iter().copied())).ok().json()
    };
    let (fresh, again, stale) = (compare(&[]), compare(&[]), compare(&["--staleness", "2"]));
    let ratio = |study: &serde_json::Value, policy: &str| -> f64 {
        let rows = study["policies"].as_array().unwrap();
        rows.iter().find(|row| row["policy"] == policy).unwrap()["ratio_to_optimal"].as_f64().unwrap()
    };
    assert_eq!(fresh["schema"], 1);
    for policy in ["random", "average", "greedy", "optimal"] {
        // Times of decisions differ, decisions do not.
        assert_eq!(ratio(&fresh, policy), ratio(&again, policy));
    }
    assert!(ratio(&fresh, "random") > ratio(&fresh, "average"));
    assert!(ratio(&fresh, "average") > ratio(&fresh, "greedy"));
    assert!((ratio(&fresh, "optimal") - 1.0).abs() < 1e-9);
    assert_eq!(fresh["optimal_s"], stale["optimal_s"]);
    assert!(ratio(&stale, "optimal-stale") > 1.001);
    assert!(ratio(&stale, "optimal-expected") > 1.001);
    assert_eq!(ratio(&stale, "average"), ratio(&fresh, "average"));
}

#[test]
fn association_policies_that_do_not_fit_are_refused() {
    let rig = Rig::as_caller();
    let paper = paper(&rig);
    let static_file = rig.path().join("decision.toml");
    fs::write(&static_file, "k = [60, 40]\nb = [0.2, 0.2]\ntau = [[0.5], [0.5]]\n").unwrap();
    let with_file = |file: &str| {
        rig.run(["compare", &paper, "--instances", "1", "--policies", "static", "--policy-file", file])
    };
    with_file(static_file.to_str().unwrap()).code(96).says("K has 2 entries where this network needs 5");
    with_file("/nonexistent").code(96).says("/nonexistent");
    rig.run(["compare", &paper, "--policies", "best"]).code(2).says("no such policy");
    let untrained = rig.path().join("small.toml");
    fs::write(&untrained, include_str!("../../topologies/small.toml")).unwrap();
    let untrained = untrained.to_str().unwrap();
    rig.run(["compare", untrained, "--policies", "maddpg"]).code(2).says("--policy-file");
    // The topology's own is left out where it does not fit, unless it is asked for.
    let twins = ["compare", &paper, "--instances", "1", "--json", "--set", "cost.payload=twins"];
    rig.run(twins).ok().says("without maddpg");
    rig.run(twins.into_iter().chain(["--policies", "maddpg"])).code(96);
    rig.run(["compare", &paper, "--staleness", "17"]).code(2).says("0 to 16");
    rig.run(["compare", &paper, "--set", "cost.theta_th=0.99"]).code(96).says("cost.theta_th");
    rig.run(["figures", "--out", "x", "--only", "4"]).code(2).says("--only 4");
}

#[test]
fn figures_come_as_pictures_and_data() {
    let rig = Rig::as_caller();
    let (paper, out) = (paper(&rig), rig.path().join("figures"));
    let arguments =
        ["figures", "--topology", &paper, "--quick", "--only", "5", "--out", out.to_str().unwrap()];
    rig.run(arguments).ok();
    let data = fs::read_to_string(out.join("fig5-system-time.csv")).unwrap();
    // Four policies in ten rounds, and the heading.
    assert_eq!(data.lines().count(), 41);
    assert!(data.lines().skip(1).all(|line| line.ends_with(",3")), "{data}");
    let picture = fs::read_to_string(out.join("fig5-system-time.svg")).unwrap();
    let document = roxmltree::Document::parse(&picture).unwrap();
    let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).map(str::trim).collect();
    for name in ["random", "average", "greedy", "optimal", "round", "T of Eq. 17 (s)"] {
        assert!(texts.contains(&name), "{name}: {texts:?}");
    }
}

#[test]
fn figure_6_comes_of_real_training() {
    let rig = Rig::as_caller();
    let (file, out) = (rig.path().join("small.toml"), rig.path().join("figures"));
    fs::write(&file, include_str!("../../topologies/small.toml")).unwrap();
    let (file, out_dir) = (file.to_str().unwrap(), out.to_str().unwrap());
    let arguments = ["figures", "--topology", file, "--quick", "--only", "6", "--out", out_dir];
    rig.run(arguments.into_iter().chain(["--set", "learning.test_samples=200"])).ok();
    let rows = |name: &str| -> Vec<(String, f64, f64)> {
        let text = fs::read_to_string(out.join(name)).unwrap();
        let row = |line: &str| {
            let (series, numbers) = line.rsplit_once('"').unwrap();
            let numbers: Vec<f64> =
                numbers.split(',').skip(1).map(|number| number.parse().unwrap()).collect();
            assert_eq!(numbers[3], 2.0, "two seeds: {line}");
            (series.trim_matches('"').to_owned(), numbers[0], numbers[1])
        };
        text.lines().skip(1).map(row).collect()
    };
    let loss = rows("fig6-loss.csv");
    // Three lines, the untrained model and two rounds.
    assert_eq!(loss.len(), 9, "{loss:?}");
    assert_eq!(loss[0].0, "proposed (greedy)");
    // All begin with the same model.
    assert!(loss.chunks(3).all(|line| line[0].2 == loss[0].2), "{loss:?}");
    assert!(loss.iter().all(|(.., loss)| loss.is_finite() && *loss > 0.0));
    assert!(loss.chunks(3).all(|line| line[2].2 != line[0].2), "{loss:?}");
    let by_time = rows("fig6-loss-by-time.csv");
    let ends: Vec<f64> = by_time.chunks(3).map(|line| line[2].1).collect();
    assert!(ends[1] > ends[0], "all data take longer: {ends:?}");
    let picture = fs::read_to_string(out.join("fig6-accuracy.svg")).unwrap();
    assert!(picture.contains("synthetic data"), "{picture}");
}
