use super::*;
use crate::message::{Delivery, Gossip, ProposalMessage, Request, Segment};
use crate::models::ModelStatus;
use crate::testing::{Net, certificate, genesis, key, registry, transaction, vote};
use crate::tx::{BodyRef, Verdict};
use crate::vote::{Proposal, Statement};

fn lone(id: u16) -> (Arc<Registry>, Core) {
    let registry = registry(4);
    let identity = Identity { id: ReplicaId(id), signer: Box::new(crate::crypto::StubSigner(key(id))) };
    let core =
        Core::new(registry.clone(), Config::default(), Some(identity), Recovered::genesis(&registry), 0);
    (registry, core)
}

fn from(id: u16, message: Message) -> Input {
    Input::Receive { from: Some(ReplicaId(id)), message: Arc::new(message) }
}

fn sends(effects: &[Effect]) -> Vec<&Message> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { message, .. } => Some(message.as_ref()),
            _ => None,
        })
        .collect()
}

fn last_record(effects: &[Effect]) -> u64 {
    let numbers = effects.iter().filter_map(|effect| match effect {
        Effect::Persist { number, .. } => Some(*number),
        _ => None,
    });
    numbers.max().unwrap()
}

/// A proposal of view 1, led by replica 1 (four producers with equal coins, in order of id).
fn proposal(registry: &Registry) -> ProposalMessage {
    let (block, _) = State::genesis(registry).build(registry, 1, []);
    let proposal = Proposal { epoch: 0, view: 1, parent_view: 0, height: 1, block: block.digest() };
    let signature = vote(registry, 1, Statement::Notarize(proposal)).signature;
    ProposalMessage { proposal, block: Arc::new(block), signature, justification: Vec::new() }
}

#[test]
fn votes_leave_only_after_they_are_durable() {
    let (registry, mut core) = lone(0);
    let _ = core.step(0, Input::Tick);
    let effects = core.step(1, from(1, Message::Proposal(proposal(&registry))));
    assert!(sends(&effects).is_empty());
    let number = last_record(&effects);
    assert!(sends(&core.step(2, Input::Persisted(number - 1))).is_empty());
    let released = core.step(3, Input::Persisted(number));
    assert!(matches!(sends(&released)[..], [Message::Vote(vote)] if vote.signer == ReplicaId(0)));
}

#[test]
fn a_view_is_never_both_finalized_and_nullified() {
    let (registry, mut core) = lone(0);
    let _ = core.step(0, Input::Tick);
    // Nullified first: no vote to finalize follows, however the notarization arrives.
    let effects = core.step(2_000_000, Input::Tick);
    let _ = core.step(2_000_000, Input::Persisted(last_record(&effects)));
    let notarization = certificate(&registry, &[1, 2, 3], Statement::Notarize(proposal(&registry).proposal));
    let effects = core.step(2_000_001, from(1, Message::Certificate(notarization)));
    let votes = effects.iter().filter(|effect| {
        matches!(effect, Effect::Persist { record: Record::Vote(vote), .. } if matches!(vote.statement, Statement::Finalize(_)))
    });
    assert_eq!(votes.count(), 0);
    assert_eq!(core.round(), (0, 2));
}

#[test]
fn a_block_is_final_three_message_delays_after_its_proposal() {
    // Messages are delivered in rounds of one delay; disks take no time.
    let mut net = Net::stub(4, |_| {});
    net.input(0, Input::Submit(Payload::Action { round: 1, content: vec![1] }));
    net.reach(3);
    let (registry, mut core) = lone(0);
    let _ = core.step(0, Input::Tick);
    let message = proposal(&registry);
    // One delay: the proposal. Two: the notarize votes. Three: the finalize votes.
    let effects = core.step(10, from(1, Message::Proposal(message.clone())));
    let _ = core.step(10, Input::Persisted(last_record(&effects)));
    let mut effects = Vec::new();
    for id in [2, 3] {
        effects.extend(
            core.step(
                20,
                from(id, Message::Vote(vote(&registry, id, Statement::Notarize(message.proposal)))),
            ),
        );
    }
    let _ = core.step(20, Input::Persisted(last_record(&effects)));
    assert_eq!((core.height(), core.round()), (0, (0, 2)));
    for id in [2, 3] {
        let _ = core
            .step(30, from(id, Message::Vote(vote(&registry, id, Statement::Finalize(message.proposal)))));
    }
    assert_eq!(core.height(), 1);
}

