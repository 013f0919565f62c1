//! `summary.json`: what came of a run.

use std::{fs, path::Path};

use dtwn_model::Plan;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    state::{AssociationState, ChainLane, ChainState, LearningState, RunState},
};

/// Schema of the file.
pub const SCHEMA: u32 = 1;

/// Where a run's summary is.
pub fn path(run_dir: &Path) -> std::path::PathBuf {
    run_dir.join("summary.json")
}

/// Writes the summary of a run, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write(
    run_dir: &Path,
    state: &RunState,
    plan: &Plan,
    (teardown_ms, events_refused): (f64, u64),
    recorder_failure: Option<&str>,
) -> Result<()> {
    let mut summary = summarise(state, plan, teardown_ms, recorder_failure);
    summary["events_refused"] = events_refused.into();
    let path = path(run_dir);
    let partial = run_dir.join("summary.json.partial");
    let text = format!("{summary:#}\n");
    fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path)).map_err(Error::file("write", &path))
}

fn summarise(state: &RunState, plan: &Plan, teardown_ms: f64, recorder_failure: Option<&str>) -> Value {
    let started = state.started.as_ref();
    json!({
        "schema": SCHEMA,
        "name": started.map(|started| &started.name),
        "seed": started.map(|started| started.seed),
        "dilation": plan.dilation,
        "verdict": state.fidelity.verdict,
        "fidelity": state.fidelity,
        "ended": state.ended,
        "emulated_s": state.now_ns as f64 / 1e9,
        "bringup_ms": state.bringup_ms,
        "teardown_ms": teardown_ms,
        "rounds": state.rounds,
        "events_lost": state.events_lost,
        "recorder_failure": recorder_failure,
        "session_cpu_s": state.session_cpu_s,
        "association": association(&state.association),
        "chain": chain(&state.chain),
        "learning": learning(&state.learning, state),
        "twins": twins(state),
        "nodes": state.nodes.values().map(|node| json!({
            "id": node.info.name,
            "role": node.info.role,
            "pid": node.last_pid,
            "exit": node.exit,
            "restarts": node.restarts,
            "cpu_s": node.used.cpu_s,
            "rss_peak": node.rss_peak_bytes,
        })).collect::<Vec<_>>(),
        "links": state.links.values().map(|link| json!({
            "from": link.info.from,
            "to": link.info.to,
            "kind": link.info.kind,
            "rate_bps": link.info.rate_bps,
            "sent": link.counters.sent,
            "delivered": link.counters.delivered,
            "dropped": link.counters.dropped,
            "bytes": link.counters.bytes,
        })).collect::<Vec<_>>(),
        "transfers": state.transfers.iter().map(|(kind, stats)| {
            let (measured_p50, predicted_p50) = stats.quantile_ms(0.5);
            let (measured_p99, predicted_p99) = stats.quantile_ms(0.99);
            (kind.clone(), json!({
                "count": stats.count,
                "bytes": stats.bytes,
                "measured_ms_p50": measured_p50,
                "measured_ms_p99": measured_p99,
                "predicted_ms_p50": predicted_p50,
                "predicted_ms_p99": predicted_p99,
            }))
        }).collect::<serde_json::Map<_, _>>(),
    })
}

/// What came of the policy; null for a run in which none decided.
fn association(association: &AssociationState) -> Value {
    let Some(last) = association.last() else {
        return Value::Null;
    };
    json!({
        "policy": last.policy,
        "rounds": association.ended,
        "predicted_ms": association.mean_ms().map(|(predicted, _)| predicted),
        "measured_ms": association.mean_ms().map(|(_, measured)| measured),
        "measured_terms_ms": association.mean_terms_ms(),
        "ratio_to_optimal": association.ratio_to_optimal(),
        "k_by_bs": last.k,
        "migrations": association.migrations,
        "decision_us": association.decision_us(),
    })
}

