//! A recorded run that can be looked at from any place: where each event lies, and the fold at some of them.
//!
//! ```text
//! events   0 1 2 3 4 5 6 7 8 9 …      16 bytes each: place in the file, emulated time
//! folds    ^       ^       ^          every so many events; at most 32, and twice as far apart when they become more
//! ```
//!
//! A fold is as large as the network, so they are few; the events between two of them are read again.

use std::path::Path;

use dtwn_proto::event::{Event, What};

use super::Target;
use crate::{
    error::Result,
    recording::{EventFile, Events},
    tui::data::Data,
};

/// Folds kept at most.
const FOLDS_MAX: usize = 32;
/// Events between two folds at first.
pub const SPACING: usize = 512;

#[derive(Debug, Clone, Copy)]
struct Mark {
    offset: u64,
    /// Emulated time of the run once this event has happened: it never goes back, as the times of single events may.
    now_ns: i64,
}

/// A recorded run, as far as it was read.
pub struct Tape {
    file: EventFile,
    marks: Vec<Mark>,
    /// Number and position behind the event, of each round.
    rounds: Vec<(u64, usize)>,
    /// The fold of all events read.
    head: Data,
    folds: Vec<(usize, Data)>,
    spacing: usize,
    reader: Option<Events>,
    read_to: u64,
    /// The file's length when its end was reached: while it stays so there is nothing more.
    looked_at: u64,
    ended: bool,
}

impl Tape {
    /// That of a run; nothing is read yet. The fold is kept every `spacing` events at first.
    ///
    /// # Errors
    /// When its event file cannot be read.
    pub fn open(run_dir: &Path, spacing: usize) -> Result<Self> {
        let file = EventFile::open(run_dir)?;
        Ok(Self {
            read_to: file.start(),
            file,
            marks: Vec::new(),
            rounds: Vec::new(),
            head: Data::default(),
            folds: Vec::new(),
            spacing: spacing.max(1),
            reader: None,
            looked_at: 0,
            ended: false,
        })
    }

