//! Positions in the plane.

use crate::units::Metres;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// A point in the plane, metres east and north of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct Position {
    /// Metres east.
    pub x: f64,
    /// Metres north.
    pub y: f64,
}

impl From<[f64; 2]> for Position {
    fn from([x, y]: [f64; 2]) -> Self {
        Self { x, y }
    }
}

impl From<Position> for [f64; 2] {
    fn from(p: Position) -> Self {
        [p.x, p.y]
    }
}

impl Position {
    /// The Euclidean distance to another point.
    pub fn distance(self, other: Self) -> Metres {
        Metres::new((self.x - other.x).hypot(self.y - other.y))
    }

    /// Whether both coordinates are finite numbers.
    pub fn is_finite(self) -> bool {
        self.x.is_finite() && self.y.is_finite()
    }

    /// The point `radius` away at `turn` full turns, counted from east towards north.
    pub fn polar(self, radius: Metres, turn: f64) -> Self {
        let (sin, cos) = (turn * std::f64::consts::TAU).sin_cos();
        Self { x: self.x + radius.get() * cos, y: self.y + radius.get() * sin }
    }
}

/// A point drawn uniformly by area from the ring between two radii around `centre`.
pub fn draw_in_ring(rng: &mut impl Rng, centre: Position, inner: Metres, outer: Metres) -> Position {
    let (inner2, outer2) = (inner.get().powi(2), outer.get().powi(2));
    // Area grows with the square of the radius, so the square is what is uniform.
    let radius = (inner2 + rng.random::<f64>() * (outer2 - inner2)).sqrt();
    centre.polar(Metres::new(radius), rng.random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn distance_and_polar_by_hand() {
        let a = Position { x: 0.0, y: 0.0 };
        assert_eq!(a.distance(Position { x: 3.0, y: 4.0 }), Metres::new(5.0));
        let north = a.polar(Metres::new(10.0), 0.25);
        assert!(north.x.abs() < 1e-9 && (north.y - 10.0).abs() < 1e-9);
    }

    #[test]
    fn ring_draws_are_uniform_by_area() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (inner, outer) = (Metres::new(10.0), Metres::new(100.0));
        let centre = Position { x: 5.0, y: -5.0 };
        let radii: Vec<f64> = (0..20_000)
            .map(|_| draw_in_ring(&mut rng, centre, inner, outer).distance(centre).get())
            .collect();
        assert!(radii.iter().all(|r| (10.0 - 1e-9..=100.0 + 1e-9).contains(r)));
        // Half the area lies within sqrt((10² + 100²)/2) = 71.06 m; 20,000 draws put σ at 0.35 %.
        let half = radii.iter().filter(|r| **r < 71.063).count() as f64 / 20_000.0;
        assert!((half - 0.5).abs() < 0.02, "{half}");
    }
}
