//! Linux namespaces, TUN devices, netlink and scheduling: the only unsafe code of dtwn.
//!
//! Everything here is a thin, checked layer over system calls. It knows nothing of networks, base stations or links, so
//! that the rest of the workspace can deny `unsafe` outright. The unsafe blocks themselves live in one private module, `ffi`,
//! each with its reason.
//!
//! | module | what for |
//! | --- | --- |
//! | [`userns`] | privileges: what we have, and a user + mount namespace of our own when we have none |
//! | [`netns`] | anonymous network namespaces held by file descriptor |
//! | [`tun`] | TUN devices, opened in the namespace of the calling thread |
//! | [`netlink`] | addresses, routes with TCP metrics, link statistics |
//! | [`sysctl`] | per-namespace kernel settings |
//! | [`process`] | commands that start inside namespaces |
//! | [`fdpass`] | file descriptors over Unix sockets |
//! | [`sched`] | timer slack, scheduler slices and real-time priority |

pub mod fdpass;
mod ffi;
pub mod netlink;
pub mod netns;
pub mod process;
pub mod sched;
pub mod sysctl;
pub mod tun;
pub mod userns;

use std::path::PathBuf;

use nix::errno::Errno;

/// What can go wrong when talking to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum SysError {
    /// A system call failed; `what` says what it was meant to do.
    #[error("cannot {what}: {source}")]
    Call {
        /// What was being attempted, as the rest of "cannot …".
        what: String,
        /// The kernel's answer.
        source: Errno,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// "read", "write" or "open".
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The kernel refused or answered a netlink request unexpectedly.
    #[error("netlink: cannot {what}: {source}")]
    Netlink {
        /// What was being attempted.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A helper thread ended without an answer.
    #[error("the thread that was to {0} ended without an answer")]
    Thread(&'static str),
}

impl SysError {
    pub(crate) fn call(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let what = what.into();
        move |source| Self::Call { what, source }
    }

    /// The operating system's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { source, .. } => Some(*source),
            Self::File { source, .. } | Self::Netlink { source, .. } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            Self::Thread(_) => None,
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, SysError>;
