//! The embedded store of one replica: the finalized chain, the journal above it, and large bodies.
//!
//! Everything is in one redb file, with a count of appends in a small file beside it. Each value carries a checksum of
//! its own on top of redb's page checksums, and opening checks all of them but the bodies', which are checked against
//! their digests when read: a damaged file is refused with [`Error::Damaged`] rather than read in part, since a replica
//! that forgot votes could vote twice.
//!
//! One process writes; others may look at the same file meanwhile ([`Store::inspect`]), each at the state of one commit.
//!
//! Growth: blocks, certificates and the latest snapshots stay; the journal shrinks with each finalization; bodies
//! go when [`Store::prune_bodies`] is told that they are old.

mod compare;
mod guard;
mod overlay;
mod repair;
mod tables;
mod verify;
mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Builder, ConcurrencyMode, Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase as _,
    ReadableTable as _, ReadableTableMetadata as _, WriteTransaction,
};

pub use self::compare::{Comparison, Conflict, compare};
use self::guard::Guard;
use self::tables::{
    BLOCKS, BODIES, BODY_HEIGHTS, CERTIFICATES, HEIGHTS, JOURNAL, META, SNAPSHOTS, decode, fault,
};
pub use self::verify::{Verified, VerifyReport};
pub use self::view::ChainView;
use crate::block::SharedBlock;
use crate::codec::{Encode as _, VERSION};
use crate::core::Recovered;
use crate::error::{Error, Result};
use crate::genesis::Registry;
use crate::message::{Delivery, Message, Request};
use crate::record::{Record, seal};
use crate::segment;
use crate::state::State;
use crate::types::{Digest, Epoch, Height, ReplicaId, View};
use crate::vote::{SharedCertificate, Statement};

/// Memory that redb may use to cache pages.
const CACHE_BYTES: usize = 32 << 20;

/// Snapshots kept: with the last one but one, a replica whose latest epoch has just begun still has a short replay.
const SNAPSHOTS_KEPT: usize = 2;

/// What makes a journal entry obsolete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The finalization of this view or a later one.
    Round(Epoch, View),
    /// The finalization of this height.
    Height(Height),
    /// The finalization of a transaction of this signer and sequence number.
    Transaction(ReplicaId, u64),
}

impl Until {
    fn of(record: &Record) -> Option<Self> {
        match record {
            Record::Vote(vote) => Some(vote.statement.round()),
            Record::Certificate(certificate) => Some(certificate.statement.round()),
            Record::Block(block) => return Some(Self::Height(block.header().height)),
            Record::Transaction(tx) => return Some(Self::Transaction(tx.signer, tx.sequence)),
            Record::Commit(..) | Record::Snapshot(..) => None,
        }
        .map(|(epoch, view)| Self::Round(epoch, view))
    }
}

/// The database, as it was opened.
enum Handle {
    /// To read and write.
    Own(Database),
    /// To look at, while another process may write to it.
    Look(ReadOnlyDatabase),
}

/// The store of one replica.
pub struct Store {
    database: Handle,
    /// `None` when only looking.
    guard: Option<Guard>,
    /// Keeps owners out of a store that is being looked at.
    lock: Option<guard::Look>,
    /// Appends so far.
    appends: u64,
    path: PathBuf,
    registry: Arc<Registry>,
    height: Height,
    /// The number of the next journal entry.
    next: u64,
    /// Journal entries by number.
    journal: BTreeMap<u64, Until>,
}

impl Store {
    /// Opens the store at `path`, or makes one, and returns it with what a replica starts from.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the file is truncated or altered; [`Error::Store`] when it belongs to another chain
    /// or cannot be read or written.
    pub fn open(path: impl AsRef<Path>, registry: Arc<Registry>) -> Result<(Self, Recovered)> {
        Self::open_at(path.as_ref(), registry, 0)
    }

