//! Addresses, routes and link statistics over rtnetlink(7), in the network namespace of the thread that opened the socket.

use std::{io, net::Ipv4Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{Result, SysError};

/// Linux's table of local addresses (rtnetlink.h).
const RT_TABLE_LOCAL: u8 = 255;
/// One answer of the kernel never exceeds this (NLMSG_GOODSIZE is at most 8 KiB; dumps use up to 32 KiB).
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// TCP settings of a route (`ip route … rto_min …`), in the kernel's units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteMetrics {
    /// Smallest retransmission timeout, in milliseconds.
    pub rto_min_ms: Option<u32>,
    /// Acknowledge every segment at once.
    pub quickack: Option<bool>,
    /// Congestion control algorithm, for example `cubic`.
    pub congctl: Option<String>,
    /// Initial congestion window, in segments.
    pub initcwnd: Option<u32>,
}

/// One IPv4 route to add.
#[derive(Debug, Clone)]
pub struct Route {
    /// Network and prefix length.
    pub destination: (Ipv4Addr, u8),
    /// Index of the interface that it leaves through.
    pub interface: u32,
    /// Source address that the kernel picks for sockets that have none.
    pub source: Option<Ipv4Addr>,
    /// Deliver locally: every address of the destination counts as our own.
    pub local: bool,
    /// TCP settings in force on this route.
    pub metrics: RouteMetrics,
}

/// What an interface has counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets that the host queued into the interface.
    pub tx_packets: u64,
    /// Packets that the host dropped for want of room in the interface's ring.
    pub tx_dropped: u64,
    /// Packets that came in through the interface.
    pub rx_packets: u64,
    /// Packets that came in and were dropped.
    pub rx_dropped: u64,
}

/// A routing socket.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread; it stays there wherever the thread goes.
    ///
    /// # Errors
    /// `EMFILE` when the process has no descriptors left.
    pub fn open() -> Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| SysError::Netlink { what: "open a socket".into(), source })?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// The index of the interface called `name`.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn index_of(&mut self, name: &str) -> Result<u32> {
        Ok(self.link(name)?.header.index)
    }

    /// The counters of the interface called `name`.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn stats(&mut self, name: &str) -> Result<LinkStats> {
        let link = self.link(name)?;
        let stats = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(LinkStats {
                tx_packets: stats.tx_packets,
                tx_dropped: stats.tx_dropped,
                rx_packets: stats.rx_packets,
                rx_dropped: stats.rx_dropped,
            }),
            _ => None,
        });
        Ok(stats.unwrap_or_default())
    }

    /// Brings an interface up; `mtu` and `queue_packets` (txqueuelen, for a TUN the size of its ring) are left alone
    /// where `None`.
    ///
    /// # Errors
    /// `ENODEV`, or `EINVAL` for an MTU out of range.
    pub fn set_up(&mut self, index: u32, mtu: Option<u32>, queue_packets: Option<u32>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(queue_packets.map(LinkAttribute::TxQueueLen));
        self.request(RouteNetlinkMessage::SetLink(message), 0, || format!("bring up interface {index}"))
            .map(drop)
    }

    /// Gives an interface an IPv4 address.
    ///
    /// # Errors
    /// `EEXIST` when it has it already.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes =
            vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("add the address {address}/{prefix}")
        })
        .map(drop)
    }

    /// Adds a route, or replaces the one to the same destination.
    ///
    /// # Errors
    /// `EINVAL` for a source that is no address of ours, `ENOENT` for an unknown congestion control algorithm.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        let (network, prefix) = route.destination;
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: AddressFamily::Inet,
            destination_prefix_length: prefix,
            protocol: RouteProtocol::Static,
            ..RouteHeader::default()
        };
        if route.local {
            message.header.kind = RouteType::Local;
            message.header.scope = RouteScope::Host;
            message.header.table = RT_TABLE_LOCAL;
        } else {
            message.header.kind = RouteType::Unicast;
            message.header.scope = RouteScope::Link;
            message.header.table = RouteHeader::RT_TABLE_MAIN;
        }
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(network)));
        message.attributes.push(RouteAttribute::Oif(route.interface));
        message
            .attributes
            .extend(route.source.map(|source| RouteAttribute::PrefSource(RouteAddress::Inet(source))));
        let metrics = metrics_to_kernel(&route.metrics);
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("add the route to {network}/{prefix}")
        })
        .map(drop)
    }

    /// The TCP settings of the route to `network`/`prefix` in the main table, as the kernel holds them.
    ///
    /// # Errors
    /// `ENOENT` when there is no such route.
    pub fn route_metrics(&mut self, network: Ipv4Addr, prefix: u8) -> Result<RouteMetrics> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let what = || format!("read the route to {network}/{prefix}");
        let routes = self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP, what)?;
        routes
            .into_iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) if is_route_to(&route, network, prefix) => Some(route),
                _ => None,
            })
            .map(|route| metrics_from_kernel(&route.attributes))
            .ok_or_else(|| SysError::Netlink {
                what: what(),
                source: io::Error::from_raw_os_error(nix::libc::ENOENT),
            })
    }

    fn link(&mut self, name: &str) -> Result<LinkMessage> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let what = || format!("find the interface {name}");
        self.request(RouteNetlinkMessage::GetLink(message), 0, what)?
            .into_iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .ok_or_else(|| SysError::Netlink {
                what: what(),
                source: io::Error::from_raw_os_error(nix::libc::ENODEV),
            })
    }

    /// Sends one request and gathers the answers up to the acknowledgement, or to the end of a dump.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, flags).map_err(|source| SysError::Netlink { what: what(), source })
    }

    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let length = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                let size = (answer.header.length as usize).next_multiple_of(4).clamp(1, rest.len());
                rest = &rest[size..];
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
    }
}

