//! The event file: a header, then records that each carry their length and CRC, so that a torn tail is found and dropped.
//!
//! ```text
//! "dtwn-events" schema:u8            12 bytes
//! length:u32le crc32:u32le body      one record; the CRC (IEEE 802.3) covers the body
//! ```

use std::io::{self, BufRead, Write};

use serde::{Serialize, de::DeserializeOwned};

use crate::{EVENT_SCHEMA, frame::BODY_BYTES_MAX};

const MAGIC: &[u8; 11] = b"dtwn-events";
/// Bytes of the file's header.
pub const HEADER_BYTES: usize = MAGIC.len() + 1;

/// Why an event file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file itself failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file does not start with an event file's header.
    #[error("this is not an event file of dtwn")]
    NotALog,
    /// The file was written in another schema.
    #[error("this event file has schema {found}; this program reads schema {EVENT_SCHEMA}")]
    OtherSchema {
        /// The schema named in the file.
        found: u32,
    },
    /// The event cannot be encoded.
    #[error("an event that does not encode: {0}")]
    Unencodable(#[from] rmp_serde::encode::Error),
}

/// The header that an event file starts with.
pub fn header() -> [u8; HEADER_BYTES] {
    let mut bytes = [EVENT_SCHEMA as u8; HEADER_BYTES];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    bytes
}

/// Appends one record to `out`.
///
/// # Errors
/// [`LogError::Unencodable`], [`LogError::Io`].
pub fn append(out: &mut impl Write, event: &impl Serialize) -> Result<(), LogError> {
    let mut record = vec![0; 8];
    rmp_serde::encode::write_named(&mut record, event)?;
    let length = record.len() - 8;
    let crc = crc32fast::hash(&record[8..]);
    record[..4].copy_from_slice(&(length as u32).to_le_bytes());
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    // One write a record: a reader that follows the file never sees half of one for long.
    out.write_all(&record)?;
    Ok(())
}

/// How far reading came, and why it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The file ends with a whole record.
    Clean,
    /// The last record is incomplete or damaged, from this byte on: the writer was cut off, or still writes.
    Torn {
        /// Offset in bytes of the first record that could not be read.
        at: u64,
    },
}

/// Reads an event file record by record.
pub struct Reader<R> {
    input: R,
    offset: u64,
    tail: Option<Tail>,
}

impl<R: BufRead> Reader<R> {
    /// Checks the header.
    ///
    /// # Errors
    /// [`LogError::NotALog`], [`LogError::OtherSchema`], [`LogError::Io`].
    pub fn new(mut input: R) -> Result<Self, LogError> {
        let mut found = [0; HEADER_BYTES];
        input.read_exact(&mut found).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => LogError::NotALog,
            _ => LogError::Io(error),
        })?;
        if &found[..MAGIC.len()] != MAGIC {
            return Err(LogError::NotALog);
        }
        let schema = u32::from(found[MAGIC.len()]);
        if schema != EVENT_SCHEMA {
            return Err(LogError::OtherSchema { found: schema });
        }
        Ok(Self { input, offset: HEADER_BYTES as u64, tail: None })
    }

    /// Goes on in the middle of a file whose header was checked before: `input` stands at `offset`, where a record begins.
    pub fn resume(input: R, offset: u64) -> Self {
        Self { input, offset, tail: None }
    }

    /// The next event; `None` at the end, where [`Reader::tail`] says what the end looked like.
    ///
    /// # Errors
    /// [`LogError::Io`] only: damage is no error but a [`Tail::Torn`].
    pub fn next_event<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LogError> {
        if self.tail.is_some() {
            return Ok(None);
        }
        match self.next_body()? {
            Some(body) => match rmp_serde::from_slice(&body) {
                Ok(event) => {
                    self.offset += 8 + body.len() as u64;
                    Ok(Some(event))
                }
                Err(_) => Ok(self.stop(Tail::Torn { at: self.offset })),
            },
            None => Ok(None),
        }
    }

    /// What the end of the file looked like, once it was reached.
    pub fn tail(&self) -> Option<Tail> {
        self.tail
    }

    /// Bytes of the file read so far, in whole records: where a reader that follows the file goes on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn next_body(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let mut prefix = [0; 8];
        match read_up_to(&mut self.input, &mut prefix)? {
            0 => return Ok(self.stop(Tail::Clean)),
            8 => {}
            _ => return Ok(self.stop(Tail::Torn { at: self.offset })),
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = prefix;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let crc = u32::from_le_bytes([c0, c1, c2, c3]);
        if length > BODY_BYTES_MAX {
            return Ok(self.stop(Tail::Torn { at: self.offset }));
        }
        let mut body = vec![0; length];
        if read_up_to(&mut self.input, &mut body)? < length || crc32fast::hash(&body) != crc {
            return Ok(self.stop(Tail::Torn { at: self.offset }));
        }
        Ok(Some(body))
    }

    fn stop<T>(&mut self, tail: Tail) -> Option<T> {
        self.tail = Some(tail);
        None
    }
}

