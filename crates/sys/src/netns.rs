//! Anonymous network namespaces, held by file descriptor.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Result, SysError};

/// A network namespace without a name: it dies with the last descriptor, process and device that refers to it, so a killed
/// owner leaves nothing behind.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

impl NetNs {
    /// Moves the calling thread into a new, empty network namespace and returns it.
    ///
    /// Meant for a thread that makes several namespaces in turn and then ends; [`NetNs::create`] makes a single one
    /// without moving the caller.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN in the current user namespace, `ENOSPC` at the limit of
    /// `/proc/sys/user/max_net_namespaces`.
    pub fn unshare_thread() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(SysError::call("create a network namespace"))?;
        Self::of_thread()
    }

    /// The network namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc/thread-self/ns/net` cannot be opened.
    pub fn of_thread() -> Result<Self> {
        let path = "/proc/thread-self/ns/net";
        let file =
            File::open(path).map_err(|source| SysError::File { what: "open", path: path.into(), source })?;
        Ok(Self { fd: file.into() })
    }

    /// Creates a namespace, runs `set_up` inside it on a thread of its own, and returns both.
    ///
    /// # Errors
    /// As [`NetNs::unshare_thread`], and whatever `set_up` returns.
    pub fn create<T: Send>(set_up: impl FnOnce() -> Result<T> + Send) -> Result<(Self, T)> {
        on_thread("create a network namespace", || {
            let namespace = Self::unshare_thread()?;
            let made = set_up()?;
            Ok((namespace, made))
        })
    }

    /// Runs `work` inside this namespace, on a thread of its own.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and whatever `work` returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread("enter a network namespace", || {
            self.enter_thread()?;
            work()
        })
    }

    /// Moves the calling thread into this namespace, for good.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN over the namespace.
    pub fn enter_thread(&self) -> Result<()> {
        setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(SysError::call("enter a network namespace"))
    }

    /// A second handle to the same namespace.
    ///
    /// # Errors
    /// `EMFILE` when the process has no descriptors left.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|source| SysError::File {
            what: "duplicate the descriptor of",
            path: "a network namespace".into(),
            source,
        })?;
        Ok(Self { fd })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<NetNs> for OwnedFd {
    fn from(namespace: NetNs) -> Self {
        namespace.fd
    }
}

/// Namespaces are a property of a thread: work that changes one gets a thread that ends with the work.
fn on_thread<T: Send>(what: &'static str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| SysError::Thread(what))?
}
