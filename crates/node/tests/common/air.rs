//! Two network namespaces joined by the air medium, each with a runtime of its own.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use dtwn_air::{
    AddressMatch, AirSpec, Attachment, EndpointId, EndpointSpec, LinkId, LinkPatch, LinkProperties, LinkSpec,
    Medium, MediumHandle, Options, StationId, StationSpec,
};
use dtwn_sys::netlink::Netlink;
use dtwn_sys::netns::NetNs;
use dtwn_sys::tun::open_tun;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use tokio::runtime::Runtime;

pub const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// The medium, and a runtime inside each of the two namespaces.
pub struct Air {
    pub medium: MediumHandle,
    pub a: Runtime,
    pub b: Runtime,
}

impl Air {
    /// Both directions have these properties.
    pub fn new(properties: &LinkProperties) -> Self {
        let (space_a, tun_a) = namespace(A);
        let (space_b, tun_b) = namespace(B);
        let station = |name: &str, endpoint, address, attachment| StationSpec {
            name: name.into(),
            endpoint: EndpointId(endpoint),
            addresses: vec![AddressMatch::host(address)],
            attachment,
        };
        let attachment = Attachment { parent: StationId(0), up: LinkId(0), down: LinkId(1) };
        let link = |name: &str| LinkSpec { name: name.into(), properties: properties.clone() };
        let spec = AirSpec {
            seed: 1,
            endpoints: vec![EndpointSpec { name: "a".into() }, EndpointSpec { name: "b".into() }],
            stations: vec![station("a", 0, A, None), station("b", 1, B, Some(attachment))],
            links: vec![link("up"), link("down")],
            dilation: 1.0,
        };
        let medium = Medium::start(spec, vec![tun_a, tun_b], Options::default()).expect("the medium starts");
        Self { medium, a: runtime(space_a), b: runtime(space_b) }
    }

    /// Changes both directions.
    pub fn change(&self, patch: &LinkPatch) {
        let both = [LinkId(0), LinkId(1)].map(|link| (link, patch.clone()));
        self.medium.patch_links(both.to_vec()).expect("the medium takes the change");
    }
}

fn namespace(address: Ipv4Addr) -> (NetNs, OwnedFd) {
    let made = NetNs::create(|| {
        let tun = open_tun("air")?;
        let mut netlink = Netlink::open()?;
        let loopback = netlink.index_of("lo")?;
        netlink.set_up(loopback, None, None)?;
        let index = netlink.index_of("air")?;
        netlink.add_address(index, address, 24)?;
        netlink.set_up(index, Some(1500), Some(10_000))?;
        Ok(tun)
    });
    made.expect("a namespace with a TUN; this test needs CAP_NET_ADMIN and CAP_SYS_ADMIN, and /dev/net/tun")
}

fn runtime(space: NetNs) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(move || space.enter_thread().expect("the thread enters its namespace"))
        .enable_all()
        .build()
        .unwrap()
}
