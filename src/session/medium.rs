//! The plan's links as the medium knows them: emulated quantities on our side, wall quantities on the medium's.

use std::{collections::HashMap, os::fd::OwnedFd, time::Duration};

use dtwn_air::{
    AddressMatch, AirSnapshot, AirSpec, Arq, Attachment, Discipline, EndpointId, EndpointSpec, LinkId,
    LinkMeters, LinkPatch, LinkProperties, LinkSpec, Loss, Medium, MediumHandle, Options, Queue, QueueBytes,
    StationId, StationSpec,
};
use dtwn_model::{
    ids,
    plan::{LinkKind, Plan},
    topology::{self, LinkSettings, OrNone, QueueLimit},
    units::BitsPerSecond,
};
use dtwn_proto::{
    control::LinkChange,
    event::{Drops, LinkCounters, LinkInfo},
};

use crate::error::{Error, Result};

/// The air of a running session.
pub struct Air {
    handle: MediumHandle,
    dilation: f64,
    links: Vec<AirLink>,
    by_ends: HashMap<(String, String), usize>,
    stations: HashMap<String, (StationId, EndpointId)>,
    last: Vec<(LinkMeters, u64)>,
}

/// A link with its emulated properties as they are in force.
struct AirLink {
    info: LinkInfo,
    place: Place,
    /// In wall quantities, as handed to the medium.
    properties: LinkProperties,
    /// As the topology and the radio have it: what a reset goes back to.
    own: LinkProperties,
    /// A rate set by hand no longer follows the radio.
    rate_pinned: bool,
}

/// Where the medium keeps a link.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// A transmitter of the tree.
    Tree(LinkId),
    /// A virtual link that packets of this pair pass last.
    Pair(StationId, StationId),
}

impl Air {
    /// Starts the medium for a plan; `tuns` in the order of the plan's nodes.
    ///
    /// # Errors
    /// When the medium refuses the plan, or a system call fails.
    pub fn start(plan: &Plan, tuns: Vec<OwnedFd>) -> Result<Self> {
        let dilation = plan.dilation;
        let spec = spec_of(plan);
        let options = Options { mtu: plan.mtu.get() as u16, ..Options::default() };
        let handle = Medium::start(spec, tuns, options)?;
        let mut air = Self {
            handle,
            dilation,
            links: Vec::new(),
            by_ends: HashMap::new(),
            stations: plan
                .stations
                .iter()
                .map(|s| (s.name.clone(), (StationId(s.id.0), EndpointId(s.node.0 as u16))))
                .collect(),
            last: Vec::new(),
        };
        for link in &plan.links {
            let (from, to) = (&plan.stations[link.from.index()], &plan.stations[link.to.index()]);
            let properties = properties_of(&link.settings, link.rate, dilation);
            let place = match link.kind {
                LinkKind::Virtual => Place::Pair(StationId(from.id.0), StationId(to.id.0)),
                _ => Place::Tree(LinkId(link.id.0)),
            };
            if let Place::Pair(from, to) = place {
                air.handle.set_override(from, to, properties.clone())?;
            }
            let info = info_of(&link.name, &from.name, &to.name, kind_of(link.kind), &properties, dilation);
            air.by_ends.insert((from.name.clone(), to.name.clone()), air.links.len());
            let own = properties.clone();
            air.links.push(AirLink { info, place, properties, own, rate_pinned: false });
        }
        air.last = vec![(LinkMeters::default(), 0); air.links.len()];
        Ok(air)
    }

    /// Every link as it is now.
    pub fn infos(&self) -> impl Iterator<Item = &LinkInfo> {
        self.links.iter().map(|link| &link.info)
    }

    /// Sets the radio's rates; links whose rate was set by hand keep it. Returns what changed, by name.
    ///
    /// # Errors
    /// When the medium has stopped.
    pub fn set_rates(&mut self, rates: &[(ids::LinkId, BitsPerSecond)]) -> Result<Vec<(String, f64)>> {
        let mut patches = Vec::new();
        let mut changed = Vec::new();
        for (id, rate) in rates {
            let Some(link) = self.links.get_mut(id.index()) else { continue };
            let Place::Tree(place) = link.place else { continue };
            let wall = rate.in_wall(self.dilation).get();
            link.own.rate_bps = Some(wall);
            if link.rate_pinned || link.info.rate_bps == Some(rate.get()) {
                continue;
            }
            link.info.rate_bps = Some(rate.get());
            link.properties.rate_bps = Some(wall);
            patches.push((place, LinkPatch::rate(wall)));
            changed.push((link.info.name.clone(), rate.get()));
        }
        if !patches.is_empty() {
            self.handle.patch_links(patches)?;
        }
        Ok(changed)
    }

