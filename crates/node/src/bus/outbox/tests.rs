use super::*;
use crate::bus::inbox::Inbox;
use dtwn_proto::bus::{Class, NodeName};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const LIMITS: ClassLimits =
    ClassLimits { message_bytes: 400_000, queue_bytes: 1 << 24, window_bytes: 200_000, inbox_bytes: 1 << 24 };

struct Sender {
    outbox: Outbox,
    room: Arc<Semaphore>,
    tickets: Vec<oneshot::Receiver<Delivery>>,
    now: Instant,
}

impl Sender {
    fn new() -> Self {
        let room = Arc::new(Semaphore::new(LIMITS.queue_bytes));
        Self { outbox: Outbox::new(&LIMITS), room, tickets: Vec::new(), now: Instant::now() }
    }

    fn push(&mut self, length: usize, key: Option<u64>, expires: Option<Duration>) {
        let number = self.tickets.len() as u32;
        let (ticket, outcome) = oneshot::channel();
        self.tickets.push(outcome);
        self.outbox.push(Entry {
            body: body(number, length),
            sent_at_ns: 0,
            key: key.map(Key),
            expires: expires.map(|after| self.now + after),
            ticket,
            room: Arc::clone(&self.room).try_acquire_many_owned((length + OVERHEAD_BYTES) as u32).unwrap(),
        });
    }

    fn outcome(&mut self, number: usize) -> Option<Delivery> {
        self.tickets[number].try_recv().ok()
    }

    fn sizes(&mut self) -> Vec<usize> {
        self.outbox.pack(self.now).iter().map(|unit| unit.data.len()).collect()
    }
}

/// A body that tells which message it is.
fn body(number: u32, length: usize) -> Bytes {
    let mut body = vec![number as u8; length.max(4)];
    body[..4].copy_from_slice(&number.to_be_bytes());
    Bytes::from(body)
}

fn number(body: &Bytes) -> u32 {
    u32::from_be_bytes(body[..4].try_into().unwrap())
}

fn received(stored: u64, delivered: u64) -> Received {
    Received { stored, delivered }
}

#[test]
fn small_messages_share_a_frame_and_large_ones_are_cut() {
    let mut sender = Sender::new();
    for length in [10, 20, UNIT_BYTES + 5] {
        sender.push(length, None, None);
    }
    assert_eq!(sender.sizes(), [10, 20]);
    assert_eq!(sender.sizes(), [UNIT_BYTES]);
    assert_eq!(sender.sizes(), [5]);
    assert!(sender.sizes().is_empty());
    sender.outbox.acknowledge(received(4, 2)).unwrap();
    assert_eq!((sender.outcome(1), sender.outcome(2)), (Some(Delivery::Delivered), None));
    sender.outbox.acknowledge(received(4, 4)).unwrap();
    assert_eq!(sender.outcome(2), Some(Delivery::Delivered));
    assert_eq!(sender.room.available_permits(), LIMITS.queue_bytes);
}

#[test]
fn the_window_holds_for_units_and_for_undelivered_messages() {
    let mut sender = Sender::new();
    sender.push(400_000, None, None);
    sender.push(10, None, None);
    let flying: usize =
        std::iter::from_fn(|| Some(sender.sizes()).filter(|sizes| !sizes.is_empty())).flatten().sum();
    assert_eq!(flying, 3 * UNIT_BYTES);
    sender.outbox.acknowledge(received(3, 0)).unwrap();
    let more: usize =
        std::iter::from_fn(|| Some(sender.sizes()).filter(|sizes| !sizes.is_empty())).flatten().sum();
    assert_eq!(more, 3 * UNIT_BYTES);
    sender.outbox.acknowledge(received(6, 0)).unwrap();
    assert_eq!(sender.sizes(), [400_000 - 6 * UNIT_BYTES], "the next waits until this one is delivered");
    sender.outbox.acknowledge(received(7, 7)).unwrap();
    assert_eq!(sender.sizes(), [10]);
}

#[test]
fn acknowledging_what_was_never_sent_is_noticed() {
    let mut sender = Sender::new();
    sender.push(10, None, None);
    assert_eq!(sender.outbox.acknowledge(received(1, 1)), Err(FalseAck));
    assert_eq!(sender.sizes(), [10]);
    assert_eq!(sender.outbox.acknowledge(received(0, 1)), Err(FalseAck));
    assert_eq!(sender.outbox.acknowledge(received(2, 1)), Err(FalseAck));
    assert_eq!(sender.outbox.acknowledge(received(1, 1)), Ok(()));
}

#[test]
fn a_waiting_message_is_replaced_in_its_place_and_one_under_way_is_not_sent_again() {
    let mut sender = Sender::new();
    sender.push(1_000, Some(1), None);
    sender.push(2_000, None, None);
    sender.push(3_000, Some(1), None);
    assert_eq!(sender.outcome(0), Some(Delivery::Superseded));
    assert_eq!(sender.sizes(), [3_000, 2_000]);
    sender.push(4_000, Some(1), None);
    assert_eq!(sender.outcome(2), None, "it is under way");
    sender.outbox.rewind(received(0, 0), false, sender.now).unwrap();
    assert_eq!(sender.outcome(2), Some(Delivery::Superseded));
    assert_eq!(sender.sizes(), [2_000, 4_000]);
    assert_eq!(sender.outbox.tally().resent, 1);
}

