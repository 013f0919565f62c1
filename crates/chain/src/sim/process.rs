//! One simulated process: a core and its disk.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::block::SharedBlock;
use crate::codec::{Decode as _, Encode as _};
use crate::core::Core;
use crate::record::{Record, seal, unseal};
use crate::types::{Epoch, Height, Micros, ReplicaId};
use crate::vote::SharedCertificate;

use super::byzantine::Byzantine;
use super::schedule::DiskFault;

/// A disk that writes in order and loses what was not synced, from the end, when the power fails.
#[derive(Debug, Default)]
pub(super) struct Disk {
    records: Vec<Record>,
    /// Records known to be durable.
    durable: usize,
    /// Records that the sync under way will make durable.
    pub(super) syncing: Option<usize>,
    /// The core's number of the record before the first of this incarnation.
    base: usize,
}

impl Disk {
    pub(super) fn append(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Begins a sync of all that is written, if there is something and none is under way.
    pub(super) fn begin_sync(&mut self) -> bool {
        let due = self.syncing.is_none() && self.durable < self.records.len();
        if due {
            self.syncing = Some(self.records.len());
        }
        due
    }

    /// Ends the sync and returns the core's number of the last durable record.
    pub(super) fn end_sync(&mut self) -> Option<u64> {
        self.durable = self.syncing.take()?;
        Some((self.durable - self.base) as u64)
    }

    /// The power fails: a suffix of what was not synced is lost, and the last record left may be torn. What is left
    /// is read back through the real encoding and its checksums.
    pub(super) fn crash(&mut self, fault: DiskFault, rng: &mut ChaCha8Rng) -> Vec<Record> {
        if fault == DiskFault::Wiped {
            *self = Self::default();
            return Vec::new();
        }
        let kept = rng.random_range(self.durable..=self.records.len());
        let mut written: Vec<Vec<u8>> =
            self.records[..kept].iter().map(|record| seal(&record.to_bytes())).collect();
        if fault == DiskFault::Torn
            && let Some(next) = self.records.get(kept)
        {
            let mut bytes = seal(&next.to_bytes());
            bytes.truncate(rng.random_range(0..bytes.len()));
            written.push(bytes);
        }
        self.records = written.iter().map_while(|bytes| Record::from_bytes(unseal(bytes)?).ok()).collect();
        self.durable = self.records.len();
        self.base = self.records.len();
        self.syncing = None;
        self.records.clone()
    }
}

/// One simulated process.
pub(super) struct Process {
    /// Its place on the network; two processes with one identity share it.
    pub(super) address: u16,
    /// Its id, `None` for the observer.
    pub(super) id: Option<ReplicaId>,
    /// `None` while it is down.
    pub(super) core: Option<Core>,
    pub(super) disk: Disk,
    /// The finalized chain, for serving others.
    pub(super) chain: Vec<(SharedBlock, Option<SharedCertificate>)>,
    pub(super) byzantine: Option<Byzantine>,
    /// When the next timer event is due.
    pub(super) timer_at: Micros,
    /// Counts restarts, so that syncs begun before a crash end without effect.
    pub(super) incarnation: u32,
    /// Votes from this epoch on, since it lost its disk before.
    pub(super) vote_from: Epoch,
}

impl Process {
    pub(super) fn is_honest(&self) -> bool {
        self.byzantine.is_none()
    }

    pub(super) fn height(&self) -> Height {
        self.core.as_ref().map_or(0, Core::height)
    }
}