    /// Hands a user over to another BS: its access links end there from now on, with the properties that they have.
    ///
    /// # Errors
    /// When the medium has stopped.
    pub fn hand_over(&mut self, plan: &Plan, user: ids::StationId, bs: ids::BsId) -> Result<()> {
        let parent = plan.bs_station(bs);
        self.handle.attach(StationId(user.0), StationId(parent.0))?;
        let Some(attachment) = plan.stations.get(user.index()).and_then(|station| station.attachment) else {
            return Ok(());
        };
        let name = plan.stations[parent.index()].name.clone();
        for (id, up) in [(attachment.up, true), (attachment.down, false)] {
            let Some(info) = self.links.get_mut(id.index()).map(|link| &mut link.info) else { continue };
            self.by_ends.remove(&(info.from.clone(), info.to.clone()));
            let end = if up { &mut info.to } else { &mut info.from };
            *end = name.clone();
            self.by_ends.insert((info.from.clone(), info.to.clone()), id.index());
        }
        Ok(())
    }

    /// Changes a link by hand. A pair that has no link of its own gets a virtual one, passed after those of the tree.
    ///
    /// # Errors
    /// For a station that does not exist, the two ends being one, or a value out of range.
    pub fn change(&mut self, from: &str, to: &str, change: &LinkChange) -> Result<LinkInfo> {
        let (from_id, to_id) = (self.station(from)?.0, self.station(to)?.0);
        if from_id == to_id {
            return Err(Error::Refused(format!("{from} has no link to itself")));
        }
        let patch = patch_of(change, self.dilation)?;
        let index = match self.by_ends.get(&(from.to_owned(), to.to_owned())) {
            Some(index) => *index,
            None => self.add_pair(from, to, from_id, to_id),
        };
        let link = &mut self.links[index];
        let base = if change.reset { &link.own } else { &link.properties };
        let properties = patch.applied_to(base);
        let patch = if change.reset { LinkPatch::all(&properties) } else { patch };
        let applied = match link.place {
            Place::Tree(id) => self.handle.patch_links(vec![(id, patch)]),
            Place::Pair(from, to) => self.handle.set_override(from, to, properties.clone()),
        };
        applied.map_err(|error| Error::Refused(error.to_string()))?;
        link.rate_pinned = change.rate_bps.is_some() || (link.rate_pinned && !change.reset);
        link.info = info_of(&link.info.name, from, to, &link.info.kind, &properties, self.dilation);
        link.properties = properties;
        Ok(link.info.clone())
    }

    /// Keeps packets of these pairs of nodes from passing, from now on.
    ///
    /// # Errors
    /// For a node that does not exist.
    pub fn block(&self, pairs: &[(String, String)]) -> Result<()> {
        let pairs = pairs
            .iter()
            .map(|(from, to)| Ok((self.endpoint(from)?, self.endpoint(to)?)))
            .collect::<Result<_>>()?;
        Ok(self.handle.block(pairs)?)
    }

    /// Lifts every block.
    ///
    /// # Errors
    /// When the medium has stopped.
    pub fn heal(&self) -> Result<()> {
        Ok(self.handle.heal()?)
    }

    /// The medium itself, for captures and counters.
    pub fn medium(&self) -> &MediumHandle {
        &self.handle
    }

    /// The medium's name for a link of the tree.
    pub fn link_id(&self, from: &str, to: &str) -> Result<LinkId> {
        match self.by_ends.get(&(from.to_owned(), to.to_owned())).map(|index| self.links[*index].place) {
            Some(Place::Tree(id)) => Ok(id),
            _ => Err(Error::Refused(format!(
                "there is no link of its own from {from} to {to}; links join a user and its BS, or a BS and the MBS"
            ))),
        }
    }

