//! The trained actors, in plain Rust: what they see, how they compute, and the file that keeps them.
//!
//! Both networks end in tanh and give M × (2 + C) actions, whose meaning is a [`Mapping`]'s. Parameters are one flat vector.
//!
//! *Exchangeable*: every agent runs the same network, and swapping two BSs or two subchannels swaps their actions. It sees a
//! table of tokens x_ic ([`FEATURES`] each). A layer is
//! y_ic = relu(A·x_ic + B·mean_c x_i + C·mean_i x_c + D·mean x + bias), there are two, and linear heads read a_τ off each token
//! and (a_K, a_b) off the mean of a BS's tokens. Order: A, B, C, D (inputs × units, row-major) and bias of each layer; then the
//! weights and bias of a_τ, then those of (a_K, a_b).
//!
//! *Per BS*: the paper's. A perceptron each with two hidden layers of relu units, on s = (f, K, D, h), h as linear SINR. Order: of
//! each layer the weights (M × inputs × outputs), then the biases (M × outputs).

use super::mapping::{Mapping, action_size};
use super::{Decision, Policy, PolicyError, Problem, State};
use serde::{Deserialize, Serialize};

/// What an exchangeable actor sees of a BS on a subchannel.
pub const FEATURES: usize = 8;
/// The version of the policy file that this program writes and reads.
pub const FILE_VERSION: u32 = 1;
/// Added to spectral efficiencies before their logarithm is taken, bit/s/Hz: deep fades are all the same.
const SE_OFFSET: f64 = 0.05;

/// Which network the actors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// One for all agents, exchangeable in BSs and subchannels.
    Exchangeable,
    /// A perceptron for each agent.
    PerBs,
}

/// A trained policy, as its file has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// [`FILE_VERSION`].
    pub version: u32,
    /// How it came to be, for people: the command.
    pub made_by: String,
    /// The seed it was trained from.
    pub seed: u64,
    /// γ in training.
    pub gamma: f64,
    /// Episodes before the checkpoint that validation chose.
    pub episodes: u32,
    /// Slots by which the state was old in training.
    pub staleness: u32,
    /// Mean T over that of the optimum, on the validation instances.
    pub validation_ratio: f64,
    /// [`Problem::fingerprint`] of the network it was trained for.
    pub fingerprint: String,
    /// M.
    pub stations: usize,
    /// N.
    pub twins: u32,
    /// C.
    pub subchannels: usize,
    /// The payload of Eq. 15: whether all twins' models count.
    pub counts_twins: bool,
    /// Which network.
    pub network: Network,
    /// Units of its hidden layers.
    pub width: usize,
    /// What its actions mean.
    pub mapping: Mapping,
    /// Its parameters.
    pub parameters: Vec<f32>,
}

impl Problem {
    /// BLAKE3, in hexadecimal, of the constants of the problem: equal fingerprints pose equal problems. Who decides is no part
    /// of it, so that a policy still fits once the topology names it.
    pub fn fingerprint(&self) -> String {
        let mut own = self.clone();
        own.settings.policy = crate::topology::PolicyName::Fixed;
        own.settings.file = None;
        // Debug prints floats so that they read back the same, and covers every field there will be.
        blake3::hash(format!("{own:?}").as_bytes()).to_hex().to_string()
    }
}

/// A policy that decides with trained actors.
#[derive(Debug, Clone)]
pub struct Maddpg {
    file: PolicyFile,
}

impl Maddpg {
    /// Checks a policy that came from outside.
    ///
    /// # Errors
    /// [`PolicyError::Misfit`] when it contradicts itself.
    pub fn new(file: PolicyFile) -> Result<Self, PolicyError> {
        let misfit = |reason: String| Err(PolicyError::Misfit { policy: "maddpg".into(), reason });
        if file.version != FILE_VERSION {
            return misfit(format!("its file is of version {}, not {FILE_VERSION}", file.version));
        }
        if file.stations == 0 || file.subchannels == 0 || file.width == 0 || file.width > 1 << 16 {
            return misfit("it is for no BSs, no subchannels, or has no units".into());
        }
        let shape = (file.stations.min(1 << 16), file.twins, file.subchannels.min(1 << 16));
        let expected = parameter_count(file.network, shape, file.width);
        if file.parameters.len() != expected {
            return misfit(format!("it has {} parameters, not {expected}", file.parameters.len()));
        }
        if let Some(at) = file.parameters.iter().position(|p| !p.is_finite()) {
            return misfit(format!("its parameter {at} is no number"));
        }
        Ok(Self { file })
    }

