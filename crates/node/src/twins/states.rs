//! The stream of a user's states, from the user to the BS that has its twin.
//!
//! A state's sequence is its step in the user's life, so that a user that is started again goes on where time is, not where it was. The
//! user keeps the last few states that its BS has not acknowledged, and sends all of them each time: what a BS misses while it is down,
//! or while the twin moves, it gets with the next. What is older than that is lost, and counted at the twin.

use std::collections::VecDeque;

use dtwn_proto::node::{STATES_MAX, TwinState};

/// A user's end.
#[derive(Debug, Clone, Default)]
pub struct Unacknowledged {
    states: VecDeque<TwinState>,
}

impl Unacknowledged {
    /// Adds the newest state; the oldest gives way when there are too many.
    pub fn push(&mut self, state: TwinState) {
        if self.states.len() == STATES_MAX {
            self.states.pop_front();
        }
        self.states.push_back(state);
    }

    /// All states up to `sequence` have arrived.
    pub fn acknowledge(&mut self, sequence: u64) {
        while self.states.front().is_some_and(|state| state.sequence <= sequence) {
            self.states.pop_front();
        }
    }

    /// What is to be sent.
    #[must_use]
    pub fn all(&self) -> Vec<TwinState> {
        self.states.iter().cloned().collect()
    }
}

/// Why states were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatesError {
    /// None, or too many.
    #[error("{0} states in a message; it takes 1 to {STATES_MAX}")]
    Count(usize),
    /// One that is another user's.
    #[error("a state of user {0}, who is not the sender")]
    Stranger(u32),
    /// Not in order.
    #[error("states out of order")]
    Order,
    /// A number that no state has.
    #[error("a state with an impossible value")]
    Value,
    /// Taken after it arrived.
    #[error("a state of the future")]
    Future,
}

/// A twin's end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Followed {
    /// The newest state that is here.
    pub state: Option<TwinState>,
    /// States that never came.
    pub missed: u64,
}

/// Clocks of a run are one; this much is for rounding.
const SLACK_NS: u64 = 1_000_000;

impl Followed {
    /// Takes what a user sent and returns how many of the states are new.
    ///
    /// # Errors
    /// [`StatesError`]: nothing was taken.
    pub fn take(&mut self, user: u32, states: &[TwinState], now_ns: u64) -> Result<u64, StatesError> {
        check(user, states, now_ns)?;
        let mut new = 0;
        for state in states {
            let last = self.state.as_ref().map(|state| state.sequence);
            if last.is_some_and(|last| state.sequence <= last) {
                continue;
            }
            self.missed += last.map_or(0, |last| state.sequence - last - 1);
            self.state = Some(state.clone());
            new += 1;
        }
        Ok(new)
    }

    /// Takes over what the last owner knew, unless we know better.
    pub fn inherit(&mut self, state: TwinState) {
        if self.state.as_ref().is_none_or(|ours| ours.sequence < state.sequence) {
            self.state = Some(state);
        }
    }

    /// The sequence of the newest state; 0 without one.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.sequence)
    }
}

/// Checks states that came from outside.
///
/// # Errors
/// [`StatesError`].
pub fn check(user: u32, states: &[TwinState], now_ns: u64) -> Result<(), StatesError> {
    if !(1..=STATES_MAX).contains(&states.len()) {
        return Err(StatesError::Count(states.len()));
    }
    if let Some(state) = states.iter().find(|state| state.user != user) {
        return Err(StatesError::Stranger(state.user));
    }
    if !states.is_sorted_by(|a, b| a.sequence < b.sequence && a.taken_at_ns <= b.taken_at_ns) {
        return Err(StatesError::Order);
    }
    let share = |value: f32| (0.0..=1.0).contains(&value);
    let possible = |state: &TwinState| {
        share(state.battery) && share(state.load) && state.position_m.iter().all(|metres| metres.is_finite())
    };
    if !states.iter().all(possible) {
        return Err(StatesError::Value);
    }
    match states.iter().any(|state| state.taken_at_ns > now_ns + SLACK_NS) {
        true => Err(StatesError::Future),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(sequence: u64) -> TwinState {
        TwinState {
            user: 3,
            sequence,
            taken_at_ns: sequence * 10,
            position_m: [1.0, 2.0],
            battery: 0.5,
            load: 0.5,
        }
    }

    #[test]
    fn what_is_lost_comes_again_and_nothing_goes_back() {
        let (mut user, mut twin) = (Unacknowledged::default(), Followed::default());
        for sequence in 1..=3 {
            user.push(state(sequence));
        }
        assert_eq!(twin.take(3, &user.all(), 1000), Ok(3));
        user.acknowledge(2);
        user.push(state(4));
        assert_eq!(twin.take(3, &user.all(), 1000), Ok(1));
        assert_eq!(twin.take(3, &[state(2)], 1000), Ok(0));
        assert_eq!((twin.sequence(), twin.missed), (4, 0));
        // A BS that is away for longer than the window misses the oldest of what came meanwhile.
        user.acknowledge(4);
        (5..=16).for_each(|sequence| user.push(state(sequence)));
        assert_eq!(twin.take(3, &user.all(), 1000), Ok(STATES_MAX as u64));
        assert_eq!((twin.sequence(), twin.missed), (16, 4));
        twin.inherit(state(9));
        assert_eq!(twin.sequence(), 16);
        let mut next = Followed::default();
        next.inherit(state(16));
        assert_eq!(next.sequence(), 16);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let mut twin = Followed::default();
        let mut refused = |states: &[TwinState]| twin.take(3, states, 1000).unwrap_err();
        assert_eq!(refused(&[]), StatesError::Count(0));
        assert_eq!(refused(&vec![state(1); STATES_MAX + 1]), StatesError::Count(STATES_MAX + 1));
        assert_eq!(refused(&[TwinState { user: 4, ..state(1) }]), StatesError::Stranger(4));
        assert_eq!(refused(&[state(2), state(1)]), StatesError::Order);
        assert_eq!(refused(&[TwinState { battery: f32::NAN, ..state(1) }]), StatesError::Value);
        assert_eq!(
            refused(&[TwinState { position_m: [0.0, f32::INFINITY], ..state(1) }]),
            StatesError::Value
        );
        assert_eq!(refused(&[TwinState { taken_at_ns: u64::MAX / 2, ..state(1) }]), StatesError::Future);
        assert_eq!(twin, Followed::default());
    }
}
