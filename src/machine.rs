//! What a network needs of this machine, checked before anything is built.

use std::{
    ffi::OsStr,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use dtwn_sys::{
    SysError,
    process::Placement,
    tun,
    userns::{self, Privilege},
};
use nix::{errno::Errno, unistd::AccessFlags};
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// AppArmor's switch that strips unprivileged user namespaces of their capabilities (Ubuntu 23.10 and later).
pub const APPARMOR_SWITCH: &str = "kernel.apparmor_restrict_unprivileged_userns";

/// Checks that TUN devices can be made.
///
/// # Errors
/// [`Error::Machine`] with what to do.
pub fn check_tun() -> Result<()> {
    tun::check_device().map_err(|errno| tun_error(errno, tun::DEVICE))
}

/// Moves this process into namespaces of its own.
///
/// # Errors
/// [`Error::Machine`] with what to do.
pub fn enter_namespaces() -> Result<Privilege> {
    let privilege = userns::privilege()?;
    match privilege {
        Privilege::Capable => userns::enter_mount_namespace()?,
        Privilege::Unprivileged => userns::enter_user_namespace().map_err(|error| userns_error(&error))?,
    }
    Ok(privilege)
}

/// What to do about a TUN device that cannot be opened.
pub fn tun_error(errno: Errno, device: &str) -> Error {
    let help = match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => format!(
            "load the driver with `sudo modprobe tun`; in a container, start it with `--device {device}`"
        ),
        Errno::EACCES | Errno::EPERM => {
            format!("run as root, or let users make TUN devices: `sudo chmod 0666 {device}`")
        }
        _ => "`dtwn doctor` checks what this machine offers".into(),
    };
    Error::Machine { what: format!("{device} cannot be opened for reading and writing: {errno}"), help }
}

/// What to do about user namespaces that cannot be entered.
pub fn userns_error(error: &SysError) -> Error {
    let restricted = dtwn_sys::sysctl::read(APPARMOR_SWITCH).is_ok_and(|value| value == "1");
    let help = if restricted {
        format!(
            "AppArmor restricts unprivileged user namespaces here: run as root, or allow them with \
             `sudo sysctl -w {APPARMOR_SWITCH}=0`"
        )
    } else {
        match error.errno() {
            Some(Errno::ENOSPC) => {
                "raise the limit: `sudo sysctl -w user.max_user_namespaces=10000`, or run as root".into()
            }
            _ => "run as root, or allow unprivileged user namespaces: \
                  `sudo sysctl -w kernel.unprivileged_userns_clone=1` where that setting exists; in a container, \
                  start it with `--privileged`"
                .into(),
        }
    };
    Error::Machine { what: format!("no namespaces for an unprivileged user: {error}"), help }
}

/// How many cores this process may use: affinity and cgroup quotas count.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A program of this name on PATH that we may run.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let found = |dir: PathBuf| Some(dir.join(name)).filter(|path| is_program(path));
    std::env::split_paths(&std::env::var_os("PATH")?).find_map(found)
}

/// Whether a path is a file that we may run.
pub fn is_program(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, AccessFlags::X_OK).is_ok()
}

/// Runs a command and reads the one JSON value that it prints.
///
/// # Errors
/// When it cannot start, prints something else, or takes longer than `patience`; it is killed then.
pub fn ask<T: DeserializeOwned>(mut command: Command, patience: Duration) -> Result<T> {
    let program = Path::new(command.get_program()).to_owned();
    let name = program.file_name().map_or("it".into(), OsStr::to_string_lossy).into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Placement::new().die_with_parent().apply(&mut command);
    let mut child = command.spawn().map_err(Error::file("start", &program))?;
    let (said, heard) = mpsc::sync_channel(1);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let complaints = thread::spawn(move || read_all(stderr));
    thread::spawn(move || said.send(read_all(stdout)));
    let answer = heard.recv_timeout(patience);
    if answer.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(Error::file("wait for", &program))?;
    let complaints = complaints.join().unwrap_or_default();
    let failed = |what: String| Error::Machine {
        what,
        help: match complaints.trim() {
            "" => "nothing was said about why".into(),
            text => format!("it said: {}", text.lines().last().unwrap_or(text)),
        },
    };
    let answer = answer.map_err(|_| failed(format!("{name} gave no answer in {} s", patience.as_secs())))?;
    serde_json::from_str(&answer).map_err(|_| failed(format!("{name} gave no proper answer ({status})")))
}

/// What a child has to say, up to a bound: it is trusted no further than that.
fn read_all(from: Option<impl Read>) -> String {
    const BYTES_MAX: u64 = 1 << 20;
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let _ = from.take(BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn answers_are_read_and_silence_is_reported() {
        let patience = Duration::from_secs(20);
        assert_eq!(ask::<Vec<u32>>(shell("echo '[1, 2]'"), patience).unwrap(), [1, 2]);

        let error = ask::<Vec<u32>>(shell("echo no; echo why >&2; exit 3"), patience).unwrap_err();
        let Error::Machine { what, help } = error else { panic!("{error}") };
        assert!(what.contains("sh gave no proper answer (exit status: 3)"), "{what}");
        assert_eq!(help, "it said: why");

        let error = ask::<Vec<u32>>(shell("exec sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
    }

    #[test]
    fn only_what_may_run_is_a_program() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no-such-program-anywhere").is_none());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_program(file.path()) && !is_program("/".as_ref()));
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let help = |error: Error| match error {
            Error::Machine { help, .. } => help,
            other => panic!("{other}"),
        };
        assert!(help(tun_error(Errno::EACCES, tun::DEVICE)).contains("chmod 0666 /dev/net/tun"));
        assert!(help(tun_error(Errno::ENOENT, tun::DEVICE)).contains("modprobe tun"));
        let full = SysError::Call { what: "create a user namespace".into(), source: Errno::ENOSPC };
        assert!(help(userns_error(&full)).contains("namespaces"));
    }
}
