//! The state of a user: a documented random process, repeatable from the run's seed.
//!
//! | part | process |
//! | --- | --- |
//! | position | Gauss–Markov velocity (Liang & Haas 1999) around the user's place: memory 0.85 a step, 1 m/s a component, pulled back to it by 2 % of the distance a step |
//! | battery | falls by 0.0002 to 0.0006 a step with the load, and is full again when it reaches 0.2 |
//! | load | AR(1) around 0.4 with memory 0.9, cut to 0..1 |

use dtwn_model::geometry::Position;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How much of a velocity stays from one step to the next.
const VELOCITY_MEMORY: f64 = 0.85;
/// Standard deviation of a velocity component, metres a second.
const SPEED_M_S: f64 = 1.0;
/// Share of the way home that each step takes.
const PULL: f64 = 0.02;

/// A user's state, moved on step by step.
#[derive(Debug)]
pub struct UserState {
    home_m: [f64; 2],
    /// Position in metres.
    pub position_m: [f64; 2],
    /// Charge, 0 to 1.
    pub battery: f64,
    /// Load, 0 to 1.
    pub load: f64,
    velocity_m_s: [f64; 2],
    random: ChaCha8Rng,
}

impl UserState {
    /// The state of user `index` at the start of a run with `seed`.
    pub fn new(seed: u64, index: u32, home: Position) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..12].copy_from_slice(&index.to_le_bytes());
        key[12..].copy_from_slice(b"dtwn user state v1\0\0");
        let mut random = ChaCha8Rng::from_seed(key);
        let battery = random.random_range(0.5..1.0);
        let home_m = [home.x, home.y];
        Self { home_m, position_m: home_m, battery, load: 0.4, velocity_m_s: [0.0; 2], random }
    }

    /// Moves on by `step_s` emulated seconds.
    pub fn advance(&mut self, step_s: f64) {
        let kick = SPEED_M_S * (1.0 - VELOCITY_MEMORY * VELOCITY_MEMORY).sqrt();
        for axis in 0..2 {
            let noise = self.normal();
            self.velocity_m_s[axis] = VELOCITY_MEMORY * self.velocity_m_s[axis] + kick * noise;
            let home = self.home_m[axis] - self.position_m[axis];
            self.position_m[axis] += self.velocity_m_s[axis] * step_s + PULL * home;
        }
        let noise = self.normal();
        self.load = (0.4 + 0.9 * (self.load - 0.4) + 0.1 * noise).clamp(0.0, 1.0);
        self.battery -= 0.0002 + 0.0004 * self.load;
        if self.battery < 0.2 {
            self.battery = 1.0;
        }
    }

    /// A standard normal number (Box & Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius: f64 = self.random.random_range(f64::MIN_POSITIVE..1.0);
        let angle: f64 = self.random.random_range(0.0..std::f64::consts::TAU);
        (-2.0 * radius.ln()).sqrt() * angle.cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_life() {
        let live = |seed, index| {
            let mut state = UserState::new(seed, index, Position { x: 10.0, y: -5.0 });
            for _ in 0..500 {
                state.advance(1.0);
                assert!((0.0..=1.0).contains(&state.battery) && (0.0..=1.0).contains(&state.load));
            }
            state.position_m
        };
        assert_eq!(live(1, 2), live(1, 2));
        assert_ne!(live(1, 2), live(1, 3));
        assert_ne!(live(1, 2), live(2, 2));
    }

    #[test]
    fn users_stay_around_their_place() {
        let mut state = UserState::new(7, 0, Position { x: 0.0, y: 0.0 });
        let mut far: f64 = 0.0;
        for _ in 0..10_000 {
            state.advance(1.0);
            far = far.max(state.position_m[0].hypot(state.position_m[1]));
        }
        assert!(far > 1.0 && far < 100.0, "{far}");
    }
}
