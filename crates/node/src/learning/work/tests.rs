use dtwn_model::topology::{self, Overrides};

use super::*;
use crate::association::InForce;
use crate::learning::{
    data::Records,
    learner::{Examination, Learner, LearnerError, Trained, twins_of},
    wire::{self, Encoder, Format},
};

/// Learns two numbers: training moves towards 1, 1 and the loss is the distance from there. One that is to tell when it is gone takes
/// its time to judge.
struct Toy(Vec<UserId>, f64, Option<&'static AtomicBool>);

/// A round in which nothing can be trained.
const DIVERGES: u64 = 13;
/// A round in which no twin comes to its end without leave.
const WAITS: u64 = 20;

/// The twin that was begun last in that round.
static BEGUN: Mutex<Option<UserId>> = Mutex::new(None);
static HAS_LEAVE: AtomicBool = AtomicBool::new(false);

impl Drop for Toy {
    fn drop(&mut self) {
        if let Some(gone) = self.2 {
            gone.store(true, Ordering::SeqCst);
        }
    }
}

impl Learner for Toy {
    fn parameters(&self) -> usize {
        2
    }
    fn dataset(&self) -> &'static str {
        "toy"
    }
    fn initial(&self) -> Vec<f32> {
        vec![0.0, 0.0]
    }
    fn twins(&self) -> Vec<UserId> {
        self.0.clone()
    }
    fn set_fraction(&mut self, fraction: f64) {
        self.1 = fraction;
    }
    fn change_twins(
        &mut self,
        released: &[UserId],
        held: Vec<(UserId, Records)>,
    ) -> Result<(), LearnerError> {
        self.0.retain(|twin| !released.contains(twin));
        self.0.extend(held.into_iter().map(|(twin, _)| twin));
        Ok(())
    }
    fn data(&self, _: UserId) -> Option<(blake3::Hash, u64)> {
        None
    }
    fn train(&mut self, twin: UserId, round: u64, global: &[f32]) -> Result<Trained, LearnerError> {
        if round == DIVERGES {
            return Err(LearnerError("diverged".into()));
        }
        if round == WAITS {
            *BEGUN.lock().unwrap() = Some(twin);
            while !HAS_LEAVE.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
        let parameters = global.iter().map(|value| value + (1.0 - value) / 2.0).collect();
        let samples = ((1.0 + f64::from(twin.0)) * self.1) as u64;
        Ok(Trained { parameters, samples, passed: samples, loss: 1.0, busy: Duration::ZERO })
    }
    fn examine(&mut self, parameters: &[f32]) -> Result<Option<Examination>, LearnerError> {
        if self.2.is_some() {
            std::thread::sleep(Duration::from_millis(100));
        }
        let loss = parameters.iter().map(|value| f64::from((1.0 - value).abs())).sum();
        let judgement = Judgement { loss, accuracy: 0.5 };
        Ok(Some(Examination { judgement, labels: Vec::new(), scores: Vec::new() }))
    }
}

fn plan(poison: &str) -> Plan {
    let text = format!(
        "[learning]\nlearner = \"torch\"\n{poison}\n[[bs]]\nid = \"bs1\"\nposition_m = [100, 0]\n\
         [[users]]\nid = \"ug1\"\ncount = 3\naround = \"bs1\"\n"
    );
    let loaded = topology::parse("test.toml", text, &Overrides::default()).unwrap();
    Plan::new(&loaded.topology).unwrap()
}

fn worker(poison: &str) -> (Worker, Results) {
    let plan = plan(poison);
    let make: MakeLearner = |plan, node| Ok(Box::new(Toy(twins_of(plan, node), 1.0, None)));
    Worker::start(&plan, plan.node("bs1").unwrap(), make).unwrap()
}

fn next(worker: &Worker, done: &mut Results, job: Job) -> Done {
    assert!(worker.ask(job));
    answer(done)
}

fn answer(done: &mut Results) -> Done {
    loop {
        match done.blocking_recv().unwrap() {
            // Told beside what was asked for.
            Done::Held(_) | Done::Behaviour { .. } => {}
            other => return other,
        }
    }
}

fn body(parameters: &[f32]) -> Bytes {
    Encoder::new(Format::F32).encode(parameters).into()
}

#[test]
fn what_is_in_force_says_how_many_samples_twins_train_on() {
    let (worker, mut done) = worker("");
    let plan = plan("");
    for (b, expected) in [(1.0, 6), (3.0, 18)] {
        let in_force = InForce { b: vec![b], ..InForce::first(&plan) };
        let fractions = Some(in_force.fractions(&plan));
        let job = Job::Train { round: 1, global: body(&[0.0, 0.0]), fractions };
        let Done::Trained { samples, .. } = next(&worker, &mut done, job) else { panic!() };
        assert_eq!(samples, expected);
    }
}

#[test]
fn a_round_goes_from_the_first_model_to_a_better_one() {
    let (worker, mut done) = worker("");
    let Done::Global { round: 0, body: first, judgement, .. } = next(&worker, &mut done, Job::Begin) else {
        panic!()
    };
    assert_eq!(judgement.unwrap().loss, 2.0);
    let job = Job::Train { round: 1, global: first, fractions: None };
    let Done::Trained { round: 1, body: own, twins: 3, samples: 6, .. } = next(&worker, &mut done, job)
    else {
        panic!()
    };
    assert_eq!(wire::decode(&own, 2).unwrap(), [0.5, 0.5]);
    let job = Job::Finish { round: 1, models: vec![(0, own, 6.0), (1, body(&[1.0, 1.0]), 6.0)], least: 2 };
    let Done::Global { round: 1, body: global, judgement, digest: sealed, .. } =
        next(&worker, &mut done, job)
    else {
        panic!()
    };
    assert_eq!(wire::decode(&global, 2).unwrap(), [0.75, 0.75]);
    assert_eq!((judgement.unwrap().loss, sealed), (0.5, digest(&[0.75, 0.75])));
    // Without good models the global one stays.
    let Done::Global { digest: kept, .. } =
        next(&worker, &mut done, Job::Finish { round: 2, models: Vec::new(), least: 0 })
    else {
        panic!()
    };
    assert_eq!(kept, sealed);
    // Nor is one made of fewer models than are asked for, where one turns out to be none.
    let models = vec![(0, body(&[9.0, 9.0]), 6.0), (1, body(&[f32::NAN, 9.0]), 6.0)];
    let Done::Global { digest: kept, refused, .. } =
        next(&worker, &mut done, Job::Finish { round: 3, models, least: 2 })
    else {
        panic!()
    };
    assert_eq!((kept, refused.len(), refused[0].0), (sealed, 1, 1));
}

#[test]
fn twins_change_between_rounds_and_leave_their_models() {
    let (worker, mut done) = worker("");
    let data = Bytes::from(vec![1; crate::learning::data::RECORD_BYTES]);
    let job = Job::Twins {
        released: vec![UserId(0), UserId(1)],
        held: vec![(UserId(9), data)],
        models: vec![(UserId(9), body(&[3.0, 4.0])), (UserId(2), Bytes::from_static(b"none"))],
    };
    assert!(worker.ask(job));
    assert!(matches!(done.blocking_recv().unwrap(), Done::Held(_)));
    assert!(matches!(done.blocking_recv().unwrap(), Done::Held(_)));
    let of = |twin| {
        worker.models().lock().unwrap().get(&UserId(twin)).map(|(round, model)| (*round, model.to_vec()))
    };
    assert_eq!((of(9), of(2)), (Some((0, vec![3.0, 4.0])), None));
    let job = Job::Train { round: 1, global: body(&[0.0, 0.0]), fractions: None };
    let Done::Trained { twins: 2, .. } = next(&worker, &mut done, job) else { panic!() };
    let Done::Behaviour { round: 1, judgement, models } = done.blocking_recv().unwrap() else { panic!() };
    assert!(judgement.unwrap().loss < 2.0);
    let half = digest(&[0.5, 0.5]);
    assert_eq!(models, [(UserId(2), half, 8), (UserId(9), half, 8)]);
    let released = vec![UserId(2), UserId(9)];
    assert!(worker.ask(Job::Twins { released, held: Vec::new(), models: Vec::new() }));
    assert!(matches!(done.blocking_recv().unwrap(), Done::Held(_)));
    assert_eq!(of(9), None);
    let job = Job::Train { round: 2, global: body(&[0.0, 0.0]), fractions: None };
    assert!(matches!(next(&worker, &mut done, job), Done::Idle { round: 2, .. }));
}

#[test]
fn bad_models_are_found_out() {
    let (worker, mut done) = worker("");
    next(&worker, &mut done, Job::Train { round: 1, global: body(&[0.0, 0.0]), fractions: None });
    let mut fault = |of: Bytes| {
        let job = Job::Verify { round: 1, owner: 2, digest: [0; 32], body: of };
        let Done::Verified { round: 1, owner: 2, fault, .. } = next(&worker, &mut done, job) else {
            panic!()
        };
        fault
    };
    assert_eq!(fault(body(&[0.5, 0.5])), None);
    assert!(fault(body(&[-1.0, -1.0])).unwrap().contains("its loss here is 4.000"));
    // No more than tolerable, but the other way.
    assert!(fault(body(&[-0.2, -0.2])).unwrap().contains("cosine -1.00"));
    assert_eq!(fault(body(&[2.2, 2.2])), None);
    assert!(fault(body(&[0.5, f32::NAN])).unwrap().contains("not a finite number"));
    assert!(fault(body(&[0.5])).unwrap().contains("1 parameters where 2"));
}

#[test]
fn whoever_could_not_train_does_not_take_bad_models_for_good() {
    let (worker, mut done) = worker("");
    let job = Job::Train { round: DIVERGES, global: body(&[0.0, 0.0]), fractions: None };
    assert!(matches!(next(&worker, &mut done, job), Done::Failed(why) if why == "diverged"));
    let mut check = |round, of: &[f32]| {
        next(&worker, &mut done, Job::Verify { round, owner: 2, digest: [0; 32], body: body(of) })
    };
    assert!(matches!(check(DIVERGES, &[0.5, 0.5]), Done::Verified { fault: None, .. }));
    assert!(matches!(check(DIVERGES, &[-1.0, -1.0]), Done::Verified { fault: Some(_), .. }));
    // Of a round that it knows nothing of, it says nothing.
    assert!(matches!(check(DIVERGES + 1, &[0.5, 0.5]), Done::Unverified { round: 14, owner: 2, .. }));
}

#[test]
fn a_poisoner_sends_what_its_poison_says() {
    let (worker, mut done) = worker("poison = { bs1 = \"sign-flip\" }");
    let mut own = || {
        let job = Job::Train { round: 1, global: body(&[0.0, 0.0]), fractions: None };
        let Done::Trained { body: own, .. } = next(&worker, &mut done, job) else { panic!() };
        wire::decode(&own, 2).unwrap()
    };
    assert_eq!(own(), [-1.5, -1.5]);
    assert!(worker.ask(Job::Spoil(None)));
    assert_eq!(own(), [0.5, 0.5]);
    assert!(worker.ask(Job::Spoil(Some(Poison::SignFlip))));
    assert_eq!(own(), [-1.5, -1.5]);
}

#[test]
fn a_job_that_fails_says_why_and_the_next_one_is_done() {
    let (worker, mut done) = worker("");
    let job = Job::Train { round: 1, global: Bytes::from_static(b"no model"), fractions: None };
    assert!(matches!(next(&worker, &mut done, job), Done::Failed(why) if why.contains("not a model")));
    assert!(matches!(next(&worker, &mut done, Job::Begin), Done::Global { .. }));
}

#[test]
fn what_older_rounds_asked_for_is_left_when_a_newer_one_begins() {
    let (worker, mut done) = worker("");
    let train = |round| Job::Train { round, global: body(&[0.0, 0.0]), fractions: None };
    let verify = |round| Job::Verify { round, owner: 2, digest: [7; 32], body: body(&[0.5, 0.5]) };
    worker.begin(1);
    assert!(matches!(next(&worker, &mut done, train(1)), Done::Trained { round: 1, .. }));
    worker.begin(2);
    let left = next(&worker, &mut done, verify(1));
    assert!(
        matches!(left, Done::Overtaken { round: 1, model: Some(digest) } if digest == [7; 32]),
        "{left:?}"
    );
    assert!(matches!(next(&worker, &mut done, train(1)), Done::Overtaken { round: 1, model: None }));
    assert!(matches!(next(&worker, &mut done, train(2)), Done::Trained { round: 2, .. }));
    // A round that began before is no newer one.
    worker.begin(1);
    assert!(matches!(next(&worker, &mut done, verify(2)), Done::Verified { fault: None, .. }));
}

#[test]
fn training_is_left_between_twins_when_a_newer_round_begins() {
    let (worker, mut done) = worker("");
    let train = |round| Job::Train { round, global: body(&[0.0, 0.0]), fractions: None };
    worker.begin(WAITS);
    assert!(worker.ask(train(WAITS)));
    while BEGUN.lock().unwrap().is_none() {
        std::thread::yield_now();
    }
    worker.begin(WAITS + 1);
    HAS_LEAVE.store(true, Ordering::SeqCst);
    let left = answer(&mut done);
    // What the first of the three has went through all the same.
    assert!(matches!(left, Done::Abandoned { round: WAITS, samples: 1, .. }), "{left:?}");
    // The first of three was begun before.
    assert_eq!(*BEGUN.lock().unwrap(), Some(UserId(0)));
    assert!(matches!(next(&worker, &mut done, train(WAITS + 1)), Done::Trained { twins: 3, .. }));
}

static SLOW_ONE_IS_GONE: AtomicBool = AtomicBool::new(false);

#[test]
fn nothing_is_computed_any_more_once_the_results_are_dropped() {
    let plan = plan("");
    let make: MakeLearner =
        |plan, node| Ok(Box::new(Toy(twins_of(plan, node), 1.0, Some(&SLOW_ONE_IS_GONE))));
    let (worker, mut done) = Worker::start(&plan, plan.node("bs1").unwrap(), make).unwrap();
    let global = body(&[0.0, 0.0]);
    let job = Job::Train { round: 1, global, fractions: None };
    assert!(matches!(next(&worker, &mut done, job), Done::Trained { .. }));
    // The model is judged after it has been handed over.
    drop(done);
    assert!(SLOW_ONE_IS_GONE.load(Ordering::SeqCst));
    assert!(!worker.ask(Job::Begin));
}
