//! Who a round waits for, and when it is over: the MBS's part in rounds, without clock or sockets.
//!
//! A round is over when every BS that can deliver has, and what it delivered is settled. Not waited for are
//!
//! - a BS to which the association in force gives no twins, and one that has told that it makes none, as nothing of its twins is there to
//!   be trained or training has failed: neither is late;
//! - a BS whose connection is down: it is late, unless it comes back, and delivers, before the round is over.
//!
//! With fewer good models than `min_bs`, a round whose absentees may still come waits for them until the deadline: rounds in which
//! nobody could take part would follow one another without end.

/// For how long a connection may be down before its BS is not waited for any more, emulated seconds. The bus replaces connections
/// over links in trouble, and a BS that is started again comes back.
const AWAY_S: f64 = 2.0;
/// For how long a BS is waited for that has not been there since the MBS started, emulated seconds: a run begins before its nodes
/// have found each other.
const ASSEMBLY_S: f64 = 8.0;

/// What is known of the model of a BS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// It is not here, or not on record where it has to be.
    Missing,
    /// It is here and on record, and others check it.
    Pending,
    /// It counts.
    Good,
    /// It was found bad.
    Bad,
}

#[derive(Debug, Clone)]
struct Member {
    /// Whether it was ever connected.
    seen: bool,
    /// Since when it is not connected, emulated nanoseconds.
    away_since_ns: Option<u64>,
    /// Whether the association in force gives it twins.
    has_twins: bool,
    /// Whether it has told that it makes no model in this round.
    idle: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Muster {
    members: Vec<Member>,
    /// Good models without which a round waits for those who may still come.
    least: usize,
}

impl Muster {
    /// For so many BSs, none of which is there yet.
    pub(super) fn new(stations: usize, least: usize, now_ns: u64) -> Self {
        let absent = Member { seen: false, away_since_ns: Some(now_ns), has_twins: true, idle: false };
        Self { members: vec![absent; stations], least }
    }

    /// Begins a round with the BSs that have twins under the association in force.
    pub(super) fn open(&mut self, has_twins: impl IntoIterator<Item = bool>) {
        for (member, has_twins) in self.members.iter_mut().zip(has_twins) {
            (member.has_twins, member.idle) = (has_twins, false);
        }
    }

    /// Takes note of who is connected.
    pub(super) fn look(&mut self, connected: impl IntoIterator<Item = bool>, now_ns: u64) {
        for (member, connected) in self.members.iter_mut().zip(connected) {
            member.seen |= connected;
            member.away_since_ns = match connected {
                true => None,
                false => member.away_since_ns.or(Some(now_ns)),
            };
        }
    }

    /// Takes note of whether a BS makes a model in this round.
    pub(super) fn trains(&mut self, bs: usize, anything: bool) {
        if let Some(member) = self.members.get_mut(bs) {
            member.idle = !anything;
        }
    }

    /// Whether a BS has nothing to deliver in this round, and so cannot be late.
    pub(super) fn is_excused(&self, bs: usize) -> bool {
        self.members.get(bs).is_some_and(|member| !member.has_twins || member.idle)
    }

