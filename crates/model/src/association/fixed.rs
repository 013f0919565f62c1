//! `static`: one decision from a file, whatever the state.

use super::{Decision, Policy, PolicyError, Problem, State};
use serde::Deserialize;
use std::path::Path;

/// The decision that a file holds.
///
/// ```toml
/// k = [30, 20, 50]             # twins of each BS, N together
/// b = [0.14, 0.14, 0.15]       # fraction of their samples
/// tau = [[0.3, 0.3], [0.3, 0.3], [0.4, 0.4]]   # a row for each BS, a column for each subchannel
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Static {
    decision: Decision,
}

/// The file's form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    k: Vec<u32>,
    b: Vec<f64>,
    tau: Vec<Vec<f64>>,
}

impl Static {
    /// From a file.
    ///
    /// # Errors
    /// When it cannot be read or does not hold a decision; whether that fits a network is found by [`check`](Self::check).
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let file = path.display().to_string();
        let fail = |reason: String| PolicyError::File { file: file.clone(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        Self::parse(&text).map_err(fail)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let File { k, b, tau } = toml::from_str(text).map_err(|e| e.to_string())?;
        let columns = tau.first().map_or(0, Vec::len);
        if let Some((i, row)) = tau.iter().enumerate().find(|(_, row)| row.len() != columns) {
            return Err(format!(
                "row {} of tau has {} entries where the first has {columns}",
                i + 1,
                row.len()
            ));
        }
        Ok(Self { decision: Decision { k, b, tau: tau.concat() } })
    }

    /// Whether the decision is feasible in a network.
    ///
    /// # Errors
    /// The constraint that it violates.
    pub fn check(&self, problem: &Problem) -> Result<(), PolicyError> {
        let infeasible = |source| PolicyError::Infeasible { policy: "static".into(), source };
        problem.check(&self.decision).map_err(infeasible)
    }
}

impl Policy for Static {
    fn name(&self) -> &str {
        "static"
    }

    fn decide(&mut self, problem: &Problem, _state: &State) -> Result<Decision, PolicyError> {
        self.check(problem)?;
        Ok(self.decision.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::problem_of;
    use super::*;

    #[test]
    fn a_file_decides_or_is_refused() {
        let mut problem = problem_of(2, "");
        problem.subchannels = 2;
        // 7402.2 of 50,000 samples.
        let good = "k = [60, 40]\nb = [0.15, 0.15]\ntau = [[0.5, 0.25], [0.5, 0.75]]\n";
        let decision = Static::parse(good).unwrap().decide(&problem, &State::default()).unwrap();
        assert_eq!((decision.k, decision.tau), (vec![60, 40], vec![0.5, 0.25, 0.5, 0.75]));
        let refused = |text: &str| match Static::parse(text) {
            Err(reason) => reason,
            Ok(policy) => policy.check(&problem).unwrap_err().to_string(),
        };
        assert!(refused(&good.replace("60", "61")).contains("(18b)"));
        assert!(refused(&good.replace("0.15, 0.15", "0.14, 0.14")).contains("(18a)"));
        assert!(refused(&good.replace("0.25", "0.26")).contains("(18c)"));
        assert!(refused(&good.replace("[0.5, 0.25]", "[0.5]")).contains("row 2 of tau"));
        assert!(refused(&good.replace("tau", "t")).contains("unknown field"));
        assert!(
            refused("k = [100]\nb = [0.2]\ntau = [[1, 1]]")
                .contains("K has 1 entries where this network needs 2")
        );
    }
}
