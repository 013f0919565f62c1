//! Stations: which one an address belongs to, and which link leads from one towards another.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::Ipv4Addr;

use super::pool::Way;
use crate::error::AirError;
use crate::spec::{AirSpec, EndpointId, LinkId, StationId};

/// Multiplies and folds. The keys are the specification's own addresses and ids, so no one can choose collisions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        let product = u128::from(self.0 ^ u64::from(value)) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u32(u32::from(value));
    }
}

pub(super) type Hash = BuildHasherDefault<Mix>;

#[derive(Debug)]
struct Node {
    name: String,
    endpoint: EndpointId,
    /// Parent, up link, down link.
    above: Option<(StationId, LinkId, LinkId)>,
    depth: u32,
    root: StationId,
}

/// The forest of stations and their addresses.
#[derive(Debug)]
pub(super) struct Stations {
    nodes: Vec<Node>,
    /// By mask, those with the most bits first: the stations by masked address.
    tables: Vec<(u32, HashMap<u32, StationId, Hash>)>,
}

/// Where a packet goes from a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is there.
    Arrived,
    /// Into this link: the up or down link of `station`.
    Link { link: LinkId, station: StationId, way: Way },
    /// Nothing joins the two stations.
    NoPath,
}

impl Stations {
    /// # Errors
    /// What is inconsistent in the specification's stations.
    pub(super) fn new(spec: &AirSpec) -> Result<Self, AirError> {
        let mut tables: Vec<(u32, HashMap<u32, StationId, Hash>)> = Vec::new();
        let mut nodes = Vec::with_capacity(spec.stations.len());
        for (index, station) in spec.stations.iter().enumerate() {
            let id = StationId(index as u32);
            known("endpoint", station.endpoint.index(), spec.endpoints.len())?;
            let above = station.attachment.map(|a| (a.parent, a.up, a.down));
            if let Some((parent, up, down)) = above {
                known("station", parent.index(), spec.stations.len())?;
                known("link", up.index(), spec.links.len())?;
                known("link", down.index(), spec.links.len())?;
            }
            for address in &station.addresses {
                if address.value & !address.mask != 0 {
                    return Err(AirError::Address {
                        station: station.name.clone(),
                        value: Ipv4Addr::from(address.value),
                        mask: Ipv4Addr::from(address.mask),
                    });
                }
                let at = match tables.iter().position(|(mask, _)| *mask == address.mask) {
                    Some(at) => at,
                    None => {
                        tables.push((address.mask, HashMap::default()));
                        tables.len() - 1
                    }
                };
                if tables[at].1.insert(address.value, id).is_some() {
                    let name = format!("{}/{}", Ipv4Addr::from(address.value), Ipv4Addr::from(address.mask));
                    return Err(AirError::Duplicate { what: "station address", name });
                }
            }
            nodes.push(Node {
                name: station.name.clone(),
                endpoint: station.endpoint,
                above,
                depth: 0,
                root: id,
            });
        }
        tables.sort_by_key(|(mask, _)| std::cmp::Reverse((mask.count_ones(), *mask)));
        let mut stations = Self { nodes, tables };
        stations.check_cycles()?;
        stations.measure();
        Ok(stations)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn name(&self, station: StationId) -> &str {
        &self.nodes[station.index()].name
    }

    pub(super) fn endpoint(&self, station: StationId) -> EndpointId {
        self.nodes[station.index()].endpoint
    }

    /// The station that an address belongs to.
    pub(super) fn find(&self, address: u32) -> Option<StationId> {
        self.tables.iter().find_map(|(mask, table)| table.get(&(address & mask)).copied())
    }

    /// Are both in the same tree?
    pub(super) fn joined(&self, a: StationId, b: StationId) -> bool {
        self.nodes[a.index()].root == self.nodes[b.index()].root
    }

    /// The station above `station`, or itself for a root.
    pub(super) fn parent(&self, station: StationId) -> StationId {
        self.nodes[station.index()].above.map_or(station, |(parent, ..)| parent)
    }

    /// The next step from `at` towards `destination`: down when `at` is above it, up otherwise.
    pub(super) fn step(&self, at: StationId, destination: StationId) -> Step {
        if at == destination {
            return Step::Arrived;
        }
        let here = &self.nodes[at.index()];
        let mut below = destination;
        while self.nodes[below.index()].depth > here.depth + 1 {
            below = self.parent(below);
        }
        match (self.nodes[below.index()].above, here.above) {
            (Some((parent, _, down)), _) if parent == at => {
                Step::Link { link: down, station: below, way: Way::Down }
            }
            (_, Some((_, up, _))) => Step::Link { link: up, station: at, way: Way::Up },
            _ => Step::NoPath,
        }
    }

    /// Moves a station below another.
    ///
    /// # Errors
    /// [`AirError::Unknown`], [`AirError::Root`] or [`AirError::Cycle`].
    pub(super) fn attach(&mut self, station: StationId, parent: StationId) -> Result<(), AirError> {
        known("station", station.index(), self.nodes.len())?;
        known("station", parent.index(), self.nodes.len())?;
        let Some((_, up, down)) = self.nodes[station.index()].above else {
            return Err(AirError::Root { station: self.nodes[station.index()].name.clone() });
        };
        let mut above = parent;
        while above != station && self.nodes[above.index()].above.is_some() {
            above = self.parent(above);
        }
        if above == station {
            return Err(self.cycle(station, parent));
        }
        self.nodes[station.index()].above = Some((parent, up, down));
        self.measure();
        Ok(())
    }

    fn cycle(&self, station: StationId, parent: StationId) -> AirError {
        let name = |id: StationId| self.nodes[id.index()].name.clone();
        AirError::Cycle { station: name(station), parent: name(parent) }
    }

    fn check_cycles(&self) -> Result<(), AirError> {
        for index in 0..self.nodes.len() {
            let id = StationId(index as u32);
            let mut at = id;
            let mut steps = 0;
            while self.nodes[at.index()].above.is_some() {
                at = self.parent(at);
                steps += 1;
                if steps > self.nodes.len() {
                    return Err(self.cycle(id, self.parent(id)));
                }
            }
        }
        Ok(())
    }

    /// Recomputes every station's depth and root.
    fn measure(&mut self) {
        for index in 0..self.nodes.len() {
            let mut at = StationId(index as u32);
            let mut depth = 0;
            while let Some((parent, ..)) = self.nodes[at.index()].above {
                at = parent;
                depth += 1;
            }
            self.nodes[index].depth = depth;
            self.nodes[index].root = at;
        }
    }
}

/// # Errors
/// [`AirError::Unknown`] unless `index < count`.
pub(super) fn known(what: &'static str, index: usize, count: usize) -> Result<(), AirError> {
    if index < count { Ok(()) } else { Err(AirError::Unknown { what, index, count }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{AddressMatch, Attachment, EndpointSpec, LinkProperties, LinkSpec, StationSpec};

    fn station(name: &str, match_: (u32, u32), parent: Option<(u32, u32)>) -> StationSpec {
        StationSpec {
            name: name.to_owned(),
            endpoint: EndpointId(0),
            addresses: vec![AddressMatch { mask: match_.0, value: match_.1 }],
            attachment: parent.map(|(parent, up)| Attachment {
                parent: StationId(parent),
                up: LinkId(up),
                down: LinkId(up + 1),
            }),
        }
    }

    /// A root; two stations below it; a user below each; and a root of its own.
    fn spec() -> AirSpec {
        AirSpec {
            seed: 0,
            dilation: 1.0,
            endpoints: vec![EndpointSpec { name: "e".to_owned() }],
            stations: vec![
                station("mbs", (u32::MAX, 1), None),
                station("bs1", (0xff00, 0x0100), Some((0, 0))),
                station("bs2", (0xff00, 0x0200), Some((0, 2))),
                station("user1", (u32::MAX, 0x0107), Some((1, 4))),
                station("user2", (u32::MAX, 0x0207), Some((2, 6))),
                station("island", (u32::MAX, 9), None),
            ],
            links: (0..8)
                .map(|i| LinkSpec { name: format!("l{i}"), properties: LinkProperties::default() })
                .collect(),
        }
    }

    fn path(stations: &Stations, from: u32, to: u32) -> Vec<u32> {
        let (mut at, to) = (StationId(from), StationId(to));
        let mut links = Vec::new();
        while let Step::Link { link, station, way } = stations.step(at, to) {
            links.push(link.0);
            at = if way == Way::Up { stations.parent(station) } else { station };
        }
        links
    }

    #[test]
    fn paths_go_up_to_the_common_ancestor_and_down() {
        let stations = Stations::new(&spec()).unwrap();
        assert_eq!(path(&stations, 3, 1), [4]);
        assert_eq!(path(&stations, 1, 3), [5]);
        assert_eq!(path(&stations, 3, 0), [4, 0]);
        assert_eq!(path(&stations, 3, 4), [4, 0, 3, 7]);
        assert_eq!(path(&stations, 0, 4), [3, 7]);
        assert_eq!(path(&stations, 1, 2), [0, 3]);
        assert_eq!(stations.step(StationId(0), StationId(5)), Step::NoPath);
        assert!(!stations.joined(StationId(3), StationId(5)));
    }

    #[test]
    fn the_longest_mask_wins() {
        let stations = Stations::new(&spec()).unwrap();
        assert_eq!(stations.find(0x0107), Some(StationId(3)));
        assert_eq!(stations.find(0x0108), Some(StationId(1)));
        assert_eq!(stations.find(0x0300), None);
    }

    #[test]
    fn attaching_moves_the_whole_subtree_and_refuses_loops() {
        let mut stations = Stations::new(&spec()).unwrap();
        stations.attach(StationId(4), StationId(1)).unwrap();
        assert_eq!(path(&stations, 3, 4), [4, 7]);
        stations.attach(StationId(1), StationId(5)).unwrap();
        assert_eq!(path(&stations, 4, 5), [6, 0]);
        assert!(!stations.joined(StationId(4), StationId(0)));
        let loops = stations.attach(StationId(1), StationId(3));
        assert!(matches!(loops, Err(AirError::Cycle { .. })), "{loops:?}");
        assert!(matches!(stations.attach(StationId(1), StationId(1)), Err(AirError::Cycle { .. })));
        assert!(matches!(stations.attach(StationId(0), StationId(3)), Err(AirError::Root { .. })));
        assert!(matches!(stations.attach(StationId(1), StationId(77)), Err(AirError::Unknown { .. })));
        assert_eq!(path(&stations, 4, 5), [6, 0]);
    }

    #[test]
    fn inconsistent_specifications_are_refused() {
        let broken = |change: &dyn Fn(&mut AirSpec)| {
            let mut spec = spec();
            change(&mut spec);
            Stations::new(&spec).unwrap_err().to_string()
        };
        let twice = broken(&|s| s.stations[4].addresses = s.stations[3].addresses.clone());
        assert_eq!(twice, "station address `0.0.1.7/255.255.255.255` is given twice");
        let outside = broken(&|s| s.stations[1].addresses[0].value = 0x0101);
        assert!(outside.contains("bits outside its mask"), "{outside}");
        let lost = broken(&|s| s.stations[1].endpoint = EndpointId(3));
        assert_eq!(lost, "endpoint 3 does not exist; there are 1");
        let link = broken(&|s| s.links.truncate(7));
        assert_eq!(link, "link 7 does not exist; there are 7");
        let cycle = broken(&|s| {
            if let Some(a) = &mut s.stations[1].attachment {
                a.parent = StationId(3);
            }
        });
        assert!(cycle.contains("cannot be attached below"), "{cycle}");
    }
}
