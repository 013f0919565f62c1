//! `dtwn up --dry-run`: what would be built.

use dtwn_model::{
    Plan,
    plan::{LinkKind, Role},
};

use super::print_line;
use crate::error::Result;

/// Access links listed before the rest is only counted.
const ACCESS_SHOWN: usize = 4;

/// Prints nodes, addresses, transmitters and links with their computed rates.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(plan: &Plan) -> Result<()> {
    let topology = plan.topology();
    print_line(&format!(
        "{}: {} nodes, {} users, seed {}, dilation {}, MTU {}",
        topology.run.name,
        plan.nodes.len(),
        plan.user_count(),
        topology.run.seed,
        plan.dilation,
        plan.mtu
    ))?;
    print_line(&format!("\n{:<10} {:<6} {:<15} {:>10} {:>6}", "NODE", "ROLE", "ADDRESS", "CPU", "USERS"))?;
    for node in &plan.nodes {
        let role = match node.role {
            Role::Mbs => "mbs",
            Role::Bs(_) => "bs",
            Role::Users => "users",
        };
        let cpu = node.cpu.map_or("-".into(), |cpu| cpu.to_string());
        let users = node.users.len();
        print_line(&format!(
            "{:<10} {role:<6} {:<15} {cpu:>10} {users:>6}",
            node.name,
            node.main.to_string()
        ))?;
    }
    print_links(plan)?;
    let offered = plan.offered(0);
    print_line(&format!(
        "\nall transmitters busy at once (emulated): uplink {}, downlink {}, access {}, together {}; wall {}",
        offered.uplink,
        offered.downlink,
        offered.access,
        offered.total(),
        offered.total().in_wall(plan.dilation)
    ))
}

fn print_links(plan: &Plan) -> Result<()> {
    print_line(&format!("\n{:<14} {:>16} {:>10} {:>8} {:>8}", "LINK", "RATE", "DELAY", "JITTER", "LOSS"))?;
    let mut access = 0;
    for link in &plan.links {
        if matches!(link.kind, LinkKind::AccessUp(_) | LinkKind::AccessDown(_)) {
            access += 1;
            if access > ACCESS_SHOWN {
                continue;
            }
        }
        let rate = link.rate.map_or("-".into(), |rate| rate.to_string());
        print_line(&format!(
            "{:<14} {rate:>16} {:>10} {:>8} {:>7.2}%",
            link.name,
            link.settings.delay.to_string(),
            link.settings.jitter.to_string(),
            link.settings.loss.mean() * 100.0
        ))?;
    }
    if access > ACCESS_SHOWN {
        print_line(&format!("… and {} more access links", access - ACCESS_SHOWN))?;
    }
    Ok(())
}
