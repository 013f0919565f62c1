//! A count of appends beside the database.
//!
//! After a crash redb falls back to the commit before the last one when the last one's pages do not check out.
//! That is right for a commit that was under way, and wrong for one that was acknowledged and then damaged on disk:
//! the votes in it were sent. The count, written after each commit and before it is acknowledged, tells the two
//! apart. It is not synced itself: it survives the death of the process, and after a power failure it may lag behind
//! the database, never run ahead.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::tables::fault;
use crate::codec::{Decode as _, Encode as _};
use crate::error::{Error, Result};
use crate::record::{seal, unseal};

/// The path with another extension added.
pub(super) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

pub(super) struct Guard {
    file: File,
    path: PathBuf,
}

impl Guard {
    pub(super) fn path_of(store: &Path) -> PathBuf {
        beside(store, "count")
    }

    /// Opens the guard of a store, or makes one beside a new store.
    pub(super) fn open(store: &Path, new: bool) -> Result<Self> {
        let path = Self::path_of(store);
        if !new && !path.exists() {
            let detail = format!("{} is missing", path.display());
            return Err(Error::Damaged { path: store.display().to_string(), detail });
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let guard = Self { file: file.map_err(fault(&path, "open"))?, path };
        if new {
            guard.write(0)?;
        }
        Ok(guard)
    }

    pub(super) fn write(&self, count: u64) -> Result<()> {
        self.file.write_all_at(&seal(&count.to_bytes()), 0).map_err(fault(&self.path, "write"))
    }

    /// The count, unless the file is damaged.
    pub(super) fn read(&self) -> Result<u64> {
        let mut sealed = [0; 16];
        let count = self
            .file
            .read_exact_at(&mut sealed, 0)
            .ok()
            .and_then(|()| u64::from_bytes(unseal(&sealed)?).ok());
        count.ok_or_else(|| Error::Damaged {
            path: self.path.display().to_string(),
            detail: "its checksum does not match".into(),
        })
    }
}
