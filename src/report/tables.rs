//! The tables of a report.

use dtwn_proto::event::Level;
use serde_json::Value;

use super::{
    collect::Collected,
    figures,
    html::{Column, numbers, paragraph, properties, table, words},
};
use crate::{state::Phase, tui::format};

/// Rows up to which a table is shown unfolded.
const OPEN_ROWS: usize = 24;

fn digits(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "–".into() }
}

fn or_dash(value: Option<f64>, places: usize) -> String {
    value.map_or("–".into(), |value| digits(value, places))
}

/// How the run was made.
pub fn manifest(manifest: &Value) -> String {
    if manifest.is_null() {
        return paragraph(
            "There is no manifest.json: the run ended before its network was up, or the file is damaged.",
        );
    }
    let text = |pointer: &str| plain(manifest.pointer(pointer).unwrap_or(&Value::Null));
    let started = manifest.pointer("/started_unix_s").and_then(Value::as_u64);
    // The last second that has four digits for its year.
    let started = started
        .filter(|s| *s < 253_402_300_800)
        .map(|s| std::time::UNIX_EPOCH + std::time::Duration::from_secs(s));
    let command = manifest
        .pointer("/command")
        .and_then(Value::as_array)
        .map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let offered = |kind: &str| {
        manifest
            .pointer(&format!("/offered_bps_emulated/{kind}"))
            .and_then(Value::as_f64)
            .map_or(String::new(), |bps| format!("{} Mbit/s {kind}", digits(bps / 1e6, 1)))
    };
    let privilege = manifest.pointer("/unprivileged").and_then(Value::as_bool);
    let mut html = properties(&[
        ("Program", format!("{} {}", text("/program/name"), text("/program/version"))),
        ("Commit", text("/program/git_commit")),
        ("Command", command.unwrap_or_default()),
        (
            "Started",
            started.map_or(String::new(), |time| humantime::format_rfc3339_seconds(time).to_string()),
        ),
        ("Seed", text("/seed")),
        ("Dilation", text("/dilation")),
        ("Topology (BLAKE3)", text("/topology_blake3")),
        ("Offered, emulated", ["uplink", "downlink", "access"].map(offered).join(", ")),
        (
            "Privileges",
            privilege.map_or("", |un| if un { "none" } else { "CAP_SYS_ADMIN, CAP_NET_ADMIN" }).into(),
        ),
        ("Kernel", text("/host/kernel")),
        ("CPU", format!("{}, {} cores", text("/host/cpu"), text("/host/cores"))),
        ("Memory", text("/host/memory")),
        ("Clock source", text("/host/clock_source")),
        ("Load before", text("/host/load")),
        ("Capacity", capacity(manifest)),
    ]);
    let rows = tcp(manifest);
    if !rows.is_empty() {
        let columns = [words("setting"), words("value")];
        html += &table("TCP settings as read back from a node", &columns, &rows, OPEN_ROWS);
    }
    html
}

/// What the medium carries on the machine beside what the network offers.
fn capacity(manifest: &Value) -> String {
    let number = |key: &str| manifest.pointer(key).and_then(Value::as_f64);
    let mbps = |bps: f64| format!("{} Mbit/s", digits(bps / 1e6, 0));
    let Some(carried) = number("/capacity/capacity/bits_per_s") else { return String::new() };
    let mut text = format!("{} wall measured", mbps(carried));
    if let (Some(average), Some(peak)) =
        (number("/capacity/offered_average_bps_wall"), number("/capacity/offered_peak_bps_wall"))
    {
        text += &format!("; the network offers {} on average and {} at its peak", mbps(average), mbps(peak));
    }
    text
}

/// The TCP settings, one a row; lists of names and values become rows of their own.
fn tcp(manifest: &Value) -> Vec<Vec<String>> {
    let Some(settings) = manifest.pointer("/tcp").and_then(Value::as_object) else { return Vec::new() };
    let mut rows = Vec::new();
    for (key, value) in settings {
        let pairs =
            value.as_array().map(|items| items.iter().map(|item| (&item[0], &item[1])).collect::<Vec<_>>());
        match pairs {
            Some(pairs) => {
                rows.extend(pairs.into_iter().map(|(name, value)| vec![plain(name), plain(value)]));
            }
            None => rows.push(vec![key.clone(), plain(value)]),
        }
    }
    rows
}

/// A JSON value for people.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key}: {}", plain(value)));
            pairs.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

/// What the figures can be trusted for.
pub fn fidelity(run: &Collected) -> String {
    let state = &run.data.run;
    let fidelity = &state.fidelity;
    properties(&[
        ("Verdict", fidelity.verdict.to_string()),
        ("Reasons", if fidelity.reasons.is_empty() { "none".into() } else { fidelity.reasons.join("; ") }),
        ("Lateness, median", format!("{} µs", digits(fidelity.lateness_us_p50, 1))),
        ("Lateness, p99", format!("{} µs", digits(fidelity.lateness_us_p99, 1))),
        ("Dropped by the host", format!("{} packets", fidelity.host_drops)),
        ("Events lost", state.events_lost.to_string()),
        ("CPU of the session", format!("{} s", digits(state.session_cpu_s, 2))),
    ])
}