    /// Makes a new store for a replica that lost its old one. It votes from epoch `vote_from` on: with the latest
    /// epoch that any peer has reached being e, choose e + 2, which no vote of the lost store can be about.
    ///
    /// # Errors
    /// [`Error::Store`] when there is a file at `path` already (see [`Store::repair`]) or it cannot be written.
    pub fn replace(
        path: impl AsRef<Path>,
        registry: Arc<Registry>,
        vote_from: Epoch,
    ) -> Result<(Self, Recovered)> {
        let path = path.as_ref();
        if path.exists() {
            let detail = "exists; a damaged store has to be set aside first".into();
            return Err(Error::Store { path: path.display().to_string(), detail });
        }
        Self::open_at(path, registry, vote_from)
    }

    fn open_at(path: &Path, registry: Arc<Registry>, vote_from: Epoch) -> Result<(Self, Recovered)> {
        let new = !path.exists();
        let guard = Guard::open(path, new)?;
        let builder = builder();
        // redb makes a new database of an empty file; one that was truncated to nothing must not pass for new.
        let empty = !new && path.metadata().is_ok_and(|metadata| metadata.len() == 0);
        let opened = if empty {
            Err(Error::Damaged { path: path.display().to_string(), detail: "the file is empty".into() })
        } else {
            builder.create(path).map_err(|error| tables::open_error(path, &error))
        };
        let unused = || guard.read() == Ok(0);
        let database = match opened {
            // Killed while it was being made; nothing was ever acknowledged.
            Err(Error::Damaged { .. }) if unused() => {
                std::fs::remove_file(path).map_err(fault(path, "remove"))?;
                builder.create(path).map_err(|error| tables::open_error(path, &error))?
            }
            other => other?,
        };
        let mut store = Self::around(Handle::Own(database), path, registry, Some(guard));
        store.identify(vote_from)?;
        let recovered = store.load()?;
        Ok((store, recovered))
    }

    fn around(database: Handle, path: &Path, registry: Arc<Registry>, guard: Option<Guard>) -> Self {
        let journal = BTreeMap::new();
        Self {
            database,
            path: path.into(),
            registry,
            height: 0,
            next: 0,
            journal,
            guard,
            lock: None,
            appends: 0,
        }
    }

    /// Writes what the store belongs to into a new one, and compares it in an old one.
    fn identify(&self, vote_from: Epoch) -> Result<()> {
        let transaction = self.begin()?;
        let fresh = {
            let mut meta = transaction.open_table(META).map_err(self.fault("meta"))?;
            let identity = self.identity();
            let held = meta.get("identity").map_err(self.fault("meta"))?.map(|value| value.value().to_vec());
            match held {
                Some(held) if held == seal(&identity) => false,
                Some(_) => return Err(self.stranger()),
                None => {
                    let insert = |error| self.fault("meta")(error);
                    meta.insert("identity", seal(&identity).as_slice()).map_err(insert)?;
                    meta.insert("vote_from", seal(&vote_from.to_bytes()).as_slice()).map_err(insert)?;
                    true
                }
            }
        };
        if fresh {
            tables::create(&transaction).map_err(self.fault("create"))?;
            transaction.commit().map_err(self.fault("commit"))?;
        }
        Ok(())
    }

    fn identity(&self) -> Vec<u8> {
        [&[VERSION], self.registry.chain().0.as_slice()].concat()
    }

    fn stranger(&self) -> Error {
        let detail = "belongs to another chain or another version of the program".into();
        Error::Store { path: self.path.display().to_string(), detail }
    }

    /// Reads and checks everything but the bodies.
    fn load(&mut self) -> Result<Recovered> {
        let (base, blocks) = self.load_chain()?;
        let reader = self.reader()?;
        let meta = reader.open_table(META).map_err(self.fault("meta"))?;
        let vote_from = meta.get("vote_from").map_err(self.fault("meta"))?;
        let vote_from: Epoch = match vote_from {
            Some(value) => decode(&self.path, "vote_from", value.value())?,
            None => return Err(self.damaged("the entry vote_from is missing")),
        };
        self.appends = match meta.get("appends").map_err(self.fault("meta"))? {
            Some(value) => decode(&self.path, "appends", value.value())?,
            None => 0,
        };
        if let Some(guard) = &self.guard {
            let acknowledged = guard.read()?;
            if acknowledged > self.appends {
                let lost = acknowledged - self.appends;
                return Err(self.damaged(&format!("{lost} acknowledged appends are missing")));
            }
        }
        let mut records = blocks;
        let journal = reader.open_table(JOURNAL).map_err(self.fault("journal"))?;
        for entry in journal.iter().map_err(self.fault("journal"))? {
            let (number, value) = entry.map_err(self.fault("journal"))?;
            let record: Record = decode(&self.path, "journal entry", value.value())?;
            if let Some(until) = Until::of(&record) {
                self.journal.insert(number.value(), until);
            }
            self.next = number.value() + 1;
            records.push(record);
        }
        let mut recovered = Recovered::replay(&self.registry, base, records)
            .map_err(|error| self.damaged(&format!("the chain does not follow from itself: {error}")))?;
        recovered.vote_from = vote_from;
        self.height = recovered.state.height;
        Ok(recovered)
    }

