//! Delegated proof of stake: who produces blocks in an epoch.
//!
//! At an epoch's boundary every account's coins vote for the candidate that the account delegates to (itself by
//! default). A candidate that led views in the epoch keeps `(turns − missed) / turns` of its votes, so a leader that
//! was absent all epoch long sits the next one out. The first M_p by votes, ties by id, become producers with equal
//! votes.

use std::cmp::Reverse;

use serde::Serialize;

use crate::codec::{Decode, Encode, Reader, put_sequence};
use crate::error::{Error, Result};
use crate::types::{Epoch, MicroCoins, ReplicaId, View};
use crate::vote::MAX_PRODUCERS;

/// Fewest producers that tolerate a fault: 3f + 1 with f = 1.
pub const MIN_PRODUCERS: usize = 4;

/// The frozen producers of one epoch, in order of turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProducerSet {
    /// The epoch.
    pub epoch: Epoch,
    /// Its producers; view v is led by `members[v mod M_p]`.
    pub members: Vec<ReplicaId>,
}

impl ProducerSet {
    /// Number of producers M_p.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True for a set without members, which no epoch has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Faulty producers tolerated, f = ⌊(M_p − 1) / 3⌋.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.members.len().saturating_sub(1) / 3
    }

    /// Votes in a certificate, M_p − f. Two quorums share at least f + 1 producers: 2(M_p − f) − M_p = M_p − 2f ≥ f + 1.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.members.len() - self.faults()
    }

    /// Leader of a view.
    #[must_use]
    pub fn leader(&self, view: View) -> ReplicaId {
        // The remainder is below the number of members, which fits in usize.
        self.members[usize::try_from(view % self.members.len() as u64).unwrap_or(0)]
    }

    /// True when `id` is a producer of this epoch.
    #[must_use]
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.members.contains(&id)
    }

    /// How many of the views `first..=last` `member` leads.
    #[must_use]
    pub fn turns_of(&self, member: ReplicaId, first: View, last: View) -> u64 {
        let Some(position) = self.members.iter().position(|&id| id == member) else { return 0 };
        let (count, position) = (self.members.len() as u64, position as u64);
        // Views up to and including `view`, view 0 counted as a turn of the first member on both sides.
        let up_to = |view: View| if view < position { 0 } else { (view - position) / count + 1 };
        if first > last { 0 } else { up_to(last) - first.checked_sub(1).map_or(0, up_to) }
    }
}

impl Encode for ProducerSet {
    fn encode(&self, out: &mut Vec<u8>) {
        self.epoch.encode(out);
        put_sequence(out, &self.members);
    }
}

impl Decode for ProducerSet {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let epoch = u64::decode(reader)?;
        let members: Vec<ReplicaId> = reader.sequence(MAX_PRODUCERS, "producers")?;
        if members.len() < MIN_PRODUCERS {
            let detail = format!("{} producers, at least {MIN_PRODUCERS}", members.len());
            return Err(Error::Malformed { what: "producer set", detail });
        }
        Ok(Self { epoch, members })
    }
}

/// What the election looks at in one account.
#[derive(Debug, Clone, Copy)]
pub struct Ballot {
    /// Coins held.
    pub coins: MicroCoins,
    /// Candidate they vote for.
    pub delegate: ReplicaId,
    /// Views that the account led in the epoch that ends.
    pub turns: u64,
    /// How many of them ended without a finalized block.
    pub missed: u64,
}

/// Elects `count` producers for `epoch`; `ballots[i]` is the account of `ReplicaId(i)`.
#[must_use]
pub fn elect(epoch: Epoch, ballots: &[Ballot], count: usize) -> ProducerSet {
    let mut votes = vec![0u128; ballots.len()];
    for ballot in ballots {
        if let Some(sum) = votes.get_mut(ballot.delegate.index()) {
            *sum += u128::from(ballot.coins);
        }
    }
    let mut ranking: Vec<(Reverse<u128>, ReplicaId)> = (0u16..)
        .zip(ballots.iter().zip(votes))
        .map(|(id, (ballot, votes))| {
            let kept = match u128::from(ballot.turns) {
                0 => votes,
                turns => votes * (turns - u128::from(ballot.missed.min(ballot.turns))) / turns,
            };
            (Reverse(kept), ReplicaId(id))
        })
        .collect();
    ranking.sort_unstable();
    ranking.truncate(count);
    ProducerSet { epoch, members: ranking.into_iter().map(|(_, id)| id).collect() }
}

