//! The report of a recorded run: one HTML file that needs nothing else, no script and no network, for screen and paper.
//!
//! [`collect`] reads the events once, [`figures`] and [`tables`] say what came of them, [`html`] escapes.

mod collect;
mod figures;
mod html;
mod plot;
mod series;
mod tables;

use std::path::Path;

use dtwn_proto::event::Verdict;
use serde_json::Value;

use self::{
    collect::{Collected, End},
    figures::Figures,
    html::{escaped, paragraph, section},
};
use crate::{error::Result, tui::format};

/// The report of a run, a page of HTML.
///
/// # Errors
/// When its events cannot be read.
pub fn page(run_dir: &Path) -> Result<String> {
    let run = Collected::read(run_dir)?;
    let manifest = std::fs::read(run_dir.join("manifest.json")).ok();
    let manifest = manifest.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::Null);
    Ok(render(&run, &manifest, &crate::tui::replay::name_of(run_dir)))
}

fn render(run: &Collected, manifest: &Value, dir_name: &str) -> String {
    let started = run.data.run.started.as_ref();
    let name = started.map_or(dir_name, |started| started.name.as_str());
    let figures = Figures::draw(run);
    let sections = [
        ("made", "How it was made", tables::manifest(manifest)),
        ("happened", "What happened", tables::timeline(run)),
        ("rounds", "Rounds and transfers", figures.rounds + &tables::transfers(run)),
        ("air", "The air", figures.air + &tables::links(run)),
        ("chain", "The chain", figures.chain + &tables::chain(run)),
        ("twins", "Twins", or(figures.twins, "No BS reported the age of its twins.")),
        ("nodes", "Nodes and machine", figures.machine + &tables::nodes(run)),
        ("fidelity", "Fidelity", tables::fidelity(run)),
    ];
    let mut body = format!(
        "<header><h1>{}</h1><p class=\"subtitle\">{}</p></header>\n{}",
        escaped(name),
        escaped(&subtitle(run, dir_name)),
        verdict(run)
    );
    let entries = sections.iter().map(|(id, heading, _)| format!("<li><a href=\"#{id}\">{heading}</a></li>"));
    body += &format!("<nav><ul>{}</ul></nav>\n<main>\n", entries.collect::<String>());
    for (id, heading, html) in &sections {
        body += &section(id, heading, html);
    }
    body += &format!(
        "</main>\n<footer>Made by dtwn {} from {} recorded events. Times and rates are emulated unless they say otherwise. \
         Red dashes in figures over time are faults and interventions.</footer>\n",
        dtwn_proto::VERSION,
        run.events
    );
    html::page(&format!("{name} · dtwn report"), &body)
}

fn or(html: String, otherwise: &str) -> String {
    if html.is_empty() { paragraph(otherwise) } else { html }
}

fn subtitle(run: &Collected, dir_name: &str) -> String {
    let state = &run.data.run;
    let (seed, dilation) =
        state.started.as_ref().map_or((0, 1.0), |started| (started.seed, started.dilation));
    format!(
        "{dir_name}: {} nodes, {} links, {} emulated, {} rounds, seed {seed}, dilation {dilation}",
        state.nodes.len(),
        state.links.len(),
        format::span(state.now_ns.max(0) as f64 / 1e9),
        state.rounds
    )
}

fn verdict(run: &Collected) -> String {
    let state = &run.data.run;
    let fidelity = &state.fidelity;
    let meaning = match fidelity.verdict {
        Verdict::Ok => "the machine kept up with the network described",
        Verdict::Degraded => "some deliveries were late, or computing took longer than it should have",
        Verdict::Invalid => "figures are not those of the network described",
    };
    let reasons: String =
        fidelity.reasons.iter().map(|reason| format!("<li>{}</li>", escaped(reason))).collect();
    let end = match &run.end {
        End::Over => {
            let reason = state.ended.as_ref().map(format::end_reason).unwrap_or_default();
            format!("The run {}.", if reason == "finished" { reason } else { format!("was {reason}") })
        }
        End::Running => "The run still goes on: this is what was recorded so far.".into(),
        End::CutOff(Some(at)) => {
            format!(
                "The recording was cut off, and is torn at byte {at}: this is what came before. Its end is not known."
            )
        }
        End::CutOff(None) => "The recording was cut off: the end of the run is not in it.".into(),
    };
    format!(
        "<div class=\"verdict {0}\" role=\"status\"><strong>Fidelity {0}</strong>: {meaning}.{1}<p>{2}</p></div>\n",
        fidelity.verdict,
        if reasons.is_empty() { String::new() } else { format!("<ul>{reasons}</ul>") },
        escaped(&end)
    )
}
