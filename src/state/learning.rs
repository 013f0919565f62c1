//! The fold over learning: models, what was found of them, and how good they are.

use std::collections::{BTreeMap, VecDeque};

use dtwn_proto::event::{
    ChainBlock, GlobalModel, LocalModel, Round, TrainingAbandoned, Transfer, TwinMoved, Verification,
};

use super::outcomes::Outcomes;

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
    /// What came of all rounds.
    pub outcomes: Outcomes,
    /// Times that a BS could not keep the pace of its processor.
    pub overruns: u64,
    /// The latest moves of twins, oldest first.
    pub moves: VecDeque<TwinMoved>,
    /// Moves of twins, over all rounds.
    pub moved: u64,
    /// Twins that came to each BS, and that left it, over all rounds.
    pub moved_by_bs: BTreeMap<String, (u64, u64)>,
    /// Twins on their way to each BS.
    pub arriving: BTreeMap<String, u32>,
    /// Bytes that these took through the air.
    pub moved_bytes: u64,
    moved_ms: f64,
    samples: u64,
    train_wall_ms: f64,
    phases: Phases,
    verify_wall: Mean,
    aggregate_wall: Mean,
    aggregate_global_wall: Mean,
    /// The slowest relayed model of the round that lasts.
    slowest_relay: Option<(f64, f64)>,
}

/// A mean that grows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Mean {
    count: u64,
    sum: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        (self.count, self.sum) = (self.count + 1, self.sum + value);
    }

    fn get(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// What is measured, beside what an equation says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Beside {
    measured: Mean,
    predicted: Mean,
}