/// What was learned; null for a run that did not train.
fn learning(learning: &LearningState, state: &RunState) -> Value {
    let Some(last) = learning.last() else {
        return Value::Null;
    };
    // Of the BS whose twins are the oldest.
    let age = |of: fn(&crate::state::TwinAges) -> Option<f64>| {
        state.twin_ages.values().filter_map(of).reduce(f64::max)
    };
    json!({
        "dataset": last.dataset,
        "rounds": last.round,
        "test_accuracy": last.test_accuracy,
        "test_loss": last.test_loss,
        "first_round": learning.outcomes.first_round(),
        "accuracy_by_round": learning.outcomes.accuracy_by_round(),
        "digest": last.digest,
        "samples_per_s": learning.samples_per_s(),
        "rejected_models": learning.outcomes.rejected,
        "late_bs": learning.outcomes.late,
        "compute_overruns": learning.overruns,
        "twin_age_ms_p50": age(|(_, p50, _)| *p50),
        "twin_age_ms_p99": age(|(_, _, p99)| *p99),
        "phases_ms": phases_ms(learning),
    })
}

/// Means by phase: what was measured, `_predicted` beside it, and wall times.
fn phases_ms(learning: &LearningState) -> Value {
    let mut all = serde_json::Map::new();
    for (phase, measured, predicted) in learning.phases() {
        all.insert(phase.to_owned(), json!(measured));
        all.insert(format!("{phase}_predicted"), json!(predicted));
    }
    all.extend(learning.wall_ms().map(|(phase, ms)| (phase.to_owned(), json!(ms))));
    all.into()
}

/// Where twins were at the end, how old, and how they moved.
fn twins(state: &RunState) -> Value {
    let by_bs = state.twin_ages.iter().map(|(bs, (twins, p50_ms, p99_ms))| {
        let (came, left) = state.learning.moved_by_bs.get(bs).copied().unwrap_or_default();
        (
            bs.clone(),
            json!({"twins": twins, "came": came, "left": left, "age_ms_p50": p50_ms, "age_ms_p99": p99_ms}),
        )
    });
    let each = state.twins.iter().map(|(twin, (bs, age))| {
        (twin.clone(), json!({"bs": bs, "age_ms": age.age_ms, "missed_states": age.missed}))
    });
    json!({
        "by_bs": by_bs.collect::<serde_json::Map<_, _>>(),
        "each": each.collect::<serde_json::Map<_, _>>(),
        "moves": state.learning.moved,
        "moved_bytes": state.learning.moved_bytes,
        "move_ms_mean": state.learning.move_ms(),
    })
}

/// What came of the chain; null for a run without one.
fn chain(chain: &ChainState) -> Value {
    if !chain.is_on() {
        return Value::Null;
    }
    let of_lanes = |count: fn(&ChainLane) -> u64| chain.lanes.values().map(count).sum::<u64>();
    json!({
        "height": chain.height(),
        // The height that every node has finalized.
        "finalized_height": chain.lanes.values().map(|lane| lane.height).min(),
        "conflicts": chain.conflict_count,
        "epoch": chain.election.epoch,
        "views": chain.views(),
        "nullified_views": chain.nullified(),
        "missed_by_bs": chain.missed(),
        "finality_ms_p50": chain.finality_ms(0.5),
        "finality_ms_p99": chain.finality_ms(0.99),
        "block_finality_ms_p50": chain.block_finality_ms(0.5),
        "block_finality_ms_p99": chain.block_finality_ms(0.99),
        "tx_submitted": of_lanes(|lane| lane.submitted),
        "tx_rejected": of_lanes(|lane| lane.rejected),
        "tx_dropped": of_lanes(|lane| lane.dropped),
        "tx_finalized": chain.transactions(),
        "tx_per_s": chain.transactions_per_s(),
        "invalid_messages": of_lanes(|lane| lane.invalid),
        "evidence": chain.evidence,
        "coins": chain.coins.iter().map(|micro| *micro as f64 / 1e6).collect::<Vec<_>>(),
    })
}
