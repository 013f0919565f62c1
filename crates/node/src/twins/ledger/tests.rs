use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const STATIONS: u16 = 3;
const TWINS: u32 = 3;

fn manifest(twin: u32) -> Manifest {
    Manifest { data_bytes: 10, data: [twin as u8; 32], model_bytes: 0, model: [0; 32] }
}

/// BSs whose messages are delivered, lost, repeated and reordered, and that are killed at any point.
struct World {
    ledgers: Vec<Ledger>,
    disks: Vec<Durable>,
    targets: Vec<Vec<Option<u16>>>,
    mail: Vec<(u16, u16, TwinMessage)>,
    /// Fetches that are under way.
    fetches: Vec<(u16, u32, u64)>,
    /// Who trained a twin in a round.
    trained: BTreeMap<(u32, u64), u16>,
    /// Twins that a BS has begun to prepare, and those that it has prepared and holds in memory.
    preparing: Vec<(u16, u32)>,
    bodies: BTreeSet<(u16, u32)>,
    /// Twins whose data a BS has on disk.
    data: BTreeSet<(u16, u32)>,
    /// Associations that any BS has learnt of.
    associations: u64,
}

fn first_owners() -> Vec<Option<u16>> {
    (0..TWINS).map(|twin| Some(twin as u16 % STATIONS)).collect()
}

impl World {
    fn new() -> Self {
        let owners = first_owners();
        let disks: Vec<Durable> = (0..STATIONS).map(|me| Durable::first(me, &owners)).collect();
        let ledger = |(disk, me): (&Durable, u16)| Ledger::new(me, STATIONS, disk.clone(), owners.clone());
        let ledgers = disks.iter().zip(0..).map(ledger).collect();
        let targets = vec![owners; STATIONS.into()];
        Self {
            ledgers,
            disks,
            targets,
            mail: Vec::new(),
            fetches: Vec::new(),
            trained: BTreeMap::new(),
            preparing: Vec::new(),
            bodies: BTreeSet::new(),
            data: (0..TWINS).map(|twin| (twin as u16 % STATIONS, twin)).collect(),
            associations: 0,
        }
    }

    /// Does what a ledger wants, and kills the BS after `most` effects.
    fn act(&mut self, bs: u16, effects: Vec<Effect>, most: usize) -> bool {
        for (done, effect) in effects.into_iter().enumerate() {
            if done == most {
                self.restart(bs);
                return false;
            }
            match effect {
                Effect::Save => self.disks[usize::from(bs)] = self.ledgers[usize::from(bs)].durable().clone(),
                Effect::Send(to, message) => self.mail.push((bs, to, message)),
                Effect::Prepare(twin) => self.preparing.push((bs, twin)),
                Effect::Fetch { twin, epoch, .. } => {
                    self.give_up(bs, twin);
                    self.fetches.push((bs, twin, epoch));
                }
                Effect::Abandon(twin) => {
                    self.give_up(bs, twin);
                    if !self.ledgers[usize::from(bs)].keeps(twin) {
                        self.data.remove(&(bs, twin));
                    }
                }
                Effect::Took { twin, .. } => self.give_up(bs, twin),
                Effect::Withdraw(twin) => drop(self.bodies.remove(&(bs, twin))),
                Effect::Gone(twin) => {
                    self.bodies.remove(&(bs, twin));
                    self.data.remove(&(bs, twin));
                }
            }
        }
        self.never_two_owners();
        self.nothing_is_lost_or_left();
        true
    }

    fn restart(&mut self, bs: u16) {
        let at = usize::from(bs);
        self.fetches.retain(|(of, _, _)| *of != bs);
        self.preparing.retain(|(of, _)| *of != bs);
        self.bodies.retain(|(of, _)| *of != bs);
        self.ledgers[at] = Ledger::new(bs, STATIONS, self.disks[at].clone(), first_owners());
        self.retarget(bs);
    }

    /// A BS learns of the association that is its own now.
    fn retarget(&mut self, bs: u16) {
        self.associations += 1;
        let at = usize::from(bs);
        let effects = self.ledgers[at].retarget(self.associations, &self.targets[at]);
        self.act(bs, effects, usize::MAX);
    }

    /// Hands a message to a BS, from another.
    fn hear(&mut self, bs: u16, from: u16, message: &TwinMessage) {
        let effects = self.ledgers[usize::from(bs)].take(from, message);
        self.act(bs, effects, usize::MAX);
    }

