//! What nodes report of the chain, in batches: at most about four times a second of wall time and node.

use serde::{Deserialize, Serialize};

/// How far a node's chain has come, and what happened to it since its last report. Counts are those since that report, so
/// that they may be summed over restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChainProgress {
    /// Finalized height.
    pub height: u64,
    /// First 16 hexadecimal digits of the digest of the block there; empty at height 0.
    pub tip: String,
    /// Current epoch.
    pub epoch: u64,
    /// Current view of that epoch.
    pub view: u64,
    /// Transactions that wait for a block.
    pub mempool_transactions: u64,
    /// Their bytes.
    pub mempool_bytes: u64,
    /// Views entered.
    pub views: u64,
    /// Views that this node saw nullified.
    pub nullified: u64,
    /// Blocks finalized.
    pub blocks: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Their bytes.
    pub transaction_bytes: u64,
    /// Views that left no block in the finalized chain, by the BS that led them.
    pub missed: Vec<(String, u64)>,
    /// Transactions of this node's own that were submitted.
    pub submitted: u64,
    /// Of its own, those finalized.
    pub finalized: u64,
    /// Payloads that could not be recorded: the mempool was full, or the chain's rules forbid them.
    pub rejected: u64,
    /// Payloads that were never looked at, as the node was too busy.
    pub dropped: u64,
    /// Messages refused for a signature or form that is not valid.
    pub invalid: u64,
    /// From submission to finalization of this node's own transactions, both here: emulated microseconds, to 3 %, and how
    /// many.
    pub finality_us: Vec<(u64, u64)>,
    /// From a proposal of this node's own to its finalization, both here: as `finality_us`.
    pub block_finality_us: Vec<(u64, u64)>,
    /// The election in force, when it is not the one of the last report.
    pub election: Option<ChainElection>,
    /// Micro-coins of each BS, in the order of the topology, when they changed.
    pub coins: Vec<u64>,
    /// Offences proved in blocks.
    pub evidence: Vec<ChainOffence>,
}

/// Who produces blocks in an epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainElection {
    /// The epoch.
    pub epoch: u64,
    /// Its producers in the order of their turns: view v is led by number v mod M_p.
    pub producers: Vec<String>,
}

/// A BS signed two votes that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChainOffence {
    /// Which BS.
    pub offender: String,
    /// In which epoch.
    pub epoch: u64,
    /// In which view.
    pub view: u64,
}

/// A finalized block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChainBlock {
    /// Distance from genesis.
    pub height: u64,
    /// The epoch it was built in.
    pub epoch: u64,
    /// The view it was built for.
    pub view: u64,
    /// The BS that built it.
    pub leader: String,
    /// First 16 hexadecimal digits of its digest.
    pub digest: String,
    /// Transactions in it.
    pub transactions: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Training models on record in it.
    #[serde(default)]
    pub models: u32,
    /// The BSs whose signatures finalize it, by their position among the BSs from 0; empty when a later block's certificate
    /// does.
    pub signers: Vec<u16>,
    /// Emulated nanoseconds of its finalization at the reporting node.
    pub finalized_at_ns: u64,
    /// Emulated milliseconds from its proposal to its finalization, where the reporting node proposed it.
    pub finality_ms: Option<f64>,
}

/// Bits of a value that a histogram's bucket keeps: the top six, so buckets are 3 % wide at most.
const BUCKET_BITS: u32 = 6;

/// The histogram bucket that a value falls into, named by its lowest value.
pub fn bucket(value: u64) -> u64 {
    let excess = (u64::BITS - value.leading_zeros()).saturating_sub(BUCKET_BITS);
    value >> excess << excess
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow_and_few() {
        for value in (0..10_000).chain([123_456, 7_654_321, u64::MAX]) {
            let lower = bucket(value);
            assert!(lower <= value && (value - lower) as f64 <= value as f64 / 32.0, "{value}: {lower}");
            assert_eq!(bucket(lower), lower);
        }
        let distinct: std::collections::BTreeSet<u64> = (0..1_000_000).map(bucket).collect();
        assert!(distinct.len() < 600, "{}", distinct.len());
    }
}
