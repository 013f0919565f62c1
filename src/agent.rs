//! `dtwn __agent`: the process of a node that does not learn.

use crate::error::Result;

/// Runs the node that the session on standard input names, until the session says stop or goes.
///
/// # Errors
/// When the session speaks another language, or the node cannot work.
pub fn run() -> Result<()> {
    use std::os::{fd::AsFd, unix::net::UnixStream};

    use dtwn_proto::{
        agent::{FromAgent, ToAgent},
        frame,
    };
    let fd = std::io::stdin().as_fd().try_clone_to_owned();
    let mut stream =
        UnixStream::from(fd.map_err(crate::error::Error::file("duplicate", "the session's socket"))?);
    let broken =
        |source| crate::error::Error::Conversation { name: "that started this agent".into(), source };
    let hello = FromAgent::Hello { program: "dtwn".into(), version: dtwn_proto::VERSION.into() };
    frame::write(&mut stream, &hello).map_err(broken)?;
    loop {
        match frame::read::<ToAgent>(&mut stream) {
            Ok(ToAgent::Start(config)) => {
                tracing::info!(node = config.node, boot = config.boot, "started");
                frame::write(&mut stream, &FromAgent::Ready).map_err(broken)?;
            }
            Ok(ToAgent::Stop) | Err(frame::FrameError::Closed) => return Ok(()),
            Err(source) => return Err(broken(source)),
        }
    }
}
