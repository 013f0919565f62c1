//! Where the log lines of dtwn's programs go.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Log lines go to standard error; `DTWN_LOG` chooses which (`debug`, `dtwn::session=trace`). Called once, by `main`.
pub fn start() {
    let filter = EnvFilter::try_from_env("DTWN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A session's standard error is a file: when its disk is full, complaining there would panic and end the run.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
}
