//! Small checks that word their own findings.

use crate::topology::load::Finding;
use crate::topology::spans::Part;
use crate::units::Interval;

/// Collects what fails.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) findings: Vec<Finding>,
}

impl Checks {
    /// Adds a finding.
    pub(super) fn fail(&mut self, path: impl Into<String>, message: String, help: impl Into<String>) {
        self.findings.push(Finding {
            path: path.into(),
            part: Part::Value,
            message,
            help: Some(help.into()),
        });
    }

    /// Fails unless `fine`.
    pub(super) fn ensure(
        &mut self,
        fine: bool,
        path: impl Into<String>,
        message: impl FnOnce() -> String,
        help: impl Into<String>,
    ) {
        if !fine {
            self.fail(path, message(), help);
        }
    }

    /// Fails for what is not a number from `low` to `high`, both allowed. NaN is none.
    pub(super) fn range(&mut self, path: &str, value: f64, low: f64, high: f64) {
        self.ensure(
            (low..=high).contains(&value),
            path,
            || format!("`{path}` = {value} is out of range"),
            format!("allowed: {low} to {high}"),
        );
    }

    /// Fails for what is not a number between `low` and `high`, neither allowed.
    pub(super) fn inside(&mut self, path: &str, value: f64, low: f64, high: f64) {
        self.ensure(
            low < value && value < high,
            path,
            || format!("`{path}` = {value} is out of range"),
            format!("allowed: between {low} and {high}, without these"),
        );
    }

    /// Fails for what is not a finite number above zero.
    pub(super) fn above_zero(&mut self, path: &str, value: f64) {
        self.ensure(
            value.is_finite() && value > 0.0,
            path,
            || format!("`{path}` = {value} is out of range"),
            "allowed: above 0",
        );
    }

    /// Fails for no time at all.
    pub(super) fn positive_time(&mut self, path: &str, time: Interval) {
        self.ensure(
            time > Interval::default(),
            path,
            || format!("`{path}` is no time at all"),
            "allowed: above 0",
        );
    }
}
