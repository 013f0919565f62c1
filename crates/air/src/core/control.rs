//! Changing a running medium, and reading its counters.

use hdrhistogram::Histogram;

use super::fate::Fate;
use super::link::Link;
use super::route::known;
use super::{Core, Times};
use crate::error::AirError;
use crate::meters::{AirSnapshot, Distribution, DropCause, Drops, OverrideMeters, TimeSummary, Totals};
use crate::spec::{EndpointId, LinkId, LinkPatch, LinkProperties, StationId};

/// The longest time that the distributions tell apart: the hour that a delay may last.
const TIME_NS_MAX: u64 = 3_600_000_000_000;

impl Times {
    pub(super) fn new() -> Result<Self, AirError> {
        let histogram = || {
            Histogram::new_with_bounds(1, TIME_NS_MAX, 2)
                .map_err(|error| AirError::io("making a histogram")(std::io::Error::other(error)))
        };
        Ok(Self { interval: histogram()?, before: histogram()? })
    }

    /// Both summaries; begins a new interval.
    fn take(&mut self) -> Distribution {
        let interval = summary(&self.interval);
        // Both have the same bounds, so that adding cannot fail.
        let _ = self.before.add(&self.interval);
        self.interval.reset();
        Distribution { interval, overall: summary(&self.before) }
    }
}

fn summary(times: &Histogram<u64>) -> TimeSummary {
    TimeSummary {
        count: times.len(),
        p50_ns: times.value_at_quantile(0.5),
        p99_ns: times.value_at_quantile(0.99),
        max_ns: times.max(),
    }
}

impl Core {
    /// Changes links at `now`, all or none.
    ///
    /// # Errors
    /// [`AirError::Unknown`] or [`AirError::Property`].
    pub fn patch_links(&mut self, patches: &[(LinkId, LinkPatch)], now: u64) -> Result<(), AirError> {
        for (link, patch) in patches {
            known("link", link.index(), self.link_names.len())?;
            patch.applied_to(&self.links[link.index()].properties).check(&self.link_names[link.index()])?;
        }
        self.advance(now);
        for (link, patch) in patches {
            self.apply(link.index(), patch);
        }
        self.advance(now);
        Ok(())
    }

    fn apply(&mut self, index: usize, patch: &LinkPatch) {
        let now = self.now;
        let link = &mut self.links[index];
        link.apply(patch, now);
        link.queue.set_discipline(link.properties.queue.discipline, &mut self.packets);
        if !link.properties.up {
            let aborted = link.abort(now);
            let mut dropped: Vec<u32> = aborted.into_iter().collect();
            while let Some(queued) = link.queue.pop(&self.packets) {
                dropped.push(queued);
            }
            link.idle(now);
            for packet in dropped {
                self.drop_packet(index, packet, DropCause::Down, now);
            }
        }
        self.reschedule(index);
    }

    /// Moves a station below another parent.
    ///
    /// # Errors
    /// [`AirError::Unknown`], [`AirError::Root`] or [`AirError::Cycle`].
    pub fn attach(&mut self, station: StationId, parent: StationId, now: u64) -> Result<(), AirError> {
        self.advance(now);
        self.stations.attach(station, parent)
    }

    /// Adds or changes the virtual link that packets from `from` to `to` pass last.
    ///
    /// # Errors
    /// [`AirError::Unknown`] or [`AirError::Property`].
    pub fn set_override(
        &mut self,
        from: StationId,
        to: StationId,
        properties: LinkProperties,
        now: u64,
    ) -> Result<(), AirError> {
        for station in [from, to] {
            known("station", station.index(), self.stations.len())?;
        }
        let name = format!("{} > {}", self.stations.name(from), self.stations.name(to));
        properties.check(&name)?;
        self.advance(now);
        if let Some(&link) = self.overrides.get(&(from, to)) {
            self.apply(link as usize, &LinkPatch::all(&properties));
            self.advance(now);
            return Ok(());
        }
        // No link of the specification shares its streams: `\0` keeps the two kinds of names apart.
        let fate = Fate::new(self.seed, &format!("override\0{name}"));
        let link = Link::new(properties, fate, u32::from(self.mtu), self.dilation);
        let empty = self.retired.iter().position(|link| self.links[*link as usize].meters.in_flight == 0);
        let index = match empty {
            Some(place) => {
                let index = self.retired.swap_remove(place);
                let before = std::mem::replace(&mut self.links[index as usize], link);
                self.retired_drops.add_all(&before.meters.drops);
                self.retired_duplicated += before.meters.duplicated;
                index
            }
            None => {
                self.links.push(link);
                self.schedule.push();
                (self.links.len() - 1) as u32
            }
        };
        self.overrides.insert((from, to), index);
        Ok(())
    }

