//! What choices in training are worth: each left out or changed alone.

use serde_json::Value;

use crate::{
    Bench,
    common::{
        Result,
        load::Load,
        report::{Report, Row},
    },
    topology_of,
    trained::{judge, numbers, spread, train},
};

/// What is changed, and how.
const CHANGES: [(&str, &[&str]); 8] = [
    ("as it is", &[]),
    ("gamma 0.9", &["maddpg.gamma=0.9"]),
    ("no repair", &["maddpg.repairs=0"]),
    ("no refinement", &["maddpg.refinements=0"]),
    ("neither", &["maddpg.repairs=0", "maddpg.refinements=0"]),
    ("minibatches of 64", &["maddpg.batch=64"]),
    ("no noise", &["maddpg.noise_sigma=0", "maddpg.noise_sigma_end=0"]),
    ("the algorithm as printed", &["maddpg.algorithm=paper"]),
];

/// Half of a training's episodes, all seeds.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let topology = topology_of(bench, 5, "twins")?;
    let episodes = (bench.episodes / 2).max(2);
    for (what, settings) in CHANGES {
        let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let trained = train(bench, &topology, &set, bench.seeds, episodes)?;
        let judged = judge(bench, &topology, 0, &trained)?;
        let percent: Vec<f64> = numbers(&judged, "gap_closed").iter().map(|closed| 100.0 * closed).collect();
        report.add(vec![Row {
            measured: format!(
                "{}, {} % closed",
                spread(&numbers(&judged, "ratio_to_optimal"), 4),
                spread(&percent, 1)
            ),
            reference: format!("{} seeds, {episodes} episodes", trained.len()),
            figures: Value::Array(judged),
            ..Row::new("ablations", Load::Idle, what)
        }]);
    }
    Ok(())
}