    /// Checks the links of the finalized chain; returns the latest snapshot and the blocks after it.
    fn load_chain(&self) -> Result<(State, Vec<Record>)> {
        let reader = self.reader()?;
        let snapshots = reader.open_table(SNAPSHOTS).map_err(self.fault("snapshots"))?;
        let mut base = State::genesis(&self.registry);
        for entry in snapshots.iter().map_err(self.fault("snapshots"))? {
            let (_, value) = entry.map_err(self.fault("snapshots"))?;
            base = decode(&self.path, "snapshot", value.value())?;
        }
        let certificates = reader.open_table(CERTIFICATES).map_err(self.fault("certificates"))?;
        let mut certified = 0;
        let heights = reader.open_table(HEIGHTS).map_err(self.fault("heights"))?;
        let blocks = reader.open_table(BLOCKS).map_err(self.fault("blocks"))?;
        let mut tip = (0, *self.registry.chain());
        let mut after = Vec::new();
        for entry in blocks.iter().map_err(self.fault("blocks"))? {
            let (height, value) = entry.map_err(self.fault("blocks"))?;
            let block: SharedBlock = decode(&self.path, "block", value.value())?;
            let header = block.header();
            if height.value() != tip.0 + 1 || header.height != height.value() || header.parent != tip.1 {
                return Err(self.damaged(&format!("block {} does not follow the one before", height.value())));
            }
            tip = (header.height, block.digest());
            let indexed = heights.get(&tip.1.0).map_err(self.fault("heights"))?.map(|value| value.value());
            if indexed != Some(tip.0) {
                return Err(self.damaged(&format!("block {} is missing from the index", tip.0)));
            }
            if tip.0 == base.height && tip.1 != base.block {
                return Err(self.damaged(&format!("the snapshot is not of block {}", tip.0)));
            }
            let certificate: Option<SharedCertificate> =
                match certificates.get(tip.0).map_err(self.fault("certificates"))? {
                    Some(value) => Some(decode(&self.path, "certificate", value.value())?),
                    None => None,
                };
            if certificate
                .as_ref()
                .is_some_and(|held| held.statement.proposal().is_none_or(|p| p.block != tip.1))
            {
                return Err(self.damaged(&format!("the certificate of height {} names another block", tip.0)));
            }
            certified += u64::from(certificate.is_some());
            if tip.0 > base.height {
                after.push(Record::Commit(block, certificate));
            } else if certificate.is_some() {
                // Of the blocks that the snapshot covers, only the latest certificate is of use.
                after = vec![Record::Commit(block, certificate)];
            }
        }
        let counted = certificates.len().map_err(self.fault("certificates"))?;
        if tip.0 < base.height || counted != certified {
            return Err(self.damaged("blocks are missing"));
        }
        Ok((base, after))
    }

