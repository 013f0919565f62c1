//! Looking at a store: at one moment of it, and from outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::{ConcurrencyMode, ReadOnlyTable, ReadTransaction, ReadableTable as _, StorageBackend as _};

use super::guard::Guard;
use super::overlay::Overlay;
use super::tables::{self, BLOCKS, CERTIFICATES, HEIGHTS, META, SNAPSHOTS, decode, fault};
use super::{Handle, Store, builder};
use crate::block::SharedBlock;
use crate::error::{Error, Result};
use crate::genesis::Registry;
use crate::record::seal;
use crate::state::State;
use crate::types::{Digest, Epoch, Height};
use crate::vote::SharedCertificate;

/// How often opening is tried while the owner is still at it, and the pause between two tries.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// The finalized chain of a store at the moment of one commit.
pub struct ChainView {
    pub(super) blocks: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) certificates: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) heights: ReadOnlyTable<&'static [u8; 32], u64>,
    pub(super) snapshots: ReadOnlyTable<u64, &'static [u8]>,
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    path: PathBuf,
}

impl ChainView {
    pub(super) fn new(reader: &ReadTransaction, path: &Path) -> Result<Self> {
        Ok(Self {
            blocks: reader.open_table(BLOCKS).map_err(broken(path, "blocks"))?,
            certificates: reader.open_table(CERTIFICATES).map_err(broken(path, "certificates"))?,
            heights: reader.open_table(HEIGHTS).map_err(broken(path, "heights"))?,
            snapshots: reader.open_table(SNAPSHOTS).map_err(broken(path, "snapshots"))?,
            meta: reader.open_table(META).map_err(broken(path, "meta"))?,
            path: path.into(),
        })
    }

    /// The finalized height.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Damaged`] when reading fails.
    pub fn height(&self) -> Result<Height> {
        let last = self.blocks.last().map_err(broken(&self.path, "blocks"))?;
        Ok(last.map_or(0, |(height, _)| height.value()))
    }

    /// The finalized block at `height` and its certificate, if it has one of its own.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Damaged`] when reading fails.
    pub fn committed(&self, height: Height) -> Result<Option<(SharedBlock, Option<SharedCertificate>)>> {
        let value = self.blocks.get(height).map_err(broken(&self.path, "blocks"))?;
        let Some(value) = value else { return Ok(None) };
        let block = decode(&self.path, "block", value.value())?;
        let certificate = match self.certificates.get(height).map_err(broken(&self.path, "certificates"))? {
            Some(value) => Some(decode(&self.path, "certificate", value.value())?),
            None => None,
        };
        Ok(Some((block, certificate)))
    }

    /// The height of a finalized block.
    ///
    /// # Errors
    /// [`Error::Store`] when reading fails.
    pub fn height_of(&self, digest: &Digest) -> Result<Option<Height>> {
        let height = self.heights.get(&digest.0).map_err(broken(&self.path, "heights"))?;
        Ok(height.map(|value| value.value()))
    }

    /// The digests of the finalized blocks from height 1 on, as the index has them.
    ///
    /// # Errors
    /// [`Error::Store`] when reading fails.
    pub fn digests(&self) -> Result<Vec<Option<Digest>>> {
        let mut found = vec![None; usize::try_from(self.height()?).unwrap_or(0)];
        for entry in self.heights.iter().map_err(broken(&self.path, "heights"))? {
            let (digest, height) = entry.map_err(broken(&self.path, "heights"))?;
            let index = height.value().checked_sub(1).and_then(|index| usize::try_from(index).ok());
            if let Some(slot) = index.and_then(|index| found.get_mut(index)) {
                *slot = Some(Digest(*digest.value()));
            }
        }
        Ok(found)
    }

    /// The state after the snapshot of `height`, if one is kept.
    pub(super) fn snapshot(&self, height: Height) -> Result<Option<State>> {
        let value = self.snapshots.get(height).map_err(broken(&self.path, "snapshots"))?;
        value.map(|value| decode(&self.path, "snapshot", value.value())).transpose()
    }

