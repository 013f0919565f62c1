//! Commands that start inside namespaces.

use std::{
    ffi::CString,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    process::Command,
};

use crate::ffi;

/// How a child enters its place between fork and exec; see [`Placement::apply`].
#[derive(Debug, Default)]
pub struct Placement {
    namespaces: Vec<OwnedFd>,
    directory: Option<CString>,
    new_group: bool,
    nice: i32,
    die_with_parent: bool,
}

impl Placement {
    /// A child that starts where its parent is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters this namespace (of whatever type), after those named before it.
    #[must_use]
    pub fn namespace(mut self, fd: OwnedFd) -> Self {
        self.namespaces.push(fd);
        self
    }

    /// Starts in this directory, as seen after entering the namespaces. A path that does not exist there, or holds a
    /// NUL, leaves the child at the root.
    #[must_use]
    pub fn directory(mut self, path: &Path) -> Self {
        self.directory = CString::new(path.as_os_str().as_bytes()).ok();
        self
    }

    /// Gives the child a process group of its own, out of reach of the terminal's signals, yet in the same session so that
    /// the scheduler's autogroup stays shared.
    #[must_use]
    pub fn new_group(mut self) -> Self {
        self.new_group = true;
        self
    }

    /// Gives the child this nice value (0 to 19 without privileges).
    #[must_use]
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = nice;
        self
    }

    /// Kills the child when the *thread* that starts it ends (PR_SET_PDEATHSIG).
    #[must_use]
    pub fn die_with_parent(mut self) -> Self {
        self.die_with_parent = true;
        self
    }

    /// Makes `command` start its child in this place.
    pub fn apply(self, command: &mut Command) {
        ffi::before_exec(
            command,
            ffi::Entry {
                namespaces: self.namespaces,
                directory: self.directory,
                new_group: self.new_group,
                nice: self.nice,
                die_with_parent: self.die_with_parent,
            },
        );
    }
}