    /// Appends records, synced to disk when this returns: the driver may then report all of them as durable.
    ///
    /// # Errors
    /// [`Error::Store`] when writing fails; the replica must stop then.
    pub fn append(&mut self, records: &[Record]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let transaction = self.begin()?;
        let mut height = self.height;
        let mut added = Vec::new();
        let mut dropped = Vec::new();
        for record in records {
            match record {
                Record::Commit(block, certificate) => {
                    self.write_commit(&transaction, block, certificate.as_ref())?;
                    height = block.header().height;
                    let obsolete = |(number, until): (&u64, &Until)| {
                        is_obsolete(*until, block, certificate.as_ref()).then_some(*number)
                    };
                    dropped.extend(self.journal.iter().filter_map(obsolete));
                    let earlier = added.iter().map(|(number, until)| (number, until));
                    dropped.extend(earlier.filter_map(obsolete).collect::<Vec<_>>());
                }
                Record::Snapshot(at, state) => self.write_snapshot(&transaction, *at, state)?,
                other => {
                    let number = self.next + added.len() as u64;
                    let mut table = transaction.open_table(JOURNAL).map_err(self.fault("journal"))?;
                    let bytes = seal(&other.to_bytes());
                    table.insert(number, bytes.as_slice()).map_err(self.fault("journal"))?;
                    added.extend(Until::of(other).map(|until| (number, until)));
                }
            }
        }
        {
            let mut table = transaction.open_table(JOURNAL).map_err(self.fault("journal"))?;
            for number in &dropped {
                table.remove(number).map_err(self.fault("journal"))?;
            }
            let mut meta = transaction.open_table(META).map_err(self.fault("meta"))?;
            let count = seal(&(self.appends + 1).to_bytes());
            meta.insert("appends", count.as_slice()).map_err(self.fault("meta"))?;
        }
        transaction.commit().map_err(self.fault("commit"))?;
        self.appends += 1;
        if let Some(guard) = &self.guard {
            guard.write(self.appends)?;
        }
        self.next += added.len() as u64;
        self.journal.extend(added);
        dropped.iter().for_each(|number| {
            self.journal.remove(number);
        });
        self.height = height;
        Ok(())
    }

    fn write_commit(
        &self,
        transaction: &WriteTransaction,
        block: &SharedBlock,
        certificate: Option<&SharedCertificate>,
    ) -> Result<()> {
        let height = block.header().height;
        let mut blocks = transaction.open_table(BLOCKS).map_err(self.fault("blocks"))?;
        blocks.insert(height, seal(&block.to_bytes()).as_slice()).map_err(self.fault("blocks"))?;
        let mut heights = transaction.open_table(HEIGHTS).map_err(self.fault("heights"))?;
        heights.insert(&block.digest().0, height).map_err(self.fault("heights"))?;
        if let Some(certificate) = certificate {
            let mut table = transaction.open_table(CERTIFICATES).map_err(self.fault("certificates"))?;
            let bytes = seal(&certificate.to_bytes());
            table.insert(height, bytes.as_slice()).map_err(self.fault("certificates"))?;
        }
        Ok(())
    }

    fn write_snapshot(&self, transaction: &WriteTransaction, height: Height, state: &State) -> Result<()> {
        let mut table = transaction.open_table(SNAPSHOTS).map_err(self.fault("snapshots"))?;
        table.insert(height, seal(&state.to_bytes()).as_slice()).map_err(self.fault("snapshots"))?;
        while table.iter().map_err(self.fault("snapshots"))?.count() > SNAPSHOTS_KEPT {
            table.pop_first().map_err(self.fault("snapshots"))?;
        }
        Ok(())
    }

    /// Answers another replica's request from the finalized chain.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Damaged`] when reading fails.
    pub fn serve(&self, request: &Request) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        let mut failed = None;
        let view = self.view()?;
        let heights = request.finalized.saturating_add(1)..=self.height;
        let chain = heights.map_while(|height| match view.committed(height) {
            Ok(found) => found,
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        messages.extend(segment::cut(chain).map(Message::Segment));
        if let Some(error) = failed {
            return Err(error);
        }
        for digest in &request.blocks {
            if let Some(height) = view.height_of(digest)?
                && let Some((block, _)) = view.committed(height)?
            {
                messages.push(Message::Block(Delivery(block)));
            }
        }
        Ok(messages)
    }

    /// The finalized height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.height
    }

    /// The finalized block at `height` and its certificate, if it has one of its own.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Damaged`] when reading fails.
    pub fn committed(&self, height: Height) -> Result<Option<(SharedBlock, Option<SharedCertificate>)>> {
        self.view()?.committed(height)
    }

    /// The height of a finalized block.
    ///
    /// # Errors
    /// [`Error::Store`] when reading fails.
    pub fn height_of(&self, digest: &Digest) -> Result<Option<Height>> {
        self.view()?.height_of(digest)
    }

