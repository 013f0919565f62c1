//! The plan of a network: nodes, stations, addresses and links with their rates, all in emulated units.
//!
//! The air is a tree of stations. The MBS is its root; each BS hangs below the MBS by an **up** link (Eq. 7, the one
//! serialiser for everything the BS sends upwards) and a **down** link (Eq. 8); each user hangs below the BS that serves
//! it by an access link in each direction. Traffic climbs to the nearest common ancestor and descends: BS i to BS j
//! passes i's up link, then j's down link.

pub mod address;
mod average;
pub(crate) use build::outer_radius;

mod build;
mod links;
mod rates;

pub use address::AddressMatch;
pub use rates::{Association, CellGains};

use crate::geometry::Position;
use crate::ids::{BsId, LinkId, NodeId, StationId, UserId};
use crate::radio::TimeShares;
use crate::topology::{LinkSettings, Topology};
use crate::units::{BitsPerSecond, Bytes, Hertz, Interval};
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// Why a topology has no plan. A topology that [`load`](crate::load) gave always has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is nobody to serve anyone.
    #[error("a network needs at least one BS")]
    NoBs,
    /// More of something than addresses.
    #[error("{count} {what}, but addresses for at most {max}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A name that nobody has.
    #[error("there is no station {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A name that two have.
    #[error("{name:?} is the name of two stations or groups")]
    Duplicate {
        /// The name.
        name: String,
    },
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The macro base station.
    Mbs,
    /// A base station.
    Bs(BsId),
    /// A group of users.
    Users,
}

/// A process in a network namespace of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct NodePlan {
    /// Its index.
    pub id: NodeId,
    /// Its name: the `id` in the file.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// The address that its name resolves to; a group's is that of its first user.
    pub main: Ipv4Addr,
    /// All addresses its interface carries: `main`, or one a user.
    pub addresses: Vec<Ipv4Addr>,
    /// f_i of a BS; `None` for others, whose computing the model does not count.
    pub cpu: Option<Hertz>,
    /// Its users, when it is a group.
    pub users: Vec<UserPlan>,
}

impl NodePlan {
    /// Whether the node takes the whole alias block as local.
    pub fn answers_aliases(&self) -> bool {
        !matches!(self.role, Role::Users)
    }
}

/// One user of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct UserPlan {
    /// Its index over all groups.
    pub id: UserId,
    /// Its name, `ug1.7`.
    pub name: String,
    /// Its station.
    pub station: StationId,
    /// Its address, the `src` of its route.
    pub address: Ipv4Addr,
    /// Destination and prefix length of its route to the aliases of BSs.
    pub alias_route: (Ipv4Addr, u8),
    /// Where it is.
    pub position: Position,
    /// D_n: how many samples it holds.
    pub samples: u32,
}

/// A station's place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// The station above.
    pub parent: StationId,
    /// Carries all that the station sends.
    pub up: LinkId,
    /// Carries all that its parent sends down to it.
    pub down: LinkId,
}

/// An addressable radio station: the MBS, a BS or a user.
#[derive(Debug, Clone, PartialEq)]
pub struct StationPlan {
    /// Its index.
    pub id: StationId,
    /// Its name: `mbs`, `bs1`, `ug1.7`.
    pub name: String,
    /// The node it belongs to.
    pub node: NodeId,
    /// Which destination addresses are its own.
    pub addresses: Vec<AddressMatch>,
    /// Where it is.
    pub position: Position,
    /// Its place in the tree when the run begins; `None` for the root, the MBS.
    pub attachment: Option<Attachment>,
}

/// What a link is in the paper's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// BS to MBS, Eq. 7.
    Uplink(BsId),
    /// MBS to BS, Eq. 8.
    Downlink(BsId),
    /// User to the BS that serves it.
    AccessUp(UserId),
    /// BS to a user it serves.
    AccessDown(UserId),
    /// Between two stations that are not neighbours, from an override: passed last, and no transmitter.
    Virtual,
}

/// One direction between two stations.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkPlan {
    /// Its index.
    pub id: LinkId,
    /// Its name, unique: `bs1>mbs`. An access link keeps the name of the user's end and `bs` for the other
    /// (`ug1.7>bs`, `bs>ug1.7`), since the serving BS may change.
    pub name: String,
    /// Who sends, when the run begins.
    pub from: StationId,
    /// Who receives, when the run begins.
    pub to: StationId,
    /// What it is.
    pub kind: LinkKind,
    /// The rate when the run begins (slot 0, equal time shares), or the fixed one; `None` for a virtual link without.
    pub rate: Option<BitsPerSecond>,
    /// Everything else, and where the rate comes from.
    pub settings: LinkSettings,
}