    /// Delivers all that is on its way, and all that follows.
    fn deliver(&mut self) {
        while !self.mail.is_empty() || !self.fetches.is_empty() || !self.preparing.is_empty() {
            self.step(&Step::Prepared(0));
            self.step(&Step::Deliver { which: 0, again: false, most: usize::MAX });
            self.step(&Step::Fetched { which: 0, most: usize::MAX });
        }
    }

    fn never_two_owners(&self) {
        for twin in 0..TWINS {
            let running = self.ledgers.iter().filter(|ledger| ledger.owns(twin)).count();
            let stored = self.disks.iter().map(|disk| disk.entries[twin as usize].custody);
            let stored = stored.filter(|custody| matches!(custody, Custody::Owner { .. })).count();
            assert!(running <= 1 && stored <= 1, "twin {twin} has {running} owners, {stored} on disk");
        }
    }

    /// A BS is not fetching a twin any more.
    fn give_up(&mut self, bs: u16, twin: u32) {
        self.fetches.retain(|(of, which, _)| (*of, *which) != (bs, twin));
    }

    /// An owner has the data of its twins, and none is in memory that is not to be given away.
    fn nothing_is_lost_or_left(&self) {
        for (ledger, bs) in self.ledgers.iter().zip(0..) {
            assert!(ledger.owned().all(|twin| self.data.contains(&(bs, twin))), "BS {bs} lacks data");
        }
        for (bs, twin) in &self.bodies {
            assert!(self.ledgers[usize::from(*bs)].is_leaving(*twin), "BS {bs} still holds twin {twin}");
        }
    }

