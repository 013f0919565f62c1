use super::*;
use crate::core::{Config, Core, Effect, Identity, Input};
use crate::crypto::{Ed25519Signer, Signer, StubSigner, StubVerifier};
use crate::genesis::{Genesis, Params, Validator};
use crate::testing::{Net, genesis, key};
use crate::tx::Payload;

fn short_epochs(genesis: &mut Genesis) {
    genesis.params.epoch_blocks = 7;
}

/// A chain of some height and the records of replica 0, stored in batches.
fn stored(height: Height) -> (tempfile::TempDir, PathBuf, Net) {
    let mut net = Net::stub(4, short_epochs);
    for round in 0..height {
        let payload = Payload::Action { round, content: vec![7; 100] };
        net.input((round % 4) as usize, Input::Submit(payload));
        net.reach(round + 1);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.redb");
    let (mut store, recovered) = Store::open(&path, net.registry.clone()).unwrap();
    assert_eq!(recovered.state.height, 0);
    for batch in net.records[0].chunks(5) {
        store.append(batch).unwrap();
    }
    (dir, path, net)
}

/// Puts altered bytes where the store has a copy, with the count as it was.
fn plant(original: &Path, copy: &Path, bytes: &[u8]) {
    std::fs::write(copy, bytes).unwrap();
    std::fs::copy(Guard::path_of(original), Guard::path_of(copy)).unwrap();
}

fn reopen(path: &Path, net: &Net) -> Result<(Store, Recovered)> {
    Store::open(path, net.registry.clone())
}

#[test]
fn what_was_stored_comes_back() {
    let (_dir, path, net) = stored(25);
    let (store, recovered) = reopen(&path, &net).unwrap();
    let core = net.cores[0].as_ref().unwrap();
    assert_eq!(recovered.state, *core.state());
    assert_eq!(recovered.certificate.as_ref(), core.certificate());
    assert_eq!(store.height(), core.height());
    let (block, _) = store.committed(3).unwrap().unwrap();
    assert_eq!(store.height_of(&block.digest()), Ok(Some(3)));
    // What the journal keeps is about the few views above the finalized chain, not about all 25 blocks.
    assert!(recovered.journal.len() < 30, "{} journal entries", recovered.journal.len());
    let identity = Identity { id: ReplicaId(0), signer: Box::new(StubSigner(key(0))) };
    let mut again = Core::new(net.registry.clone(), Config::default(), Some(identity), recovered, net.now);
    assert_eq!(again.round(), core.round());
    // Its own votes count again without being heard from anybody.
    assert!(again.step(net.now, Input::Tick).iter().all(|effect| !matches!(effect, Effect::Serve { .. })));
}

#[test]
fn own_votes_come_back_and_bind() {
    let (dir, _, net) = stored(10);
    let is_vote = |record: &Record| matches!(record, Record::Vote(_));
    for end in (0..net.records[0].len()).filter(|&index| is_vote(&net.records[0][index])) {
        let path = dir.path().join(format!("{end}.redb"));
        let (mut store, _) = reopen(&path, &net).unwrap();
        store.append(&net.records[0][..=end]).unwrap();
        drop(store);
        let (_, recovered) = reopen(&path, &net).unwrap();
        assert_eq!(recovered.journal.last(), net.records[0].get(end), "record {end}");
    }
}

#[test]
fn a_file_that_was_not_closed_is_whole_or_refused_when_altered() {
    let (dir, path, net) = stored(8);
    let (mut store, recovered) = reopen(&path, &net).unwrap();
    let vote = net.records[0].iter().rev().find(|record| matches!(record, Record::Vote(_))).unwrap();
    store.append(std::slice::from_ref(vote)).unwrap();
    let expected = recovered.journal.len() + 1;
    // As kill -9 leaves it.
    let bytes = std::fs::read(&path).unwrap();
    let copy = dir.path().join("copy.redb");
    let step = bytes.len() / 200;
    let mut refused = 0;
    for position in [None].into_iter().chain((0..400).chain((0..bytes.len()).step_by(step)).map(Some)) {
        let mut altered = bytes.clone();
        if let Some(position) = position {
            altered[position] ^= 0x41;
        }
        plant(&path, &copy, &altered);
        match reopen(&copy, &net) {
            Ok((_, recovered)) => assert_eq!(recovered.journal.len(), expected, "byte {position:?}"),
            Err(error) => {
                assert!(
                    position.is_some() && matches!(error, Error::Damaged { .. }),
                    "byte {position:?}: {error}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn verification_covers_every_signature_and_finds_a_forged_one() {
    let seeds = |id: u16| Ed25519Signer::from_seed([id as u8 + 1; 32]);
    let validators = (0..4).map(|id| Validator { key: seeds(id).public_key(), coins: 5 }).collect();
    let params = Params { epoch_blocks: 5, ..Params::default() };
    let registry = Registry::new(Genesis { name: "ed25519".into(), validators, params }).unwrap();
    let mut net = Net::new(registry.clone(), |id| Box::new(seeds(id)));
    for round in 0..12 {
        net.input(round as usize % 4, Input::Submit(Payload::Action { round, content: vec![1; 10] }));
        net.reach(round + 1);
    }
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.redb");
    let (mut store, _) = Store::open(&good, registry.clone()).unwrap();
    store.append(&net.records[2]).unwrap();
    let report = store.verify().unwrap();
    assert_eq!((report.height, report.uncovered), (store.height(), 0));
    assert!(report.transactions >= 12 && report.certificates >= 2);
    assert!(report.signatures >= report.transactions + 3 * report.certificates);

    // The same chain with one signature of one certificate changed, checksums and all.
    let forged = dir.path().join("forged.redb");
    let (mut store, _) = Store::open(&forged, registry).unwrap();
    let mut records = net.records[2].clone();
    let certificate = records.iter_mut().find_map(|record| match record {
        Record::Commit(block, Some(certificate)) if block.header().height > 6 => Some(certificate),
        _ => None,
    });
    let certificate = Arc::make_mut(certificate.unwrap());
    certificate.signatures[1].1.0[5] ^= 1;
    store.append(&records).unwrap();
    assert!(matches!(store.verify(), Err(Error::Certificate { .. })));
}

#[test]
fn altered_files_are_refused_or_harmless() {
    let (dir, path, net) = stored(20);
    let (_, original) = reopen(&path, &net).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let copy = dir.path().join("copy.redb");
    let (mut refused, mut harmless) = (0, 0);
    let step = bytes.len() / 150;
    for position in (0..bytes.len()).step_by(step.max(1)).chain(0..64) {
        let mut altered = bytes.clone();
        altered[position] ^= 0x41;
        plant(&path, &copy, &altered);
        match reopen(&copy, &net) {
            // The byte was in a page that holds nothing.
            Ok((store, recovered)) => {
                harmless += 1;
                assert_eq!(recovered.state, original.state, "byte {position}");
                assert_eq!(recovered.journal, original.journal, "byte {position}");
                assert_eq!(store.verify().map(|report| report.height), Ok(original.state.height));
            }
            Err(Error::Damaged { detail, .. }) => {
                refused += 1;
                assert!(!detail.is_empty());
            }
            Err(other) => panic!("byte {position}: {other}"),
        }
    }
    assert!(refused > 20, "{refused} refused, {harmless} harmless");
}

#[test]
fn every_live_page_is_guarded() {
    // Values are found in the file and altered where they stand, so that every alteration hits live data.
    let (dir, path, net) = stored(20);
    let (store, _) = reopen(&path, &net).unwrap();
    let needles: Vec<Vec<u8>> = (1..=20)
        .map(|height| store.committed(height).unwrap().unwrap().0.header().digest().0.to_vec())
        .collect();
    drop(store);
    let bytes = std::fs::read(&path).unwrap();
    let copy = dir.path().join("copy.redb");
    let mut hits = 0;
    for needle in needles {
        let mut altered = bytes.clone();
        let mut found = 0;
        for position in 0..bytes.len() - needle.len() {
            if bytes[position..].starts_with(&needle) {
                altered[position + 3] ^= 1;
                found += 1;
            }
        }
        plant(&path, &copy, &altered);
        assert!(found > 0);
        hits += 1;
        assert!(matches!(reopen(&copy, &net).err(), Some(Error::Damaged { .. })));
    }
    assert_eq!(hits, 20);
}

#[test]
fn truncated_files_are_refused() {
    let (dir, path, net) = stored(12);
    let bytes = std::fs::read(&path).unwrap();
    let copy = dir.path().join("copy.redb");
    for length in [0, 1, 100, 4096, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
        plant(&path, &copy, &bytes[..length]);
        let error = reopen(&copy, &net).err();
        assert!(matches!(error, Some(Error::Damaged { .. })), "{length} bytes: {error:?}");
    }
    std::fs::write(&copy, b"this is no database, but it is long enough to look like something").unwrap();
    assert!(matches!(reopen(&copy, &net).err(), Some(Error::Damaged { .. })));
}

#[test]
fn a_damaged_store_is_set_aside_and_its_successor_does_not_vote_at_once() {
    let (_dir, path, net) = stored(10);
    let count = std::fs::read(Guard::path_of(&path)).unwrap();
    std::fs::remove_file(Guard::path_of(&path)).unwrap();
    assert!(matches!(reopen(&path, &net), Err(Error::Damaged { .. })), "without its count");
    assert!(Store::inspect(&path, &net.registry).unwrap().height() >= 10);
    std::fs::write(Guard::path_of(&path), &count[..9]).unwrap();
    assert!(matches!(reopen(&path, &net), Err(Error::Damaged { .. })), "with a torn count");
    assert!(matches!(Store::replace(&path, net.registry.clone(), 3), Err(Error::Store { .. })));
    let damaged = std::fs::read(&path).unwrap();
    let aside = Store::repair(&path, net.registry.clone(), 3).unwrap();
    assert_eq!(std::fs::read(&aside).unwrap(), damaged);
    assert_eq!(std::fs::read(Guard::path_of(&aside)).unwrap(), count[..9]);
    let (store, recovered) = reopen(&path, &net).unwrap();
    assert_eq!((recovered.state.height, recovered.vote_from), (0, 3));
    drop(store);
    let (_, recovered) = reopen(&path, &net).unwrap();
    assert_eq!(recovered.vote_from, 3, "it must survive a restart");
}

#[test]
fn a_repair_that_was_cut_off_leaves_nothing_to_vote_from() {
    let (dir, path, net) = stored(10);
    // Where the store has been replaced and its count has not.
    let fresh = dir.path().join("fresh.redb");
    drop(Store::replace(&fresh, net.registry.clone(), 3).unwrap());
    std::fs::rename(&fresh, &path).unwrap();
    let error = reopen(&path, &net).err().unwrap().to_string();
    assert!(error.contains("acknowledged appends are missing"), "{error}");
    // A second repair ends what the first began, and leaves what the first kept.
    let first = Store::repair(&path, net.registry.clone(), 4).unwrap();
    let second = Store::repair(&path, net.registry.clone(), 5).unwrap();
    assert!(first != second && first.exists() && second.exists());
    assert_eq!(reopen(&path, &net).unwrap().1.vote_from, 5);
}

#[test]
fn a_store_in_use_can_be_looked_at() {
    let (_dir, path, net) = stored(6);
    let (mut store, _) = reopen(&path, &net).unwrap();
    let look = Store::inspect(&path, &net.registry).unwrap();
    assert_eq!(look.height(), store.height());
    assert_eq!(look.verify().unwrap(), store.verify().unwrap());
    assert!(matches!(Store::repair(&path, net.registry.clone(), 0), Err(Error::Store { .. })));
    // What is written meanwhile is seen by whoever looks from then on.
    let mut longer = Net::stub(4, short_epochs);
    for round in 0..12 {
        longer.input((round % 4) as usize, Input::Submit(Payload::Action { round, content: vec![7; 100] }));
        longer.reach(round + 1);
    }
    let above = |record: &Record| match record {
        Record::Commit(block, _) => block.header().height > store.height(),
        _ => false,
    };
    let more: Vec<Record> = longer.records[0].iter().filter(|record| above(record)).cloned().collect();
    store.append(&more).unwrap();
    let again = Store::inspect(&path, &net.registry).unwrap();
    assert_eq!((again.height(), look.height()), (store.height(), store.height() - more.len() as u64));
    let mut again = again;
    assert!(matches!(again.append(&more), Err(Error::Store { .. })), "it is not ours to write to");
}

#[test]
fn looking_changes_nothing() {
    let (dir, path, net) = stored(9);
    let (mut store, _) = reopen(&path, &net).unwrap();
    let vote = net.records[0].iter().rev().find(|record| matches!(record, Record::Vote(_))).unwrap();
    store.append(std::slice::from_ref(vote)).unwrap();
    // As kill -9 leaves it: redb has to repair this before it can be read.
    let bytes = std::fs::read(&path).unwrap();
    let copy = dir.path().join("copy.redb");
    plant(&path, &copy, &bytes);
    let look = Store::inspect(&copy, &net.registry).unwrap();
    assert_eq!(look.verify().unwrap().height, store.height());
    drop(look);
    assert_eq!(std::fs::read(&copy).unwrap(), bytes);
    // A lost append is found although what is left is consistent.
    Guard::open(&copy, false).unwrap().write(1_000_000).unwrap();
    let lost = Store::inspect(&copy, &net.registry).unwrap().verify().unwrap_err().to_string();
    assert!(lost.contains("acknowledged appends are missing"), "{lost}");
}

#[test]
fn stores_of_one_chain_agree_and_a_fork_is_found() {
    let (dir, path, net) = stored(10);
    let shorter = dir.path().join("shorter.redb");
    let forked = dir.path().join("forked.redb");
    let commits = |net: &Net, count: usize| -> Vec<Record> {
        let commit = |record: &&Record| matches!(record, Record::Commit(..));
        net.records[1].iter().filter(commit).take(count).cloned().collect()
    };
    let mut other = Net::stub(4, short_epochs);
    for round in 0..10 {
        // Another chain from somewhere on.
        let content = if round < 2 { vec![7; 100] } else { vec![8; 100] };
        other.input((round % 4) as usize, Input::Submit(Payload::Action { round, content }));
        other.reach(round + 1);
    }
    let digests = |net: &Net| -> Vec<Digest> {
        let digest = |record: Record| match record {
            Record::Commit(block, _) => block.digest(),
            other => panic!("{other:?}"),
        };
        commits(net, 9).into_iter().map(digest).collect()
    };
    let same = digests(&net).iter().zip(digests(&other)).take_while(|(one, two)| *one == two).count();
    assert!((1..8).contains(&same), "{same}");
    for (path, records) in [(&shorter, commits(&net, 4)), (&forked, commits(&other, 9))] {
        reopen(path, &net).unwrap().0.append(&records).unwrap();
    }
    let open = |path: &Path| Store::inspect(path, &net.registry).unwrap();
    let (full, shorter, forked) = (open(&path), open(&shorter), open(&forked));
    let agreed = compare([("bs1", &full), ("bs2", &shorter)]).unwrap();
    assert_eq!((agreed.common_height, agreed.finalized_height), (4, full.height()));
    assert_eq!((agreed.conflicts, agreed.first_conflicts.len()), (0, 0));
    let differ = compare([("bs1", &full), ("bs2", &shorter), ("bs3", &forked)]).unwrap();
    assert_eq!(differ.conflicts, 9 - same as u64, "{differ:?}");
    assert_eq!(differ.first_conflicts[0].height, 1 + same as u64);
    assert_eq!(compare([]).unwrap(), Comparison::default());
}

#[test]
fn a_store_that_was_killed_while_being_made_is_made_again() {
    let (dir, path, net) = stored(1);
    let bytes = std::fs::read(&path).unwrap();
    let copy = dir.path().join("copy.redb");
    for length in [0, 100, 4096] {
        std::fs::write(&copy, &bytes[..length]).unwrap();
        Guard::open(&copy, true).unwrap();
        assert_eq!(reopen(&copy, &net).unwrap().1.state.height, 0);
        std::fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn another_chain_is_refused() {
    let (_dir, path, _net) = stored(3);
    let mut other = genesis(4);
    other.name = "other".into();
    let other = Registry::with_verifier(other, Box::new(StubVerifier)).unwrap();
    let error = Store::open(&path, other).err().unwrap();
    assert!(error.to_string().contains("another chain"), "{error}");
}

#[test]
fn requests_are_answered_with_segments_that_prove_themselves() {
    let (_dir, path, net) = stored(20);
    let (store, _) = reopen(&path, &net).unwrap();
    let wanted = store.committed(2).unwrap().unwrap().0;
    let request = Request { finalized: 8, blocks: vec![wanted.digest()], ..Request::default() };
    let messages = store.serve(&request).unwrap();
    let [Message::Segment(segment), Message::Block(delivery)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(segment.blocks[0].header().height, 9);
    // Epochs have 7 blocks: the segment ends with its epoch.
    assert_eq!(segment.blocks.last().unwrap().header().height, 14);
    assert_eq!(segment.certificate.statement.proposal().unwrap().height, 14);
    assert_eq!(delivery.0, wanted);
    assert_eq!(store.serve(&Request { finalized: 1000, ..Request::default() }), Ok(Vec::new()));
}

#[test]
fn bodies_are_kept_checked_and_pruned() {
    let (_dir, path, net) = stored(1);
    let (store, _) = reopen(&path, &net).unwrap();
    let bodies: Vec<Vec<u8>> = (0..6u8).map(|byte| vec![byte; 1000]).collect();
    let digests: Vec<Digest> = bodies.iter().map(|body| Digest::of_body(body)).collect();
    for (height, (digest, body)) in (10..).zip(digests.iter().zip(&bodies)) {
        store.put_body(digest, body, height).unwrap();
    }
    assert_eq!(store.body(&digests[5]).unwrap().as_deref(), Some(bodies[5].as_slice()));
    assert_eq!(store.prune_bodies(13), Ok(3));
    let kept: Vec<bool> = digests.iter().map(|digest| store.body(digest).unwrap().is_some()).collect();
    assert_eq!(kept, [false, false, false, true, true, true]);
    store.put_body(&digests[0], &bodies[1], 20).unwrap();
    assert!(matches!(store.body(&digests[0]), Err(Error::Damaged { .. })));
}
