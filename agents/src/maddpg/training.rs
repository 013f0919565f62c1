//! Algorithm 1: episodes, and what is kept of them.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use dtwn_model::association::{
    Average, Environment, FILE_VERSION, Geometry, Maddpg as Trained, Mapping, Network, Policy, PolicyFile,
    Problem, Split, State,
};
use dtwn_model::topology::{Algorithm, Maddpg as Settings};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::checkpoint::{self, Header};
use super::learner::Learner;
use super::networks::Shape;
use super::noise::Noise;
use super::replay::Replay;
use super::rows::{self, Layout, Reference};
use super::validation::HeldOut;
use crate::Error;

/// The improved reward is −[`REWARD_SCALE`]·ln(T/([`REWARD_BASE`]·T of the average policy)): about 0 where a policy is good.
const REWARD_SCALE: f64 = 5.0;
const REWARD_BASE: f64 = 0.7;
/// Rewards are bounded, so that one deep fade does not throw the critics.
const REWARD_BOUND: f64 = 1e3;
/// How often a training is validated over its length: a hundred decisions take some 20 ms.
const VALIDATIONS: u32 = 100;
/// How often it is checkpointed, its replay memory included.
const CHECKPOINTS: u32 = 20;
/// Updates with gradients that are not finite after which a training is given up.
const SKIPPED_MAX: u64 = 1000;

/// How far a training is.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    /// Episodes done.
    pub episode: u32,
    /// Of how many.
    pub episodes: u32,
    /// Mean reward of the last episode.
    pub reward: f64,
    /// Mean T of the last episode, with noise, s.
    pub total_s: f64,
    /// The critics' mean loss in the last episode.
    pub critic_loss: f64,
    /// Ratio to the optimum on the validation instances, at the last validation.
    pub ratio: Option<f64>,
    /// The best of these …
    pub best_ratio: Option<f64>,
    /// … and its episode.
    pub best_episode: u32,
    /// Steps of environments a second, stepping only.
    pub steps_per_s: f64,
    /// Updates a second, updating only.
    pub updates_per_s: f64,
    /// Wall-clock seconds so far, over all resumptions.
    pub wall_s: f64,
    /// Updates left out because a gradient was not finite.
    pub skipped: u64,
}

/// A training of one seed.
#[derive(Debug)]
pub struct Training {
    problem: Problem,
    settings: Settings,
    seed: u64,
    learner: Learner,
    replay: Replay,
    layout: Layout,
    held_out: HeldOut,
    episode: u32,
    best: Option<(f64, u32, Vec<f32>)>,
    ratio: Option<f64>,
    wall_s: f64,
}

/// An environment with the states that are not too old to be seen.
struct Player {
    environment: Environment,
    /// The oldest is what the actors see, the newest the truth.
    states: VecDeque<State>,
    /// What the current truth is worth.
    reference: Reference,
}

impl Player {
    fn new(mut environment: Environment, staleness: u32) -> Result<Self, Error> {
        let mut states = VecDeque::from([environment.state().clone()]);
        for _ in 0..staleness {
            environment.step();
            states.push_back(environment.state().clone());
        }
        let reference = reference(environment.problem(), environment.state())?;
        Ok(Self { environment, states, reference })
    }

    fn seen(&self) -> &State {
        self.states.front().unwrap_or(self.environment.state())
    }

    fn step(&mut self, k: &[u32]) -> Result<(), Error> {
        self.environment.set_k(k);
        self.environment.step();
        self.states.pop_front();
        self.states.push_back(self.environment.state().clone());
        self.reference = reference(self.environment.problem(), self.environment.state())?;
        Ok(())
    }
}

fn reference(problem: &Problem, state: &State) -> Result<Reference, Error> {
    let terms = problem.terms(state, &Average.decide(problem, state)?);
    Ok(Reference { average_s: terms.total_s(), block_s: terms.block_s })
}

/// Which networks and which meaning of actions the settings ask for.
fn networks(settings: &Settings) -> (Network, usize, Mapping) {
    let Settings { repairs, refinements, .. } = *settings;
    match settings.algorithm {
        // The literal recipe's perceptrons are four times as wide: 128 units by default.
        Algorithm::Paper => (Network::PerBs, 4 * settings.width as usize, Mapping::Paper),
        Algorithm::Improved => {
            (Network::Exchangeable, settings.width as usize, Mapping::Improved { repairs, refinements })
        }
    }
}