    /// The medium's name for a node.
    pub fn endpoint(&self, node: &str) -> Result<EndpointId> {
        self.stations
            .get(node)
            .or_else(|| self.stations.get(&format!("{node}.1")))
            .map(|(_, endpoint)| *endpoint)
            .ok_or_else(|| self.unknown(node))
    }

    /// Counters of the links that did something since the last call.
    pub fn counters(&mut self, snapshot: &AirSnapshot) -> Vec<LinkCounters> {
        let mut changed = Vec::new();
        for (index, link) in self.links.iter().enumerate() {
            let meters = match link.place {
                Place::Tree(id) => snapshot.links.get(id.index()),
                Place::Pair(from, to) => {
                    snapshot.overrides.iter().find(|o| (o.from, o.to) == (from, to)).map(|o| &o.meters)
                }
            };
            let Some(meters) = meters else { continue };
            if self.last.len() <= index {
                self.last.resize(index + 1, (LinkMeters::default(), 0));
            }
            let (before, before_ns) = &self.last[index];
            if before.offered == meters.offered && before.delivered == meters.delivered {
                continue;
            }
            let passed_ns = snapshot.at_ns.saturating_sub((*before_ns).max(snapshot.started_ns)).max(1);
            let busy_ns = meters.busy_ns.saturating_sub(before.busy_ns);
            changed.push(LinkCounters {
                link: link.info.name.clone(),
                sent: meters.offered.packets,
                delivered: meters.delivered.packets,
                bytes: meters.delivered.bytes,
                dropped: drops_of(&meters.drops),
                corrupted: meters.corrupted,
                queue_bytes: meters.queue_bytes,
                utilisation: (busy_ns as f64 / passed_ns as f64).min(1.0),
                late: meters.late,
            });
            self.last[index] = (*meters, snapshot.at_ns);
        }
        changed
    }

    /// A link's name with its meters, for the verdict.
    pub fn named_meters<'a>(
        &'a self,
        snapshot: &'a AirSnapshot,
    ) -> impl Iterator<Item = (&'a str, &'a LinkMeters)> {
        self.links.iter().filter_map(|link| match link.place {
            Place::Tree(id) => Some((link.info.name.as_str(), snapshot.links.get(id.index())?)),
            Place::Pair(..) => None,
        })
    }

    fn add_pair(&mut self, from: &str, to: &str, from_id: StationId, to_id: StationId) -> usize {
        let properties = LinkProperties::default();
        let info = info_of(&format!("{from}>{to}"), from, to, "override", &properties, self.dilation);
        self.by_ends.insert((from.to_owned(), to.to_owned()), self.links.len());
        let (place, own) = (Place::Pair(from_id, to_id), properties.clone());
        self.links.push(AirLink { info, place, properties, own, rate_pinned: false });
        self.links.len() - 1
    }

    fn station(&self, name: &str) -> Result<(StationId, EndpointId)> {
        self.stations.get(name).copied().ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        let names = self.stations.keys().map(String::as_str);
        let hint = dtwn_model::suggest(name, names)
            .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        Error::Refused(format!("there is no station `{name}` in this network{hint}"))
    }
}

fn spec_of(plan: &Plan) -> AirSpec {
    AirSpec {
        seed: plan.topology().run.seed,
        dilation: plan.dilation,
        endpoints: plan.nodes.iter().map(|node| EndpointSpec { name: node.name.clone() }).collect(),
        stations: plan
            .stations
            .iter()
            .map(|station| StationSpec {
                name: station.name.clone(),
                endpoint: EndpointId(station.node.0 as u16),
                addresses: station
                    .addresses
                    .iter()
                    .map(|address| AddressMatch { mask: address.mask, value: address.value })
                    .collect(),
                attachment: station.attachment.map(|at| Attachment {
                    parent: StationId(at.parent.0),
                    up: LinkId(at.up.0),
                    down: LinkId(at.down.0),
                }),
            })
            .collect(),
        links: plan
            .links
            .iter()
            .filter(|link| link.kind != LinkKind::Virtual)
            .map(|link| LinkSpec {
                name: link.name.clone(),
                properties: properties_of(&link.settings, link.rate, plan.dilation),
            })
            .collect(),
    }
}

