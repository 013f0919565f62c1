//! Checkpoints: everything that the rest of a training depends on, so that a killed one goes on as if nothing had been.
//!
//! One line of JSON, then the numbers as little-endian f32 in the order that the line's `lengths` has. Written beside its
//! place, synced and renamed: a kill leaves the old one or the new one.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// What a checkpoint says besides its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Hash of all that training depends on: the problem, `[maddpg]`, the seed.
    pub key: String,
    /// Episodes done.
    pub episode: u32,
    /// The episode of the best policy so far …
    pub best_episode: u32,
    /// … and its ratio to the optimum on the validation instances, as the bits of an f64: reading a decimal number may be off in the
    /// last place. None before the first validation.
    pub best_ratio_bits: Option<u64>,
    /// Steps of the two optimisers.
    pub steps: [i32; 2],
    /// Where the replay memory goes on.
    pub replay_next: usize,
    /// Updates left out because a gradient was not finite.
    pub skipped: u64,
    /// Seconds that training has taken.
    pub wall_s: f64,
    /// How many numbers each section has.
    pub lengths: Vec<usize>,
    /// BLAKE3 of the numbers' bytes.
    pub digest: String,
}

/// Writes a checkpoint; `header`'s `lengths` and `digest` are filled in.
///
/// # Errors
/// [`Error::File`].
pub fn write(path: &Path, mut header: Header, sections: &[&[f32]]) -> Result<(), Error> {
    let bytes: Vec<u8> = sections.iter().flat_map(|s| s.iter().flat_map(|x| x.to_le_bytes())).collect();
    header.lengths = sections.iter().map(|section| section.len()).collect();
    header.digest = blake3::hash(&bytes).to_hex().to_string();
    let line = serde_json::to_string(&header).map_err(|error| Error::file("write", path)(error.into()))?;
    replace(path, &[line.as_bytes(), b"\n", &bytes])
}

/// Writes a file in one go: whoever reads it sees the old text or the new, even after a crash.
///
/// # Errors
/// [`Error::File`].
pub fn replace(path: &Path, parts: &[&[u8]]) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(Error::file("write", path))
}

/// What a checkpoint holds: its header, and the sections of numbers that follow.
pub type Checkpoint = (Header, Vec<Vec<f32>>);

/// Reads a checkpoint; none where there is no file.
///
/// # Errors
/// [`Error::File`] when it cannot be read, [`Error::Checkpoint`] when it is damaged.
pub fn read(path: &Path) -> Result<Option<Checkpoint>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let damaged = |reason: &str| Error::Checkpoint { path: path.into(), reason: reason.into() };
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("it has no first line"))?;
    let header: Header =
        serde_json::from_slice(&bytes[..end]).map_err(|error| damaged(&error.to_string()))?;
    let mut rest = &bytes[end + 1..];
    if blake3::hash(rest).to_hex().as_str() != header.digest {
        return Err(damaged("its numbers do not have the hash that it says"));
    }
    let mut sections = Vec::new();
    for length in &header.lengths {
        let size = length.checked_mul(4).filter(|size| *size <= rest.len());
        let (section, after) = rest.split_at(size.ok_or_else(|| damaged("it is too short"))?);
        sections.push(section.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect());
        rest = after;
    }
    Ok(Some((header, sections)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            key: "k".into(),
            episode: 3,
            best_episode: 2,
            best_ratio_bits: Some(1.25_f64.to_bits()),
            steps: [4, 5],
            replay_next: 6,
            skipped: 0,
            wall_s: 1.5,
            lengths: Vec::new(),
            digest: String::new(),
        }
    }

    #[test]
    fn it_comes_back_bit_for_bit_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.checkpoint");
        assert!(read(&path).unwrap().is_none());
        let numbers = [vec![0.1_f32, -3.5e-12, f32::MAX], Vec::new(), vec![7.0]];
        write(&path, header(), &numbers.each_ref().map(Vec::as_slice)).unwrap();
        let (read_header, read_numbers) = read(&path).unwrap().unwrap();
        assert_eq!((read_header.episode, read_header.best_ratio_bits), (3, Some(1.25_f64.to_bits())));
        assert_eq!(read_numbers, numbers);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(read(&path), Err(Error::Checkpoint { .. })));
        fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
        assert!(matches!(read(&path), Err(Error::Checkpoint { .. })));
    }
}
