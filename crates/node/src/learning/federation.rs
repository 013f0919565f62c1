//! Rounds of learning in one process and without a network: what MBS and BSs compute, and nothing of what they wait for.
//!
//! Each of them has the thread and does the jobs that it has in a run ([`Worker`]), models go between them as they travel, and so the
//! global model of each round is, bit by bit, that of a run of the same topology in which no BS was late and no model refused. Models
//! are not verified here: whatever a poisoner sends counts.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use bytes::Bytes;
use dtwn_model::{
    Plan,
    ids::UserId,
    plan::{NodePlan, Role},
};

use super::{
    learner::{HoldOut, Judgement, LearnerError, MakeLearner},
    work::{Done, Job, Results, Worker},
};

/// A global model, and how it came to be.
#[derive(Debug, Clone)]
pub struct Global {
    /// The round that made it; 0 for the first.
    pub round: u64,
    /// BLAKE3 of its parameters.
    pub digest: blake3::Hash,
    /// On the test set.
    pub judgement: Option<Judgement>,
    /// Samples that went through in all BSs together, those of every pass counted.
    pub samples: u64,
    /// Mean loss of training, weighted by samples, in nats; NaN for the first.
    pub loss: f64,
    /// Wall time of training, all BSs together.
    pub train: Duration,
}

/// A node's thread and what comes from it.
struct Station(Worker, Results);

/// The MBS and the BSs.
pub struct Federation {
    mbs: Station,
    stations: Vec<Station>,
    /// The samples of each BS's twins, by user.
    held: Vec<Vec<(UserId, u32)>>,
    fraction: f64,
    held_out: f64,
    at_once: usize,
    global: Bytes,
    round: u64,
}

/// What a BS made of a round.
struct Local {
    body: Bytes,
    samples: u64,
    loss: f64,
    train: Duration,
}

impl Federation {
    /// The network of a plan, of whose BSs at most `at_once` train at the same time, and its first global model.
    ///
    /// # Errors
    /// When a learner cannot be made (no data, say), or no thread can be started.
    pub fn new(plan: &Plan, make: MakeLearner, at_once: usize) -> Result<(Self, Global), LearnerError> {
        // Without a network nothing comes later: BSs have all samples from the beginning.
        let mut topology = plan.topology().clone();
        topology.twins.preload = true;
        let plan = &Plan::new(&topology).map_err(LearnerError::of)?;
        let start = |node: &NodePlan| match Worker::start(plan, node, make) {
            Ok((worker, done)) => Ok(Station(worker, done)),
            Err(error) => Err(LearnerError(format!("no thread for {}: {error}", node.name))),
        };
        let of_role = |role: fn(&Role) -> bool| plan.nodes.iter().filter(move |node| role(&node.role));
        let mbs = of_role(|role| matches!(role, Role::Mbs)).map(start).next();
        let mbs = mbs.ok_or_else(|| LearnerError("a network without an MBS".into()))??;
        let stations = of_role(|role| matches!(role, Role::Bs(_))).map(start).collect::<Result<_, _>>()?;
        let mut held = vec![Vec::new(); plan.bs_count()];
        for user in plan.users() {
            let own = plan.association.serving(user.id).and_then(|bs| held.get_mut(bs.index()));
            own.into_iter().for_each(|own| own.push((user.id, user.samples)));
        }
        let (fraction, held_out) = (plan.topology().learning.fraction, plan.topology().learning.held_out);
        let (global, round, at_once) = (Bytes::new(), 0, at_once.max(1));
        let mut new = Self { mbs, stations, held, fraction, held_out, at_once, global, round };
        let first = new.make(Job::Begin)?;
        Ok((new, first))
    }

