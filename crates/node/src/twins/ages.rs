//! How old twins are, as a BS reports it.

use dtwn_proto::event::TwinAge;

use super::states::Followed;

/// Twins told of in a report: of more, a report a second would fill the run's event file. The others' turn comes with the next reports.
pub const TOLD_MAX: usize = 64;

/// A twin with its age and its last state; `None` is one of which nothing has come.
#[must_use]
pub fn of(twin: String, followed: Option<&Followed>, now_ns: u64) -> TwinAge {
    let missed = followed.map_or(0, |followed| followed.missed);
    let Some(state) = followed.and_then(|followed| followed.state.as_ref()) else {
        return TwinAge { twin, missed, ..TwinAge::default() };
    };
    let [x, y] = state.position_m.map(f64::from);
    TwinAge {
        twin,
        age_ms: Some(rounded(now_ns.saturating_sub(state.taken_at_ns) as f64 / 1e6, 10.0)),
        position_m: Some([rounded(x, 10.0), rounded(y, 10.0)]),
        battery: Some(rounded(state.battery.into(), 1000.0)),
        load: Some(rounded(state.load.into(), 1000.0)),
        missed,
    }
}

/// More digits than anybody reads are bytes of the event file.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// Median and 99th percentile of the ages that are known; `None` where none is.
#[must_use]
pub fn quantiles(ages: &[TwinAge]) -> [Option<f64>; 2] {
    let mut known: Vec<f64> = ages.iter().filter_map(|twin| twin.age_ms).collect();
    known.sort_by(f64::total_cmp);
    [0.5, 0.99].map(|quantile| {
        known.get((known.len().saturating_sub(1) as f64 * quantile).round() as usize).copied()
    })
}

/// Whose turn it is to be told of, after those of the last report: all, where that are few enough.
pub fn turn<T>(mut all: Vec<T>, told: &mut usize) -> Vec<T> {
    if all.len() <= TOLD_MAX {
        return all;
    }
    let first = *told % all.len();
    all.rotate_left(first);
    all.truncate(TOLD_MAX);
    *told = first + TOLD_MAX;
    all
}

#[cfg(test)]
mod tests {
    use dtwn_proto::node::TwinState;

    use super::*;

    #[test]
    fn a_twin_that_was_never_heard_of_has_no_age() {
        let state = TwinState {
            user: 3,
            sequence: 2,
            taken_at_ns: 1_000_000_000,
            position_m: [1.26, -2.0],
            battery: 0.87654,
            load: 0.5,
        };
        let followed = Followed { state: Some(state), missed: 4 };
        let heard = of("ug1.1".into(), Some(&followed), 1_501_230_000);
        assert_eq!((heard.age_ms, heard.position_m), (Some(501.2), Some([1.3, -2.0])));
        assert_eq!((heard.battery, heard.load, heard.missed), (Some(0.877), Some(0.5), 4));
        let silent = of("ug1.2".into(), None, 1_501_230_000);
        assert_eq!((silent.age_ms, silent.position_m, silent.missed), (None, None, 0));
        assert_eq!(quantiles(std::slice::from_ref(&silent)), [None, None]);
        assert_eq!(quantiles(&[silent, heard]), [Some(501.2), Some(501.2)]);
        let many: Vec<TwinAge> =
            (0..=100).map(|age| TwinAge { age_ms: Some(age.into()), ..TwinAge::default() }).collect();
        assert_eq!(quantiles(&many), [Some(50.0), Some(99.0)]);
    }

    #[test]
    fn of_many_twins_each_has_its_turn() {
        let mut told = 0;
        assert_eq!(turn((0..TOLD_MAX).collect(), &mut told).len(), TOLD_MAX);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..4 {
            let some = turn((0..200).collect(), &mut told);
            assert_eq!(some.len(), TOLD_MAX);
            seen.extend(some);
        }
        assert_eq!(seen.len(), 200);
    }
}
