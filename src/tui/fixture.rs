//! A recorded run in small, for tests: two BSs, two user groups, and one of everything that can happen.

use dtwn_proto::event::{
    Drops, Event, Exit, Fidelity, Level, LinkCounters, LinkInfo, NodeCounters, NodeInfo, Round, SESSION,
    Sample, SessionStarted, Transfer, Verdict, What,
};

use super::data::Data;

fn node(name: &str, role: &str, address: &str, users: u32) -> NodeInfo {
    NodeInfo { name: name.into(), role: role.into(), address: address.into(), users }
}

fn link(from: &str, to: &str, kind: &str) -> LinkInfo {
    LinkInfo {
        name: format!("{from}>{to}"),
        from: from.into(),
        to: to.into(),
        kind: kind.into(),
        rate_bps: Some(111e6),
        delay_ms: 2.0,
        jitter_ms: 0.0,
        loss: 0.0,
        up: true,
    }
}

fn counters(link: &LinkInfo, second: u64) -> LinkCounters {
    LinkCounters {
        link: link.name.clone(),
        sent: 1000 * second,
        delivered: 990 * second,
        bytes: 1_400_000 * second,
        dropped: Drops { loss: 10 * second, ..Drops::default() },
        queue_bytes: 15_000,
        utilisation: 0.4,
        ..LinkCounters::default()
    }
}

/// The events, in order.
pub fn events() -> Vec<Event> {
    let names = ["mbs", "bs1", "bs2", "ug1", "ug2"];
    let links: Vec<LinkInfo> = ["bs1", "bs2"]
        .into_iter()
        .flat_map(|bs| [link(bs, "mbs", "uplink"), link("mbs", bs, "downlink")])
        .collect();
    let mut whats = vec![What::SessionStarted(SessionStarted {
        name: "small".into(),
        seed: 4,
        dilation: 2.0,
        version: "0.1.0".into(),
        nodes: vec![
            node("mbs", "mbs", "10.0.0.1", 0),
            node("bs1", "bs", "10.0.1.1", 0),
            node("bs2", "bs", "10.0.1.2", 0),
            node("ug1", "users", "10.64.0.0", 2),
            node("ug2", "users", "10.64.0.2", 2),
        ],
        links: links.clone(),
    })];
    for (index, name) in names.into_iter().enumerate() {
        whats.push(What::NodeStarted { node: name.into(), pid: 100 + index as i32, restarts: 0 });
        whats.push(What::NodeReady { node: name.into(), agent: "dtwn 0.1.0".into() });
    }
    whats.push(What::Up { bringup_ms: 42.0 });
    for second in 1..=3 {
        let nodes = names.map(|name| NodeCounters {
            node: name.into(),
            cpu_s: 0.1 * second as f64,
            rss_bytes: 30 << 20,
            send_queue_bytes: 1000,
        });
        whats.push(What::Sample(Sample {
            links: links.iter().map(|link| counters(link, second)).collect(),
            nodes: nodes.into(),
            session_cpu_s: 0.2 * second as f64,
            lateness_us_p99: 65.0,
        }));
    }
    whats.push(What::Transfer(Transfer {
        kind: "model-down".into(),
        from: "mbs".into(),
        to: "bs1".into(),
        bytes: 8_625_960,
        measured_ms: 206.0,
        predicted_ms: 157.0,
    }));
    whats.push(What::TwinAges { twins: 2, p50_ms: 500.0, p99_ms: 900.0 });
    whats.push(What::Round(Round {
        round: 1,
        completed_by: vec!["bs1".into()],
        missed_by: vec!["bs2".into()],
        duration_ms: 2192.0,
    }));
    whats.push(What::Partitioned { groups: vec![vec!["bs1".into()], vec!["bs2".into()]], one_way: false });
    whats.push(What::NodeExited {
        node: "bs2".into(),
        exit: Exit::Signal(9),
        expected: false,
        last_log: vec!["the last words".into()],
    });
    whats.push(What::Fidelity(Fidelity {
        verdict: Verdict::Degraded,
        reasons: vec!["3.0 % of the packets of bs1>mbs were delivered late".into()],
        ..Fidelity::default()
    }));
    whats.push(What::Notice { level: Level::Warning, text: "this kernel has no such setting".into() });
    whats
        .into_iter()
        .enumerate()
        .map(|(index, what)| Event {
            node: SESSION.into(),
            sequence: index as u64,
            at_ns: index as i64 * 100_000_000,
            wall_unix_ns: index as u64 * 200_000_000,
            what,
        })
        .collect()
}

/// The run after all of them.
pub fn data() -> Data {
    let mut data = Data::default();
    events().iter().for_each(|event| data.apply(event));
    data
}
