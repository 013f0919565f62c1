//! The measurement itself: one TCP flow from a BS to the MBS.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use dtwn_model::{
    Plan, Topology,
    geometry::Position,
    topology::{Bs, LinkClasses, LinkSettings, RateSource},
    units::BitsPerSecond,
};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike,
    },
    unistd::{SysconfVar, sysconf},
};

use super::Capacity;
use crate::{
    error::{Error, Result},
    machine,
    session::{
        medium::Air,
        network::{self, NodeNet},
    },
};

/// Time for TCP to find its rate.
const WARM_UP: Duration = Duration::from_millis(80);
/// Time over which packets are counted.
const WINDOW: Duration = Duration::from_millis(200);
/// Bytes given to the kernel at once.
const CHUNK: usize = 65_536;
/// The port that the receiver listens at, in a namespace where nobody else is.
const PORT: u16 = 5001;
/// Faster than any machine, so that links never wait, yet a rate: packets pass every stage that they pass in a network.
const LINK_BPS: f64 = 1e11;

/// Measures what the medium carries. Moves this process into namespaces of its own, so it must not have any thread yet.
///
/// # Errors
/// What keeps namespaces, TUNs or the medium from working here.
pub fn measure() -> Result<Capacity> {
    machine::check_tun()?;
    machine::enter_namespaces()?;
    let plan = Plan::new(&wire())?;
    let mut network = network::build(&plan)?;
    let air = Air::start(&plan, std::mem::take(&mut network.tuns))?;
    let (sender, receiver) = connect(&plan, &network.nodes)?;
    let ends = [&sender, &receiver].map(TcpStream::try_clone);
    thread::scope(|scope| {
        scope.spawn(|| send(&sender));
        scope.spawn(|| receive(&receiver));
        let counted = count(&air);
        // Wakes both threads from whatever call they are in.
        for end in ends.iter().flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
        counted
    })
}

/// An MBS and a BS, joined by links that take no time.
pub fn wire() -> Topology {
    let link =
        LinkSettings { rate: RateSource::Fixed(BitsPerSecond::new(LINK_BPS)), ..LinkSettings::default() };
    Topology {
        link: LinkClasses { uplink: link.clone(), downlink: link, ..LinkClasses::default() },
        bs: vec![Bs { id: "bs1".into(), position_m: Position { x: 100.0, y: 0.0 }, ..Bs::default() }],
        ..Topology::default()
    }
}

fn connect(plan: &Plan, nodes: &[NodeNet]) -> Result<(TcpStream, TcpStream)> {
    let failed = |source| Error::File { what: "open", path: "a TCP connection over the air".into(), source };
    let ([mbs, bs], [to, _]) = (nodes, plan.nodes.as_slice()) else {
        return Err(failed(std::io::Error::other("not two nodes")));
    };
    let address = (to.main, PORT);
    let listener = mbs.namespace.run(|| Ok(TcpListener::bind(address)))?.map_err(failed)?;
    let patience = Duration::from_secs(5);
    let connect = || Ok(TcpStream::connect_timeout(&address.into(), patience));
    let sender = bs.namespace.run(connect)?.map_err(failed)?;
    let (receiver, _) = listener.accept().map_err(failed)?;
    Ok((sender, receiver))
}

fn send(mut socket: &TcpStream) {
    let data = vec![0; CHUNK];
    while socket.write_all(&data).is_ok() {}
}

fn receive(mut socket: &TcpStream) {
    let mut data = vec![0; CHUNK];
    while socket.read(&mut data).is_ok_and(|length| length > 0) {}
}

fn count(air: &Air) -> Result<Capacity> {
    thread::sleep(WARM_UP);
    let (busy, begun) = (Busy::now(), Instant::now());
    let before = air.medium().snapshot()?;
    thread::sleep(WINDOW);
    let after = air.medium().snapshot()?;
    let others_busy_cores = busy.others_until_now(begun.elapsed());
    let window_s = after.at_ns.saturating_sub(before.at_ns) as f64 / 1e9;
    let (packets, bytes) = (
        after.totals.written.packets - before.totals.written.packets,
        after.totals.written.bytes - before.totals.written.bytes,
    );
    if packets == 0 {
        return Err(Error::Machine {
            what: "no packet crossed the medium while its capacity was measured".into(),
            help:
                "the machine may be far too busy: try again; if it stays so, `dtwn up topologies/small.toml` \
                   and its session.log may tell more"
                    .into(),
        });
    }
    Ok(Capacity {
        bits_per_s: bytes as f64 * 8.0 / window_s,
        packets_per_s: packets as f64 / window_s,
        others_busy_cores,
        window_ms: window_s * 1e3,
    })
}

/// Processor time used up so far, seconds.
struct Busy {
    machine_s: Option<f64>,
    own_s: f64,
}

impl Busy {
    fn now() -> Self {
        let own = getrusage(UsageWho::RUSAGE_SELF)
            .map_or(0, |usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds());
        Self { machine_s: machine_busy_s(), own_s: own as f64 / 1e6 }
    }

    /// Cores that others kept busy since; 0 where the kernel does not say.
    fn others_until_now(&self, elapsed: Duration) -> f64 {
        let now = Self::now();
        let (Some(before), Some(after)) = (self.machine_s, now.machine_s) else { return 0.0 };
        let others_s = (after - before) - (now.own_s - self.own_s);
        // The kernel counts the machine in ticks of 10 ms and us exactly: the difference may fall below nothing.
        (others_s / elapsed.as_secs_f64()).max(0.0)
    }
}

/// All cores' time outside the idle loop, from the first line of `/proc/stat` (proc(5)).
fn machine_busy_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    busy_ticks(&stat).zip(sysconf(SysconfVar::CLK_TCK).ok()?).map(|(ticks, hz)| ticks as f64 / hz as f64)
}

fn busy_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are counted in user already.
    [0, 1, 2, 5, 6, 7].iter().map(|i| fields.get(*i)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_cores_are_not_busy() {
        assert_eq!(busy_ticks("cpu  10 20 30 1000 2000 1 2 4 500 600\ncpu0 1 2"), Some(67));
        assert_eq!(busy_ticks("cpu  10 20"), None);
        assert_eq!(busy_ticks(""), None);
    }

    #[test]
    fn the_wire_has_a_plan_of_two_nodes() {
        let plan = Plan::new(&wire()).unwrap();
        assert_eq!(plan.nodes.len(), 2);
        assert_eq!(plan.offered(0).uplink.get(), LINK_BPS);
    }
}
