//! A base station's twins on disk: the ledger, each twin's data where they came through the air, and what is being fetched.
//!
//! | file | holds |
//! | --- | --- |
//! | `ledger` | [`Durable`] in MessagePack behind its BLAKE3, replaced as a whole |
//! | `U.data` | the data of the twin of user U, from the first record on |
//! | `U.model` | its behaviour model, where it came with a move |
//! | `U.E.M.move` | what is being fetched for epoch E: data, then model, of the manifest whose hash begins with M |
//! | `U.E.M.move-data`, `U.E.M.move-model` | its parts, once checked, until they become the twin's |
//!
//! Each fetch has names of its own, since one that was given up may still be checked on another thread while the next one begins.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use dtwn_proto::node::Manifest;

use super::ledger::Durable;

/// Where a BS keeps them, in the directory for its state.
pub const FOLDER: &str = "twins";
/// Bytes before the ledger that prove it whole.
const SUM_BYTES: usize = 32;
/// Parts of a move: what comes, and what it was found to consist of.
const MOVE: &str = "move";
const MOVE_DATA: &str = "move-data";
const MOVE_MODEL: &str = "move-model";

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
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::File { action: "read", path, source }),
        };
        let damaged = |why| StoreError::Ledger { path: path.clone(), why };
        let (sum, body) = bytes.split_first_chunk::<SUM_BYTES>().ok_or_else(|| damaged("it is cut off"))?;
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
            write_synced(&partial, bytes)?;
            fs::rename(&partial, path)?;
            self.sync()
        };
        write().map_err(file("write", path))
    }

    /// What was renamed so far is so on disk.
    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.dir)?.sync_all()
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

    /// How much of a move is here already.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn begin_move(&self, twin: u32, epoch: u64, manifest: &Manifest) -> Result<u64, StoreError> {
        let path = self.path(twin, &part(epoch, manifest, MOVE));
        match fs::metadata(&path) {
            Ok(found) => Ok(found.len().min(manifest.data_bytes + manifest.model_bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::write(&path, []).map_err(file("write", &path))?;
                Ok(0)
            }
            Err(source) => Err(file("read", &path)(source)),
        }
    }

    /// Adds bytes of a move behind the first `have`.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn append_move(
        &self,
        twin: u32,
        epoch: u64,
        manifest: &Manifest,
        have: u64,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        append(&self.path(twin, &part(epoch, manifest, MOVE)), have, bytes)
    }

    /// Checks a move of which all bytes are here, and writes its parts to disk for [`Store::keep_move`]. `false`: it is not what the
    /// manifest says, or was given up meanwhile. It can run beside anything else that is done here.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn check_move(&self, twin: u32, epoch: u64, manifest: &Manifest) -> Result<bool, StoreError> {
        let path = self.path(twin, &part(epoch, manifest, MOVE));
        let Some(bytes) = read(&path)? else { return Ok(false) };
        let parts = split(&bytes, manifest);
        if let Some((data, model)) = parts {
            for (what, bytes) in [(MOVE_DATA, data), (MOVE_MODEL, model)] {
                let checked = self.path(twin, &part(epoch, manifest, what));
                write_synced(&checked, bytes).map_err(file("write", &checked))?;
            }
        }
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(file("remove", &path)(source)),
            _ => Ok(parts.is_some()),
        }
    }

    /// Makes a move that was checked the twin's data and model; when this returns they are on disk. `false`: it was given up before.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn keep_move(&self, twin: u32, epoch: u64, manifest: &Manifest) -> Result<bool, StoreError> {
        let mut parts = vec![(MOVE_DATA, "data")];
        parts.extend((manifest.model_bytes > 0).then_some((MOVE_MODEL, "model")));
        for (checked, what) in parts {
            let (from, to) = (self.path(twin, &part(epoch, manifest, checked)), self.path(twin, what));
            match fs::rename(&from, &to) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(source) => return Err(file("write", &to)(source)),
            }
        }
        self.abandon_move(twin, epoch, manifest);
        self.sync().map_err(file("write", &self.dir))?;
        Ok(true)
    }

    /// Throws away what is here of a move.
    pub fn abandon_move(&self, twin: u32, epoch: u64, manifest: &Manifest) {
        for what in [MOVE, MOVE_DATA, MOVE_MODEL] {
            let _ = fs::remove_file(self.path(twin, &part(epoch, manifest, what)));
        }
    }

    /// Throws away the data and the model of a twin.
    pub fn forget(&self, twin: u32) {
        for what in ["data", "model"] {
            let _ = fs::remove_file(self.path(twin, what));
        }
    }

    /// Throws away what an earlier process has left and nobody will ask for: twins that are elsewhere, moves to an epoch that `durable` is
    /// past, all but the newest move of a twin, and what was being written. A move that may go on stays.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn tidy(&self, durable: &Durable) -> Result<(), StoreError> {
        let mut moves = BTreeMap::<u32, (u64, SystemTime, PathBuf)>::new();
        let mut left_over = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(file("read", &self.dir))? {
            let path = entry.map_err(file("read", &self.dir))?.path();
            if kept_part(&path).is_some_and(|twin| !durable.keeps(twin)) {
                left_over.push(path);
                continue;
            }
            let Some((twin, epoch, what)) = place(&path) else { continue };
            let past = durable.entries.get(twin as usize).is_none_or(|entry| entry.epoch >= epoch);
            if past || what != MOVE {
                left_over.push(path);
                continue;
            }
            let written = fs::metadata(&path).and_then(|found| found.modified()).unwrap_or(UNIX_EPOCH);
            let this = (epoch, written, path);
            match moves.get_mut(&twin) {
                Some(other) if *other < this => left_over.push(std::mem::replace(other, this).2),
                Some(_) => left_over.push(this.2),
                None => drop(moves.insert(twin, this)),
            }
        }
        left_over.iter().try_for_each(|path| fs::remove_file(path).map_err(file("remove", path)))
    }
}

