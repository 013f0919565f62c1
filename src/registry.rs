//! Where sessions are found: one lock and one socket a session, in a directory that only this user can enter.
//!
//! The directory is `/tmp/dtwn-<uid>` and not XDG_RUNTIME_DIR, which logind removes at the last logout while sessions live on.
//! A session holds the lock of its name for as long as it lives; the kernel releases it however the session ends, so a lock
//! that can be taken marks a stale name, which whoever takes it reaps.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    unistd::{Uid, geteuid},
};

use crate::error::{Error, Result};

/// The directory of one user's sessions.
#[derive(Debug, Clone)]
pub struct Registry {
    dir: PathBuf,
}

/// A session's claim to its name; released when dropped or when the process ends.
#[derive(Debug)]
pub struct Claim {
    lock: Flock<File>,
    lock_path: PathBuf,
    /// Where the session listens.
    pub socket: PathBuf,
}

impl Registry {
    /// Opens the calling user's registry, making it when needed.
    ///
    /// # Errors
    /// When the directory cannot be made, or belongs to somebody else.
    pub fn open() -> Result<Self> {
        Self::open_in(Path::new("/tmp"), geteuid())
    }

    fn open_in(base: &Path, uid: Uid) -> Result<Self> {
        let dir = base.join(format!("dtwn-{uid}"));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::File { what: "create", path: dir, source }),
        }
        // Anybody may write to /tmp: a directory put there by another user must not be trusted with our sockets.
        let metadata = fs::symlink_metadata(&dir).map_err(Error::file("read", &dir))?;
        if !metadata.is_dir() || metadata.uid() != uid.as_raw() || metadata.mode() & 0o077 != 0 {
            return Err(Error::Machine {
                what: format!("{} is not a private directory of user {uid}", dir.display()),
                help: format!("look who made it, then remove it: rm -r {}", dir.display()),
            });
        }
        Ok(Self { dir })
    }

    /// Claims a name for this process.
    ///
    /// # Errors
    /// [`Error::NameTaken`] when a live session holds it.
    pub fn claim(&self, name: &str) -> Result<Claim> {
        let lock_path = self.dir.join(format!("{name}.lock"));
        loop {
            let file = open_lock(&lock_path)?;
            let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((mut file, _)) => {
                    let pid = read_pid(&mut file);
                    if is_alive(pid) {
                        return Err(Error::NameTaken { name: name.to_owned(), pid });
                    }
                    // The holder is dead, so somebody is looking whether the entry is stale: over in an instant.
                    std::thread::yield_now();
                    continue;
                }
            };
            // Whoever held it may have removed the file between our opening and locking it: then we hold a lock that
            // nobody can see, and try again.
            if !is_same_file(&lock, &lock_path) {
                continue;
            }
            let write = |lock: &mut File| {
                lock.set_len(0)?;
                lock.rewind()?;
                writeln!(lock, "{}", std::process::id())
            };
            write(&mut lock).map_err(Error::file("write", &lock_path))?;
            let socket = self.dir.join(format!("{name}.sock"));
            let _ = fs::remove_file(&socket);
            return Ok(Claim { lock, lock_path, socket });
        }
    }

    /// The names of live sessions with their sockets, sorted. Stale entries are reaped on the way.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn sessions(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(Error::file("read", &self.dir))? {
            let path = entry.map_err(Error::file("read", &self.dir))?.path();
            let (Some(stem), Some("lock")) =
                (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|e| e.to_str()))
            else {
                continue;
            };
            let socket = self.dir.join(format!("{stem}.sock"));
            if let Some(lock) = lock_if_stale(&path) {
                // Removed while locked: somebody who claims the name at this moment waits, and then makes new files.
                if is_same_file(&lock, &path) {
                    let _ = fs::remove_file(&socket);
                    let _ = fs::remove_file(&path);
                }
            } else if socket.exists() {
                found.push((stem.to_owned(), socket));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Waits until the session called `name` has released its name, which is the last thing it does.
    ///
    /// # Errors
    /// When its lock cannot be waited for.
    pub fn wait_until_gone(&self, name: &str) -> Result<()> {
        let path = self.dir.join(format!("{name}.lock"));
        let Ok(file) = File::open(&path) else { return Ok(()) };
        Flock::lock(file, FlockArg::LockShared).map(drop).map_err(|(_, errno)| Error::File {
            what: "wait for",
            path,
            source: errno.into(),
        })
    }

    /// Where the session called `name` listens.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.sock"))
    }

    /// Where the measured capacity of this machine is kept.
    pub fn capacity(&self) -> PathBuf {
        self.dir.join("capacity.json")
    }

    /// The one session called `name`, or the only session there is.
    ///
    /// # Errors
    /// [`Error::NoSession`] when there is none, or several and no name.
    pub fn find(&self, name: Option<&str>) -> Result<(String, PathBuf)> {
        let sessions = self.sessions()?;
        let names = || sessions.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        match name {
            Some(name) => sessions.iter().find(|(found, _)| found == name).cloned().ok_or_else(|| {
                Error::NoSession(match sessions.is_empty() {
                    true => format!("no session called `{name}`: none is running"),
                    false => format!("no session called `{name}`; running: {}", names()),
                })
            }),
            None => match sessions.as_slice() {
                [one] => Ok(one.clone()),
                [] => Err(Error::NoSession("no session is running".into())),
                _ => Err(Error::NoSession(format!(
                    "several sessions are running, so name one with --session: {}",
                    names()
                ))),
            },
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        // Removed while still locked: see `claim` for what a racing claimant makes of that.
        if is_same_file(&self.lock, &self.lock_path) {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

fn open_lock(path: &PathBuf) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::file("create", path))
}

fn is_same_file(file: &File, path: &PathBuf) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

fn read_pid(file: &mut File) -> u32 {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text.trim().parse().unwrap_or(0)
}

fn is_alive(pid: u32) -> bool {
    pid > 0 && PathBuf::from(format!("/proc/{pid}")).exists()
}

/// The lock of a session that is gone; exclusive, so that only one of several reapers removes its files.
fn lock_if_stale(lock_path: &PathBuf) -> Option<Flock<File>> {
    Flock::lock(File::open(lock_path).ok()?, FlockArg::LockExclusiveNonblock).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (tempfile::TempDir, Registry) {
        let base = tempfile::tempdir().unwrap();
        let registry = Registry::open_in(base.path(), geteuid()).unwrap();
        (base, registry)
    }

    #[test]
    fn a_name_can_be_claimed_once_and_again_after_release() {
        let (_base, registry) = registry();
        let claim = registry.claim("paper").unwrap();
        assert!(
            matches!(registry.claim("paper"), Err(Error::NameTaken { pid, .. }) if pid == std::process::id())
        );
        drop(claim);
        registry.claim("paper").unwrap();
    }

    #[test]
    fn what_a_killed_session_leaves_is_reaped() {
        let (_base, registry) = registry();
        fs::write(registry.dir.join("gone.lock"), "1").unwrap();
        fs::write(registry.dir.join("gone.sock"), "").unwrap();
        assert!(registry.sessions().unwrap().is_empty());
        assert_eq!(fs::read_dir(&registry.dir).unwrap().count(), 0);
    }

    #[test]
    fn without_a_name_the_only_session_is_meant() {
        let (_base, registry) = registry();
        assert!(matches!(registry.find(None), Err(Error::NoSession(_))));
        let one = registry.claim("one").unwrap();
        fs::write(&one.socket, "").unwrap();
        assert_eq!(registry.find(None).unwrap().0, "one");
        let two = registry.claim("two").unwrap();
        fs::write(&two.socket, "").unwrap();
        let error = registry.find(None).unwrap_err().to_string();
        assert!(error.contains("one, two"), "{error}");
        assert_eq!(registry.find(Some("two")).unwrap().0, "two");
        assert!(registry.find(Some("three")).is_err());
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join(format!("dtwn-{}", geteuid()));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Registry::open_in(base.path(), geteuid()), Err(Error::Machine { .. })));
    }
}