#[test]
fn proposals_need_their_leader_a_valid_block_and_a_certified_parent() {
    let good = |registry: &Registry| proposal(registry);
    let changes: [fn(&mut ProposalMessage, &Registry); 4] = [
        |message, _| message.signature.0[0] ^= 1,
        |message, _| message.proposal.height += 1,
        |message, registry| {
            // Signed by its leader, but on a view that nothing certifies.
            message.proposal.view = 5;
            message.proposal.parent_view = 3;
            message.signature = vote(registry, 1, Statement::Notarize(message.proposal)).signature;
        },
        |message, registry| {
            // Its block claims a state that does not follow.
            let mut header = *message.block.header();
            header.state.0[0] ^= 1;
            message.block = Arc::new(crate::block::Block::new(header, Vec::new()));
            message.proposal.block = message.block.digest();
            message.signature = vote(registry, 1, Statement::Notarize(message.proposal)).signature;
        },
    ];
    for change in changes {
        let (registry, mut core) = lone(0);
        let _ = core.step(0, Input::Tick);
        let mut message = good(&registry);
        change(&mut message, &registry);
        let effects = core.step(1, from(1, Message::Proposal(message)));
        let notarized = effects.iter().any(|effect| {
            matches!(effect, Effect::Persist { record: Record::Vote(v), .. } if matches!(v.statement, Statement::Notarize(_)))
        });
        assert!(!notarized, "{effects:?}");
    }
}

#[test]
fn a_double_vote_becomes_evidence_that_costs_coins_once() {
    let mut net = Net::stub(4, |genesis| genesis.params.penalty = 7);
    net.reach(1);
    let (epoch, view) = net.cores[0].as_ref().unwrap().round();
    let conflicting = |byte: u8| {
        let proposal =
            Proposal { epoch, view: view + 1, parent_view: view, height: 9, block: Digest([byte; 32]) };
        Message::Vote(vote(&net.registry, 3, Statement::Notarize(proposal)))
    };
    let (first, second) = (conflicting(1), conflicting(2));
    for node in 0..3 {
        net.input(node, from(3, first.clone()));
        net.input(node, from(3, second.clone()));
    }
    let height = net.cores[0].as_ref().unwrap().height();
    net.reach(height + 8);
    let state = net.cores[0].as_ref().unwrap().state().clone();
    assert_eq!(state.account(ReplicaId(3)).unwrap().coins, 100_000_000 - 7);
    assert_eq!((state.burned, state.offences.len()), (7, 1));
    assert!(
        net.cores.iter().flatten().all(|core| core.mempool().is_empty()),
        "copies of the evidence are dropped"
    );
}

#[test]
fn an_attested_model_earns_its_award_and_a_failed_one_does_not() {
    let mut net = Net::stub(4, |genesis| genesis.params.award = 5);
    let body = BodyRef { digest: Digest([4; 32]), size_bytes: 10 };
    for round in [1, 2] {
        net.input(0, Input::Submit(Payload::TrainingModel { round, body }));
        let height = net.cores[0].as_ref().unwrap().height();
        net.reach(height + 4);
        let verdict = if round == 1 { Verdict::Passed } else { Verdict::Failed };
        for node in 1..3 {
            let payload = Payload::Attestation { owner: ReplicaId(0), round, digest: body.digest, verdict };
            net.input(node, Input::Submit(payload));
        }
        let height = net.cores[0].as_ref().unwrap().height();
        net.reach(height + 8);
    }
    let state = net.cores[3].as_ref().unwrap().state().clone();
    let account = state.account(ReplicaId(0)).unwrap();
    let status = |round| account.model(round).unwrap().status;
    assert_eq!((status(1), status(2)), (ModelStatus::Awarded, ModelStatus::Failed));
    assert_eq!((account.coins, state.minted), (100_000_005, 5));
    assert!(state.conserves_coins());
}

#[test]
fn misses_are_counted_and_an_absent_leader_is_voted_out() {
    let mut net = Net::stub(5, |genesis| {
        genesis.params.producers = 4;
        genesis.params.epoch_blocks = 12;
    });
    net.cores[2] = None;
    net.reach(11);
    let state = net.cores[0].as_ref().unwrap().state().clone();
    let absent = state.account(ReplicaId(2)).unwrap();
    assert!(absent.missed >= 2 && absent.missed == absent.turns, "{absent:?}");
    net.reach(13);
    let state = net.cores[0].as_ref().unwrap().state();
    assert!(state.epoch >= 1);
    assert_eq!(state.producers.members, [0, 1, 3, 4].map(ReplicaId));
}

#[test]
fn an_observer_and_a_newcomer_catch_up() {
    let mut net = Net::stub(4, |genesis| genesis.params.epoch_blocks = 6);
    let newcomer = net.cores[3].take();
    net.reach(40);
    net.cores[3] = newcomer;
    net.reach(45);
    let blocks: Vec<_> = net.cores.iter().flatten().map(|core| core.height()).collect();
    assert_eq!(blocks.len(), 5, "four replicas and the observer: {blocks:?}");
}

