//! File descriptors over Unix stream sockets (`SCM_RIGHTS`, unix(7)).

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    os::unix::net::UnixStream,
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::{Result, SysError, ffi};

/// The most descriptors one message carries.
pub const FDS_MAX: usize = 8;

/// Sends one byte with `fds` attached.
///
/// # Errors
/// `EINVAL` for more than [`FDS_MAX`] descriptors; the socket's errors.
pub fn send(socket: &UnixStream, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let what = "pass descriptors over a socket";
    if fds.len() > FDS_MAX {
        return Err(SysError::Call { what: what.into(), source: nix::errno::Errno::EINVAL });
    }
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&[0])], &control, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .map_err(SysError::call(what))
}

/// Receives the one byte of [`send`] and the descriptors attached to it, close-on-exec. An empty answer means that the
/// peer has closed the socket.
///
/// # Errors
/// The socket's errors.
pub fn receive(socket: &UnixStream) -> Result<Vec<OwnedFd>> {
    let what = "receive descriptors from a socket";
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; FDS_MAX]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .map_err(SysError::call(what))?;
    let mut fds = Vec::new();
    for control in message.cmsgs().map_err(SysError::call(what))? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(raw.into_iter().map(ffi::adopt_fd));
        }
    }
    Ok(fds)
}