    /// Reads up to `most` events more; whether there may be more at once.
    ///
    /// # Errors
    /// When the file cannot be read. A torn end is no error: it may yet be written.
    pub fn load(&mut self, most: usize) -> Result<bool> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                let length = self.file.length();
                if length == self.looked_at {
                    return Ok(false);
                }
                self.looked_at = length;
                self.file.read_from(self.read_to)?
            }
        };
        for _ in 0..most {
            let offset = reader.offset();
            let Some(event) = self.file.next(&mut reader)? else { return Ok(false) };
            self.read_to = reader.offset();
            self.take(&event, offset);
        }
        self.reader = Some(reader);
        Ok(true)
    }

    fn take(&mut self, event: &Event, offset: u64) {
        if self.marks.len().is_multiple_of(self.spacing) {
            if self.folds.len() == FOLDS_MAX {
                self.spacing *= 2;
                let spacing = self.spacing;
                self.folds.retain(|(position, _)| position.is_multiple_of(spacing));
            }
            if self.marks.len().is_multiple_of(self.spacing) {
                self.folds.push((self.marks.len(), self.head.clone()));
            }
        }
        self.head.apply(event);
        let now_ns = self.marks.last().map_or(event.at_ns, |mark| mark.now_ns.max(event.at_ns));
        self.marks.push(Mark { offset, now_ns });
        match &event.what {
            What::Round(round) => self.rounds.push((round.round, self.marks.len())),
            What::Ended { .. } => self.ended = true,
            _ => {}
        }
    }

    /// Events read.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether the run's end is among them.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Emulated time when so many events have happened.
    pub fn time_ns(&self, position: usize) -> i64 {
        let mark = self.marks.get(position.saturating_sub(1)).or(self.marks.last());
        mark.map_or(0, |mark| mark.now_ns)
    }

    /// How many events have happened at an emulated time.
    pub fn position_at(&self, now_ns: i64) -> usize {
        self.marks.partition_point(|mark| mark.now_ns <= now_ns)
    }

    /// How many events have happened at a moment.
    ///
    /// # Errors
    /// In one sentence, why there is no such moment.
    pub fn position_of(&self, target: Target) -> std::result::Result<usize, String> {
        match target {
            Target::Time(now_ns) => Ok(self.position_at(now_ns)),
            Target::Event(usize::MAX) => Ok(self.len()),
            Target::Event(number) if number <= self.len() => Ok(number),
            Target::Event(number) => Err(format!("there is no event {number}: {} are recorded", self.len())),
            Target::Round(number) => match self.rounds.iter().find(|(round, _)| *round == number) {
                Some((_, position)) => Ok(*position),
                None => Err(match (self.rounds.first(), self.rounds.last()) {
                    (Some((first, _)), Some((last, _))) => {
                        format!("round {number} is not recorded: rounds {first} to {last} are")
                    }
                    _ => "no round ended in this run".into(),
                }),
            },
        }
    }

    /// Where the next round behind a position ends, or the last one before it.
    pub fn round_beside(&self, position: usize, forward: bool) -> Option<usize> {
        let mut ends = self.rounds.iter().map(|(_, end)| *end);
        match forward {
            true => ends.find(|end| *end > position),
            false => ends.rfind(|end| *end < position),
        }
    }

    /// The fold of the first `position` events.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn at(&self, position: usize) -> Result<Data> {
        if position >= self.len() {
            return Ok(self.head.clone());
        }
        let behind = self.folds.partition_point(|(at, _)| *at <= position);
        let (from, mut data) = match behind.checked_sub(1).and_then(|index| self.folds.get(index)) {
            Some((from, data)) => (*from, data.clone()),
            None => (0, Data::default()),
        };
        let mut events = self.events(from)?;
        for _ in from..position {
            let Some(event) = self.file.next(&mut events)? else { break };
            data.apply(&event);
        }
        Ok(data)
    }

    /// A reader of the events from a position on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events(&self, position: usize) -> Result<Events> {
        self.file.read_from(self.marks.get(position).map_or(self.read_to, |mark| mark.offset))
    }

    /// The next event of such a reader.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next(&self, events: &mut Events) -> Result<Option<Event>> {
        self.file.next(events)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use dtwn_proto::log;
    use proptest::prelude::*;

    use super::*;
    use crate::{session::recorder::Recorder, tui::fixture};

    /// A run of so many events: the fixture's over and over, at times that go on, and now and then go back a little.
    pub fn long_run(count: usize, jitter_ms: &[i64]) -> Vec<Event> {
        let once = fixture::events();
        let events = (0..count).map(|index| {
            let mut event = once[index % once.len()].clone();
            let jitter = jitter_ms.get(index % jitter_ms.len().max(1)).copied().unwrap_or(0);
            event.at_ns = index as i64 * 50_000_000 + jitter * 1_000_000 - 200_000_000;
            event.wall_unix_ns = index as u64 * 100_000_000;
            if let What::Round(round) = &mut event.what {
                round.round = (index / once.len()) as u64 + 1;
            }
            event
        });
        events.collect()
    }

    pub fn write(dir: &Path, events: &[Event]) {
        let mut file = log::header().to_vec();
        events.iter().for_each(|event| log::append(&mut file, event).unwrap());
        std::fs::write(Recorder::path(dir), file).unwrap();
    }

    fn loaded(dir: &Path, spacing: usize) -> Tape {
        let mut tape = Tape::open(dir, spacing).unwrap();
        while tape.load(100).unwrap() {}
        tape
    }

    fn fold(events: &[Event]) -> Data {
        let mut data = Data::default();
        events.iter().for_each(|event| data.apply(event));
        data
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_moment_is_what_folding_up_to_it_gives(
            count in 1_usize..400,
            spacing in 1_usize..40,
            jitter_ms in proptest::collection::vec(-200_i64..200, 1..20),
            places in proptest::collection::vec(0.0..1.0, 1..6),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let events = long_run(count, &jitter_ms);
            write(dir.path(), &events);
            let tape = loaded(dir.path(), spacing);
            prop_assert_eq!(tape.len(), count);
            for place in places {
                let position = (place * (count + 1) as f64) as usize;
                let data = tape.at(position).unwrap();
                prop_assert!(data == fold(&events[..position]), "position {} of {}", position, count);
                // What has happened at the time of a position is at least what lies before it, and nothing later.
                let then = tape.position_at(tape.time_ns(position));
                prop_assert!(then >= position);
                prop_assert!(position == 0 || tape.time_ns(then) == tape.time_ns(position));
            }
        }
    }

    #[test]
    fn folds_stay_few_and_near() {
        let dir = tempfile::tempdir().unwrap();
        let events = long_run(5000, &[0]);
        write(dir.path(), &events);
        let tape = loaded(dir.path(), 4);
        assert!(tape.folds.len() <= FOLDS_MAX, "{}", tape.folds.len());
        assert!(tape.folds.len() > FOLDS_MAX / 2, "{}", tape.folds.len());
        assert!(tape.folds.windows(2).all(|pair| pair[1].0 - pair[0].0 == tape.spacing));
    }

    #[test]
    fn rounds_and_events_are_found_and_what_is_not_there_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let once = fixture::events().len();
        write(dir.path(), &long_run(once * 3, &[0]));
        let tape = loaded(dir.path(), SPACING);
        let second = tape.position_of(Target::Round(2)).unwrap();
        assert_eq!(tape.at(second).unwrap().run.rounds, 2);
        assert_eq!(tape.at(second - 1).unwrap().run.rounds, 1);
        assert_eq!(tape.round_beside(second, false), tape.position_of(Target::Round(1)).ok());
        assert_eq!(tape.round_beside(second, true), tape.position_of(Target::Round(3)).ok());
        assert_eq!(tape.position_of(Target::Event(5)), Ok(5));
        assert!(tape.position_of(Target::Round(9)).unwrap_err().contains("rounds 1 to 3"));
        assert!(tape.position_of(Target::Event(once * 3 + 1)).unwrap_err().contains("are recorded"));
    }

    #[test]
    fn a_file_that_grows_is_followed_and_a_torn_end_waits_for_its_rest() {
        let dir = tempfile::tempdir().unwrap();
        let events = long_run(20, &[0]);
        write(dir.path(), &events[..10]);
        let mut tape = loaded(dir.path(), 4);
        assert_eq!(tape.len(), 10);
        let mut record = Vec::new();
        log::append(&mut record, &events[10]).unwrap();
        let mut file = std::fs::File::options().append(true).open(Recorder::path(dir.path())).unwrap();
        file.write_all(&record[..record.len() / 2]).unwrap();
        assert!(!tape.load(100).unwrap());
        assert_eq!(tape.len(), 10);
        file.write_all(&record[record.len() / 2..]).unwrap();
        while tape.load(100).unwrap() {}
        assert_eq!(tape.len(), 11);
        assert!(tape.at(11).unwrap() == fold(&events[..11]));
    }
}
