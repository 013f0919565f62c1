use proptest::prelude::*;

use super::*;

fn body(len: usize, seed: u8) -> Arc<[u8]> {
    (0..len).map(|index| (index * 31 + index / 251) as u8 ^ seed).collect()
}

/// Replicas joined by links that deliver in order, except where `meddle` drops or changes a message.
struct Net {
    nodes: Vec<Bodies>,
    now: Micros,
    completed: Vec<(usize, Digest)>,
    sent_bytes: Vec<usize>,
}

type Meddle<'a> = &'a mut dyn FnMut(usize, BodyMessage) -> Option<BodyMessage>;

impl Net {
    fn new(count: usize, limits: BodyLimits) -> Self {
        Self {
            nodes: (0..count).map(|_| Bodies::new(limits)).collect(),
            now: 0,
            completed: Vec::new(),
            sent_bytes: vec![0; count],
        }
    }

    fn run(&mut self, node: usize, input: BodyInput, meddle: Meddle<'_>) {
        let mut queue = VecDeque::from([(node, input)]);
        while let Some((node, input)) = queue.pop_front() {
            for effect in self.nodes[node].step(self.now, input).unwrap() {
                match effect {
                    BodyEffect::Send(to, message) => {
                        let targets = (0..self.nodes.len()).filter(|&id| id != node);
                        for target in targets.filter(|&id| to.is_none_or(|to| to.index() == id)) {
                            if let Some(message) = meddle(node, message.clone()) {
                                self.sent_bytes[node] += message.to_bytes().len();
                                let from = ReplicaId(node as u16);
                                let decoded = BodyMessage::from_bytes(&message.to_bytes()).unwrap();
                                queue.push_back((target, BodyInput::Receive(from, decoded)));
                            }
                        }
                    }
                    BodyEffect::Complete(digest, bytes) => {
                        assert_eq!(Digest::of_body(&bytes), digest);
                        self.completed.push((node, digest));
                    }
                    BodyEffect::Load(_) => {}
                }
            }
        }
    }

    /// Lets timers fire until all is quiet or `rounds` are over.
    fn settle(&mut self, rounds: usize, meddle: Meddle<'_>) {
        for _ in 0..rounds {
            let Some(next) = self.nodes.iter().filter_map(Bodies::deadline).min() else { return };
            self.now = self.now.max(next);
            for node in 0..self.nodes.len() {
                self.run(node, BodyInput::Tick, meddle);
            }
        }
    }
}

fn pass(_: usize, message: BodyMessage) -> Option<BodyMessage> {
    Some(message)
}

#[test]
fn a_body_reaches_everybody_and_not_from_its_owner_alone() {
    let bytes = body(CHUNK_BYTES * 9 + 123, 1);
    let digest = Digest::of_body(&bytes);
    let mut net = Net::new(4, BodyLimits { window: 4, ..BodyLimits::default() });
    net.run(0, BodyInput::Insert(bytes.clone()), &mut pass);
    for node in 1..4 {
        net.run(node, BodyInput::Want(digest, bytes.len() as u64), &mut pass);
    }
    assert_eq!(net.completed.len(), 3);
    assert!(net.sent_bytes[1..].iter().any(|&sent| sent > CHUNK_BYTES), "{:?}", net.sent_bytes);
    assert!(net.nodes.iter().all(|node| node.fetching_bytes() == 0));
}

#[test]
fn loss_is_made_good() {
    let bytes = body(CHUNK_BYTES * 5, 2);
    let digest = Digest::of_body(&bytes);
    let mut count = 0u32;
    let mut lossy = |_: usize, message| {
        count += 1;
        (!count.is_multiple_of(3)).then_some(message)
    };
    let mut net = Net::new(3, BodyLimits::default());
    net.run(0, BodyInput::Insert(bytes.clone()), &mut lossy);
    net.run(1, BodyInput::Want(digest, bytes.len() as u64), &mut lossy);
    net.run(2, BodyInput::Want(digest, bytes.len() as u64), &mut lossy);
    net.settle(200, &mut lossy);
    assert_eq!(net.completed.len(), 2);
}

