//! The machine that figures are taken on, and what it has spent.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use super::Result;

/// `/proc` counts CPU time in hundredths of a second, whatever the kernel's own tick (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// What a reader must know to compare figures.
pub fn describe() -> Value {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let cpu = read("/proc/cpuinfo").lines().find_map(|line| {
        line.strip_prefix("model name").map(|rest| rest.trim_matches([' ', '\t', ':']).to_owned())
    });
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": cpu,
        "kernel": read("/proc/sys/kernel/osrelease"),
        "load_average_before": read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        "autogroup": read("/proc/sys/kernel/sched_autogroup_enabled") == "1",
        "dtwn": env!("CARGO_PKG_VERSION"),
    })
}

/// The same in one line.
pub fn sentence(machine: &Value) -> String {
    let text = |key: &str| machine[key].as_str().unwrap_or("?").to_owned();
    format!(
        "dtwn {}, {} cores ({}), Linux {}, load average before: {}",
        text("dtwn"),
        machine["cores"],
        text("cpu"),
        text("kernel"),
        text("load_average_before"),
    )
}

/// CPU time that the whole machine has spent on anything but waiting, since it started.
pub fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are counted in user already.
    let (Some(all), Some(waiting)) = (ticks.get(..8), ticks.get(3..5)) else {
        return Err("/proc/stat does not look like Linux's".into());
    };
    let spent = all.iter().sum::<f64>() - waiting.iter().sum::<f64>();
    Ok(Duration::from_secs_f64(spent / TICKS_PER_SECOND))
}

/// CPU time that a process has used, its threads included.
pub fn used_by(pid: u64) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command in parentheses may hold anything; user and system time are fields 14 and 15.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
    match (ticks(14), ticks(15)) {
        (Some(user), Some(system)) => Ok(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND)),
        _ => Err(format!("/proc/{pid}/stat does not look like Linux's").into()),
    }
}
