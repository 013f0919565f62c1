//! What the medium is made of: endpoints, stations, links and their properties.
//!
//! All times and rates are *wall* quantities: a caller that runs an emulation slower than real time converts
//! before it comes here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::AirError;

/// A TUN device: index into [`AirSpec::endpoints`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId(pub u16);

/// An addressable radio station behind an endpoint: index into [`AirSpec::stations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StationId(pub u32);

/// A transmitter: index into [`AirSpec::links`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkId(pub u32);

impl EndpointId {
    /// The index as `usize`.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl StationId {
    /// The index as `usize`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl LinkId {
    /// The index as `usize`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Everything the medium connects, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AirSpec {
    /// Seed of every link's random streams; each link derives its own from this and its name.
    pub seed: u64,
    /// The TUN devices, in the order in which their file descriptors are handed over.
    pub endpoints: Vec<EndpointSpec>,
    /// The stations, as a forest: `attachment: None` marks a root.
    pub stations: Vec<StationSpec>,
    /// The links that the stations' attachments name.
    pub links: Vec<LinkSpec>,
    /// Wall time per unit of the caller's own time. It stretches the medium's constants of time (the 20 ms of an automatic
    /// queue, the 1 ms of lateness and of reordering), so that a network run slower keeps its proportions. At least 1.
    pub dilation: f64,
}

impl Default for AirSpec {
    fn default() -> Self {
        Self { seed: 0, endpoints: Vec::new(), stations: Vec::new(), links: Vec::new(), dilation: 1.0 }
    }
}

/// One TUN device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// Name, for captures and messages.
    pub name: String,
}

/// One station: a set of IPv4 addresses behind an endpoint, and its place in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationSpec {
    /// Name, for messages.
    pub name: String,
    /// The TUN device that its packets are read from and written to.
    pub endpoint: EndpointId,
    /// The addresses it answers to. Of several matches the one with the most mask bits wins.
    pub addresses: Vec<AddressMatch>,
    /// Parent and links towards it; `None` for a root.
    pub attachment: Option<Attachment>,
}

/// Matches the IPv4 addresses `a` (host byte order, as `u32::from(Ipv4Addr)`) with `a & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AddressMatch {
    /// The bits that are compared.
    pub mask: u32,
    /// What they must be; has no bit outside `mask`.
    pub value: u32,
}

impl AddressMatch {
    /// Matches one address.
    pub fn host(address: std::net::Ipv4Addr) -> Self {
        Self { mask: u32::MAX, value: u32::from(address) }
    }
}

/// A station's place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The station above.
    pub parent: StationId,
    /// Serialises all that the station sends, to its parent or beyond.
    pub up: LinkId,
    /// Serialises all that its parent sends down to it.
    pub down: LinkId,
}

/// One link with its name (unique: it seeds the link's random streams).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Unique name.
    pub name: String,
    /// Its properties at the start.
    pub properties: LinkProperties,
}

/// What a link does to packets. The default is a perfect wire: no serialisation, no delay, no loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkProperties {
    /// Rate of whole IP packets, bit/s. `None`: no serialisation (and so no queue). `Some(0.0)`: a transmitter
    /// without any share of the channel; packets wait until the rate rises.
    pub rate_bps: Option<f64>,
    /// Propagation delay.
    pub delay: Duration,
    /// Added to the delay: uniform in `[0, jitter]`. Packets keep their order.
    pub jitter: Duration,
    /// Random loss, decided after the airtime is spent.
    pub loss: Loss,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that a packet arrives with one bit flipped behind its IP header.
    pub corrupt: f64,
    /// Probability that a packet is held back by a further `max(delay, 1 ms)`, so that later ones overtake it.
    pub reorder: f64,
    /// Link-layer retransmission of lost packets.
    pub arq: Option<Arq>,
    /// The queue ahead of the transmitter.
    pub queue: Queue,
    /// A link that is down drops what enters it and what it has queued.
    pub up: bool,
}

impl Default for LinkProperties {
    fn default() -> Self {
        Self {
            rate_bps: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::None,
            duplicate: 0.0,
            corrupt: 0.0,
            reorder: 0.0,
            arq: None,
            queue: Queue::default(),
            up: true,
        }
    }
}

/// How packets get lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Not at all.
    #[default]
    None,
    /// Each transmission independently with this probability.
    Bernoulli(f64),
    /// In bursts (Gilbert 1960, Elliott 1963): a two-state Markov chain that steps once a transmission.
    GilbertElliott {
        /// Probability of going from the good state to the bad one.
        p: f64,
        /// Probability of going from the bad state to the good one; the mean bad period is 1/r transmissions.
        r: f64,
        /// Loss probability in the good state.
        loss_good: f64,
        /// Loss probability in the bad state.
        loss_bad: f64,
    },
}

/// Retransmission by the link itself: a lost packet is sent again, ahead of the queue, and spends airtime again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arq {
    /// Transmissions of one packet at most, the first included (at least 1); after the last the packet is lost.
    pub attempts_max: u8,
    /// Time from the end of a lost transmission to the start of the next, during which the transmitter waits.
    pub turnaround: Duration,
}

/// The queue ahead of a transmitter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Its bound.
    pub bytes: QueueBytes,
    /// Its order of service.
    pub discipline: Discipline,
}

/// A queue's bound. A bound that shrinks below what is queued drops nothing: it admits nothing until there is room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueBytes {
    /// max(2×BDP, 20 ms at the current rate, 15,000 B), with BDP = rate × 2·delay. The last term, TCP's initial
    /// window of ten full packets (RFC 6928), keeps slow links usable.
    #[default]
    Auto,
    /// This many bytes.
    Bytes(u64),
}

