//! Checking a whole store offline.

use serde::Serialize;

use super::Store;
use crate::error::{Error, Result};
use crate::state::State;
use crate::types::{Digest, Epoch, Height};
use crate::vote::Statement;

/// What a check of a store covered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Finalized height.
    pub height: Height,
    /// Digest of the last block.
    pub head: Digest,
    /// Epoch of the next block.
    pub epoch: Epoch,
    /// Transactions whose signatures and effects were checked.
    pub transactions: u64,
    /// Finalizations whose signatures were checked.
    pub certificates: u64,
    /// Signatures checked in all.
    pub signatures: u64,
    /// Blocks at the end that no certificate in this store covers; they are final by the rules, but it takes
    /// another store to prove it.
    pub uncovered: u64,
}

impl Store {
    /// Checks every block, transaction, certificate, signature and link from genesis on, trusting nothing stored.
    ///
    /// # Errors
    /// The first thing that is not valid: [`Error::Block`], [`Error::Certificate`] or [`Error::Damaged`].
    pub fn verify(&self) -> Result<VerifyReport> {
        let registry = &self.registry;
        let mut state = State::genesis(registry);
        let (mut transactions, mut certificates, mut signatures, mut covered) = (0, 0, 0, 0);
        for height in 1..=self.height {
            let (block, certificate) =
                self.committed(height)?.ok_or_else(|| self.damaged(&format!("block {height} is missing")))?;
            let invalid =
                |reason: &str| Error::Block { digest: block.digest(), height, reason: reason.into() };
            if !registry.verify_transactions(block.transactions().iter().map(AsRef::as_ref)) {
                return Err(invalid("a transaction's signature is not valid"));
            }
            // The producers before the block are those that finalize it, also when it elects the next ones.
            let set = state.producers.clone();
            state = state.apply(registry, &block)?;
            transactions += block.transactions().len() as u64;
            signatures += block.transactions().len() as u64;
            match certificate {
                Some(certificate) => {
                    let Statement::Finalize(proposal) = certificate.statement else {
                        return Err(certificate.error("does not finalize".into()));
                    };
                    if (proposal.block, proposal.height) != (block.digest(), height) {
                        return Err(
                            certificate.error(format!("names another block than that of height {height}"))
                        );
                    }
                    registry.verify_certificate(&certificate, &set, set.quorum())?;
                    certificates += 1;
                    signatures += certificate.signatures.len() as u64;
                    covered = height;
                }
                None if State::is_boundary(registry, height) => {
                    return Err(invalid("it ends an epoch and has no certificate"));
                }
                None => {}
            }
        }
        if !state.conserves_coins() {
            return Err(self.damaged("coins are not conserved"));
        }
        Ok(VerifyReport {
            height: state.height,
            head: state.block,
            epoch: state.epoch,
            transactions,
            certificates,
            signatures,
            uncovered: self.height - covered,
        })
    }
}
