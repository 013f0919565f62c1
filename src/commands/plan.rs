//! `dtwn up --dry-run`: what would be built, and whether this machine carries it.

use std::fmt::Write;

use dtwn_model::{
    Plan,
    plan::{LinkKind, LinkPlan, NodePlan, Role},
    units::{BitsPerSecond, Interval},
};
use serde_json::json;

use super::{print_json, print_line, wrap};
use crate::{
    capacity::{self, Judgement},
    error::{Error, Result},
    session::medium::kind_of,
};

/// Schema of the JSON output.
const SCHEMA: u32 = 1;
/// Columns of the report.
const COLUMNS: usize = 80;
/// Access links listed before the rest is only counted.
const ACCESS_SHOWN: usize = 4;
/// Columns for names, at most.
const NAME_COLUMNS_MAX: usize = 22;

/// Prints nodes, addresses, transmitters and links with their computed rates, and the load beside the capacity.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(plan: &Plan, as_json: bool) -> Result<()> {
    let capacity = capacity::known();
    let judgement = Judgement::new(plan, capacity.as_ref().ok().copied());
    if as_json {
        return print_json(&value(plan, &judgement));
    }
    let mut text = heading(plan);
    nodes(&mut text, plan);
    links(&mut text, plan);
    load(&mut text, plan, &judgement, capacity.err().as_ref());
    print_line(text.trim_end())
}

fn heading(plan: &Plan) -> String {
    let run = &plan.topology().run;
    format!(
        "{}: {} nodes, {} users, seed {}, dilation {}, MTU {} bytes\n",
        run.name,
        plan.nodes.len(),
        plan.user_count(),
        run.seed,
        plan.dilation,
        plan.mtu.get()
    )
}

fn nodes(text: &mut String, plan: &Plan) {
    let width = name_columns(plan.nodes.iter().map(|node| node.name.as_str()));
    line(text, &format!("\n{:<width$} {:<6} {:<15} {:>10} {:>6}", "NODE", "ROLE", "ADDRESS", "CPU", "USERS"));
    for node in &plan.nodes {
        let cpu = node.cpu.map_or("-".into(), |cpu| short(cpu.to_string(), format!("{cpu:.1}")));
        let users = if node.users.is_empty() { "-".into() } else { node.users.len().to_string() };
        let (name, role, address) = (fitted(&node.name, width), role_of(node), node.main.to_string());
        line(text, &format!("{name:<width$} {role:<6} {address:<15} {cpu:>10} {users:>6}"));
    }
}

fn links(text: &mut String, plan: &Plan) {
    let width = name_columns(plan.links.iter().map(|link| link.name.as_str()));
    let row = |name: &str, kind: &str, rate: &str, delay: &str, jitter: &str, loss: &str| {
        format!("{name:<width$} {kind:<11} {rate:>13} {delay:>8} {jitter:>8} {loss:>8}")
    };
    line(text, &format!("\n{}", row("LINK", "KIND", "RATE", "DELAY", "JITTER", "LOSS")));
    let mut access = 0;
    for link in &plan.links {
        if is_access(link) {
            access += 1;
            if access > ACCESS_SHOWN {
                continue;
            }
        }
        let rate = link.rate.map_or("any".into(), |rate| format!("{rate:.1}"));
        let loss = format!("{:.2} %", link.settings.loss.mean() * 100.0);
        let (delay, jitter) = (time(link.settings.delay), time(link.settings.jitter));
        line(text, &row(&fitted(&link.name, width), kind_of(link.kind), &rate, &delay, &jitter, &loss));
    }
    if access > ACCESS_SHOWN {
        line(text, &format!("and {} more access links", access - ACCESS_SHOWN));
    }
    line(
        text,
        "Each link but those of kind override is a transmitter; rates are those of the first interval.",
    );
}

fn load(text: &mut String, plan: &Plan, judgement: &Judgement, unmeasured: Option<&Error>) {
    let offered = plan.offered(0);
    line(text, &format!("\n{:<26} {:>14} {:>14}", "LOAD", "EMULATED", "IN WALL TIME"));
    let mut row = |name: &str, emulated: BitsPerSecond| {
        let wall = emulated.in_wall(plan.dilation);
        line(text, &format!("{name:<26} {:>14} {:>14}", format!("{emulated:.2}"), format!("{wall:.2}")));
    };
    row("uplinks", offered.uplink);
    row("downlinks", offered.downlink);
    row("access links", offered.access);
    let emulated = |wall_bps| BitsPerSecond::new(wall_bps * plan.dilation);
    row("all busy at once, at most", emulated(judgement.offered_peak_bps_wall));
    row("average over a round", emulated(judgement.offered_average_bps_wall));
    match (judgement.capacity, unmeasured) {
        (Some(capacity), _) => {
            line(
                text,
                &format!(
                    "{:<26} {:>14} {:>14}",
                    "this machine carries",
                    "",
                    format!("{:.2}", capacity.rate())
                ),
            );
            match judgement.advice() {
                Some(advice) => line(text, &format!("\n{advice}")),
                None => line(text, "\nThis machine carries it even with all transmitters busy."),
            }
        }
        (None, Some(error)) => {
            line(text, &format!("what this machine carries could not be measured: {error}"));
        }
        (None, None) => {}
    }
}

