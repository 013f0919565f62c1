//! From a topology to its plan: nodes, stations and addresses.

use super::{
    AddressMatch, Association, Attachment, NodePlan, Plan, PlanError, Role, StationPlan, UserPlan, address,
    links,
};
use crate::geometry::{Position, draw_in_ring};
use crate::ids::{BsId, LinkId, NodeId, StationId, UserId};
use crate::topology::{BS_MAX, Bs, GROUPS_MAX, Samples, Topology, USERS_MAX, UserGroup};
use crate::units::Metres;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

impl Plan {
    /// Resolves a topology: draws positions and sample counts from its seed, gives out addresses, builds the tree.
    ///
    /// # Errors
    /// What a loaded topology cannot have: no BS, more of something than addresses, a name twice or of nobody.
    pub fn new(topology: &Topology) -> Result<Self, PlanError> {
        check_counts(topology)?;
        let mut nodes = vec![mbs_node(topology)];
        let mut stations = vec![mbs_station(topology)];
        for (i, bs) in topology.bs.iter().enumerate() {
            let id = BsId::at(i);
            stations.push(bs_station(bs, id, nodes.len()));
            nodes.push(bs_node(bs, id, nodes.len()));
        }
        let mut serving = Vec::new();
        for group in &topology.users {
            let first = UserId::at(serving.len());
            let node = NodeId::at(nodes.len());
            let users = place_group(topology, group, first)?;
            for (user, bs) in &users {
                let attachment = user_attachment(topology.bs.len(), user.id, *bs);
                stations.push(user_station(user, node, attachment));
                serving.push(*bs);
            }
            nodes.push(group_node(group, node, users.into_iter().map(|(user, _)| user).collect()));
        }
        let mut plan = Self {
            by_name: names(&stations, topology)?,
            nodes,
            stations,
            links: Vec::new(),
            association: Association::new(serving),
            mtu: topology.link.access.mtu,
            dilation: topology.run.dilation,
            topology: topology.clone(),
            virtual_links: HashMap::new(),
            bs_count: topology.bs.len(),
        };
        links::add(&mut plan)?;
        Ok(plan)
    }
}

fn check_counts(topology: &Topology) -> Result<(), PlanError> {
    if topology.bs.is_empty() {
        return Err(PlanError::NoBs);
    }
    let limits = [
        ("BSs", topology.bs.len(), BS_MAX),
        ("user groups", topology.users.len(), GROUPS_MAX),
        ("users", topology.user_count(), USERS_MAX),
    ];
    match limits.into_iter().find(|(_, count, max)| count > max) {
        Some((what, count, max)) => Err(PlanError::TooMany { what, count, max }),
        None => Ok(()),
    }
}

/// Every station's name; groups' names are checked along with them, since a link may be given by either.
fn names(stations: &[StationPlan], topology: &Topology) -> Result<HashMap<String, StationId>, PlanError> {
    let mut by_name = HashMap::new();
    for station in stations {
        if by_name.insert(station.name.clone(), station.id).is_some() {
            return Err(PlanError::Duplicate { name: station.name.clone() });
        }
    }
    let mut groups = std::collections::HashSet::new();
    match topology.users.iter().find(|g| by_name.contains_key(&g.id) || !groups.insert(&g.id)) {
        Some(group) => Err(PlanError::Duplicate { name: group.id.clone() }),
        None => Ok(by_name),
    }
}

fn mbs_node(topology: &Topology) -> NodePlan {
    NodePlan {
        id: NodeId(0),
        name: topology.mbs.id.clone(),
        role: Role::Mbs,
        main: address::mbs(),
        addresses: vec![address::mbs()],
        cpu: None,
        users: Vec::new(),
    }
}

fn mbs_station(topology: &Topology) -> StationPlan {
    StationPlan {
        id: StationId(0),
        name: topology.mbs.id.clone(),
        node: NodeId(0),
        addresses: vec![AddressMatch::host(address::mbs()), address::alias_match(None)],
        position: topology.mbs.position_m,
        attachment: None,
    }
}

fn bs_node(bs: &Bs, id: BsId, node: usize) -> NodePlan {
    NodePlan {
        id: NodeId::at(node),
        name: bs.id.clone(),
        role: Role::Bs(id),
        main: address::bs(id),
        addresses: vec![address::bs(id)],
        cpu: Some(bs.cpu_hz),
        users: Vec::new(),
    }
}

fn bs_station(bs: &Bs, id: BsId, node: usize) -> StationPlan {
    StationPlan {
        id: StationId(1 + id.0),
        name: bs.id.clone(),
        node: NodeId::at(node),
        addresses: vec![AddressMatch::host(address::bs(id)), address::alias_match(Some(id))],
        position: bs.position_m,
        attachment: Some(Attachment {
            parent: StationId(0),
            up: LinkId(id.0 * 2),
            down: LinkId(id.0 * 2 + 1),
        }),
    }
}

