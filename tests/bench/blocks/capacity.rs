//! What one TCP flow carries through the whole pipeline, beside a bare forwarder between two TUNs in the same run.

use std::{
    net::Ipv4Addr,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dtwn_sys::{
    netlink::{Netlink, Route, RouteMetrics},
    netns::NetNs,
    process::Placement,
    sched, tun,
    userns::{self, Privilege},
};
use serde_json::{Value, json};

use crate::{
    Bench, Result,
    common::{itself, load::Load, probe::iperf_server, report::Row, session::run, stats::median},
};

/// DESIGN: at least this share of the bare forwarder's.
const SHARE_MIN: f64 = 0.8;
/// The argument that makes the benchmark the forwarder.
const BARE: &str = "__bare";
/// As the medium asks for its own thread.
const SLICE_NS: u64 = 200_000;
/// The interface's ring as dtwn sets it.
const RING_PACKETS: u32 = 10_000;

/// Runs the bare forwarder if `args` ask for it.
pub fn play(args: &[String]) -> Option<Result<()>> {
    (args.first()? == BARE).then(|| bare(args.get(1).map_or("3", String::as_str)))
}

/// What one flow reached.
#[derive(Clone, Copy)]
struct Flow {
    goodput_bps: f64,
    cpu_percent: f64,
}

/// Why a verdict was what it was.
type Fidelity = Value;

pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let (turns, seconds) = if bench.quick { (1, "1") } else { (3, "3") };
    let (mut bare, mut full, mut fidelities) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that both see the same machine.
    for _ in 0..turns {
        bare.push(through_bare(bench, seconds)?);
        let (flow, fidelity) = through_session(bench, seconds, "tcp = \"kernel\"\n\n")?;
        full.push(flow);
        fidelities.push(fidelity);
    }
    let (default, default_fidelity) = through_session(bench, seconds, "")?;
    let of = |flows: &[Flow], figure: fn(&Flow) -> f64| median(flows.iter().map(figure));
    let (bare_bps, full_bps) = (of(&bare, |flow| flow.goodput_bps), of(&full, |flow| flow.goodput_bps));
    let share = full_bps / bare_bps;
    let all = |flows: &[Flow]| flows.iter().map(|flow| flow.goodput_bps).collect::<Vec<_>>();
    let row = |what: &str| Row::new("capacity", bench.load, what);
    Ok(vec![
        Row {
            measured: format!("{:.0} Mbit/s", bare_bps / 1e6),
            reference: "-".to_owned(),
            cpu_percent: Some(of(&bare, |flow| flow.cpu_percent)),
            figures: json!({ "goodput_bps": all(&bare) }),
            ..row("bare forwarder")
        },
        Row {
            measured: format!("{:.0} Mbit/s, {:.0} % of the bare", full_bps / 1e6, share * 100.0),
            reference: format!(">= {:.0} % of the bare", SHARE_MIN * 100.0),
            // Beside a load the two compete with it in different ways; the target is one of an idle machine.
            met: (bench.load == Load::Idle).then_some(share >= SHARE_MIN),
            cpu_percent: Some(of(&full, |flow| flow.cpu_percent)),
            verdict: worst(&fidelities),
            figures: json!({ "goodput_bps": all(&full), "share_of_bare": share, "fidelity": fidelities }),
            ..row("whole pipeline, kernel's TCP")
        },
        Row {
            measured: format!("{:.0} Mbit/s", default.goodput_bps / 1e6),
            reference: "-".to_owned(),
            cpu_percent: Some(default.cpu_percent),
            figures: json!({ "goodput_bps": [default.goodput_bps], "fidelity": [default_fidelity] }),
            verdict: worst(&[default_fidelity]),
            ..row("whole pipeline, dtwn's TCP settings")
        },
    ])
}

/// A link faster than the machine, so that the pipeline is what is measured, and in which every stage has work.
const FULL: &str = "rate = \"10 Gbit/s\"\ndelay = \"50 us\"\njitter = \"10 us\"\nduplicate = 1e-9\ncorrupt = 1e-9\n\
     loss = { good_to_bad = 1e-9, bad_to_good = 0.5, loss_good = 0, loss_bad = 1e-9 }";

fn through_session(bench: &Bench, seconds: &str, tcp: &str) -> Result<(Flow, Fidelity)> {
    let topology =
        format!("{tcp}{}", bench.star(1, FULL, "")).replace("rate = \"1 Gbit/s\"", "rate = \"10 Gbit/s\"");
    let session = bench.dtwn.up(&topology)?;
    session.silence()?;
    let burning = bench.load.start()?;
    let server = iperf_server(&session, "mbs")?;
    let cpu = session.cpu()?;
    let output = run(&mut session.exec("bs1", "iperf3".as_ref(), iperf_words("mbs", seconds)))?;
    let cpu_s = (session.cpu()? - cpu).as_secs_f64();
    drop((server, burning));
    let flow = Flow { goodput_bps: goodput(&output.stdout)?, cpu_percent: percent(cpu_s, seconds) };
    Ok((flow, session.down()?.summary["fidelity"].take()))
}