impl Training {
    /// A training from its start.
    ///
    /// # Errors
    /// [`Error::Policy`] when no optimum of the validation instances is found.
    pub fn new(problem: Problem, settings: Settings, seed: u64) -> Result<Self, Error> {
        let (network, width, _) = networks(&settings);
        let shape = Shape::new(&problem, network, width, settings.repairs);
        let layout = Layout::new(&problem);
        let own = (f64::from(settings.validation) * settings.own_geometry).round() as u32;
        // All seeds are judged by the same instances.
        let held_out =
            HeldOut::new(&problem, Split::Validation, 0, (settings.validation, own), settings.staleness)?;
        Ok(Self {
            learner: Learner::new(shape, &settings, seed),
            replay: Replay::new(layout.width(), settings.replay as usize),
            problem,
            settings,
            seed,
            layout,
            held_out,
            episode: 0,
            best: None,
            ratio: None,
            wall_s: 0.0,
        })
    }

    /// Plays, learns, validates every hundredth and writes the checkpoint every twentieth of the way, and tells `report` of each
    /// episode. Goes on from the checkpoint where there is one of this very training.
    ///
    /// # Errors
    /// [`Error::Diverged`] when nothing but gradients that are not finite came, [`Error::Checkpoint`] for one that is damaged
    /// or of another training, [`Error::Torch`], [`Error::Policy`], and what `report` returns.
    pub fn run(
        &mut self,
        checkpoint: Option<&Path>,
        mut report: impl FnMut(&Progress) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(path) = checkpoint {
            self.resume(path)?;
        }
        let every = |times: u32| self.settings.episodes.div_ceil(times);
        let (validation, saving) = (every(VALIDATIONS), every(CHECKPOINTS));
        while self.episode < self.settings.episodes {
            let start = Instant::now();
            let mut progress = self.play()?;
            self.episode += 1;
            let last = self.episode == self.settings.episodes;
            if self.episode.is_multiple_of(validation) || last {
                self.validate()?;
            }
            self.wall_s += start.elapsed().as_secs_f64();
            if let (true, Some(path)) = (self.episode.is_multiple_of(saving) || last, checkpoint) {
                self.save(path)?;
            }
            progress.episode = self.episode;
            progress.ratio = self.ratio;
            progress.best_ratio = self.best.as_ref().map(|best| best.0);
            progress.best_episode = self.best.as_ref().map_or(0, |best| best.1);
            progress.wall_s = self.wall_s;
            report(&progress)?;
            if self.learner.skipped > SKIPPED_MAX {
                return Err(Error::Diverged { episode: self.episode, skipped: self.learner.skipped });
            }
        }
        Ok(())
    }

    /// One episode in all environments.
    fn play(&mut self) -> Result<Progress, Error> {
        let Settings { slots, environments, staleness, .. } = self.settings;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // Streams of environments have their split in the highest bits, which is never 0.
        rng.set_stream(u64::from(self.episode));
        let own = (f64::from(environments) * self.settings.own_geometry).round() as u32;
        let first = u64::from(self.episode) * u64::from(environments);
        let mut players = (0..environments)
            .map(|e| {
                let geometry = if e < own { Geometry::Topology } else { Geometry::Random };
                let index = first + u64::from(e);
                Player::new(
                    Environment::new(&self.problem, geometry, self.seed, Split::Train, index),
                    staleness,
                )
            })
            .collect::<Result<Vec<Player>, Error>>()?;
        let done = f64::from(self.episode) / f64::from(self.settings.episodes.max(2) - 1);
        let sigma =
            self.settings.noise_sigma + (self.settings.noise_sigma_end - self.settings.noise_sigma) * done;
        let count = players.len() * (self.learner.shape.stations * self.learner.shape.actions) as usize;
        let mut noise = Noise::new(count, self.settings.noise_theta, sigma);
        let mut sums = Sums::default();
        for _ in 0..slots {
            self.step(&mut players, &mut noise, &mut rng, &mut sums)?;
            if self.replay.len() >= self.settings.batch as usize {
                self.learn(done, &mut rng, &mut sums)?;
            }
        }
        let mean = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        Ok(Progress {
            episode: self.episode,
            episodes: self.settings.episodes,
            reward: mean(sums.reward, sums.steps),
            total_s: mean(sums.total_s, sums.steps),
            critic_loss: mean(sums.loss, sums.updates),
            ratio: None,
            best_ratio: None,
            best_episode: 0,
            steps_per_s: mean(sums.steps, sums.stepping_s),
            updates_per_s: mean(sums.updates, sums.updating_s),
            wall_s: 0.0,
            skipped: self.learner.skipped,
        })
    }

