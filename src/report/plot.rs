//! Plots over time and by number, as SVG that takes its colours from the page, so that one figure serves light, dark and print.
//!
//! Plotting crates write colours into their pictures or need a script in the page; this draws lines, bars and axes and no more.

use super::html::escaped;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;
/// Lines told apart by colour and dash.
pub const LINES_MAX: usize = 5;

/// A line of a plot.
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, in the order of x.
    pub points: Vec<(f64, f64)>,
}

/// How the points of a plot are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// By straight lines.
    Lines,
    /// Each keeps until the next.
    Steps,
    /// Dots, joined by thin lines.
    Dots,
}

/// A plot.
pub struct Plot<'a> {
    /// What it is called for those who do not see it.
    pub title: &'a str,
    /// What x is, with its unit.
    pub x_label: &'a str,
    /// What y is, with its unit.
    pub y_label: &'a str,
    /// At most [`LINES_MAX`].
    pub lines: Vec<Line>,
    /// How points are joined.
    pub style: Style,
    /// Moments to mark.
    pub marks: &'a [f64],
    /// What the x axis must hold at least.
    pub x_span: Option<(f64, f64)>,
    /// Whether x only takes whole numbers.
    pub whole_x: bool,
}

impl Plot<'_> {
    /// The picture; `None` when there is nothing to draw.
    pub fn svg(&self) -> Option<String> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        points().next()?;
        let (low, high) = self.x_span.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
        let x_low = points().map(|(x, _)| *x).fold(low, f64::min);
        let x_high = points().map(|(x, _)| *x).fold(high, f64::max);
        let y_high = points().map(|(_, y)| *y).fold(0.0, f64::max);
        let y_ticks = ticks(0.0, if y_high > 0.0 { y_high } else { 1.0 }, 5);
        let mut x_ticks = ticks(x_low, x_high, 8);
        x_ticks.retain(|x| *x >= x_low - 1e-9 && *x <= x_high + 1e-9);
        if self.whole_x {
            x_ticks.retain(|x| x.fract() == 0.0);
        }
        let top = y_ticks.last().copied().unwrap_or(1.0);
        let margin = if self.whole_x { 0.5 } else { 0.0 };
        let scale = Scale { x: (x_low - margin, (x_high + margin).max(x_low - margin + 1e-9)), y_high: top };
        let mut svg = format!(
            "<svg class=\"plot\" role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             xmlns=\"http://www.w3.org/2000/svg\"><title>{}</title>",
            escaped(self.title)
        );
        self.axes(&mut svg, &scale, &x_ticks, &y_ticks);
        for mark in self.marks.iter().filter(|mark| **mark >= x_low && **mark <= x_high) {
            let x = scale.x(*mark);
            svg += &format!(
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>",
                HEIGHT - BOTTOM
            );
        }
        for (index, line) in self.lines.iter().enumerate().take(LINES_MAX) {
            self.line(&mut svg, &scale, index, line);
        }
        svg += "</svg>";
        Some(svg + &self.legend())
    }

    fn axes(&self, svg: &mut String, scale: &Scale, x_ticks: &[f64], y_ticks: &[f64]) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in y_ticks {
            let y = scale.y(*tick);
            *svg +=
                &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            let text = number(*tick);
            *svg += &format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                y + 4.0
            );
        }
        for tick in x_ticks {
            let x = scale.x(*tick);
            *svg += &format!(
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>",
                bottom + 4.0
            );
            let text = number(*tick);
            *svg +=
                &format!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>", bottom + 17.0);
        }
        *svg +=
            &format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
        *svg += &format!(
            "<text class=\"label\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 6.0,
            escaped(self.x_label)
        );
        let middle = (TOP + bottom) / 2.0;
        *svg += &format!(
            "<text class=\"label\" x=\"14\" y=\"{middle:.1}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 14 {middle:.1})\">{}</text>",
            escaped(self.y_label)
        );
    }

    fn line(&self, svg: &mut String, scale: &Scale, index: usize, line: &Line) {
        let mut path = String::new();
        let mut before: Option<f64> = None;
        for (x, y) in &line.points {
            let (x, y) = (scale.x(*x), scale.y(*y));
            match before {
                None => path += &format!("M{x:.1} {y:.1}"),
                Some(_) if self.style == Style::Steps => path += &format!("H{x:.1}V{y:.1}"),
                Some(_) => path += &format!("L{x:.1} {y:.1}"),
            }
            before = Some(y);
        }
        *svg += &format!("<path class=\"line s{index}\" d=\"{path}\"/>");
        // A line of one point is invisible.
        if self.style == Style::Dots || line.points.len() == 1 {
            for (x, y) in &line.points {
                let (x, y) = (scale.x(*x), scale.y(*y));
                *svg += &format!("<circle class=\"dot s{index}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
            }
        }
    }

    fn legend(&self) -> String {
        let entries = self.lines.iter().enumerate().take(LINES_MAX).map(|(index, line)| {
            format!(
                "<li><svg width=\"28\" height=\"10\" aria-hidden=\"true\"><path class=\"line s{index}\" d=\"M1 5H27\"/>\
                 </svg>{}</li>",
                escaped(&line.name)
            )
        });
        format!("<ul class=\"legend\">{}</ul>", entries.collect::<String>())
    }
}

