//! Rates of the radio links: Eq. 7–8 over a plan.

use super::{LinkKind, Plan};
use crate::ids::{BsId, LinkId, StationId, UserId};
use crate::radio::{Channel, FadingPath, FadingProcess, Signal, TimeShares, downlink_rate, uplink_rate};
use crate::topology::RateSource;
use crate::units::{BitsPerSecond, Dbm};

/// Which BS serves each user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Association {
    serving: Vec<BsId>,
}

impl Association {
    /// From the serving BS of each user, in order of their index.
    pub fn new(serving: Vec<BsId>) -> Self {
        Self { serving }
    }

    /// The BS that serves a user; `None` for a user it does not know.
    pub fn serving(&self, user: UserId) -> Option<BsId> {
        self.serving.get(user.index()).copied()
    }

    /// K: how many users each of `stations` BSs serves.
    pub fn counts(&self, stations: usize) -> Vec<u32> {
        let mut counts = vec![0; stations];
        for bs in &self.serving {
            if let Some(count) = counts.get_mut(bs.index()) {
                *count += 1;
            }
        }
        counts
    }

    /// The users that a BS serves.
    pub fn users_of(&self, bs: BsId) -> impl Iterator<Item = UserId> {
        self.serving.iter().enumerate().filter(move |(_, b)| **b == bs).map(|(u, _)| UserId::at(u))
    }
}

impl Plan {
    /// The rates of all links whose rate is the radio's, in a coherence slot, under time shares and an association.
    ///
    /// Access links are given Eq. 7's form with the user's power (down: the BS's) over the access band, and an equal
    /// share of the time among the users their BS serves. A pure function: same arguments, same bits.
    pub fn rates_at(
        &self,
        slot: u64,
        tau: &TimeShares,
        association: &Association,
    ) -> Vec<(LinkId, BitsPerSecond)> {
        let air = Air::new(self);
        let counts = association.counts(self.bs_count);
        self.links
            .iter()
            .filter(|link| link.settings.rate == RateSource::Radio)
            .filter_map(|link| Some((link.id, air.rate(link.kind, slot, tau, association, &counts)?)))
            .collect()
    }

    /// The fading gains h between the BSs and the MBS in a coherence slot, as [`rates_at`](Self::rates_at) has them.
    pub fn cell_gains(&self, slot: u64) -> CellGains {
        let (air, subchannels) = (Air::new(self), self.topology.radio.subchannels);
        let gains = |direction| {
            let stations = 0..self.bs_count;
            let of = |i| (0..subchannels).map(move |c| (self.bs_station(BsId::at(i)), c));
            stations.flat_map(of).map(|(bs, c)| air.gain(bs, direction, c, slot)).collect()
        };
        CellGains { up: gains(Direction::Up), down: gains(Direction::Down) }
    }

    /// The most that a set of transmitters can put on the air at once in slot `slot`, with every link busy.
    pub fn offered(&self, slot: u64) -> Offered {
        let rates: Vec<_> = self.rates_at(slot, &self.equal_shares(), &self.association);
        let mut offered = Offered::default();
        let fixed = self.links.iter().filter_map(|link| match link.settings.rate {
            RateSource::Fixed(rate) => Some((link.id, rate)),
            RateSource::Radio => None,
        });
        for (id, rate) in rates.into_iter().chain(fixed) {
            let sum = match self.links[id.index()].kind {
                LinkKind::Uplink(_) => &mut offered.uplink,
                LinkKind::Downlink(_) => &mut offered.downlink,
                LinkKind::AccessUp(_) | LinkKind::AccessDown(_) => &mut offered.access,
                // Passed after a transmitter whose rate is counted already.
                LinkKind::Virtual => continue,
            };
            *sum = BitsPerSecond::new(sum.get() + rate.get());
        }
        offered
    }

    /// The element-wise largest [`offered`](Self::offered) over the first `slots` coherence slots, and slot 0 alone
    /// without fading. Emulated; divide by the dilation to compare it with what the machine carries.
    pub fn offered_peak(&self, slots: u64) -> Offered {
        let slots =
            if self.topology.radio.fading == crate::topology::Fading::None { 1 } else { slots.max(1) };
        let larger = |a: BitsPerSecond, b: BitsPerSecond| BitsPerSecond::new(a.get().max(b.get()));
        (0..slots).map(|slot| self.offered(slot)).fold(Offered::default(), |peak, now| Offered {
            uplink: larger(peak.uplink, now.uplink),
            downlink: larger(peak.downlink, now.downlink),
            access: larger(peak.access, now.access),
        })
    }
}

