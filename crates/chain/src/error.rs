//! The crate's one error type.

use crate::types::{Digest, ReplicaId};

/// What can be wrong with input to the chain or with its store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes that are not the canonical encoding of anything.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// The value that was being decoded.
        what: &'static str,
        /// What was found and what would be right.
        detail: String,
    },
    /// A genesis or setting that cannot be run with.
    #[error("chain configuration: {0}")]
    Config(String),
    /// A transaction that is not valid on the state it was applied to.
    #[error("transaction of {signer} with sequence number {sequence}: {reason}")]
    Transaction {
        /// The transaction's signer.
        signer: ReplicaId,
        /// Its sequence number.
        sequence: u64,
        /// Why it is not valid.
        reason: String,
    },
    /// A block that is not valid on its parent.
    #[error("block {digest} at height {height}: {reason}")]
    Block {
        /// The block.
        digest: Digest,
        /// Its height.
        height: u64,
        /// Why it is not valid.
        reason: String,
    },
    /// A certificate that proves nothing.
    #[error("certificate for epoch {epoch}, view {view}: {reason}")]
    Certificate {
        /// The certificate's epoch.
        epoch: u64,
        /// The certificate's view.
        view: u64,
        /// Why it is not valid.
        reason: String,
    },
    /// A body or a part of one that does not match its digest.
    #[error("body {digest}: {reason}")]
    Body {
        /// The body's digest.
        digest: Digest,
        /// What does not match.
        reason: String,
    },
    /// A bounded queue has no room.
    #[error("{queue} is full: {detail}")]
    Full {
        /// The queue.
        queue: &'static str,
        /// Its bound.
        detail: String,
    },
    /// The operating system or the database refused an operation on the store.
    #[error("chain store {path}: {detail}")]
    Store {
        /// The store's file.
        path: String,
        /// What was refused and why.
        detail: String,
    },
    /// The store's file is damaged.
    #[error(
        "chain store {path} is damaged: {detail}; `dtwn chain repair` makes a new one, which is fetched from the other nodes"
    )]
    Damaged {
        /// The store's file.
        path: String,
        /// What is damaged.
        detail: String,
    },
}

/// Result with the crate's error.
pub type Result<T> = std::result::Result<T, Error>;
