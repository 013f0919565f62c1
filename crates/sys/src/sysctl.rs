//! Kernel settings under `/proc/sys`. Those below `net` belong to the network namespace of the calling thread.

use std::{fs, path::PathBuf};

use crate::{Result, SysError};

fn path_of(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key.replace('.', "/"))
}

/// Writes a setting, named with dots (`net.ipv4.tcp_retries2`).
///
/// # Errors
/// When the kernel has no such setting, or does not let this namespace change it.
pub fn write(key: &str, value: &str) -> Result<()> {
    let path = path_of(key);
    fs::write(&path, value).map_err(|source| SysError::File { what: "write", path, source })
}

/// Reads a setting back, without the line's end.
///
/// # Errors
/// When the kernel has no such setting.
pub fn read(key: &str) -> Result<String> {
    let path = path_of(key);
    fs::read_to_string(&path).map(|text| text.trim_end().to_owned()).map_err(|source| SysError::File {
        what: "read",
        path,
        source,
    })
}
