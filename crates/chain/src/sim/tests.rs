use super::*;

fn options(seeds: Range<u64>) -> SimOptions {
    SimOptions { seeds, ..SimOptions::default() }
}

fn summary(report: &SimReport) -> String {
    let first = report.violations.first();
    let trace = first.map(|violation| {
        let tail = violation.trace.len().saturating_sub(60);
        format!(
            "seed {}: {}\n{:#?}\n{}",
            violation.seed,
            violation.what,
            violation.schedule,
            violation.trace[tail..].join("\n")
        )
    });
    let seeds: Vec<_> =
        report.violations.iter().map(|violation| (violation.seed, violation.what.clone())).collect();
    format!("{seeds:#?}\n{}", trace.unwrap_or_default())
}

#[test]
fn the_rules_hold() {
    let report = run(&options(0..200)).unwrap();
    assert!(report.violations.is_empty(), "{}", summary(&report));
    assert_eq!(report.schedules, 200);
    // The schedules must exercise what they claim to.
    assert!(report.views >= 200 * 50 - report.short_schedules * 50);
    assert!(report.short_schedules <= 10, "{} short schedules", report.short_schedules);
    let counts =
        [report.nullified_views, report.transactions, report.evidence, report.epochs, report.restarts];
    assert!(counts.iter().all(|&count| count > 100), "{counts:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..12 {
        let schedule = Schedule::draw(seed, &SimOptions::default());
        let [first, second] = [(); 2].map(|()| World::run(&schedule, Rules::default(), seed % 2 == 0));
        assert_eq!((first.trace_hash, &first.trace), (second.trace_hash, &second.trace));
        let other = World::run(&Schedule::draw(seed + 1000, &SimOptions::default()), Rules::default(), false);
        assert_ne!(first.trace_hash, other.trace_hash);
    }
}

/// The simulator must find a broken rule among a few hundred schedules, and reduce what it found.
fn caught(rules: Rules, seeds: Range<u64>) -> Violation {
    for seed in seeds {
        let schedule =
            Schedule::draw(seed, &SimOptions { mode: Some(Mode::Safety), ..SimOptions::default() });
        if World::run(&schedule, rules, false).violation.is_some() {
            let violation = shrink::shrink(&schedule, rules);
            assert!(!violation.what.is_empty(), "the reduced schedule no longer breaks anything");
            assert!(violation.schedule.faults.len() <= schedule.faults.len());
            assert!(!violation.trace.is_empty());
            return violation;
        }
    }
    panic!("{rules:?} went unnoticed");
}

#[test]
fn a_quorum_one_too_small_is_caught() {
    let violation = caught(Rules { quorum_minus_one: true, ..Rules::default() }, 0..600);
    assert!(
        violation.what.starts_with("agreement") || violation.what.starts_with("no finalized"),
        "{}",
        violation.what
    );
}

#[test]
fn sending_before_syncing_is_caught() {
    let violation = caught(Rules { send_before_sync: true, ..Rules::default() }, 0..600);
    assert!(violation.what.starts_with("honest replicas"), "{}", violation.what);
}

#[test]
fn finalizing_on_a_notarization_is_caught() {
    let violation = caught(Rules { finalize_on_notarization: true, ..Rules::default() }, 0..600);
    assert!(
        violation.what.starts_with("agreement") || violation.what.starts_with("no finalized"),
        "{}",
        violation.what
    );
}

#[test]
fn nullifying_after_finalizing_is_caught() {
    let violation = caught(Rules { nullify_after_finalize: true, ..Rules::default() }, 0..600);
    assert!(
        violation.what.starts_with("honest replicas") || violation.what.starts_with("no finalized"),
        "{}",
        violation.what
    );
}

#[test]
fn voting_across_a_gap_is_caught() {
    let violation = caught(Rules { vote_across_gap: true, ..Rules::default() }, 0..600);
    assert!(violation.what.starts_with("justified votes"), "{}", violation.what);
}

#[test]
fn options_out_of_range_are_refused() {
    for bad in [
        SimOptions { nodes: Some(3), ..SimOptions::default() },
        SimOptions { loss: Some(0.6), ..SimOptions::default() },
        SimOptions { loss: Some(f64::NAN), ..SimOptions::default() },
        SimOptions { nodes: Some(6), byzantine: Some(2), ..SimOptions::default() },
        SimOptions { seeds: 5..5, ..SimOptions::default() },
        SimOptions { threads: 0, ..SimOptions::default() },
    ] {
        assert!(run(&bad).is_err(), "{bad:?}");
    }
}
