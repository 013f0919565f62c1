//! The association problem of Section III: which BS keeps how many twins (K), what fraction of their data trains (b), and
//! who has which subchannel for how long (τ), so that T of Eq. 17 is least under (18a)–(18d).
//!
//! [`Problem`] holds what does not change while a network runs, [`State`] what a policy observes in a slot, and
//! [`Environment`] makes states, slot by slot, from a seed. A [`Policy`] turns a state into a [`Decision`];
//! [`Problem::terms`] charges it. Tables of BSs by subchannels are flat: entry (i, c) stands at `i · C + c`.
//!
//! The objective of (18) is T/(1 − θ_G). Both factors grow with Σ b_n D_n, so the accuracy bound (18a) always binds: b only
//! decides how the B* samples that it demands are spread. This is why a decision is judged by T alone.

mod actor;
mod assign;
mod decision;
mod deployed;
mod environment;
mod expected;
mod fixed;
mod ledger;
mod mapping;
mod optimal;
mod policy;
mod problem;

pub use actor::{FEATURES, FILE_VERSION, Maddpg, Network, PolicyFile, input_size, observe, parameter_count};
pub use assign::{ASSIGNED_MAX, AssignError, Realised, assign};
pub use decision::{
    Decision, DecisionError, Relaxed, largest_remainder, normalise_shares, softmax_by_station,
};
pub use deployed::{DeployError, Processors, check_deployed, deal, policy_of, seed_of_round};
pub use environment::{Environment, Geometry, Split};
pub use fixed::Static;
pub use ledger::{ActionRecord, Ledger, Record, RecordError, StateRecord};
pub use mapping::{B_GAIN, K_GAIN, Mapping, SE_FLOOR, TAU_GAIN, action_size};
pub use optimal::Optimal;
pub use policy::{Average, Greedy, Policy, PolicyError, Random};
pub use problem::{Problem, ProblemError, State};

#[cfg(test)]
mod actor_tests;
#[cfg(test)]
mod tests;
