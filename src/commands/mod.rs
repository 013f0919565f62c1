//! The verbs, one module each.

pub mod attach;
pub mod calibrate;
pub mod capture;
pub mod chain;
pub mod compare;
pub mod doctor;
pub mod down;
pub mod events;
pub mod exec;
pub mod figures;
pub mod graph;
pub mod headless;
pub mod logs;
pub mod manual;
pub mod model;
pub mod plan;
pub mod ps;
pub mod replay;
pub mod report;
pub mod runs;
pub mod simulate;
pub mod status;
pub mod steer;
pub mod train;
pub mod up;
pub mod validate;

use std::io::Write;

use serde::Serialize;

use crate::error::{Error, Result};

/// Prints a value as indented JSON on standard output.
fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Output(error.into()))?;
    print_line(&text)
}

/// Breaks prose into lines at spaces only, so that units and paths stay whole.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let options = textwrap::Options::new(columns)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

/// Prints a line on standard output; unlike `println!` it reports a full disk instead of panicking.
fn print_line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(Error::Output)
}
