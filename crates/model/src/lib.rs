//! Topology files, units, the radio and cost models of the paper, and the plan of a network.
//!
//! The way through this crate: [`topology::load`] reads a file and its overrides into a checked [`Topology`];
//! [`Plan::new`] turns that into stations, addresses and links with the rates of Eq. 7–8; [`radio`] and [`cost`]
//! hold the paper's formulae as pure functions. Nothing here knows of clocks, sockets or async code.
//!
//! All times, rates and frequencies are **emulated** ones unless a name says `wall`.

pub mod association;
pub mod calibration;
pub mod cost;
pub mod geometry;
pub mod ids;
pub mod plan;
pub mod radio;
mod suggest;
pub mod topology;
pub mod units;

pub use plan::{Plan, PlanError};
pub use suggest::suggest;
pub use topology::{Loaded, Overrides, Topology, TopologyError, load};
