//! Results as a table for people and as JSON for programs.

use std::{fs, path::Path};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Result, load::Load, machine};

/// One figure beside what it is measured against.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The block it belongs to: `rate`, `delay`, ….
    pub block: &'static str,
    /// What ran beside it.
    pub load: &'static str,
    /// What was measured.
    pub what: String,
    /// The figure, for people.
    pub measured: String,
    /// What it is measured against.
    pub reference: String,
    /// Whether the target is met; `None` where there is none.
    pub met: Option<bool>,
    /// CPU time of the session's process in per cent of one core.
    pub cpu_percent: Option<f64>,
    /// The verdict that dtwn gave.
    pub verdict: Option<String>,
    /// All figures behind the row, with units in their names.
    pub figures: Value,
}

impl Row {
    /// An empty row of a block.
    pub fn new(block: &'static str, load: Load, what: impl Into<String>) -> Self {
        Self { block, load: load.name(), what: what.into(), ..Self::default() }
    }

    fn cells(&self) -> [String; 6] {
        let met = match self.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        [
            self.what.clone(),
            self.measured.clone(),
            self.reference.clone(),
            met.to_owned(),
            self.cpu_percent.map_or("-".to_owned(), |cpu| format!("{cpu:.0} %")),
            self.verdict.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

const HEADERS: [&str; 6] = ["what", "measured", "reference or target", "met", "CPU", "verdict"];

/// How results leave a benchmark.
#[derive(Debug, Clone, clap::Args)]
pub struct Output {
    /// Less of everything, in under a minute: to see that the benchmark works, not for figures.
    #[arg(long)]
    pub quick: bool,
    /// Write everything measured to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
    /// Print tables in Markdown.
    #[arg(long)]
    pub markdown: bool,
    /// What cargo adds for any benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The results of a benchmark.
pub struct Report {
    name: &'static str,
    machine: Value,
    quick: bool,
    rows: Vec<Row>,
}

impl Report {
    /// An empty report on this machine as it is before the benchmark.
    pub fn new(name: &'static str, quick: bool) -> Self {
        Self { name, machine: machine::describe(), quick, rows: Vec::new() }
    }

    /// Adds figures, and shows them on standard error as progress.
    pub fn add(&mut self, rows: Vec<Row>) {
        for row in &rows {
            eprintln!("{} ({}): {}", row.block, row.load, row.cells().join(" | "));
        }
        self.rows.extend(rows);
    }

    /// Prints the tables, one for each block and load, and writes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self, output: &Output) -> Result<()> {
        println!("{}{}", machine::sentence(&self.machine), if self.quick { ", quick mode" } else { "" });
        for group in self.rows.chunk_by(|a, b| (a.block, a.load) == (b.block, b.load)) {
            println!("\n{} ({})\n", group[0].block, group[0].load);
            print_table(group, output.markdown);
        }
        if let Some(path) = &output.json {
            self.write(path)?;
        }
        Ok(())
    }

    fn write(&self, path: &Path) -> Result<()> {
        let report = json!({
            "schema": 1,
            "benchmark": self.name,
            "quick": self.quick,
            "machine": self.machine,
            "rows": self.rows,
        });
        fs::write(path, format!("{report:#}\n"))
            .map_err(|error| format!("{}: {error}", path.display()).into())
    }
}

fn print_table(rows: &[Row], markdown: bool) {
    let mut lines = vec![HEADERS.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let widths: Vec<usize> = (0..HEADERS.len())
        .map(|i| lines.iter().map(|cells| cells[i].chars().count()).max().unwrap_or(0))
        .collect();
    for (number, cells) in lines.iter().enumerate() {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        if markdown {
            println!("| {} |", padded.join(" | "));
        } else {
            println!("{}", padded.join("  ").trim_end());
        }
        if number == 0 && markdown {
            println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
        }
    }
}
