//! The exact optimum of (18), as one mixed-integer linear program.
//!
//! With y_ic = T2·τ_ic, the seconds that BS i has on subchannel c while models are broadcast, and L_i the share of B* that
//! it trains on, everything is linear:
//!
//! ```text
//! minimise T1 + T2
//!   L_i·B*·f^C/f_i ≤ T1                     Eq. 12, the slowest trainer
//!   Σ_i y_ic ≤ T2        for each c         (18c)
//!   n_i·c0 ≤ Σ_c y_ic·W·se_ic               Eq. 15, the slowest broadcast
//!   b_min·D̄·K_i ≤ L_i·B* ≤ b_max·D̄·K_i      (18d)
//!   Σ K_i = N,  Σ L_i = 1                   (18b), (18a)
//! ```
//!
//! n_i is how many models BS i broadcasts: K_i, or with one aggregate a BS, 1 if it has twins and 0 if not. Eq. 16 does not
//! depend on the decision. As (18a) binds (see [the module](super)), there is no search around the program.

use super::{Decision, Policy, PolicyError, Problem, State, largest_remainder, normalise_shares};
use microlp::{ComparisonOp, OptimizationDirection, SolveOptions, Variable};

/// Solves each state to optimality for twins of equal data.
///
/// K is integer, and the solution is within [`Optimal::GAP`] of the optimum, unless the search tree outgrows its limit (seen
/// for no network of up to 10 BSs). Where the D_n differ, the decision is that for
/// their mean, and [`bound_s`](Optimal::bound_s) tells how far any other could be below it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Optimal;

impl Optimal {
    /// Relative distance from the best proven bound at which the search ends.
    pub const GAP: f64 = 1e-5;
    /// Nodes of the search tree after which it ends with what it has, so that large networks end too. Nodes, not seconds:
    /// the same state must give the same decision on any machine.
    const NODES_MAX: u64 = 20_000;

    /// A lower bound on T1 + T2 of Eq. 17, seconds, that holds for every decision and every dealing of these very twins: K
    /// need not be whole, and BS i's data are between K_i times the smallest D_n and K_i times the largest.
    ///
    /// # Errors
    /// When the solver fails.
    pub fn bound_s(problem: &Problem, state: &State) -> Result<f64, PolicyError> {
        let of = |d: Option<&u32>| d.map_or(0.0, |d| f64::from(*d));
        let data = [of(problem.samples.iter().min()), of(problem.samples.iter().max())];
        let relaxed = Program::new(problem, state, data, Integers::Senders);
        let solution = relaxed.solve()?;
        // Where the search was cut short, what it had proved by then.
        Ok(solution.stats().best_bound.unwrap_or(0.0).min(solution.objective() * (1.0 - Self::GAP)))
    }
}

impl Policy for Optimal {
    fn name(&self) -> &str {
        "optimal"
    }

    fn decide(&mut self, problem: &Problem, state: &State) -> Result<Decision, PolicyError> {
        let data = [problem.samples_mean(); 2];
        if !problem.counts_twins() {
            // K only matters through the bounds of b, which leave it room: whole numbers almost always cost nothing, and
            // the search is far shorter without them.
            let relaxed = Program::new(problem, state, data, Integers::Senders);
            let solution = relaxed.solve()?;
            let decision = relaxed.decision(problem, &solution);
            let terms = problem.terms(state, &decision);
            if terms.training_s + terms.broadcast_s <= solution.objective() * (1.0 + Self::GAP) {
                return Ok(decision);
            }
        }
        let program = Program::new(problem, state, data, Integers::All);
        let solution = program.solve()?;
        Ok(program.decision(problem, &solution))
    }
}

/// Which variables are whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Integers {
    /// Whether each BS has something to broadcast, where that is one aggregate.
    Senders,
    /// Those, and K.
    All,
}

/// The program and the variables by which its solution is read.
struct Program {
    model: microlp::Problem,
    /// K_i.
    twins: Vec<Variable>,
    /// L_i.
    loads: Vec<Variable>,
    /// y_ic.
    time: Vec<Variable>,
}

