//! The commands' end of a session's control socket: blocking, one request at a time.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use dtwn_proto::{
    VERSION,
    control::{Hello, Request, Response},
    frame::{self, FrameError},
};

use crate::{
    error::{Error, Result},
    registry::Registry,
};

/// A connection to a session.
#[derive(Debug)]
pub struct Client {
    /// The session's name.
    pub name: String,
    /// Where it records.
    pub run_dir: PathBuf,
    // Not buffered: descriptors travel beside the byte that carries them, and reading ahead would lose them.
    stream: UnixStream,
}

impl Client {
    /// Connects to the session called `name`, or to the only one there is.
    ///
    /// # Errors
    /// When there is no such session, or it is of another version.
    pub fn connect(name: Option<&str>, read_only: bool) -> Result<Self> {
        let (name, socket) = Registry::open()?.find(name)?;
        Self::connect_to(name, &socket, read_only)
    }

    /// Connects to a session whose socket is known.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_to(name: String, socket: &Path, read_only: bool) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .map_err(|error| Error::NoSession(format!("the session {name} does not listen: {error}")))?;
        let mut client = Self { name, run_dir: PathBuf::new(), stream };
        let greeted = client.send(&Hello { version: VERSION.into(), read_only });
        // A session that refuses hangs up without listening: its reason says more than the broken pipe does.
        let answer = match client.receive() {
            Ok(answer) => answer,
            Err(error) => return Err(greeted.err().unwrap_or(error)),
        };
        match answer {
            Response::Welcome { version, run_dir, .. } if version == VERSION => {
                client.run_dir = run_dir;
                Ok(client)
            }
            Response::Welcome { version, .. } => {
                Err(Error::OtherVersion { name: client.name, theirs: version, ours: VERSION })
            }
            Response::Refused(why) => Err(Error::Refused(why)),
            _ => Err(client.surprise()),
        }
    }

    /// Asks for something and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Refused`] with the session's reason; [`Error::Conversation`] when the connection breaks.
    pub fn ask(&mut self, request: &Request) -> Result<Response> {
        self.send(request)?;
        match self.receive()? {
            Response::Refused(why) => Err(Error::Refused(why)),
            response => Ok(response),
        }
    }

    /// Asks for something that is simply done.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn order(&mut self, request: &Request) -> Result<()> {
        match self.ask(request)? {
            Response::Done => Ok(()),
            _ => Err(self.surprise()),
        }
    }

    /// The next message of the session.
    ///
    /// # Errors
    /// [`Error::Conversation`] when the connection breaks; it holds [`FrameError::Closed`] when the session has ended.
    pub fn receive(&mut self) -> Result<Response> {
        frame::read(&mut self.stream).map_err(|source| self.broken(source))
    }

    /// The socket itself, for descriptors that follow a message.
    pub fn socket(&self) -> &UnixStream {
        &self.stream
    }

    /// An error for an answer that does not fit the question.
    pub fn surprise(&self) -> Error {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "an answer to another question");
        self.broken(FrameError::Io(source))
    }

    /// Sends a message without waiting for an answer.
    ///
    /// # Errors
    /// [`Error::Conversation`] when the connection breaks.
    pub fn send(&mut self, message: &impl serde::Serialize) -> Result<()> {
        frame::write(&mut self.stream, message).map_err(|source| self.broken(source))
    }

    fn broken(&self, source: FrameError) -> Error {
        Error::Conversation { name: self.name.clone(), source }
    }
}