    /// Reads a policy file's text; `name` is for errors.
    ///
    /// # Errors
    /// [`PolicyError::File`] for what is no policy, [`PolicyError::Misfit`] for one that contradicts itself.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        let file = serde_json::from_str(text)
            .map_err(|error| PolicyError::File { file: name.into(), reason: error.to_string() })?;
        Self::new(file)
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and when it cannot be read.
    pub fn load(path: &std::path::Path) -> Result<Self, PolicyError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text),
            Err(error) => Err(PolicyError::File { file: name, reason: error.to_string() }),
        }
    }

    /// The text of its file.
    ///
    /// # Errors
    /// [`PolicyError::File`] when a number in it cannot be written.
    pub fn render(&self) -> Result<String, PolicyError> {
        serde_json::to_string(&self.file)
            .map(|text| text + "\n")
            .map_err(|error| PolicyError::File { file: "policy".into(), reason: error.to_string() })
    }

    /// What its file says.
    pub fn file(&self) -> &PolicyFile {
        &self.file
    }

    /// Refuses a network of another M, N, C or payload.
    ///
    /// # Errors
    /// [`PolicyError::Misfit`], with both sizes.
    pub fn check(&self, problem: &Problem) -> Result<(), PolicyError> {
        let file = &self.file;
        let own = (file.stations, file.twins, file.subchannels);
        let other = (problem.stations, problem.twins, problem.subchannels);
        let payload = |twins: bool| if twins { "the models of all twins" } else { "one aggregate a BS" };
        let reason = if own != other {
            format!(
                "it was trained for {} BSs, {} twins and {} subchannels; this network has {}, {} and {}",
                own.0, own.1, own.2, other.0, other.1, other.2
            )
        } else if file.counts_twins != problem.counts_twins() {
            format!(
                "it was trained for broadcasts of {}, not of {} (cost.payload)",
                payload(file.counts_twins),
                payload(problem.counts_twins())
            )
        } else {
            return Ok(());
        };
        Err(PolicyError::Misfit {
            policy: "maddpg".into(),
            reason: reason + "; train anew with `dtwn train`",
        })
    }

    /// The actions, M × (2 + C), in a state of the right size.
    pub fn actions(&self, problem: &Problem, state: &State) -> Vec<f32> {
        let file = &self.file;
        let (m, c) = (problem.stations, problem.subchannels);
        let mut input = vec![0.0; input_size(file.network, (m, file.twins, c))];
        observe(file.network, problem, state, &mut input);
        match file.network {
            Network::Exchangeable => exchangeable(&file.parameters, &input, (m, c), file.width),
            Network::PerBs => per_bs(&file.parameters, &input, (m, c), file.width),
        }
    }
}

impl Policy for Maddpg {
    fn name(&self) -> &str {
        "maddpg"
    }

    fn decide(&mut self, problem: &Problem, state: &State) -> Result<Decision, PolicyError> {
        self.check(problem)?;
        Ok(self.file.mapping.decide(problem, state, &self.actions(problem, state)))
    }
}

/// How many numbers the actors see; `shape` is (M, N, C).
pub fn input_size(network: Network, (m, n, c): (usize, u32, usize)) -> usize {
    match network {
        Network::Exchangeable => m * c * FEATURES,
        Network::PerBs => 2 * m + n as usize + m * c,
    }
}

/// How many parameters the actors have; `shape` is (M, N, C).
pub fn parameter_count(network: Network, shape: (usize, u32, usize), width: usize) -> usize {
    let (m, _, c) = shape;
    match network {
        Network::Exchangeable => {
            4 * FEATURES * width + width + 4 * width * width + width + (width + 1) + 2 * (width + 1)
        }
        Network::PerBs => {
            let (input, output) = (input_size(network, shape), action_size(c));
            m * ((input + 1) * width + (width + 1) * width + (width + 1) * output)
        }
    }
}

