//! What the agents tell each other over the chain: states and actions as records, and the joint decision as a fold over them.
//!
//! Each BS records its part of the state, and its part of the action, as the content of an action transaction. Everybody who
//! has the same finalized records holds the same [`Ledger`], and therefore the same joint decision, without a further message.
//! A BS that is down keeps the last action it recorded.
//!
//! A record is the version, its kind, then fixed-width little-endian numbers: everything arrives from others and is checked.

use super::{Decision, Problem, Relaxed, State};

/// The version of the records.
const VERSION: u8 = 1;
const STATE: u8 = 1;
const ACTION: u8 = 2;
/// No network has more subchannels (`radio.subchannels`).
const SUBCHANNELS_MAX: usize = 1024;
/// No receiver reaches more, bit/s/Hz.
const SE_MAX: f32 = 100.0;

/// What a BS sees of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct StateRecord {
    /// Coherence slot in which it was so.
    pub slot: u64,
    /// f_i, Hz.
    pub cpu_hz: f64,
    /// R_i^D, bit/s.
    pub downlink_bps: f64,
    /// Spectral efficiency of its uplink on each subchannel, bit/s/Hz.
    pub se: Vec<f32>,
}

/// What a BS does: its row of the joint action.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionRecord {
    /// K_i/N.
    pub share: f32,
    /// b_i.
    pub b: f32,
    /// τ_{i,c} on each subchannel.
    pub tau: Vec<f32>,
}

/// Either of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// What it sees.
    State(StateRecord),
    /// What it does.
    Action(ActionRecord),
}

/// Why bytes are no record of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not written by this version.
    #[error("a record of version {found}, not {VERSION}")]
    Version {
        /// What it says.
        found: u8,
    },
    /// Neither a state nor an action.
    #[error("a record of unknown kind {found}")]
    Kind {
        /// What it says.
        found: u8,
    },
    /// Too short, too long, or for another number of subchannels.
    #[error("{found} bytes, where a record of its kind takes {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A number that cannot be.
    #[error("{what} is out of range")]
    Range {
        /// Which.
        what: &'static str,
    },
    /// A BS that the network does not have.
    #[error("there is no BS {station}")]
    Station {
        /// Its index.
        station: usize,
    },
}

impl Record {
    /// The record as the content of an action transaction: 26 + 4·C bytes at most.
    pub fn encode(&self) -> Vec<u8> {
        let (mut out, row) = match self {
            Self::State(state) => {
                let mut out = vec![VERSION, STATE];
                out.extend(state.slot.to_le_bytes());
                out.extend(state.cpu_hz.to_le_bytes());
                out.extend(state.downlink_bps.to_le_bytes());
                (out, &state.se)
            }
            Self::Action(action) => {
                let mut out = vec![VERSION, ACTION];
                out.extend(action.share.to_le_bytes());
                out.extend(action.b.to_le_bytes());
                (out, &action.tau)
            }
        };
        out.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        out
    }

    /// Reads a record of a network with C = `subchannels`.
    ///
    /// # Errors
    /// When it is none, or holds a number that cannot be.
    pub fn decode(bytes: &[u8], subchannels: usize) -> Result<Self, RecordError> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(RecordError::Version { found: version });
        }
        let [kind] = take(&mut rest)?;
        let head = match kind {
            STATE => 24,
            ACTION => 8,
            found => return Err(RecordError::Kind { found }),
        };
        let expected = 2 + head + 4 * subchannels;
        if bytes.len() != expected || subchannels > SUBCHANNELS_MAX {
            return Err(RecordError::Length { found: bytes.len(), expected });
        }
        if kind == STATE {
            let slot = u64::from_le_bytes(take(&mut rest)?);
            let cpu_hz = in_range(f64::from_le_bytes(take(&mut rest)?), f64::MIN_POSITIVE, 1e15, "f")?;
            let downlink_bps = in_range(f64::from_le_bytes(take(&mut rest)?), 0.0, 1e15, "R^D")?;
            let se = row(rest, SE_MAX, "a spectral efficiency")?;
            return Ok(Self::State(StateRecord { slot, cpu_hz, downlink_bps, se }));
        }
        let share = f32::from_le_bytes(take(&mut rest)?);
        let b = f32::from_le_bytes(take(&mut rest)?);
        let share = in_range(f64::from(share), 0.0, 1.0, "K/N").map(|_| share)?;
        let b = in_range(f64::from(b), 0.0, 1.0, "b").map(|_| b)?;
        Ok(Self::Action(ActionRecord { share, b, tau: row(rest, 1.0, "a time share")? }))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (head, tail) =
        rest.split_first_chunk().ok_or(RecordError::Length { found: rest.len(), expected: N })?;
    *rest = tail;
    Ok(*head)
}

fn in_range(x: f64, least: f64, most: f64, what: &'static str) -> Result<f64, RecordError> {
    // NaN is in no range.
    (least..=most).contains(&x).then_some(x).ok_or(RecordError::Range { what })
}

