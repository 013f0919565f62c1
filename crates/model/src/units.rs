//! Quantities as types, and how a person writes them.
//!
//! **The one convention for topology files:** a quantity with a dimension is a string of a number and its unit
//! (`"10 ms"`, `"30 MHz"`, `"34 dBm"`, `"64 KiB"`; the space is optional). A plain number is taken only where the key's
//! own name ends in the unit (`cpu_hz`, `position_m`). What has no dimension is a plain number; a probability may also
//! be written in percent (`0.05` or `"5%"`).
//!
//! Prefixes are those of SI, and `Ki`, `Mi`, `Gi` for bytes; rates and sizes may be written as `tc` has them
//! (`"10mbit"`). Every quantity prints as a string that reads back to the same bits, or, given a precision (`{:.1}`),
//! rounded in the largest unit that is not above it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a text is not the quantity that was asked for. Displays as a sentence without its subject.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{text:?} is not {what}; write it like {example}")]
pub struct ParseUnitError {
    /// What stands there.
    pub text: String,
    /// What was expected, with its article.
    pub what: &'static str,
    /// A value as it should be written, in quotes where the file needs them.
    pub example: &'static str,
}

/// A quantity that is written as a number and a unit.
trait Quantity: Sized {
    const WHAT: &'static str;
    const EXAMPLE: &'static str;
    /// Accepted units with their factor to the base unit. The first is the base; output uses the largest that is exact.
    const UNITS: &'static [(&'static str, f64)];
    /// Further spellings, for reading only.
    const ALIASES: &'static [(&'static str, f64)] = &[];

    fn from_base(value: f64) -> Option<Self>;
    fn to_base(&self) -> f64;

    fn refuse(text: &str) -> ParseUnitError {
        ParseUnitError { text: text.to_owned(), what: Self::WHAT, example: Self::EXAMPLE }
    }

    fn parse(text: &str) -> Result<Self, ParseUnitError> {
        let (number, unit) = split(text).ok_or_else(|| Self::refuse(text))?;
        Self::UNITS
            .iter()
            .chain(Self::ALIASES)
            .find(|(name, _)| *name == unit)
            .and_then(|(_, factor)| Self::from_base(number * factor))
            .ok_or_else(|| Self::refuse(text))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_base();
        if let Some(precision) = f.precision() {
            let fits = |(_, factor): &&(&str, f64)| value.abs() >= *factor;
            let unit = Self::UNITS.iter().filter(fits).max_by(|a, b| a.1.total_cmp(&b.1));
            let (name, factor) = unit.unwrap_or(&Self::UNITS[0]);
            return write!(f, "{:.precision$} {name}", value / factor);
        }
        // The largest unit in which the number is short and reads back to the same bits.
        let best = Self::UNITS
            .iter()
            .filter(|(_, factor)| value == 0.0 || value.abs() >= *factor || *factor <= 1.0)
            .map(|(name, factor)| (format!("{}", value / factor), *name, *factor))
            .filter(|(text, _, factor)| text.parse::<f64>().is_ok_and(|n| n * factor == value))
            .min_by_key(|(text, _, factor)| (text.len(), *factor != 1.0));
        match best {
            Some((text, name, _)) => write!(f, "{text} {name}"),
            None => write!(f, "{value} {}", Self::UNITS[0].0),
        }
    }
}

/// Splits `"10 ms"` into the finite number 10 and `"ms"`.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    // An exponent's `e` belongs to the number only when a digit or sign follows it.
    let bytes = text.as_bytes();
    let end = (0..bytes.len())
        .find(|&i| {
            let exponent = matches!(bytes[i], b'e' | b'E')
                && i > 0
                && matches!(bytes.get(i + 1), Some(b'0'..=b'9' | b'+' | b'-'));
            !(matches!(bytes[i], b'0'..=b'9' | b'.' | b'+' | b'-' | b'_') || exponent)
        })
        .unwrap_or(bytes.len());
    let number: f64 = text.get(..end)?.replace('_', "").parse().ok()?;
    number.is_finite().then(|| (number, text[end..].trim()))
}

struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: Quantity> serde::de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with its unit, like {}", T::WHAT, T::EXAMPLE)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).map_err(E::custom)
    }
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $what:literal, $example:literal, $valid:expr,
     [$($unit:literal = $factor:expr),*], [$($alias:literal = $afactor:expr),*]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
        pub struct $name(f64);

        impl $name {
            /// From a number in the base unit.
            pub const fn new(value: f64) -> Self {
                Self(value)
            }

            /// The number in the base unit.
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl Quantity for $name {
            const WHAT: &'static str = $what;
            const EXAMPLE: &'static str = $example;
            const UNITS: &'static [(&'static str, f64)] = &[$(($unit, $factor)),*];
            const ALIASES: &'static [(&'static str, f64)] = &[$(($alias, $afactor)),*];

            fn from_base(value: f64) -> Option<Self> {
                let valid: fn(f64) -> bool = $valid;
                (value.is_finite() && valid(value)).then_some(Self(value))
            }

            fn to_base(&self) -> f64 {
                self.0
            }
        }

        text_form!($name);
    };
}

macro_rules! text_form {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = ParseUnitError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <Self as Quantity>::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Quantity::write(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor(std::marker::PhantomData))
            }
        }
    };
}

quantity!(
    /// A frequency or bandwidth, Hz. Never negative.
    Hertz, "a frequency", "\"30 MHz\"", |v| v >= 0.0,
    ["Hz" = 1.0, "kHz" = 1e3, "MHz" = 1e6, "GHz" = 1e9], ["hz" = 1.0, "khz" = 1e3, "mhz" = 1e6, "ghz" = 1e9]
);
quantity!(
    /// A data rate, bit/s. Never negative.
    BitsPerSecond, "a rate", "\"10 Mbit/s\"", |v| v >= 0.0,
    ["bit/s" = 1.0, "kbit/s" = 1e3, "Mbit/s" = 1e6, "Gbit/s" = 1e9],
    ["bit" = 1.0, "kbit" = 1e3, "mbit" = 1e6, "gbit" = 1e9, "Mbit" = 1e6, "Gbit" = 1e9,
     "bps" = 1.0, "kbps" = 1e3, "Mbps" = 1e6, "Gbps" = 1e9]
);
quantity!(
    /// A distance, m. Never negative.
    Metres, "a distance", "\"150 m\"", |v| v >= 0.0, ["m" = 1.0, "km" = 1e3], []
);
quantity!(
    /// A power level, dB over one milliwatt.
    Dbm, "a power", "\"34 dBm\"", |v| v.abs() <= 1000.0, ["dBm" = 1.0], ["dbm" = 1.0]
);
quantity!(
    /// A noise power spectral density, dBm per hertz.
    DbmPerHz, "a noise density", "\"-174 dBm/Hz\"", |v| v.abs() <= 1000.0, ["dBm/Hz" = 1.0], ["dbm/hz" = 1.0]
);
quantity!(
    /// A power ratio, dB.
    Decibels, "a power ratio", "\"30 dB\"", |v| v.abs() <= 1000.0, ["dB" = 1.0], ["db" = 1.0]
);

impl Dbm {
    /// The power in watts.
    pub fn watts(self) -> f64 {
        10f64.powf((self.0 - 30.0) / 10.0)
    }
}

impl DbmPerHz {
    /// The noise power in watts over a bandwidth: N0 · W.
    pub fn watts_over(self, bandwidth: Hertz) -> f64 {
        Dbm(self.0).watts() * bandwidth.0
    }
}

impl Decibels {
    /// The ratio as a plain factor.
    pub fn factor(self) -> f64 {
        10f64.powf(self.0 / 10.0)
    }
}

impl BitsPerSecond {
    /// The time that `bits` take at this rate; infinite at rate zero.
    pub fn seconds_for(self, bits: f64) -> f64 {
        bits / self.0
    }

    /// The rate on the host's clock under a dilation.
    pub fn in_wall(self, dilation: f64) -> Self {
        Self(self.0 / dilation)
    }
}

