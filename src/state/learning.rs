//! The fold over learning: models, what was found of them, and how good they are.

use std::collections::{BTreeMap, VecDeque};

use dtwn_proto::event::{GlobalModel, LocalModel, TwinMoved, Verification};

/// Rounds kept for screens; older ones stay in the event file.
const HISTORY: usize = 1024;
/// Moves of twins kept for screens.
const MOVES: usize = 64;

/// What was learned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LearningState {
    /// The latest global models, oldest first.
    pub globals: VecDeque<GlobalModel>,
    /// Each BS's latest model.
    pub locals: BTreeMap<String, LocalModel>,
    /// Accuracy of each BS's latest models on samples that it holds back, oldest first.
    pub local_accuracy: BTreeMap<String, VecDeque<f64>>,
    /// The latest findings on models, by verifier and owner.
    pub findings: BTreeMap<(String, String), Verification>,
    /// Models found bad, over all rounds.
    pub rejected: u64,
    /// Models that came too late, over all rounds.
    pub late: u64,
    /// Times that a BS could not keep the pace of its processor.
    pub overruns: u64,
    /// The latest moves of twins, oldest first.
    pub moves: VecDeque<TwinMoved>,
    /// Moves of twins, over all rounds.
    pub moved: u64,
    /// Bytes that these took through the air.
    pub moved_bytes: u64,
    moved_ms: f64,
    samples: u64,
    train_wall_ms: f64,
    train: (u64, f64, f64),
    verify: (u64, f64),
    aggregate: (u64, f64),
    aggregate_global: (u64, f64),
}

impl LearningState {
    /// Whether anything was learned.
    pub fn is_on(&self) -> bool {
        !self.globals.is_empty()
    }

    /// The global model in force.
    pub fn last(&self) -> Option<&GlobalModel> {
        self.globals.back()
    }

    /// Samples that a BS trains on in a second of wall time, mean over all.
    pub fn samples_per_s(&self) -> Option<f64> {
        (self.train_wall_ms > 0.0).then(|| self.samples as f64 * 1000.0 / self.train_wall_ms)
    }

    /// How long a move takes in the mean, emulated milliseconds.
    pub fn move_ms(&self) -> Option<f64> {
        (self.moved > 0).then(|| self.moved_ms / self.moved as f64)
    }