/// The nodes.
pub fn nodes(run: &Collected) -> String {
    let columns: [Column; 9] = [
        words("node"),
        words("role"),
        words("address"),
        numbers("users"),
        words("state"),
        numbers("restarts"),
        words("last end"),
        numbers("CPU (s)"),
        numbers("memory, peak (MiB)"),
    ];
    let rows = run.data.run.nodes.values().map(|node| {
        let phase = match (&run.data.run.ended, node.phase) {
            (Some(_), Phase::Exited) => "over",
            (_, phase) => phase.as_str(),
        };
        vec![
            node.info.name.clone(),
            node.info.role.clone(),
            node.info.address.clone(),
            node.info.users.to_string(),
            phase.into(),
            node.restarts.to_string(),
            node.exit.map_or("–".into(), |exit| {
                format!("{exit}{}", if node.exit_expected { "" } else { ", unexpected" })
            }),
            digits(node.used.cpu_s, 2),
            digits(node.rss_peak_bytes as f64 / f64::from(1 << 20), 1),
        ]
    });
    let rows: Vec<_> = rows.collect();
    table("Nodes", &columns, &rows, OPEN_ROWS)
}

/// The links.
pub fn links(run: &Collected) -> String {
    let columns: [Column; 13] = [
        words("link"),
        words("kind"),
        numbers("rate (Mbit/s)"),
        numbers("delay (ms)"),
        numbers("loss set (%)"),
        numbers("carried (MB)"),
        numbers("packets"),
        numbers("lost (%)"),
        numbers("by loss"),
        numbers("by queue"),
        numbers("down, cut"),
        numbers("by host"),
        numbers("late"),
    ];
    let rows = run.data.run.links.values().map(|link| {
        let (info, counters) = (&link.info, &link.counters);
        let dropped = &counters.dropped;
        let share = dropped.total() as f64 / counters.sent as f64 * 100.0;
        vec![
            info.name.clone(),
            if info.up { info.kind.clone() } else { format!("{}, down", info.kind) },
            or_dash(info.rate_bps.map(|bps| bps / 1e6), 1),
            digits(info.delay_ms, 2),
            digits(info.loss * 100.0, 2),
            digits(counters.bytes as f64 / 1e6, 2),
            counters.sent.to_string(),
            digits(share, 2),
            dropped.loss.to_string(),
            dropped.queue.to_string(),
            (dropped.down + dropped.partition + dropped.unroutable).to_string(),
            dropped.host.to_string(),
            counters.late.to_string(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    paragraph(
        "Counters of the medium over the whole run; rate, delay and loss as set at its end. MB are 10^6 bytes of IP delivered.",
    ) + &table("Links", &columns, &rows, OPEN_ROWS)
}

/// What went through the air.
pub fn transfers(run: &Collected) -> String {
    let columns = [
        words("kind"),
        numbers("count"),
        numbers("payload (MB)"),
        numbers("p50 measured (ms)"),
        numbers("p50 predicted (ms)"),
        numbers("p99 measured (ms)"),
        numbers("p99 predicted (ms)"),
    ];
    let rows: Vec<_> = run
        .data
        .run
        .transfers
        .iter()
        .map(|(kind, stats)| {
            let (p50, p50_predicted) = stats.quantile_ms(0.5);
            let (p99, p99_predicted) = stats.quantile_ms(0.99);
            let mut row = vec![kind.clone(), stats.count.to_string(), digits(stats.bytes as f64 / 1e6, 2)];
            row.extend([p50, p50_predicted, p99, p99_predicted].map(|ms| digits(ms, 1)));
            row
        })
        .collect();
    match rows.is_empty() {
        true => String::new(),
        false => table("Transfers, measured beside predicted", &columns, &rows, OPEN_ROWS),
    }
}

/// What happened.
pub fn timeline(run: &Collected) -> String {
    let columns = [numbers("time (s)"), words("grade"), words("about"), words("what")];
    let row = |entry: &crate::tui::data::Entry| {
        let level = match entry.level {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        vec![format::seconds(entry.at_ns), level.into(), entry.subject.clone(), entry.text.clone()]
    };
    let faults: Vec<_> = run.faults.iter().map(row).collect();
    let all: Vec<_> = run.data.timeline.iter().map(row).collect();
    let mut html = match faults.is_empty() {
        true => paragraph("Nothing disturbed this run, and nobody interfered."),
        false => figures::timeline(run) + &table("Faults and interventions", &columns, &faults, 200),
    };
    html += &table("All that happened, the newest 2000 at most", &columns, &all, OPEN_ROWS);
    html
}

/// What the decisions on twins, data and subchannels were worth; empty in a run without any.
pub fn association(run: &Collected) -> String {
    let association = &run.data.run.association;
    let Some(last) = association.last() else { return String::new() };
    let means = association.mean_ms();
    let twins: Vec<_> = last.k.iter().map(ToString::to_string).collect();
    let fractions: Vec<_> = last.b.iter().map(|b| digits(*b, 2)).collect();
    properties(&[
        ("Policy", last.policy.clone()),
        ("Rounds decided", association.ended.to_string()),
        ("Mean T, predicted", format!("{} ms (Eq. 17)", or_dash(means.map(|(predicted, _)| predicted), 1))),
        ("Mean T, measured", format!("{} ms", or_dash(means.map(|(_, measured)| measured), 1))),
        ("T over the optimum", or_dash(association.ratio_to_optimal(), 3)),
        ("Decision, mean", format!("{} µs wall", or_dash(association.decision_us(), 0))),
        ("Twins moved", association.migrations.to_string()),
        ("K at the end, by BS", twins.join(", ")),
        ("b at the end, by BS", fractions.join(", ")),
    ])
}

/// What came of learning.
pub fn learning(run: &Collected) -> String {
    let learning = &run.data.run.learning;
    if !learning.is_on() {
        return paragraph(
            "Nothing was learned in this run: its nodes exchanged bodies of a model's size, or no round ended.",
        );
    }
    let last = learning.last();
    let emulated = learning.phases().into_iter().filter_map(|(name, measured, predicted)| {
        let predicted = predicted.map_or(String::new(), |ms| format!(" (predicted {})", digits(ms, 1)));
        Some(format!("{name} {} ms{predicted}", digits(measured?, 1)))
    });
    let wall = learning.wall_ms().into_iter();
    let wall =
        wall.filter_map(|(name, ms)| Some(format!("{} {} ms", name.replace('_', " "), digits(ms?, 1))));
    let phases: Vec<_> = emulated.chain(wall).collect();
    properties(&[
        ("Data set", last.map_or(String::new(), |model| model.dataset.clone())),
        ("Last global model", last.map_or(String::new(), |model| format!("round {}", model.round))),
        ("Its digest (BLAKE3)", last.map_or(String::new(), |model| model.digest.clone())),
        (
            "Its accuracy",
            last.and_then(|model| model.test_accuracy)
                .map_or("–".into(), |a| format!("{} %", digits(a * 100.0, 2))),
        ),
        ("Its loss", or_dash(last.and_then(|model| model.test_loss), 4)),
        ("Models rejected", learning.outcomes.rejected.to_string()),
        ("Models late", learning.outcomes.late.to_string()),
        (
            "Training",
            learning
                .samples_per_s()
                .map_or("–".into(), |rate| format!("{} samples a wall second and BS", digits(rate, 0))),
        ),
        ("Phases, mean", phases.join(", ")),
        ("Paces not kept", learning.overruns.to_string()),
    ])
}

/// What came of the chain.
pub fn chain(run: &Collected) -> String {
    let chain = &run.data.run.chain;
    if !chain.is_on() {
        return paragraph("No chain was kept in this run.");
    }
    let ms = |value: Option<f64>| value.map_or("–".into(), |ms| format!("{} ms", digits(ms, 1)));
    let missed =
        chain.missed().iter().map(|(bs, count)| format!("{bs} {count}")).collect::<Vec<_>>().join(", ");
    let coins: Vec<_> = chain.coins.iter().map(|micro| digits(*micro as f64 / 1e6, 2)).collect();
    let html = properties(&[
        ("Height", chain.height().to_string()),
        ("Epoch", format!("{}, producers {}", chain.election.epoch, chain.election.producers.join(", "))),
        ("Views", format!("{}, of them nullified {}", chain.views(), chain.nullified())),
        ("Without a block", if missed.is_empty() { "none".into() } else { missed }),
        (
            "Transactions",
            format!(
                "{}, {} each emulated second",
                chain.transactions(),
                digits(chain.transactions_per_s(), 2)
            ),
        ),
        ("Finality, p50", ms(chain.finality_ms(0.5))),
        ("Finality, p99", ms(chain.finality_ms(0.99))),
        ("Blocks, p50", ms(chain.block_finality_ms(0.5))),
        ("Blocks, p99", ms(chain.block_finality_ms(0.99))),
        ("Coins, by BS", coins.join(", ")),
        ("Offences proved", chain.evidence.len().to_string()),
        ("Contradictions", chain.conflict_count.to_string()),
    ]);
    let columns = [
        words("node"),
        numbers("height"),
        words("tip"),
        numbers("views"),
        numbers("nullified"),
        numbers("blocks"),
        numbers("transactions"),
        numbers("own submitted"),
        numbers("own finalized"),
        numbers("rejected"),
        numbers("invalid messages"),
    ];
    let rows: Vec<_> = chain
        .lanes
        .iter()
        .map(|(node, lane)| {
            let mut row = vec![node.clone(), lane.height.to_string(), lane.tip.clone()];
            let counts =
                [lane.views, lane.nullified, lane.blocks, lane.transactions, lane.submitted, lane.finalized];
            row.extend(counts.map(|count| count.to_string()));
            row.extend([lane.rejected + lane.dropped, lane.invalid].map(|count| count.to_string()));
            row
        })
        .collect();
    html + &table("Chains of the nodes", &columns, &rows, OPEN_ROWS)
}
