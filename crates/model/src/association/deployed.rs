//! What a policy needs where it decides for a running network: itself by name, processors round by round, and the twins dealt.

use super::{
    ASSIGNED_MAX, AssignError, Average, Greedy, Maddpg, Optimal, Policy, PolicyError, Problem, ProblemError,
    Random, Static, assign,
};
use crate::Plan;
use crate::plan::Association;
use crate::topology::PolicyName;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::path::Path;

/// Why a policy cannot decide for a network while that runs.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// States and actions travel by the chain.
    #[error(
        "association.policy = \"{policy}\" needs the chain, over which BSs tell each other states and actions, and rounds \
         to decide for"
    )]
    NoChain {
        /// The policy's name.
        policy: &'static str,
    },
    /// Nothing to decide.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// It is for another network, or its file is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Too many twins.
    #[error(transparent)]
    Assign(#[from] AssignError),
}

/// Checks that a topology's policy can decide for its network in a run; `file` is where a `static` or `maddpg` one is.
/// Nothing is wrong with `fixed`.
///
/// # Errors
/// What does not fit.
pub fn check_deployed(plan: &Plan, file: Option<&Path>) -> Result<(), DeployError> {
    let topology = plan.topology();
    let name = topology.association.policy;
    if name == PolicyName::Fixed {
        return Ok(());
    }
    if !topology.learning.enabled || !topology.chain.is_on(plan.bs_count()) {
        return Err(DeployError::NoChain { policy: name.as_str() });
    }
    let problem = Problem::new(plan)?;
    if plan.user_count() > ASSIGNED_MAX {
        return Err(AssignError::TooMany { twins: plan.user_count() }.into());
    }
    policy_of(name, file, 0, &problem)?;
    Ok(())
}

/// The policy of a name, checked against a problem; `seed` is for the random one.
///
/// # Errors
/// When its file cannot be read or is for another network, and for `fixed`, which decides nothing.
pub fn policy_of(
    name: PolicyName,
    file: Option<&Path>,
    seed: u64,
    problem: &Problem,
) -> Result<Box<dyn Policy>, PolicyError> {
    let file = || {
        let reason = || "it is given by a file, and none is named".to_owned();
        file.ok_or_else(|| PolicyError::Misfit { policy: name.as_str().into(), reason: reason() })
    };
    Ok(match name {
        PolicyName::Random => Box::new(Random::new(seed)),
        PolicyName::Average => Box::new(Average),
        PolicyName::Greedy => Box::new(Greedy),
        PolicyName::Optimal => Box::new(Optimal),
        PolicyName::Static => {
            let policy = Static::load(file()?)?;
            policy.check(problem)?;
            Box::new(policy)
        }
        PolicyName::Maddpg => {
            let policy = Maddpg::load(file()?)?;
            policy.check(problem)?;
            Box::new(policy)
        }
        PolicyName::Fixed => {
            return Err(PolicyError::Misfit {
                policy: name.as_str().into(),
                reason: "it keeps the first association and decides nothing".into(),
            });
        }
    })
}

