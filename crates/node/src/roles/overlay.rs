//! How a model spreads over the BSs: along binomial trees on a chord ring.
//!
//! BS i is a neighbour of i ± 2^k (mod M). A model of BS o spreads by the positions p = (i − o) mod M: whoever has it at
//! position p passes it on to p + 2^k for every 2^k > p. Each BS gets it once, after at most ⌈log2 M⌉ hops, which is the
//! relaying that Eq. 15's log2 M counts, and no BS has more than 2⌈log2 M⌉ neighbours.

/// The neighbours of BS `me` among `stations`, sorted.
pub fn neighbours(me: usize, stations: usize) -> Vec<usize> {
    let mut found: Vec<usize> = powers(stations)
        .flat_map(|step| [(me + step) % stations, (me + stations - step) % stations])
        .filter(|other| *other != me)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// To whom BS `me` passes on a model of BS `origin`.
pub fn children(me: usize, origin: usize, stations: usize) -> Vec<usize> {
    let position = (me + stations - origin) % stations;
    powers(stations)
        .filter(|step| *step > position && position + step < stations)
        .map(|step| (origin + position + step) % stations)
        .collect()
}

fn powers(stations: usize) -> impl Iterator<Item = usize> {
    (0..usize::BITS).map(|k| 1_usize << k).take_while(move |step| *step < stations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_station_gets_a_model_once_within_log2_hops() {
        for stations in 1..=40 {
            for origin in 0..stations {
                let mut hops = vec![None; stations];
                hops[origin] = Some(0);
                let mut queue = vec![origin];
                while let Some(sender) = queue.pop() {
                    for child in children(sender, origin, stations) {
                        assert!(
                            neighbours(sender, stations).contains(&child),
                            "{sender} -> {child} of {stations}"
                        );
                        assert!(hops[child].is_none(), "{child} gets it twice");
                        hops[child] = hops[sender].map(|hops| hops + 1);
                        queue.push(child);
                    }
                }
                let bound = (stations as f64).log2().ceil() as u32;
                assert!(hops.iter().all(|hops| hops.is_some_and(|hops| hops <= bound)), "{hops:?}");
            }
        }
    }

    #[test]
    fn neighbourhood_is_mutual_and_small() {
        for stations in 1..=130 {
            for me in 0..stations {
                let all = neighbours(me, stations);
                assert!(all.len() <= 2 * (stations as f64).log2().ceil() as usize);
                assert!(all.iter().all(|other| neighbours(*other, stations).contains(&me)));
            }
        }
    }
}
