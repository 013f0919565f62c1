//! The delay of a link beyond the one configured: datagrams on an idle link, from the sender's system call to the receiver's
//! interface, where the kernel stamps them. How soon the receiver is scheduled plays no part.

use std::time::Duration;

use serde_json::json;

use crate::{
    Bench, Result,
    common::{
        probe::{UdpSink, udp_source},
        report::Row,
        session::run,
        stats::{quantile, sorted},
    },
};

/// DESIGN: on an idle machine.
const P99_MS_MAX: f64 = 0.5;
const PACKET_BYTES: usize = 128;
const LINK_BPS: f64 = 1e9;

pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let delays: &[f64] = if bench.quick { &[1.0, 100.0] } else { &[1.0, 10.0, 100.0] };
    delays.iter().map(|delay_ms| one(bench, *delay_ms)).collect()
}

fn one(bench: &Bench, delay_ms: f64) -> Result<Row> {
    let count = if bench.quick { 200 } else { 2000 };
    let interval = Duration::from_micros(2500);
    let session =
        bench.dtwn.up(&bench.star(1, &format!("rate = \"1 Gbit/s\"\ndelay = \"{delay_ms} ms\""), ""))?;
    session.silence()?;
    let burning = bench.load.start()?;
    let sink = UdpSink::start(&session, "mbs")?;
    let cpu = session.cpu()?;
    run(&mut udp_source(&session, "bs1", "mbs", count, interval, PACKET_BYTES)?)?;
    std::thread::sleep(Duration::from_secs_f64(delay_ms / 1e3 + 0.1));
    let cpu_s = (session.cpu()? - cpu).as_secs_f64();
    let seen = sink.end()?;
    drop(burning);
    let ending = session.down()?;
    if (seen.len() as u64) < count {
        return Err(format!("{} of {count} datagrams arrived over a link without loss", seen.len()).into());
    }

    let airtime_ms = PACKET_BYTES as f64 * 8.0 / LINK_BPS * 1e3;
    let added = sorted(seen.iter().map(|seen| seen.took_ms() - delay_ms - airtime_ms));
    let (p50, p99, most) = (quantile(&added, 0.5), quantile(&added, 0.99), quantile(&added, 1.0));
    let verdict = ending.verdict().to_owned();
    // A delivery counts as late beyond max(1 ms, 5 % of the delay); more than a hundredth of them must be flagged.
    let flagged = verdict != "ok";
    let late_ms = (0.05 * delay_ms).max(1.0);
    let idle = bench.load == crate::Load::Idle;
    Ok(Row {
        measured: format!("p50 {p50:+.3} ms, p99 {p99:+.3} ms, max {most:+.3} ms"),
        reference: match idle {
            true => format!("p99 <= {P99_MS_MAX} ms"),
            false => format!("p99 <= {late_ms} ms, or flagged"),
        },
        met: Some(if idle { p99 <= P99_MS_MAX } else { p99 <= late_ms || flagged }),
        cpu_percent: Some(cpu_s / (interval.as_secs_f64() * count as f64) * 100.0),
        verdict: Some(verdict),
        figures: json!({
            "configured_ms": delay_ms,
            "packets": seen.len(),
            "added_ms_min": quantile(&added, 0.0),
            "added_ms_p50": p50,
            "added_ms_p99": p99,
            "added_ms_max": most,
            "fidelity": ending.summary["fidelity"],
        }),
        ..Row::new("delay", bench.load, format!("{delay_ms} ms"))
    })
}
