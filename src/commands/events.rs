//! `dtwn events`: the stream that everything else is made from.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use dtwn_proto::{
    EVENT_SCHEMA,
    control::{Request, Response},
    event::Event,
    frame::FrameError,
    log::{LogError, Reader, Tail},
};

use super::print_line;
use crate::{
    cli::EventsArgs,
    client::Client,
    error::{Error, Result},
    exit,
    session::recorder::Recorder,
};

/// Prints the events of a session or of a recorded run.
///
/// # Errors
/// When there is neither, or the file is no event file.
pub fn run(args: &EventsArgs) -> Result<u8> {
    match args.name.as_deref().map(Path::new).filter(|path| path.is_dir()) {
        Some(run_dir) => from_file(&Recorder::path(run_dir), args),
        None => from_session(args),
    }
}

fn from_session(args: &EventsArgs) -> Result<u8> {
    let mut client = Client::connect(args.name.as_deref(), true)?;
    client.send(&Request::Subscribe { history: true })?;
    loop {
        match client.receive() {
            Ok(Response::Event(event)) => show(&event, args.json)?,
            Ok(Response::Live) if !args.follow => return Ok(exit::OK),
            Ok(Response::Refused(why)) => return Err(Error::Refused(why)),
            Ok(Response::Skipped(count)) => eprintln!("{count} events left out: this reader is too slow"),
            Ok(_) => {}
            Err(Error::Conversation { source: FrameError::Closed, .. }) => return Ok(exit::OK),
            Err(error) => return Err(error),
        }
    }
}

fn from_file(path: &PathBuf, args: &EventsArgs) -> Result<u8> {
    let wrap = |source: LogError| Error::Log { path: path.clone(), source };
    let file = File::open(path).map_err(Error::file("read", path))?;
    let mut reader = Reader::new(BufReader::new(file)).map_err(wrap)?;
    while let Some(event) = reader.next_event::<Event>().map_err(wrap)? {
        show(&event, args.json)?;
    }
    if let Some(Tail::Torn { at }) = reader.tail() {
        eprintln!("{}: torn at byte {at}; what came before it was shown", path.display());
    }
    Ok(exit::OK)
}

fn show(event: &Event, json: bool) -> Result<()> {
    let mut value = serde_json::to_value(event).map_err(|error| Error::Output(error.into()))?;
    if json {
        if let Some(object) = value.as_object_mut() {
            object.insert("schema".into(), EVENT_SCHEMA.into());
        }
        return print_line(&value.to_string());
    }
    let mut what = value["what"].take();
    let kind = what.as_object_mut().and_then(|what| what.remove("type"));
    let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("");
    let details = match what.as_object() {
        Some(what) => what.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "),
        None => String::new(),
    };
    // A sample of hundreds of links is for programs; a person wants to see that there was one.
    let short: String = details.chars().take(160).collect();
    let more = if short.len() < details.len() { " …" } else { "" };
    print_line(&format!("{:>12.6} {:<8} {kind:<16} {short}{more}", event.at_ns as f64 / 1e9, event.node))
}
