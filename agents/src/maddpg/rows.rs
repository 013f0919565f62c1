//! Transitions as rows of numbers, and minibatches from rows.

use dtwn_model::association::{Network, Problem, State, observe};

use super::flat::tensor;
use super::learner::Batch;
use super::networks::{Observation, SCALARS, Shape};
use crate::Error;

/// How a transition is laid out: s, a, R, s'. A state is what the actors see (se, f in GHz, K), what is true (se, f), and
/// what T under the average policy is: its logarithm, and that of Eq. 16's part of it.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    m: usize,
    c: usize,
    actions: usize,
}

/// What a state is worth without any decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// T under the average policy, s.
    pub average_s: f64,
    /// Eq. 16's part of it, s.
    pub block_s: f64,
}

impl Layout {
    /// Of a problem's transitions.
    #[must_use]
    pub fn new(problem: &Problem) -> Self {
        let (m, c) = (problem.stations, problem.subchannels);
        Self { m, c, actions: m * dtwn_model::association::action_size(c) }
    }

    /// Numbers of a state.
    fn state(&self) -> usize {
        2 * self.m * self.c + 3 * self.m + SCALARS as usize
    }

    /// Numbers of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        2 * self.state() + self.actions + 1
    }

    /// Appends a state.
    pub fn write_state(&self, row: &mut Vec<f32>, seen: &State, truth: &State, of: Reference) {
        let ghz = |state: &State| state.cpu_hz.iter().map(|f| (f / 1e9) as f32).collect::<Vec<f32>>();
        row.extend(seen.se.iter().map(|se| *se as f32));
        row.extend(ghz(seen));
        row.extend(seen.k.iter().map(|k| *k as f32));
        row.extend(truth.se.iter().map(|se| *se as f32));
        row.extend(ghz(truth));
        row.push(of.average_s.ln() as f32);
        row.push((of.block_s.max(1e-6) / of.average_s).ln() as f32);
    }

    /// Rows as tensors; s' only where `with_next`.
    ///
    /// # Errors
    /// [`Error::Torch`] for rows of another layout.
    pub fn batch(
        &self,
        problem: &Problem,
        shape: &Shape,
        rows: &[&[f32]],
        with_next: bool,
    ) -> Result<Batch, Error> {
        let after = self.state() + self.actions;
        let count = rows.len() as i64;
        let gather = |start: usize, len: usize| -> Vec<f32> {
            rows.iter().flat_map(|row| row[start..start + len].iter().copied()).collect()
        };
        Ok(Batch {
            now: self.observation(problem, shape, rows, 0)?,
            actions: tensor(&gather(self.state(), self.actions), &[count, shape.stations, shape.actions])?,
            reward: tensor(&gather(after, 1), &[count])?,
            next: with_next.then(|| self.observation(problem, shape, rows, after + 1)).transpose()?,
        })
    }

    /// The states that stand at `start` of each row.
    fn observation(
        &self,
        problem: &Problem,
        shape: &Shape,
        rows: &[&[f32]],
        start: usize,
    ) -> Result<Observation, Error> {
        let (m, mc) = (self.m, self.m * self.c);
        let mut parts = [const { Vec::new() }; 5];
        let mut inputs = vec![0.0; rows.len() * shape.input as usize];
        let mut state = State::default();
        for (row, input) in rows.iter().zip(inputs.chunks_exact_mut(shape.input as usize)) {
            let row = &row[start..start + self.state()];
            let cuts = [0, mc, mc + 2 * m, 2 * mc + 2 * m, 2 * mc + 3 * m];
            let lens = [mc, m, mc, m, SCALARS as usize];
            for ((part, cut), len) in parts.iter_mut().zip(cuts).zip(lens) {
                part.extend_from_slice(&row[cut..cut + len]);
            }
            fill(&mut state, row, m, mc);
            observe(shape.network, problem, &state, input);
        }
        let count = rows.len() as i64;
        let table = [count, shape.stations, shape.subchannels];
        let list = [count, shape.stations];
        Ok(Observation {
            input: tensor(&inputs, &shape.input_shape(count))?,
            se: tensor(&parts[0], &table)?,
            cpu: tensor(&parts[1], &list)?,
            true_se: tensor(&parts[2], &table)?,
            true_cpu: tensor(&parts[3], &list)?,
            scalars: tensor(&parts[4], &[count, SCALARS])?,
        })
    }
}

/// What the actors saw, from the first numbers of a state.
fn fill(state: &mut State, row: &[f32], m: usize, mc: usize) {
    state.se.clear();
    state.se.extend(row[..mc].iter().map(|se| f64::from(*se)));
    state.cpu_hz.clear();
    state.cpu_hz.extend(row[mc..mc + m].iter().map(|f| f64::from(*f) * 1e9));
    state.k.clear();
    state.k.extend(row[mc + m..mc + 2 * m].iter().map(|k| *k as u32));
}

/// What the actors see of many states, as one tensor.
///
/// # Errors
/// [`Error::Torch`] for states of another size.
pub fn inputs<'a>(
    problem: &Problem,
    shape: &Shape,
    network: Network,
    states: impl Iterator<Item = &'a State>,
) -> Result<tch::Tensor, Error> {
    let mut values = Vec::new();
    let mut count = 0;
    for state in states {
        let start = values.len();
        values.resize(start + shape.input as usize, 0.0);
        observe(network, problem, state, &mut values[start..]);
        count += 1;
    }
    tensor(&values, &shape.input_shape(count))
}
