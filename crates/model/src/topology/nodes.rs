//! `[mbs]`, `[[bs]]` and `[[users]]`: who is there, and where.

use crate::geometry::Position;
use crate::units::{Hertz, Metres, plain_hertz};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `[mbs]`: the macro base station.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mbs {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub position_m: Position,
}

impl Default for Mbs {
    fn default() -> Self {
        Self { id: "mbs".to_owned(), position_m: Position::default() }
    }
}

/// `[[bs]]`: a base station.
///
/// In a file one entry may stand for `count` BSs named `id1`, `id2`, …: evenly on a circle (`ring = "300 m"`, its radius)
/// or on a square grid (`grid = "100 m"`, its spacing) around `position_m`, which then is the origin unless given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bs {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub position_m: Position,
    /// f_i: cycles a second of its processor.
    #[serde(with = "plain_hertz")]
    pub cpu_hz: Hertz,
    /// How far its users may be.
    pub coverage: Metres,
}

impl Default for Bs {
    fn default() -> Self {
        Self {
            id: String::new(),
            // Not a place: the check for a missing position looks for it.
            position_m: Position { x: f64::NAN, y: f64::NAN },
            cpu_hz: Hertz::new(2.4e9),
            coverage: Metres::new(150.0),
        }
    }
}

/// The keys by which one `[[bs]]` entry stands for many, see [`Bs`].
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Generator {
    /// How many.
    pub(super) count: u32,
    /// Evenly on a circle of this radius, the first one east of the centre.
    pub(super) ring: Option<Metres>,
    /// On the points of a square grid of this spacing, row by row from the south-west, leaving out the centre itself.
    pub(super) grid: Option<Metres>,
}

impl Generator {
    /// The keys it reads.
    pub(super) const KEYS: [&'static str; 3] = ["count", "ring", "grid"];

    /// The positions of all BSs of the entry.
    pub(super) fn positions(&self, centre: Position) -> Vec<Position> {
        let count = self.count as usize;
        match (self.ring, self.grid) {
            (Some(radius), _) => (0..count).map(|i| centre.polar(radius, i as f64 / count as f64)).collect(),
            (None, spacing) => grid(centre, count, spacing.unwrap_or(Metres::new(100.0))),
        }
    }
}

fn grid(centre: Position, count: usize, spacing: Metres) -> Vec<Position> {
    // One point more than asked for, since the MBS usually stands at the centre.
    let side = (1..).find(|side| side * side > count).unwrap_or(1);
    let offset = (side - 1) as f64 / 2.0;
    (0..side * side)
        .map(|i| ((i % side) as f64 - offset, (i / side) as f64 - offset))
        .filter(|(x, y)| *x != 0.0 || *y != 0.0)
        .map(|(x, y)| Position { x: centre.x + x * spacing.get(), y: centre.y + y * spacing.get() })
        .take(count)
        .collect()
}

/// `[[users]]`: a group of users that one process stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserGroup {
    /// The group's name; its users are `id.1`, `id.2`, ….
    pub id: String,
    /// How many users.
    pub count: u32,
    /// The BS around which the users are drawn, uniformly by area, and by which they are served at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub around: Option<String>,
    /// The nearest a drawn user is to its BS.
    pub min_distance: Metres,
    /// The farthest a drawn user is from its BS; the BS's coverage unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_distance: Option<Metres>,
    /// Where each user is, in place of `around`; each is served by the nearest BS at first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub positions_m: Vec<Position>,
    /// D_n: how many samples each user holds.
    pub samples: Samples,
}

impl Default for UserGroup {
    fn default() -> Self {
        Self {
            id: String::new(),
            count: 1,
            around: None,
            min_distance: Metres::new(10.0),
            max_distance: None,
            positions_m: Vec::new(),
            samples: Samples::Each(500),
        }
    }
}

/// `users.samples`: a number, a list with one number a user, or a range.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Samples {
    /// Every user holds as many.
    Each(u32),
    /// One number a user.
    List(Vec<u32>),
    /// Drawn uniformly from a range.
    Range(SampleRange),
}

/// A range from which the number of samples of each user is drawn uniformly.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleRange {
    /// The fewest, before scaling.
    pub min: u32,
    /// The most, before scaling.
    pub max: u32,
    /// The group's sum, to which the draws are scaled; left as drawn unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
}

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SamplesVisitor;

        impl<'de> Visitor<'de> for SamplesVisitor {
            type Value = Samples;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of samples, a list of them, or { min = 300, max = 700 }")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Samples, E> {
                u32::try_from(value).map(Samples::Each).map_err(|_| {
                    E::custom(format!("{value} is not a number of samples; allowed: 0 to {}", u32::MAX))
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Samples, A::Error> {
                let mut list = Vec::new();
                while let Some(samples) = seq.next_element()? {
                    list.push(samples);
                }
                Ok(Samples::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Samples, A::Error> {
                SampleRange::deserialize(MapAccessDeserializer::new(map)).map(Samples::Range)
            }
        }

        deserializer.deserialize_any(SamplesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_even_and_a_grid_leaves_the_centre_free() {
        let centre = Position { x: 10.0, y: 0.0 };
        let ring = Generator { count: 4, ring: Some(Metres::new(100.0)), grid: None }.positions(centre);
        assert_eq!(ring.len(), 4);
        assert!((ring[1].y - 100.0).abs() < 1e-9 && (ring[1].x - 10.0).abs() < 1e-9);
        for count in [1, 8, 9, 100, 254] {
            let grid = Generator { count, ring: None, grid: Some(Metres::new(50.0)) }.positions(centre);
            assert_eq!(grid.len(), count as usize);
            assert!(grid.iter().all(|p| p.distance(centre).get() >= 35.0));
        }
    }
}
