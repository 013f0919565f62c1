//! A recorded run in small, for tests: four BSs, four user groups, and one of everything that can happen.

use dtwn_proto::event::{
    AssociationDecision, ChainBlock, ChainElection, ChainProgress, Drops, Event, Exit, Fidelity, GlobalModel,
    Level, LinkCounters, LinkInfo, LocalModel, NodeCounters, NodeInfo, Round, SESSION, Sample,
    SessionStarted, Transfer, TwinAge, TwinMoved, Verdict, Verification, What,
};

use super::{data::Data, logs::LogLine, sites::Sites};

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
        bytes: 1_300_000 * second,
        dropped: Drops { loss: 10 * second, ..Drops::default() },
        queue_bytes: 15_000,
        utilisation: 0.4,
        ..LinkCounters::default()
    }
}

/// The nodes, in the topology's order.
const NODES: [&str; 9] = ["mbs", "bs1", "bs2", "bs3", "bs4", "ug1", "ug2", "ug3", "ug4"];
const BSS: [&str; 4] = ["bs1", "bs2", "bs3", "bs4"];

/// Where the stations are: a square of BSs, two users around each.
pub fn sites() -> Sites {
    let mut text = "[run]\nname = \"small\"\n".to_owned();
    for (index, place) in ["180, 0", "0, 180", "-180, 0", "0, -180"].iter().enumerate() {
        let number = index + 1;
        text += &format!("[[bs]]\nid = \"bs{number}\"\nposition_m = [{place}]\ncoverage = \"100 m\"\n");
        text += &format!("[[users]]\nid = \"ug{number}\"\ncount = 2\naround = \"bs{number}\"\n");
    }
    let sites = Sites::parse("small.toml".as_ref(), text);
    assert_eq!(sites.error, None);
    sites
}

fn started() -> SessionStarted {
    let mut nodes = vec![node("mbs", "mbs", "10.0.0.1", 0)];
    let mut links = Vec::new();
    for (index, bs) in BSS.into_iter().enumerate() {
        nodes.push(node(bs, "bs", &format!("10.0.1.{}", index + 1), 0));
        links.extend([link(bs, "mbs", "uplink"), link("mbs", bs, "downlink")]);
    }
    for (index, bs) in BSS.into_iter().enumerate() {
        let group = format!("ug{}", index + 1);
        nodes.push(node(&group, "users", &format!("10.64.0.{}", index * 2), 2));
        for user in 1..=2 {
            let user = format!("{group}.{user}");
            links.extend([link(&user, bs, "access-up"), link(bs, &user, "access-down")]);
        }
    }
    SessionStarted { name: "small".into(), seed: 4, dilation: 2.0, version: "0.1.0".into(), nodes, links }
}

fn sample(links: &[LinkInfo], second: u64) -> What {
    let nodes = NODES.map(|name| NodeCounters {
        node: name.into(),
        cpu_s: 0.1 * second as f64,
        rss_bytes: 30 << 20,
        send_queue_bytes: 1000,
    });
    What::Sample(Sample {
        links: links.iter().map(|link| counters(link, second)).collect(),
        nodes: nodes.into(),
        session_cpu_s: 0.2 * second as f64,
        lateness_us_p99: 65.0,
    })
}

