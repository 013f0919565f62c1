//! `dtwn ps`: the running sessions.

use dtwn_proto::control::{Request, Response, Status};

use super::{print_json, print_line};
use crate::{cli::JsonArgs, client::Client, error::Result, exit, registry::Registry};

/// Lists the sessions of this user.
///
/// # Errors
/// When the registry cannot be read.
pub fn run(args: &JsonArgs) -> Result<u8> {
    let mut statuses = Vec::new();
    for (name, socket) in Registry::open()?.sessions()? {
        match ask(name.clone(), &socket) {
            Ok(status) => statuses.push(status),
            // Starting, ending, or of another version: one such session must not hide the others.
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
    if args.json {
        let list: Vec<_> = statuses
            .iter()
            .map(|status| {
                serde_json::json!({
                    "name": status.name, "pid": status.pid, "nodes": status.nodes.len(),
                    "emulated_s": status.emulated_s, "wall_s": status.wall_s,
                    "verdict": status.fidelity.verdict, "run_dir": status.run_dir,
                })
            })
            .collect();
        print_json(&list)?;
    } else if statuses.is_empty() {
        eprintln!("no session is running; `dtwn up TOPOLOGY` starts one");
    } else {
        print_line(&format!(
            "{:<20} {:>8} {:>6} {:>12} {:<9} RUN",
            "NAME", "PID", "NODES", "EMULATED", "VERDICT"
        ))?;
        for status in statuses {
            print_line(&format!(
                "{:<20} {:>8} {:>6} {:>10.1} s {:<9} {}",
                status.name,
                status.pid,
                status.nodes.len(),
                status.emulated_s,
                status.fidelity.verdict.to_string(),
                status.run_dir.display()
            ))?;
        }
    }
    Ok(exit::OK)
}

fn ask(name: String, socket: &std::path::Path) -> Result<Status> {
    let mut client = Client::connect_to(name, socket, true)?;
    match client.ask(&Request::Status)? {
        Response::Status(status) => Ok(*status),
        _ => Err(client.surprise()),
    }
}
