//! Labelled images: CIFAR-10 in its official binary layout.
//!
//! A record is one byte of label, below [`CLASSES`], and [`IMAGE_BYTES`] bytes of image in the order channel, row, column
//! (<https://www.cs.toronto.edu/~kriz/cifar.html>, "Binary version"). A file holds any whole number of records; the official ones
//! hold 10,000.

use std::path::{Path, PathBuf};

use dtwn_model::Plan;

/// Classes of an image.
pub const CLASSES: usize = 10;
/// Bytes of an image: 3 colours of 32 × 32 pixels.
pub const IMAGE_BYTES: usize = 3 * 32 * 32;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 1 + IMAGE_BYTES;
/// The files of the training set, in order.
pub const TRAINING_FILES: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
/// The file of the test set.
pub const TEST_FILE: &str = "test_batch.bin";
/// The folder inside the official archive, looked into when the files are not in the named folder itself.
const ARCHIVE_FOLDER: &str = "cifar-10-batches-bin";
/// Largest file read: twenty times an official one.
const FILE_BYTES_MAX: u64 = 20 * 10_000 * RECORD_BYTES as u64;

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file is missing or cannot be read.
    #[error("cannot read {}: {source}; scripts/cifar10 DIR fetches the official files", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not consist of whole records.
    #[error(
        "{} has {bytes} bytes, which are not whole records of {RECORD_BYTES} (a label and an image): it is cut off or of \
         another layout",
        path.display()
    )]
    Misaligned {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A file without records.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A file larger than any of the layout.
    #[error("{} has {bytes} bytes; at most {FILE_BYTES_MAX} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Users hold more than there is.
    #[error("the users hold {wanted} samples together, but {} has {have} for training: lower users.samples", path.display())]
    TooFew {
        /// The folder.
        path: PathBuf,
        /// Over all users.
        wanted: u64,
        /// In the training set.
        have: u64,
    },
    /// A label that no class has.
    #[error("record {record} of {} has label {label}; there are classes 0 to 9", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The record, from 0.
        record: usize,
        /// Its label.
        label: u8,
    },
}

/// Checked records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    bytes: Vec<u8>,
}

impl Records {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / RECORD_BYTES
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Label and image of a record; `None` beyond the last.
    #[must_use]
    pub fn get(&self, record: usize) -> Option<(u8, &[u8])> {
        let start = record.checked_mul(RECORD_BYTES)?;
        let (label, image) = self.bytes.get(start..start + RECORD_BYTES)?.split_first()?;
        Some((*label, image))
    }

    /// The labels, in order.
    pub fn labels(&self) -> impl Iterator<Item = u8> + '_ {
        self.bytes.chunks_exact(RECORD_BYTES).map(|record| record[0])
    }

    /// Adds one record.
    ///
    /// # Panics
    /// Never: an image of another length, or a label that no class has, is left out, and `false` returned.
    pub fn push(&mut self, label: u8, image: &[u8]) -> bool {
        if usize::from(label) >= CLASSES || image.len() != IMAGE_BYTES {
            return false;
        }
        self.bytes.push(label);
        self.bytes.extend_from_slice(image);
        true
    }

    /// All records one after the other.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Records that came from elsewhere; what follows the last whole one is left out. `None` where a label is none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (records, _) = bytes.as_chunks::<RECORD_BYTES>();
        let fine = records.iter().all(|record| usize::from(record[0]) < CLASSES);
        fine.then(|| Self { bytes: records.concat() })
    }

    fn append(&mut self, path: &Path) -> Result<(), DataError> {
        let fail = |source| DataError::Read { path: path.into(), source };
        let bytes = std::fs::metadata(path).map_err(fail)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(DataError::TooLarge { path: path.into(), bytes });
        }
        let read = std::fs::read(path).map_err(fail)?;
        if read.is_empty() {
            return Err(DataError::Empty { path: path.into() });
        }
        if !read.len().is_multiple_of(RECORD_BYTES) {
            return Err(DataError::Misaligned { path: path.into(), bytes: read.len() as u64 });
        }
        let labels = read.chunks_exact(RECORD_BYTES).map(|record| record[0]);
        if let Some((record, label)) = labels.enumerate().find(|(_, label)| usize::from(*label) >= CLASSES) {
            return Err(DataError::Label { path: path.into(), record, label });
        }
        self.bytes.extend_from_slice(&read);
        Ok(())
    }
}