    /// Mean milliseconds of each phase. Training in emulated time with Eq. 12's prediction beside it, the others in wall time.
    pub fn phases_ms(&self) -> [(&'static str, Option<f64>); 5] {
        let mean = |(count, sum): (u64, f64)| (count > 0).then(|| sum / count as f64);
        let (count, measured, predicted) = self.train;
        [
            ("train", mean((count, measured))),
            ("train_predicted", mean((count, predicted))),
            ("aggregate_wall", mean(self.aggregate)),
            ("verify_wall", mean(self.verify)),
            ("aggregate_global_wall", mean(self.aggregate_global)),
        ]
    }

    /// What was found of a BS's latest model that anybody checked, by verifier.
    pub fn latest_findings(&self, owner: &str) -> impl Iterator<Item = (&str, &Verification)> {
        let of_owner = self.findings.iter().filter(move |((_, of), _)| of == owner);
        let round = of_owner.clone().map(|(_, finding)| finding.round).max();
        of_owner
            .filter(move |(_, finding)| Some(finding.round) == round)
            .map(|((verifier, _), finding)| (verifier.as_str(), finding))
    }

    pub(super) fn moved(&mut self, twin: &TwinMoved) {
        if self.moves.len() == MOVES {
            self.moves.pop_front();
        }
        self.moves.push_back(twin.clone());
        self.moved += 1;
        self.moved_bytes += twin.bytes;
        self.moved_ms += twin.took_ms;
    }

    pub(super) fn trained(&mut self, node: &str, model: &LocalModel) {
        self.samples += model.samples;
        self.train_wall_ms += model.train_wall_ms;
        self.train.0 += 1;
        self.train.1 += model.train_ms;
        self.train.2 += model.predicted_ms;
        self.aggregate.0 += 1;
        self.aggregate.1 += model.aggregate_wall_ms;
        self.overruns += u64::from(model.overrun_ms > 0.0);
        if let Some(accuracy) = model.held_out_accuracy.filter(|accuracy| accuracy.is_finite()) {
            let history = self.local_accuracy.entry(node.to_owned()).or_default();
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(accuracy);
        }
        self.locals.insert(node.to_owned(), model.clone());
    }

    pub(super) fn verified(&mut self, node: &str, finding: &Verification) {
        self.verify.0 += 1;
        self.verify.1 += finding.verify_wall_ms;
        self.findings.insert((node.to_owned(), finding.owner.clone()), finding.clone());
    }

    pub(super) fn globalised(&mut self, model: &GlobalModel) {
        // An MBS that was started again tells what it goes on from; what it did after that, it does again.
        if model.restored && self.last().is_some_and(|last| last.round == model.round) {
            return;
        }
        while self.last().is_some_and(|last| last.round >= model.round) {
            self.globals.pop_back();
        }
        if self.globals.len() == HISTORY {
            self.globals.pop_front();
        }
        self.rejected += model.rejected.len() as u64;
        self.late += model.late.len() as u64;
        if model.round > 0 && !model.restored {
            self.aggregate_global.0 += 1;
            self.aggregate_global.1 += model.aggregate_wall_ms;
        }
        self.globals.push_back(model.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(round: u64, accuracy: f64) -> GlobalModel {
        GlobalModel {
            round,
            dataset: "synthetic".into(),
            digest: String::new(),
            accepted: vec!["bs1".into()],
            rejected: vec!["bs2".into()],
            late: Vec::new(),
            test_loss: Some(2.0),
            test_accuracy: Some(accuracy),
            aggregate_wall_ms: 4.0,
            restored: false,
        }
    }

    #[test]
    fn an_mbs_that_goes_on_from_a_checkpoint_does_not_count_rounds_twice() {
        let mut state = LearningState::default();
        (0..=5).for_each(|round| state.globalised(&global(round, 0.1 * round as f64)));
        state.globalised(&GlobalModel { restored: true, accepted: Vec::new(), ..global(5, 0.5) });
        assert_eq!((state.globals.len(), state.last().unwrap().accepted.len()), (6, 1));
        // Its newest checkpoint was no good, and it goes back a round.
        state.globalised(&GlobalModel { restored: true, ..global(4, 0.4) });
        state.globalised(&global(5, 0.5));
        let rounds: Vec<u64> = state.globals.iter().map(|model| model.round).collect();
        assert_eq!(rounds, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn moves_of_twins_add_up_and_the_latest_are_kept() {
        let mut state = LearningState::default();
        assert_eq!(state.move_ms(), None);
        for epoch in 1..=100 {
            state.moved(&TwinMoved {
                twin: "ug1.0".into(),
                from: "bs1".into(),
                to: "bs2".into(),
                epoch,
                from_round: 3,
                samples: 10,
                bytes: 100,
                took_ms: epoch as f64,
            });
        }
        assert_eq!((state.moved, state.moved_bytes, state.moves.len()), (100, 10_000, MOVES));
        assert_eq!((state.move_ms(), state.moves.back().map(|last| last.epoch)), (Some(50.5), Some(100)));
    }

    #[test]
    fn models_add_up_and_the_history_is_bounded() {
        let mut state = LearningState::default();
        assert!(!state.is_on());
        (1..=2000).for_each(|round| state.globalised(&global(round, 0.5)));
        assert_eq!((state.globals.len(), state.rejected, state.late), (HISTORY, 2000, 0));
        assert_eq!(state.last().map(|model| model.round), Some(2000));
        assert_eq!(state.phases_ms()[4], ("aggregate_global_wall", Some(4.0)));
        assert_eq!(state.samples_per_s(), None);
    }
}
