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

/// Lets the calling thread run before every ordinary one, whatever its priority or group, by the lowest real-time priority
/// (SCHED_RR, 1). A slice cannot do that: the kernel shares a core out between groups first (cgroups, and a group a terminal
/// session with autogroup), and a thread whose group has to wait waits with it, for tens of milliseconds on busy cores.
/// The kernel keeps 5 % of each core for ordinary threads, so a thread that never sleeps does not lock the machine.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE in the initial user namespace or an RLIMIT_RTPRIO; callers go on with [`set_slice_ns`].
pub fn set_round_robin() -> Result<()> {
    ffi::sched_set_round_robin(1).map_err(SysError::call("get a real-time priority"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::{errno::Errno, libc};

    use super::*;

    /// Field 41 of /proc/thread-self/stat, counted from behind the name in parentheses.
    fn policy() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn a_real_time_priority_is_granted_or_refused_but_never_half_set() {
        let work = || match set_round_robin() {
            Ok(()) => assert_eq!(policy() & !libc::SCHED_RESET_ON_FORK, libc::SCHED_RR),
            Err(error) => {
                assert_eq!(error.errno(), Some(Errno::EPERM));
                assert_eq!(policy(), libc::SCHED_OTHER);
            }
        };
        std::thread::spawn(work).join().unwrap();
    }
}