impl std::iter::Sum for BitsPerSecond {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        Self(iter.map(Self::get).sum())
    }
}

/// A length of emulated time, whole nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Interval(Duration);

impl Interval {
    /// From a standard duration, taken as emulated time.
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// From whole milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// The emulated time as a standard duration.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// The emulated time in seconds.
    pub fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// How long this takes on the host's clock under a dilation.
    pub fn in_wall(self, dilation: f64) -> Duration {
        self.0.mul_f64(dilation)
    }
}

impl Quantity for Interval {
    const WHAT: &'static str = "a time";
    const EXAMPLE: &'static str = "\"10 ms\"";
    // The base is the nanosecond: whole numbers of it survive the way through f64 up to 104 days.
    const UNITS: &'static [(&'static str, f64)] =
        &[("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("min", 6e10), ("h", 3.6e12)];
    const ALIASES: &'static [(&'static str, f64)] = &[("µs", 1e3)];

    fn from_base(value: f64) -> Option<Self> {
        // 2^53 ns is 104 days.
        (0.0..=9_007_199_254_740_992.0)
            .contains(&value)
            .then(|| Self(Duration::from_nanos(value.round() as u64)))
    }

    fn to_base(&self) -> f64 {
        self.0.as_nanos() as f64
    }
}

text_form!(Interval);

/// A size in whole bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(u64);

impl Bytes {
    /// From a number of bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bits.
    pub fn bits(self) -> f64 {
        self.0 as f64 * 8.0
    }
}

impl Quantity for Bytes {
    const WHAT: &'static str = "a size of whole bytes";
    const EXAMPLE: &'static str = "\"64 KiB\"";
    const UNITS: &'static [(&'static str, f64)] = &[
        ("B", 1.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
    ];
    const ALIASES: &'static [(&'static str, f64)] =
        &[("bit", 0.125), ("kbit", 125.0), ("Mbit", 125e3), ("Gbit", 125e6)];

    fn from_base(value: f64) -> Option<Self> {
        // Beyond 2^53 an f64 no longer holds every whole number.
        ((0.0..=9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0)
            .then_some(Self(value as u64))
    }

    fn to_base(&self) -> f64 {
        self.0 as f64
    }
}

text_form!(Bytes);

/// A probability, 0 to 1. Written as a number or in percent.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Probability(f64);

impl Probability {
    /// Never.
    pub const ZERO: Self = Self(0.0);
    /// Always.
    pub const ONE: Self = Self(1.0);

    /// From a number; `None` outside 0 to 1 and for NaN.
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// The number, 0 to 1.
    pub const fn get(self) -> f64 {
        self.0
    }

    fn refuse(text: impl fmt::Display) -> ParseUnitError {
        ParseUnitError {
            text: text.to_string(),
            what: "a probability from 0 to 1",
            example: "0.05 or \"5%\"",
        }
    }
}

impl FromStr for Probability {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match split(text) {
            Some((number, "%")) => Self::new(number / 100.0),
            Some((number, "")) => Self::new(number),
            _ => None,
        }
        .ok_or_else(|| Self::refuse(text))
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 * 100.0)
    }
}