/// The end of the name of a part of a move.
fn part(epoch: u64, manifest: &Manifest, what: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("dtwn twin move v1");
    hasher.update(&manifest.data_bytes.to_le_bytes());
    hasher.update(&manifest.data);
    hasher.update(&manifest.model_bytes.to_le_bytes());
    hasher.update(&manifest.model);
    format!("{epoch}.{}.{what}", &hasher.finalize().to_hex()[..16])
}

/// The twin whose data or model a file holds.
fn kept_part(path: &Path) -> Option<u32> {
    let (twin, what) = path.file_name()?.to_str()?.split_once('.')?;
    twin.parse().ok().filter(|_| matches!(what, "data" | "model"))
}

/// Twin, epoch and part that the name of a file stands for; `None` for one that is no part of a move.
fn place(path: &Path) -> Option<(u32, u64, &str)> {
    let name = path.file_name()?.to_str()?;
    let mut words = name.splitn(4, '.');
    let (twin, epoch) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((twin, epoch, words.nth(1)?))
}

/// The data and the model that a move consists of; `None` when it is not what the manifest says.
fn split<'a>(bytes: &'a [u8], manifest: &Manifest) -> Option<(&'a [u8], &'a [u8])> {
    let (data, model) = bytes.split_at_checked(usize::try_from(manifest.data_bytes).ok()?)?;
    let whole = model.len() as u64 == manifest.model_bytes;
    let genuine = || blake3::hash(data) == manifest.data && blake3::hash(model) == manifest.model;
    (whole && genuine()).then_some((data, model))
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_data()
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
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
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
        assert_eq!(store.begin_move(7, 2, &whole).unwrap(), 0);
        store.append_move(7, 2, &whole, 0, b"dat").unwrap();
        assert_eq!(store.begin_move(7, 2, &whole).unwrap(), 3);
        // What was cut off behind the third byte does not matter.
        store.append_move(7, 2, &whole, 3, b"xx").unwrap();
        store.append_move(7, 2, &whole, 3, b"amodel").unwrap();
        assert!(store.check_move(7, 2, &whole).unwrap());
        assert_eq!(store.data(7).unwrap(), None, "checked, but nobody has said that it is wanted still");
        assert!(store.keep_move(7, 2, &whole).unwrap());
        assert_eq!(store.data(7).unwrap().unwrap(), "data");
        assert_eq!(store.model(7).unwrap().unwrap(), "model");
        // Another manifest begins anew, and bytes that are not its own are not kept.
        let other = manifest(b"datA", b"");
        store.begin_move(7, 3, &whole).unwrap();
        store.append_move(7, 3, &whole, 0, b"da").unwrap();
        assert_eq!(store.begin_move(7, 3, &other).unwrap(), 0);
        store.append_move(7, 3, &other, 0, b"evil").unwrap();
        assert!(!store.check_move(7, 3, &other).unwrap() && !store.keep_move(7, 3, &other).unwrap());
        assert_eq!(store.data(7).unwrap().unwrap(), "data");
        store.forget(7);
        assert_eq!((store.data(7).unwrap(), store.data_bytes(7)), (None, None));
    }

    #[test]
    fn a_move_that_is_given_up_while_it_is_checked_is_no_error_and_leaves_the_next_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (first, next) = (manifest(b"data", b"model"), manifest(b"data", b"model2"));
        let arrive = |epoch, manifest: &Manifest, bytes: &[u8]| {
            store.begin_move(7, epoch, manifest).unwrap();
            store.append_move(7, epoch, manifest, 0, bytes).unwrap();
        };
        // Before the thread has read it.
        arrive(2, &first, b"datamodel");
        store.abandon_move(7, 2, &first);
        assert!(!store.check_move(7, 2, &first).unwrap());
        // After that, when the next one is on its way already, for a later epoch and for the same.
        arrive(2, &first, b"datamodel");
        assert!(store.check_move(7, 2, &first).unwrap());
        arrive(3, &first, b"datam");
        arrive(2, &next, b"datam");
        store.abandon_move(7, 2, &first);
        assert!(!store.keep_move(7, 2, &first).unwrap());
        assert_eq!((store.data(7).unwrap(), store.model(7).unwrap()), (None, None));
        assert_eq!(store.begin_move(7, 3, &first).unwrap(), 5);
        assert_eq!(store.begin_move(7, 2, &next).unwrap(), 5);
    }

    #[test]
    fn what_an_earlier_process_has_left_goes_and_a_move_that_may_go_on_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let whole = manifest(b"data", b"model");
        for (twin, epoch) in [(0, 2), (1, 1), (1, 3), (1, 2), (9, 2)] {
            store.begin_move(twin, epoch, &whole).unwrap();
            store.append_move(twin, epoch, &whole, 0, b"datamodel").unwrap();
        }
        assert!(store.check_move(1, 2, &whole).unwrap());
        store.append_data(0, 0, b"what was to come").unwrap();
        store.append_data(1, 0, b"data").unwrap();
        let durable = Durable::first(0, &[None, Some(0)]);
        store.save(&durable).unwrap();
        store.tidy(&durable).unwrap();
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string());
        let mut names: Vec<String> = names.map(Result::unwrap).collect();
        names.sort();
        let tag = part(0, &whole, MOVE)[2..].to_owned();
        assert_eq!(names, [format!("0.2.{tag}"), format!("1.3.{tag}"), "1.data".into(), "ledger".into()]);
        assert_eq!(store.begin_move(1, 3, &whole).unwrap(), 9);
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
