//! `dtwn logs`: what a node's process printed.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use dtwn_proto::control::{Request, Response};

use crate::{
    cli::LogsArgs,
    client::Client,
    error::{Error, Result},
    exit,
    session::RunFiles,
};

/// How often a followed log is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// Prints a log, and goes on until the session ends when told to follow.
///
/// # Errors
/// When there is no such session or node.
pub fn run(args: &LogsArgs) -> Result<u8> {
    let mut client = Client::connect(args.session.session.as_deref(), true)?;
    let Response::Status(status) = client.ask(&Request::Status)? else { return Err(client.surprise()) };
    let known = status.nodes.iter().any(|node| node.name == args.node) || args.node == "session";
    if !known {
        let names = status.nodes.iter().map(|node| node.name.as_str());
        let hint = dtwn_model::suggest(&args.node, names)
            .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        return Err(Error::Refused(format!("there is no node `{}` in {}{hint}", args.node, status.name)));
    }
    let path = RunFiles::log(&status.run_dir, &args.node);
    let mut offset = copy_from(&path, 0)?;
    if !args.follow {
        return Ok(exit::OK);
    }
    loop {
        // The session still answers: it may still write.
        let alive = client.ask(&Request::Status).is_ok();
        offset = copy_from(&path, offset)?;
        if !alive {
            return Ok(exit::OK);
        }
        std::thread::sleep(LOOK_PERIOD);
    }
}

fn copy_from(path: &Path, offset: u64) -> Result<u64> {
    let mut file = File::open(path).map_err(Error::file("read", path))?;
    file.seek(SeekFrom::Start(offset)).map_err(Error::file("read", path))?;
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; 64 * 1024];
    let mut copied = 0;
    loop {
        let got = file.read(&mut buffer).map_err(Error::file("read", path))?;
        if got == 0 {
            out.flush().map_err(Error::Output)?;
            return Ok(offset + copied);
        }
        out.write_all(&buffer[..got]).map_err(Error::Output)?;
        copied += got as u64;
    }
}
