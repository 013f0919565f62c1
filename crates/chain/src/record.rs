//! What a replica writes down, in order. A crash loses some suffix of what was not synced, never a middle part.

use crate::block::SharedBlock;
use crate::codec::{Decode, Encode, Reader, unknown_tag};
use crate::error::Result;
use crate::state::State;
use crate::tx::SharedTransaction;
use crate::types::Height;
use crate::vote::{SharedCertificate, Vote};
use std::sync::Arc;

/// One entry of a replica's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A vote of this replica's own. Must be durable before anybody else hears of it.
    Vote(Vote),
    /// A block that this replica voted for or that a certificate names.
    Block(SharedBlock),
    /// A certificate above the finalized chain.
    Certificate(SharedCertificate),
    /// A transaction of this replica's own that is not finalized yet.
    Transaction(SharedTransaction),
    /// A block joined the finalized chain; the certificate is that of the last block finalized with it.
    Commit(SharedBlock, Option<SharedCertificate>),
    /// The state after the committed block of this height, an epoch's last.
    Snapshot(Height, Arc<State>),
}

impl Encode for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Vote(vote) => {
                0u8.encode(out);
                vote.encode(out);
            }
            Self::Block(block) => {
                1u8.encode(out);
                block.encode(out);
            }
            Self::Certificate(certificate) => {
                2u8.encode(out);
                certificate.encode(out);
            }
            Self::Transaction(transaction) => {
                3u8.encode(out);
                transaction.encode(out);
            }
            Self::Commit(block, certificate) => {
                4u8.encode(out);
                block.encode(out);
                certificate.encode(out);
            }
            Self::Snapshot(height, state) => {
                5u8.encode(out);
                height.encode(out);
                state.encode(out);
            }
        }
    }
}

impl Decode for Record {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match u8::decode(reader)? {
            0 => Self::Vote(Vote::decode(reader)?),
            1 => Self::Block(Arc::decode(reader)?),
            2 => Self::Certificate(Arc::decode(reader)?),
            3 => Self::Transaction(Arc::decode(reader)?),
            4 => Self::Commit(Arc::decode(reader)?, Option::decode(reader)?),
            5 => Self::Snapshot(u64::decode(reader)?, Arc::decode(reader)?),
            tag => return Err(unknown_tag("record", tag)),
        })
    }
}

/// Length of the checksum in front of a framed record.
const CHECKSUM_BYTES: usize = 8;

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    short
}

/// Puts a checksum in front of stored bytes.
#[must_use]
pub fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + bytes.len());
    sealed.extend_from_slice(&checksum(bytes));
    sealed.extend_from_slice(bytes);
    sealed
}

/// The bytes behind a checksum, or `None` when it does not match.
#[must_use]
pub fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (sum, bytes) = sealed.split_at_checked(CHECKSUM_BYTES)?;
    (checksum(bytes) == sum).then_some(bytes)
}
