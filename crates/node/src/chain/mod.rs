//! The chain in the emulated network: the core of `dtwn-chain` driven by the bus, a store on disk, and emulated time.

mod genesis;

pub use genesis::genesis;

/// Why a node's chain cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The session gave no key for a BS.
    #[error("no public key for {0}, which is a base station of the chain")]
    NoKey(String),
    /// The chain, or its store, says why.
    #[error(transparent)]
    Chain(#[from] dtwn_chain::Error),
}
