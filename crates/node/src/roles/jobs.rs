//! What a BS's learning thread was asked and has not answered, in order: it tells that something failed, and not what.
//!
//! It does one thing after the other, so that was the oldest. Changes of twins are asked for elsewhere: one that fails is taken for what
//! was asked next, whose answer then comes all the same.

use std::collections::VecDeque;

use super::wanted::ModelDigest;

/// Something to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To train in a round.
    Train(u64),
    /// To judge what was trained, which follows by itself.
    Judge(u64),
    /// To check another's model.
    Verify(ModelDigest),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Jobs(VecDeque<Asked>);

impl Jobs {
    /// The thread was asked.
    pub(super) fn ask(&mut self, job: Asked) {
        self.0.push_back(job);
    }

    /// The thread has answered.
    pub(super) fn answered(&mut self, job: Asked) {
        if let Some(at) = self.0.iter().position(|asked| *asked == job) {
            self.0.drain(..=at);
        }
    }

    /// The thread has trained in a round, and judges that next.
    pub(super) fn trained(&mut self, round: u64) {
        self.answered(Asked::Train(round));
        self.0.push_front(Asked::Judge(round));
    }

    /// Something failed: what, as far as that is known.
    pub(super) fn failed(&mut self) -> Option<Asked> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(jobs: impl IntoIterator<Item = Asked>) -> Jobs {
        Jobs(jobs.into_iter().collect())
    }

    #[test]
    fn what_failed_is_the_oldest_that_was_not_answered() {
        let (one, other) = (Asked::Verify([1; 32]), Asked::Verify([2; 32]));
        let mut jobs = asked([one, Asked::Train(5)]);
        jobs.ask(other);
        jobs.answered(one);
        assert_eq!(jobs.failed(), Some(Asked::Train(5)));
        jobs.answered(other);
        assert_eq!(jobs.failed(), None);
    }

    #[test]
    fn what_fails_after_training_is_not_taken_for_the_next_training() {
        let mut jobs = asked([Asked::Train(5), Asked::Train(6)]);
        jobs.trained(5);
        assert_eq!(jobs.failed(), Some(Asked::Judge(5)));
        jobs.trained(6);
        jobs.ask(Asked::Train(7));
        jobs.answered(Asked::Judge(6));
        assert_eq!(jobs.failed(), Some(Asked::Train(7)));
    }

    #[test]
    fn what_was_taken_for_another_job_sets_nothing_later_wrong() {
        let mut jobs = asked([Asked::Train(5)]);
        // It was twins that could not be changed.
        assert_eq!(jobs.failed(), Some(Asked::Train(5)));
        jobs.trained(5);
        jobs.answered(Asked::Judge(5));
        jobs.ask(Asked::Train(6));
        assert_eq!(jobs.failed(), Some(Asked::Train(6)));
    }
}
