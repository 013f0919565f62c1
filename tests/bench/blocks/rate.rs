//! The rate of a link under one TCP flow: what leaves the receiver's interface, and what iperf3 says.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    Bench, Result,
    common::{
        probe::{Meter, Taken, iperf_server},
        report::Row,
        session::run,
    },
};

/// DESIGN: at most 1 % off, or the verdict says so.
const ERROR_MAX: f64 = 0.01;
/// A full-sized TCP segment with time stamps: 1500 B of IP carry 1448 B of payload.
const IP_PER_PAYLOAD: f64 = 1500.0 / 1448.0;
/// From the first connection to a full queue: nothing is judged before.
const START_NS: u64 = 1_200_000_000;

pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let rates: &[f64] = if bench.quick { &[10.0, 500.0] } else { &[1.0, 10.0, 100.0, 500.0] };
    rates.iter().map(|mbit| one(bench, *mbit)).collect()
}

fn one(bench: &Bench, mbit: f64) -> Result<Row> {
    // A packet takes 12 ms at 1 Mbit/s: few seconds would hold too few of them.
    let seconds = match (bench.quick, mbit < 5.0) {
        (true, _) => 1,
        (false, true) => 10,
        (false, false) => 5,
    };
    let interval = Duration::from_millis(if mbit <= 10.0 { 1 } else { 10 });
    let session =
        bench.dtwn.up(&bench.star(1, &format!("rate = \"{mbit} Mbit/s\"\ndelay = \"1 ms\""), ""))?;
    session.silence()?;
    let burning = bench.load.start()?;
    let server = iperf_server(&session, "mbs")?;
    let meter = Meter::start(&session, "mbs", interval)?;
    let cpu = session.cpu()?;
    // A flow that keeps the queue filled, as one under bbr does not while it probes.
    let words = ["-c", "mbs", "-J", "-O", "1", "-C", "cubic", "-t", &seconds.to_string()];
    let output = run(&mut session.exec("bs1", "iperf3".as_ref(), words))?;
    let cpu_s = (session.cpu()? - cpu).as_secs_f64();
    let taken = meter.end()?;
    drop((server, burning));
    let ending = session.down()?;

    let said: Value = serde_json::from_slice(&output.stdout)?;
    let goodput = said["end"]["sum_received"]["bits_per_second"].as_f64().ok_or("iperf3 names no rate")?;
    let (ip_bps, window_s) = steady_rate(&taken, seconds).ok_or("too few packets to tell a rate")?;
    let error = ip_bps / (mbit * 1e6) - 1.0;
    let iperf_error = goodput * IP_PER_PAYLOAD / (mbit * 1e6) - 1.0;
    let verdict = ending.verdict().to_owned();
    Ok(Row {
        measured: format!("{:+.2} % (iperf3 x 1500/1448: {:+.2} %)", error * 100.0, iperf_error * 100.0),
        reference: "within 1 %, or flagged".to_owned(),
        met: Some(error.abs() <= ERROR_MAX || verdict != "ok"),
        cpu_percent: Some(cpu_s / f64::from(seconds + 1) * 100.0),
        verdict: Some(verdict),
        figures: json!({
            "configured_bps": mbit * 1e6,
            "ip_bps": ip_bps,
            "window_s": window_s,
            "relative_error": error,
            "iperf3_goodput_bps": goodput,
            "iperf3_relative_error": iperf_error,
            "iperf3_retransmits": said["end"]["sum_sent"]["retransmits"],
            "fidelity": ending.summary["fidelity"],
        }),
        ..Row::new("rate", bench.load, format!("{mbit} Mbit/s"))
    })
}

/// Bits per second of whole IP packets between two arrivals while the link is backlogged, and the seconds between them.
fn steady_rate(taken: &[Taken], seconds: i32) -> Option<(f64, f64)> {
    let begun = taken.get(1)?.at_ns;
    // One second of iperf3's run is not judged, and its end neither: the last packets drain a queue.
    let until = begun + 1_000_000_000 + u64::try_from(seconds).ok()? * 1_000_000_000 - 200_000_000;
    let mut steady = taken.iter().filter(|taken| (begun + START_NS..until).contains(&taken.at_ns));
    let (first, last) = (steady.next()?, steady.next_back()?);
    let window_s = (last.at_ns - first.at_ns) as f64 / 1e9;
    Some(((last.bytes - first.bytes) as f64 * 8.0 / window_s, window_s))
}
