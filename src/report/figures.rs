//! The figures of a report. Each says where its values come from.

use dtwn_proto::event::{GlobalModel, Level};

use super::{
    collect::{Collected, LOSS_PACKETS_MIN, LinkSeries},
    html::{escaped, figure},
    plot::{LINES_MAX, Line, Plot, Style, number, ticks},
    series::Series,
};

const TIME: &str = "emulated time (s)";

/// Lanes of the timeline; what has none of its own shares the last.
const LANES_MAX: usize = 12;

/// What disturbed the run, one lane for each node or link, over emulated time.
pub fn timeline(run: &Collected) -> String {
    let mut lanes: Vec<&str> = Vec::new();
    for entry in &run.faults {
        if !lanes.contains(&entry.subject.as_str()) {
            lanes.push(&entry.subject);
        }
    }
    if lanes.is_empty() {
        return String::new();
    }
    let shared = lanes.len() > LANES_MAX;
    lanes.truncate(if shared { LANES_MAX - 1 } else { LANES_MAX });
    let rows = lanes.len() + usize::from(shared);
    let (width, left, step) = (760.0, 120.0, 22.0);
    let (right, bottom) = (width - 16.0, step * rows as f64 + 6.0);
    let span_s = (run.data.run.now_ns as f64 / 1e9).max(1e-9);
    let x = |at_s: f64| left + (at_s.max(0.0) / span_s).min(1.0) * (right - left);
    let y = |lane: usize| step * lane as f64 + step / 2.0 + 4.0;
    let heading = "Faults and interventions";
    let mut svg = format!(
        "<svg class=\"plot\" role=\"img\" viewBox=\"0 0 {width} {0}\" width=\"{width}\" height=\"{0}\" \
         xmlns=\"http://www.w3.org/2000/svg\"><title>{heading}</title>",
        bottom + 42.0
    );
    let others = if shared { Some("others") } else { None };
    for (lane, name) in lanes.iter().copied().chain(others).enumerate() {
        let short: String = if name.chars().count() > 16 {
            name.chars().take(15).chain(['…']).collect()
        } else {
            name.into()
        };
        let at = y(lane);
        svg += &format!("<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at}\" y2=\"{at}\"/>");
        svg += &format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            left - 10.0,
            at + 4.0,
            escaped(&short)
        );
    }
    for entry in &run.faults {
        let lane = lanes.iter().position(|name| *name == entry.subject).unwrap_or(lanes.len());
        let class = match entry.level {
            Level::Error => "event",
            Level::Warning => "event other",
            Level::Info => "event mended",
        };
        let at_s = entry.at_ns as f64 / 1e9;
        svg += &format!(
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{}\" r=\"5\"><title>{at_s:.3} s: {}</title></circle>",
            x(at_s),
            y(lane),
            escaped(&entry.text)
        );
    }
    svg += &format!("<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
    for tick in ticks(0.0, span_s, 8).into_iter().filter(|tick| *tick <= span_s) {
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(tick),
            bottom + 17.0,
            number(tick)
        );
    }
    svg += &format!(
        "<text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{TIME}</text></svg>",
        (left + right) / 2.0,
        bottom + 36.0
    );
    figure(
        heading,
        &svg,
        "From the recorded events: red where something failed, ochre where somebody interfered or a process was started again, \
         green where something was put right. The table below says what each was.",
    )
}

/// What all figures over time share.
struct Times<'a> {
    span: (f64, f64),
    marks: &'a [f64],
}

impl Times<'_> {
    fn figure(&self, heading: &str, y_label: &str, lines: Vec<Line>, style: Style, caption: &str) -> String {
        let plot = Plot {
            title: heading,
            x_label: TIME,
            y_label,
            lines,
            style,
            marks: self.marks,
            x_span: Some(self.span),
            whole_x: false,
        };
        plot.svg().map_or(String::new(), |svg| figure(heading, &svg, caption))
    }
}

/// All figures over time and rounds, by the section that they belong to.
pub struct Figures {
    /// Of the air.
    pub air: String,
    /// Of processes.
    pub machine: String,
    /// Of rounds.
    pub rounds: String,
    /// Of learning.
    pub learning: String,
    /// Of twins.
    pub twins: String,
    /// Of the chain.
    pub chain: String,
}

