//! `dtwn report`: a recorded run as one HTML file.

use std::{io::Write, path::Path};

use crate::{
    cli::ReportArgs,
    error::{Error, Result},
    exit, recording, report,
};

/// Writes the report of a recorded run.
///
/// # Errors
/// When there is no such run, its events cannot be read, or the file cannot be written.
pub fn run(args: &ReportArgs) -> Result<u8> {
    let run_dir = recording::find(&args.recorded.run, &args.recorded.out)?;
    let page = report::page(&run_dir)?;
    if args.output == Path::new("-") {
        std::io::stdout().write_all(page.as_bytes()).map_err(Error::Output)?;
    } else {
        std::fs::write(&args.output, page).map_err(Error::file("write", &args.output))?;
        eprintln!("written to {}", args.output.display());
    }
    Ok(exit::OK)
}