/// The plan as data: emulated units unless a name says wall.
fn value(plan: &Plan, judgement: &Judgement) -> serde_json::Value {
    let run = &plan.topology().run;
    let offered = plan.offered(0);
    let nodes = plan.nodes.iter().map(|node| {
        json!({
            "name": node.name, "role": role_of(node), "address": node.main,
            "addresses": node.addresses, "cpu_hz": node.cpu.map(|cpu| cpu.get()), "users": node.users.len(),
        })
    });
    let links = plan.links.iter().map(|link| {
        let ms = |time: Interval| time.seconds() * 1e3;
        json!({
            "name": link.name, "kind": kind_of(link.kind),
            "from": plan.stations[link.from.index()].name, "to": plan.stations[link.to.index()].name,
            "rate_bps": link.rate.map(BitsPerSecond::get), "delay_ms": ms(link.settings.delay),
            "jitter_ms": ms(link.settings.jitter), "loss": link.settings.loss.mean(),
        })
    });
    json!({
        "schema": SCHEMA,
        "name": run.name,
        "seed": run.seed,
        "dilation": plan.dilation,
        "mtu_bytes": plan.mtu.get(),
        "nodes": nodes.collect::<Vec<_>>(),
        "links": links.collect::<Vec<_>>(),
        "offered_bps": {
            "uplink": offered.uplink.get(), "downlink": offered.downlink.get(), "access": offered.access.get(),
        },
        "capacity": judgement,
    })
}

fn role_of(node: &NodePlan) -> &'static str {
    match node.role {
        Role::Mbs => "mbs",
        Role::Bs(_) => "bs",
        Role::Users => "users",
    }
}

fn is_access(link: &LinkPlan) -> bool {
    matches!(link.kind, LinkKind::AccessUp(_) | LinkKind::AccessDown(_))
}

/// Adds text that ends in a newline, wrapped to the report's columns.
fn line(text: &mut String, line: &str) {
    // Tables keep their columns as they are: only prose is ever longer than a line.
    let _ = match line.chars().count() > COLUMNS {
        true => writeln!(text, "{}", wrap(line, COLUMNS).join("\n")),
        false => writeln!(text, "{}", line.trim_end()),
    };
}

fn time(time: Interval) -> String {
    if time == Interval::default() {
        return "0".into();
    }
    short(time.to_string(), format!("{time:.1}"))
}

/// The exact form where it is short, the rounded one otherwise.
fn short(exact: String, rounded: String) -> String {
    if exact.chars().count() <= 8 { exact } else { rounded }
}

fn name_columns<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0).clamp(10, NAME_COLUMNS_MAX)
}

/// A name cut in the middle where it is longer than its column.
fn fitted(name: &str, columns: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= columns {
        return name.to_owned();
    }
    let (head, tail) = (columns / 2 - 1, columns - columns / 2 - 1);
    chars[..head]
        .iter()
        .chain("..".chars().collect::<Vec<_>>().iter())
        .chain(&chars[chars.len() - tail..])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Capacity;

    fn plan(text: &str) -> Plan {
        let loaded = dtwn_model::topology::parse("t.toml", text.into(), &dtwn_model::Overrides::default());
        Plan::new(&loaded.unwrap().topology).unwrap()
    }

    fn report(plan: &Plan, bits_per_s: f64) -> String {
        let capacity = Capacity { bits_per_s, packets_per_s: 2e5, others_busy_cores: 0.0, window_ms: 200.0 };
        let judgement = Judgement::new(plan, Some(capacity));
        let mut text = heading(plan);
        nodes(&mut text, plan);
        links(&mut text, plan);
        load(&mut text, plan, &judgement, None);
        text
    }

    #[test]
    fn the_small_network_on_a_small_machine() {
        let text = report(&plan(include_str!("../../topologies/small.toml")), 8e8);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn shipped_and_awkward_networks_fit_80_columns() {
        let long =
            format!("[[bs]]\nid = \"{}\"\nposition_m = [1, 2]\ncpu_hz = 1234567890.5\n", "x".repeat(32));
        for text in [
            include_str!("../../topologies/paper.toml"),
            include_str!("../../topologies/lossy.toml"),
            include_str!("../../topologies/scale-100.toml"),
            &long,
        ] {
            let text = report(&plan(text), 1e8);
            assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        }
    }

    #[test]
    fn the_json_holds_every_link() {
        let plan = plan(include_str!("../../topologies/small.toml"));
        let value = value(&plan, &Judgement::new(&plan, None));
        assert_eq!(value["links"].as_array().unwrap().len(), plan.links.len());
        assert_eq!(value["links"][0]["name"], "bs1>mbs");
        assert_eq!(value["nodes"][1]["cpu_hz"], 2.6e9);
        assert_eq!(value["capacity"]["capacity"], serde_json::Value::Null);
    }
}
