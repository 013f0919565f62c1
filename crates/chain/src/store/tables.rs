//! The tables of the store and how their errors read.

use std::path::Path;

use redb::{DatabaseError, StorageError, TableDefinition, WriteTransaction};

use crate::codec::Decode;
use crate::error::{Error, Result};
use crate::record::unseal;

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
pub(super) const HEIGHTS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("heights");
pub(super) const CERTIFICATES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("certificates");
pub(super) const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
pub(super) const SNAPSHOTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshots");
pub(super) const BODIES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("bodies");
pub(super) const BODY_HEIGHTS: TableDefinition<'_, (u64, &[u8; 32]), ()> =
    TableDefinition::new("body heights");

/// Makes all tables, so that reading never meets a missing one.
pub(super) fn create(transaction: &WriteTransaction) -> std::result::Result<(), redb::TableError> {
    transaction.open_table(BLOCKS)?;
    transaction.open_table(HEIGHTS)?;
    transaction.open_table(CERTIFICATES)?;
    transaction.open_table(JOURNAL)?;
    transaction.open_table(SNAPSHOTS)?;
    transaction.open_table(BODIES)?;
    transaction.open_table(BODY_HEIGHTS)?;
    Ok(())
}

/// Reads a sealed value.
pub(super) fn decode<T: Decode>(path: &Path, what: &str, sealed: &[u8]) -> Result<T> {
    let damaged = |detail: String| Error::Damaged { path: path.display().to_string(), detail };
    let bytes = unseal(sealed).ok_or_else(|| damaged(format!("the checksum of a {what} does not match")))?;
    T::from_bytes(bytes).map_err(|error| damaged(format!("a {what} cannot be read: {error}")))
}

/// An error of the operating system.
pub(super) fn fault(path: &Path, what: &'static str) -> impl Fn(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::Store { path: path.clone(), detail: format!("{what}: {error}") }
}

/// An error while opening: what redb calls corrupted, and files that are no databases, are damage.
pub(super) fn open_error(path: &Path, error: &DatabaseError) -> Error {
    let name = path.display().to_string();
    match error {
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == std::io::ErrorKind::InvalidData =>
        {
            Error::Damaged { path: name, detail: error.to_string() }
        }
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == std::io::ErrorKind::UnexpectedEof =>
        {
            Error::Damaged { path: name, detail: format!("the file is truncated: {error}") }
        }
        DatabaseError::Storage(StorageError::Corrupted(detail)) => {
            Error::Damaged { path: name, detail: detail.clone() }
        }
        DatabaseError::RepairAborted | DatabaseError::UpgradeRequired(_) => {
            Error::Damaged { path: name, detail: error.to_string() }
        }
        other => Error::Store { path: name, detail: format!("open: {other}") },
    }
}

/// An error while reading or writing.
pub(super) fn database_error(path: &Path, what: &'static str, error: &redb::Error) -> Error {
    let name = path.display().to_string();
    match error {
        redb::Error::Corrupted(detail) => Error::Damaged { path: name, detail: format!("{what}: {detail}") },
        // Every table is made with the store, so one that is missing or of another type was altered.
        redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. } => {
            Error::Damaged { path: name, detail: format!("{what}: {error}") }
        }
        other => Error::Store { path: name, detail: format!("{what}: {other}") },
    }
}