/// Where values come to lie.
struct Scale {
    x: (f64, f64),
    y_high: f64,
}

impl Scale {
    fn x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - y / self.y_high * (HEIGHT - TOP - BOTTOM)
    }
}

/// Round numbers from at most `low` to at least `high`, about `count` of them.
pub fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    // Far from zero, steps finer than this would be lost in the numbers themselves.
    let span = (high - low).max(high.abs() * 1e-6).max(1e-9);
    let raw = span / count as f64;
    let magnitude = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * magnitude).find(|step| *step >= raw * 0.999);
    let step = step.unwrap_or(10.0 * magnitude);
    let (first, last) = ((low / step).floor() as i64, (high / step * (1.0 - 1e-12)).ceil() as i64);
    (first..=last.max(first + 1)).map(|index| index as f64 * step).collect()
}

/// A number on an axis: short, and without rounding noise.
pub fn number(value: f64) -> String {
    let text = match value.abs() {
        0.0 => return "0".into(),
        v if v >= 1e6 => format!("{:.2}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.5}"),
    };
    let (digits, unit) = text.split_at(text.find(['M', 'k']).unwrap_or(text.len()));
    match digits.contains('.') {
        true => format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.')),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_range() {
        assert_eq!(ticks(0.0, 9.7, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.0, 1.0, 5).last(), Some(&1.0));
        assert_eq!(number(12_500.0), "12.5k");
        assert_eq!(number(0.25), "0.25");
        assert_eq!(number(100.0), "100");
        assert_eq!(number(2_000_000.0), "2M");
    }

    proptest! {
        #[test]
        fn everything_lies_inside_the_picture(
            points in proptest::collection::vec((-1e3..1e6_f64, 0.0..1e12_f64), 1..50)
        ) {
            let mut points = points;
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let plot = Plot {
                title: "a <b> & c", x_label: "time (s)", y_label: "rate", style: Style::Lines, marks: &[],
                x_span: None, whole_x: false, lines: vec![Line { name: "x".into(), points }],
            };
            let svg = plot.svg().unwrap();
            prop_assert!(svg.contains("a &lt;b&gt; &amp; c"));
            let path = svg.split("class=\"line s0\" d=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            for pair in path.split(['M', 'L']).filter(|pair| !pair.is_empty()) {
                let (x, y) = pair.split_once(' ').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                prop_assert!((LEFT - 0.1..=WIDTH - RIGHT + 0.1).contains(&x), "x {}", x);
                prop_assert!((TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&y), "y {}", y);
            }
        }
    }
}
