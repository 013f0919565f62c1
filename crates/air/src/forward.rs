//! The bare forwarder between two TUNs: what this machine can carry with no link emulation at all.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::AirError;

/// Packets read from one TUN before the other has its turn, as in the medium.
const BATCH: usize = 64;

/// Copies packets both ways between two TUNs until `stop` is set (looked at 20 times a second), the way the medium
/// does its reads and writes. The reference for what the medium's own work costs.
///
/// # Errors
/// [`AirError::Io`] when waiting or reading fails. Refused writes are dropped, as the medium drops them.
pub fn forward_bare(a: &OwnedFd, b: &OwnedFd, stop: &AtomicBool) -> Result<(), AirError> {
    let mut buffer = vec![0u8; 65_536];
    for tun in [a, b] {
        set_nonblocking(tun)?;
    }
    let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut wait = [PollFd::new(a, PollFlags::IN), PollFd::new(b, PollFlags::IN)];
        match poll(&mut wait, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(AirError::io("waiting for a TUN")(errno.into())),
        }
        let ready = wait.map(|fd| !fd.revents().is_empty());
        for (from, to, ready) in [(a, b, ready[0]), (b, a, ready[1])] {
            if ready {
                forward(from, to, &mut buffer)?;
            }
        }
    }
    Ok(())
}

fn forward(from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> Result<(), AirError> {
    for _ in 0..BATCH {
        match rustix::io::read(from, &mut *buffer) {
            Ok(len) => {
                let _ = rustix::io::write(to, &buffer[..len]);
            }
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(AirError::io("reading a TUN")(errno.into())),
        }
    }
    Ok(())
}

pub(crate) fn set_nonblocking(fd: impl AsFd) -> Result<(), AirError> {
    let flags = rustix::fs::fcntl_getfl(&fd)
        .map_err(|errno| AirError::io("reading a TUN's status flags")(errno.into()))?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)
        .map_err(|errno| AirError::io("making a TUN non-blocking")(errno.into()))
}
