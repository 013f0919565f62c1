//! Held-out instances by which checkpoints are judged.

use dtwn_model::association::{
    Average, Decision, Environment, Geometry, Optimal, Policy, PolicyError, Problem, Split, State,
};

/// An instance: what a policy sees, what it is charged by.
#[derive(Debug, Clone)]
struct Instance {
    seen: State,
    truth: State,
}

/// Instances that training never meets, with their optimum.
#[derive(Debug, Clone)]
pub struct HeldOut {
    instances: Vec<Instance>,
    /// Mean T of the optimum that knows the true state, s.
    pub optimum_s: f64,
    /// Mean T of the average policy, s.
    pub average_s: f64,
}

impl HeldOut {
    /// `count` instances of a split, `staleness` slots old when seen; the first `own` of them in the topology's geometry.
    ///
    /// # Errors
    /// When the solver fails.
    pub fn new(
        problem: &Problem,
        split: Split,
        seed: u64,
        (count, own): (u32, u32),
        staleness: u32,
    ) -> Result<Self, PolicyError> {
        let mut instances = Vec::new();
        for index in 0..count {
            let geometry = if index < own { Geometry::Topology } else { Geometry::Random };
            let mut environment = Environment::new(problem, geometry, seed, split, index.into());
            let seen = environment.state().clone();
            (0..staleness).for_each(|_| environment.step());
            instances.push(Instance { seen, truth: environment.state().clone() });
        }
        let mut held = Self { instances, optimum_s: 0.0, average_s: 0.0 };
        held.optimum_s = held.judge(problem, |instance| Optimal.decide(problem, &instance.truth))?;
        held.average_s = held.judge(problem, |instance| Average.decide(problem, &instance.seen))?;
        Ok(held)
    }

    fn judge(
        &self,
        problem: &Problem,
        mut decide: impl FnMut(&Instance) -> Result<Decision, PolicyError>,
    ) -> Result<f64, PolicyError> {
        let mut sum = 0.0;
        for instance in &self.instances {
            sum += problem.terms(&instance.truth, &decide(instance)?).total_s();
        }
        Ok(sum / self.instances.len().max(1) as f64)
    }

    /// Mean T of a policy over that of the optimum.
    ///
    /// # Errors
    /// When the policy gives no decision.
    pub fn ratio(&self, problem: &Problem, policy: &mut dyn Policy) -> Result<f64, PolicyError> {
        Ok(self.judge(problem, |instance| policy.decide(problem, &instance.seen))? / self.optimum_s)
    }
}
