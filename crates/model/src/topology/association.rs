//! `[association]`: how twins, data and subchannels are shared out among the BSs.

use crate::units::Metres;
use serde::{Deserialize, Serialize};

/// `[association]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Association {
    /// Who decides K, b and τ at the start of each round.
    pub policy: PolicyName,
    /// The file of a `static` or `maddpg` policy, relative to the topology file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The least part of its processor that a BS has for training: f_i is uniform from this fraction of `cpu_hz` to all
    /// of it in the instances that policies are trained and compared on.
    pub cpu_fraction_min: f64,
    /// The correlation of f_i from one slot to the next, in [0, 1).
    pub cpu_memory: f64,
    /// Random networks put their BSs uniformly by area between this distance from the MBS …
    pub distance_min: Metres,
    /// … and this one.
    pub distance_max: Metres,
}

impl Default for Association {
    fn default() -> Self {
        Self {
            policy: PolicyName::Fixed,
            file: None,
            // What other services leave of a shared edge server.
            cpu_fraction_min: 0.6,
            cpu_memory: 0.9,
            // A cell of half a kilometre, without BSs beside the MBS itself.
            distance_min: Metres::new(100.0),
            distance_max: Metres::new(500.0),
        }
    }
}

/// A policy by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    /// Nothing is decided: users stay with their first BS, subchannels are shared equally.
    Fixed,
    /// K, b and τ drawn at random.
    Random,
    /// Equal K, b and τ.
    Average,
    /// Subchannels in eighths by proportional fairness, twins by rate, data by processor.
    Greedy,
    /// The exact optimum.
    Optimal,
    /// One decision from a file, always.
    Static,
    /// Trained agents, from a file.
    Maddpg,
}

impl PolicyName {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Fixed, Self::Random, Self::Average, Self::Greedy, Self::Optimal, Self::Static, Self::Maddpg];

    /// As written in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Random => "random",
            Self::Average => "average",
            Self::Greedy => "greedy",
            Self::Optimal => "optimal",
            Self::Static => "static",
            Self::Maddpg => "maddpg",
        }
    }
}

impl Association {
    /// What is wrong with it: key, message and help of each finding.
    pub(super) fn problems(&self) -> Vec<(&'static str, String, String)> {
        let mut found = Vec::new();
        let mut check = |fine: bool, key, value: &dyn std::fmt::Display, help: &str| {
            if !fine {
                found.push((key, format!("`association.{key}` = {value} is out of range"), help.to_owned()));
            }
        };
        let (fraction, memory) = (self.cpu_fraction_min, self.cpu_memory);
        check(
            fraction > 0.0 && fraction <= 1.0,
            "cpu_fraction_min",
            &fraction,
            "allowed: above 0, at most 1",
        );
        check((0.0..1.0).contains(&memory), "cpu_memory", &memory, "allowed: 0 to below 1");
        let (min, max) = (self.distance_min, self.distance_max);
        check(min.get() > 0.0, "distance_min", &min, "allowed: above 0 m");
        check(max >= min, "distance_max", &max, "allowed: from `association.distance_min`");
        let filed = matches!(self.policy, PolicyName::Static | PolicyName::Maddpg);
        if filed && self.file.is_none() {
            let message = format!("`association.policy` = \"{}\" without a file", self.policy.as_str());
            let help = "set `association.file` to the policy's file, relative to the topology file";
            found.push(("policy", message, help.to_owned()));
        }
        found
    }
}
