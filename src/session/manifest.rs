//! `manifest.json`: how a run was made, well enough to make it again.

use std::{fs, path::Path, process::Command};

use dtwn_model::Plan;
use dtwn_sys::userns::Privilege;
use serde_json::json;

use super::{Options, network::TcpInForce};
use crate::error::{Error, Result};

/// Schema of the file.
const SCHEMA: u32 = 1;

/// Writes the manifest of a run.
///
/// # Errors
/// When the file cannot be written.
pub fn write(
    run_dir: &Path,
    plan: &Plan,
    options: &Options,
    tcp: &TcpInForce,
    privilege: Privilege,
) -> Result<()> {
    let topology = plan.topology();
    let offered = plan.offered(0);
    let manifest = json!({
        "schema": SCHEMA,
        "program": { "name": "dtwn", "version": dtwn_proto::VERSION, "git_commit": git_commit(run_dir) },
        "command": options.command,
        "started_unix_s": std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs()),
        "seed": topology.run.seed,
        "dilation": plan.dilation,
        "topology_blake3": topology.hash()?,
        "host": host(),
        "unprivileged": privilege == Privilege::Unprivileged,
        "tcp": tcp,
        "capacity": options.capacity,
        "resumed": options.resumed,
        "offered_bps_emulated": {
            "uplink": offered.uplink.get(),
            "downlink": offered.downlink.get(),
            "access": offered.access.get(),
        },
    });
    let path = run_dir.join("manifest.json");
    fs::write(&path, format!("{manifest:#}\n")).map_err(Error::file("write", path))
}

fn host() -> serde_json::Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "clock_source": read("/sys/devices/system/clocksource/clocksource0/current_clocksource").trim(),
        "load": read("/proc/loadavg").trim(),
    })
}

/// The commit of the checkout that the run directory lies in, when it lies in one.
fn git_commit(run_dir: &Path) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(run_dir)
        .args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
