//! How the kernel schedules the calling thread.

use nix::sys::prctl;

use crate::{Result, SysError, ffi};

/// Sets how late the kernel may fire this thread's timers to batch them; the default is 50 µs.
///
/// # Errors
/// None is known; the call's error is passed on.
pub fn set_timer_slack_ns(slack_ns: u64) -> Result<()> {
    prctl::set_timerslack(slack_ns as _).map_err(SysError::call("set the timer slack"))
}

/// Asks EEVDF (Linux 6.12) for a slice of this length, with the thread's nice value unchanged at 0. A short slice gives an early
/// deadline: the thread runs soon after it wakes, even on busy cores. Needs no privilege.
///
/// # Errors
/// `EINVAL` on kernels without custom slices; callers go on with the default.
pub fn set_slice_ns(slice_ns: u64) -> Result<()> {
    ffi::sched_set_slice(0, slice_ns).map_err(SysError::call("set the scheduler slice"))
}