    /// A sealed entry of the store's own.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>> {
        let value = self.meta.get(name).map_err(broken(&self.path, "meta"))?;
        value.map(|value| decode(&self.path, name, value.value())).transpose()
    }

    fn is_of(&self, identity: &[u8]) -> Result<bool> {
        let value = self.meta.get("identity").map_err(broken(&self.path, "meta"))?;
        Ok(value.is_some_and(|value| value.value() == seal(identity)))
    }
}

/// An error of the database while reading the store at `path`.
pub(super) fn broken<E: Into<redb::Error>>(path: &Path, what: &'static str) -> impl Fn(E) -> Error {
    let path = path.to_owned();
    move |error| tables::database_error(&path, what, &error.into())
}

impl Store {
    /// Opens an existing store to look at it: for tools that read a chain but never vote. Nothing is written to the file, and its
    /// owner may go on writing to it meanwhile; what is seen then is the state of its latest commit.
    ///
    /// # Errors
    /// As [`Store::open`], and [`Error::Store`] when there is no file.
    pub fn inspect(path: impl AsRef<Path>, registry: &Arc<Registry>) -> Result<Self> {
        let path = path.as_ref();
        std::fs::metadata(path).map_err(fault(path, "open"))?;
        let mut tries = 0;
        loop {
            let lock = Guard::look(path)?;
            let opened = if lock.is_free() { look_alone(path) } else { look_beside_owner(path) };
            let looked = opened.and_then(|database| Self::inspected(database, path, Arc::clone(registry)));
            match looked {
                // While its owner is opening it, a store that was not closed is not readable yet.
                Err(_) if !lock.is_free() && tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error),
                Ok(mut store) => {
                    store.lock = Some(lock);
                    return Ok(store);
                }
            }
        }
    }

    fn inspected(database: Handle, path: &Path, registry: Arc<Registry>) -> Result<Self> {
        let mut store = Self::around(database, path, registry, None);
        let view = store.view()?;
        if !view.is_of(&store.identity())? {
            return Err(store.stranger());
        }
        store.height = view.height()?;
        Ok(store)
    }

    /// The finalized chain at this moment.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Damaged`] when reading fails.
    pub fn view(&self) -> Result<ChainView> {
        ChainView::new(&self.reader()?, &self.path)
    }

    /// The epoch that follows the last finalized block.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Damaged`] when reading fails.
    pub fn epoch(&self) -> Result<Epoch> {
        // Every epoch ends after the same number of blocks.
        Ok(self.view()?.height()? / self.registry.params().epoch_blocks)
    }

    /// Appends that were acknowledged to the replica but are not in the file.
    pub(super) fn lost_appends(&self) -> Result<u64> {
        // The count is written after the commit that it counts: read before it, it is never ahead of an intact store.
        let acknowledged = Guard::read_of(&self.path)?;
        let appends = self.view()?.number("appends")?.unwrap_or(0);
        Ok(acknowledged.saturating_sub(appends))
    }
}

fn look_beside_owner(path: &Path) -> Result<Handle> {
    builder().open_read_only(path).map(Handle::Look).map_err(|error| tables::open_error(path, &error))
}

/// Nobody has the file open: it is repaired and checked, in memory, as its owner would do.
fn look_alone(path: &Path) -> Result<Handle> {
    let overlay = Overlay::open(path).map_err(fault(path, "open"))?;
    if overlay.len().is_ok_and(|length| length == 0) {
        return Err(Error::Damaged { path: path.display().to_string(), detail: "the file is empty".into() });
    }
    let mut builder = builder();
    builder.set_concurrency_mode(ConcurrencyMode::ExclusiveWriter);
    builder.create_with_backend(overlay).map(Handle::Own).map_err(|error| tables::open_error(path, &error))
}