fn row(bytes: &[u8], most: f32, what: &'static str) -> Result<Vec<f32>, RecordError> {
    let numbers = bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
    numbers.map(|x| (0.0..=most).contains(&x).then_some(x).ok_or(RecordError::Range { what })).collect()
}

/// The latest record of each kind and BS.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    subchannels: usize,
    /// With the round each was recorded for.
    states: Vec<Option<(u64, StateRecord)>>,
    /// With the round each was for.
    actions: Vec<Option<(u64, ActionRecord)>>,
}

impl Ledger {
    /// Nothing recorded yet.
    pub fn new(stations: usize, subchannels: usize) -> Self {
        Self { subchannels, states: vec![None; stations], actions: vec![None; stations] }
    }

    /// Takes the content of a finalized action transaction, signed by BS `station` for `round`. What is older than what the
    /// ledger has is left alone, so that a record that comes twice changes nothing.
    ///
    /// # Errors
    /// When the content is no record of this network; the ledger is as it was.
    pub fn take(&mut self, station: usize, round: u64, content: &[u8]) -> Result<(), RecordError> {
        let (Some(state), Some(action)) = (self.states.get_mut(station), self.actions.get_mut(station))
        else {
            return Err(RecordError::Station { station });
        };
        match Record::decode(content, self.subchannels)? {
            Record::State(new) if state.as_ref().is_none_or(|old| old.0 < round) => {
                *state = Some((round, new));
            }
            Record::Action(new) if action.as_ref().is_none_or(|old| old.0 < round) => {
                *action = Some((round, new));
            }
            _ => {}
        }
        Ok(())
    }

    /// The system state as recorded, with `k` twins in force; `None` until every BS has recorded its part.
    pub fn state(&self, k: &[u32]) -> Option<State> {
        let records: Vec<&StateRecord> =
            self.states.iter().map(|of| of.as_ref().map(|(_, record)| record)).collect::<Option<_>>()?;
        Some(State {
            cpu_hz: records.iter().map(|r| r.cpu_hz).collect(),
            se: records.iter().flat_map(|r| r.se.iter().map(|x| f64::from(*x))).collect(),
            downlink_bps: records.iter().map(|r| r.downlink_bps).collect(),
            k: k.to_vec(),
        })
    }

    /// The oldest slot that [`state`](Self::state) rests on.
    pub fn observed_slot(&self) -> Option<u64> {
        self.states.iter().map(|state| state.as_ref().map(|(_, r)| r.slot)).min().flatten()
    }

    /// The round of the latest state and action of a BS.
    pub fn rounds_of(&self, station: usize) -> (Option<u64>, Option<u64>) {
        let state = self.states.get(station).and_then(|of| of.as_ref().map(|(round, _)| *round));
        let action = self.actions.get(station).and_then(|of| of.as_ref().map(|(round, _)| *round));
        (state, action)
    }

    /// The joint decision for a round: the latest action of each BS, projected. A BS that never acted has an equal part.
    ///
    /// Also tells which BSs had no action for this very round, by index.
    pub fn joint(&self, problem: &Problem, round: u64) -> (Decision, Vec<usize>) {
        let (m, c) = (problem.stations, problem.subchannels);
        let mut relaxed = Relaxed { share: vec![], b: vec![], tau: vec![] };
        let mut kept = vec![];
        for (i, action) in self.actions.iter().enumerate() {
            if action.as_ref().is_none_or(|(of, _)| *of != round) {
                kept.push(i);
            }
            match action {
                Some((_, action)) => {
                    relaxed.share.push(f64::from(action.share));
                    relaxed.b.push(f64::from(action.b));
                    relaxed.tau.extend(action.tau.iter().map(|x| f64::from(*x)));
                }
                None => {
                    relaxed.share.push(1.0 / m as f64);
                    relaxed.b.push(problem.budget / problem.samples_total);
                    relaxed.tau.extend(vec![1.0 / m as f64; c]);
                }
            }
        }
        (problem.round(&relaxed), kept)
    }
}

impl Decision {
    /// A BS's row of it, as it records it.
    pub fn action_of(&self, problem: &Problem, station: usize) -> ActionRecord {
        let c = problem.subchannels;
        let clamped = |x: f64| x.clamp(0.0, 1.0) as f32;
        ActionRecord {
            share: clamped(f64::from(self.k[station]) / f64::from(problem.twins)),
            b: clamped(self.b[station]),
            tau: self.tau[station * c..][..c].iter().map(|x| clamped(*x)).collect(),
        }
    }