/// The seed of what a policy draws for a round: every BS draws the same, whenever it was started.
pub fn seed_of_round(seed: u64, round: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("dtwn association policy of a round v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&round.to_le_bytes());
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

/// Which twin goes where for quotas K: as the plan has it where it has the same quotas, else by [`assign`]. It depends on
/// nothing but its arguments, so that every node finds the same without knowing what was before.
///
/// # Errors
/// As [`assign`].
pub fn deal(plan: &Plan, k: &[u32]) -> Result<Association, AssignError> {
    if plan.association.counts(plan.bs_count()) == k {
        return Ok(plan.association.clone());
    }
    assign(&plan.access_rates_bps(), k)
}

/// The stream of processors in a run; [`Split`](super::Split) has 1 to 3 in its place.
const STREAM: u64 = 4 << 60;

/// f_i of a running network, round by round from the run's seed: uniform on `[cpu_fraction_min, 1]`·f_max through a Gaussian
/// with memory `cpu_memory`, as in [`Environment`](super::Environment). By rounds and not by slots, so that a round's f does
/// not hang on the wall time at which it began.
#[derive(Debug, Clone)]
pub struct Processors {
    max_hz: Vec<f64>,
    least: f64,
    memory: f64,
    seed: u64,
    rng: ChaCha8Rng,
    gaussians: Vec<f64>,
    round: u64,
}

impl Processors {
    /// For a problem and the seed of a run.
    pub fn new(problem: &Problem, seed: u64) -> Self {
        let mut own = Self {
            max_hz: problem.cpu_max_hz.clone(),
            least: problem.settings.cpu_fraction_min,
            memory: problem.settings.cpu_memory,
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            gaussians: Vec::new(),
            round: 0,
        };
        own.restart();
        own
    }

    /// f_i of each BS in a round, from 1, Hz.
    pub fn at(&mut self, round: u64) -> Vec<f64> {
        if round < self.round {
            self.restart();
        }
        let fresh = (1.0 - self.memory * self.memory).sqrt();
        while self.round < round {
            for gaussian in &mut self.gaussians {
                *gaussian = self.memory * *gaussian + fresh * self.rng.sample::<f64, _>(StandardNormal);
            }
            self.round += 1;
        }
        let fraction = |x: &f64| self.least + (1.0 - self.least) * super::environment::normal_cdf(*x);
        self.gaussians.iter().zip(&self.max_hz).map(|(x, max)| max * fraction(x)).collect()
    }

    fn restart(&mut self) {
        self.rng = ChaCha8Rng::seed_from_u64(self.seed);
        self.rng.set_stream(STREAM);
        self.gaussians = self.max_hz.iter().map(|_| self.rng.sample(StandardNormal)).collect();
        self.round = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plan_of, problem_of};
    use super::*;

    #[test]
    fn processors_depend_on_seed_and_round_alone() {
        let problem = problem_of(3, "");
        let mut processors = Processors::new(&problem, 7);
        let tenth = processors.at(10);
        let mut again = Processors::new(&problem, 7);
        for round in 1..10 {
            let now = again.at(round);
            assert_ne!(now, tenth);
            let allowed = |(f, max): (&f64, &f64)| (0.6 * max..=*max).contains(f);
            assert!(now.iter().zip(&problem.cpu_max_hz).all(allowed));
        }
        assert_eq!(again.at(10), tenth);
        assert_eq!((again.at(2), again.at(10)), (processors.at(2), tenth.clone()));
        assert_ne!(Processors::new(&problem, 8).at(10), tenth);
    }

    #[test]
    fn quotas_of_the_plan_move_nobody() {
        let plan = plan_of(5, "");
        let k = plan.association.counts(5);
        assert_eq!(deal(&plan, &k).unwrap(), plan.association);
        let other = [40, 0, 20, 20, 20];
        assert_eq!(deal(&plan, &other).unwrap().counts(5), other);
    }

    #[test]
    fn policies_without_a_chain_or_a_file_are_refused() {
        let refused = |text: &str| check_deployed(&plan_of(5, text), None).unwrap_err().to_string();
        assert!(check_deployed(&plan_of(5, ""), None).is_ok());
        assert!(check_deployed(&plan_of(5, "[association]\npolicy = \"greedy\"\n"), None).is_ok());
        let without = "[chain]\nenabled = false\n[association]\npolicy = \"greedy\"\n";
        assert!(refused(without).contains("needs the chain"), "{}", refused(without));
        let missing = "[association]\npolicy = \"static\"\nfile = \"none.toml\"\n";
        assert!(refused(missing).contains("none is named"), "{}", refused(missing));
        let problem = problem_of(2, "");
        assert!(policy_of(PolicyName::Fixed, None, 1, &problem).is_err());
        assert_ne!(seed_of_round(1, 2), seed_of_round(1, 3));
    }
}
