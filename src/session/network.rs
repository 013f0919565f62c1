//! Builds the namespaces of a plan: one per node, with a TUN, addresses, routes and TCP settings.

use std::{net::Ipv4Addr, os::fd::OwnedFd, thread};

use dtwn_model::{
    plan::{NodePlan, Plan},
    topology::{Tcp, TcpTuning},
};
use dtwn_sys::{
    netlink::{LinkStats, Netlink, Route, RouteMetrics},
    netns::NetNs,
    sysctl, tun,
};
use serde::Serialize;

use crate::error::{Error, Result};

/// The TUN's name inside each namespace.
pub const INTERFACE: &str = "air0";

/// The network that all addresses of a plan come from.
const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 8);
/// Aliases of BSs towards users; see the plan's addressing.
const ALIASES: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 128, 0, 0), 9);
/// Packets that the TUN's ring holds: the default of 500 overflows in a burst, which would count as a host drop.
const RING_PACKETS: u32 = 10_000;

/// A node's namespace.
pub struct NodeNet {
    /// The namespace itself.
    pub namespace: NetNs,
    netlink: Netlink,
}

impl NodeNet {
    /// What the TUN's interface has counted.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn stats(&mut self) -> Result<LinkStats> {
        Ok(self.netlink.stats(INTERFACE)?)
    }
}

/// TCP settings as read back from a namespace.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TcpInForce {
    /// `net.ipv4.*` settings.
    pub sysctls: Vec<(String, String)>,
    /// Route `rto_min`, wall milliseconds.
    pub rto_min_ms: Option<u32>,
    /// Route `quickack`.
    pub quickack: Option<bool>,
    /// Route `congctl`.
    pub congctl: Option<String>,
}

/// All namespaces of a plan.
pub struct Network {
    /// In the order of the plan's nodes.
    pub nodes: Vec<NodeNet>,
    /// Their TUNs, in the same order.
    pub tuns: Vec<OwnedFd>,
    /// TCP settings as the kernel holds them in the first namespace.
    pub tcp: TcpInForce,
    /// Settings that this kernel does not have, in words.
    pub warnings: Vec<String>,
}

struct Built {
    net: NodeNet,
    tun: OwnedFd,
    warnings: Vec<String>,
}

/// Builds every namespace of a plan.
///
/// # Errors
/// The first system call that fails; what was built by then dies with its descriptors.
pub fn build(plan: &Plan) -> Result<Network> {
    // Making a namespace waits for locks inside the kernel more than it computes: two threads overlap the waiting.
    let halves = plan.nodes.chunks(plan.nodes.len().div_ceil(2).max(1));
    let built: Vec<Result<Vec<Built>>> = thread::scope(|scope| {
        let workers: Vec<_> = halves
            .map(|nodes| scope.spawn(move || nodes.iter().map(|node| build_node(plan, node)).collect()))
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker.join().unwrap_or_else(|_| Err(dtwn_sys::SysError::Thread("build namespaces").into()))
            })
            .collect()
    });
    let mut network =
        Network { nodes: Vec::new(), tuns: Vec::new(), tcp: TcpInForce::default(), warnings: Vec::new() };
    for half in built {
        for node in half? {
            network.nodes.push(node.net);
            network.tuns.push(node.tun);
            for warning in node.warnings {
                if !network.warnings.contains(&warning) {
                    network.warnings.push(warning);
                }
            }
        }
    }
    if let Some(first) = network.nodes.first() {
        network.tcp = first.namespace.run(|| Ok(read_tcp(&plan.topology().tcp)))??;
    }
    Ok(network)
}

fn build_node(plan: &Plan, node: &NodePlan) -> Result<Built> {
    let namespace = NetNs::unshare_thread()?;
    // IPv6 would announce itself over the air and muddle every count.
    sysctl::write("net.ipv6.conf.default.disable_ipv6", "1").or_else(|error| {
        if error.errno() == Some(nix::errno::Errno::ENOENT) { Ok(()) } else { Err(error) }
    })?;
    let tun = tun::open_tun(INTERFACE)?;
    let mut netlink = Netlink::open()?;
    let loopback = netlink.index_of("lo")?;
    netlink.set_up(loopback, None, None)?;
    let index = netlink.index_of(INTERFACE)?;
    netlink.set_up(index, Some(plan.mtu.get() as u32), Some(RING_PACKETS))?;
    for address in &node.addresses {
        netlink.add_address(index, *address, 32)?;
    }
    let warnings = write_sysctls(&plan.topology().tcp)?;
    add_routes(&mut netlink, plan, node, index)?;
    Ok(Built { net: NodeNet { namespace, netlink }, tun, warnings })
}

