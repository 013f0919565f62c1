//! The roles of a network's nodes and the message bus that joins them.

pub mod bus;

pub use bus::{Bus, BusError};
