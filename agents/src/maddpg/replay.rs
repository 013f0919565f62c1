//! The replay memory: transitions as rows of one contiguous table, the oldest overwritten first.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Rows of `width` numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    width: usize,
    capacity: usize,
    rows: Vec<f32>,
    /// Where the next row goes once the table is full.
    next: usize,
}

impl Replay {
    /// Room for `capacity` rows of `width` numbers, at least one of each.
    #[must_use]
    pub fn new(width: usize, capacity: usize) -> Self {
        Self { width: width.max(1), capacity: capacity.max(1), rows: Vec::new(), next: 0 }
    }

    /// How many rows it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len() / self.width
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row, in place of the oldest when full. A row that is of another width or holds a number that is not finite is
    /// left out; whether it was taken.
    pub fn push(&mut self, row: &[f32]) -> bool {
        if row.len() != self.width || row.iter().any(|x| !x.is_finite()) {
            return false;
        }
        if self.len() < self.capacity {
            self.rows.extend_from_slice(row);
        } else {
            self.rows[self.next * self.width..][..self.width].copy_from_slice(row);
            self.next = (self.next + 1) % self.capacity;
        }
        true
    }

    /// `count` rows drawn with replacement. It must hold some.
    pub fn sample<'a>(&'a self, rng: &mut ChaCha8Rng, count: usize) -> Vec<&'a [f32]> {
        let len = self.len();
        (0..count).map(|_| &self.rows[rng.random_range(0..len) * self.width..][..self.width]).collect()
    }

    /// All rows as they lie, and where the next one goes.
    #[must_use]
    pub fn raw(&self) -> (&[f32], usize) {
        (&self.rows, self.next)
    }

    /// Puts back what [`raw`](Self::raw) gave; `false`, and nothing changed, for what cannot be from this memory.
    pub fn restore(&mut self, rows: Vec<f32>, next: usize) -> bool {
        let fits = rows.len().is_multiple_of(self.width) && rows.len() <= self.capacity * self.width;
        if fits && next < self.capacity {
            (self.rows, self.next) = (rows, next);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_oldest_rows_give_way() {
        let mut replay = Replay::new(2, 3);
        for value in [1.0, 2.0, 3.0, 4.0] {
            assert!(replay.push(&[value, -value]));
        }
        assert_eq!(replay.raw().0, [4.0, -4.0, 2.0, -2.0, 3.0, -3.0]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let drawn = replay.sample(&mut rng, 200);
        for value in [2.0, 3.0, 4.0] {
            assert!(drawn.contains(&[value, -value].as_slice()));
        }
    }

    #[test]
    fn what_is_no_number_stays_out() {
        let mut replay = Replay::new(1, 3);
        assert!(!replay.push(&[f32::NAN]) && !replay.push(&[f32::INFINITY]) && !replay.push(&[1.0, 2.0]));
        assert!(replay.is_empty());
    }

    #[test]
    fn a_foreign_table_is_refused() {
        let mut replay = Replay::new(2, 2);
        assert!(
            !replay.restore(vec![1.0; 3], 0)
                && !replay.restore(vec![1.0; 6], 0)
                && !replay.restore(vec![1.0; 4], 2)
        );
        assert!(replay.restore(vec![1.0; 4], 1));
        assert_eq!(replay.len(), 2);
    }
}