/// What the nodes report of a chain of a dozen blocks: bs2 let a view pass, and bs4 is two blocks behind.
fn chain() -> Vec<(&'static str, What)> {
    let views = [0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13];
    let blocks: Vec<ChainBlock> = (1..=12_u64)
        .zip(views)
        .map(|(height, view)| ChainBlock {
            height,
            epoch: 1,
            view,
            leader: BSS[view as usize % 4].into(),
            digest: format!("{:016x}", height.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            transactions: 10 * height as u32,
            models: u32::from(height % 4 == 1),
            bytes: 5120 * height,
            signers: if height % 3 == 0 { vec![] } else { vec![0, 1, 3] },
            finalized_at_ns: 250_000_000 * height + if height == 6 { 90_000_000 } else { 0 },
            finality_ms: (height % 4 == 1).then_some(2.5),
        })
        .collect();
    let tip = |height: u64| blocks[height as usize - 1].digest.clone();
    let report = |height: u64| ChainProgress {
        height,
        tip: tip(height),
        epoch: 1,
        view: height + 2,
        mempool_transactions: 7,
        mempool_bytes: 3584,
        views: 14,
        nullified: 2,
        blocks: height,
        transactions: 780,
        missed: vec![("bs2".into(), 2)],
        finality_us: vec![(2048, 90), (31_744, 10)],
        block_finality_us: vec![(2496, 12)],
        election: Some(ChainElection { epoch: 1, producers: BSS.map(Into::into).into() }),
        coins: vec![250_000_000_000, 249_000_000_000, 251_000_000_000, 250_000_000_000],
        ..ChainProgress::default()
    };
    let progress = |height| What::ChainProgress(Box::new(report(height)));
    let mut whats: Vec<_> =
        ["mbs", "bs1", "bs2", "bs3"].into_iter().map(|node| (node, progress(12))).collect();
    whats.push(("bs4", progress(10)));
    whats.push(("mbs", What::ChainBlocks { blocks, skipped: 0 }));
    whats
}

/// Three rounds' decisions: bs2 loses twins to bs3, and says nothing in time for the last.
fn decisions() -> Vec<What> {
    let decision = |round: u64| AssociationDecision {
        round,
        policy: "greedy".into(),
        observed_slot: 10 * round,
        slot: 10 * round + 1,
        k: vec![2, 4 - round as u32, round as u32, 2],
        b: vec![0.25, 0.5, 0.125, 0.3],
        tau: vec![0.7, 0.1, 0.1, 0.2, 0.1, 0.3, 0.1, 0.4],
        predicted_ms: [1200.0, 400.0, 90.0],
        ratio_to_optimal: Some(1.0 + 0.01 * round as f64),
        migrations: 1,
        decision_us: 150.0,
        serving: vec![],
        height: 4 * round,
        kept_by: if round == 3 { vec!["bs2".into()] } else { vec![] },
    };
    (1..=3).map(|round| What::Association(Box::new(decision(round)))).collect()
}

/// What was learned in three rounds; bs1 found the model of bs2 bad.
fn models() -> Vec<(&'static str, What)> {
    let local = |bs: u64| LocalModel {
        round: 3,
        twins: 2,
        samples: 272,
        loss: 1.5 + 0.1 * bs as f64,
        held_out_loss: Some(1.75),
        held_out_accuracy: Some(0.4),
        bytes: 8_625_960,
        train_wall_ms: 130.0,
        aggregate_wall_ms: 4.0,
        train_ms: 812.0,
        predicted_ms: 800.0,
        aggregate_ms: 2.0,
        aggregate_predicted_ms: 0.0,
        overrun_ms: 0.0,
    };
    let global = |round: u64| GlobalModel {
        round,
        dataset: "synthetic".into(),
        digest: format!("{round:064x}"),
        accepted: vec!["bs1".into(), "bs3".into(), "bs4".into()],
        rejected: if round == 3 { vec!["bs2".into()] } else { vec![] },
        late: vec![],
        test_loss: Some(2.3 - 0.25 * round as f64),
        test_accuracy: Some(0.1 + 0.15 * round as f64),
        aggregate_wall_ms: 4.0,
        restored: false,
    };
    let finding = Verification {
        round: 3,
        owner: "bs2".into(),
        fault: Some("a value is not finite".into()),
        loss: None,
        verify_wall_ms: 20.0,
        verify_ms: 10.0,
        predicted_ms: 12.0,
    };
    let mut whats: Vec<_> =
        BSS.into_iter().zip(0..).map(|(bs, index)| (bs, What::LocalModel(local(index)))).collect();
    whats.push(("bs1", What::Verification(finding)));
    whats.extend((0..=3).map(|round| ("mbs", What::GlobalModel(global(round)))));
    whats
}

fn moved(twin: &str, from: &str, to: &str) -> (&'static str, What) {
    let (twin, from, to) = (twin.into(), from.into(), to.into());
    let (epoch, from_round, samples, bytes, took_ms) = (2, 3, 500, 10_162_460, 640.0);
    ("bs3", What::TwinMoved(TwinMoved { twin, from, to, epoch, from_round, samples, bytes, took_ms }))
}

/// A run's middle: bodies went through the air, and things went wrong.
fn troubles(links: &[LinkInfo]) -> Vec<What> {
    let lossy = LinkInfo { loss: 0.05, ..links[0].clone() };
    vec![
        What::Transfer(Transfer {
            kind: "model-down".into(),
            from: "mbs".into(),
            to: "bs1".into(),
            bytes: 8_625_960,
            measured_ms: 206.0,
            predicted_ms: 157.0,
        }),
        What::Round(Round {
            round: 1,
            completed_by: vec!["bs1".into(), "bs3".into(), "bs4".into()],
            missed_by: vec!["bs2".into()],
            duration_ms: 2192.0,
            predicted_ms: Some([800.0, 310.0, 90.0]),
        }),
        What::LinkChanged { link: lossy.name.clone(), change: "loss 5%".into(), now: lossy },
        What::Partitioned { groups: vec![vec!["bs1".into()], vec!["bs2".into()]], one_way: false },
        What::NodePaused { node: "ug3".into(), paused: true },
        What::NodeExited {
            node: "bs2".into(),
            exit: Exit::Signal(9),
            expected: false,
            last_log: vec!["the last words".into()],
        },
        What::Fidelity(Fidelity {
            verdict: Verdict::Degraded,
            reasons: vec!["3.0 % of the packets of bs1>mbs were delivered late".into()],
            ..Fidelity::default()
        }),
        What::Notice { level: Level::Warning, text: "this kernel has no such setting".into() },
    ]
}

/// The twins of a BS, by its number: the last one's second user was never heard of, and one is on its way to bs3.
fn ages(index: u32) -> What {
    let silent = index == 4;
    let heard = |user: u32, age_ms: f64| TwinAge {
        twin: format!("ug{index}.{user}"),
        age_ms: Some(age_ms),
        position_m: Some([180.5, -3.0 * f64::from(index)]),
        battery: Some(0.875),
        load: Some(0.4),
        missed: u64::from(index == 2),
    };
    let second = match silent {
        true => TwinAge { twin: "ug4.2".into(), ..TwinAge::default() },
        false => heard(2, 900.0 + f64::from(index)),
    };
    What::TwinAges {
        twins: 2,
        arriving: u32::from(index == 3),
        p50_ms: Some(500.0),
        p99_ms: Some(if silent { 500.0 } else { 900.0 + f64::from(index) }),
        each: vec![heard(1, 500.0), second],
    }
}

/// The events, in order.
pub fn events() -> Vec<Event> {
    let started = started();
    let links = started.links.clone();
    let mut whats = vec![(SESSION, What::SessionStarted(started))];
    for (index, name) in NODES.into_iter().enumerate() {
        let node = || name.to_owned();
        whats.push((SESSION, What::NodeStarted { node: node(), pid: 100 + index as i32, restarts: 0 }));
        whats.push((SESSION, What::NodeReady { node: node(), agent: "dtwn 0.1.0".into() }));
    }
    whats.push((SESSION, What::Up { bringup_ms: 42.0 }));
    whats.extend((1..=3).map(|second| (SESSION, sample(&links, second))));
    whats.extend(BSS.into_iter().zip(1..).map(|(bs, index)| (bs, ages(index))));
    whats.extend([moved("ug2.1", "bs2", "bs3"), moved("ug2.2", "bs2", "bs3")]);
    whats.extend(chain());
    whats.extend(decisions().into_iter().map(|what| ("mbs", what)));
    whats.extend(models());
    whats.extend(troubles(&links).into_iter().map(|what| (SESSION, what)));
    let mut sequences = std::collections::HashMap::<&str, u64>::new();
    let numbered = whats.into_iter().enumerate().map(|(index, (node, what))| {
        let sequence = sequences.entry(node).or_insert(0);
        *sequence += 1;
        Event {
            node: node.into(),
            sequence: *sequence - 1,
            at_ns: index as i64 * 100_000_000,
            wall_unix_ns: index as u64 * 200_000_000,
            what,
        }
    });
    numbered.collect()
}

/// Log lines of all kinds.
pub fn logs() -> Vec<LogLine> {
    [
        ("bs1", "2026-01-01T00:00:01.000Z  INFO listening on 10.0.1.1:7000"),
        ("bs2", "2026-01-01T00:00:01.100Z  WARN no word from bs1 for 2 s"),
        ("bs2", "2026-01-01T00:00:01.200Z ERROR the last words"),
        ("session", "2026-01-01T00:00:01.300Z  INFO bs2 ended: signal 9"),
    ]
    .map(|(node, text)| LogLine::new(node, text))
    .into()
}

/// The run after all of them.
pub fn data() -> Data {
    let mut data = Data::default();
    events().iter().for_each(|event| data.apply(event));
    data
}
