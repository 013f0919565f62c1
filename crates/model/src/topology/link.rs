//! `[link.*]` and `[[link.override]]`: what a link does to packets, apart from its radio rate.

use super::OrNone;
use crate::units::{BitsPerSecond, Bytes, Interval, Probability};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// `[link]`: one table a class of links, and exceptions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkClasses {
    /// Between a user and its BS, each direction.
    pub access: LinkSettings,
    /// From a BS to the MBS.
    pub uplink: LinkSettings,
    /// From the MBS to a BS.
    pub downlink: LinkSettings,
    /// Exceptions, applied in order.
    #[serde(rename = "override")]
    pub overrides: Vec<LinkOverride>,
}

impl Default for LinkClasses {
    fn default() -> Self {
        let with_delay = |ms| LinkSettings { delay: Interval::from_millis(ms), ..LinkSettings::default() };
        // One-way delays of a radio hop: a few ms of frame, scheduling and processing outweigh propagation (1 µs in 300 m).
        Self { access: with_delay(4), uplink: with_delay(2), downlink: with_delay(2), overrides: Vec::new() }
    }
}

/// What a link does to packets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSettings {
    /// Where the rate comes from: `"radio"` or a fixed one.
    pub rate: RateSource,
    /// Propagation delay, one way.
    pub delay: Interval,
    /// Added to the delay: uniform from 0 to this. Packets keep their order.
    pub jitter: Interval,
    /// Which packets are lost after their airtime.
    pub loss: Loss,
    /// The probability that a packet arrives twice.
    pub duplicate: Probability,
    /// The probability that a packet arrives with a flipped bit.
    pub corrupt: Probability,
    /// The probability that a packet overtakes those before it.
    pub reorder: Probability,
    /// Link-layer retransmission, which turns loss into delay.
    pub arq: OrNone<Arq>,
    /// How many bytes may wait.
    pub queue: QueueLimit,
    /// Who of the waiting goes next.
    pub discipline: Discipline,
    /// The largest IP packet. The interfaces of all nodes take the smallest over all links.
    pub mtu: Bytes,
    /// Whether the link carries anything at all when the run begins.
    pub up: bool,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            rate: RateSource::Radio,
            delay: Interval::default(),
            jitter: Interval::default(),
            loss: Loss::default(),
            duplicate: Probability::ZERO,
            corrupt: Probability::ZERO,
            reorder: Probability::ZERO,
            arq: OrNone::None,
            queue: QueueLimit::Auto,
            discipline: Discipline::Drr,
            mtu: Bytes::new(1500),
            up: true,
        }
    }
}

macro_rules! link_override {
    ($($(#[$doc:meta])* $field:ident: $type:ty),* $(,)?) => {
        /// `[[link.override]]`: an exception for the links from one station to another.
        ///
        /// Between neighbours (a user and its BS, a BS and the MBS) it changes that link. Between any other two it adds a
        /// virtual link, which their traffic passes last; that one has no rate, delay or loss but what stands here.
        /// A group's name stands for all its users.
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct LinkOverride {
            /// The sending station: the MBS, a BS, a user (`"ug1.3"`) or a group.
            pub from: String,
            /// The receiving station.
            pub to: String,
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl LinkOverride {
            /// Puts what is given here in place of what `settings` holds.
            pub fn apply(&self, settings: &mut LinkSettings) {
                $(if let Some(value) = &self.$field {
                    settings.$field = value.clone();
                })*
            }
        }
    };
}

link_override! {
    /// See [`LinkSettings::rate`].
    rate: RateSource,
    /// See [`LinkSettings::delay`].
    delay: Interval,
    /// See [`LinkSettings::jitter`].
    jitter: Interval,
    /// See [`LinkSettings::loss`].
    loss: Loss,
    /// See [`LinkSettings::duplicate`].
    duplicate: Probability,
    /// See [`LinkSettings::corrupt`].
    corrupt: Probability,
    /// See [`LinkSettings::reorder`].
    reorder: Probability,
    /// See [`LinkSettings::arq`].
    arq: OrNone<Arq>,
    /// See [`LinkSettings::queue`].
    queue: QueueLimit,
    /// See [`LinkSettings::discipline`].
    discipline: Discipline,
    /// See [`LinkSettings::mtu`].
    mtu: Bytes,
    /// See [`LinkSettings::up`].
    up: bool,
}

/// Where a link's rate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RateSource {
    /// Eq. 7 or 8, recomputed each coherence interval: `"radio"`.
    #[default]
    Radio,
    /// A fixed one.
    Fixed(BitsPerSecond),
}

impl Serialize for RateSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Radio => serializer.serialize_str("radio"),
            Self::Fixed(rate) => rate.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RateSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;
        impl Visitor<'_> for RateVisitor {
            type Value = RateSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"radio\" or a rate with its unit, like \"10 Mbit/s\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RateSource, E> {
                if text == "radio" {
                    return Ok(RateSource::Radio);
                }
                text.parse().map(RateSource::Fixed).map_err(|e| E::custom(format!("{e}, or \"radio\"")))
            }
        }
        deserializer.deserialize_str(RateVisitor)
    }
}

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Loss {
    /// Each on its own with this probability.
    Uniform(Probability),
    /// In bursts.
    GilbertElliott(GilbertElliott),
}

