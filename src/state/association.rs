//! The fold over decisions on twins, data and subchannels.

use std::collections::VecDeque;

use dtwn_proto::event::{AssociationDecision, ChainBlock, LocalModel, Round, Transfer};

/// Rounds kept for screens; older ones stay in the event file.
const HISTORY: usize = 256;

/// A round's decision, and what the round took once it has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct DecidedRound {
    /// What was decided.
    pub decision: AssociationDecision,
    /// Emulated milliseconds that the round took; `None` while it lasts.
    pub measured_ms: Option<f64>,
    /// The terms of Eq. 17 as measured, emulated milliseconds: the slowest training, the slowest relayed model, the slowest block
    /// from its proposal to its finalization. `None` where there was none of it.
    pub measured_terms_ms: [Option<f64>; 3],
}

/// What was decided, and how it went.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AssociationState {
    /// The latest rounds, oldest first.
    pub rounds: VecDeque<DecidedRound>,
    /// Rounds that began under a decision and ended.
    pub ended: u64,
    /// Twins that changed their BS, over all rounds.
    pub migrations: u64,
    predicted_ms: f64,
    measured_ms: f64,
    decisions: u64,
    decision_us: f64,
    ratios: (u64, f64),
    /// The longest decision of a BS for a round whose association is not known yet.
    acting: (u64, f64),
    terms: [(u64, f64); 3],
}

impl AssociationState {
    /// The decision in force.
    pub fn last(&self) -> Option<&AssociationDecision> {
        self.rounds.back().map(|round| &round.decision)
    }

    /// Mean T over the rounds that ended, emulated milliseconds: as Eq. 17 predicted it, and as it was measured.
    pub fn mean_ms(&self) -> Option<(f64, f64)> {
        let of = |sum: f64| sum / self.ended as f64;
        (self.ended > 0).then(|| (of(self.predicted_ms), of(self.measured_ms)))
    }

    /// Mean of T over that of the optimum, where the policy told it.
    pub fn ratio_to_optimal(&self) -> Option<f64> {
        (self.ratios.0 > 0).then(|| self.ratios.1 / self.ratios.0 as f64)
    }

    /// Mean wall microseconds of a decision.
    pub fn decision_us(&self) -> Option<f64> {
        (self.decisions > 0).then(|| self.decision_us / self.decisions as f64)
    }

    pub(super) fn decided(&mut self, decision: &AssociationDecision) {
        if self.rounds.len() == HISTORY {
            self.rounds.pop_front();
        }
        let mut decision = decision.clone();
        if decision.decision_us == 0.0 && self.acting.0 == decision.round {
            decision.decision_us = self.acting.1;
        }
        self.migrations += u64::from(decision.migrations);
        self.decisions += 1;
        self.decision_us += decision.decision_us;
        if let Some(ratio) = decision.ratio_to_optimal {
            self.ratios = (self.ratios.0 + 1, self.ratios.1 + ratio);
        }
        self.rounds.push_back(DecidedRound { decision, measured_ms: None, measured_terms_ms: [None; 3] });
    }

    pub(super) fn acted(&mut self, round: u64, decision_us: f64) {
        if self.acting.0 != round {
            self.acting = (round, 0.0);
        }
        self.acting.1 = self.acting.1.max(decision_us);
    }

    pub(super) fn trained(&mut self, model: &LocalModel) {
        if self.last().is_some_and(|last| last.round == model.round) {
            self.measured(0, model.train_ms);
        }
    }

    pub(super) fn sent(&mut self, transfer: &Transfer) {
        if transfer.kind == "model-relay" {
            self.measured(1, transfer.measured_ms);
        }
    }

    pub(super) fn finalized(&mut self, blocks: &[ChainBlock]) {
        blocks.iter().filter_map(|block| block.finality_ms).for_each(|ms| self.measured(2, ms));
    }

    /// Counts for the round that lasts: of a term, the slowest counts.
    fn measured(&mut self, term: usize, ms: f64) {
        if let Some(round) = self.rounds.back_mut().filter(|round| round.measured_ms.is_none()) {
            let slowest = &mut round.measured_terms_ms[term];
            *slowest = Some(slowest.map_or(ms, |other| other.max(ms)));
        }
    }

    /// Mean of each term of Eq. 17 over the rounds that ended, emulated milliseconds, as measured; `None` where nothing was.
    pub fn mean_terms_ms(&self) -> [Option<f64>; 3] {
        self.terms.map(|(count, sum)| (count > 0).then(|| sum / count as f64))
    }

    /// Rounds without a decision of their own count nowhere: their K, b and τ were another round's.
    pub(super) fn round_ended(&mut self, round: &Round) {
        let Some(decided) = self.rounds.iter_mut().rev().find(|d| d.decision.round == round.round) else {
            return;
        };
        if decided.measured_ms.replace(round.duration_ms).is_none() {
            self.ended += 1;
            self.predicted_ms += decided.decision.predicted_total_ms();
            self.measured_ms += round.duration_ms;
            for (sum, term) in self.terms.iter_mut().zip(decided.measured_terms_ms) {
                if let Some(ms) = term {
                    *sum = (sum.0 + 1, sum.1 + ms);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_meet_the_rounds_they_were_for() {
        let mut state = AssociationState::default();
        let decision = |round, ms: f64, ratio| AssociationDecision {
            round,
            predicted_ms: [ms, ms / 2.0, ms / 2.0],
            ratio_to_optimal: ratio,
            migrations: 3,
            decision_us: 100.0 * round as f64,
            ..AssociationDecision::default()
        };
        let ended = |round, duration_ms| Round {
            round,
            completed_by: vec![],
            missed_by: vec![],
            duration_ms,
            predicted_ms: None,
        };
        let sent = |kind: &str, measured_ms| Transfer {
            kind: kind.into(),
            from: "bs1".into(),
            to: "bs2".into(),
            bytes: 1,
            measured_ms,
            predicted_ms: 1.0,
        };
        // Before the first decision nothing is anybody's.
        state.sent(&sent("model-relay", 99.0));
        state.decided(&decision(1, 1000.0, None));
        state.sent(&sent("model-relay", 40.0));
        state.sent(&sent("model-relay", 30.0));
        state.sent(&sent("model-up", 99.0));
        state.round_ended(&ended(1, 2500.0));
        // Told twice, counted once; a round that nobody decided on counts nowhere.
        state.round_ended(&ended(1, 2500.0));
        state.round_ended(&ended(7, 9.0));
        assert_eq!(state.mean_terms_ms(), [None, Some(40.0), None]);
        state.acted(2, 50.0);
        state.decided(&decision(2, 2000.0, Some(1.5)));
        assert_eq!((state.ended, state.migrations), (1, 6));
        assert_eq!(state.mean_ms(), Some((2000.0, 2500.0)));
        assert_eq!((state.ratio_to_optimal(), state.decision_us()), (Some(1.5), Some(150.0)));
        assert_eq!(state.last().map(|d| d.round), Some(2));
        for round in 3..1000 {
            state.decided(&decision(round, 1.0, None));
        }
        assert_eq!(state.rounds.len(), HISTORY);
    }
}