/// The worst of several sessions' verdicts.
fn worst(fidelities: &[Fidelity]) -> Option<String> {
    let rank = |verdict: &&str| ["ok", "degraded", "invalid"].iter().position(|known| known == verdict);
    fidelities.iter().filter_map(|fidelity| fidelity["verdict"].as_str()).max_by_key(rank).map(str::to_owned)
}

fn iperf_words<'a>(to: &'a str, seconds: &'a str) -> [&'a str; 9] {
    // New namespaces may start with another congestion control than dtwn's: the same one on both sides.
    ["-c", to, "-J", "-O", "1", "-t", seconds, "-C", "cubic"]
}

fn goodput(said: &[u8]) -> Result<f64> {
    let said: Value = serde_json::from_slice(said)?;
    let rate = said["end"]["sum_received"]["bits_per_second"].as_f64();
    rate.ok_or_else(|| format!("iperf3 names no rate: {}", said["error"]).into())
}

fn percent(cpu_s: f64, seconds: &str) -> f64 {
    // iperf3's first second is left out of the rate, not of the work.
    cpu_s / (seconds.parse::<f64>().unwrap_or(f64::NAN) + 1.0) * 100.0
}

fn through_bare(bench: &Bench, seconds: &str) -> Result<Flow> {
    let burning = bench.load.start()?;
    let output = run(Command::new(itself()?).args([BARE, seconds]))?;
    drop(burning);
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let figure = |key: &str| said[key].as_f64().ok_or("the bare forwarder says nothing");
    Ok(Flow { goodput_bps: figure("goodput_bps")?, cpu_percent: figure("cpu_percent")? })
}

/// Forwards one flow between two namespaces; a process of its own, as an ordinary user has to enter a user namespace for it.
fn bare(seconds: &str) -> Result<()> {
    if userns::privilege()? == Privilege::Unprivileged {
        userns::enter_user_namespace()?;
    }
    let addresses = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
    let (server_at, server_tun) = node(addresses[0])?;
    let (client_at, client_tun) = node(addresses[1])?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let forwarder = std::thread::spawn(move || -> Result<f64> {
        sched::set_timer_slack_ns(1)?;
        // Scheduled as the medium is, which asks for the same and goes on without what it does not get.
        let _ = sched::set_round_robin().or_else(|_| sched::set_slice_ns(SLICE_NS));
        dtwn_air::forward_bare(&server_tun, &client_tun, &flag)?;
        let used = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        Ok(used.tv_sec() as f64 + used.tv_nsec() as f64 / 1e9)
    });
    let mut server = at(&server_at, ["-s", "-1"])?.stdout(Stdio::null()).spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let to = addresses[0].to_string();
    let output = run(&mut at(&client_at, iperf_words(&to, seconds))?);
    stop.store(true, Ordering::Relaxed);
    let cpu_s = forwarder.join().map_err(|_| "the forwarder panicked")??;
    // A client that failed leaves the server waiting.
    server.kill()?;
    server.wait()?;
    let goodput_bps = goodput(&output?.stdout)?;
    println!("{}", json!({ "goodput_bps": goodput_bps, "cpu_percent": percent(cpu_s, seconds) }));
    Ok(())
}

fn at<const N: usize>(namespace: &NetNs, words: [&str; N]) -> Result<Command> {
    let mut command = Command::new("iperf3");
    command.args(words).stdin(Stdio::null());
    Placement::new().namespace(namespace.try_clone()?.into()).die_with_parent().apply(&mut command);
    Ok(command)
}

/// A namespace whose only way out is a TUN, set up as dtwn does.
fn node(address: Ipv4Addr) -> Result<(NetNs, OwnedFd)> {
    Ok(NetNs::create(|| {
        let tun = tun::open_tun("air0")?;
        let mut netlink = Netlink::open()?;
        let index = netlink.index_of("air0")?;
        netlink.add_address(index, address, 32)?;
        netlink.set_up(index, Some(1500), Some(RING_PACKETS))?;
        netlink.add_route(&Route {
            destination: (Ipv4Addr::new(10, 77, 0, 0), 16),
            interface: index,
            source: Some(address),
            local: false,
            metrics: RouteMetrics::default(),
        })?;
        Ok(tun)
    })?)
}
