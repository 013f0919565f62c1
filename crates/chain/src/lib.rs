//! A sans-io DPoS chain with BFT finality, its store, and its simulator.

pub mod block;
pub mod bodies;
pub mod codec;
pub mod core;
pub mod crypto;
pub mod election;
mod error;
pub mod genesis;
pub mod mempool;
pub mod message;
pub mod models;
pub mod record;
pub mod replay;
pub mod segment;
pub mod sim;
pub mod state;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod tx;
pub mod types;
pub mod vote;

pub use error::{Error, Result};