    /// Whether nothing is left to wait for, with `stand` of each BS's model.
    pub(super) fn is_over(&self, stand: impl Fn(usize) -> Stand, now_ns: u64) -> bool {
        let (mut good, mut may_come) = (0, false);
        for (bs, member) in self.members.iter().enumerate() {
            match stand(bs) {
                Stand::Good => good += 1,
                Stand::Bad => {}
                // Whoever it is from, others are at work on it.
                Stand::Pending => return false,
                Stand::Missing if !member.has_twins => {}
                Stand::Missing if member.idle || member.is_away(now_ns) => may_come = true,
                Stand::Missing => return false,
            }
        }
        good >= self.least || !may_come
    }
}

impl Member {
    fn is_away(&self, now_ns: u64) -> bool {
        let patience_s = if self.seen { AWAY_S } else { ASSEMBLY_S };
        self.away_since_ns.is_some_and(|since_ns| now_ns.saturating_sub(since_ns) as f64 >= patience_s * 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::{Stand::*, *};

    const S: u64 = 1_000_000_000;

    /// Three BSs that are there, in a round in which all have twins.
    fn assembled() -> Muster {
        let mut muster = Muster::new(3, 1, 0);
        muster.look([true; 3], S);
        muster.open([true; 3]);
        muster
    }

    fn is_over(muster: &Muster, stands: [Stand; 3], now_ns: u64) -> bool {
        muster.is_over(|bs| stands[bs], now_ns)
    }

    #[test]
    fn a_round_is_over_when_all_have_delivered_and_all_is_settled() {
        let muster = assembled();
        assert!(!is_over(&muster, [Good, Missing, Good], 100 * S));
        assert!(!is_over(&muster, [Good, Pending, Good], 100 * S));
        assert!(is_over(&muster, [Good, Bad, Good], S));
        // Nobody is left who could bring a good one.
        assert!(is_over(&muster, [Bad, Bad, Bad], S));
    }

    #[test]
    fn a_bs_without_twins_is_not_waited_for_and_not_late() {
        let mut muster = assembled();
        muster.open([true, false, true]);
        assert!(is_over(&muster, [Good, Missing, Good], S));
        assert!(!is_over(&muster, [Good, Missing, Missing], S));
        assert_eq!([0, 1, 2].map(|bs| muster.is_excused(bs)), [false, true, false]);
        // A model that it makes all the same, of twins on their way to another, is settled as any.
        assert!(!is_over(&muster, [Good, Pending, Good], S));
        // It has twins again.
        muster.open([true; 3]);
        assert!(!is_over(&muster, [Good, Missing, Good], S));
    }

    #[test]
    fn a_bs_is_not_waited_for_while_its_connection_is_down() {
        let mut muster = assembled();
        let stands = [Good, Missing, Good];
        muster.look([true, false, true], 10 * S);
        // It may be but a connection that is being replaced.
        assert!(!is_over(&muster, stands, 11 * S));
        muster.look([true, false, true], 11 * S);
        assert!(is_over(&muster, stands, 12 * S));
        assert!(!muster.is_excused(1), "it is late");
        // Back within the round, it is waited for again.
        muster.look([true; 3], 13 * S);
        assert!(!is_over(&muster, stands, 14 * S));
        // And not at all in rounds that begin without it.
        muster.look([true, false, true], 20 * S);
        muster.open([true; 3]);
        assert!(is_over(&muster, stands, 30 * S));
        // What it sent before it went is checked by the others.
        assert!(!is_over(&muster, [Good, Pending, Good], 30 * S));
    }

    #[test]
    fn nobody_is_taken_for_dead_before_the_network_has_assembled() {
        let mut muster = Muster::new(3, 1, 0);
        muster.look([true, true, false], 3 * S);
        let stands = [Good, Good, Missing];
        assert!(!is_over(&muster, stands, 7 * S));
        assert!(is_over(&muster, stands, 8 * S));
    }

    #[test]
    fn a_bs_that_has_nothing_to_train_yet_is_not_waited_for() {
        let mut muster = assembled();
        muster.trains(2, false);
        assert!(is_over(&muster, [Good, Good, Missing], S));
        assert!(muster.is_excused(2));
        muster.trains(2, true);
        assert!(!is_over(&muster, [Good, Good, Missing], S));
        muster.trains(2, false);
        muster.open([true; 3]);
        assert!(!muster.is_excused(2));
        // It is another process's word: a BS that does not exist changes nothing.
        muster.trains(7, false);
    }

    #[test]
    fn without_enough_good_models_those_who_may_come_are_waited_for() {
        let mut muster = assembled();
        muster.look([false; 3], 10 * S);
        assert!(!is_over(&muster, [Missing; 3], 100 * S));
        assert!(!is_over(&muster, [Bad, Missing, Bad], 100 * S));
        muster.least = 2;
        assert!(!is_over(&muster, [Good, Missing, Bad], 100 * S));
        assert!(is_over(&muster, [Good, Missing, Good], 100 * S));
        let mut muster = assembled();
        (0..3).for_each(|bs| muster.trains(bs, false));
        assert!(!is_over(&muster, [Missing; 3], S));
    }
}
