//! The figures of a report. Each says where its values come from.

use super::{
    collect::{Collected, LinkSeries},
    html::figure,
    plot::{LINES_MAX, Line, Plot, Style},
    series::Series,
};

const TIME: &str = "emulated time (s)";

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
        &format!("Packets dropped, whatever the cause, over packets that reached the link between two samples.{about}"),
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
        ("models on the air, measured", by(|point| point.air_ms.map(|(_, measured)| measured / 1000.0))),
        ("models on the air, predicted", by(|point| point.air_ms.map(|(predicted, _)| predicted / 1000.0))),
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
    let caption = "Emulated seconds. A round is measured at the MBS. Models on the air: for the BS that took longest, the sum over \
                   its transfers of a model (down, up, relayed), as receivers measured them and as Eqs. 7, 8 and 15 predict them \
                   for the rates in force.";
    plot.svg().map_or(String::new(), |svg| figure(heading, &svg, caption))
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
