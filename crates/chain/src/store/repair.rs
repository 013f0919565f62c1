//! Replacing a damaged store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Store;
use super::guard::{self, Guard};
use super::tables::fault;
use crate::error::{Error, Result};
use crate::genesis::Registry;
use crate::types::Epoch;

impl Store {
    /// Puts a new, empty store in the place of a damaged one, which is kept beside it for somebody to look at, and returns the
    /// path of the damaged one.
    ///
    /// With the new store the replica votes from epoch `vote_from` on: with the latest epoch that any peer has reached being
    /// e, choose e + 2, which no vote of the lost store can be about. At no moment does the path hold a store that would let a
    /// replica vote earlier, however and whenever this is interrupted, so the replica may be started again meanwhile.
    ///
    /// # Errors
    /// [`Error::Store`] when a process has the store open, or files cannot be written.
    pub fn repair(path: impl AsRef<Path>, registry: Arc<Registry>, vote_from: Epoch) -> Result<PathBuf> {
        let path = path.as_ref();
        // From here on nobody starts from the damaged store any more.
        let _owner = Guard::seize(path)?;
        let fresh = guard::beside(path, "new");
        for leftover in [fresh.clone(), Guard::path_of(&fresh)] {
            if leftover.exists() {
                std::fs::remove_file(&leftover).map_err(fault(&leftover, "remove"))?;
            }
        }
        drop(Self::replace(&fresh, registry, vote_from)?);
        let aside = keep(path)?;
        // The store first: with the count of the old one it is refused, while the old store with the count of the new one, nought,
        // would pass for one that was never used.
        put(&fresh, path)?;
        put(&Guard::path_of(&fresh), &Guard::path_of(path))?;
        Ok(aside)
    }
}

/// Gives a store and its count a second name.
fn keep(path: &Path) -> Result<PathBuf> {
    let name = |number: u32| guard::beside(path, &format!("damaged-{number}"));
    let free = |aside: &PathBuf| !aside.exists() && !Guard::path_of(aside).exists();
    let aside = (1..1000).map(name).find(free).ok_or_else(|| Error::Store {
        path: path.display().to_string(),
        detail: "too many damaged stores lie beside it; remove some".into(),
    })?;
    if path.exists() {
        std::fs::hard_link(path, &aside).map_err(fault(path, "keep"))?;
    }
    let count = Guard::path_of(path);
    if count.exists() {
        std::fs::hard_link(&count, Guard::path_of(&aside)).map_err(fault(&count, "keep"))?;
    }
    Ok(aside)
}

fn put(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(fault(from, "rename"))
}
