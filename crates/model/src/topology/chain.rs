//! `[chain]`: the DPoS chain of the BSs.

use crate::units::{Bytes, Interval};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The fewest producers: with fewer none may be faulty.
pub const PRODUCERS_MIN: u32 = 4;
/// What a transaction is encoded in around the content that the load generator fills: signer, sequence, kind, round, length
/// and signature.
pub const TX_OVERHEAD_BYTES: u64 = 87;
/// Longest transaction of the load generator: the chain's limit on the content of an action.
pub const TX_BYTES_MAX: u64 = 65_536;
/// Largest `max_block`.
const MAX_BLOCK_MAX: u64 = 4 << 20;
/// Sums in micro-coins stay far below 2^64.
const COINS_MAX: f64 = 1e9;

/// `[chain]`. Times are emulated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chain {
    /// Whether there is a chain; `auto` where there are BSs enough for one.
    pub enabled: Switch,
    /// M_p: how many BSs produce blocks in an epoch (Eq. 16). At least 4, at most all.
    pub producers: u32,
    /// T: the least time between the starts of two views; `0 ms` is as fast as the network allows.
    pub slot: Interval,
    /// How long a leader waits for transactions before it proposes an empty block.
    pub idle: Interval,
    /// Blocks from one election to the next.
    pub epoch: u64,
    /// A view's timeout before round trips are measured, and its lower bound afterwards.
    pub timeout_min: Interval,
    /// The upper bound of a view's timeout, back-off included.
    pub timeout_max: Interval,
    /// Least interval between repetitions of what may have been lost.
    pub retry: Interval,
    /// Whether each certificate is sent to everybody at once by all who assemble it, and not only when progress stops; `auto`
    /// in views that take longer than three round trips.
    pub eager_certificates: Switch,
    /// Transactions offered a second by the load generators of all BSs together.
    pub tx_rate: f64,
    /// The whole size of each of them, signature and all.
    pub tx_bytes: Bytes,
    /// Coins for a training model that a quorum attested.
    pub award: f64,
    /// Coins that two contradicting votes cost.
    pub penalty: f64,
    /// S_ini of Eq. 6: coins of all BSs together when the chain begins.
    pub coins: f64,
    /// Most bytes of transactions in a block.
    pub max_block: Bytes,
    /// After how many further blocks a body (a model) is dropped from the stores.
    pub body_horizon: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            enabled: Switch::Auto,
            producers: PRODUCERS_MIN,
            slot: Interval::from_millis(0),
            // At this pace a node takes about 1 % of a core, its bus included.
            idle: Interval::from_millis(1000),
            epoch: 100,
            timeout_min: Interval::from_millis(100),
            timeout_max: Interval::from_millis(10_000),
            retry: Interval::from_millis(50),
            eager_certificates: Switch::Auto,
            tx_rate: 0.0,
            tx_bytes: Bytes::new(512),
            award: 1.0,
            penalty: 10.0,
            coins: 1000.0,
            max_block: Bytes::new(256 * 1024),
            body_horizon: 1000,
        }
    }
}

impl Chain {
    /// Whether a network of `stations` BSs keeps a chain.
    pub fn is_on(&self, stations: usize) -> bool {
        self.enabled.or(stations >= PRODUCERS_MIN as usize)
    }

    /// What is wrong with the section: key, what, what would be right.
    pub(super) fn problems(&self, stations: usize) -> Vec<(&'static str, String, String)> {
        let mut found = Vec::new();
        let mut need = |fine: bool, key: &'static str, what: String, right: String| {
            if !fine {
                found.push((key, format!("`chain.{key}` = {what}"), right));
            }
        };
        let on = self.is_on(stations);
        let most = if on { stations as u32 } else { super::BS_MAX as u32 };
        need(
            !on || stations >= PRODUCERS_MIN as usize,
            "enabled",
            format!("true, but the network has {stations} BSs"),
            format!("a chain needs at least {PRODUCERS_MIN} BSs, so that one of them may be faulty"),
        );
        need(
            self.producers >= PRODUCERS_MIN && (self.producers <= most || most < PRODUCERS_MIN),
            "producers",
            format!("{} is out of range", self.producers),
            match on {
                true => format!("allowed: {PRODUCERS_MIN} to {most}, the number of BSs"),
                false => format!("allowed: at least {PRODUCERS_MIN}"),
            },
        );
        need(self.epoch >= 1, "epoch", "0 is no number of blocks".into(), "allowed: at least 1".into());
        for (key, time) in [("timeout_min", self.timeout_min), ("retry", self.retry), ("idle", self.idle)] {
            let fine = (Interval::from_millis(1)..=Interval::from_millis(3_600_000)).contains(&time);
            need(fine, key, format!("{time} is out of range"), "allowed: 1 ms to 1 h".into());
        }
        let slot_max = Interval::from_millis(3_600_000);
        need(
            self.slot <= slot_max,
            "slot",
            format!("{} is out of range", self.slot),
            "allowed: at most 1 h".into(),
        );
        need(
            self.timeout_max >= self.timeout_min && self.timeout_max <= slot_max,
            "timeout_max",
            format!("{} is out of range", self.timeout_max),
            "allowed: from `chain.timeout_min` to 1 h".into(),
        );
        need(
            (0.0..=1e6).contains(&self.tx_rate),
            "tx_rate",
            format!("{} is out of range", self.tx_rate),
            "allowed: 0 to 1000000 transactions a second".into(),
        );
        need(
            (TX_OVERHEAD_BYTES + 8..=TX_BYTES_MAX).contains(&self.tx_bytes.get()),
            "tx_bytes",
            format!("{} is out of range", self.tx_bytes),
            format!("allowed: {} to {TX_BYTES_MAX} B", TX_OVERHEAD_BYTES + 8),
        );
        for (key, coins) in [("award", self.award), ("penalty", self.penalty), ("coins", self.coins)] {
            let right = "allowed: 0 to a billion coins".to_owned();
            need((0.0..=COINS_MAX).contains(&coins), key, format!("{coins} is out of range"), right);
        }
        let block = self.max_block.get();
        need(
            (self.tx_bytes.get()..=MAX_BLOCK_MAX).contains(&block),
            "max_block",
            format!("{} is out of range", self.max_block),
            "allowed: from `chain.tx_bytes` to 4 MiB".into(),
        );
        need(
            self.body_horizon >= 1,
            "body_horizon",
            "0 would drop bodies as they come".into(),
            "allowed: at least 1 block".into(),
        );
        found
    }
}

