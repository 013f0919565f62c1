//! Checking a whole store offline.

use std::collections::HashSet;

use redb::ReadableTableMetadata as _;
use serde::Serialize;

use super::Store;
use super::view::{ChainView, broken};
use crate::block::SharedBlock;
use crate::election::ProducerSet;
use crate::error::{Error, Result};
use crate::state::State;
use crate::types::{Digest, Epoch, Height};
use crate::vote::{SharedCertificate, Statement};

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

/// Blocks whose transactions' signatures were found valid. A block's digest covers them, so stores that hold the same blocks,
/// checked one after the other with the same memory, need the work only once.
#[derive(Debug, Default)]
pub struct Verified(HashSet<Digest>);

impl Store {
    /// Checks every block, transaction, certificate, signature and link from genesis on, and that index, snapshots and the
    /// count of appends fit, trusting nothing stored.
    ///
    /// # Errors
    /// The first thing that is not valid: [`Error::Block`], [`Error::Certificate`] or [`Error::Damaged`].
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_beside(&mut Verified::default())
    }

    /// As [`Store::verify`], one of several stores of a chain.
    ///
    /// # Errors
    /// As [`Store::verify`].
    pub fn verify_beside(&self, verified: &mut Verified) -> Result<VerifyReport> {
        let lost = self.lost_appends()?;
        if lost > 0 {
            return Err(self.damaged(&format!("{lost} acknowledged appends are missing")));
        }
        let view = self.view()?;
        let mut state = State::genesis(&self.registry);
        let mut report = VerifyReport {
            height: view.height()?,
            head: state.block,
            epoch: state.epoch,
            transactions: 0,
            certificates: 0,
            signatures: 0,
            uncovered: 0,
        };
        let mut covered = 0;
        for height in 1..=report.height {
            let (block, certificate) =
                view.committed(height)?.ok_or_else(|| self.damaged(&format!("block {height} is missing")))?;
            // The producers before the block are those that finalize it, also when it elects the next ones.
            let set = state.producers.clone();
            state = self.verify_block(&view, &state, &block, verified)?;
            report.transactions += block.transactions().len() as u64;
            report.signatures += block.transactions().len() as u64;
            match certificate {
                Some(certificate) => {
                    self.verify_finalization(&block, &certificate, &set)?;
                    report.certificates += 1;
                    report.signatures += certificate.signatures.len() as u64;
                    covered = height;
                }
                None if State::is_boundary(&self.registry, height) => {
                    return Err(invalid(&block, "it ends an epoch and has no certificate"));
                }
                None => {}
            }
        }
        if !state.conserves_coins() {
            return Err(self.damaged("coins are not conserved"));
        }
        self.verify_counts(&view, &report)?;
        (report.head, report.epoch) = (state.block, state.epoch);
        report.uncovered = report.height - covered;
        Ok(report)
    }

    /// The state after a block that is valid on `state`, indexed, and fits the snapshot of its height.
    fn verify_block(
        &self,
        view: &ChainView,
        state: &State,
        block: &SharedBlock,
        verified: &mut Verified,
    ) -> Result<State> {
        if !verified.0.contains(&block.digest()) {
            if !self.registry.verify_transactions(block.transactions().iter().map(AsRef::as_ref)) {
                return Err(invalid(block, "a transaction's signature is not valid"));
            }
            verified.0.insert(block.digest());
        }
        let state = state.apply(&self.registry, block)?;
        if view.height_of(&block.digest())? != Some(state.height) {
            return Err(self.damaged(&format!("block {} is missing from the index", state.height)));
        }
        if view.snapshot(state.height)?.is_some_and(|snapshot| snapshot != state) {
            return Err(self.damaged(&format!("the snapshot of height {} is not its state", state.height)));
        }
        Ok(state)
    }

    fn verify_finalization(
        &self,
        block: &SharedBlock,
        certificate: &SharedCertificate,
        set: &ProducerSet,
    ) -> Result<()> {
        let Statement::Finalize(proposal) = certificate.statement else {
            return Err(certificate.error("does not finalize".into()));
        };
        let height = block.header().height;
        if (proposal.block, proposal.height) != (block.digest(), height) {
            return Err(certificate.error(format!("names another block than that of height {height}")));
        }
        self.registry.verify_certificate(certificate, set, set.quorum())
    }

    /// Nothing is stored beyond what was checked.
    fn verify_counts(&self, view: &ChainView, report: &VerifyReport) -> Result<()> {
        let count = |length: std::result::Result<u64, redb::StorageError>, what| {
            length.map_err(broken(&self.path, what))
        };
        let tables = [
            ("blocks", count(view.blocks.len(), "blocks")?, report.height),
            ("index entries", count(view.heights.len(), "heights")?, report.height),
            ("certificates", count(view.certificates.len(), "certificates")?, report.certificates),
        ];
        match tables.into_iter().find(|(_, found, expected)| found != expected) {
            Some((what, found, expected)) => {
                Err(self
                    .damaged(&format!("it holds {found} {what}, of which {expected} belong to the chain")))
            }
            None => Ok(()),
        }
    }
}

fn invalid(block: &SharedBlock, reason: &str) -> Error {
    Error::Block { digest: block.digest(), height: block.header().height, reason: reason.into() }
}
