//! The roles of a network's nodes and the message bus that joins them.

pub mod agent;
pub mod association;
pub mod bus;
pub mod chain;
pub mod learning;
pub mod logging;
pub mod roles;
pub mod twins;

pub use bus::{Bus, BusError};
