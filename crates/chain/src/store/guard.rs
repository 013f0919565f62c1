//! A count of appends beside the database.
//!
//! After a crash redb falls back to the commit before the last one when the last one's pages do not check out.
//! That is right for a commit that was under way, and wrong for one that was acknowledged and then damaged on disk:
//! the votes in it were sent. The count, written after each commit and before it is acknowledged, tells the two
//! apart. It is not synced itself: it survives the death of the process, and after a power failure it may lag behind
//! the database, never run ahead.
//!
//! Whoever writes to the store holds a lock on this file, so that tools know whether they look at a store in use.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tables::fault;
use crate::codec::{Decode as _, Encode as _};
use crate::error::{Error, Result};
use crate::record::{seal, unseal};

/// How often an owner tries to get the lock from a tool that is looking, and the pause between two tries.
const LOCK_TRIES: u32 = 2000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

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
            return Err(missing(store, &path));
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let guard = Self { file: file.map_err(fault(&path, "open"))?, path };
        guard.lock(store, LOCK_TRIES)?;
        if new {
            guard.write(0)?;
        }
        Ok(guard)
    }

    /// Makes the calling process the owner of a store, whatever its count says, unless somebody has it open. `None` when
    /// there is no count, without which nobody can own it.
    pub(super) fn seize(store: &Path) -> Result<Option<Self>> {
        let path = Self::path_of(store);
        match File::open(&path) {
            Ok(file) => {
                let guard = Self { file, path };
                guard.lock(store, 1)?;
                Ok(Some(guard))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault(&path, "open")(error)),
        }
    }

    /// Makes the calling process the owner.
    fn lock(&self, store: &Path, tries: u32) -> Result<()> {
        for _ in 0..tries {
            match self.file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(fault(&self.path, "lock")(error)),
            }
        }
        let detail = "another process has it open".into();
        Err(Error::Store { path: store.display().to_string(), detail })
    }

    /// Keeps owners out while somebody looks at the store, unless it has one.
    pub(super) fn look(store: &Path) -> Result<Look> {
        let path = Self::path_of(store);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Look::Unguarded),
            Err(error) => return Err(fault(&path, "open")(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Look::Held(file)),
            Err(TryLockError::WouldBlock) => Ok(Look::InUse),
            Err(TryLockError::Error(error)) => Err(fault(&path, "lock")(error)),
        }
    }

    /// The count of a store that somebody else may own.
    pub(super) fn read_of(store: &Path) -> Result<u64> {
        let path = Self::path_of(store);
        match File::open(&path) {
            Ok(file) => Self { file, path }.read(),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(missing(store, &path)),
            Err(error) => Err(fault(&path, "open")(error)),
        }
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

fn missing(store: &Path, path: &Path) -> Error {
    Error::Damaged { path: store.display().to_string(), detail: format!("{} is missing", path.display()) }
}

/// What somebody who looks at a store found.
pub(super) enum Look {
    /// It has an owner.
    InUse,
    /// It has none, and gets none as long as this file is open.
    Held(#[allow(dead_code, reason = "held for its lock")] File),
    /// There is no count, and so nothing to lock.
    Unguarded,
}

impl Look {
    pub(super) fn is_free(&self) -> bool {
        !matches!(self, Self::InUse)
    }
}
