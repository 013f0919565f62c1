//! A file that can be read as if it could be written: what is written stays in memory.
//!
//! redb repairs a database that was not closed when it opens it, and checks the integrity only of one that it may write
//! to. A tool that looks at a store must do both without changing a byte of the evidence.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use redb::StorageBackend;

/// Unit in which writes are kept.
const PAGE_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    /// Length as the database sees it.
    len: u64,
    /// How much of the file still shows: less than its length after a truncation.
    shown: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, written: Mutex::new(Written { len, shown: len, pages: BTreeMap::new() }) })
    }

    fn lock(&self) -> Result<MutexGuard<'_, Written>> {
        self.written.lock().map_err(|_| Error::other("a thread that used the store panicked"))
    }

    /// A page as the file has it, zeros behind its end.
    fn page_of_file(&self, number: u64, shown: u64) -> Result<Box<[u8]>> {
        let mut page = vec![0; PAGE_BYTES].into_boxed_slice();
        let start = number * PAGE_BYTES as u64;
        let length = usize::try_from(shown.saturating_sub(start)).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
        self.file.read_exact_at(&mut page[..length], start)?;
        Ok(page)
    }
}

/// The pieces of a range, page by page: page number, offset in the page, offset in the range, length.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let inside = (at % PAGE_BYTES as u64) as usize;
        let take = (PAGE_BYTES - inside).min(length - done);
        let piece = (at / PAGE_BYTES as u64, inside, done, take);
        done += take;
        Some(piece)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64> {
        Ok(self.lock()?.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let written = self.lock()?;
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for (number, inside, at, take) in pieces(offset, out.len()) {
            let out = &mut out[at..at + take];
            match written.pages.get(&number) {
                Some(page) => out.copy_from_slice(&page[inside..inside + take]),
                None => {
                    let page = self.page_of_file(number, written.shown)?;
                    out.copy_from_slice(&page[inside..inside + take]);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut written = self.lock()?;
        if len < written.len {
            // What is cut off must read as zeros when the length grows again.
            written.shown = written.shown.min(len);
            let kept = len.div_ceil(PAGE_BYTES as u64);
            written.pages.split_off(&kept);
            let inside = (len % PAGE_BYTES as u64) as usize;
            if let Some(page) = written.pages.get_mut(&(len / PAGE_BYTES as u64)) {
                page[inside..].fill(0);
            }
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut written = self.lock()?;
        for (number, inside, at, take) in pieces(offset, data.len()) {
            if !written.pages.contains_key(&number) {
                let page = self.page_of_file(number, written.shown)?;
                written.pages.insert(number, page);
            }
            if let Some(page) = written.pages.get_mut(&number) {
                page[inside..inside + take].copy_from_slice(&data[at..at + take]);
            }
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_seen_and_the_file_stays_as_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let original: Vec<u8> = (0..10_000_u32).map(|index| index as u8).collect();
        std::fs::write(file.path(), &original).unwrap();
        let overlay = Overlay::open(file.path()).unwrap();
        let mut expected = original.clone();
        let read = |offset: usize, length: usize| {
            let mut out = vec![1; length];
            overlay.read(offset as u64, &mut out).map(|()| out)
        };
        assert_eq!(read(0, 10_000).unwrap(), expected);
        assert!(read(9_999, 2).is_err());

        overlay.write(4_000, &[7; 200]).unwrap();
        expected[4_000..4_200].fill(7);
        assert_eq!(read(3_000, 4_000).unwrap(), expected[3_000..7_000]);

        overlay.set_len(4_100).unwrap();
        overlay.set_len(12_000).unwrap();
        expected.truncate(4_100);
        expected.resize(12_000, 0);
        assert_eq!(read(0, 12_000).unwrap(), expected);
        overlay.write(11_000, &[9; 2_000]).unwrap();
        expected.resize(13_000, 0);
        expected[11_000..].fill(9);
        assert_eq!(read(0, 13_000).unwrap(), expected);
        assert_eq!(overlay.len().unwrap(), 13_000);
        assert_eq!(std::fs::read(file.path()).unwrap(), original);
    }
}
