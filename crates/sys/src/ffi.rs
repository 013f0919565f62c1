//! The unsafe blocks of the workspace. Each wraps one kernel interface that neither std nor nix offers safely.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::{errno::Errno, libc};

mod ioctl {
    nix::ioctl_write_int!(tun_set_persist, b'T', 203);
}

/// Binds an open `/dev/net/tun` to an interface called `name` (TUNSETIFF).
pub(crate) fn tun_set_iff(fd: BorrowedFd<'_>, name: &str, flags: libc::c_int) -> Result<(), Errno> {
    if name.len() >= libc::IFNAMSIZ || name.is_empty() {
        return Err(Errno::ENAMETOOLONG);
    }
    // SAFETY: ifreq is plain old data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives across the call; the fd is borrowed, so open.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &mut request) };
    Errno::result(rc).map(drop)
}

/// Lets a TUN outlive its file descriptor, until its namespace dies (TUNSETPERSIST).
pub(crate) fn tun_set_persist(fd: BorrowedFd<'_>, persist: bool) -> Result<(), Errno> {
    // SAFETY: TUNSETPERSIST takes an integer and touches no memory of ours.
    unsafe { ioctl::tun_set_persist(fd.as_raw_fd(), persist.into()) }.map(drop)
}

/// The kernel's `struct sched_attr` (uapi/linux/sched/types.h), first version.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SchedAttr {
    size: u32,
    sched_policy: u32,
    sched_flags: u64,
    sched_nice: i32,
    sched_priority: u32,
    sched_runtime: u64,
    sched_deadline: u64,
    sched_period: u64,
}

/// Sets the EEVDF slice and nice value of the calling thread (sched_setattr, SCHED_OTHER).
pub(crate) fn sched_set_slice(nice: i32, slice_ns: u64) -> Result<(), Errno> {
    sched_set(SchedAttr { sched_nice: nice, sched_runtime: slice_ns, ..SchedAttr::default() })
}

/// Gives the calling thread a real-time priority (sched_setattr, SCHED_RR). Its children start without it.
pub(crate) fn sched_set_round_robin(priority: u32) -> Result<(), Errno> {
    sched_set(SchedAttr {
        sched_policy: libc::SCHED_RR as u32,
        sched_flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        sched_priority: priority,
        ..SchedAttr::default()
    })
}

fn sched_set(attr: SchedAttr) -> Result<(), Errno> {
    let attr = SchedAttr { size: std::mem::size_of::<SchedAttr>() as u32, ..attr };
    // SAFETY: the kernel reads `size` bytes from a live struct of exactly that size; pid 0 is the calling thread.
    let rc = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attr, 0) };
    Errno::result(rc).map(drop)
}

/// Takes ownership of a descriptor that the kernel has just made for us (SCM_RIGHTS).
pub(crate) fn adopt_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass descriptors that recvmsg has just installed in our table and that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What a command does between fork and exec. All members are prepared beforehand: the closure may not allocate.
pub(crate) struct Entry {
    pub(crate) namespaces: Vec<OwnedFd>,
    pub(crate) directory: Option<CString>,
    pub(crate) new_group: bool,
    pub(crate) nice: i32,
    pub(crate) die_with_parent: bool,
}

/// Runs `entry` in the child of `command`, between fork and exec.
pub(crate) fn before_exec(command: &mut Command, entry: Entry) {
    let enter = move || -> std::io::Result<()> {
        for namespace in &entry.namespaces {
            // SAFETY: setns is a plain system call, safe after fork; the descriptors are owned by this closure.
            Errno::result(unsafe { libc::setns(namespace.as_raw_fd(), 0) })?;
        }
        if let Some(directory) = &entry.directory {
            // Entering a mount namespace moves us to its root. A directory that does not exist there is no error:
            // the program then simply starts at the root.
            // SAFETY: the string is NUL-terminated and lives in the closure.
            unsafe { libc::chdir(directory.as_ptr()) };
        }
        if entry.new_group {
            // SAFETY: setpgid is async-signal-safe and touches no memory.
            Errno::result(unsafe { libc::setpgid(0, 0) })?;
        }
        if entry.nice != 0 {
            // SAFETY: setpriority takes integers and touches no memory.
            Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, entry.nice) })?;
        }
        if entry.die_with_parent {
            // SAFETY: prctl with integer arguments touches no memory.
            Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        }
        Ok(())
    };
    // SAFETY: the closure only makes async-signal-safe system calls and does not allocate: `Errno::result` and its
    // conversion to io::Error carry an integer.
    unsafe { command.pre_exec(enter) };
}