impl Serialize for Probability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Probability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Probability;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a probability from 0 to 1, like 0.05 or \"5%\"")
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Probability, E> {
                Probability::new(value).ok_or_else(|| E::custom(Probability::refuse(value)))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Probability, E> {
                self.visit_f64(value as f64)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Probability, E> {
                self.visit_f64(value as f64)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Probability, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// For keys whose name ends in `_hz`: a plain number in hertz is taken as well as a string with its unit.
pub(crate) mod plain_hertz {
    use super::{Deserializer, Hertz, Quantity, Serialize, Serializer, fmt};

    pub(crate) fn serialize<S: Serializer>(value: &Hertz, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hertz, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Hertz;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a frequency, like \"2.6 GHz\" or 2.6e9")
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Hertz, E> {
                Hertz::from_base(value).ok_or_else(|| E::custom(Hertz::refuse(&value.to_string())))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Hertz, E> {
                self.visit_f64(value as f64)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Hertz, E> {
                self.visit_f64(value as f64)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hertz, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!("30 MHz".parse(), Ok(Hertz::new(30e6)));
        assert_eq!("2.6GHz".parse(), Ok(Hertz::new(2.6e9)));
        assert_eq!("10mbit".parse(), Ok(BitsPerSecond::new(10e6)));
        assert_eq!("1.5 Gbit/s".parse(), Ok(BitsPerSecond::new(1.5e9)));
        assert_eq!("-174 dBm/Hz".parse(), Ok(DbmPerHz::new(-174.0)));
        assert_eq!("10 ms".parse(), Ok(Interval::from_millis(10)));
        assert_eq!("1e3 us".parse(), Ok(Interval::from_millis(1)));
        assert_eq!("64 KiB".parse(), Ok(Bytes::new(65_536)));
        assert_eq!("69 Mbit".parse(), Ok(Bytes::new(8_625_000)));
        assert_eq!("5%".parse::<Probability>().map(Probability::get), Ok(0.05));
        assert_eq!("0.25".parse::<Probability>().map(Probability::get), Ok(0.25));
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        for text in ["", "10", "ms", "10 Ms", "-1 ms", "nan ms", "inf s", "1e999 s", "10 ms ms", "--1 s"] {
            assert!(text.parse::<Interval>().is_err(), "{text:?}");
        }
        for text in ["-30 MHz", "NaN Hz", "30 mHz"] {
            assert!(text.parse::<Hertz>().is_err(), "{text:?}");
        }
        for text in ["101%", "-1%", "1.01", "nan", "5 %%"] {
            assert!(text.parse::<Probability>().is_err(), "{text:?}");
        }
        assert!("3 bit".parse::<Bytes>().is_err(), "not a whole byte");
        let message = "10".parse::<Interval>().unwrap_err().to_string();
        assert_eq!(message, "\"10\" is not a time; write it like \"10 ms\"");
    }

    #[test]
    fn prints_the_way_a_person_would() {
        assert_eq!(Hertz::new(30e6).to_string(), "30 MHz");
        assert_eq!(Interval::from_millis(10).to_string(), "10 ms");
        assert_eq!(Interval::from_millis(60_000).to_string(), "1 min");
        assert_eq!(Bytes::new(65_536).to_string(), "64 KiB");
        assert_eq!(Bytes::new(1_500).to_string(), "1.5 kB");
        assert_eq!(Interval::default().to_string(), "0 ns");
        assert_eq!(Dbm::new(34.0).to_string(), "34 dBm");
        assert_eq!(format!("{:.1}", BitsPerSecond::new(156_299_631.04)), "156.3 Mbit/s");
        assert_eq!(format!("{:.0}", BitsPerSecond::new(0.2)), "0 bit/s");
    }

    #[test]
    fn powers_by_hand() {
        assert!((Dbm::new(30.0).watts() - 1.0).abs() < 1e-12);
        assert!((Dbm::new(0.0).watts() - 1e-3).abs() < 1e-15);
        assert!((Decibels::new(30.0).factor() - 1000.0).abs() < 1e-9);
        // −174 dBm/Hz over 30 MHz: −174 + 74.771 = −99.229 dBm = 1.194e-13 W.
        assert!((DbmPerHz::new(-174.0).watts_over(Hertz::new(30e6)) - 1.1943e-13).abs() < 1e-16);
    }

    proptest! {
        #[test]
        fn every_quantity_reads_back(value in 0.0f64..1e15, ns in 0u64..(1 << 53), p in 0.0f64..=1.0) {
            prop_assert_eq!(Hertz::new(value).to_string().parse(), Ok(Hertz::new(value)));
            prop_assert_eq!(BitsPerSecond::new(value).to_string().parse(), Ok(BitsPerSecond::new(value)));
            let interval = Interval::new(Duration::from_nanos(ns));
            prop_assert_eq!(interval.to_string().parse(), Ok(interval));
            prop_assert_eq!(Bytes::new(ns).to_string().parse(), Ok(Bytes::new(ns)));
            prop_assert!(Probability::new(p).is_some());
        }
    }
}