/// A network, resolved from its topology.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The nodes: the MBS, then the BSs, then the groups, in file order.
    pub nodes: Vec<NodePlan>,
    /// The stations: the MBS, then the BSs, then the users.
    pub stations: Vec<StationPlan>,
    /// The links: each BS's up and down, then each user's, then virtual ones.
    pub links: Vec<LinkPlan>,
    /// Which BS serves which user when the run begins.
    pub association: Association,
    /// The MTU of every interface: the smallest over all links.
    pub mtu: Bytes,
    /// Wall seconds for one emulated second.
    pub dilation: f64,
    topology: Topology,
    by_name: HashMap<String, StationId>,
    virtual_links: HashMap<(StationId, StationId), LinkId>,
    bs_count: usize,
}

impl Plan {
    /// The topology it was made from.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// M: how many BSs.
    pub fn bs_count(&self) -> usize {
        self.bs_count
    }

    /// N: how many users.
    pub fn user_count(&self) -> usize {
        self.stations.len() - 1 - self.bs_count
    }

    /// The users of all groups in order of their index.
    pub fn users(&self) -> impl Iterator<Item = &UserPlan> {
        self.nodes.iter().flat_map(|node| &node.users)
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&NodePlan> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// A station by its name.
    pub fn station(&self, name: &str) -> Option<&StationPlan> {
        self.by_name.get(name).map(|id| &self.stations[id.index()])
    }

    /// The station that a destination address belongs to.
    pub fn station_at(&self, address: Ipv4Addr) -> Option<&StationPlan> {
        self.stations.iter().find(|station| station.addresses.iter().any(|m| m.matches(address)))
    }

    /// The station of the MBS.
    pub fn mbs_station(&self) -> StationId {
        StationId(0)
    }

    /// The station of a BS.
    pub fn bs_station(&self, bs: BsId) -> StationId {
        StationId(1 + bs.0)
    }

    /// The station of a user.
    pub fn user_station(&self, user: UserId) -> StationId {
        StationId::at(1 + self.bs_count + user.index())
    }

    /// Where a station hangs under an association; `None` for the MBS.
    pub fn attachment(&self, station: StationId, association: &Association) -> Option<Attachment> {
        let initial = self.stations.get(station.index())?.attachment?;
        let serving =
            station.index().checked_sub(1 + self.bs_count).and_then(|u| association.serving(UserId::at(u)));
        let serving = serving.filter(|bs| bs.index() < self.bs_count);
        let parent = serving.map_or(initial.parent, |bs| self.bs_station(bs));
        Some(Attachment { parent, ..initial })
    }

    /// The links that a packet passes from one station to another under the initial association, in order. Empty from a
    /// station to itself: such packets never reach the air.
    pub fn path(&self, from: StationId, to: StationId) -> Vec<LinkId> {
        self.path_with(from, to, &self.association)
    }

    /// As [`path`](Self::path), under another association.
    pub fn path_with(&self, from: StationId, to: StationId, association: &Association) -> Vec<LinkId> {
        let climb = |mut station| {
            let mut steps = vec![];
            while let Some(attachment) = self.attachment(station, association) {
                steps.push(attachment);
                station = attachment.parent;
            }
            steps
        };
        let (mut up, mut down) = (climb(from), climb(to));
        // The steps that both share lead from their common ancestor to the root.
        while matches!((up.last(), down.last()), (Some(a), Some(b)) if a == b) {
            up.pop();
            down.pop();
        }
        let mut path: Vec<LinkId> = up.iter().map(|step| step.up).collect();
        path.extend(down.iter().rev().map(|step| step.down));
        path.extend(self.virtual_links.get(&(from, to)));
        path
    }

    /// Names and addresses for a hosts file. A group's name stands for its first user.
    pub fn hosts(&self) -> Vec<(Ipv4Addr, String)> {
        let nodes = self.nodes.iter().map(|node| (node.main, node.name.clone()));
        nodes.chain(self.users().map(|user| (user.address, user.name.clone()))).collect()
    }

    /// How long a channel gain holds: rates are due for [`rates_at`](Self::rates_at) each time it has passed.
    pub fn coherence_time(&self) -> Interval {
        self.topology.radio.coherence_time
    }

    /// τ with equal shares, 1/M on each subchannel.
    pub fn equal_shares(&self) -> TimeShares {
        TimeShares::equal(self.bs_count, self.topology.radio.subchannels as usize)
    }
}

#[cfg(test)]
mod tests;