    /// Removes a virtual link, if there is one; packets inside it go on.
    ///
    /// # Errors
    /// [`AirError::Unknown`].
    pub fn clear_override(&mut self, from: StationId, to: StationId, now: u64) -> Result<(), AirError> {
        for station in [from, to] {
            known("station", station.index(), self.stations.len())?;
        }
        self.advance(now);
        if let Some(link) = self.overrides.remove(&(from, to)) {
            self.retired.push(link);
        }
        Ok(())
    }

    /// Blocks directed pairs of endpoints, in addition to those blocked before.
    ///
    /// # Errors
    /// [`AirError::Unknown`].
    pub fn block(&mut self, pairs: &[(EndpointId, EndpointId)], now: u64) -> Result<(), AirError> {
        for (from, to) in pairs {
            known("endpoint", from.index(), self.endpoints.len())?;
            known("endpoint", to.index(), self.endpoints.len())?;
        }
        self.advance(now);
        self.blocked.extend(pairs.iter().copied());
        Ok(())
    }

    /// Ends every partition.
    pub fn heal(&mut self, now: u64) {
        self.advance(now);
        self.blocked.clear();
    }

    /// The counters at `now`; begins a new interval. CPU time and captures are the driver's to fill in.
    pub fn snapshot(&mut self, now: u64) -> AirSnapshot {
        self.advance(now);
        let now = self.now;
        let mut totals = Totals {
            drops: self.retired_drops,
            duplicated: self.retired_duplicated,
            in_flight: self.packets.len() + self.outbox.len() as u64 + self.handed_out,
            buffer_bytes: self.pool.held_bytes(),
            ..Totals::default()
        };
        for endpoint in &self.endpoints {
            totals.read.add_all(endpoint.meters.read);
            totals.written.add_all(endpoint.meters.written);
            totals.drops.add_all(&endpoint.meters.drops);
        }
        for link in &self.links {
            totals.drops.add_all(&link.meters.drops);
            totals.duplicated += link.meters.duplicated;
        }
        let spec_links = self.link_names.len();
        let mut overrides: Vec<OverrideMeters> = Vec::with_capacity(self.overrides.len());
        for (&(from, to), &link) in &self.overrides {
            let link = &mut self.links[link as usize];
            let properties = link.properties.clone();
            overrides.push(OverrideMeters { from, to, properties, meters: link.snapshot(now) });
        }
        overrides.sort_by_key(|o| (o.from, o.to));
        AirSnapshot {
            at_ns: now,
            started_ns: self.started_ns.unwrap_or(now),
            cpu_ns: 0,
            links: self.links[..spec_links].iter_mut().map(|link| link.snapshot(now)).collect(),
            overrides,
            endpoints: self.endpoints.iter().map(|endpoint| endpoint.meters).collect(),
            totals,
            lateness: self.lateness.take(),
            delay: self.delay.take(),
        }
    }
}

impl Drops {
    fn add_all(&mut self, other: &Self) {
        self.loss += other.loss;
        self.queue += other.queue;
        self.down += other.down;
        self.partition += other.partition;
        self.unroutable += other.unroutable;
        self.host += other.host;
    }
}

impl crate::meters::Count {
    fn add_all(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}