impl Figures {
    /// Draws them.
    pub fn draw(run: &Collected) -> Self {
        let marks: Vec<f64> = run.faults.iter().map(|entry| entry.at_ns as f64 / 1e9).collect();
        let times = Times { span: (0.0, run.data.run.now_ns as f64 / 1e9), marks: &marks };
        Self {
            air: air(run, &times),
            machine: machine(run, &times),
            rounds: rounds(run),
            learning: learning(run),
            twins: twins(run, &times),
            chain: chain(run, &times),
        }
    }
}

fn line(name: &str, series: &Series) -> Line {
    Line { name: name.to_owned(), points: series.points().to_vec() }
}

/// What a caption says of thinned values.
fn thinned(series: Option<&Series>) -> String {
    match series.map_or(1, Series::stride) {
        1 => String::new(),
        stride => format!(" Each point stands for {stride} samples."),
    }
}

fn air(run: &Collected, times: &Times<'_>) -> String {
    let mut busiest: Vec<_> = run.data.run.links.values().filter(|link| link.counters.bytes > 0).collect();
    busiest.sort_by_key(|link| std::cmp::Reverse(link.counters.bytes));
    let names: Vec<_> = busiest.iter().take(LINES_MAX).map(|link| link.info.name.as_str()).collect();
    let lines = |of: fn(&LinkSeries) -> &Series| -> Vec<Line> {
        let series = names.iter().filter_map(|name| Some((*name, run.links.get(*name)?)));
        series.map(|(name, series)| line(name, of(series))).collect()
    };
    let which = match busiest.len() {
        0 => return String::new(),
        count if count > LINES_MAX => format!("The {LINES_MAX} of {count} links that carried most."),
        _ => "Every link that carried anything.".to_owned(),
    };
    let about = thinned(run.links.values().next().map(|link| &link.busy));
    let mut html = times.figure(
        "Carried by the busiest links",
        "carried (Mbit/s)",
        lines(|link| &link.carried_mbps),
        Style::Lines,
        &format!(
            "{which} Bytes of IP that the medium delivered between two samples, over emulated time.{about}"
        ),
    );
    html += &times.figure(
        "Utilisation of the busiest links",
        "transmitter busy (%)",
        lines(|link| &link.busy),
        Style::Lines,
        &format!("Share of the time between two samples that the link's transmitter was sending, by the medium's meters.{about}"),
    );
    html += &times.figure(
        "Loss on the busiest links",
        "packets lost (%)",
        lines(|link| &link.lost),
        Style::Lines,
        &format!("Packets dropped, whatever the cause, over packets that reached the link between two samples; samples of fewer than \
             {LOSS_PACKETS_MIN} packets are left out.{about}"),
    );
    html += &times.figure(
        "Carried by all links together",
        "carried (Mbit/s)",
        vec![line("all links", &run.carried_mbps)],
        Style::Lines,
        &format!("A packet that takes two links counts on each.{}", thinned(Some(&run.carried_mbps))),
    );
    html + &times.figure(
        "Lateness of deliveries",
        "99th percentile (µs)",
        vec![line("lateness, p99 of each sample", &run.lateness_us)],
        Style::Lines,
        &format!(
            "How much later than due packets were delivered, emulated: what the host adds to the network described. It decides \
             the verdict together with drops by the host.{}",
            thinned(Some(&run.lateness_us))
        ),
    )
}

fn machine(run: &Collected, times: &Times<'_>) -> String {
    let most = |of: fn(&super::collect::NodeSeries) -> &Series| -> Vec<Line> {
        let sum = |series: &Series| series.points().iter().map(|(_, value)| value).sum::<f64>();
        let mut nodes: Vec<_> = run.nodes.iter().filter(|(_, node)| !of(node).points().is_empty()).collect();
        nodes.sort_by(|a, b| sum(of(b.1)).total_cmp(&sum(of(a.1))));
        nodes.into_iter().take(LINES_MAX).map(|(name, node)| line(name, of(node))).collect()
    };
    let count = run.data.run.nodes.len();
    let which = match count + 1 > LINES_MAX {
        true => format!("The {LINES_MAX} largest of {count} nodes and the session."),
        false => "Every node, and the session.".to_owned(),
    };
    times.figure(
        "CPU",
        "share of one core (%)",
        most(|node| &node.cpu),
        Style::Lines,
        &format!(
            "{which} CPU time, user and system, between two samples over wall time, as the kernel counts it. The session holds the \
             medium."
        ),
    ) + &times.figure(
        "Memory",
        "resident (MiB)",
        most(|node| &node.rss_mib),
        Style::Lines,
        &format!("The {} largest nodes. Resident set of each process at each sample, as the kernel counts it.", LINES_MAX.min(count)),
    )
}