/// A training and a test set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cifar10 {
    /// For training.
    pub training: Records,
    /// Held out.
    pub test: Records,
}

impl Cifar10 {
    /// Reads the files of `dir`, or of the folder that the official archive unpacks to inside it, and checks every record.
    ///
    /// # Errors
    /// [`DataError`], for the first file that is not as it should be.
    pub fn read(dir: &Path) -> Result<Self, DataError> {
        let inner = dir.join(ARCHIVE_FOLDER);
        let dir = if !dir.join(TEST_FILE).exists() && inner.is_dir() { &inner } else { dir };
        let mut set = Self::default();
        for name in TRAINING_FILES {
            set.training.append(&dir.join(name))?;
        }
        set.test.append(&dir.join(TEST_FILE))?;
        Ok(set)
    }

    /// Reads the files of `dir` as [`read`](Self::read), and sees whether they suffice for the users of a network.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn for_network(dir: &Path, plan: &Plan) -> Result<Self, DataError> {
        let set = Self::read(dir)?;
        let wanted: u64 = plan.users().map(|user| u64::from(user.samples)).sum();
        let have = set.training.len() as u64;
        if wanted > have {
            return Err(DataError::TooFew { path: dir.into(), wanted, have });
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(label: u8, grey: u8) -> Vec<u8> {
        let mut record = vec![grey; RECORD_BYTES];
        record[0] = label;
        record
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (i, name) in TRAINING_FILES.iter().enumerate() {
            let bytes: Vec<u8> = (0..=i).flat_map(|j| record(j as u8, i as u8)).collect();
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        std::fs::write(dir.path().join(TEST_FILE), record(9, 7)).unwrap();
        dir
    }

    #[test]
    fn files_of_any_whole_number_of_records_are_read_in_order() {
        let dir = folder();
        let set = Cifar10::read(dir.path()).unwrap();
        assert_eq!((set.training.len(), set.test.len()), (15, 1));
        assert_eq!(set.training.labels().take(4).collect::<Vec<_>>(), [0, 0, 1, 0]);
        let (label, image) = set.training.get(2).unwrap();
        assert_eq!((label, image.len(), image[0]), (1, IMAGE_BYTES, 1));
        assert!(set.training.get(15).is_none() && set.training.get(usize::MAX).is_none());
        assert_eq!(set.test.get(0).unwrap().0, 9);
    }

    #[test]
    fn the_archives_own_folder_is_found() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::rename(folder().keep(), outer.path().join(ARCHIVE_FOLDER)).unwrap();
        assert_eq!(Cifar10::read(outer.path()).unwrap().training.len(), 15);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let complaint = |name: &str, bytes: Option<Vec<u8>>| {
            let dir = folder();
            let path = dir.path().join(name);
            match bytes {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let error = Cifar10::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            error
        };
        assert!(complaint("data_batch_3.bin", None).contains("scripts/cifar10"));
        assert!(complaint(TEST_FILE, None).contains("cannot read"));
        assert!(complaint("data_batch_2.bin", Some(vec![0; RECORD_BYTES + 1])).contains("3074 bytes"));
        assert!(complaint("data_batch_1.bin", Some(Vec::new())).contains("is empty"));
        let bad: Vec<u8> = [record(3, 0), record(10, 0)].concat();
        assert!(complaint("data_batch_5.bin", Some(bad)).contains("record 1"));
    }

    #[test]
    fn only_whole_records_are_added() {
        let mut records = Records::default();
        assert!(records.push(3, &[0; IMAGE_BYTES]));
        assert!(!records.push(10, &[0; IMAGE_BYTES]) && !records.push(3, &[0; 5]));
        assert_eq!(records.len(), 1);
    }
}
