//! From `dtwn link set` to the first packet that it affects.

use std::{thread::sleep, time::Duration};

use serde_json::json;

use crate::{
    Bench, Result,
    common::{
        probe::{Seen, UdpSink, now_ns, udp_source},
        report::Row,
        session::Session,
        stats::{quantile, sorted},
    },
};

/// From sending the order, the program's own start included.
const TARGET_MS: f64 = 50.0;
/// How far apart packets are: the finest difference that can be seen.
const INTERVAL: Duration = Duration::from_micros(500);
/// How long the link loses everything, and nothing, after the order has been obeyed.
const PAUSE: Duration = Duration::from_millis(60);

pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let trials: u32 = if bench.quick { 5 } else { 50 };
    let session = bench.dtwn.up(&bench.star(1, "rate = \"1 Gbit/s\"\ndelay = \"1 ms\"", ""))?;
    session.silence()?;
    let burning = bench.load.start()?;
    let sink = UdpSink::start(&session, "mbs")?;
    // More packets than the trials last even on a slow machine; the sender is stopped behind them.
    let count = u64::from(trials) * 2000;
    let mut source = udp_source(&session, "bs1", "mbs", count, INTERVAL, 64)?.spawn()?;
    sleep(Duration::from_millis(200));
    let orders: Result<Vec<Order>> = (0..trials).map(|_| order(&session)).collect();
    source.kill()?;
    source.wait()?;
    let seen = sink.end()?;
    drop(burning);
    let orders = orders?;
    let ending = session.down()?;

    let mut effects = Vec::new();
    for order in &orders {
        effects.extend(order.effect_ms(&seen)?);
    }
    let effects = sorted(effects);
    let commands = sorted(orders.iter().map(|order| (order.done_ns - order.given_ns) as f64 / 1e6));
    let (p50, most) = (quantile(&effects, 0.5), quantile(&effects, 1.0));
    Ok(vec![Row {
        measured: format!("p50 {p50:.1} ms, max {most:.1} ms ({} orders)", effects.len()),
        reference: format!("<= {TARGET_MS} ms"),
        met: Some(most <= TARGET_MS),
        verdict: Some(ending.verdict().to_owned()),
        figures: json!({
            "effect_ms": effects,
            "orders_without_a_packet": trials as usize - effects.len(),
            "command_ms_p50": quantile(&commands, 0.5),
            "command_ms_max": quantile(&commands, 1.0),
            "resolution_ms": INTERVAL.as_secs_f64() * 1e3,
            "fidelity": ending.summary["fidelity"],
        }),
        ..Row::new("control", bench.load, "link set to first packet affected")
    }])
}

/// One change of the link.
struct Order {
    given_ns: u64,
    done_ns: u64,
    /// When the order that took it back was given.
    over_ns: u64,
}

fn order(session: &Session<'_>) -> Result<Order> {
    let set = |loss: &str| session.order(&["link", "set", "bs1", "mbs", "--loss", loss]);
    let given_ns = now_ns();
    set("100%")?;
    let done_ns = now_ns();
    sleep(PAUSE);
    let over_ns = now_ns();
    set("0%")?;
    sleep(PAUSE);
    Ok(Order { given_ns, done_ns, over_ns })
}

impl Order {
    /// When the first packet was sent that the link lost, counted from the order; `None` when the sender was not scheduled
    /// as long as the order was in force. `seen` is in order of sending, as a link without jitter leaves it.
    fn effect_ms(&self, seen: &[Seen]) -> Result<Option<f64>> {
        if seen.iter().any(|seen| (self.done_ns..self.over_ns).contains(&seen.sent_ns)) {
            return Err("a packet passed after the order had been obeyed".into());
        }
        let first_after = seen.partition_point(|seen| seen.sent_ns < self.given_ns);
        let gap = seen[first_after.saturating_sub(1)..]
            .windows(2)
            .find(|pair| pair[1].sequence > pair[0].sequence + 1);
        // The lost packet itself was not seen: it was sent one interval behind the last that was.
        let sent_ns = gap.map(|gap| gap[0].sent_ns + INTERVAL.as_nanos() as u64);
        Ok(sent_ns.filter(|at| *at < self.over_ns).map(|at| (at as f64 - self.given_ns as f64) / 1e6))
    }
}