    /// τ as the air takes it.
    ///
    /// # Errors
    /// When the shares violate (18c), which those of [`Problem::round`] never do.
    pub fn time_shares(&self) -> Result<crate::radio::TimeShares, crate::radio::TimeSharesError> {
        let columns = (self.tau.len() / self.k.len().max(1)).max(1);
        crate::radio::TimeShares::new(&self.tau.chunks(columns).map(<[f64]>::to_vec).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan_of;
    use super::super::{Greedy, Policy};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_decision_survives_the_chain_and_reaches_the_air() {
        let plan = plan_of(4, "");
        let problem = Problem::new(&plan).unwrap();
        let truth = problem.state_at(&plan, 12);
        let mut ledger = Ledger::new(4, problem.subchannels);
        assert_eq!(ledger.state(&truth.k), None);
        for i in 0..4 {
            let se = truth.se[i * 10..][..10].iter().map(|x| *x as f32).collect();
            let (cpu_hz, downlink_bps) = (truth.cpu_hz[i], truth.downlink_bps[i]);
            let record = Record::State(StateRecord { slot: 12 + i as u64, cpu_hz, downlink_bps, se });
            assert_eq!(Record::decode(&record.encode(), 10), Ok(record.clone()));
            ledger.take(i, 3, &record.encode()).unwrap();
        }
        let seen = ledger.state(&truth.k).unwrap();
        assert_eq!((&seen.cpu_hz, ledger.observed_slot()), (&truth.cpu_hz, Some(12)));
        let wanted = Greedy.decide(&problem, &seen).unwrap();
        // BS 3 is down: it never acts, and later only keeps what it did.
        for i in 0..3 {
            let record = Record::Action(wanted.action_of(&problem, i));
            ledger.take(i, 5, &record.encode()).unwrap();
        }
        let (first, kept) = ledger.joint(&problem, 5);
        assert_eq!((kept, problem.check(&first)), (vec![3], Ok(())));
        ledger.take(3, 5, &Record::Action(wanted.action_of(&problem, 3)).encode()).unwrap();
        let (joint, kept) = ledger.joint(&problem, 5);
        assert_eq!((&joint.k, kept), (&wanted.k, vec![]));
        assert_eq!(ledger.joint(&problem, 6), (joint.clone(), vec![0, 1, 2, 3]));
        assert!(joint.tau.iter().zip(&wanted.tau).all(|(a, b)| (a - b).abs() < 1e-6));

        // In the air: the uplink of each BS has the rate that Eq. 7 gives it.
        let dealt = super::super::assign(&plan.access_rates_bps(), &joint.k).unwrap();
        let rates = plan.rates_at(12, &joint.time_shares().unwrap(), &dealt);
        for (i, expected) in problem.uplink_bps(&truth, &joint.tau).into_iter().enumerate() {
            let id = plan.stations[1 + i].attachment.unwrap().up;
            let found = rates.iter().find(|(link, _)| *link == id).unwrap().1.get();
            assert!((found - expected).abs() <= 1e-6 * expected.max(1.0), "{found} {expected}");
        }
    }

    #[test]
    fn older_and_repeated_records_change_nothing() {
        let mut ledger = Ledger::new(2, 1);
        let action = |share| Record::Action(ActionRecord { share, b: 0.2, tau: vec![0.5] }).encode();
        ledger.take(0, 4, &action(0.9)).unwrap();
        let before = ledger.clone();
        ledger.take(0, 3, &action(0.1)).unwrap();
        ledger.take(0, 4, &action(0.2)).unwrap();
        assert_eq!(ledger, before);
        assert_eq!(ledger.take(2, 9, &action(0.2)), Err(RecordError::Station { station: 2 }));
        ledger.take(0, 5, &action(0.2)).unwrap();
        assert_ne!(ledger, before);
    }

    #[test]
    fn hostile_numbers_are_refused() {
        let of = |share: f32, b: f32, tau: f32| {
            Record::decode(&Record::Action(ActionRecord { share, b, tau: vec![tau] }).encode(), 1)
        };
        assert!(of(0.5, 0.5, 1.0).is_ok());
        for wrong in
            [of(f32::NAN, 0.5, 0.5), of(0.5, 1.5, 0.5), of(0.5, 0.5, -0.1), of(0.5, 0.5, f32::INFINITY)]
        {
            assert!(matches!(wrong, Err(RecordError::Range { .. })));
        }
        let good = Record::Action(ActionRecord { share: 0.5, b: 0.5, tau: vec![0.5] }).encode();
        assert_eq!(Record::decode(&good, 2), Err(RecordError::Length { found: 14, expected: 18 }));
        assert_eq!(Record::decode(&[2, 1], 1), Err(RecordError::Version { found: 2 }));
        assert_eq!(Record::decode(&[1, 9], 1), Err(RecordError::Kind { found: 9 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80), c in 0usize..12) {
            let mut ledger = Ledger::new(3, c);
            if let Ok(record) = Record::decode(&bytes, c) {
                prop_assert_eq!(record.encode(), bytes.clone());
                prop_assert!(ledger.take(1, 1, &bytes).is_ok());
            }
        }
    }
}
