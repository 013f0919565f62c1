//! A base station's twins on disk: the ledger, each twin's data where they came through the air, and what is being fetched.
//!
//! | file | holds |
//! | --- | --- |
//! | `ledger` | [`Durable`] in MessagePack behind its BLAKE3, replaced as a whole |
//! | `U.data` | the data of the twin of user U, from the first record on |
//! | `U.model` | its behaviour model, where it came with a move |
//! | `U.move` | what is being fetched from another BS: 32 bytes that name the manifest, data, model |

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use dtwn_proto::node::Manifest;

use super::ledger::Durable;

/// Where a BS keeps them, in the directory for its state.
pub const FOLDER: &str = "twins";
/// Bytes before what is fetched.
const TAG_BYTES: usize = 32;

/// Why twins cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The ledger is not one, or is of another network.
    #[error("{} is damaged, or of another network: {why}; without it nobody knows which twins this BS owns", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

/// The directory of a BS.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(file("make", dir))?;
        Ok(Self { dir: dir.into() })
    }

    fn path(&self, twin: u32, what: &str) -> PathBuf {
        self.dir.join(format!("{twin}.{what}"))
    }

    /// The ledger; `None` where none was written yet.
    ///
    /// # Errors
    /// [`StoreError`], also for a ledger of another number of twins.
    pub fn ledger(&self, twins: usize) -> Result<Option<Durable>, StoreError> {
        let path = self.dir.join("ledger");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::File { action: "read", path, source }),
        };
        let damaged = |why| StoreError::Ledger { path: path.clone(), why };
        let (sum, body) = bytes.split_first_chunk::<TAG_BYTES>().ok_or_else(|| damaged("it is cut off"))?;
        if blake3::hash(body) != *sum {
            return Err(damaged("its sum is wrong"));
        }
        let durable: Durable = rmp_serde::from_slice(body).map_err(|_| damaged("it does not decode"))?;
        match durable.entries.len() == twins {
            true => Ok(Some(durable)),
            false => Err(damaged("it has another number of twins")),
        }
    }

    /// Writes the ledger; when this returns it is on disk, or the old one still is.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn save(&self, durable: &Durable) -> Result<(), StoreError> {
        let path = self.dir.join("ledger");
        let body =
            rmp_serde::to_vec(durable).map_err(|error| file("write", &path)(std::io::Error::other(error)))?;
        let bytes = [blake3::hash(&body).as_bytes(), &body[..]].concat();
        self.replace(&path, &bytes)
    }

    /// Replaces a file, whole or not at all, and syncs it.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let partial = path.with_extension("partial");
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&partial, path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(file("write", path))
    }

    /// The data of a twin that came through the air; `None` where none did.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn data(&self, twin: u32) -> Result<Option<Bytes>, StoreError> {
        read(&self.path(twin, "data"))
    }

    /// How many bytes of data of a twin came through the air.
    #[must_use]
    pub fn data_bytes(&self, twin: u32) -> Option<u64> {
        fs::metadata(self.path(twin, "data")).ok().map(|file| file.len())
    }

    /// The behaviour model that a twin came with.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn model(&self, twin: u32) -> Result<Option<Bytes>, StoreError> {
        read(&self.path(twin, "model"))
    }

    /// Adds data of a twin behind the first `have` bytes. Not synced: what a crash takes is fetched again.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn append_data(&self, twin: u32, have: u64, bytes: &[u8]) -> Result<(), StoreError> {
        append(&self.path(twin, "data"), have, bytes)
    }

    /// How much of a move is here already. What is here of another one is thrown away.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn begin_move(&self, twin: u32, manifest: &Manifest) -> Result<u64, StoreError> {
        let path = self.path(twin, "move");
        let tag = tag(manifest);
        let mut found = [0; TAG_BYTES];
        let same = File::open(&path).and_then(|mut file| file.read_exact(&mut found)).is_ok() && found == tag;
        if same {
            let bytes = fs::metadata(&path).map_err(file("read", &path))?.len();
            return Ok((bytes - TAG_BYTES as u64).min(manifest.data_bytes + manifest.model_bytes));
        }
        fs::write(&path, tag).map_err(file("write", &path))?;
        Ok(0)
    }

    /// Adds bytes of a move behind the first `have`.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn append_move(&self, twin: u32, have: u64, bytes: &[u8]) -> Result<(), StoreError> {
        append(&self.path(twin, "move"), TAG_BYTES as u64 + have, bytes)
    }

    /// Checks a move of which all bytes are here, and makes it the twin's data and model, on disk. `false`: it is not what the manifest
    /// says, and is thrown away.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn finish_move(&self, twin: u32, manifest: &Manifest) -> Result<bool, StoreError> {
        let path = self.path(twin, "move");
        let bytes = fs::read(&path).map_err(file("read", &path))?;
        let split = |bytes: &[u8]| -> Option<(Vec<u8>, Vec<u8>)> {
            let body = bytes.get(TAG_BYTES..)?;
            let (data, model) = body.split_at_checked(usize::try_from(manifest.data_bytes).ok()?)?;
            let whole = model.len() as u64 == manifest.model_bytes;
            let genuine = blake3::hash(data) == manifest.data && blake3::hash(model) == manifest.model;
            (whole && genuine).then(|| (data.to_vec(), model.to_vec()))
        };
        let parts = split(&bytes);
        if let Some((data, model)) = &parts {
            self.replace(&self.path(twin, "data"), data)?;
            if !model.is_empty() {
                self.replace(&self.path(twin, "model"), model)?;
            }
        }
        fs::remove_file(&path).map_err(file("remove", &path))?;
        Ok(parts.is_some())
    }

    /// Throws away what is here of a move.
    pub fn abandon_move(&self, twin: u32) {
        let _ = fs::remove_file(self.path(twin, "move"));
    }

    /// Throws away all that is here of a twin.
    pub fn forget(&self, twin: u32) {
        for what in ["data", "model", "move"] {
            let _ = fs::remove_file(self.path(twin, what));
        }
    }
}