    fn open(&mut self, bs: u16, round: u64, most: usize) {
        let effects = self.ledgers[usize::from(bs)].opened(round);
        if self.act(bs, effects, most) {
            for twin in self.ledgers[usize::from(bs)].trains(round) {
                let first = *self.trained.entry((twin, round)).or_insert(bs);
                assert_eq!(first, bs, "twin {twin} is trained twice in round {round}");
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Deliver { which, again, most } if !self.mail.is_empty() => {
                let at = which % self.mail.len();
                let (from, to, message) =
                    if again { self.mail[at].clone() } else { self.mail.swap_remove(at) };
                let effects = self.ledgers[usize::from(to)].take(from, &message);
                self.act(to, effects, most);
            }
            Step::Lose(which) if !self.mail.is_empty() => {
                self.mail.swap_remove(which % self.mail.len());
            }
            Step::Fetched { which, most } if !self.fetches.is_empty() => {
                let (bs, twin, epoch) = self.fetches.swap_remove(which % self.fetches.len());
                self.data.insert((bs, twin));
                let effects = self.ledgers[usize::from(bs)].fetched(twin, epoch);
                self.act(bs, effects, most);
            }
            Step::Prepared(which) if !self.preparing.is_empty() => {
                let (bs, twin) = self.preparing.swap_remove(which % self.preparing.len());
                if self.ledgers[usize::from(bs)].is_leaving(twin) {
                    self.bodies.insert((bs, twin));
                }
                let effects = self.ledgers[usize::from(bs)].prepared(twin, Some(manifest(twin)));
                self.act(bs, effects, usize::MAX);
            }
            Step::Tick(bs) => {
                let effects = self.ledgers[usize::from(bs)].tick();
                self.act(bs, effects, usize::MAX);
            }
            Step::Kill(bs) => self.restart(bs),
            // BSs learn of an association one by one.
            Step::Retarget { bs, twin, to } => {
                self.targets[usize::from(bs)][twin as usize] = Some(to);
                self.retarget(bs);
            }
            Step::Open { bs, skip, most } => {
                let round = self.disks[usize::from(bs)].round + u64::from(skip);
                self.open(bs, round, most);
            }
            _ => {}
        }
    }

    /// Everything works again, and all agree where twins should be.
    fn settle(&mut self) {
        let targets: Vec<Option<u16>> = (0..TWINS).map(|twin| Some((twin as u16 + 1) % STATIONS)).collect();
        for bs in 0..STATIONS {
            self.targets[usize::from(bs)] = targets.clone();
            self.retarget(bs);
        }
        for _ in 0..20 {
            (0..STATIONS).for_each(|bs| self.step(&Step::Tick(bs)));
            self.deliver();
        }
        for twin in 0..TWINS {
            let target = (twin as u16 + 1) % STATIONS;
            let owners: Vec<u16> =
                (0..STATIONS).filter(|bs| self.ledgers[usize::from(*bs)].owns(twin)).collect();
            assert_eq!(owners, [target], "twin {twin}");
            assert_eq!(self.ledgers[usize::from(target)].serving(twin).map(|(bs, _)| bs), Some(target));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Deliver { which: usize, again: bool, most: usize },
    Lose(usize),
    Fetched { which: usize, most: usize },
    Prepared(usize),
    Tick(u16),
    Kill(u16),
    Retarget { bs: u16, twin: u32, to: u16 },
    Open { bs: u16, skip: u8, most: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let most = || prop_oneof![4 => Just(usize::MAX), 1 => 0usize..4];
    let bs = || 0..STATIONS;
    prop_oneof![
        6 => (any::<usize>(), prop::bool::weighted(0.2), most())
            .prop_map(|(which, again, most)| Step::Deliver { which, again, most }),
        1 => any::<usize>().prop_map(Step::Lose),
        3 => (any::<usize>(), most()).prop_map(|(which, most)| Step::Fetched { which, most }),
        2 => any::<usize>().prop_map(Step::Prepared),
        2 => bs().prop_map(Step::Tick),
        1 => bs().prop_map(Step::Kill),
        2 => (bs(), 0..TWINS, bs()).prop_map(|(bs, twin, to)| Step::Retarget { bs, twin, to }),
        2 => (bs(), 0u8..3, most()).prop_map(|(bs, skip, most)| Step::Open { bs, skip, most }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn a_twin_never_has_two_owners_and_arrives_in_the_end(steps in proptest::collection::vec(step(), 0..200)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
    }
}

#[test]
fn the_old_owner_trains_until_it_lets_go_and_the_new_one_from_the_next_round() {
    let mut world = World::new();
    world.open(0, 4, usize::MAX);
    world.step(&Step::Retarget { bs: 0, twin: 0, to: 1 });
    world.step(&Step::Retarget { bs: 1, twin: 0, to: 1 });
    assert!(world.ledgers[0].trains(5).any(|twin| twin == 0));
    world.step(&Step::Tick(0));
    world.deliver();
    assert!(!world.ledgers[0].owns(0) && world.ledgers[1].owns(0));
    assert!(
        world.ledgers[1].trains(4).all(|twin| twin != 0) && world.ledgers[1].trains(5).any(|twin| twin == 0)
    );
    assert_eq!((world.ledgers[0].serving(0), world.ledgers[1].serving(0)), (Some((1, 2)), Some((1, 2))));
}

#[test]
fn a_run_that_goes_on_from_an_earlier_round_has_every_twin_trained_in_the_next() {
    let mut durable = Durable::first(0, &[Some(0), Some(0), Some(0), Some(1)]);
    durable.round = 6;
    durable.entries[1].custody = Custody::Owner { from_round: 7 };
    durable.entries[2].custody = Custody::Granted { to: 1, from_round: 7 };
    let custody = |durable: &Durable| durable.entries.iter().map(|entry| entry.custody).collect::<Vec<_>>();
    let mut rewound = durable.clone();
    rewound.rewind(5);
    let expected = [
        Custody::Owner { from_round: 0 },
        Custody::Owner { from_round: 6 },
        Custody::Granted { to: 1, from_round: 6 },
        Custody::Elsewhere { gave_to: None },
    ];
    assert_eq!((rewound.round, &custody(&rewound)[..]), (5, &expected[..]));
    let ledger = Ledger::new(0, 2, rewound, vec![Some(0), Some(0), Some(0), Some(1)]);
    assert_eq!(ledger.trains(6).collect::<Vec<_>>(), [0, 1]);
    // Nothing is put off where the run had come no further.
    let mut same = durable.clone();
    same.rewind(6);
    assert_eq!(same, durable);
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let mut world = World::new();
    let before = world.disks[0].clone();
    let bad = [
        TwinMessage::Offer { twin: 99, epoch: 2, manifest: manifest(0) },
        TwinMessage::Offer { twin: 1, epoch: 2, manifest: manifest(1) },
        TwinMessage::Grant { twin: 1, epoch: u64::MAX, from_round: 0, manifest: manifest(1), state: None },
        TwinMessage::Have { twin: 0, epoch: 2, data: manifest(0).data },
        TwinMessage::Taken { twin: 0, epoch: 2 },
    ];
    for message in &bad {
        assert_eq!(world.ledgers[0].take(1, message), Vec::new(), "{message:?}");
        assert_eq!(world.ledgers[0].take(STATIONS, message), Vec::new());
    }
    assert_eq!(*world.ledgers[0].durable(), before);
    // What is bound for another BS is not given to this one.
    world.step(&Step::Retarget { bs: 0, twin: 0, to: 2 });
    assert!(
        world.ledgers[0].gives(0, 2, 2)
            && !world.ledgers[0].gives(0, 1, 2)
            && !world.ledgers[0].gives(0, 2, 3)
    );
    assert_eq!(
        world.ledgers[0].take(1, &TwinMessage::Have { twin: 0, epoch: 2, data: manifest(0).data }),
        Vec::new()
    );
}

fn grant(twin: u32, epoch: u64) -> TwinMessage {
    TwinMessage::Grant { twin, epoch, from_round: 1, manifest: manifest(twin), state: None }
}

fn offer(twin: u32, epoch: u64) -> TwinMessage {
    TwinMessage::Offer { twin, epoch, manifest: manifest(twin) }
}

/// BS 0 has twin 0, which the association gives to BS 2, and has sent an offer. BS 1 lies.
fn with_a_liar() -> World {
    let mut world = World::new();
    for bs in [0, 2] {
        world.step(&Step::Retarget { bs, twin: 0, to: 2 });
    }
    world.step(&Step::Prepared(0));
    world
}

#[test]
fn a_grant_that_was_not_offered_makes_no_owner() {
    let mut world = with_a_liar();
    let before = world.disks[2].clone();
    for (from, epoch) in [(1, 2), (1, 3), (1, EPOCH_MAX), (0, 2)] {
        assert_eq!(world.ledgers[2].take(from, &grant(0, epoch)), Vec::new(), "{from} {epoch}");
    }
    assert_eq!(*world.ledgers[2].durable(), before);
    // Nor one by another than whose offer was taken up, or for another epoch.
    world.step(&Step::Deliver { which: 0, again: false, most: usize::MAX });
    world.step(&Step::Fetched { which: 0, most: usize::MAX });
    for (from, epoch) in [(1, 2), (1, 3), (0, 3)] {
        assert_eq!(world.ledgers[2].take(from, &grant(0, epoch)), Vec::new(), "{from} {epoch}");
    }
    world.deliver();
    assert!(world.ledgers[2].owns(0) && !world.ledgers[0].owns(0));
}

#[test]
fn only_a_plausible_owner_is_listened_to() {
    let mut world = with_a_liar();
    // The owner of the first epoch is known; there cannot have been so many since; and an owner needs no offers.
    for epoch in [2, 2 + 3 * 2 + 1, 1 << 40] {
        assert_eq!(world.ledgers[2].take(1, &offer(0, epoch)), Vec::new(), "{epoch}");
    }
    world.step(&Step::Retarget { bs: 0, twin: 0, to: 0 });
    assert_eq!(world.ledgers[0].take(1, &offer(0, 3)), Vec::new());
    // Of a twin that one gave away, the new owner is known, and may give it back.
    world.step(&Step::Retarget { bs: 0, twin: 0, to: 2 });
    world.step(&Step::Tick(0));
    world.deliver();
    assert!(world.ledgers[2].owns(0));
    world.step(&Step::Retarget { bs: 0, twin: 0, to: 0 });
    for (from, epoch) in [(1, 3), (2, 2), (1, 2)] {
        assert_eq!(world.ledgers[0].take(from, &offer(0, epoch)), Vec::new(), "{from} {epoch}");
    }
    world.step(&Step::Retarget { bs: 2, twin: 0, to: 0 });
    world.step(&Step::Tick(2));
    world.deliver();
    assert!(world.ledgers[0].owns(0) && world.ledgers[0].durable().entries[0].epoch == 3);
}

#[test]
fn an_owner_whose_grant_comes_too_late_is_not_told_that_it_was_taken() {
    let mut world = with_a_liar();
    world.step(&Step::Deliver { which: 0, again: false, most: usize::MAX });
    world.step(&Step::Fetched { which: 0, most: usize::MAX });
    // The owner hears that all is there, and lets go; before its Grant arrives, the liar makes up later owners.
    world.step(&Step::Deliver { which: 0, again: false, most: usize::MAX });
    world.mail.clear();
    world.hear(2, 1, &offer(0, 4));
    world.step(&Step::Fetched { which: 0, most: usize::MAX });
    world.mail.clear();
    world.hear(2, 1, &grant(0, 4));
    assert!(world.ledgers[2].owns(0), "as far as it can know");
    world.mail.clear();
    world.step(&Step::Tick(0));
    world.deliver();
    let kept: Vec<u32> = world.ledgers[0].kept().collect();
    assert!(kept.contains(&0), "what it has may be the only good copy");
}

#[test]
fn a_grant_is_due_however_often_either_side_was_restarted_or_thinks_again() {
    let mut world = with_a_liar();
    world.step(&Step::Deliver { which: 0, again: false, most: usize::MAX });
    world.step(&Step::Fetched { which: 0, most: usize::MAX });
    world.step(&Step::Retarget { bs: 2, twin: 0, to: 1 });
    world.step(&Step::Kill(2));
    // The old owner is bound.
    world.step(&Step::Deliver { which: 0, again: false, most: 1 });
    world.step(&Step::Kill(0));
    world.step(&Step::Tick(0));
    world.deliver();
    assert!(world.ledgers[2].owns(0) && !world.ledgers[0].owns(0));
    // It did not hear that, and asks again: it was taken, and is no more.
    let again = world.ledgers[2].take(0, &grant(0, 2));
    assert_eq!(again, [Effect::Send(0, TwinMessage::Taken { twin: 0, epoch: 2 })]);
}

#[test]
fn what_is_not_given_away_after_all_does_not_stay_in_memory() {
    let mut world = World::new();
    // Before it is prepared.
    world.step(&Step::Retarget { bs: 0, twin: 0, to: 1 });
    world.step(&Step::Retarget { bs: 0, twin: 0, to: 0 });
    world.step(&Step::Prepared(0));
    assert!(world.bodies.is_empty() && world.mail.is_empty());
    // After that.
    world.step(&Step::Retarget { bs: 0, twin: 0, to: 1 });
    world.step(&Step::Prepared(0));
    assert_eq!(world.bodies.len(), 1);
    world.step(&Step::Retarget { bs: 0, twin: 0, to: 0 });
    assert!(world.bodies.is_empty());
}

#[test]
fn a_late_word_of_the_last_move_does_not_take_what_came_back() {
    let mut world = World::new();
    let take = |world: &mut World, to| {
        (0..STATIONS).for_each(|bs| world.step(&Step::Retarget { bs, twin: 0, to }));
        world.deliver();
    };
    take(&mut world, 1);
    // Nobody told BS 0 that the twin has arrived.
    let Entry { epoch, .. } = world.ledgers[0].durable().entries[0];
    let custody = Custody::Granted { to: 1, from_round: 1 };
    world.disks[0].entries[0] = Entry { epoch, custody };
    world.data.insert((0, 0));
    world.step(&Step::Kill(0));
    world.mail.clear();
    // It is on its way back, and all is there, when that word comes.
    for bs in [1, 0] {
        world.step(&Step::Retarget { bs, twin: 0, to: 0 });
    }
    world.preparing.retain(|(bs, _)| *bs == 1);
    world.step(&Step::Prepared(0));
    world.step(&Step::Deliver { which: 0, again: false, most: usize::MAX });
    world.step(&Step::Fetched { which: 0, most: usize::MAX });
    world.hear(0, 1, &TwinMessage::Taken { twin: 0, epoch: 2 });
    assert!(!world.ledgers[0].keeps(0) && world.data.contains(&(0, 0)));
    world.deliver();
    assert!(world.ledgers[0].owns(0));
    // One that is given up at last is not kept.
    take(&mut world, 1);
    world.step(&Step::Retarget { bs: 1, twin: 0, to: 2 });
    world.step(&Step::Retarget { bs: 2, twin: 0, to: 2 });
    world.step(&Step::Prepared(0));
    world.step(&Step::Deliver { which: 0, again: false, most: usize::MAX });
    world.step(&Step::Fetched { which: 0, most: usize::MAX });
    assert!(world.data.contains(&(2, 0)));
    world.step(&Step::Retarget { bs: 2, twin: 0, to: 1 });
    assert!(!world.data.contains(&(2, 0)));
}

#[test]
fn a_ledger_without_pacts_is_one() {
    #[derive(Serialize)]
    struct Before {
        round: u64,
        entries: Vec<Entry>,
    }
    let first = Durable::first(0, &first_owners());
    let before = Before { round: 0, entries: first.entries.clone() };
    let bytes = rmp_serde::to_vec(&before).unwrap();
    assert_eq!(rmp_serde::from_slice::<Durable>(&bytes).unwrap(), first);
    let mut world = with_a_liar();
    world.step(&Step::Tick(0));
    world.deliver();
    let bytes = rmp_serde::to_vec(&world.disks[2]).unwrap();
    assert!(!world.disks[2].pacts.is_empty());
    assert_eq!(rmp_serde::from_slice::<Durable>(&bytes).unwrap(), world.disks[2]);
}