/// Initial coins by Eq. 6, S_i = S_ini · (Σ_j D_DT_j) / (Σ_k D_k), in whole micro-coins that sum to `total` exactly.
///
/// `samples[i]` is the number of samples in the twins associated with base station i. What the division leaves over
/// goes, one micro-coin each, to the largest remainders; ties go by id.
///
/// # Errors
/// [`Error::Config`] when there is no base station or no data at all.
pub fn initial_coins(samples: &[u64], total: MicroCoins) -> Result<Vec<MicroCoins>> {
    let data: u128 = samples.iter().map(|&count| u128::from(count)).sum();
    if data == 0 {
        return Err(Error::Config("initial coins need a base station with data".into()));
    }
    let product = |count: u64| u128::from(count) * u128::from(total);
    let mut coins: Vec<MicroCoins> =
        samples.iter().map(|&count| u64::try_from(product(count) / data).unwrap_or(total)).collect();
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|&index| (Reverse(product(samples[index]) % data), index));
    let left_over = total - coins.iter().sum::<u64>();
    for index in order.into_iter().take(usize::try_from(left_over).unwrap_or(0)) {
        coins[index] += 1;
    }
    Ok(coins)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ballot(coins: u64, delegate: u16) -> Ballot {
        Ballot { coins, delegate: ReplicaId(delegate), turns: 0, missed: 0 }
    }

    fn ids(set: &ProducerSet) -> Vec<u16> {
        set.members.iter().map(|id| id.0).collect()
    }

    #[test]
    fn quorum_arithmetic_of_the_design() {
        for (producers, faults, quorum) in [(4, 1, 3), (5, 1, 4), (6, 1, 5), (7, 2, 5), (10, 3, 7)] {
            let set = ProducerSet { epoch: 0, members: (0..producers).map(ReplicaId).collect() };
            assert_eq!((set.faults(), set.quorum()), (faults, quorum));
            assert!(2 * set.quorum() - set.len() > set.faults());
        }
    }

    #[test]
    fn coins_decide_and_ties_go_by_id() {
        let ballots = [ballot(5, 0), ballot(9, 1), ballot(5, 2), ballot(1, 3), ballot(5, 4)];
        assert_eq!(ids(&elect(1, &ballots, 4)), [1, 0, 2, 4]);
    }

    #[test]
    fn delegated_coins_count_for_the_candidate() {
        let ballots = [ballot(5, 3), ballot(9, 1), ballot(6, 2), ballot(1, 3), ballot(7, 4)];
        assert_eq!(ids(&elect(1, &ballots, 4)), [1, 4, 2, 3]);
    }

    #[test]
    fn misses_cost_votes_in_proportion() {
        let mut ballots = [ballot(100, 0), ballot(60, 1), ballot(50, 2), ballot(40, 3), ballot(30, 4)];
        ballots[0].turns = 10;
        ballots[0].missed = 5;
        assert_eq!(ids(&elect(1, &ballots, 4)), [1, 0, 2, 3]);
        ballots[0].missed = 10;
        assert_eq!(ids(&elect(1, &ballots, 4)), [1, 2, 3, 4]);
    }

    #[test]
    fn initial_coins_by_hand() {
        // 10 · 1/3, 10 · 1/3, 10 · 1/3: three each, the tenth goes to the lowest id.
        assert_eq!(initial_coins(&[1, 1, 1], 10), Ok(vec![4, 3, 3]));
        // 100 · 1/6 = 16.67, 100 · 2/6 = 33.33, 100 · 3/6 = 50.
        assert_eq!(initial_coins(&[1, 2, 3], 100), Ok(vec![17, 33, 50]));
        assert_eq!(initial_coins(&[0, 7], 3), Ok(vec![0, 3]));
        assert!(initial_coins(&[0, 0], 3).is_err());
        assert!(initial_coins(&[], 3).is_err());
    }

    proptest! {
        #[test]
        fn initial_coins_are_exact_and_within_one_of_the_share(
            samples in proptest::collection::vec(0u64..1_000_000, 1..40), total: u64
        ) {
            prop_assume!(samples.iter().any(|&count| count > 0));
            let coins = initial_coins(&samples, total).unwrap();
            prop_assert_eq!(coins.iter().map(|&c| u128::from(c)).sum::<u128>(), u128::from(total));
            let data: u128 = samples.iter().map(|&count| u128::from(count)).sum();
            for (count, coins) in samples.iter().zip(coins) {
                let floor = u128::from(*count) * u128::from(total) / data;
                prop_assert!(u128::from(coins) == floor || u128::from(coins) == floor + 1);
            }
        }

        #[test]
        fn turns_are_counted_as_one_by_one(count in 4u16..9, first in 1u64..40, length in 0u64..60) {
            let set = ProducerSet { epoch: 0, members: (0..count).rev().map(ReplicaId).collect() };
            for id in (0..count).map(ReplicaId) {
                let expected = (first..first + length).filter(|&view| set.leader(view) == id).count() as u64;
                prop_assert_eq!(set.turns_of(id, first, (first + length).saturating_sub(1)), expected);
            }
        }
    }
}
