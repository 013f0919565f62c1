//! `dtwn down`: ends sessions.

use dtwn_proto::control::Request;

use crate::{cli::DownArgs, client::Client, error::Result, exit, registry::Registry};

/// Ends one session, or all; returns when nothing of them is left.
///
/// # Errors
/// When there is no such session, or one does not answer.
pub fn run(args: &DownArgs) -> Result<u8> {
    let registry = Registry::open()?;
    let sessions = match args.all {
        true => registry.sessions()?,
        false => vec![registry.find(args.name.as_deref())?],
    };
    if sessions.is_empty() {
        eprintln!("no session is running");
    }
    for (name, socket) in sessions {
        let mut client = Client::connect_to(name.clone(), &socket, false)?;
        client.order(&Request::Stop { signal: None })?;
        registry.wait_until_gone(&name)?;
        eprintln!("{name} has ended; recorded in {}", client.run_dir.display());
    }
    Ok(exit::OK)
}