/// Fills as much of `buffer` as the input has.
fn read_up_to(input: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file_of(events: &[String]) -> Vec<u8> {
        let mut file = header().to_vec();
        for event in events {
            append(&mut file, event).unwrap();
        }
        file
    }

    fn read_all(file: &[u8]) -> (Vec<String>, Tail) {
        let mut reader = Reader::new(file).unwrap();
        let mut events = Vec::new();
        while let Some(event) = reader.next_event().unwrap() {
            events.push(event);
        }
        (events, reader.tail().unwrap())
    }

    proptest! {
        #[test]
        fn a_file_cut_anywhere_yields_a_prefix_of_its_events(
            events in proptest::collection::vec(".{0,40}", 0..8), cut in 0.0..1.0
        ) {
            let file = file_of(&events);
            let keep = HEADER_BYTES + ((file.len() - HEADER_BYTES) as f64 * cut) as usize;
            let (read, _) = read_all(&file[..keep]);
            prop_assert_eq!(&read[..], &events[..read.len()]);
            let whole = read_all(&file);
            prop_assert_eq!(whole, (events, Tail::Clean));
        }

        #[test]
        fn reading_goes_on_where_it_stopped(events in proptest::collection::vec(".{0,40}", 1..8), first in 0_usize..8) {
            let file = file_of(&events);
            let mut reader = Reader::new(file.as_slice()).unwrap();
            let mut read: Vec<String> = Vec::new();
            while read.len() < first.min(events.len()) {
                read.extend(reader.next_event().unwrap());
            }
            let offset = reader.offset();
            let mut reader = Reader::resume(&file[offset as usize..], offset);
            while let Some(event) = reader.next_event().unwrap() {
                read.push(event);
            }
            prop_assert_eq!(read, events);
            prop_assert_eq!(reader.offset(), file.len() as u64);
        }

        #[test]
        fn a_damaged_byte_never_yields_another_event(
            events in proptest::collection::vec(".{1,40}", 1..8), place in 0.0..1.0, flip in 1_u8..=255
        ) {
            let mut file = file_of(&events);
            let at = HEADER_BYTES + ((file.len() - HEADER_BYTES) as f64 * place) as usize;
            file[at] ^= flip;
            let (read, tail) = read_all(&file);
            prop_assert!(read.len() < events.len());
            prop_assert_eq!(&read[..], &events[..read.len()]);
            let torn = matches!(tail, Tail::Torn { .. });
            prop_assert!(torn);
        }
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(Reader::new([].as_slice()), Err(LogError::NotALog)));
        assert!(matches!(Reader::new(b"hello, world".as_slice()), Err(LogError::NotALog)));
        let mut other = header();
        other[HEADER_BYTES - 1] = 9;
        assert!(matches!(Reader::new(other.as_slice()), Err(LogError::OtherSchema { found: 9 })));
    }
}