    /// The next round: all BSs that hold samples train, and the MBS makes one model of theirs. `fractions` says on which part of its
    /// samples each user's twin trains, in order of the users; without, it is `learning.fraction`. Twins stay where they are: as Eqs. 4
    /// and 5 weigh models by samples, the global model does not depend on who trains which twin, but for rounding.
    ///
    /// # Errors
    /// When training diverges.
    pub fn round(&mut self, fractions: Option<&Arc<[f64]>>) -> Result<Global, LearnerError> {
        self.round += 1;
        let (round, global) = (self.round, self.global.clone());
        let fraction = |user: UserId| match fractions {
            Some(fractions) => fractions.get(user.index()).copied().unwrap_or(0.0),
            None => self.fraction,
        };
        let trained = |(user, samples): &(UserId, u32)| {
            f64::from(HoldOut::of(*user, self.held_out).share(*samples, fraction(*user)))
        };
        let weight = |held: &Vec<(UserId, u32)>| -> f64 { held.iter().map(trained).sum() };
        let weights: Vec<f64> = self.held.iter().map(weight).collect();
        let own = weights.iter().zip(&mut self.stations).enumerate();
        let with_samples = own.filter(|(_, (weight, _))| **weight > 0.0);
        let left = Mutex::new(with_samples.map(|(bs, (weight, station))| (bs, *weight, station)));
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        let train = || {
            let mut done = Vec::new();
            while let Some((bs, weight, station)) = next() {
                done.push((bs, weight, station.train(round, &global, fractions)));
            }
            done
        };
        let mut locals = Vec::new();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.at_once).map(|_| scope.spawn(train)).collect();
            // A thread that panicked has said so; its BSs are missed below.
            threads.into_iter().for_each(|thread| locals.extend(thread.join().unwrap_or_default()));
        });
        // As at the MBS, in the order of the BSs, whichever was first.
        locals.sort_by_key(|(bs, ..)| *bs);
        let mut models = Vec::new();
        for (bs, weight, local) in locals {
            models.push((bs, weight, local?));
        }
        if models.len() < weights.iter().filter(|weight| **weight > 0.0).count() {
            return Err(LearnerError(format!("a base station's model of round {round} is missing")));
        }
        let locals: Vec<&Local> = models.iter().map(|(.., local)| local).collect();
        let samples: u64 = locals.iter().map(|local| local.samples).sum();
        let loss = locals.iter().map(|local| local.loss * local.samples as f64).sum::<f64>();
        let train = locals.iter().map(|local| local.train).sum();
        let bodies = models.iter().map(|(bs, weight, local)| (*bs, local.body.clone(), *weight)).collect();
        let made = self.make(Job::Finish { round, models: bodies, least: 1 })?;
        Ok(Global { samples, loss: loss / samples.max(1) as f64, train, ..made })
    }

    /// Has the MBS make a global model.
    fn make(&mut self, job: Job) -> Result<Global, LearnerError> {
        match self.mbs.ask(job)? {
            Done::Global { round, body, digest, judgement, refused, .. } => {
                if let Some((bs, why)) = refused.first() {
                    return Err(LearnerError(format!("the model of base station {bs} was refused: {why}")));
                }
                self.global = body;
                Ok(Global { round, digest, judgement, samples: 0, loss: f64::NAN, train: Duration::ZERO })
            }
            other => Err(unasked(&other)),
        }
    }
}

impl Station {
    fn ask(&mut self, job: Job) -> Result<Done, LearnerError> {
        let Self(worker, done) = self;
        // A thread that has ended has left word why.
        let _ = worker.ask(job);
        loop {
            return match done.blocking_recv() {
                // Told beside what was asked for.
                Some(Done::Held(_) | Done::Behaviour { .. }) => continue,
                Some(Done::Failed(why)) => Err(LearnerError(why)),
                Some(done) => Ok(done),
                None => Err(LearnerError("a learning thread has ended".into())),
            };
        }
    }

    fn train(
        &mut self,
        round: u64,
        global: &Bytes,
        fractions: Option<&Arc<[f64]>>,
    ) -> Result<Local, LearnerError> {
        match self.ask(Job::Train { round, global: global.clone(), fractions: fractions.cloned() })? {
            Done::Trained { body, samples, loss, train, .. } => Ok(Local { body, samples, loss, train }),
            other => Err(unasked(&other)),
        }
    }
}

