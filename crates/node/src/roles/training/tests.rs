//! A BS's learning, with its thread and a learner that diverges every other round.

use dtwn_model::{Plan, ids::UserId, plan::NodePlan};
use dtwn_proto::{
    agent::AgentConfig,
    bus::NodeName,
    node::{self, Header},
};
use ed25519_dalek::SigningKey;
use tokio::sync::mpsc;

use super::*;
use crate::{
    agent::prepare,
    bus::{Bus, BusConfig, Limits, Timing},
    learning::{
        data::Records,
        learner::{Examination, Learner, LearnerError, Trained},
        wire::{Encoder, Format},
    },
};

const TOPOLOGY: &str = r#"
    [learning]
    learner = "torch"
    compute = "native"
    [[bs]]
    id = "bs1"
    position_m = [100, 0]
"#;

struct Diverging;

impl Learner for Diverging {
    fn parameters(&self) -> usize {
        2
    }
    fn dataset(&self) -> &'static str {
        "none"
    }
    fn initial(&self) -> Vec<f32> {
        vec![0.0; 2]
    }
    fn twins(&self) -> Vec<UserId> {
        vec![UserId(0)]
    }
    fn set_fraction(&mut self, _: f64) {}
    fn change_twins(&mut self, _: &[UserId], _: Vec<(UserId, Records)>) -> Result<(), LearnerError> {
        Ok(())
    }
    fn data(&self, _: UserId) -> Option<(blake3::Hash, u64)> {
        None
    }
    fn train(&mut self, _: UserId, round: u64, global: &[f32]) -> Result<Trained, LearnerError> {
        if round % 2 == 1 {
            return Err(LearnerError("it diverges".into()));
        }
        let parameters = global.to_vec();
        Ok(Trained { parameters, samples: 1, passed: 1, loss: 1.0, busy: Duration::ZERO })
    }
    fn examine(&mut self, _: &[f32]) -> Result<Option<Examination>, LearnerError> {
        Ok(None)
    }
}

fn make(_: &Plan, _: &NodePlan) -> Result<Box<dyn Learner>, LearnerError> {
    Ok(Box::new(Diverging))
}

async fn bus(key: SigningKey) -> Bus {
    let config = BusConfig {
        me: NodeName::new("bs1").unwrap(),
        boot: 1,
        signing_key: key,
        listen: Some(([127, 0, 0, 1], 0).into()),
        peers: Vec::new(),
        limits: Limits::default(),
        timing: Timing::default(),
        seed: 1,
        clock: std::sync::Arc::new(|| 0),
    };
    Bus::start(config).await.unwrap().0
}

#[tokio::test]
async fn that_no_model_comes_is_told_once_training_has_failed() {
    let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::from_bytes(&[1; 32]));
    let config = AgentConfig {
        node: "bs1".into(),
        topology: TOPOLOGY.into(),
        epoch_monotonic_ns: 0,
        boot: 0,
        signing_key: key.to_bytes(),
        verifying_keys: Vec::new(),
        policy_file: None,
        state_dir: folder.path().into(),
    };
    let (frames, _reports) = mpsc::channel(64);
    let mut node = prepare(config, frames).unwrap();
    node.learner = Some(make);
    let names = ["bs1".to_owned()];
    let mut training = Training::start(&node, None, &names).unwrap().unwrap();
    let worker = Some(training.worker());
    let mut twins = Twins::start(&node, BsId(0), &names, &bus(key.clone()).await, None, worker).unwrap();
    let global = Bytes::from(Encoder::new(Format::F32).encode(&[0.0; 2]));
    for round in 1..=4 {
        assert!(training.open(&node, BsId(0), None, round, global.clone()));
        let word = loop {
            let turn = tokio::time::timeout(Duration::from_secs(60), training.next()).await.unwrap();
            if let Some(word) = training.turn(&node, &mut twins, round, turn).unwrap() {
                break word;
            }
        };
        match word {
            Word::Trains { round: of, anything: false } if round % 2 == 1 => assert_eq!(of, round),
            Word::Model(message) if round % 2 == 0 => {
                let (Header::Model(header), body) = node::decode(&message).unwrap() else { panic!() };
                assert!(model::is_signed(&header, &key.verifying_key()));
                assert_eq!((header.round, training.sent(round)), (round, Some(&body)));
            }
            word => panic!("in round {round}: {word:?}"),
        }
        // An MBS that is started again, and asks once more, is told the same.
        assert_eq!(training.has_nothing(), round % 2 == 1);
    }
}
