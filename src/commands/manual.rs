//! `dtwn completions` and `dtwn man`.

use std::{fs, path::Path};

use clap::CommandFactory;

use crate::{
    cli::Cli,
    error::{Error, Result},
    exit,
};

/// Prints a completion script.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(shell: clap_complete::Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dtwn", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script).map_err(Error::Output)?;
    Ok(exit::OK)
}

/// Writes one manual page a verb.
///
/// # Errors
/// When the directory cannot be written.
pub fn pages(dir: &Path) -> Result<u8> {
    fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(Error::file("write", dir))?;
    Ok(exit::OK)
}