#[test]
fn a_lying_holder_is_passed_over() {
    let bytes = body(CHUNK_BYTES * 6 + 1, 3);
    let digest = Digest::of_body(&bytes);
    let mut liar = |node: usize, message| match message {
        BodyMessage::Chunk { digest, index, mut bytes } if node == 1 => {
            bytes[0] ^= 1;
            Some(BodyMessage::Chunk { digest, index, bytes })
        }
        other => Some(other),
    };
    let mut net = Net::new(3, BodyLimits::default());
    net.run(0, BodyInput::Insert(bytes.clone()), &mut liar);
    net.run(1, BodyInput::Insert(bytes.clone()), &mut liar);
    net.run(2, BodyInput::Want(digest, bytes.len() as u64), &mut liar);
    net.settle(50, &mut liar);
    assert_eq!(net.completed, [(2, digest)]);
}

#[test]
fn nothing_unwanted_is_kept() {
    let bytes = body(CHUNK_BYTES * 2, 4);
    let digest = Digest::of_body(&bytes);
    let mut bodies = Bodies::new(BodyLimits::default());
    let from = ReplicaId(1);
    for message in [
        BodyMessage::Offer(digest),
        BodyMessage::Manifest { digest, size_bytes: bytes.len() as u64, chunks: manifest_of(&bytes) },
        BodyMessage::Chunk { digest, index: 0, bytes: bytes[..CHUNK_BYTES].to_vec() },
    ] {
        assert_eq!(bodies.step(0, BodyInput::Receive(from, message)), Ok(Vec::new()));
    }
    assert_eq!((bodies.fetching_bytes(), bodies.get(&digest)), (0, None));
}

#[test]
fn a_manifest_must_match_digest_and_recorded_length() {
    let bytes = body(CHUNK_BYTES * 3, 5);
    let digest = Digest::of_body(&bytes);
    let mut bodies = Bodies::new(BodyLimits::default());
    let size_bytes = bytes.len() as u64;
    let _ = bodies.step(0, BodyInput::Want(digest, size_bytes)).unwrap();
    let mut chunks = manifest_of(&bytes);
    chunks[1][0] ^= 1;
    let wrong = BodyMessage::Manifest { digest, size_bytes, chunks };
    assert_eq!(bodies.step(0, BodyInput::Receive(ReplicaId(1), wrong)), Ok(Vec::new()));
    let right = BodyMessage::Manifest { digest, size_bytes, chunks: manifest_of(&bytes) };
    assert!(!bodies.step(0, BodyInput::Receive(ReplicaId(1), right)).unwrap().is_empty());
}

#[test]
fn wanting_is_bounded() {
    let limits =
        BodyLimits { max_body_bytes: 100, max_wanted: 2, max_fetching_bytes: 100, ..BodyLimits::default() };
    let mut bodies = Bodies::new(limits);
    assert!(matches!(bodies.step(0, BodyInput::Want(Digest([1; 32]), 101)), Err(Error::Body { .. })));
    assert!(bodies.step(0, BodyInput::Want(Digest([1; 32]), 80)).is_ok());
    assert!(bodies.step(0, BodyInput::Want(Digest([2; 32]), 80)).is_ok());
    assert_eq!(bodies.fetching_bytes(), 80);
    assert!(matches!(bodies.step(0, BodyInput::Want(Digest([3; 32]), 1)), Err(Error::Full { .. })));
    let _ = bodies.step(0, BodyInput::Forget(Digest([1; 32]))).unwrap();
    assert_eq!(bodies.fetching_bytes(), 80, "the one that waited has started");
}

#[test]
fn the_cache_forgets_the_oldest() {
    let mut bodies = Bodies::new(BodyLimits { max_cached_bytes: 250, ..BodyLimits::default() });
    let all: Vec<_> = (0..3).map(|seed| body(100, seed)).collect();
    for bytes in &all {
        let _ = bodies.step(0, BodyInput::Insert(bytes.clone())).unwrap();
    }
    let held: Vec<_> = all.iter().map(|bytes| bodies.get(&Digest::of_body(bytes)).is_some()).collect();
    assert_eq!(held, [false, true, true]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn manifests_give_the_plain_digest(len in 0usize..CHUNK_BYTES * 9, seed: u8) {
        let bytes = body(len, seed);
        prop_assert_eq!(root_of(&manifest_of(&bytes), len as u64), Some(Digest::of_body(&bytes)));
    }

    #[test]
    fn messages_survive_their_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = BodyMessage::from_bytes(&bytes) {
            prop_assert_eq!(message.to_bytes(), bytes);
        }
    }
}