fn rounds(run: &Collected) -> String {
    let by = |value: fn(&super::collect::RoundPoint) -> Option<f64>| -> Vec<(f64, f64)> {
        run.rounds.iter().filter_map(|point| Some((point.round.round as f64, value(point)?))).collect()
    };
    let all = [
        ("measured: announcement to end", by(|point| Some(point.round.duration_ms / 1000.0))),
        ("predicted: Eq. 17, decision in force", by(|point| point.decided_ms.map(|ms| ms / 1000.0))),
        ("model down and up, measured", by(|point| point.air_ms.map(|(_, measured)| measured / 1000.0))),
        ("model down and up, predicted", by(|point| point.air_ms.map(|(predicted, _)| predicted / 1000.0))),
    ];
    let lines = all.into_iter().filter(|(_, points)| !points.is_empty());
    let lines = lines.map(|(name, points)| Line { name: name.into(), points }).collect();
    let heading = "Rounds, measured beside predicted";
    let plot = Plot {
        title: heading,
        x_label: "round",
        y_label: "duration (s)",
        lines,
        style: Style::Dots,
        marks: &[],
        x_span: None,
        whole_x: true,
    };
    let caption = "Emulated seconds. A round is measured at the MBS. Model down and up: for the BS that took longest, as receivers \
                   measured both transfers and as Eqs. 8 and 7 predict them for the rates in force.";
    plot.svg().map_or(String::new(), |svg| figure(heading, &svg, caption))
}

fn learning(run: &Collected) -> String {
    let globals = &run.data.run.learning.globals;
    let by = |value: fn(&GlobalModel) -> Option<f64>| -> Vec<(f64, f64)> {
        globals.iter().filter_map(|model| Some((model.round as f64, value(model)?))).collect()
    };
    let dataset = globals.back().map_or("", |model| model.dataset.as_str());
    let about = format!(
        "The global model that the MBS made in each round, on a test set held back from training ({dataset}); round 0 is the model \
         that everything starts from. At most the latest 1024 rounds."
    );
    let draw = |heading: &str, y_label: &str, name: &str, points: Vec<(f64, f64)>| {
        let plot = Plot {
            title: heading,
            x_label: "round",
            y_label,
            lines: vec![Line { name: name.into(), points }],
            style: Style::Dots,
            marks: &[],
            x_span: None,
            whole_x: true,
        };
        plot.svg().map_or(String::new(), |svg| figure(heading, &svg, &about))
    };
    let accuracy = by(|model| model.test_accuracy.map(|share| share * 100.0));
    draw("Accuracy of the global model", "right answers (%)", "test accuracy", accuracy)
        + &draw("Loss of the global model", "loss (nats)", "test loss", by(|model| model.test_loss))
}

fn twins(run: &Collected, times: &Times<'_>) -> String {
    let lines: Vec<_> = run
        .twin_ages
        .iter()
        .filter(|(_, (p50, _))| !p50.points().is_empty())
        .take(LINES_MAX)
        .map(|(bs, (p50, _))| line(&format!("{bs}, median"), p50))
        .collect();
    let worst = run.twin_ages.iter().max_by(|a, b| {
        let top = |series: &Series| series.points().iter().map(|(_, value)| *value).fold(0.0, f64::max);
        top(&a.1.1).total_cmp(&top(&b.1.1))
    });
    let mut html = times.figure(
        "Age of twins",
        "median age (ms)",
        lines,
        Style::Lines,
        "How old the state is that a BS holds of its users, emulated, as each BS reports it. The first BSs of the topology.",
    );
    if let Some((bs, (_, p99))) = worst {
        html += &times.figure(
            "Oldest twins",
            "99th percentile (ms)",
            vec![line(&format!("{bs}, p99"), p99)],
            Style::Lines,
            "The BS that ever held the oldest twins.",
        );
    }
    html
}

fn chain(run: &Collected, times: &Times<'_>) -> String {
    let heights = run.heights.iter().take(LINES_MAX).map(|(node, series)| line(node, series)).collect();
    times.figure(
        "Finalized height",
        "height (blocks)",
        heights,
        Style::Steps,
        "The height that each node has finalized, as it reports. The first nodes that reported; lines that coincide agree.",
    ) + &times.figure(
        "Finality of transactions",
        "submission to finality (ms)",
        vec![line("mean of each report", &run.finality_ms)],
        Style::Lines,
        "From submission to finalization at the node that submitted, emulated, mean over the transactions of each report. \
         Percentiles over the run are in the table of the chain.",
    )
}
