//! The medium's thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::core::Core;
use crate::error::AirError;
use crate::handle::CommandQueue;

pub(crate) struct Driver {
    _core: Core,
    _tuns: Vec<OwnedFd>,
    _commands: CommandQueue,
}

impl Driver {
    pub(crate) fn new(
        core: Core,
        tuns: Vec<OwnedFd>,
        _wake: Arc<OwnedFd>,
        commands: CommandQueue,
    ) -> Result<Self, AirError> {
        Ok(Self { _core: core, _tuns: tuns, _commands: commands })
    }

    pub(crate) fn run(self, _slice_ns: Option<u64>) -> Result<(), AirError> {
        Err(AirError::Stopped)
    }
}