impl Default for Loss {
    fn default() -> Self {
        Self::Uniform(Probability::ZERO)
    }
}

impl Loss {
    /// The long-run fraction of packets that are lost.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Uniform(p) => p.get(),
            Self::GilbertElliott(ge) => ge.mean(),
        }
    }
}

/// Gilbert–Elliott loss: a two-state Markov chain that steps once a packet (Elliott, 1963).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GilbertElliott {
    /// From the good state to the bad one, a packet.
    pub good_to_bad: Probability,
    /// From the bad state to the good one, a packet; a burst lasts 1/this packets on average.
    pub bad_to_good: Probability,
    /// Loss in the good state.
    pub loss_good: Probability,
    /// Loss in the bad state.
    pub loss_bad: Probability,
}

impl Default for GilbertElliott {
    fn default() -> Self {
        // Gilbert's model: nothing is lost in the good state, everything in the bad one, which never begins by default.
        Self {
            good_to_bad: Probability::ZERO,
            bad_to_good: Probability::ONE,
            loss_good: Probability::ZERO,
            loss_bad: Probability::ONE,
        }
    }
}

impl GilbertElliott {
    /// The long-run fraction of packets that are lost, from the chain's stationary distribution. A chain that never
    /// leaves its states counts as good, where it begins.
    pub fn mean(&self) -> f64 {
        let (p, r) = (self.good_to_bad.get(), self.bad_to_good.get());
        let bad = if p + r > 0.0 { p / (p + r) } else { 0.0 };
        bad * self.loss_bad.get() + (1.0 - bad) * self.loss_good.get()
    }
}

impl<'de> Deserialize<'de> for Loss {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LossVisitor;
        impl<'de> Visitor<'de> for LossVisitor {
            type Value = Loss;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a probability from 0 to 1, like 0.05 or \"5%\", or a Gilbert-Elliott table")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Loss, E> {
                Probability::deserialize(serde::de::value::F64Deserializer::new(value)).map(Loss::Uniform)
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Loss, E> {
                self.visit_f64(value as f64)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Loss, E> {
                text.parse().map(Loss::Uniform).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Loss, A::Error> {
                GilbertElliott::deserialize(MapAccessDeserializer::new(map)).map(Loss::GilbertElliott)
            }
        }
        deserializer.deserialize_any(LossVisitor)
    }
}

/// Link-layer retransmission: a lost packet is sent again, spending airtime and delay each time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Arq {
    /// Transmissions of one packet at most, the first included; after the last the packet is lost.
    pub attempts_max: u8,
    /// From the end of a lost transmission to the start of the next, during which the transmitter waits.
    pub turnaround: Interval,
}

impl Default for Arq {
    fn default() -> Self {
        // LTE's usual HARQ: three retransmissions after the first, 8 ms of round trip each.
        Self { attempts_max: 4, turnaround: Interval::from_millis(8) }
    }
}

/// How many bytes may wait at a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueLimit {
    /// The larger of twice the bandwidth-delay product and 20 ms at the current rate: `"auto"`.
    #[default]
    Auto,
    /// A fixed number of bytes.
    Bytes(Bytes),
}

impl Serialize for QueueLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Bytes(bytes) => bytes.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for QueueLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct QueueVisitor;
        impl Visitor<'_> for QueueVisitor {
            type Value = QueueLimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a size with its unit, like \"64 KiB\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<QueueLimit, E> {
                if text == "auto" {
                    return Ok(QueueLimit::Auto);
                }
                text.parse().map(QueueLimit::Bytes).map_err(|e| E::custom(format!("{e}, or \"auto\"")))
            }
        }
        deserializer.deserialize_str(QueueVisitor)
    }
}

/// Who of the waiting packets goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discipline {
    /// Deficit round robin over flows (Shreedhar & Varghese, 1995).
    Drr,
    /// First in, first out.
    Fifo,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gilbert_elliott_mean_by_hand() {
        let p = |v| Probability::new(v).unwrap();
        let ge = GilbertElliott {
            good_to_bad: p(0.01),
            bad_to_good: p(0.24),
            loss_good: p(0.0),
            loss_bad: p(0.5),
        };
        // 0.01/0.25 = 4 % of packets meet the bad state, half of those are lost.
        assert!((ge.mean() - 0.02).abs() < 1e-12);
        assert_eq!(GilbertElliott::default().mean(), 0.0);
    }
}
