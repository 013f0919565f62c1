//! Privileges, and a user namespace of our own for those who have none.

use std::fs;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

use crate::{Result, SysError};

/// Linux capability numbers (capability.h) that a network needs.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// How a process may make namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// CAP_SYS_ADMIN and CAP_NET_ADMIN are held already.
    Capable,
    /// A user namespace has to be entered first.
    Unprivileged,
}

/// What this process may do now.
///
/// # Errors
/// When `/proc/self/status` cannot be read.
pub fn privilege() -> Result<Privilege> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).map_err(|source| SysError::File {
        what: "read",
        path: path.into(),
        source,
    })?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let needed = (1 << CAP_NET_ADMIN) | (1 << CAP_SYS_ADMIN);
    Ok(if effective & needed == needed { Privilege::Capable } else { Privilege::Unprivileged })
}

/// Enters a user namespace in which the caller is root, and a mount namespace of it, as `unshare -Urm` does.
///
/// # Errors
/// `EINVAL` when the process has more than one thread, `EPERM` or `ENOSPC` when the machine does not allow unprivileged user
/// namespaces. Where AppArmor strips a new user namespace of its capabilities (Ubuntu 24.04), this call or the first use of
/// a capability fails with `EACCES` or `EPERM`.
pub fn enter_user_namespace() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(SysError::call("create a user namespace"))?;
    // The kernel wants setgroups closed before an unprivileged process may map its group.
    let files = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ];
    for (path, text) in files {
        fs::write(path, text).map_err(|source| SysError::File {
            what: "write",
            path: path.into(),
            source,
        })?;
    }
    enter_mount_namespace()
}

/// Enters a mount namespace of our own, whose mounts nobody else sees.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` when threads share this process's root directory.
pub fn enter_mount_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(SysError::call("create a mount namespace"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(SysError::call("make mounts private"))
}

/// Moves the calling thread's future children into a new PID namespace. The first child becomes its init: when that one ends,
/// the kernel kills every process in the namespace. The thread can start no threads of its own afterwards.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` at the limit of nested PID namespaces.
pub fn unshare_pid_for_children() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID).map_err(SysError::call("create a PID namespace"))
}