/// Fading power gains between the BSs and the MBS: that of BS i on subchannel c at `i · C + c`.
#[derive(Debug, Clone, PartialEq)]
pub struct CellGains {
    /// From the BSs to the MBS.
    pub up: Vec<f64>,
    /// From the MBS to the BSs.
    pub down: Vec<f64>,
}

/// Sums of rates that can be busy at once, emulated.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Offered {
    /// All BSs to the MBS.
    pub uplink: BitsPerSecond,
    /// The MBS to all BSs.
    pub downlink: BitsPerSecond,
    /// All users, both directions.
    pub access: BitsPerSecond,
}

impl Offered {
    /// Everything together.
    pub fn total(&self) -> BitsPerSecond {
        [self.uplink, self.downlink, self.access].into_iter().sum()
    }
}

/// The radio constants of a plan, in the units of Eq. 7–8.
pub(super) struct Air<'a> {
    plan: &'a Plan,
    cell: Channel,
    access: Channel,
    fading: FadingProcess,
}

impl<'a> Air<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let (radio, seed) = (&plan.topology.radio, plan.topology.run.seed);
        Self {
            plan,
            cell: Channel::new(radio, radio.bandwidth),
            access: Channel::new(radio, radio.access.bandwidth),
            fading: FadingProcess::new(radio.fading, radio.fading_memory, seed),
        }
    }

    /// `None` for virtual links and for users without a BS.
    pub(super) fn rate(
        &self,
        kind: LinkKind,
        slot: u64,
        tau: &TimeShares,
        association: &Association,
        counts: &[u32],
    ) -> Option<BitsPerSecond> {
        let radio = &self.plan.topology.radio;
        let (mbs, of) = (self.plan.mbs_station(), |bs| self.plan.bs_station(bs));
        let watts = |power: Option<Dbm>| power.map_or(0.0, Dbm::watts);
        Some(match kind {
            LinkKind::Uplink(bs) => {
                let other_cells_w = watts(radio.interference.uplink.get());
                let signal = |c| self.signal(radio.power.bs, of(bs), mbs, Direction::Up, c, slot);
                uplink_rate(
                    &self.cell,
                    (0..radio.subchannels)
                        .map(|c| (tau.get(bs.index(), c as usize), signal(c), other_cells_w)),
                )
            }
            LinkKind::Downlink(bs) => {
                let other_cells_w = watts(radio.interference.downlink.get());
                let signal = |c| self.signal(radio.power.mbs, of(bs), mbs, Direction::Down, c, slot);
                downlink_rate(&self.cell, (0..radio.subchannels).map(|c| (signal(c), other_cells_w)))
            }
            LinkKind::AccessUp(user) | LinkKind::AccessDown(user) => {
                let bs = association.serving(user)?;
                let share = 1.0 / f64::from(*counts.get(bs.index())?).max(1.0);
                let (power, direction) = match kind {
                    LinkKind::AccessUp(_) => (radio.power.user, Direction::Up),
                    _ => (radio.power.bs, Direction::Down),
                };
                let signal = self.signal(power, self.plan.user_station(user), of(bs), direction, 0, slot);
                uplink_rate(&self.access, [(share, signal, watts(radio.interference.access.get()))])
            }
            LinkKind::Virtual => return None,
        })
    }

    /// h on the way between a station and the one above it.
    fn gain(&self, below: StationId, direction: Direction, subchannel: u32, slot: u64) -> f64 {
        self.fading.gain(FadingPath(below.0 * 2 + direction as u32), subchannel, slot)
    }

    fn signal(
        &self,
        power: Dbm,
        below: StationId,
        above: StationId,
        direction: Direction,
        subchannel: u32,
        slot: u64,
    ) -> Signal {
        let position = |id: StationId| self.plan.stations[id.index()].position;
        Signal {
            power_w: power.watts(),
            gain: self.gain(below, direction, subchannel, slot),
            distance: position(below).distance(position(above)),
        }
    }
}

/// The two directions fade apart: each has a band of its own.
#[derive(Clone, Copy)]
enum Direction {
    Up = 0,
    Down = 1,
}
