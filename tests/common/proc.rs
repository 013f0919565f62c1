//! What the kernel knows of processes and namespaces.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Every process.
fn all() -> impl Iterator<Item = (i32, PathBuf)> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// Processes with `text` in their command line, zombies left out.
pub fn processes_with(text: &str) -> Vec<i32> {
    let has = |path: &Path| {
        fs::read(path.join("cmdline"))
            .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ").contains(text))
    };
    all().filter(|(_, path)| has(path)).map(|(pid, _)| pid).collect()
}

/// A set of namespaces, by the kernel's names (`net:[4026531840]`).
#[derive(Debug)]
pub struct Namespaces(BTreeSet<String>);

impl Namespaces {
    /// The namespaces that these processes are in and the calling one is not.
    pub fn of(pids: &[i32]) -> Self {
        let of = |path: &Path| -> BTreeSet<String> {
            ["net", "pid", "pid_for_children", "mnt", "user"]
                .iter()
                .filter_map(|kind| fs::read_link(path.join("ns").join(kind)).ok())
                .map(|link| link.to_string_lossy().into_owned())
                .collect()
        };
        let ours = of(Path::new("/proc/self"));
        let theirs = pids.iter().flat_map(|pid| of(Path::new(&format!("/proc/{pid}"))));
        Self(theirs.filter(|name| !ours.contains(name)).collect())
    }

    /// How many there are of a kind: `net`, `pid`, `mnt`, `user`.
    pub fn count(&self, kind: &str) -> usize {
        self.0.iter().filter(|name| name.split(':').next() == Some(kind)).count()
    }

    /// What still holds one of them: a process in it, an open descriptor, or a mount.
    pub fn holders(&self) -> Vec<String> {
        let mut holders = Vec::new();
        for (pid, path) in all() {
            for folder in ["ns", "fd"] {
                for entry in fs::read_dir(path.join(folder)).into_iter().flatten().filter_map(Result::ok) {
                    if let Ok(link) = fs::read_link(entry.path())
                        && self.0.contains(&*link.to_string_lossy())
                    {
                        holders.push(format!("process {pid}: {}", link.display()));
                    }
                }
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        holders.extend(
            mounts.lines().filter(|line| self.0.iter().any(|name| line.contains(name))).map(Into::into),
        );
        holders
    }
}
