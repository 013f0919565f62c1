//! `dtwn doctor`: what this machine offers, and what to do where it falls short.
//!
//! What a session needs is tried and not guessed: a child process enters the namespaces, makes a TUN and builds a small
//! network with the session's own code. Entering namespaces cannot be undone and needs a process without threads.

mod checks;
mod probe;

use std::{
    fs,
    io::{IsTerminal, Write},
};

use serde::Serialize;

use super::{print_json, wrap};
use crate::{
    capacity::{self, Answer},
    cli::{JsonArgs, ProbeWhat},
    error::{Error, Result},
    exit,
};

/// Schema of the JSON output.
const SCHEMA: u32 = 1;
/// Columns of the report.
const COLUMNS: usize = 80;
/// Columns before the text of a finding.
const INDENT: usize = 27;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    /// A network runs, but something is missing or in the way.
    Warning,
    /// No network can run.
    Problem,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    id: &'static str,
    status: Status,
    found: String,
    help: Option<String>,
}

impl Check {
    fn ok(id: &'static str, found: impl Into<String>) -> Self {
        Self { id, status: Status::Ok, found: found.into(), help: None }
    }

    fn warning(id: &'static str, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { id, status: Status::Warning, found: found.into(), help: Some(help.into()) }
    }

    fn problem(id: &'static str, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { id, status: Status::Problem, found: found.into(), help: Some(help.into()) }
    }
}

/// The whole of it.
#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    version: &'static str,
    kernel: String,
    can_run: bool,
    checks: Vec<Check>,
}

/// Checks the machine.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(args: &JsonArgs) -> Result<u8> {
    let checks = checks::all();
    let report = Report {
        schema: SCHEMA,
        version: dtwn_proto::VERSION,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        can_run: checks.iter().all(|check| check.status < Status::Problem),
        checks,
    };
    if args.json {
        print_json(&report)?;
    } else {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        std::io::stdout().write_all(render(&report, colour).as_bytes()).map_err(Error::Output)?;
    }
    Ok(if report.can_run { exit::OK } else { exit::CONFIGURATION })
}

/// Tries in a process of its own what a session needs, and prints JSON.
///
/// # Errors
/// When standard output cannot be written.
pub fn probe(what: ProbeWhat) -> Result<u8> {
    match what {
        ProbeWhat::Place => print_json(&probe::place())?,
        ProbeWhat::Capacity => print_json(&match capacity::measure() {
            Ok(capacity) => Answer::Measured(capacity),
            Err(error) => {
                let (what, help) = checks::in_words(&error);
                Answer::Failed { what, help }
            }
        })?,
    }
    Ok(exit::OK)
}

fn render(report: &Report, colour: bool) -> String {
    let mut text = format!("dtwn {} on Linux {}\n\n", report.version, report.kernel);
    for check in &report.checks {
        let (word, sgr) = match check.status {
            Status::Ok => ("ok", "32"),
            Status::Warning => ("warning", "33"),
            Status::Problem => ("problem", "1;31"),
        };
        let word = format!("{word:<8}");
        let word = if colour { format!("\x1b[{sgr}m{word}\x1b[0m") } else { word };
        let mut lead = format!("{word} {:<18}", check.id);
        let to_do = check.help.as_ref().map(|help| format!("-> {help}"));
        for part in [Some(&check.found), to_do.as_ref()].into_iter().flatten() {
            for line in wrap(part, COLUMNS - INDENT) {
                text.push_str(&format!("{lead}{line}\n"));
                lead = " ".repeat(INDENT);
            }
        }
    }
    let problems = report.checks.iter().filter(|check| check.status == Status::Problem).count();
    text.push_str(&match problems {
        0 => "\nA network can run here.\n".into(),
        1 => "\nNo network can run here: there is 1 problem.\n".into(),
        n => format!("\nNo network can run here: there are {n} problems.\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let long =
            "something that takes many more words to say than fit beside its name on one line of a terminal";
        Report {
            schema: SCHEMA,
            version: "1.2.3",
            kernel: "6.18.0".into(),
            can_run: false,
            checks: vec![
                Check::ok("cores", "2"),
                Check::warning("libtorch", long, "scripts/setup"),
                Check::problem("tun", "closed", long),
            ],
        }
    }

    #[test]
    fn every_line_fits_80_columns_and_names_what_to_do() {
        let text = render(&report(), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("\nok       cores             2\n"), "{text}");
        assert!(text.contains("-> scripts/setup\n") && text.ends_with("there is 1 problem.\n"), "{text}");
        assert!(!text.contains('\x1b') && render(&report(), true).contains("\x1b[33mwarning"));
    }

    #[test]
    fn the_json_names_status_and_help_of_each_check() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["checks"][0]["help"], serde_json::Value::Null);
        assert_eq!(json["checks"][2]["status"], "problem");
    }
}