/// Writes what the actors see into `into`, which has [`input_size`] entries.
pub fn observe(network: Network, problem: &Problem, state: &State, into: &mut [f32]) {
    match network {
        Network::Exchangeable => observe_tokens(problem, state, into),
        Network::PerBs => observe_all(problem, state, into),
    }
}

/// Of each BS and subchannel: se/5; ln se relative to its mean over BSs, over subchannels, and to the best BS; the BS's ln mean
/// se and ln f relative to the other BSs'; K·M/N − 1; and ln of how long training takes relative to broadcasting.
fn observe_tokens(problem: &Problem, state: &State, into: &mut [f32]) {
    let (m, c) = (problem.stations, problem.subchannels);
    let log: Vec<f64> = state.se.iter().map(|se| (se + SE_OFFSET).ln()).collect();
    let column = |channel: usize| (0..m).map(move |i| i * c + channel);
    let over_stations: Vec<f64> =
        (0..c).map(|channel| column(channel).map(|at| log[at]).sum::<f64>() / m as f64).collect();
    let best = |of: &[f64], channel: usize| column(channel).map(|at| of[at]).fold(f64::MIN, f64::max);
    let log_best: Vec<f64> = (0..c).map(|channel| best(&log, channel)).collect();
    let centred = |of: Vec<f64>| {
        let mean = of.iter().sum::<f64>() / m as f64;
        of.into_iter().map(|x| x - mean).collect::<Vec<f64>>()
    };
    let mean_of = |row: &[f64]| row.iter().sum::<f64>() / c as f64;
    let log_rate = centred(state.se.chunks_exact(c).map(|row| (mean_of(row) + SE_OFFSET).ln()).collect());
    let log_cpu = centred(state.cpu_hz.iter().map(|f| f.ln()).collect());

    let models = if problem.counts_twins() { f64::from(problem.twins) } else { m as f64 };
    let se_best: f64 = (0..c).map(|channel| best(&state.se, channel)).sum();
    let broadcast_s = models * problem.broadcast_bits() / (problem.bandwidth_hz() * se_best.max(SE_OFFSET));
    let training_s = problem.budget * problem.cost.cycles_per_sample / state.cpu_hz.iter().sum::<f64>();
    // Milliseconds count as nothing: a network of one broadcasts to nobody.
    let balance = ((training_s + 1e-3) / (broadcast_s + 1e-3)).ln();

    for (at, token) in into.chunks_exact_mut(FEATURES).enumerate() {
        let (i, channel) = (at / c, at % c);
        let over_channels = mean_of(&log[i * c..(i + 1) * c]);
        let k = f64::from(state.k[i]) * m as f64 / f64::from(problem.twins) - 1.0;
        let of = [
            state.se[at] / 5.0,
            log[at] - over_stations[channel],
            log[at] - over_channels,
            log[at] - log_best[channel],
            log_rate[i],
            log_cpu[i],
            k,
            balance,
        ];
        for (into, value) in token.iter_mut().zip(of) {
            *into = value as f32;
        }
    }
}

/// s = (f, K, D, h), each scaled to about 1: f by the fastest processor, K by N, D by its mean, h as SINR by 100 (20 dB).
fn observe_all(problem: &Problem, state: &State, into: &mut [f32]) {
    let fastest = problem.cpu_max_hz.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let cpu = state.cpu_hz.iter().map(|f| f / fastest);
    let k = state.k.iter().map(|k| f64::from(*k) / f64::from(problem.twins));
    let data = problem.samples.iter().map(|d| f64::from(*d) / problem.samples_mean());
    let gains = state.se.iter().map(|se| (se.exp2() - 1.0) / 100.0);
    for (into, value) in into.iter_mut().zip(cpu.chain(k).chain(data).chain(gains)) {
        *into = value as f32;
    }
}

/// Takes the first `count` of what is left of the parameters; fewer where the file was too short, which is checked before.
fn take<'a>(rest: &mut &'a [f32], count: usize) -> &'a [f32] {
    let (taken, after) = rest.split_at(count.min(rest.len()));
    *rest = after;
    taken
}

