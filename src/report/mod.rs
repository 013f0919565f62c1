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
        (
            "association",
            "Association",
            or(tables::association(run), "Nothing was decided on twins and subchannels in this run."),
        ),
        ("chain", "The chain", figures.chain + &tables::chain(run)),
        ("learning", "Learning", figures.learning + &tables::learning(run)),
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

#[cfg(test)]
mod tests {
    use dtwn_proto::{
        event::{Event, GlobalModel, Level, What},
        log,
    };

    use super::*;
    use crate::{session::recorder::Recorder, tui::fixture};

    fn report(events: &[Event], cut_bytes: usize) -> String {
        let dir = tempfile::tempdir().unwrap();
        let mut file = log::header().to_vec();
        events.iter().for_each(|event| log::append(&mut file, event).unwrap());
        file.truncate(file.len() - cut_bytes);
        std::fs::write(Recorder::path(dir.path()), file).unwrap();
        page(dir.path()).unwrap()
    }

    #[test]
    fn every_part_is_there_and_a_missing_end_is_said() {
        let html = report(&fixture::events(), 0);
        for part in [
            "Fidelity degraded",
            "3.0 % of the packets of bs1&gt;mbs",
            "The recording was cut off",
            "There is no manifest.json",
            "Carried by the busiest links",
            "Lateness of deliveries",
            "Rounds, measured beside predicted",
            "Age of twins",
            "Finalized height",
            "ended unexpectedly: signal 9",
            "partition bs1 : bs2",
        ] {
            assert!(html.contains(part), "no {part}");
        }
        assert!(report(&fixture::events(), 3).contains("torn at byte"));
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    }

    #[test]
    fn learning_is_shown_where_there_was_any() {
        let mut events = fixture::events();
        events.retain(|event| !matches!(event.what, What::GlobalModel(_)));
        assert!(report(&events, 0).contains("Nothing was learned in this run"));
        let last = events.last().cloned().unwrap();
        events.extend((0..4_u64).map(|round| {
            let model = GlobalModel {
                round,
                dataset: "synthetic".into(),
                digest: "c0ffee".into(),
                accepted: vec!["bs1".into()],
                rejected: vec!["bs2".into()],
                late: vec![],
                test_loss: Some(2.3 - round as f64 / 10.0),
                test_accuracy: Some(0.1 + round as f64 / 8.0),
                aggregate_wall_ms: 4.0,
                restored: false,
            };
            Event { what: What::GlobalModel(model), ..last.clone() }
        }));
        let html = report(&events, 0);
        for part in
            ["Accuracy of the global model", "Loss of the global model", "c0ffee", "47.50 %", "synthetic"]
        {
            assert!(html.contains(part), "no {part}");
        }
    }

    #[test]
    fn what_a_run_says_never_becomes_markup() {
        let mut events = fixture::events();
        let evil = "<script>alert(1)</script>";
        for event in &mut events {
            match &mut event.what {
                What::SessionStarted(started) => {
                    started.name = evil.into();
                    started.nodes[1].name = evil.into();
                    started.links[0].name = evil.into();
                }
                What::Notice { level, text } => (*level, *text) = (Level::Error, evil.into()),
                What::Fidelity(fidelity) => fidelity.reasons = vec![evil.into()],
                What::LinkChanged { link, now, .. } => (*link, now.name) = (evil.into(), evil.into()),
                What::ChainProgress(report) => report.tip = evil.into(),
                _ => {}
            }
            event.node = event.node.replace("bs1", evil);
        }
        let html = report(&events, 0);
        assert!(!html.contains("<script"), "{html}");
        assert!(html.matches("&lt;script&gt;").count() > 5);
    }

    /// Colours of the style sheet, light then dark: the page and the lines.
    fn palettes() -> [Vec<[f64; 3]>; 2] {
        let css = include_str!("style.css");
        let (light, dark) = css.split_once("prefers-color-scheme: dark").unwrap();
        [light, dark].map(|part| {
            let names = ["--page:", "--s0:", "--s1:", "--s2:", "--s3:", "--s4:"];
            let colour = |name: &str| {
                let hex = part.split(name).nth(1).unwrap().trim().get(1..7).unwrap();
                let channel = |at: usize| {
                    let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
                    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
                };
                [channel(0), channel(2), channel(4)]
            };
            names.map(colour).to_vec()
        })
    }

    fn apply(matrix: &[[f64; 3]; 3], v: [f64; 3]) -> [f64; 3] {
        matrix.map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum())
    }

    /// OKLab (Ottosson 2020) of a linear colour.
    fn oklab(rgb: [f64; 3]) -> [f64; 3] {
        let lms = apply(
            &[
                [0.412_221_470_8, 0.536_332_536_3, 0.051_445_992_9],
                [0.211_903_498_2, 0.680_699_545_1, 0.107_396_956_6],
                [0.088_302_461_9, 0.281_718_837_6, 0.629_978_700_5],
            ],
            rgb.map(|channel| channel.clamp(0.0, 1.0)),
        );
        apply(
            &[
                [0.210_454_255_3, 0.793_617_785, -0.004_072_046_8],
                [1.977_998_495_1, -2.428_592_205, 0.450_593_709_9],
                [0.025_904_037_1, 0.782_771_766_2, -0.808_675_766],
            ],
            lms.map(f64::cbrt),
        )
    }

    /// Machado, Oliveira and Fernandes 2009, severity 1: as is, protanopia, deuteranopia, tritanopia.
    const VISIONS: [[[f64; 3]; 3]; 4] = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ];

    #[test]
    fn colours_of_lines_stay_apart_for_every_kind_of_colour_vision() {
        for palette in palettes() {
            let luminance = |[r, g, b]: [f64; 3]| 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
            let (page, lines) = (palette[0], &palette[1..]);
            for (index, line) in lines.iter().enumerate() {
                let (a, b) = (luminance(page), luminance(*line));
                // WCAG 2.2, 1.4.11: graphics.
                assert!(a.max(b) / a.min(b) >= 3.0, "line {index} on its page: {:.2}", a.max(b) / a.min(b));
                for (other_index, other) in lines.iter().enumerate().skip(index + 1) {
                    for (vision, matrix) in VISIONS.iter().enumerate() {
                        let (a, b) = (oklab(apply(matrix, *line)), oklab(apply(matrix, *other)));
                        let apart = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                        assert!(
                            apart >= 0.08,
                            "lines {index} and {other_index}, vision {vision}: {apart:.3}"
                        );
                    }
                }
            }
        }
    }
}