fn metrics_to_kernel(metrics: &RouteMetrics) -> Vec<RouteMetric> {
    let mut list = Vec::new();
    // The kernel keeps RTO_MIN in milliseconds and ignores it unless it is locked (ip-route(8)).
    if let Some(rto_min_ms) = metrics.rto_min_ms {
        const RTAX_RTO_MIN: u32 = 13;
        list.push(RouteMetric::Lock(1 << RTAX_RTO_MIN));
        list.push(RouteMetric::RtoMin(rto_min_ms));
    }
    list.extend(metrics.quickack.map(|on| RouteMetric::QuickAck(on.into())));
    list.extend(metrics.initcwnd.map(RouteMetric::InitCwnd));
    list.extend(metrics.congctl.clone().map(RouteMetric::CcAlgo));
    list
}

fn metrics_from_kernel(attributes: &[RouteAttribute]) -> RouteMetrics {
    let mut metrics = RouteMetrics::default();
    for attribute in attributes {
        let RouteAttribute::Metrics(list) = attribute else { continue };
        for metric in list {
            match metric {
                RouteMetric::RtoMin(ms) => metrics.rto_min_ms = Some(*ms),
                RouteMetric::QuickAck(on) => metrics.quickack = Some(*on != 0),
                RouteMetric::CcAlgo(name) => {
                    metrics.congctl = Some(name.trim_end_matches('\0').to_owned());
                }
                RouteMetric::InitCwnd(segments) => metrics.initcwnd = Some(*segments),
                _ => {}
            }
        }
    }
    metrics
}

fn is_route_to(route: &RouteMessage, network: Ipv4Addr, prefix: u8) -> bool {
    route.header.destination_prefix_length == prefix
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.attributes.iter().any(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => *address == network,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{netns::NetNs, sysctl, tun};

    /// These tests make network namespaces, so they need the privilege to.
    fn in_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> T {
        NetNs::create(work).expect("needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root) and /dev/net/tun").1
    }

    #[test]
    fn a_tun_takes_addresses_and_routes_with_tcp_settings() {
        let metrics = in_namespace(|| {
            let _tun = tun::open_tun("air")?;
            let mut netlink = Netlink::open()?;
            let index = netlink.index_of("air")?;
            netlink.set_up(index, Some(1500), Some(10_000))?;
            netlink.add_address(index, Ipv4Addr::new(10, 0, 0, 1), 32)?;
            netlink.add_route(&Route {
                destination: (Ipv4Addr::new(10, 0, 0, 0), 8),
                interface: index,
                source: Some(Ipv4Addr::new(10, 0, 0, 1)),
                local: false,
                metrics: RouteMetrics {
                    rto_min_ms: Some(5),
                    quickack: Some(true),
                    congctl: Some("cubic".into()),
                    initcwnd: None,
                },
            })?;
            netlink.route_metrics(Ipv4Addr::new(10, 0, 0, 0), 8)
        });
        assert_eq!(metrics.rto_min_ms, Some(5));
        assert_eq!(metrics.quickack, Some(true));
        assert_eq!(metrics.congctl.as_deref(), Some("cubic"));
    }

    #[test]
    fn packets_that_find_no_room_in_the_ring_are_counted_by_the_interface() {
        let stats = in_namespace(|| {
            // IPv6 would announce itself on the new interface and be counted too.
            sysctl::write("net.ipv6.conf.default.disable_ipv6", "1")?;
            let _tun = tun::open_tun("air")?;
            let mut netlink = Netlink::open()?;
            let index = netlink.index_of("air")?;
            netlink.set_up(index, None, Some(10))?;
            netlink.add_address(index, Ipv4Addr::new(10, 0, 0, 1), 8)?;
            let socket = std::net::UdpSocket::bind("10.0.0.1:0").expect("bind");
            for _ in 0..100 {
                // A full ring makes the send fail or drop silently, as the kernel pleases: the counter is what we test.
                let _ = socket.send_to(&[0; 100], "10.0.0.2:9");
            }
            netlink.stats("air")
        });
        assert_eq!(stats.tx_dropped, 90, "{stats:?}");
    }

    #[test]
    fn unknown_names_are_refused_by_the_kernel_with_its_reason() {
        let error = in_namespace(|| {
            let mut netlink = Netlink::open()?;
            Ok(netlink.index_of("nothing"))
        });
        let error = error.expect_err("there is no such interface");
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENODEV), "{error}");
    }
}