/// `true`, `false`, or `"auto"`: as the network suggests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    /// `"auto"`.
    #[default]
    Auto,
    /// `true`.
    On,
    /// `false`.
    Off,
}

impl Switch {
    /// What it comes to, given what `auto` means.
    pub fn or(self, auto: bool) -> bool {
        match self {
            Self::Auto => auto,
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchVisitor;

        impl serde::de::Visitor<'_> for SwitchVisitor {
            type Value = Switch;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Switch, E> {
                Ok(if value { Switch::On } else { Switch::Off })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Switch, E> {
                match text {
                    "auto" => Ok(Switch::Auto),
                    _ => Err(E::custom(format!("invalid value: {text:?}, expected true, false or \"auto\""))),
                }
            }
        }

        deserializer.deserialize_any(SwitchVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl Fn(&mut Chain), stations: usize) -> Vec<&'static str> {
        let mut chain = Chain::default();
        change(&mut chain);
        chain.problems(stations).into_iter().map(|(key, ..)| key).collect()
    }

    #[test]
    fn a_chain_is_on_where_there_are_stations_enough() {
        let chain = Chain::default();
        assert_eq!([3, 4, 100].map(|stations| chain.is_on(stations)), [false, true, true]);
        assert_eq!(keys(|_| {}, 1), Vec::<&str>::new());
        assert_eq!(keys(|_| {}, 5), Vec::<&str>::new());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(keys(|c| c.enabled = Switch::On, 3), ["enabled"]);
        assert_eq!(keys(|c| c.producers = 3, 5), ["producers"]);
        assert_eq!(keys(|c| c.producers = 6, 5), ["producers"]);
        assert_eq!(keys(|c| c.epoch = 0, 5), ["epoch"]);
        assert_eq!(keys(|c| c.tx_rate = f64::NAN, 5), ["tx_rate"]);
        assert_eq!(keys(|c| c.tx_rate = -1.0, 5), ["tx_rate"]);
        assert_eq!(keys(|c| c.tx_bytes = Bytes::new(90), 5), ["tx_bytes"]);
        assert_eq!(keys(|c| c.max_block = Bytes::new(100), 5), ["max_block"]);
        assert_eq!(keys(|c| c.timeout_max = Interval::from_millis(10), 5), ["timeout_max"]);
        assert_eq!(keys(|c| c.coins = f64::INFINITY, 5), ["coins"]);
        assert_eq!(keys(|c| c.body_horizon = 0, 5), ["body_horizon"]);
    }

    #[test]
    fn producers_stand_in_one_place() {
        let stations = "[[bs]]\nid = \"bs\"\ncount = 6\nring = \"100 m\"\n";
        let parse = |text: &str| {
            crate::topology::parse("a.toml", text.to_owned(), &crate::topology::Overrides::default())
        };
        let loaded = parse(&format!("[chain]\nproducers = 5\nenabled = true\n{stations}")).unwrap();
        assert_eq!((loaded.topology.cost.producers, loaded.topology.chain.enabled), (5, Switch::On));
        // What was rendered says the same.
        assert_eq!(parse(&loaded.rendered).unwrap().topology, loaded.topology);
        let refused = format!("{:?}", parse(&format!("[cost]\nproducers = 5\n{stations}")).unwrap_err());
        assert!(refused.contains("chain.producers"), "{refused}");
    }
}