/// What names a manifest.
fn tag(manifest: &Manifest) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("dtwn twin move v1");
    hasher.update(&manifest.data_bytes.to_le_bytes());
    hasher.update(&manifest.data);
    hasher.update(&manifest.model_bytes.to_le_bytes());
    hasher.update(&manifest.model);
    *hasher.finalize().as_bytes()
}

fn append(path: &Path, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
    let write = || {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.len() != at {
            // A piece that was cut off when the node was killed.
            file.set_len(at)?;
        }
        file.write_all(bytes)
    };
    write().map_err(file("write", path))
}

fn read(path: &Path) -> Result<Option<Bytes>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file("read", path)(source)),
    }
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(data: &[u8], model: &[u8]) -> Manifest {
        Manifest {
            data_bytes: data.len() as u64,
            data: *blake3::hash(data).as_bytes(),
            model_bytes: model.len() as u64,
            model: *blake3::hash(model).as_bytes(),
        }
    }

    #[test]
    fn a_ledger_comes_back_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("twins")).unwrap();
        assert_eq!(store.ledger(2).unwrap(), None);
        let durable = Durable::first(1, &[Some(0), Some(1)]);
        store.save(&durable).unwrap();
        assert_eq!(store.ledger(2).unwrap(), Some(durable));
        assert!(store.ledger(3).unwrap_err().to_string().contains("another number"));
        let path = dir.path().join("twins/ledger");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(store.ledger(2).unwrap_err().to_string().contains("its sum is wrong"));
    }

    #[test]
    fn a_move_goes_on_where_it_stopped_and_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let whole = manifest(b"data", b"model");
        assert_eq!(store.begin_move(7, &whole).unwrap(), 0);
        store.append_move(7, 0, b"dat").unwrap();
        assert_eq!(store.begin_move(7, &whole).unwrap(), 3);
        // What was cut off behind the third byte does not matter.
        store.append_move(7, 3, b"xx").unwrap();
        store.append_move(7, 3, b"amodel").unwrap();
        assert!(store.finish_move(7, &whole).unwrap());
        assert_eq!(store.data(7).unwrap().unwrap(), "data");
        assert_eq!(store.model(7).unwrap().unwrap(), "model");
        // Another manifest begins anew, and bytes that are not its own are not kept.
        let other = manifest(b"datA", b"");
        store.begin_move(7, &whole).unwrap();
        store.append_move(7, 0, b"da").unwrap();
        assert_eq!(store.begin_move(7, &other).unwrap(), 0);
        store.append_move(7, 0, b"evil").unwrap();
        assert!(!store.finish_move(7, &other).unwrap());
        assert_eq!(store.data(7).unwrap().unwrap(), "data");
        store.forget(7);
        assert_eq!((store.data(7).unwrap(), store.data_bytes(7)), (None, None));
    }

    #[test]
    fn data_grow_and_a_full_disk_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.append_data(1, 0, b"ab").unwrap();
        store.append_data(1, 2, b"cd").unwrap();
        assert_eq!((store.data(1).unwrap().unwrap(), store.data_bytes(1)), (Bytes::from("abcd"), Some(4)));
        std::os::unix::fs::symlink("/dev/full", dir.path().join("ledger.partial")).unwrap();
        let error = store.save(&Durable::first(0, &[])).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("ledger"), "{error}");
    }
}