fn group_node(group: &UserGroup, id: NodeId, users: Vec<UserPlan>) -> NodePlan {
    let addresses: Vec<_> = users.iter().map(|user| user.address).collect();
    NodePlan {
        id,
        name: group.id.clone(),
        role: Role::Users,
        // A loaded group has at least one user.
        main: addresses.first().copied().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED),
        addresses,
        cpu: None,
        users,
    }
}

fn user_attachment(bs_count: usize, user: UserId, serving: BsId) -> Attachment {
    let up = LinkId::at((bs_count + user.index()) * 2);
    Attachment { parent: StationId(1 + serving.0), up, down: LinkId(up.0 + 1) }
}

fn user_station(user: &UserPlan, node: NodeId, attachment: Attachment) -> StationPlan {
    StationPlan {
        id: user.station,
        name: user.name.clone(),
        node,
        addresses: vec![AddressMatch::host(user.address)],
        position: user.position,
        attachment: Some(attachment),
    }
}

/// A group's users with the BS that serves each at first.
fn place_group(
    topology: &Topology,
    group: &UserGroup,
    first: UserId,
) -> Result<Vec<(UserPlan, BsId)>, PlanError> {
    let around = group
        .around
        .as_ref()
        .map(|name| {
            let found = topology.bs.iter().position(|bs| bs.id == *name);
            found.map(BsId::at).ok_or_else(|| PlanError::Unknown { name: name.clone() })
        })
        .transpose()?;
    let mut rng = group_rng(topology.run.seed, &group.id);
    let positions: Vec<Position> = match around {
        Some(bs) if group.positions_m.is_empty() => {
            let centre = &topology.bs[bs.index()];
            let outer = outer_radius(group, centre);
            (0..group.count)
                .map(|_| draw_in_ring(&mut rng, centre.position_m, group.min_distance, outer))
                .collect()
        }
        _ => group.positions_m.clone(),
    };
    let samples = draw_samples(&mut rng, &group.samples, positions.len());
    let users = positions.into_iter().zip(samples).enumerate().map(|(i, (position, samples))| {
        let id = UserId::at(first.index() + i);
        let user = UserPlan {
            id,
            name: format!("{}.{}", group.id, i + 1),
            station: StationId::at(1 + topology.bs.len() + id.index()),
            address: address::user(id),
            alias_route: address::alias_route(id),
            position,
            samples,
        };
        (user, around.unwrap_or_else(|| nearest(&topology.bs, position)))
    });
    Ok(users.collect())
}

/// A stream of its own for each group by its name, so that adding a group moves no other's users.
fn group_rng(seed: u64, id: &str) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"dtwn placement");
    hasher.update(&seed.to_le_bytes());
    hasher.update(id.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

fn nearest(bs: &[Bs], position: Position) -> BsId {
    let distance = |bs: &Bs| bs.position_m.distance(position).get();
    let nearest = bs.iter().enumerate().min_by(|(_, a), (_, b)| distance(a).total_cmp(&distance(b)));
    BsId::at(nearest.map_or(0, |(i, _)| i))
}

fn draw_samples(rng: &mut ChaCha8Rng, samples: &Samples, count: usize) -> Vec<u32> {
    match samples {
        Samples::Each(n) => vec![*n; count],
        Samples::List(list) => list.clone(),
        Samples::Range(range) => {
            let drawn: Vec<u32> =
                (0..count).map(|_| rng.random_range(range.min..=range.max.max(range.min))).collect();
            range.total.map_or_else(|| drawn.clone(), |total| scale(&drawn, total))
        }
    }
}

/// Scales to a sum exactly, by largest remainder; ties go to the earlier.
fn scale(drawn: &[u32], total: u32) -> Vec<u32> {
    let sum: u64 = drawn.iter().map(|n| u64::from(*n)).sum();
    if sum == 0 {
        return drawn.to_vec();
    }
    let share = |n: u32| (u64::from(n) * u64::from(total) / sum, u64::from(n) * u64::from(total) % sum);
    let mut scaled: Vec<u64> = drawn.iter().map(|n| share(*n).0).collect();
    let missing = u64::from(total) - scaled.iter().sum::<u64>();
    let mut order: Vec<usize> = (0..drawn.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(share(drawn[*i]).1), *i));
    for i in order.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)) {
        scaled[i] += 1;
    }
    scaled.into_iter().map(|n| u32::try_from(n).unwrap_or(u32::MAX)).collect()
}

/// The farthest a group's users may be from the BS they are drawn around.
pub(crate) fn outer_radius(group: &UserGroup, bs: &Bs) -> Metres {
    group.max_distance.unwrap_or(bs.coverage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_keeps_the_sum_and_the_order() {
        assert_eq!(scale(&[1, 1, 1], 10), vec![4, 3, 3]);
        assert_eq!(scale(&[300, 700], 500), vec![150, 350]);
        assert_eq!(scale(&[0, 0], 5), vec![0, 0]);
        let drawn: Vec<u32> = (300..400).collect();
        assert_eq!(scale(&drawn, 50_000).iter().sum::<u32>(), 50_000);
    }
}