fn properties_of(settings: &LinkSettings, rate: Option<BitsPerSecond>, dilation: f64) -> LinkProperties {
    LinkProperties {
        rate_bps: rate.map(|rate| rate.in_wall(dilation).get()),
        delay: settings.delay.in_wall(dilation),
        jitter: settings.jitter.in_wall(dilation),
        loss: match &settings.loss {
            topology::Loss::Uniform(p) if p.get() == 0.0 => Loss::None,
            topology::Loss::Uniform(p) => Loss::Bernoulli(p.get()),
            topology::Loss::GilbertElliott(ge) => Loss::GilbertElliott {
                p: ge.good_to_bad.get(),
                r: ge.bad_to_good.get(),
                loss_good: ge.loss_good.get(),
                loss_bad: ge.loss_bad.get(),
            },
        },
        duplicate: settings.duplicate.get(),
        corrupt: settings.corrupt.get(),
        reorder: settings.reorder.get(),
        arq: match &settings.arq {
            OrNone::None => None,
            OrNone::Some(arq) => {
                Some(Arq { attempts_max: arq.attempts_max, turnaround: arq.turnaround.in_wall(dilation) })
            }
        },
        queue: Queue {
            bytes: match settings.queue {
                QueueLimit::Auto => QueueBytes::Auto,
                QueueLimit::Bytes(bytes) => QueueBytes::Bytes(bytes.get()),
            },
            discipline: match settings.discipline {
                topology::Discipline::Drr => Discipline::Drr,
                topology::Discipline::Fifo => Discipline::Fifo,
            },
        },
        up: settings.up,
    }
}

fn patch_of(change: &LinkChange, dilation: f64) -> Result<LinkPatch> {
    let time = |name: &str, value: Option<f64>| -> Result<Option<Duration>> {
        value
            .map(|ms| {
                Duration::try_from_secs_f64(ms / 1000.0 * dilation).map_err(|_| {
                    Error::Refused(format!("{name} {ms} ms is no length of time: give a number from 0 up"))
                })
            })
            .transpose()
    };
    Ok(LinkPatch {
        rate_bps: change.rate_bps.map(|rate| Some(rate / dilation)),
        delay: time("delay", change.delay_ms)?,
        jitter: time("jitter", change.jitter_ms)?,
        loss: change.loss.map(|p| if p == 0.0 { Loss::None } else { Loss::Bernoulli(p) }),
        duplicate: change.duplicate,
        corrupt: change.corrupt,
        reorder: change.reorder,
        arq: None,
        queue_bytes: change.queue_bytes.map(QueueBytes::Bytes),
        discipline: None,
        up: change.up,
    })
}

fn info_of(
    name: &str,
    from: &str,
    to: &str,
    kind: &str,
    properties: &LinkProperties,
    dilation: f64,
) -> LinkInfo {
    let emulated_ms = |time: Duration| time.as_secs_f64() * 1000.0 / dilation;
    LinkInfo {
        name: name.into(),
        from: from.into(),
        to: to.into(),
        kind: kind.into(),
        // Whole bit/s: the way to wall time and back leaves dust behind the point.
        rate_bps: properties.rate_bps.map(|rate| (rate * dilation).round()),
        delay_ms: emulated_ms(properties.delay),
        jitter_ms: emulated_ms(properties.jitter),
        loss: mean_loss(&properties.loss),
        up: properties.up,
    }
}

/// The share of packets that a loss model drops in the long run.
fn mean_loss(loss: &Loss) -> f64 {
    match *loss {
        Loss::None => 0.0,
        Loss::Bernoulli(p) => p,
        Loss::GilbertElliott { p, r, loss_good, loss_bad } => {
            let bad = if p + r > 0.0 { p / (p + r) } else { 0.0 };
            bad * loss_bad + (1.0 - bad) * loss_good
        }
    }
}

/// What a link is, as told in events and lists.
pub fn kind_of(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Uplink(_) => "uplink",
        LinkKind::Downlink(_) => "downlink",
        LinkKind::AccessUp(_) => "access-up",
        LinkKind::AccessDown(_) => "access-down",
        LinkKind::Virtual => "override",
    }
}

fn drops_of(drops: &dtwn_air::Drops) -> Drops {
    Drops {
        loss: drops.loss,
        queue: drops.queue,
        down: drops.down,
        partition: drops.partition,
        unroutable: drops.unroutable,
        host: drops.host,
    }
}
