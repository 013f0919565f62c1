//! What a network needs of this machine, checked before anything is built.

use dtwn_sys::{
    SysError, tun,
    userns::{self, Privilege},
};
use nix::errno::Errno;

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