fn unasked(done: &Done) -> LearnerError {
    LearnerError(format!("an answer to no question: {}", done.kind()))
}

#[cfg(test)]
mod tests {
    use dtwn_model::topology::{self, Overrides};

    use super::*;
    use crate::learning::learner::{Examination, Learner, Trained, twins_of};

    /// Learns one number: training moves it half way to the twin's own number, its id plus 1.
    struct Toy(Vec<UserId>);

    impl Learner for Toy {
        fn parameters(&self) -> usize {
            1
        }
        fn dataset(&self) -> &'static str {
            "toy"
        }
        fn initial(&self) -> Vec<f32> {
            vec![0.0]
        }
        fn twins(&self) -> Vec<UserId> {
            self.0.clone()
        }
        fn set_fraction(&mut self, _: f64) {}
        fn change_twins(
            &mut self,
            _: &[UserId],
            _: Vec<(UserId, crate::learning::data::Records)>,
        ) -> Result<(), LearnerError> {
            Ok(())
        }
        fn data(&self, _: UserId) -> Option<(blake3::Hash, u64)> {
            None
        }
        fn train(&mut self, twin: UserId, _: u64, global: &[f32]) -> Result<Trained, LearnerError> {
            let aim = twin.0 as f32 + 1.0;
            if global[0] > 1.4 {
                return Err(LearnerError("far enough".into()));
            }
            let parameters = vec![global[0] + (aim - global[0]) / 2.0];
            Ok(Trained { parameters, samples: 10, passed: 20, loss: 1.0, busy: Duration::ZERO })
        }
        fn examine(&mut self, parameters: &[f32]) -> Result<Option<Examination>, LearnerError> {
            let judgement = Judgement { loss: f64::from(parameters[0]), accuracy: 0.5 };
            Ok(Some(Examination { judgement, labels: Vec::new(), scores: Vec::new() }))
        }
    }

    fn plan() -> Plan {
        let text = "[learning]\nlearner = \"torch\"\n[[bs]]\nid = \"bs\"\ncount = 3\nring = \"100 m\"\n\
                    [[users]]\nid = \"ug1\"\ncount = 1\naround = \"bs1\"\n\
                    [[users]]\nid = \"ug2\"\ncount = 1\naround = \"bs2\"\n\
                    [[users]]\nid = \"ug3\"\ncount = 1\naround = \"bs3\"\n";
        Plan::new(&topology::parse("test.toml", text.into(), &Overrides::default()).unwrap().topology)
            .unwrap()
    }

    #[test]
    fn what_would_come_over_the_air_is_there_from_the_beginning() {
        let make: MakeLearner = |plan, node| Ok(Box::new(Toy(twins_of(plan, node))));
        let with = plan();
        let mut topology = with.topology().clone();
        topology.twins.preload = false;
        let without = Plan::new(&topology).unwrap();
        let [one, other] =
            [&with, &without].map(|plan| Federation::new(plan, make, 1).unwrap().0.round(None).unwrap());
        assert_eq!((one.digest, one.samples), (other.digest, other.samples));
    }

    #[test]
    fn rounds_are_the_same_however_many_train_at_once() {
        let make: MakeLearner = |plan, node| Ok(Box::new(Toy(twins_of(plan, node))));
        let run = |at_once| {
            let (mut federation, first) = Federation::new(&plan(), make, at_once).unwrap();
            assert_eq!((first.round, first.judgement.unwrap().loss), (0, 0.0));
            let one = federation.round(None).unwrap();
            // Half way from 0 to the mean of 1, 2 and 3.
            assert_eq!((one.round, one.judgement.unwrap().loss, one.samples), (1, 1.0, 60));
            let two = federation.round(None).unwrap();
            assert_eq!(two.judgement.unwrap().loss, 1.5);
            // What fails in a learner ends the round with its own words.
            assert!(federation.round(None).unwrap_err().0.contains("far enough"));
            [one.digest, two.digest]
        };
        assert_eq!(run(1), run(3));
    }
}