fn add_routes(netlink: &mut Netlink, plan: &Plan, node: &NodePlan, index: u32) -> Result<()> {
    let metrics = route_metrics(&plan.topology().tcp, plan.dilation);
    let route = |destination, source| Route {
        destination,
        interface: index,
        source: Some(source),
        local: false,
        metrics: metrics.clone(),
    };
    netlink.add_route(&route(NETWORK, node.main))?;
    if node.answers_aliases() {
        let local = Route {
            local: true,
            source: None,
            metrics: RouteMetrics::default(),
            ..route(ALIASES, node.main)
        };
        netlink.add_route(&local)?;
    }
    for user in &node.users {
        netlink.add_route(&route(user.alias_route, user.address))?;
    }
    Ok(())
}

fn route_metrics(tcp: &Tcp, dilation: f64) -> RouteMetrics {
    match tcp {
        Tcp::Kernel => RouteMetrics::default(),
        Tcp::Tuned(tuning) => RouteMetrics {
            // The kernel keeps whole milliseconds; less than one would switch the setting off.
            rto_min_ms: Some(
                (tuning.rto_min.in_wall(dilation).as_secs_f64() * 1000.0).round().max(1.0) as u32
            ),
            quickack: Some(tuning.quickack),
            congctl: Some(congestion_control(&tuning.congctl)),
            initcwnd: None,
        },
    }
}

/// The kernel's name for the congestion control asked for.
fn congestion_control(asked: &str) -> String {
    if asked != "auto" {
        return asked.to_owned();
    }
    let available = sysctl::read("net.ipv4.tcp_available_congestion_control").unwrap_or_default();
    let chosen = if available.split_whitespace().any(|name| name == "bbr") { "bbr" } else { "cubic" };
    chosen.to_owned()
}

fn sysctls(tuning: &TcpTuning) -> [(&'static str, String); 4] {
    let flag = |on: bool| u8::from(on).to_string();
    [
        ("net.ipv4.tcp_notsent_lowat", tuning.notsent_lowat.get().to_string()),
        ("net.ipv4.tcp_thin_linear_timeouts", flag(tuning.thin_linear_timeouts)),
        ("net.ipv4.tcp_retries2", tuning.retries2.to_string()),
        ("net.ipv4.tcp_no_metrics_save", flag(tuning.no_metrics_save)),
    ]
}

/// Writes the TCP settings of the calling thread's namespace; those that this kernel does not have become warnings.
fn write_sysctls(tcp: &Tcp) -> Result<Vec<String>> {
    // Unprivileged ping (ICMP sockets), for every group of the namespace.
    let mut settings = vec![("net.ipv4.ping_group_range", "0 0".to_owned())];
    if let Tcp::Tuned(tuning) = tcp {
        settings.extend(sysctls(tuning));
    }
    let mut warnings = Vec::new();
    for (key, value) in settings {
        match sysctl::write(key, &value) {
            Ok(()) => {}
            Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => {
                warnings.push(format!("this kernel has no {key}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(warnings)
}

fn read_tcp(tcp: &Tcp) -> Result<TcpInForce> {
    let keys = [
        "net.ipv4.tcp_congestion_control",
        "net.ipv4.tcp_notsent_lowat",
        "net.ipv4.tcp_thin_linear_timeouts",
        "net.ipv4.tcp_retries2",
        "net.ipv4.tcp_no_metrics_save",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    ];
    // A setting that this kernel does not have is not in force.
    let sysctls =
        keys.into_iter().filter_map(|key| Some((key.to_owned(), sysctl::read(key).ok()?))).collect();
    let route = match tcp {
        Tcp::Kernel => RouteMetrics::default(),
        Tcp::Tuned(_) => Netlink::open()?.route_metrics(NETWORK.0, NETWORK.1).map_err(Error::from)?,
    };
    Ok(TcpInForce { sysctls, rto_min_ms: route.rto_min_ms, quickack: route.quickack, congctl: route.congctl })
}
