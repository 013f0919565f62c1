//! A star of namespaces: one TUN and one address each, station 0 the root.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dtwn_air::{
    AddressMatch, AirSnapshot, AirSpec, Attachment, EndpointId, EndpointSpec, LinkId, LinkProperties,
    LinkSpec, Medium, MediumHandle, Options, StationId, StationSpec,
};
use dtwn_sys::netlink::{Netlink, Route, RouteMetrics};
use dtwn_sys::netns::NetNs;
use dtwn_sys::tun::open_tun;

/// The address of station `i`.
pub fn address(station: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, station + 1)
}

/// A namespace whose only way out is a TUN.
pub fn node(address: Ipv4Addr) -> (NetNs, OwnedFd) {
    NetNs::create(|| {
        let tun = open_tun("air0")?;
        let mut netlink = Netlink::open()?;
        let lo = netlink.index_of("lo")?;
        netlink.set_up(lo, None, None)?;
        let index = netlink.index_of("air0")?;
        netlink.add_address(index, address, 32)?;
        netlink.set_up(index, Some(1500), Some(10_000))?;
        netlink.add_route(&Route {
            destination: (Ipv4Addr::new(10, 77, 0, 0), 16),
            interface: index,
            source: Some(address),
            local: false,
            // Whatever this machine's default is, TCP in these namespaces is the usual one.
            metrics: RouteMetrics { congctl: Some("cubic".to_owned()), ..RouteMetrics::default() },
        })?;
        Ok(tun)
    })
    .unwrap_or_else(|error| {
        panic!("this test needs CAP_SYS_ADMIN, CAP_NET_ADMIN and a writable /dev/net/tun: {error}")
    })
}

/// Leaf i (from 1) has up link 2(i−1) and down link 2(i−1)+1.
pub fn star(leaves: u8, properties: impl Fn(u32) -> LinkProperties) -> AirSpec {
    AirSpec {
        seed: 1,
        dilation: 1.0,
        endpoints: (0..=leaves).map(|i| EndpointSpec { name: format!("node{i}") }).collect(),
        stations: (0..=leaves)
            .map(|i| StationSpec {
                name: format!("station{i}"),
                endpoint: EndpointId(i.into()),
                addresses: vec![AddressMatch::host(address(i))],
                attachment: (i > 0).then(|| Attachment {
                    parent: StationId(0),
                    up: LinkId(2 * (u32::from(i) - 1)),
                    down: LinkId(2 * (u32::from(i) - 1) + 1),
                }),
            })
            .collect(),
        links: (0..2 * u32::from(leaves))
            .map(|i| LinkSpec { name: format!("link{i}"), properties: properties(i) })
            .collect(),
    }
}

/// A running star.
pub struct World {
    pub medium: MediumHandle,
    pub nodes: Vec<NetNs>,
}

impl World {
    pub fn new(leaves: u8, properties: impl Fn(u32) -> LinkProperties) -> Self {
        let spec = star(leaves, properties);
        let (nodes, tuns) = (0..=leaves).map(|i| node(address(i))).unzip();
        let medium = Medium::start(spec, tuns, Options::default()).unwrap();
        Self { medium, nodes }
    }

    /// A UDP socket in a node's namespace.
    pub fn udp(&self, node: u8, port: u16) -> UdpSocket {
        let socket = self.nodes[usize::from(node)].run(|| {
            Ok(UdpSocket::bind((address(node), port)).expect("binding a UDP socket in a fresh namespace"))
        });
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// Sends one datagram and says whether it arrives within the patience of the receiver.
    pub fn arrives(&self, from: &UdpSocket, to: &UdpSocket, text: &[u8], patience: Duration) -> bool {
        from.send_to(text, to.local_addr().unwrap()).unwrap();
        to.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 2048];
        to.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == text)
    }

    /// Waits until the counters satisfy `done`.
    pub fn wait_for(&self, what: &str, done: impl Fn(&AirSnapshot) -> bool) -> AirSnapshot {
        let start = Instant::now();
        loop {
            let snapshot = self.medium.snapshot().unwrap();
            if done(&snapshot) {
                return snapshot;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "waited in vain for {what}: {snapshot:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// For a packet that must arrive, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(10);
/// For a packet that must not arrive: the counters prove it, the wait is for the socket's answer only.
pub const SHORT: Duration = Duration::from_millis(20);