/// into += x·W, with W row-major (inputs × outputs).
fn add_product(into: &mut [f32], x: &[f32], weights: &[f32]) {
    for (x, row) in x.iter().zip(weights.chunks_exact(into.len())) {
        for (into, weight) in into.iter_mut().zip(row) {
            *into += x * weight;
        }
    }
}

fn relu(values: &mut [f32]) {
    for value in values {
        *value = value.max(0.0);
    }
}

/// One exchangeable layer over a table of M × C tokens of `size` numbers.
fn layer(rest: &mut &[f32], x: &[f32], size: usize, (m, c): (usize, usize), width: usize) -> Vec<f32> {
    let [own, by_station, by_channel, by_all] = [0; 4].map(|_| take(rest, size * width));
    let bias = take(rest, width);
    let mean = |tokens: &mut dyn Iterator<Item = usize>, weights: &[f32], bias: &[f32]| {
        let (mut sum, mut count) = (vec![0.0; size], 0.0);
        for at in tokens {
            sum.iter_mut().zip(&x[at * size..]).for_each(|(sum, x)| *sum += x);
            count += 1.0;
        }
        sum.iter_mut().for_each(|sum| *sum /= count);
        let mut product = bias.to_vec();
        add_product(&mut product, &sum, weights);
        product
    };
    let all = mean(&mut (0..m * c), by_all, bias);
    let stations: Vec<_> = (0..m).map(|i| mean(&mut (i * c..(i + 1) * c), by_station, &all)).collect();
    let none = vec![0.0; width];
    let channels: Vec<_> =
        (0..c).map(|channel| mean(&mut (0..m).map(|i| i * c + channel), by_channel, &none)).collect();
    let mut y = Vec::with_capacity(m * c * width);
    for (at, token) in x.chunks_exact(size).enumerate() {
        let mut out: Vec<f32> = stations[at / c]
            .iter()
            .zip(&channels[at % c])
            .map(|(station, channel)| station + channel)
            .collect();
        add_product(&mut out, token, own);
        relu(&mut out);
        y.append(&mut out);
    }
    y
}

fn exchangeable(parameters: &[f32], tokens: &[f32], (m, c): (usize, usize), width: usize) -> Vec<f32> {
    let rest = &mut &parameters[..];
    let hidden = layer(rest, tokens, FEATURES, (m, c), width);
    let hidden = layer(rest, &hidden, width, (m, c), width);
    let [tau, tau_bias] = [width, 1].map(|count| take(rest, count));
    let [station, station_bias] = [2 * width, 2].map(|count| take(rest, count));
    let mut actions = Vec::with_capacity(m * action_size(c));
    for tokens in hidden.chunks_exact(c * width) {
        let mut mean = vec![0.0; width];
        for token in tokens.chunks_exact(width) {
            mean.iter_mut().zip(token).for_each(|(mean, x)| *mean += x / c as f32);
        }
        let mut own = station_bias.to_vec();
        add_product(&mut own, &mean, station);
        actions.extend(own.iter().map(|a| a.tanh()));
        for token in tokens.chunks_exact(width) {
            let mut own = tau_bias.to_vec();
            add_product(&mut own, token, tau);
            actions.extend(own.iter().map(|a| a.tanh()));
        }
    }
    actions
}

fn per_bs(parameters: &[f32], state: &[f32], (m, c): (usize, usize), width: usize) -> Vec<f32> {
    let rest = &mut &parameters[..];
    let sizes = [state.len(), width, width, action_size(c)];
    let mut values = vec![state.to_vec(); m];
    for (depth, pair) in sizes.windows(2).enumerate() {
        let weights = take(rest, m * pair[0] * pair[1]);
        let biases = take(rest, m * pair[1]);
        for (i, x) in values.iter_mut().enumerate() {
            let mut out = biases[i * pair[1]..(i + 1) * pair[1]].to_vec();
            add_product(&mut out, x, &weights[i * pair[0] * pair[1]..(i + 1) * pair[0] * pair[1]]);
            if depth < 2 {
                relu(&mut out);
            }
            *x = out;
        }
    }
    values.iter().flatten().map(|a| a.tanh()).collect()
}