impl Program {
    /// `data` is the least and the most data that a twin may count with, samples.
    fn new(problem: &Problem, state: &State, data: [f64; 2], integers: Integers) -> Self {
        let (m, c) = (problem.stations, problem.subchannels);
        let mut model = microlp::Problem::new(OptimizationDirection::Minimize);
        let any = (0.0, f64::INFINITY);
        let (training, broadcast) = (model.add_var(1.0, any), model.add_var(1.0, any));
        let most = i32::try_from(problem.twins).unwrap_or(i32::MAX);
        let twins: Vec<Variable> = (0..m)
            .map(|_| match integers {
                Integers::All => model.add_integer_var(0.0, (0, most)),
                _ => model.add_var(0.0, (0.0, f64::from(most))),
            })
            .collect();
        let loads: Vec<Variable> = (0..m).map(|_| model.add_var(0.0, (0.0, 1.0))).collect();
        let time: Vec<Variable> = (0..m * c).map(|_| model.add_var(0.0, any)).collect();

        for channel in 0..c {
            let mut row: Vec<_> = (0..m).map(|i| (time[i * c + channel], 1.0)).collect();
            row.push((broadcast, -1.0));
            model.add_constraint(&row, ComparisonOp::Le, 0.0);
        }
        // A network of one broadcasts to nobody.
        let models_per_hz = match m {
            1 => f64::INFINITY,
            _ => problem.bandwidth_hz() / problem.broadcast_bits(),
        };
        for i in 0..m {
            let seconds = problem.budget * problem.cost.cycles_per_sample / state.cpu_hz[i];
            model.add_constraint([(loads[i], seconds), (training, -1.0)], ComparisonOp::Le, 0.0);
            let of_budget = [0, 1].map(|end| {
                let b = [problem.cost.b_min, problem.cost.b_max][end];
                b * data[end] / problem.budget
            });
            model.add_constraint([(loads[i], 1.0), (twins[i], -of_budget[0])], ComparisonOp::Ge, 0.0);
            model.add_constraint([(loads[i], 1.0), (twins[i], -of_budget[1])], ComparisonOp::Le, 0.0);
            if !models_per_hz.is_finite() {
                continue;
            }
            let models = match problem.counts_twins() {
                true => twins[i],
                false => {
                    let some = model.add_binary_var(0.0);
                    let row = [(twins[i], 1.0), (some, -f64::from(problem.twins))];
                    model.add_constraint(row, ComparisonOp::Le, 0.0);
                    model.add_constraint([(loads[i], 1.0), (some, -1.0)], ComparisonOp::Le, 0.0);
                    some
                }
            };
            let mut row: Vec<_> =
                (i * c..(i + 1) * c).map(|at| (time[at], state.se[at] * models_per_hz)).collect();
            row.push((models, -1.0));
            model.add_constraint(&row, ComparisonOp::Ge, 0.0);
        }
        let sum = |of: &[Variable]| of.iter().map(|v| (*v, 1.0)).collect::<Vec<_>>();
        model.add_constraint(sum(&twins), ComparisonOp::Eq, f64::from(problem.twins));
        model.add_constraint(sum(&loads), ComparisonOp::Eq, 1.0);
        Self { model, twins, loads, time }
    }

    fn solve(&self) -> Result<microlp::Solution, PolicyError> {
        let mut options = SolveOptions::default();
        options.mip_gap = Optimal::GAP;
        options.node_limit = Some(Optimal::NODES_MAX);
        let outcome = self.model.solve_with(options).map_err(|e| PolicyError::Solver(e.to_string()))?;
        let nothing = |_| PolicyError::Solver("the search found nothing within its limit of nodes".into());
        outcome.into_solution().map_err(nothing)
    }

    fn decision(&self, problem: &Problem, solution: &microlp::Solution) -> Decision {
        let value = |v: &Variable| solution.var_value(*v).max(0.0);
        let shares: Vec<f64> = self.twins.iter().map(value).collect();
        let k = largest_remainder(&shares, problem.twins);
        let wanted: Vec<f64> = self
            .loads
            .iter()
            .zip(&k)
            .map(|(v, k)| value(v) * problem.budget / (f64::from((*k).max(1)) * problem.samples_mean()))
            .collect();
        let mut tau: Vec<f64> = self.time.iter().map(value).collect();
        normalise_shares(&mut tau, problem.stations, problem.subchannels);
        // Both only mend the solver's tolerance.
        Decision { b: problem.project_b(&wanted, &k), k, tau }
    }
}