/// The order in which queued packets are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discipline {
    /// Deficit round robin over flows (Shreedhar & Varghese 1996), a flow being a hashed 5-tuple. A full queue
    /// drops from its longest flow.
    #[default]
    Drr,
    /// First in, first out. A full queue drops what arrives.
    Fifo,
}

/// A live change: the fields that are `Some` replace the property of that name, the others leave it alone.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "each field is documented by the LinkProperties field of its name")]
pub struct LinkPatch {
    pub rate_bps: Option<Option<f64>>,
    pub delay: Option<Duration>,
    pub jitter: Option<Duration>,
    pub loss: Option<Loss>,
    pub duplicate: Option<f64>,
    pub corrupt: Option<f64>,
    pub reorder: Option<f64>,
    pub arq: Option<Option<Arq>>,
    /// The bound of [`LinkProperties::queue`].
    pub queue_bytes: Option<QueueBytes>,
    /// The order of service of [`LinkProperties::queue`].
    pub discipline: Option<Discipline>,
    pub up: Option<bool>,
}

impl LinkPatch {
    /// A patch that changes the rate only, bit/s.
    pub fn rate(rate_bps: f64) -> Self {
        Self { rate_bps: Some(Some(rate_bps)), ..Self::default() }
    }

    /// A patch that sets every property.
    pub fn all(properties: &LinkProperties) -> Self {
        Self {
            rate_bps: Some(properties.rate_bps),
            delay: Some(properties.delay),
            jitter: Some(properties.jitter),
            loss: Some(properties.loss),
            duplicate: Some(properties.duplicate),
            corrupt: Some(properties.corrupt),
            reorder: Some(properties.reorder),
            arq: Some(properties.arq),
            queue_bytes: Some(properties.queue.bytes),
            discipline: Some(properties.queue.discipline),
            up: Some(properties.up),
        }
    }

    /// The properties that result from this patch on `base`.
    pub fn applied_to(&self, base: &LinkProperties) -> LinkProperties {
        LinkProperties {
            rate_bps: self.rate_bps.unwrap_or(base.rate_bps),
            delay: self.delay.unwrap_or(base.delay),
            jitter: self.jitter.unwrap_or(base.jitter),
            loss: self.loss.unwrap_or(base.loss),
            duplicate: self.duplicate.unwrap_or(base.duplicate),
            corrupt: self.corrupt.unwrap_or(base.corrupt),
            reorder: self.reorder.unwrap_or(base.reorder),
            arq: self.arq.unwrap_or(base.arq),
            queue: Queue {
                bytes: self.queue_bytes.unwrap_or(base.queue.bytes),
                discipline: self.discipline.unwrap_or(base.queue.discipline),
            },
            up: self.up.unwrap_or(base.up),
        }
    }
}

/// The longest delay, jitter or turnaround that is accepted: an hour.
pub const DELAY_MAX: Duration = Duration::from_secs(3600);

/// The highest rate that is accepted, bit/s: at 1 Tbit/s a packet's airtime is of the order of the clock's tick.
pub const RATE_BPS_MAX: f64 = 1e12;

impl LinkProperties {
    /// Checks every number; `link` names the link in the error.
    ///
    /// # Errors
    /// [`AirError::Property`] for a probability outside [0, 1], a rate that is negative, not a number or above
    /// [`RATE_BPS_MAX`], a time above [`DELAY_MAX`], an empty queue or an ARQ that never sends.
    pub fn check(&self, link: &str) -> Result<(), AirError> {
        let refuse = |property: &'static str, value: String, want: &'static str| {
            Err(AirError::Property { link: link.to_owned(), property, value, want })
        };
        if let Some(rate) = self.rate_bps
            && !(0.0..=RATE_BPS_MAX).contains(&rate)
        {
            return refuse("rate_bps", rate.to_string(), "a number from 0 to 1e12 bit/s");
        }
        let turnaround = self.arq.map_or(Duration::ZERO, |arq| arq.turnaround);
        for (name, time) in [("delay", self.delay), ("jitter", self.jitter), ("arq.turnaround", turnaround)] {
            if time > DELAY_MAX {
                return refuse(name, format!("{time:?}"), "at most 3600 s");
            }
        }
        let probabilities =
            [("duplicate", self.duplicate), ("corrupt", self.corrupt), ("reorder", self.reorder)];
        for (name, probability) in probabilities.into_iter().chain(self.loss.probabilities()) {
            if !(0.0..=1.0).contains(&probability) {
                return refuse(name, probability.to_string(), "a probability from 0 to 1");
            }
        }
        if self.arq.is_some_and(|arq| arq.attempts_max == 0) {
            return refuse("arq.attempts_max", "0".to_owned(), "at least 1");
        }
        if self.queue.bytes == QueueBytes::Bytes(0) {
            return refuse("queue.bytes", "0".to_owned(), "at least 1 byte");
        }
        Ok(())
    }
}

impl Loss {
    fn probabilities(self) -> Vec<(&'static str, f64)> {
        match self {
            Self::None => Vec::new(),
            Self::Bernoulli(p) => vec![("loss", p)],
            Self::GilbertElliott { p, r, loss_good, loss_bad } => {
                vec![("loss.p", p), ("loss.r", r), ("loss.loss_good", loss_good), ("loss.loss_bad", loss_bad)]
            }
        }
    }
}
