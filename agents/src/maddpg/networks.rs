//! Actors and critics in torch. The actors are those of `dtwn_model::association` (which runs them without torch); the
//! meaning of their actions is that of its `Mapping`, differentiable and before K is rounded.

use dtwn_model::association::{
    B_GAIN, FEATURES, K_GAIN, Network, Problem, SE_FLOOR, TAU_GAIN, action_size, input_size,
};
use tch::{Kind, Tensor};

use super::flat::Part;

/// Units of the improved critic's hidden layers.
const CRITIC_WIDTH: i64 = 64;
/// What the improved critic sees of a BS: ln of its K, R, load and f.
const CRITIC_FEATURES: i64 = 4;
/// What it sees of the network: ln of T under the average policy, and of Eq. 16's part of that.
pub const SCALARS: i64 = 2;

fn int(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The sizes and constants that the networks need of a problem.
#[derive(Debug, Clone)]
pub struct Shape {
    /// M.
    pub stations: i64,
    /// C.
    pub subchannels: i64,
    /// What the actors see in all: M·C·features, or the length of s.
    pub input: i64,
    /// 2 + C.
    pub actions: i64,
    /// Which networks.
    pub network: Network,
    /// Units of the actors' hidden layers.
    pub width: i64,
    /// Whether the broadcasts grow with K.
    counts_twins: bool,
    /// B*/(N·D̄): b if it were the same everywhere.
    b_mean: f64,
    b_min: f64,
    b_max: f64,
    /// Passes of repair.
    repairs: u32,
}

/// What a minibatch's states are to the networks.
#[derive(Debug)]
pub struct Observation {
    /// What the actors see: (B, M, C, features) or (B, s).
    pub input: Tensor,
    /// Spectral efficiencies as the actors see them, (B, M, C) bit/s/Hz …
    pub se: Tensor,
    /// … and f, (B, M) GHz.
    pub cpu: Tensor,
    /// The true ones.
    pub true_se: Tensor,
    /// The true ones.
    pub true_cpu: Tensor,
    /// (B, [`SCALARS`]).
    pub scalars: Tensor,
}

/// A relaxed decision: K/N (B, M), b (B, M), τ (B, M, C).
#[derive(Debug)]
pub struct RelaxedTensors {
    /// K_i/N.
    pub share: Tensor,
    /// b_i, with Σ b·K·D̄ close to B*.
    pub b: Tensor,
    /// τ_ic.
    pub tau: Tensor,
}

impl Shape {
    /// Of a problem. `width` and `repairs` are the actors'.
    #[must_use]
    pub fn new(problem: &Problem, network: Network, width: usize, repairs: u32) -> Self {
        let sizes = (problem.stations, problem.twins, problem.subchannels);
        Self {
            stations: int(problem.stations),
            subchannels: int(problem.subchannels),
            input: int(input_size(network, sizes)),
            actions: int(action_size(problem.subchannels)),
            network,
            width: int(width),
            counts_twins: problem.counts_twins(),
            b_mean: problem.budget / problem.samples_total,
            b_min: problem.cost.b_min,
            b_max: problem.cost.b_max,
            repairs,
        }
    }

    /// The shape of a batch of what the actors see.
    #[must_use]
    pub fn input_shape(&self, batch: i64) -> Vec<i64> {
        match self.network {
            Network::Exchangeable => vec![batch, self.stations, self.subchannels, int(FEATURES)],
            Network::PerBs => vec![batch, self.input],
        }
    }

    /// The actors' tensors, in the order of the policy file.
    #[must_use]
    pub fn actor_parts(&self) -> Vec<Part> {
        let w = self.width;
        match self.network {
            Network::Exchangeable => {
                let mut parts = Vec::new();
                for input in [int(FEATURES), w] {
                    parts.extend((0..4).map(|_| Part::new(&[input, w], input)));
                    parts.push(Part::new(&[w], input));
                }
                for outputs in [1, 2] {
                    parts.extend([Part::new(&[w, outputs], w), Part::new(&[outputs], w)]);
                }
                parts
            }
            Network::PerBs => perceptrons(self.stations, &[self.input, w, w, self.actions]),
        }
    }

    /// The critics' tensors: one for all agents, or a perceptron each on (s, a_1 … a_M).
    #[must_use]
    pub fn critic_parts(&self) -> Vec<Part> {
        let w = CRITIC_WIDTH;
        match self.network {
            Network::Exchangeable => {
                let sizes = [CRITIC_FEATURES + SCALARS, w, w];
                let mut parts = perceptrons(1, &sizes);
                parts.extend(perceptrons(1, &[2 * w + SCALARS, w, 1]));
                parts
            }
            Network::PerBs => {
                let joint = self.input + self.stations * self.actions;
                perceptrons(self.stations, &[joint, self.width, self.width, 1])
            }
        }
    }

    /// The actors' outputs before tanh, (B, M, 2 + C).
    pub fn actor(&self, parts: &[Tensor], input: &Tensor) -> Tensor {
        match self.network {
            Network::Exchangeable => exchangeable_actor(parts, input),
            Network::PerBs => {
                let input = input.unsqueeze(0).expand([self.stations, -1, -1], false);
                perceptron(parts, &input).transpose(0, 1)
            }
        }
    }

    /// The relaxed decision that actions (B, M, 2 + C) stand for.
    #[must_use]
    pub fn relaxed(&self, actions: &Tensor, se: &Tensor, cpu: &Tensor) -> RelaxedTensors {
        let mut tau = (actions.narrow(2, 2, self.subchannels) * TAU_GAIN).softmax(1, Kind::Float);
        let base = if self.counts_twins { rates(&tau, se).log() } else { cpu.log() };
        let share = (actions.select(2, 0) * K_GAIN + base).softmax(1, Kind::Float);
        for _ in 0..self.repairs {
            let weight = match self.counts_twins {
                true => &share / rates(&tau, se),
                false => rates(&tau, se).reciprocal(),
            };
            // Not in place: the gradient needs what was before.
            tau = tau.multiply(&weight.unsqueeze(-1));
            tau = &tau / tau.sum_dim_intlist(1, true, Kind::Float);
        }
        let of_all = cpu / cpu.sum_dim_intlist(1, true, Kind::Float);
        let mut b = of_all * self.b_mean / &share * (actions.select(2, 1) * B_GAIN).exp();
        // Two rounds come close to the projection onto (18a) and (18d), and have a gradient.
        for _ in 0..2 {
            b = b.clamp(self.b_min, self.b_max);
            let spent = (&b * &share).sum_dim_intlist(1, true, Kind::Float);
            b = b.multiply(&(self.b_mean / spent));
        }
        RelaxedTensors { share, b: b.clamp(self.b_min, self.b_max), tau }
    }

    /// What the critics make of joint actions (B, M, 2 + C): (B), or with a critic each (M, B).
    ///
    /// The improved critic sees the relaxed decision as ln K, ln R, ln of the load and ln f of each BS under the true state:
    /// all that Eq. 17 depends on but not the equation. That is a strong hint. The paper's critics see s and raw actions;
    /// (M, B, M, 2 + C) gives each its own.
    pub fn critic(&self, parts: &[Tensor], of: &Observation, actions: &Tensor) -> Tensor {
        match self.network {
            Network::Exchangeable => {
                let decision = self.relaxed(actions, &of.se, &of.cpu);
                self.improved_critic(parts, of, &decision)
            }
            Network::PerBs => {
                let each = [self.stations, -1, self.stations * self.actions];
                let actions = match actions.dim() {
                    3 => actions.flatten(1, 2).unsqueeze(0).expand(each, false),
                    _ => actions.flatten(2, 3),
                };
                let state = of.input.unsqueeze(0).expand([self.stations, -1, -1], false);
                perceptron(parts, &Tensor::cat(&[state, actions], 2)).squeeze_dim(2)
            }
        }
    }

    fn improved_critic(&self, parts: &[Tensor], of: &Observation, decision: &RelaxedTensors) -> Tensor {
        #[expect(clippy::cast_precision_loss, reason = "at most 254")]
        let m = self.stations as f64;
        let load = &decision.share * &decision.b * (m / self.b_mean);
        let rate = rates(&decision.tau, &of.true_se) * 0.2;
        let stations = [&decision.share * m, rate, load, &of.true_cpu / 2.4].map(|x| x.log());
        let shared = of.scalars.unsqueeze(1).expand([-1, self.stations, -1], false);
        let tokens = Tensor::cat(&[Tensor::stack(&stations, 2), shared], 2);
        let hidden = linear(&linear(&tokens, parts, 0).relu(), parts, 1).relu();
        let pooled =
            [hidden.amax(1, false), hidden.mean_dim(1, false, Kind::Float), of.scalars.shallow_clone()];
        let hidden = linear(&Tensor::cat(&pooled, 1), parts, 2).relu();
        linear(&hidden, parts, 3).squeeze_dim(1)
    }
}

/// Σ_c τ_ic·se_ic, (B, M).
fn rates(tau: &Tensor, se: &Tensor) -> Tensor {
    (tau * se).sum_dim_intlist(2, false, Kind::Float).clamp_min(SE_FLOOR)
}

/// `count` perceptrons beside each other: of each layer the weights (count, inputs, outputs), then the biases.
fn perceptrons(count: i64, sizes: &[i64]) -> Vec<Part> {
    let layer = |pair: &[i64]| {
        let [input, output] = [pair[0], pair[1]];
        [Part::new(&[count, input, output], input), Part::new(&[count, 1, output], input)]
    };
    sizes.windows(2).flat_map(layer).collect()
}

/// Layer `at` of a single perceptron on the last dimension.
fn linear(x: &Tensor, parts: &[Tensor], at: usize) -> Tensor {
    x.matmul(&parts[2 * at].squeeze_dim(0)) + parts[2 * at + 1].flatten(0, -1)
}

/// Perceptrons beside each other, one batched product a layer: (count, B, inputs) → (count, B, outputs).
fn perceptron(parts: &[Tensor], x: &Tensor) -> Tensor {
    let mut x = x.shallow_clone();
    let last = parts.len() / 2 - 1;
    for (depth, pair) in parts.chunks(2).enumerate() {
        x = pair[1].baddbmm(&x, &pair[0], 1.0, 1.0);
        if depth < last {
            x = x.relu();
        }
    }
    x
}

/// (B, M, C, features) → (B, M, 2 + C) before tanh.
fn exchangeable_actor(parts: &[Tensor], tokens: &Tensor) -> Tensor {
    let mut x = tokens.shallow_clone();
    for layer in parts[..10].chunks(5) {
        let mean = |x: &Tensor, dim: i64| x.mean_dim(dim, true, Kind::Float);
        let by_station = mean(&x, 2);
        let by_all = mean(&by_station, 1);
        // Means are taken before the product: it is then that much smaller.
        let shared = by_station.matmul(&layer[1]) + by_all.matmul(&layer[3]) + &layer[4];
        x = (x.matmul(&layer[0]) + mean(&x, 1).matmul(&layer[2]) + shared).relu();
    }
    let tau = (x.matmul(&parts[10]) + &parts[11]).squeeze_dim(3);
    let station = x.mean_dim(2, false, Kind::Float).matmul(&parts[12]) + &parts[13];
    Tensor::cat(&[station, tau], 2)
}

#[cfg(test)]
mod tests {
    use super::super::flat::{Flat, tensor};
    use super::*;
    use crate::maddpg::tests::problem_of;
    use dtwn_model::association::{
        Environment, FILE_VERSION, Geometry, Maddpg, Mapping, PolicyFile, Split, State, observe,
    };

    fn states(problem: &Problem, count: u64) -> Vec<State> {
        (0..count)
            .map(|index| Environment::new(problem, Geometry::Random, 3, Split::Test, index).state().clone())
            .collect()
    }

    /// The actors of torch with random parameters, and those without torch, on the same states.
    fn both(problem: &Problem, network: Network, states: &[State]) -> (Vec<f32>, Vec<f32>) {
        let shape = Shape::new(problem, network, 32, 8);
        let flat = Flat::new(shape.actor_parts(), 5);
        let mut input = vec![0.0; states.len() * shape.input as usize];
        for (state, input) in states.iter().zip(input.chunks_exact_mut(shape.input as usize)) {
            observe(network, problem, state, input);
        }
        let input = tensor(&input, &shape.input_shape(states.len() as i64)).unwrap();
        let torch = shape.actor(&flat.parts(), &input).tanh().contiguous().detach().flatten(0, -1);
        let plain = Maddpg::new(PolicyFile {
            version: FILE_VERSION,
            made_by: String::new(),
            seed: 5,
            gamma: 0.0,
            episodes: 0,
            staleness: 0,
            validation_ratio: 1.0,
            fingerprint: String::new(),
            stations: problem.stations,
            twins: problem.twins,
            subchannels: problem.subchannels,
            counts_twins: problem.counts_twins(),
            network,
            width: 32,
            mapping: Mapping::Paper,
            parameters: flat.values().unwrap(),
        });
        let plain = plain.unwrap();
        let plain = states.iter().flat_map(|state| plain.actions(problem, state)).collect();
        (Vec::<f32>::try_from(torch).unwrap(), plain)
    }

    #[test]
    fn actors_act_the_same_with_and_without_torch() {
        for stations in [1, 5] {
            let problem = problem_of(stations);
            let states = states(&problem, 50);
            for network in [Network::Exchangeable, Network::PerBs] {
                let (torch, plain) = both(&problem, network, &states);
                assert_eq!(torch.len(), plain.len());
                assert!(torch.iter().any(|a| (a - torch[0]).abs() > 0.01), "all actions are alike");
                for (torch, plain) in torch.iter().zip(&plain) {
                    assert!((torch - plain).abs() < 1e-5, "{network:?}: {torch} {plain}");
                }
            }
        }
    }

    #[test]
    fn actions_mean_the_same_with_and_without_torch() {
        let problem = problem_of(5);
        let states = states(&problem, 20);
        let (actions, _) = both(&problem, Network::Exchangeable, &states);
        let mapping = Mapping::Improved { repairs: 8, refinements: 0 };
        let shape = Shape::new(&problem, Network::Exchangeable, 32, 8);
        let flat = |of: &dyn Fn(&State) -> Vec<f64>| -> Vec<f32> {
            states.iter().flat_map(|state| of(state).into_iter().map(|x| x as f32)).collect()
        };
        let (m, c) = (shape.stations, shape.subchannels);
        let se = tensor(&flat(&|state| state.se.clone()), &[20, m, c]).unwrap();
        let cpu = flat(&|state| state.cpu_hz.iter().map(|f| f / 1e9).collect());
        let cpu = tensor(&cpu, &[20, m]).unwrap();
        let table = tensor(&actions, &[20, m, shape.actions]).unwrap();
        let relaxed = shape.relaxed(&table, &se, &cpu);
        let [share, tau] = [&relaxed.share, &relaxed.tau]
            .map(|part| Vec::<f32>::try_from(part.contiguous().flatten(0, -1)).unwrap());
        let size = actions.len() / states.len();
        for (at, state) in states.iter().enumerate() {
            let plain = mapping.relaxed(&problem, state, &actions[at * size..][..size]);
            let (m, mc) = (plain.share.len(), plain.tau.len());
            for (torch, plain) in share[at * m..][..m].iter().zip(&plain.share) {
                assert!((f64::from(*torch) - plain).abs() < 1e-4, "{torch} {plain}");
            }
            for (torch, plain) in tau[at * mc..][..mc].iter().zip(&plain.tau) {
                assert!((f64::from(*torch) - plain).abs() < 1e-4, "{torch} {plain}");
            }
        }
        // What b spends is B*, or close to it where a bound is met.
        let spent = (&relaxed.b * &relaxed.share).sum_dim_intlist(1, false, Kind::Float) / shape.b_mean;
        let spent = Vec::<f32>::try_from(spent).unwrap();
        assert!(spent.iter().all(|spent| (spent - 1.0).abs() < 0.1), "{spent:?}");
    }
}
