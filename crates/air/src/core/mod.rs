//! The pipeline as a state machine: packets and times in, deliveries and deadlines out.

#![allow(dead_code, reason = "the pipeline that uses these parts follows")]

mod fate;
mod pool;
mod queue;
mod route;
mod schedule;

use crate::error::AirError;
use crate::spec::AirSpec;

/// The medium's state.
#[derive(Debug)]
pub struct Core {
    stations: route::Stations,
}

impl Core {
    /// Builds the medium that `spec` describes.
    ///
    /// # Errors
    /// What is wrong in the specification.
    pub fn new(spec: AirSpec, _mtu: u16, _buffer_bytes_max: u64) -> Result<Self, AirError> {
        for link in &spec.links {
            link.properties.check(&link.name)?;
        }
        Ok(Self { stations: route::Stations::new(&spec)? })
    }
}
