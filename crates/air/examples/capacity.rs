//! Measures what the medium carries on this machine with iperf3 between two namespaces: a bare forwarder, then the
//! medium with perfect wires, then with the whole pipeline. Usage: `capacity [SECONDS] [CASE…]`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement stops where it fails")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{address, node, star};
use dtwn_air::{LinkProperties, Medium, Options, forward_bare};
use dtwn_sys::netns::NetNs;
use dtwn_sys::process::Placement;

fn command(namespace: &NetNs, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    let entry = namespace.try_clone().expect("a descriptor");
    Placement::new().namespace(entry.into()).die_with_parent().apply(&mut command);
    command
}

/// Runs iperf3 from the second node to the first; returns the receiver's Mbit/s of TCP payload.
fn iperf(server: &NetNs, client: &NetNs, arguments: &[&str]) -> f64 {
    let mut listening =
        command(server, "iperf3", &["-s", "-1"]).stdout(Stdio::null()).spawn().expect("iperf3");
    std::thread::sleep(Duration::from_millis(300));
    let to = address(0).to_string();
    let mut all = vec!["-c", &to, "-J"];
    all.extend(arguments);
    let output = command(client, "iperf3", &all).output().expect("iperf3");
    listening.wait().expect("iperf3 server");
    let text = String::from_utf8_lossy(&output.stdout);
    let sum =
        text.split("\"sum_received\"").nth(1).or_else(|| text.split("\"sum\"").nth(1)).unwrap_or_default();
    let rate = sum.split("\"bits_per_second\":").nth(1).and_then(|r| r.split(',').next());
    rate.and_then(|r| r.trim().parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e6
}

fn bare(arguments: &[&str]) {
    let ((a_ns, a), (b_ns, b)) = (node(address(0)), node(address(1)));
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let forwarder = std::thread::spawn(move || forward_bare(&a, &b, &flag));
    println!("bare: {:.0} Mbit/s", iperf(&a_ns, &b_ns, arguments));
    stop.store(true, Ordering::Relaxed);
    forwarder.join().expect("forwarder").expect("forwarding");
}

fn medium(name: &str, arguments: &[&str], properties: &LinkProperties) {
    let ((a_ns, a), (b_ns, b)) = (node(address(0)), node(address(1)));
    let handle =
        Medium::start(star(1, |_| properties.clone()), vec![a, b], Options::default()).expect("medium");
    let rate = iperf(&a_ns, &b_ns, arguments);
    let snapshot = handle.stop().expect("stop");
    let up = snapshot.links[0];
    println!(
        "{name}: {rate:.0} Mbit/s, cpu {:.2} µs/packet, lateness p50 {} p99 {} max {} µs, drops {:?}, \
         backlogged {:.2} s at {:.4} of its rate, late {} of {}",
        snapshot.cpu_ns as f64 / 1e3 / snapshot.totals.read.packets as f64,
        snapshot.lateness.overall.p50_ns / 1000,
        snapshot.lateness.overall.p99_ns / 1000,
        snapshot.lateness.overall.max_ns / 1000,
        snapshot.totals.drops,
        up.backlogged_ns as f64 / 1e9,
        up.backlogged_bytes / up.backlogged_capacity_bytes,
        up.late,
        up.written,
    );
}

/// One TCP flow on each of `flows` links of 10 Mbit/s towards the root. One thread drains all receivers from time to
/// time: a thread for each, woken for every packet, would cost more than all the rest.
fn width(flows: u8, seconds: u64) {
    let (nodes, tuns): (Vec<_>, Vec<_>) = (0..=flows).map(|i| node(address(i))).unzip();
    let shaped = |link| LinkProperties {
        rate_bps: (link % 2 == 0).then_some(10e6),
        delay: Duration::from_millis(1),
        ..LinkProperties::default()
    };
    let handle = Medium::start(star(flows, shaped), tuns, Options::default()).expect("medium");
    let listener =
        nodes[0].run(|| Ok(TcpListener::bind((address(0), 5000)).expect("bind"))).expect("listener");
    let mut receivers = Vec::new();
    for leaf in &nodes[1..] {
        let mut sender =
            leaf.run(|| Ok(TcpStream::connect((address(0), 5000)).expect("connect"))).expect("sender");
        let (receiver, _) = listener.accept().expect("accept");
        receiver.set_nonblocking(true).expect("non-blocking");
        receivers.push(receiver);
        std::thread::spawn(move || while sender.write_all(&[0; 16_384]).is_ok() {});
    }
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            for receiver in &mut receivers {
                while receiver.read(&mut buffer).is_ok_and(|len| len > 0) {}
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    std::thread::sleep(Duration::from_secs(1));
    let before = handle.snapshot().expect("snapshot");
    std::thread::sleep(Duration::from_secs(seconds));
    let after = handle.snapshot().expect("snapshot");
    let elapsed_ns = after.at_ns - before.at_ns;
    let ups = (0..usize::from(flows)).map(|i| (&before.links[2 * i], &after.links[2 * i]));
    let rates = ups.map(|(b, a)| (a.carried.bytes - b.carried.bytes) as f64 * 8e3 / elapsed_ns as f64);
    let (least, most) = rates.fold((f64::MAX, 0f64), |(least, most), rate| (least.min(rate), most.max(rate)));
    println!(
        "width {flows}: {least:.3} to {most:.3} Mbit/s each, lateness p50 {} p99 {} max {} µs, medium's CPU {:.0} %, \
         drops {:?}",
        after.lateness.interval.p50_ns / 1000,
        after.lateness.interval.p99_ns / 1000,
        after.lateness.interval.max_ns / 1000,
        (after.cpu_ns - before.cpu_ns) as f64 * 100.0 / elapsed_ns as f64,
        after.totals.drops,
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.first().map_or("3", String::as_str);
    let wanted = |case: &str| arguments.len() < 2 || arguments[1..].iter().any(|a| a == case);
    let tcp = ["-t", seconds];
    let shaped = |rate_bps| LinkProperties { rate_bps: Some(rate_bps), ..LinkProperties::default() };
    if wanted("bare") {
        bare(&tcp);
    }
    if wanted("wire") {
        medium("wire", &tcp, &LinkProperties::default());
    }
    if wanted("full") {
        // Faster than the machine, so that the pipeline is what is measured; every stage has work.
        let full = LinkProperties {
            delay: Duration::from_micros(50),
            jitter: Duration::from_micros(10),
            loss: dtwn_air::Loss::GilbertElliott { p: 1e-9, r: 0.5, loss_good: 0.0, loss_bad: 1e-9 },
            duplicate: 1e-9,
            corrupt: 1e-9,
            ..shaped(10e9)
        };
        medium("full", &tcp, &full);
    }
    for mbit in [1u32, 10, 100, 500] {
        if wanted(&format!("rate{mbit}")) {
            medium(&format!("rate{mbit}"), &tcp, &shaped(f64::from(mbit) * 1e6));
        }
    }
    for flows in [50, 100, 150] {
        if wanted(&format!("width{flows}")) {
            width(flows, seconds.parse().unwrap_or(3));
        }
    }
}