    /// Keeps a body that was complete when the chain had `height`.
    ///
    /// # Errors
    /// [`Error::Store`] when writing fails.
    pub fn put_body(&self, digest: &Digest, bytes: &[u8], height: Height) -> Result<()> {
        let transaction = self.begin()?;
        {
            let mut heights = transaction.open_table(BODY_HEIGHTS).map_err(self.fault("bodies"))?;
            let mut bodies = transaction.open_table(BODIES).map_err(self.fault("bodies"))?;
            if bodies.insert(&digest.0, bytes).map_err(self.fault("bodies"))?.is_none() {
                heights.insert((height, &digest.0), ()).map_err(self.fault("bodies"))?;
            }
        }
        transaction.commit().map_err(self.fault("commit"))
    }

    /// A body, if it is kept.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it does not match its digest; [`Error::Store`] when reading fails.
    pub fn body(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>> {
        let reader = self.reader()?;
        let bodies = reader.open_table(BODIES).map_err(self.fault("bodies"))?;
        let Some(value) = bodies.get(&digest.0).map_err(self.fault("bodies"))? else { return Ok(None) };
        let bytes: Arc<[u8]> = value.value().into();
        if Digest::of_body(&bytes) != *digest {
            return Err(self.damaged(&format!("body {digest} does not match its digest")));
        }
        Ok(Some(bytes))
    }

    /// Drops the bodies that were complete before the chain had `height`, and returns how many.
    ///
    /// # Errors
    /// [`Error::Store`] when writing fails.
    pub fn prune_bodies(&self, height: Height) -> Result<usize> {
        let transaction = self.begin()?;
        let mut count = 0;
        {
            let mut heights = transaction.open_table(BODY_HEIGHTS).map_err(self.fault("bodies"))?;
            let mut bodies = transaction.open_table(BODIES).map_err(self.fault("bodies"))?;
            let old =
                heights.extract_from_if(..(height, &[0; 32]), |_, ()| true).map_err(self.fault("bodies"))?;
            for entry in old {
                let (key, _) = entry.map_err(self.fault("bodies"))?;
                bodies.remove(key.value().1).map_err(self.fault("bodies"))?;
                count += 1;
            }
        }
        transaction.commit().map_err(self.fault("commit"))?;
        Ok(count)
    }

    fn begin(&self) -> Result<WriteTransaction> {
        match &self.database {
            Handle::Own(database) => database.begin_write().map_err(self.fault("write")),
            Handle::Look(_) => {
                let detail = "was opened to look at, not to write to".into();
                Err(Error::Store { path: self.path.display().to_string(), detail })
            }
        }
    }

    fn reader(&self) -> Result<ReadTransaction> {
        match &self.database {
            Handle::Own(database) => database.begin_read(),
            Handle::Look(database) => database.begin_read(),
        }
        .map_err(self.fault("read"))
    }

    fn fault<E: Into<redb::Error>>(&self, what: &'static str) -> impl Fn(E) -> Error {
        let path = self.path.clone();
        move |error| tables::database_error(&path, what, &error.into())
    }

    fn damaged(&self, detail: &str) -> Error {
        Error::Damaged { path: self.path.display().to_string(), detail: detail.into() }
    }
}

/// How databases are opened: by one writer, beside whom others may look, with every page checked.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_concurrency_mode(ConcurrencyMode::SingleWriter)
        .set_check_integrity_on_open(true)
        .set_cache_size(CACHE_BYTES);
    builder
}

/// True when a finalized block, with its certificate if it has one, makes a journal entry obsolete.
fn is_obsolete(until: Until, block: &SharedBlock, certificate: Option<&SharedCertificate>) -> bool {
    match until {
        Until::Round(epoch, view) => {
            let final_round =
                certificate.map(|held| held.statement).filter(|s| matches!(s, Statement::Finalize(_)));
            final_round.is_some_and(|statement| (epoch, view) <= statement.round())
        }
        Until::Height(height) => height <= block.header().height,
        Until::Transaction(signer, sequence) => {
            block.transactions().iter().any(|tx| (tx.signer, tx.sequence) == (signer, sequence))
        }
    }
}

#[cfg(test)]
mod tests;
