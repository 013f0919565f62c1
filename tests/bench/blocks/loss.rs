//! Shares of lost packets against the binomial distribution, and lengths of Gilbert–Elliott bursts against theory.

use std::time::Duration;

use serde_json::json;

use crate::{
    Bench, Result,
    common::{
        probe::{UdpSink, udp_source},
        report::Row,
        session::{Ending, run},
        stats::{Z_999, binomial_999, bursts},
    },
};

const PACKET_BYTES: usize = 64;
/// 40,000 packets a second: well below what the medium carries, so that only the link loses.
const INTERVAL: Duration = Duration::from_micros(25);
/// Probabilities of leaving the good and the bad state.
const GOOD_TO_BAD: f64 = 0.01;
const BAD_TO_GOOD: f64 = 0.25;

pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let shares: &[f64] = if bench.quick { &[0.01] } else { &[0.001, 0.01, 0.1, 0.3] };
    let mut rows = shares.iter().map(|share| uniform(bench, *share)).collect::<Result<Vec<_>>>()?;
    rows.push(gilbert_elliott(bench)?);
    Ok(rows)
}

/// What became of the packets: which were lost, what the session used, how it ended.
struct Outcome {
    lost: Vec<bool>,
    cpu_percent: f64,
    ending: Ending,
}

fn send(bench: &Bench, loss: &str) -> Result<Outcome> {
    let count = if bench.quick { 20_000 } else { 100_000 };
    let links = format!("rate = \"1 Gbit/s\"\ndelay = \"1 ms\"\nqueue = \"16 MiB\"\nloss = {loss}");
    let session = bench.dtwn.up(&bench.star(1, &links, ""))?;
    session.silence()?;
    let burning = bench.load.start()?;
    let sink = UdpSink::start(&session, "mbs")?;
    let (cpu, begun) = (session.cpu()?, std::time::Instant::now());
    run(&mut udp_source(&session, "bs1", "mbs", count, INTERVAL, PACKET_BYTES)?)?;
    let cpu_percent = (session.cpu()? - cpu).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    std::thread::sleep(Duration::from_millis(200));
    let seen = sink.end()?;
    drop(burning);
    let mut lost = vec![true; usize::try_from(count)?];
    for seen in seen {
        *lost.get_mut(usize::try_from(seen.sequence)?).ok_or("a datagram with a number never sent")? = false;
    }
    Ok(Outcome { lost, cpu_percent, ending: session.down()? })
}

impl Outcome {
    fn count(&self) -> u64 {
        self.lost.iter().filter(|lost| **lost).count() as u64
    }

    /// Packets that were lost, but not by the link's loss: by a full queue or buffer of the host, say.
    fn unexplained(&self) -> i64 {
        let by_loss = self.ending.link("bs1", "mbs")["dropped"]["loss"].as_u64().unwrap_or(0);
        self.count() as i64 - by_loss as i64
    }

    fn row(&self, bench: &Bench, what: String) -> Row {
        Row {
            cpu_percent: Some(self.cpu_percent),
            verdict: Some(self.ending.verdict().to_owned()),
            ..Row::new("loss", bench.load, what)
        }
    }
}

fn uniform(bench: &Bench, share: f64) -> Result<Row> {
    let outcome = send(bench, &share.to_string())?;
    let (sent, lost) = (outcome.lost.len() as u64, outcome.count());
    let (low, high) = binomial_999(sent, share);
    let percent = |count: u64| count as f64 / sent as f64 * 100.0;
    Ok(Row {
        measured: format!("{:.3} % ({lost} of {sent})", percent(lost)),
        reference: format!("{:.3} to {:.3} %", percent(low), percent(high)),
        met: Some((low..=high).contains(&lost)),
        figures: json!({
            "configured": share,
            "sent": sent,
            "lost": lost,
            "interval_999": [low, high],
            "lost_otherwise": outcome.unexplained(),
            "fidelity": outcome.ending.summary["fidelity"],
        }),
        ..outcome.row(bench, format!("loss {} %", share * 100.0))
    })
}

/// With every packet of the bad state lost and none of the good, bursts are geometric: mean 1/r, variance (1 − r)/r².
fn gilbert_elliott(bench: &Bench) -> Result<Row> {
    let loss = format!(
        "{{ good_to_bad = {GOOD_TO_BAD}, bad_to_good = {BAD_TO_GOOD}, loss_good = 0, loss_bad = 1 }}"
    );
    let outcome = send(bench, &loss)?;
    let lengths = bursts(&outcome.lost);
    let mean = lengths.iter().sum::<u64>() as f64 / lengths.len() as f64;
    let expected = 1.0 / BAD_TO_GOOD;
    let half = Z_999 * ((1.0 - BAD_TO_GOOD).sqrt() / BAD_TO_GOOD) / (lengths.len() as f64).sqrt();
    let share = outcome.count() as f64 / outcome.lost.len() as f64;
    Ok(Row {
        measured: format!("mean {mean:.2} packets ({} bursts), {:.2} % lost", lengths.len(), share * 100.0),
        reference: format!(
            "{:.2} to {:.2} packets, {:.2} % lost",
            expected - half,
            expected + half,
            GOOD_TO_BAD / (GOOD_TO_BAD + BAD_TO_GOOD) * 100.0
        ),
        met: Some((mean - expected).abs() <= half),
        figures: json!({
            "good_to_bad": GOOD_TO_BAD,
            "bad_to_good": BAD_TO_GOOD,
            "sent": outcome.lost.len(),
            "bursts": lengths.len(),
            "burst_packets_mean": mean,
            "burst_packets_mean_expected": expected,
            "half_interval_999": half,
            "lost_share": share,
            "lost_otherwise": outcome.unexplained(),
            "fidelity": outcome.ending.summary["fidelity"],
        }),
        ..outcome.row(bench, "Gilbert-Elliott bursts".to_owned())
    })
}
