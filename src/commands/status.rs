//! `dtwn status`: one session, in full.

use dtwn_proto::control::{Request, Response, Status, TwinStatus};

use super::{print_json, print_line};
use crate::{cli::StatusArgs, client::Client, error::Result, exit};

/// Shows the state of a session.
///
/// # Errors
/// When there is no such session.
pub fn run(args: &StatusArgs) -> Result<u8> {
    let mut client = Client::connect(args.name.as_deref(), true)?;
    let Response::Status(status) = client.ask(&Request::Status)? else { return Err(client.surprise()) };
    match args.json {
        true => print_json(&status)?,
        false => print(&status)?,
    }
    Ok(exit::OK)
}

fn print(status: &Status) -> Result<()> {
    print_line(&format!(
        "{} (pid {}): {:.1} s emulated, {:.1} s wall, dilation {}, {} rounds",
        status.name, status.pid, status.emulated_s, status.wall_s, status.dilation, status.rounds
    ))?;
    print_line(&format!(
        "fidelity {}: lateness p50 {:.0} us, p99 {:.0} us, host drops {}",
        status.fidelity.verdict,
        status.fidelity.lateness_us_p50,
        status.fidelity.lateness_us_p99,
        status.fidelity.host_drops
    ))?;
    for reason in &status.fidelity.reasons {
        print_line(&format!("  because {reason}"))?;
    }
    if !status.blocked.is_empty() {
        print_line(&format!("{} pairs of nodes are partitioned", status.blocked.len()))?;
    }
    print_line(&format!(
        "\n{:<10} {:<6} {:<15} {:<9} {:>8} {:>8} {:>9} {:>9}",
        "NODE", "ROLE", "ADDRESS", "STATE", "PID", "RESTARTS", "CPU s", "MEM MiB"
    ))?;
    for node in &status.nodes {
        print_line(&format!(
            "{:<10} {:<6} {:<15} {:<9} {:>8} {:>8} {:>9.2} {:>9.1}",
            node.name,
            node.role,
            node.address,
            node.state,
            node.pid.map_or("-".into(), |pid| pid.to_string()),
            node.restarts,
            node.used.cpu_s,
            node.used.rss_bytes as f64 / (1 << 20) as f64
        ))?;
    }
    print_twins(status)?;
    print_links(status)
}

fn print_twins(status: &Status) -> Result<()> {
    if status.twins.is_empty() {
        return Ok(());
    }
    print_line(&format!(
        "\n{:<10} {:<10} {:>10} {:>7} {:>9} {:>7} {:>19}",
        "TWIN", "BS", "AGE ms", "MISSED", "BATTERY %", "LOAD %", "POSITION m"
    ))?;
    for TwinStatus { bs, age } in &status.twins {
        let said = |value: Option<f64>, scale: f64| match value {
            Some(value) => format!("{:.1}", value * scale),
            None => "-".into(),
        };
        print_line(&format!(
            "{:<10} {:<10} {:>10} {:>7} {:>9} {:>7} {:>19}",
            age.twin,
            bs,
            said(age.age_ms, 1.0),
            age.missed,
            said(age.battery, 100.0),
            said(age.load, 100.0),
            age.position_m.map_or("-".into(), |[x, y]| format!("{x:.1}, {y:.1}"))
        ))?;
    }
    Ok(())
}

fn print_links(status: &Status) -> Result<()> {
    print_line(&format!(
        "\n{:<14} {:>11} {:>9} {:>7} {:>10} {:>10} {:>8} {:>6}",
        "LINK", "Mbit/s", "DELAY ms", "LOSS %", "SENT", "DELIVERED", "DROPPED", "USE %"
    ))?;
    let mut quiet = 0;
    for link in &status.links {
        // Hundreds of access links that carry nothing would bury the others.
        if link.info.kind.starts_with("access") && link.counters.sent == 0 {
            quiet += 1;
            continue;
        }
        print_line(&format!(
            "{:<14} {:>11} {:>9.2} {:>7.2} {:>10} {:>10} {:>8} {:>6.1}{}",
            link.info.name,
            link.info.rate_bps.map_or("-".into(), |bps| format!("{:.2}", bps / 1e6)),
            link.info.delay_ms,
            link.info.loss * 100.0,
            link.counters.sent,
            link.counters.delivered,
            link.counters.dropped.total(),
            link.counters.utilisation * 100.0,
            if link.info.up { "" } else { "  down" }
        ))?;
    }
    if quiet > 0 {
        print_line(&format!("… and {quiet} access links that have carried nothing"))?;
    }
    Ok(())
}
