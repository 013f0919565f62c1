//! What tests that drive the real program share: a user to run it as, sessions that end with the test, and patience.

#![allow(dead_code, reason = "each test binary uses its part")]

mod proc;
mod rig;
mod session;
mod tmux;

use std::time::{Duration, Instant};

pub use proc::{Namespaces, processes_with};
pub use rig::{Finished, Rig, Running};
pub use session::{Session, parse_events};
pub use tmux::Terminal;

/// How long anything may take. Far above what it should: the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something; panics with `what` when it never does.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes two tests of a function that takes a [`Rig`]: run as whoever runs the tests, and without privileges.
#[macro_export]
macro_rules! as_both {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn as_caller() {
                super::$name(&$crate::common::Rig::as_caller());
            }
            #[test]
            fn unprivileged() {
                super::$name(&$crate::common::Rig::unprivileged());
            }
        }
    )* };
}
