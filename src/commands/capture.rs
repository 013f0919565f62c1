//! `dtwn capture`: packets as pcapng.

use std::{
    fs::File,
    io::IsTerminal,
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use dtwn_model::units::Interval;
use dtwn_proto::control::{CaptureOf, Request, Response};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::SignalFd,
    },
};

use crate::{
    cli::CaptureArgs,
    client::Client,
    error::{Error, Result},
    exit,
};

/// How long the session may take to write what it has recorded.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Records until interrupted, until the given time is over, or until the session ends.
///
/// # Errors
/// When there is no such session, node or link, or the file cannot be written.
pub fn run(args: &CaptureArgs) -> Result<u8> {
    let duration = args.duration.as_deref().map(parse_duration).transpose()?;
    // Blocked before recording starts, so that an interrupt at any moment ends it in order.
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        ends.add(signal);
    }
    ends.thread_block().map_err(|errno| Error::file("block", "signals")(errno.into()))?;

    let mut client = Client::connect(args.session.session.as_deref(), false)?;
    let output = open(&args.output)?;
    client.send(&Request::Capture { of: capture_of(args.what.as_deref()) })?;
    dtwn_sys::fdpass::send(client.socket(), &[output.as_fd()])?;
    match client.receive()? {
        Response::Capturing { .. } => {}
        Response::Refused(why) => return Err(Error::Refused(why)),
        _ => return Err(client.surprise()),
    }
    eprintln!("recording; interrupt to stop");
    wait(&ends, client.socket(), duration)?;
    let _ = client.socket().shutdown(Shutdown::Write);
    // The file is whole when the session says so; one that hangs never will.
    let _ = client.socket().set_read_timeout(Some(LAST_WORD));
    let _ = client.receive();
    Ok(exit::OK)
}

/// Waits for a signal, the end of the session (which closes the connection), or the end of the given time.
fn wait(ends: &SigSet, socket: &UnixStream, duration: Option<Duration>) -> Result<()> {
    let failed = |errno: Errno| Error::file("wait for", "the end of the capture")(errno.into());
    let signals = SignalFd::new(ends).map_err(failed)?;
    let mut events =
        [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let timeout = match duration {
        None => PollTimeout::NONE,
        Some(duration) => PollTimeout::try_from(duration).unwrap_or(PollTimeout::MAX),
    };
    poll(&mut events, timeout).map(drop).map_err(failed)
}

fn parse_duration(text: &str) -> Result<Duration> {
    let interval: Interval = text.parse().map_err(|error| Error::Usage {
        what: format!("--duration {text}: {error}"),
        help: "write a time with its unit, like 10s".into(),
    })?;
    Ok(interval.in_wall(1.0))
}

fn open(path: &Path) -> Result<OwnedFd> {
    if path != Path::new("-") {
        return File::create(path).map(OwnedFd::from).map_err(Error::file("create", path));
    }
    if std::io::stdout().is_terminal() {
        return Err(Error::Usage {
            what: "packets would be written to the terminal".into(),
            help: "name a file with --output, or pipe into `wireshark -k -i -`".into(),
        });
    }
    std::io::stdout().as_fd().try_clone_to_owned().map_err(Error::Output)
}

fn capture_of(what: Option<&str>) -> CaptureOf {
    match what {
        None => CaptureOf::Everything,
        Some(what) => match what.split_once([':', '>']) {
            Some((from, to)) => CaptureOf::Link { from: from.into(), to: to.into() },
            None => CaptureOf::Node(what.into()),
        },
    }
}
