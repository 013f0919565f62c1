//! A figure as SVG and as CSV: mean lines over x with bands for their 95 % confidence intervals.
//!
//! `plotters` draws: axes, ticks and legends of a figure to publish are its trade. Its text needs no fonts at build time, as
//! the SVG only names them.

use std::{fmt::Write as _, fs, path::Path};

use plotters::prelude::*;

use crate::{
    commands::compare::study::half_width,
    error::{Error, Result},
};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (760, 460);
/// Okabe and Ito's colours, which stay apart for every kind of colour vision; their yellow darker, to be seen on white.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(150, 140, 30),
];

/// A line of a figure: for each x the values of all seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// x, and one value a seed.
    pub points: Vec<(f64, Vec<f64>)>,
}

impl Series {
    /// Empty.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), points: vec![] }
    }

    /// Adds a seed's value at the `at`-th x.
    pub fn add(&mut self, at: usize, x: f64, value: f64) {
        if self.points.len() <= at {
            self.points.resize_with(at + 1, || (x, vec![]));
        }
        self.points[at].0 = x;
        self.points[at].1.push(value);
    }

    /// As [`add`](Self::add), where x differs between seeds too: it becomes their mean.
    pub fn add_with_mean_x(&mut self, at: usize, x: f64, value: f64) {
        let before = self.points.get(at).map_or((0.0, 0), |(x, values)| (*x, values.len()));
        let mean = (before.0 * before.1 as f64 + x) / (before.1 + 1) as f64;
        self.add(at, mean, value);
    }

    /// x, mean and half the width of the 95 % confidence interval.
    fn summary(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        self.points
            .iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(x, values)| (*x, values.iter().sum::<f64>() / values.len() as f64, half_width(values)))
    }
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The name of its files, without extension.
    pub stem: &'static str,
    /// Its heading.
    pub title: String,
    /// What x is, with its unit.
    pub x_label: &'static str,
    /// What y is, with its unit.
    pub y_label: &'static str,
    /// Whether y is shown by its logarithm.
    pub log_y: bool,
    /// Its lines.
    pub series: Vec<Series>,
}

impl Figure {
    /// Writes `stem.svg` and `stem.csv` into a directory.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let write = |extension: &str, text: &str| {
            let path = dir.join(format!("{}.{extension}", self.stem));
            fs::write(&path, text).map_err(Error::file("write", &path))
        };
        write("csv", &self.csv())?;
        write("svg", &self.svg()?)
    }

    /// One row for each line and x: `series,x,mean,ci95,seeds`.
    fn csv(&self) -> String {
        let mut text = String::from("series,x,mean,ci95,seeds\n");
        for series in &self.series {
            for ((x, mean, ci95), (_, values)) in series.summary().zip(&series.points) {
                // As RFC 4180 has it: a name in quotes may hold commas.
                let name = series.name.replace('"', "\"\"");
                let _ = writeln!(text, "\"{name}\",{x},{mean},{ci95},{}", values.len());
            }
        }
        text
    }

    /// The picture.
    fn svg(&self) -> Result<String> {
        let mut text = String::new();
        let drawn = match self.log_y {
            true => {
                let (low, high) = self.y_range();
                self.draw(&mut text, (low..high).log_scale())
            }
            false => self.draw(&mut text, 0.0..self.y_range().1),
        };
        drawn.map_err(|e| Error::Output(std::io::Error::other(format!("{}: {e}", self.stem))))?;
        Ok(text)
    }

    fn draw<Y>(&self, text: &mut String, y: Y) -> std::result::Result<(), Box<dyn std::error::Error>>
    where
        Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
        Y::CoordDescType: plotters::coord::ranged1d::ValueFormatter<f64>,
    {
        let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let xs = || self.series.iter().flat_map(|s| s.points.iter().map(|(x, _)| *x));
        let (first, last) = (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max));
        let last = if last > first { last } else { first + 1.0 };
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 17))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(first..last, y)?;
        chart
            .configure_mesh()
            .x_desc(self.x_label)
            // Rounds and episodes are whole.
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_desc(self.y_label)
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS.into_iter().cycle()) {
            let summary: Vec<_> = series.summary().collect();
            let upper = summary.iter().map(|(x, mean, ci)| (*x, mean + ci));
            // A logarithm has no place for what the band would reach below zero.
            let lower = summary.iter().rev().map(|(x, mean, ci)| (*x, (mean - ci).max(mean * 0.01)));
            chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), colour.mix(0.2))])?;
            let line = summary.iter().map(|(x, mean, _)| (*x, *mean));
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
                .label(series.name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 13))
            .draw()?;
        area.present()?;
        Ok(())
    }

    /// What the y axis must hold.
    fn y_range(&self) -> (f64, f64) {
        let all = || self.series.iter().flat_map(Series::summary);
        let high = all().map(|(_, mean, ci)| mean + ci).fold(0.0, f64::max);
        let low = all().map(|(_, mean, _)| mean).filter(|mean| *mean > 0.0).fold(f64::INFINITY, f64::min);
        let high = if high > 0.0 { high } else { 1.0 };
        // Room above the lines for the legend.
        (if low.is_finite() { low / 2.0 } else { high / 10.0 }, high * if self.log_y { 4.0 } else { 1.25 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(log_y: bool) -> Figure {
        let mut series = Series::new("greedy");
        for (at, values) in [[1.0, 3.0], [2.0, 4.0]].into_iter().enumerate() {
            for value in values {
                series.add(at, at as f64 + 1.0, value);
            }
        }
        let (title, x_label, y_label) = ("a <title> & more".to_owned(), "round", "T (s)");
        Figure { stem: "fig", title, x_label, y_label, log_y, series: vec![series, Series::new("empty")] }
    }

    #[test]
    fn data_and_picture_hold_the_same_lines() {
        let dir = tempfile::tempdir().unwrap();
        figure(false).write(dir.path()).unwrap();
        let csv = fs::read_to_string(dir.path().join("fig.csv")).unwrap();
        // Two values one apart from their mean: 1.96·√(2/2).
        assert_eq!(csv, "series,x,mean,ci95,seeds\n\"greedy\",1,2,1.959964,2\n\"greedy\",2,3,1.959964,2\n");
        for log_y in [false, true] {
            let svg = figure(log_y).svg().unwrap();
            let document = roxmltree::Document::parse(&svg).unwrap();
            let of = |tag: &str| document.descendants().filter(|node| node.has_tag_name(tag)).count();
            assert!(of("polygon") >= 1 && of("polyline") >= 2, "{svg}");
            assert!(svg.contains("a &lt;title&gt; &amp; more") && svg.contains("greedy"));
        }
    }

    #[test]
    fn nothing_to_draw_is_still_a_picture() {
        let empty = Figure { series: vec![Series::new("none")], ..figure(false) };
        assert_eq!(empty.csv(), "series,x,mean,ci95,seeds\n");
        let dot = Figure { series: vec![], ..figure(true) };
        assert!(dot.csv().ends_with("seeds\n"));
    }
}
