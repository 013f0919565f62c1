//! TUN devices: whole IP packets, read and written through a file descriptor.

use std::os::fd::{AsFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    libc,
    sys::stat::Mode,
};

use crate::{Result, SysError, ffi};

/// The kernel's TUN control device.
pub const DEVICE: &str = "/dev/net/tun";

/// Opens a TUN interface called `name` in the network namespace of the calling thread.
///
/// The descriptor is non-blocking, carries no packet-information header and does no offload: one read is one IP packet of
/// at most the interface's MTU. The interface is marked persistent: closing 100 plain TUNs takes about two seconds,
/// while persistent ones die with their namespace in milliseconds.
///
/// # Errors
/// `ENOENT` or `EACCES` when `/dev/net/tun` is missing or closed to us, `EPERM` without CAP_NET_ADMIN in the namespace,
/// `EBUSY` when the name is taken.
pub fn open_tun(name: &str) -> Result<OwnedFd> {
    let fd = open(DEVICE, OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(SysError::call(format!("open {DEVICE}")))?;
    ffi::tun_set_iff(fd.as_fd(), name, libc::IFF_TUN | libc::IFF_NO_PI)
        .map_err(SysError::call(format!("create the TUN interface {name}")))?;
    ffi::tun_set_persist(fd.as_fd(), true)
        .map_err(SysError::call(format!("make the TUN interface {name} persistent")))?;
    Ok(fd)
}

/// Whether `/dev/net/tun` can be opened for reading and writing.
///
/// # Errors
/// The reason why not, as an error number (`ENOENT`: no such device; `EACCES`: its mode forbids us).
pub fn check_device() -> std::result::Result<(), Errno> {
    open(DEVICE, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map(drop)
}
