//! Blocks: a header that commits to its transactions and to the state after them.

use std::sync::Arc;

use serde::Serialize;

use crate::codec::{Decode, Encode, Reader, encoded_fields, put_count, put_sequence};
use crate::error::{Error, Result};
use crate::genesis::MAX_BLOCK_BYTES;
use crate::tx::{SharedTransaction, Transaction};
use crate::types::{Digest, Epoch, Height, ReplicaId, View};

/// Most transactions in a block: [`MAX_BLOCK_BYTES`] over the smallest transaction.
pub const MAX_BLOCK_TRANSACTIONS: usize = 54_471;

/// A block's header. Its digest is the block's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Header {
    /// The chain.
    pub chain: Digest,
    /// Epoch that the block was built in.
    pub epoch: Epoch,
    /// View that the block was built for.
    pub view: View,
    /// Distance from genesis.
    pub height: Height,
    /// Digest of the parent block.
    pub parent: Digest,
    /// Who built it: the leader of `view`.
    pub leader: ReplicaId,
    /// Digest of the transactions, signatures included.
    pub transactions: Digest,
    /// Digest of the state after the block.
    pub state: Digest,
}
encoded_fields!(Header { chain, epoch, view, height, parent, leader, transactions, state });

impl Header {
    /// The block's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::in_domain("block header", &self.to_bytes())
    }
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    header: Header,
    transactions: Vec<SharedTransaction>,
    digest: Digest,
}

/// A shared block.
pub type SharedBlock = Arc<Block>;

impl Block {
    /// A block from its parts; `header.transactions` must be [`Block::root`] of the transactions.
    #[must_use]
    pub fn new(header: Header, transactions: Vec<SharedTransaction>) -> Self {
        Self { digest: header.digest(), header, transactions }
    }

    /// The digest of a block's transactions, signatures included.
    #[must_use]
    pub fn root(transactions: &[SharedTransaction]) -> Digest {
        let mut bytes = Vec::new();
        put_count(&mut bytes, transactions.len());
        transactions.iter().for_each(|transaction| transaction.encode(&mut bytes));
        Digest::in_domain("block transactions", &bytes)
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The transactions in order of execution.
    #[must_use]
    pub fn transactions(&self) -> &[SharedTransaction] {
        &self.transactions
    }

    /// The digest of the header.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Length of the transactions' encoding in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.transactions.iter().map(|transaction| transaction.encoded_len()).sum()
    }
}

impl Encode for Block {
    fn encode(&self, out: &mut Vec<u8>) {
        self.header.encode(out);
        put_sequence(out, &self.transactions);
    }
}

impl Decode for Block {
    /// Decodes a block and checks that the header commits to the transactions.
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let header = Header::decode(reader)?;
        let before = reader.remaining();
        let transactions: Vec<Arc<Transaction>> =
            reader.sequence(MAX_BLOCK_TRANSACTIONS, "block transactions")?;
        if before - reader.remaining() > MAX_BLOCK_BYTES as usize + 4 {
            return Err(Error::Malformed { what: "block", detail: format!("above {MAX_BLOCK_BYTES} bytes") });
        }
        if Self::root(&transactions) != header.transactions {
            return Err(Error::Malformed {
                what: "block",
                detail: "not the transactions of its header".into(),
            });
        }
        Ok(Self::new(header, transactions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{PublicKey, StubSigner};
    use crate::tx::Payload;

    #[test]
    fn the_digest_commits_to_signatures_too() {
        let signer = StubSigner(PublicKey([1; 32]));
        let payload = Payload::Action { round: 1, content: vec![1, 2] };
        let tx = Transaction::sign(&Digest::default(), ReplicaId(0), &signer, 1, payload);
        let header = Header {
            chain: Digest::default(),
            epoch: 0,
            view: 1,
            height: 1,
            parent: Digest::default(),
            leader: ReplicaId(1),
            transactions: Block::root(&[Arc::new(tx.clone())]),
            state: Digest::default(),
        };
        let block = Block::new(header, vec![Arc::new(tx.clone())]);
        assert_eq!(Block::from_bytes(&block.to_bytes()), Ok(block.clone()));
        let mut forged = tx;
        forged.signature.0[0] ^= 1;
        let forged = Block::new(header, vec![Arc::new(forged)]);
        assert!(Block::from_bytes(&forged.to_bytes()).is_err());
    }
}