#[test]
fn what_expires_is_not_sent_nor_sent_again() {
    let mut sender = Sender::new();
    sender.push(1_000, None, Some(Duration::from_secs(1)));
    assert_eq!(sender.sizes(), [1_000]);
    sender.push(2_000, None, Some(Duration::from_secs(1)));
    sender.push(3_000, None, Some(Duration::from_secs(9)));
    sender.now += Duration::from_secs(2);
    sender.outbox.rewind(received(0, 0), false, sender.now).unwrap();
    assert_eq!(sender.sizes(), [3_000]);
    assert_eq!((sender.outcome(0), sender.outcome(1)), (Some(Delivery::Expired), Some(Delivery::Expired)));
}

#[derive(Debug, Clone)]
enum Step {
    Push {
        length: usize,
        key: Option<u64>,
    },
    /// A frame goes onto the wire.
    Send,
    /// The oldest frame on the wire arrives.
    Arrive,
    /// An acknowledgement arrives.
    Acknowledge,
    /// What is on the wire is lost, and a new connection is made; or the old one's frames still trickle in.
    Reconnect {
        lost: bool,
    },
    /// The same, and the peer has forgotten everything.
    Reborn,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![0usize..2_000, Just(UNIT_BYTES), 60_000usize..300_000];
    let step = prop_oneof![
        4 => (length, prop::option::weighted(0.3, 0u64..3)).prop_map(|(length, key)| Step::Push { length, key }),
        5 => Just(Step::Send),
        5 => Just(Step::Arrive),
        3 => Just(Step::Acknowledge),
        1 => any::<bool>().prop_map(|lost| Step::Reconnect { lost }),
        1 => Just(Step::Reborn),
    ];
    prop::collection::vec(step, 1..120)
}

struct Peer {
    inbox: Inbox,
    room: Arc<Semaphore>,
    /// Messages handed over in this incarnation, and in all.
    now: Vec<u32>,
    ever: Vec<u32>,
}

impl Peer {
    fn arrive(&mut self, units: Vec<Unit>) {
        for unit in units {
            self.inbox.accept(unit).unwrap();
        }
        loop {
            if let Some((incoming, _room)) = self.inbox.next(0) {
                let number = number(&incoming.body);
                assert_eq!(incoming.body, body(number, incoming.body.len()));
                assert!(!self.now.contains(&number), "message {number} delivered twice");
                self.now.push(number);
                self.ever.push(number);
            } else if let Some(bytes) = self.inbox.wants() {
                self.inbox.grant(Arc::clone(&self.room).try_acquire_many_owned(bytes as u32).unwrap());
            } else {
                return;
            }
        }
    }
}

/// Plays the steps against an inbox, then lets everything through, and checks that nothing acknowledged was lost and
/// nothing came twice.
fn play(class: Class, steps: &[Step]) {
    let mut sender = Sender::new();
    let inbox = Inbox::new(NodeName::new("a").unwrap(), class, &LIMITS);
    let room = Arc::new(Semaphore::new(LIMITS.inbox_bytes));
    let mut peer = Peer { inbox, room, now: Vec::new(), ever: Vec::new() };
    let mut wire: VecDeque<Vec<Unit>> = VecDeque::new();
    for step in steps {
        let now = sender.now;
        match step {
            Step::Push { length, key } => sender.push(*length, *key, None),
            Step::Send => wire.push_back(sender.outbox.pack(now)),
            Step::Arrive => peer.arrive(wire.pop_front().unwrap_or_default()),
            Step::Acknowledge => sender.outbox.acknowledge(peer.inbox.received()).unwrap(),
            Step::Reconnect { lost } => {
                let welcome = peer.inbox.received();
                if *lost {
                    wire.clear();
                }
                wire.drain(..).for_each(|units| peer.arrive(units));
                sender.outbox.rewind(welcome, false, now).unwrap();
            }
            Step::Reborn => {
                wire.clear();
                peer.inbox.reset();
                peer.now.clear();
                sender.outbox.rewind(Received::default(), true, now).unwrap();
            }
        }
    }
    // Each turn acknowledges, and so opens the window for another frame at least.
    let mut turns = 10 + steps.len() * 10;
    while !sender.outbox.entries.is_empty() {
        wire.push_back(sender.outbox.pack(sender.now));
        wire.drain(..).for_each(|units| peer.arrive(units));
        sender.outbox.acknowledge(peer.inbox.received()).unwrap();
        turns -= 1;
        assert!(turns > 0, "{} messages are stuck", sender.outbox.entries.len());
    }
    assert_eq!((sender.outbox.begun_bytes, sender.outbox.flying_bytes), (0, 0));
    assert_eq!(sender.room.available_permits(), LIMITS.queue_bytes);
    for number in 0..sender.tickets.len() {
        let delivered = peer.ever.contains(&(number as u32));
        match sender.outcome(number) {
            Some(Delivery::Delivered) => assert!(delivered, "{number} was acknowledged and is lost"),
            Some(Delivery::Superseded) => {}
            other => panic!("{number} ended as {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn whatever_breaks_acknowledged_messages_arrive_exactly_once(steps in steps()) {
        for class in Class::ALL {
            play(class, &steps);
        }
    }
}