#[test]
fn a_segment_is_committed_although_later_blocks_are_missing() {
    let (registry, mut core) = lone(0);
    let _ = core.step(0, Input::Tick);
    let mut state = State::genesis(&registry);
    let mut chain = Vec::new();
    for view in 1..=3 {
        let (block, after) = state.build(&registry, view, []);
        let proposal =
            Proposal { epoch: 0, view, parent_view: view - 1, height: view, block: block.digest() };
        chain.push((Arc::new(block), certificate(&registry, &[1, 2, 3], Statement::Finalize(proposal))));
        state = after;
    }
    // Height 3 is known to be final, and no block is here.
    let _ = core.step(1, from(1, Message::Certificate(chain[2].1.clone())));
    assert_eq!(core.height(), 0);
    let segment = Segment { blocks: vec![chain[0].0.clone()], certificate: chain[0].1.clone() };
    let _ = core.step(2, from(1, Message::Segment(segment)));
    assert_eq!(core.height(), 1);
    let blocks = chain[1..].iter().map(|(block, _)| block.clone()).collect();
    let segment = Segment { blocks, certificate: chain[2].1.clone() };
    let _ = core.step(3, from(1, Message::Segment(segment)));
    assert_eq!(core.height(), 3);
}

#[test]
fn unasked_blocks_and_transactions_beyond_bounds_are_not_kept() {
    let (registry, mut core) = lone(0);
    let _ = core.step(0, Input::Tick);
    let block = proposal(&registry).block;
    let _ = core.step(1, from(1, Message::Block(Delivery(block))));
    assert!(core.tree.is_empty());
    let mut forged =
        transaction(&registry, 1, 1, Payload::Action { round: 0, content: vec![] }).as_ref().clone();
    forged.signature.0[0] ^= 1;
    let good = transaction(&registry, 1, 2, Payload::Action { round: 0, content: vec![] });
    let far = transaction(&registry, 1, 1_000_000, Payload::Action { round: 0, content: vec![] });
    let gossip = Gossip(vec![Arc::new(forged), good, far]);
    let _ = core.step(2, from(1, Message::Gossip(gossip)));
    assert_eq!(core.mempool().len(), 1);
    for view in [VIEWS_AHEAD + 2, u64::MAX] {
        let statement = Statement::Nullify { epoch: 0, view };
        let _ = core.step(3, from(2, Message::Vote(vote(&registry, 2, statement))));
    }
    assert!(core.views.keys().all(|&view| view <= VIEWS_AHEAD + 1));
}

#[test]
fn answers_to_one_peer_are_bounded() {
    let (_, mut core) = lone(0);
    let _ = core.step(0, Input::Tick);
    core.state = Arc::new(State { height: 10, ..core.state.as_ref().clone() });
    let answers =
        (0..1000).map(|_| core.step(5, from(1, Message::Request(Request::default()))).len()).sum::<usize>();
    assert!(answers <= 32, "{answers}");
}

#[test]
fn a_replica_that_lost_its_votes_does_not_vote_until_told() {
    let registry = registry(4);
    let identity = Identity { id: ReplicaId(0), signer: Box::new(crate::crypto::StubSigner(key(0))) };
    let recovered = Recovered { vote_from: 2, ..Recovered::genesis(&registry) };
    let mut core = Core::new(registry.clone(), Config::default(), Some(identity), recovered, 0);
    let mut effects = core.step(0, Input::Tick);
    effects.extend(core.step(1, from(1, Message::Proposal(proposal(&registry)))));
    effects.extend(core.step(10_000_000, Input::Tick));
    assert!(effects.iter().all(|effect| !matches!(effect, Effect::Persist { record: Record::Vote(_), .. })));
}

#[test]
fn submissions_beyond_bounds_are_refused_with_a_reason() {
    let mut genesis = genesis(4);
    genesis.params.max_block_bytes = 1000;
    let registry = Registry::with_verifier(genesis, Box::new(crate::crypto::StubVerifier)).unwrap();
    let identity = Identity { id: ReplicaId(0), signer: Box::new(crate::crypto::StubSigner(key(0))) };
    let mut core =
        Core::new(registry.clone(), Config::default(), Some(identity), Recovered::genesis(&registry), 0);
    let _ = core.step(0, Input::Tick);
    let rejected = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::Notify(Event::Rejected { reason, .. }) => Some(reason),
            _ => None,
        })
    };
    let big = Payload::Action { round: 0, content: vec![0; 2000] };
    assert_eq!(rejected(core.step(1, Input::Submit(big))), Some("larger than a block".into()));
    let small = || Payload::Action { round: 0, content: vec![] };
    let refused = (0..5000).find_map(|_| rejected(core.step(2, Input::Submit(small()))));
    assert!(refused.unwrap().contains("wait already"));
}
