//! What came of each round: a few numbers, kept for all rounds of a run.

use std::collections::VecDeque;

use dtwn_proto::event::GlobalModel;

/// Rounds that are kept at most: 32 MB, and more than a week of rounds of a second.
const ROUNDS: u64 = 1_000_000;

/// What came of a round.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Outcome {
    round: u64,
    accuracy: Option<f64>,
    rejected: u32,
    late: u32,
}

/// What came of the rounds of a run. A round that is told twice, because the MBS that was started again did it again, counts as it was
/// told last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcomes {
    /// By round, oldest first.
    kept: VecDeque<Outcome>,
    /// Models found bad, over all rounds.
    pub rejected: u64,
    /// Models that came too late, over all rounds.
    pub late: u64,
}

impl Outcomes {
    pub(super) fn add(&mut self, model: &GlobalModel) {
        let round = model.round;
        // What an MBS goes on from stays as it was told when it was made.
        let again = |last: &Outcome| last.round > round || (last.round == round && !model.restored);
        while let Some(old) = self.kept.back().copied().filter(again) {
            self.kept.pop_back();
            self.rejected -= u64::from(old.rejected);
            self.late -= u64::from(old.late);
        }
        if self.kept.back().is_some_and(|last| last.round == round) {
            return;
        }
        while self.kept.front().is_some_and(|first| round - first.round >= ROUNDS) {
            self.kept.pop_front();
        }
        let count = |names: &[String]| u32::try_from(names.len()).unwrap_or(u32::MAX);
        let (rejected, late) = (count(&model.rejected), count(&model.late));
        self.rejected += u64::from(rejected);
        self.late += u64::from(late);
        self.kept.push_back(Outcome { round, accuracy: model.test_accuracy, rejected, late });
    }

    /// The first round that is kept; 0 is the untrained model.
    pub fn first_round(&self) -> Option<u64> {
        self.kept.front().map(|first| first.round)
    }

    /// Accuracy on the test set after [`first_round`](Self::first_round) and each round that followed; `None` where it is not known.
    pub fn accuracy_by_round(&self) -> Vec<Option<f64>> {
        let first = self.first_round().unwrap_or_default();
        let mut all = Vec::with_capacity(self.kept.len());
        for outcome in &self.kept {
            // Rounds of which the event was lost.
            while (all.len() as u64) < outcome.round - first {
                all.push(None);
            }
            all.push(outcome.accuracy);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(round: u64, rejected: usize, restored: bool) -> GlobalModel {
        GlobalModel {
            round,
            dataset: "synthetic".into(),
            digest: String::new(),
            accepted: Vec::new(),
            rejected: vec!["bs2".into(); rejected],
            late: vec!["bs3".into(); 2 * rejected],
            test_loss: None,
            test_accuracy: Some(round as f64),
            aggregate_wall_ms: 1.0,
            restored,
        }
    }

    #[test]
    fn a_round_that_is_told_twice_counts_once() {
        let mut outcomes = Outcomes::default();
        (0..=5).for_each(|round| outcomes.add(&told(round, 1, false)));
        assert_eq!((outcomes.rejected, outcomes.late), (6, 12));
        // It goes on from the last one, of which a checkpoint does not know who was refused.
        outcomes.add(&told(5, 0, true));
        assert_eq!((outcomes.rejected, outcomes.late), (6, 12));
        // From one before, and round 5, done again, refuses three.
        outcomes.add(&told(4, 0, true));
        assert_eq!((outcomes.rejected, outcomes.late), (5, 10));
        outcomes.add(&told(5, 3, false));
        assert_eq!((outcomes.rejected, outcomes.late), (8, 16));
        // It had no checkpoint at all, and begins anew.
        outcomes.add(&told(0, 0, false));
        assert_eq!((outcomes.rejected, outcomes.late, outcomes.accuracy_by_round().len()), (0, 0, 1));
    }

    #[test]
    fn the_first_of_the_list_is_the_round_that_it_says() {
        let mut outcomes = Outcomes::default();
        assert_eq!((outcomes.first_round(), outcomes.accuracy_by_round()), (None, Vec::new()));
        // A run that goes on from another; the event of round 8 was lost.
        for (round, restored) in [(7, true), (9, false), (10, false)] {
            outcomes.add(&told(round, 0, restored));
        }
        let accuracy = vec![Some(7.0), None, Some(9.0), Some(10.0)];
        assert_eq!((outcomes.first_round(), outcomes.accuracy_by_round()), (Some(7), accuracy));
    }

    #[test]
    fn thousands_of_rounds_are_kept_but_not_any_number() {
        let mut outcomes = Outcomes::default();
        (0..3000).for_each(|round| outcomes.add(&told(round, 1, false)));
        assert_eq!((outcomes.first_round(), outcomes.accuracy_by_round().len()), (Some(0), 3000));
        outcomes.add(&told(ROUNDS + 10, 1, false));
        assert_eq!((outcomes.first_round(), outcomes.rejected), (Some(11), 3001));
        outcomes.add(&told(u64::MAX, 0, false));
        assert_eq!((outcomes.first_round(), outcomes.accuracy_by_round().len()), (Some(u64::MAX), 1));
    }
}
