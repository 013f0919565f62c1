//! Exit codes of `dtwn`. They are part of its interface: scripts may rely on them.

/// All went well.
pub const OK: u8 = 0;
/// A failure that none of the other codes names.
pub const FAILURE: u8 = 1;
/// The command line could not be understood.
pub const USAGE: u8 = 2;
/// The topology is wrong, or this machine cannot run it.
pub const CONFIGURATION: u8 = 96;
/// A check of the run failed.
pub const CHECK_FAILED: u8 = 100;
/// A node failed.
pub const NODE_FAILED: u8 = 101;
/// `--strict-fidelity` was given and the verdict is not `ok`.
pub const FIDELITY: u8 = 102;
/// Output could not be written.
pub const OUTPUT: u8 = 110;
/// Added to a signal's number when that signal ended the run: 130 for SIGINT, 143 for SIGTERM.
pub const SIGNAL_BASE: u8 = 128;
