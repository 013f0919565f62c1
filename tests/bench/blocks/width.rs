//! How many links of 10 Mbit/s, each filled by one TCP flow, the medium serves in time.
//!
//! Lateness is taken from outside: datagrams of one more station, whose link carries nothing else, from the sender's system
//! call to the receiver's interface.

use std::{
    io::Write,
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::json;

use crate::{
    Bench, Result,
    common::{
        probe::{Received, TcpSink, UdpSink, tcp_source, udp_source},
        report::Row,
        session::Session,
        stats::{quantile, sorted},
    },
};

const LINK_BPS: f64 = 10e6;
const DELAY_MS: f64 = 1.0;
const IP_PER_PAYLOAD: f64 = 1500.0 / 1448.0;
/// DESIGN: the criteria of a link that is served, and the number aimed at.
const P99_MS_MAX: f64 = 1.0;
const ERROR_MAX: f64 = 0.01;
const FLOWS_AIM: usize = 100;
/// From this many up by as many, until the first that fails; 254 is the most that a topology holds, one is the probe.
const STEP: usize = 25;
const FLOWS_MAX: usize = 250;
const PROBE_BYTES: usize = 128;
const PROBE_INTERVAL: Duration = Duration::from_millis(2);

/// What one number of flows came to.
struct Trial {
    flows: usize,
    error_worst: f64,
    late_ms_p50: f64,
    late_ms_p99: f64,
    cpu_percent: f64,
    verdict: String,
    fidelity: serde_json::Value,
}

pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let most = if bench.quick { STEP } else { FLOWS_MAX };
    let mut trials: Vec<Trial> = Vec::new();
    for flows in (STEP..=most).step_by(STEP) {
        trials.push(one(bench, flows)?);
        if !trials.last().is_some_and(Trial::served) {
            break;
        }
    }
    let width = trials.iter().filter(|trial| trial.served()).map(|trial| trial.flows).max().unwrap_or(0);
    let mut rows: Vec<Row> = trials.iter().map(|trial| trial.row(bench)).collect();
    let idle = bench.load == crate::Load::Idle;
    rows.push(Row {
        measured: format!("{width} flows{}", if width == most { " (the most tried)" } else { "" }),
        reference: format!("aim: >= {FLOWS_AIM}"),
        met: (idle && !bench.quick).then_some(width >= FLOWS_AIM),
        figures: json!({ "flows": width, "tried_up_to": most }),
        ..Row::new("width", bench.load, "width")
    });
    Ok(rows)
}

impl Trial {
    fn served(&self) -> bool {
        self.late_ms_p99 <= P99_MS_MAX && self.error_worst.abs() <= ERROR_MAX
    }

    fn row(&self, bench: &Bench) -> Row {
        Row {
            measured: format!(
                "late p50 {:.3}, p99 {:.3} ms; worst rate {:+.2} %",
                self.late_ms_p50,
                self.late_ms_p99,
                self.error_worst * 100.0
            ),
            reference: format!("p99 <= {P99_MS_MAX} ms, within {} %", ERROR_MAX * 100.0),
            met: Some(self.served()),
            cpu_percent: Some(self.cpu_percent),
            verdict: Some(self.verdict.clone()),
            figures: json!({
                "flows": self.flows,
                "worst_relative_error": self.error_worst,
                "lateness_ms_p50": self.late_ms_p50,
                "lateness_ms_p99": self.late_ms_p99,
                "fidelity": self.fidelity,
            }),
            ..Row::new("width", bench.load, format!("{} x 10 Mbit/s", self.flows))
        }
    }
}

fn one(bench: &Bench, flows: usize) -> Result<Trial> {
    let window = Duration::from_secs(if bench.quick { 1 } else { 4 });
    let links = format!("rate = \"10 Mbit/s\"\ndelay = \"{DELAY_MS} ms\"");
    let probe = "[[bs]]\nid = \"probe\"\nposition_m = [100, 0]\n";
    let session = bench.dtwn.up(&bench.star(flows, &links, probe))?;
    session.silence()?;
    let mut streams = TcpSink::start(&session, "mbs")?;
    let probes = UdpSink::start(&session, "mbs")?;
    let senders = Senders::start(&session, flows)?;
    wait_for_all(&mut streams, flows)?;
    let burning = bench.load.start()?;
    // Flows find their rate within a second.
    sleep(Duration::from_secs(1));

    let cpu = session.cpu()?;
    let count = (window.as_secs_f64() / PROBE_INTERVAL.as_secs_f64()) as u64;
    let mut probing = udp_source(&session, "probe", "mbs", count, PROBE_INTERVAL, PROBE_BYTES)?.spawn()?;
    let before = streams.read()?;
    sleep(window);
    let after = streams.read()?;
    let cpu_percent = (session.cpu()? - cpu).as_secs_f64() / window.as_secs_f64() * 100.0;
    probing.wait()?;
    sleep(Duration::from_millis(50));
    let seen = probes.end()?;
    drop((senders, burning));
    drop(streams);
    let ending = session.down()?;

    let due_ms = DELAY_MS + PROBE_BYTES as f64 * 8.0 / LINK_BPS * 1e3;
    let mut late = sorted(seen.iter().map(|seen| seen.took_ms() - due_ms));
    // A probe that never came was late beyond measure.
    late.resize(usize::try_from(count)?.max(late.len()), f64::INFINITY);
    Ok(Trial {
        flows,
        error_worst: worst_error(&before, &after),
        late_ms_p50: quantile(&late, 0.5),
        late_ms_p99: quantile(&late, 0.99),
        cpu_percent,
        verdict: ending.verdict().to_owned(),
        fidelity: ending.summary["fidelity"].clone(),
    })
}

/// The relative error of the flow that is farthest from its link's rate.
fn worst_error(before: &Received, after: &Received) -> f64 {
    let seconds = (after.at_ns - before.at_ns) as f64 / 1e9;
    let error = |(peer, bytes): (&String, &u64)| {
        let payload = bytes - before.bytes.get(peer).copied().unwrap_or(0);
        payload as f64 * 8.0 * IP_PER_PAYLOAD / seconds / LINK_BPS - 1.0
    };
    after.bytes.iter().map(error).max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(f64::NAN)
}

fn wait_for_all(streams: &mut TcpSink, flows: usize) -> Result<()> {
    for _ in 0..300 {
        if streams.read()?.bytes.len() == flows {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    Err(format!("not all of {flows} flows came through within half a minute").into())
}

/// The processes that send.
struct Senders(Vec<Child>);

impl Senders {
    fn start(session: &Session<'_>, flows: usize) -> Result<Self> {
        let mut senders = Self(Vec::new());
        for station in 1..=flows {
            let mut command = tcp_source(session, &format!("bs{station}"), "mbs")?;
            senders.0.push(command.stdin(Stdio::piped()).spawn()?);
        }
        // Starting as many programs as there are flows keeps the machine busy; the flows begin behind it.
        sleep(Duration::from_millis(500));
        for child in &mut senders.0 {
            child.stdin.as_mut().ok_or("a sender without standard input")?.write_all(b"go\n")?;
        }
        Ok(senders)
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}