    /// One slot of all environments: act by Eq. 21, be charged, remember.
    fn step(
        &mut self,
        players: &mut [Player],
        noise: &mut Noise,
        rng: &mut ChaCha8Rng,
        sums: &mut Sums,
    ) -> Result<(), Error> {
        let start = Instant::now();
        let shape = &self.learner.shape;
        let input = rows::inputs(&self.problem, shape, shape.network, players.iter().map(Player::seen))?;
        let mut actions = self.learner.act(&input)?;
        noise.add_to(&mut actions, rng);
        let mapping = match networks(&self.settings).2 {
            // The refinement serves what is executed in earnest; its moves say nothing about the actions.
            Mapping::Improved { repairs, .. } => Mapping::Improved { repairs, refinements: 0 },
            paper => paper,
        };
        let size = actions.len() / players.len().max(1);
        let mut row = Vec::with_capacity(self.layout.width());
        for (player, actions) in players.iter_mut().zip(actions.chunks_exact(size)) {
            let decision = mapping.decide(&self.problem, player.seen(), actions);
            let total_s = self.problem.terms(player.environment.state(), &decision).total_s();
            let reward = self.reward(total_s, player.reference);
            row.clear();
            self.layout.write_state(&mut row, player.seen(), player.environment.state(), player.reference);
            row.extend_from_slice(actions);
            row.push(reward as f32);
            player.step(&decision.k)?;
            self.layout.write_state(&mut row, player.seen(), player.environment.state(), player.reference);
            if self.replay.push(&row) {
                sums.reward += reward;
                sums.total_s += total_s;
                sums.steps += 1.0;
            }
        }
        sums.stepping_s += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// The updates of a slot, with rates as they are when `done` of the training lies behind.
    fn learn(&mut self, done: f64, rng: &mut ChaCha8Rng, sums: &mut Sums) -> Result<(), Error> {
        let start = Instant::now();
        let end = self.settings.rate_end;
        let rate = end + (1.0 - end) * f64::midpoint(1.0, (std::f64::consts::PI * done).cos());
        for _ in 0..self.settings.updates {
            let rows = self.replay.sample(rng, self.settings.batch as usize);
            let with_next = self.settings.discount() > 0.0;
            let batch = self.layout.batch(&self.problem, &self.learner.shape, &rows, with_next)?;
            let (actor, critic) = (self.settings.actor_rate, self.settings.critic_rate);
            sums.loss += self.learner.update(&batch, rate * actor, rate * critic);
            sums.updates += 1.0;
        }
        sums.updating_s += start.elapsed().as_secs_f64();
        Ok(())
    }

    fn reward(&self, total_s: f64, reference: Reference) -> f64 {
        let reward = match self.settings.algorithm {
            Algorithm::Paper => -total_s,
            Algorithm::Improved => -REWARD_SCALE * (total_s / (REWARD_BASE * reference.average_s)).ln(),
        };
        reward.clamp(-REWARD_BOUND, REWARD_BOUND)
    }

    fn validate(&mut self) -> Result<(), Error> {
        let parameters = self.learner.actor.values()?;
        let mut policy = Trained::new(self.file(parameters, 0.0, self.episode))?;
        let ratio = self.held_out.ratio(&self.problem, &mut policy)?;
        self.ratio = Some(ratio);
        if ratio.is_finite() && self.best.as_ref().is_none_or(|best| ratio < best.0) {
            self.best = Some((ratio, self.episode, policy.file().parameters.clone()));
        }
        Ok(())
    }

    fn file(&self, parameters: Vec<f32>, validation_ratio: f64, episodes: u32) -> PolicyFile {
        let (network, width, mapping) = networks(&self.settings);
        PolicyFile {
            version: FILE_VERSION,
            made_by: String::new(),
            seed: self.seed,
            gamma: self.settings.discount(),
            episodes,
            staleness: self.settings.staleness,
            validation_ratio,
            fingerprint: self.problem.fingerprint(),
            stations: self.problem.stations,
            twins: self.problem.twins,
            subchannels: self.problem.subchannels,
            counts_twins: self.problem.counts_twins(),
            network,
            width,
            mapping,
            parameters,
        }
    }

    /// The policy that did best on the validation instances; `made_by` is for people.
    ///
    /// # Errors
    /// [`Error::Diverged`] when none gave finite times.
    pub fn best(&self, made_by: &str) -> Result<Trained, Error> {
        let Some((ratio, episode, parameters)) = &self.best else {
            return Err(Error::Diverged { episode: self.episode, skipped: self.learner.skipped });
        };
        let file = self.file(parameters.clone(), *ratio, *episode);
        Ok(Trained::new(PolicyFile { made_by: made_by.into(), ..file })?)
    }

    /// What the validation instances cost.
    #[must_use]
    pub fn held_out(&self) -> &HeldOut {
        &self.held_out
    }

    fn key(&self) -> String {
        let of = format!("{} {:?} {} {FILE_VERSION}", self.problem.fingerprint(), self.settings, self.seed);
        blake3::hash(of.as_bytes()).to_hex().to_string()
    }

    fn save(&self, path: &Path) -> Result<(), Error> {
        let learner = &self.learner;
        let networks = [&learner.actor, &learner.critic, &learner.actor_target, &learner.critic_target];
        let mut sections = networks.iter().map(|flat| flat.values()).collect::<Result<Vec<_>, Error>>()?;
        let mut steps = [0; 2];
        for (adam, steps) in [&learner.actor_adam, &learner.critic_adam].into_iter().zip(&mut steps) {
            let (first, second, done) = adam.state()?;
            sections.extend([first, second]);
            *steps = done;
        }
        sections.push(self.best.as_ref().map_or_else(Vec::new, |best| best.2.clone()));
        let (replay, replay_next) = self.replay.raw();
        let header = Header {
            key: self.key(),
            episode: self.episode,
            best_episode: self.best.as_ref().map_or(0, |best| best.1),
            best_ratio_bits: self.best.as_ref().map(|best| best.0.to_bits()),
            steps,
            replay_next,
            skipped: learner.skipped,
            wall_s: self.wall_s,
            lengths: Vec::new(),
            digest: String::new(),
        };
        let sections: Vec<&[f32]> = sections.iter().map(Vec::as_slice).chain([replay]).collect();
        checkpoint::write(path, header, &sections)
    }

    fn resume(&mut self, path: &Path) -> Result<(), Error> {
        let Some((header, sections)) = checkpoint::read(path)? else { return Ok(()) };
        let other = |reason: &str| Error::Checkpoint { path: path.into(), reason: reason.into() };
        if header.key != self.key() {
            return Err(other("it is of a training with another network, other settings or another seed"));
        }
        let sections: [Vec<f32>; 10] = sections.try_into().map_err(|_| other("it has not ten sections"))?;
        let [actor, critic, actor_target, critic_target, a1, a2, c1, c2, best, replay] = sections;
        let learner = &mut self.learner;
        learner.actor.set(&actor)?;
        learner.critic.set(&critic)?;
        learner.actor_target.set(&actor_target)?;
        learner.critic_target.set(&critic_target)?;
        learner.actor_adam.set_state(&a1, &a2, header.steps[0])?;
        learner.critic_adam.set_state(&c1, &c2, header.steps[1])?;
        learner.skipped = header.skipped;
        if !self.replay.restore(replay, header.replay_next) {
            return Err(other("its replay memory is of another shape"));
        }
        self.best = header.best_ratio_bits.map(|bits| (f64::from_bits(bits), header.best_episode, best));
        (self.episode, self.wall_s) = (header.episode, header.wall_s);
        Ok(())
    }
}

/// What an episode adds up.
#[derive(Debug, Default)]
struct Sums {
    reward: f64,
    total_s: f64,
    steps: f64,
    stepping_s: f64,
    loss: f64,
    updates: f64,
    updating_s: f64,
}