impl Beside {
    fn add(&mut self, measured: f64, predicted: f64) {
        self.measured.add(measured);
        self.predicted.add(predicted);
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Phases {
    train: Beside,
    aggregate: Beside,
    upload: Beside,
    broadcast: Beside,
    verify: Beside,
    block: Beside,
}

/// A phase of rounds: its name, and in the mean, in emulated milliseconds, what it took and what an equation of the paper predicts.
pub type Phase = (&'static str, Option<f64>, Option<f64>);

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

    /// The phases of a round in their order: training (Eq. 12), Eq. 4 at the BS (Eq. 14), the model's way to the MBS (Eq. 7), the slowest
    /// model's to the other BSs (Eq. 15), checking a model (Eq. 16's second part), and blocks with models on record from their
    /// proposal to their finalization (Eq. 16).
    pub fn phases(&self) -> [Phase; 6] {
        let Phases { train, aggregate, upload, broadcast, verify, block } = self.phases;
        let of = |name, beside: Beside| (name, beside.measured.get(), beside.predicted.get());
        [
            of("train", train),
            of("aggregate", aggregate),
            of("upload", upload),
            of("broadcast", broadcast),
            of("verify", verify),
            of("block", block),
        ]
    }

    /// Mean wall milliseconds of what the machine computes beside training.
    pub fn wall_ms(&self) -> [(&'static str, Option<f64>); 3] {
        [
            ("aggregate_wall", self.aggregate_wall.get()),
            ("verify_wall", self.verify_wall.get()),
            ("aggregate_global_wall", self.aggregate_global_wall.get()),
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
        self.moved_by_bs.entry(twin.to.clone()).or_default().0 += 1;
        self.moved_by_bs.entry(twin.from.clone()).or_default().1 += 1;
        self.moved_bytes += twin.bytes;
        self.moved_ms += twin.took_ms;
    }

    pub(super) fn trained(&mut self, node: &str, model: &LocalModel) {
        self.samples += model.samples;
        self.train_wall_ms += model.train_wall_ms;
        self.phases.train.add(model.train_ms, model.predicted_ms);
        self.phases.aggregate.add(model.aggregate_ms, model.aggregate_predicted_ms);
        self.aggregate_wall.add(model.aggregate_wall_ms);
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

    pub(super) fn abandoned(&mut self, abandoned: &TrainingAbandoned) {
        self.overruns += u64::from(abandoned.overrun_ms > 0.0);
    }

    pub(super) fn sent(&mut self, transfer: &Transfer) {
        let (measured, predicted) = (transfer.measured_ms, transfer.predicted_ms);
        match transfer.kind.as_str() {
            "model-up" => self.phases.upload.add(measured, predicted),
            "model-relay" => {
                let (slowest, promised) = self.slowest_relay.unwrap_or_default();
                self.slowest_relay = Some((slowest.max(measured), promised.max(predicted)));
            }
            _ => {}
        }
    }

    /// Only who built a block knows how long it took; each is told once by that BS.
    pub(super) fn finalized(&mut self, blocks: &[ChainBlock]) {
        let with_models = blocks.iter().filter(|block| block.models > 0);
        with_models.filter_map(|block| block.finality_ms).for_each(|ms| self.phases.block.measured.add(ms));
    }

    pub(super) fn round_ended(&mut self, round: &Round) {
        if let Some((measured, predicted)) = self.slowest_relay.take() {
            self.phases.broadcast.add(measured, predicted);
        }
        if let Some([_, _, block_ms]) = round.predicted_ms {
            self.phases.block.predicted.add(block_ms);
        }
    }

    pub(super) fn verified(&mut self, node: &str, finding: &Verification) {
        self.phases.verify.add(finding.verify_ms, finding.predicted_ms);
        self.verify_wall.add(finding.verify_wall_ms);
        self.findings.insert((node.to_owned(), finding.owner.clone()), finding.clone());
    }

    pub(super) fn globalised(&mut self, model: &GlobalModel) {
        self.outcomes.add(model);
        // An MBS that was started again tells what it goes on from; what it did after that, it does again.
        let again =
            |last: &GlobalModel| last.round > model.round || (last.round == model.round && !model.restored);
        while self.last().is_some_and(again) {
            self.globals.pop_back();
        }
        if self.last().is_some_and(|last| last.round == model.round) {
            return;
        }
        if self.globals.len() == HISTORY {
            self.globals.pop_front();
        }
        if model.round > 0 && !model.restored {
            self.aggregate_global_wall.add(model.aggregate_wall_ms);
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
        let rejected = Vec::new();
        state.globalised(&GlobalModel { restored: true, accepted: Vec::new(), rejected, ..global(4, 0.4) });
        state.globalised(&global(5, 0.5));
        let rounds: Vec<u64> = state.globals.iter().map(|model| model.round).collect();
        assert_eq!(rounds, [0, 1, 2, 3, 4, 5]);
        assert_eq!((state.globals[4].accepted.len(), state.outcomes.rejected), (1, 6));
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
        assert_eq!((state.moved_by_bs["bs1"], state.moved_by_bs["bs2"]), ((0, 100), (100, 0)));
        assert_eq!((state.move_ms(), state.moves.back().map(|last| last.epoch)), (Some(50.5), Some(100)));
    }

    #[test]
    fn phases_stand_beside_what_is_predicted() {
        let mut state = LearningState::default();
        assert!(
            state.phases().iter().all(|(_, measured, predicted)| (measured, predicted) == (&None, &None))
        );
        let sent = |kind: &str, measured_ms, predicted_ms| Transfer {
            kind: kind.into(),
            from: "bs1".into(),
            to: "mbs".into(),
            bytes: 1,
            measured_ms,
            predicted_ms,
        };
        let ended = |round, predicted_ms| Round {
            round,
            completed_by: Vec::new(),
            missed_by: Vec::new(),
            duration_ms: 1.0,
            predicted_ms,
        };
        let block = |models, finality_ms| ChainBlock {
            height: 1,
            epoch: 0,
            view: 1,
            leader: "bs1".into(),
            digest: String::new(),
            transactions: models,
            bytes: 1,
            models,
            signers: Vec::new(),
            finalized_at_ns: 0,
            finality_ms,
        };
        [sent("model-up", 10.0, 8.0), sent("model-up", 20.0, 10.0), sent("model-down", 99.0, 99.0)]
            .iter()
            .chain([&sent("model-relay", 30.0, 25.0), &sent("model-relay", 40.0, 20.0)])
            .for_each(|transfer| state.sent(transfer));
        // Of a block that carries no model, and by others than its builder, nothing counts.
        state.finalized(&[block(0, Some(99.0)), block(2, Some(4.0)), block(2, None)]);
        state.round_ended(&ended(1, Some([1.0, 2.0, 3.0])));
        state.sent(&sent("model-relay", 60.0, 35.0));
        state.round_ended(&ended(2, None));
        // A round without a relayed model has no slowest.
        state.round_ended(&ended(3, None));
        let [_, _, upload, broadcast, _, block] = state.phases();
        assert_eq!(upload, ("upload", Some(15.0), Some(9.0)));
        assert_eq!(broadcast, ("broadcast", Some(50.0), Some(30.0)));
        assert_eq!(block, ("block", Some(4.0), Some(3.0)));
    }

    #[test]
    fn training_that_was_abandoned_counts_as_an_overrun_and_as_nothing_else() {
        let mut state = LearningState::default();
        let abandoned = |overrun_ms| TrainingAbandoned {
            round: 2,
            samples: 100,
            train_ms: 500.0,
            predicted_ms: 500.0 - overrun_ms,
            overrun_ms,
        };
        state.abandoned(&abandoned(0.0));
        state.abandoned(&abandoned(20.0));
        assert_eq!((state.overruns, state.samples, state.locals.len()), (1, 0, 0));
    }

    #[test]
    fn models_add_up_and_the_history_is_bounded() {
        let mut state = LearningState::default();
        assert!(!state.is_on());
        (1..=2000).for_each(|round| state.globalised(&global(round, 0.5)));
        assert_eq!((state.globals.len(), state.outcomes.rejected, state.outcomes.late), (HISTORY, 2000, 0));
        assert_eq!(state.last().map(|model| model.round), Some(2000));
        assert_eq!(state.wall_ms()[2], ("aggregate_global_wall", Some(4.0)));
        assert_eq!(state.samples_per_s(), None);
    }
}
