//! When each link next has something to do: an indexed binary heap with one entry a link.
//!
//! A link's packets leave it in order of time, so the heap holds links, not packets: its depth depends on the size of
//! the network and not on how much is in flight, and a changed deadline moves its entry instead of leaving a stale one.

/// No deadline.
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// (time, link); ties go by link, so that the order of events is the same in every run.
    heap: Vec<(u64, u32)>,
    /// Where in `heap` each link stands.
    place: Vec<u32>,
}

impl Schedule {
    /// Adds the next link, without a deadline.
    pub(super) fn push(&mut self) {
        let link = self.place.len() as u32;
        self.place.push(self.heap.len() as u32);
        self.heap.push((NEVER, link));
    }

    /// The earliest deadline and its link.
    pub(super) fn first(&self) -> Option<(u64, usize)> {
        self.heap.first().filter(|(at, _)| *at != NEVER).map(|&(at, link)| (at, link as usize))
    }

    pub(super) fn set(&mut self, link: usize, at: u64) {
        let place = self.place[link] as usize;
        let old = self.heap[place].0;
        if at == old {
            return;
        }
        self.heap[place].0 = at;
        if at < old { self.rise(place) } else { self.sink(place) }
    }

    fn rise(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= entry {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, entry);
    }

    fn sink(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let left = 2 * place + 1;
            let Some(&first) = self.heap.get(left) else { break };
            let (child, least) = match self.heap.get(left + 1) {
                Some(&second) if second < first => (left + 1, second),
                _ => (left, first),
            };
            if entry <= least {
                break;
            }
            self.put(place, least);
            place = child;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (u64, u32)) {
        self.heap[place] = entry;
        self.place[entry.1 as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn first_is_always_the_least(changes in prop::collection::vec((0usize..20, 0u64..100), 1..300)) {
            let mut schedule = Schedule::default();
            let mut model = [NEVER; 20];
            for _ in 0..20 {
                schedule.push();
            }
            for (link, at) in changes {
                let at = if at > 80 { NEVER } else { at };
                schedule.set(link, at);
                model[link] = at;
                let least = model.iter().copied().enumerate().map(|(l, t)| (t, l)).min().unwrap();
                prop_assert_eq!(schedule.first(), Some(least).filter(|l| l.0 != NEVER));
            }
        }
    }
}
