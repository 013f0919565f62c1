//! From a topology to the links of its plan: settings by class, exceptions, rates at the start.

use super::rates::Air;
use super::{LinkKind, LinkPlan, Plan, PlanError};
use crate::ids::{BsId, LinkId, StationId, UserId};
use crate::topology::{LinkOverride, LinkSettings, RateSource};
use crate::units::Interval;

/// Adds all links to a plan that has its stations.
///
/// The order is fixed by the stations' attachments: BS i's up and down at 2i and 2i + 1, then the users' likewise.
pub(super) fn add(plan: &mut Plan) -> Result<(), PlanError> {
    for i in 0..plan.bs_count {
        add_pair(
            plan,
            plan.bs_station(BsId::at(i)),
            LinkKind::Uplink(BsId::at(i)),
            LinkKind::Downlink(BsId::at(i)),
        );
    }
    for u in 0..plan.user_count() {
        let user = UserId::at(u);
        add_pair(plan, plan.user_station(user), LinkKind::AccessUp(user), LinkKind::AccessDown(user));
    }
    for exception in plan.topology.link.overrides.clone() {
        apply(plan, &exception)?;
    }
    set_rates(plan);
    plan.mtu = plan.links.iter().map(|link| link.settings.mtu).min().unwrap_or(plan.mtu);
    Ok(())
}

fn add_pair(plan: &mut Plan, station: StationId, up: LinkKind, down: LinkKind) {
    let Some(attachment) = plan.stations[station.index()].attachment else { return };
    let name = plan.stations[station.index()].name.clone();
    let access = matches!(up, LinkKind::AccessUp(_));
    let above = if access { "bs".to_owned() } else { plan.stations[attachment.parent.index()].name.clone() };
    let classes = &plan.topology.link;
    let (up_settings, down_settings) = if access {
        (classes.access.clone(), classes.access.clone())
    } else {
        (classes.uplink.clone(), classes.downlink.clone())
    };
    push(plan, format!("{name}>{above}"), (station, attachment.parent), up, up_settings);
    push(plan, format!("{above}>{name}"), (attachment.parent, station), down, down_settings);
}

fn push(
    plan: &mut Plan,
    name: String,
    (from, to): (StationId, StationId),
    kind: LinkKind,
    settings: LinkSettings,
) -> LinkId {
    let id = LinkId::at(plan.links.len());
    plan.links.push(LinkPlan { id, name, from, to, kind, rate: None, settings });
    id
}

fn apply(plan: &mut Plan, exception: &LinkOverride) -> Result<(), PlanError> {
    for from in ends(plan, &exception.from)? {
        for to in ends(plan, &exception.to)? {
            if from != to {
                let link = link_between(plan, from, to);
                exception.apply(&mut plan.links[link.index()].settings);
            }
        }
    }
    Ok(())
}

/// The stations that an override's end names: one, or all users of a group.
fn ends(plan: &Plan, name: &str) -> Result<Vec<StationId>, PlanError> {
    if let Some(station) = plan.station(name) {
        return Ok(vec![station.id]);
    }
    match plan.node(name) {
        Some(group) => Ok(group.users.iter().map(|user| user.station).collect()),
        None => Err(PlanError::Unknown { name: name.to_owned() }),
    }
}

/// The link from one station to another; a new virtual one unless they are neighbours or have one already.
fn link_between(plan: &mut Plan, from: StationId, to: StationId) -> LinkId {
    let attachment = |station: StationId| plan.stations[station.index()].attachment;
    if let Some(a) = attachment(from).filter(|a| a.parent == to) {
        return a.up;
    }
    if let Some(a) = attachment(to).filter(|a| a.parent == from) {
        return a.down;
    }
    if let Some(link) = plan.virtual_links.get(&(from, to)) {
        return *link;
    }
    let name = format!("{}>{}", plan.stations[from.index()].name, plan.stations[to.index()].name);
    // Neutral until the override says otherwise: a rate of "radio" means none here.
    let settings = LinkSettings { delay: Interval::default(), ..LinkSettings::default() };
    let id = push(plan, name, (from, to), LinkKind::Virtual, settings);
    plan.virtual_links.insert((from, to), id);
    id
}

fn set_rates(plan: &mut Plan) {
    let tau = plan.equal_shares();
    let counts = plan.association.counts(plan.bs_count);
    let air = Air::new(plan);
    let rates: Vec<_> = plan
        .links
        .iter()
        .map(|link| match link.settings.rate {
            RateSource::Fixed(rate) => Some(rate),
            RateSource::Radio => air.rate(link.kind, 0, &tau, &plan.association, &counts),
        })
        .collect();
    for (link, rate) in plan.links.iter_mut().zip(rates) {
        link.rate = rate;
    }
}
