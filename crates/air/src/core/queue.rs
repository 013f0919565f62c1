//! The byte-bounded queue ahead of a transmitter.

use std::collections::VecDeque;

use super::pool::{NONE, Slab};
use crate::spec::Discipline;

/// Flows are told apart by this many hash buckets; flows that share one share its turn.
const BUCKETS: usize = 1024;
const NO_FLOW: u16 = u16::MAX;

/// A singly linked list of packets.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
    bytes: u64,
}

impl List {
    const EMPTY: Self = Self { head: NONE, tail: NONE, bytes: 0 };

    fn push(&mut self, at: u32, packets: &mut Slab) {
        packets[at].next = NONE;
        self.bytes += u64::from(packets[at].len);
        if self.head == NONE {
            self.head = at;
        } else {
            packets[self.tail].next = at;
        }
        self.tail = at;
    }

    fn pop(&mut self, packets: &Slab) -> Option<u32> {
        let at = self.head;
        if at == NONE {
            return None;
        }
        self.head = packets[at].next;
        self.bytes -= u64::from(packets[at].len);
        Some(at)
    }
}

#[derive(Debug)]
struct Flow {
    list: List,
    bucket: u16,
    /// What the flow may still send in its turn; served while positive.
    deficit: i64,
}

/// Deficit round robin (Shreedhar & Varghese 1996) with a quantum of one full packet, so that a visit always sends.
#[derive(Debug)]
struct Drr {
    /// The flow that holds each bucket. Allocated when the link first has a queue: most links of a large network
    /// never do.
    buckets: Vec<u16>,
    flows: Vec<Flow>,
    free: Vec<u16>,
    active: VecDeque<u16>,
}

#[derive(Debug)]
enum Order {
    Fifo(List),
    Drr(Drr),
}

/// The queue: packets in order of service, their number and bytes.
#[derive(Debug)]
pub(super) struct PacketQueue {
    order: Order,
    quantum: i64,
    bytes: u64,
    packets: u64,
}

impl PacketQueue {
    pub(super) fn new(discipline: Discipline, quantum: u32) -> Self {
        Self { order: Order::new(discipline), quantum: i64::from(quantum), bytes: 0, packets: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Queues a packet within `limit` bytes. The packets that had to make way for it (itself among them, if it is
    /// refused) are given to `dropped`.
    pub(super) fn push(
        &mut self,
        at: u32,
        limit: u64,
        packets: &mut Slab,
        mut dropped: impl FnMut(u32, &mut Slab),
    ) {
        let len = u64::from(packets[at].len);
        let full = self.bytes + len > limit;
        // A queue above its bound (which has shrunk) admits nothing; nor does one that could never hold the packet.
        if full && (matches!(self.order, Order::Fifo(_)) || self.bytes > limit || len > limit) {
            dropped(at, packets);
            return;
        }
        self.bytes += len;
        self.packets += 1;
        match &mut self.order {
            Order::Fifo(list) => list.push(at, packets),
            Order::Drr(drr) => drr.push(at, self.quantum, packets),
        }
        while self.bytes > limit
            && let Order::Drr(drr) = &mut self.order
            && let Some(victim) = drr.pop_longest(packets)
        {
            self.bytes -= u64::from(packets[victim].len);
            self.packets -= 1;
            dropped(victim, packets);
        }
    }

    /// The next packet to send.
    pub(super) fn pop(&mut self, packets: &Slab) -> Option<u32> {
        let at = match &mut self.order {
            Order::Fifo(list) => list.pop(packets),
            Order::Drr(drr) => drr.pop(self.quantum, packets),
        }?;
        self.bytes -= u64::from(packets[at].len);
        self.packets -= 1;
        Some(at)
    }

    /// Changes the discipline; queued packets keep the order in which they would have been sent.
    pub(super) fn set_discipline(&mut self, discipline: Discipline, packets: &mut Slab) {
        if self.order.discipline() == discipline {
            return;
        }
        let mut queued = Vec::new();
        while let Some(at) = self.pop(packets) {
            queued.push(at);
        }
        self.order = Order::new(discipline);
        for at in queued {
            self.push(at, u64::MAX, packets, |_, _| {});
        }
    }
}

impl Order {
    fn new(discipline: Discipline) -> Self {
        match discipline {
            Discipline::Fifo => Self::Fifo(List::EMPTY),
            Discipline::Drr => Self::Drr(Drr {
                buckets: Vec::new(),
                flows: Vec::new(),
                free: Vec::new(),
                active: VecDeque::new(),
            }),
        }
    }

    fn discipline(&self) -> Discipline {
        match self {
            Self::Fifo(_) => Discipline::Fifo,
            Self::Drr(_) => Discipline::Drr,
        }
    }
}

impl Drr {
    fn push(&mut self, at: u32, quantum: i64, packets: &mut Slab) {
        if self.buckets.is_empty() {
            self.buckets = vec![NO_FLOW; BUCKETS];
        }
        let bucket = packets[at].flow as usize % BUCKETS;
        if self.buckets[bucket] == NO_FLOW {
            self.buckets[bucket] = self.add_flow(bucket as u16, quantum);
        }
        let flow = self.buckets[bucket];
        self.flows[usize::from(flow)].list.push(at, packets);
    }

    /// A flow that becomes active joins the end of the round.
    fn add_flow(&mut self, bucket: u16, quantum: i64) -> u16 {
        let flow = Flow { list: List::EMPTY, bucket, deficit: quantum };
        let index = match self.free.pop() {
            Some(index) => {
                self.flows[usize::from(index)] = flow;
                index
            }
            None => {
                self.flows.push(flow);
                (self.flows.len() - 1) as u16
            }
        };
        self.active.push_back(index);
        index
    }

    fn pop(&mut self, quantum: i64, packets: &Slab) -> Option<u32> {
        loop {
            let index = *self.active.front()?;
            let flow = &mut self.flows[usize::from(index)];
            if flow.deficit <= 0 {
                flow.deficit += quantum;
                self.active.pop_front();
                self.active.push_back(index);
                continue;
            }
            let at = flow.list.pop(packets)?;
            flow.deficit -= i64::from(packets[at].len);
            if flow.list.head == NONE {
                self.buckets[usize::from(flow.bucket)] = NO_FLOW;
                self.active.pop_front();
                self.free.push(index);
            }
            return Some(at);
        }
    }

    /// The oldest packet of the flow with the most bytes queued.
    fn pop_longest(&mut self, packets: &Slab) -> Option<u32> {
        let (place, &index) = self
            .active
            .iter()
            .enumerate()
            .max_by_key(|(_, index)| self.flows[usize::from(**index)].list.bytes)?;
        let flow = &mut self.flows[usize::from(index)];
        let at = flow.list.pop(packets)?;
        if flow.list.head == NONE {
            self.buckets[usize::from(flow.bucket)] = NO_FLOW;
            self.active.remove(place);
            self.free.push(index);
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pool::{Packet, Way};
    use super::*;
    use crate::spec::StationId;

    fn packet(packets: &mut Slab, flow: u32, len: u32) -> u32 {
        packets.insert(Packet {
            buffer: Box::default(),
            len,
            flow,
            source: StationId(0),
            destination: StationId(0),
            station: StationId(0),
            way: Way::Up,
            link: NONE,
            attempts: 0,
            read_ns: 0,
            waited_ns: 0,
            entered_ns: 0,
            next: NONE,
        })
    }

    fn served(queue: &mut PacketQueue, packets: &Slab) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop(packets)).collect()
    }

    #[test]
    fn drr_shares_bytes_equally_whatever_the_packet_sizes() {
        let (mut packets, mut queue) = (Slab::default(), PacketQueue::new(Discipline::Drr, 1500));
        for _ in 0..3000 {
            for (flow, len) in [(1, 1500), (2, 500), (3, 90)] {
                let at = packet(&mut packets, flow, len);
                queue.push(at, u64::MAX, &mut packets, |_, _| unreachable!());
            }
        }
        let mut bytes = [0u32; 4];
        for _ in 0..2000 {
            let at = queue.pop(&packets).unwrap();
            bytes[packets[at].flow as usize] += packets[at].len;
            // At any time, no two backlogged flows are further apart than a quantum and a packet each.
            let (least, most) = (bytes[1..].iter().min().unwrap(), bytes[1..].iter().max().unwrap());
            assert!(most - least <= 2 * (1500 + 1500), "{bytes:?}");
        }
        assert!(bytes[3] > 80_000, "{bytes:?}");
    }

    #[test]
    fn a_full_drr_queue_drops_the_longest_flows_oldest() {
        let (mut packets, mut queue) = (Slab::default(), PacketQueue::new(Discipline::Drr, 1500));
        let hog: Vec<u32> = (0..10).map(|_| packet(&mut packets, 1, 1000)).collect();
        for at in &hog {
            queue.push(*at, 10_000, &mut packets, |_, _| unreachable!());
        }
        let mouse = packet(&mut packets, 2, 100);
        let mut dropped = Vec::new();
        queue.push(mouse, 10_000, &mut packets, |at, _| dropped.push(at));
        assert_eq!(dropped, [hog[0]]);
        assert_eq!(queue.bytes(), 9100);
        assert_eq!(served(&mut queue, &packets)[..3], [hog[1], hog[2], mouse]);
    }

    #[test]
    fn fifo_keeps_order_and_drops_what_arrives() {
        let (mut packets, mut queue) = (Slab::default(), PacketQueue::new(Discipline::Fifo, 1500));
        let all: Vec<u32> = (0..4).map(|flow| packet(&mut packets, flow, 1000)).collect();
        let mut dropped = Vec::new();
        for at in &all {
            queue.push(*at, 3000, &mut packets, |at, _| dropped.push(at));
        }
        assert_eq!(dropped, [all[3]]);
        assert_eq!(served(&mut queue, &packets), all[..3]);
    }

    #[test]
    fn a_change_of_discipline_loses_nothing() {
        let (mut packets, mut queue) = (Slab::default(), PacketQueue::new(Discipline::Fifo, 1500));
        let all: Vec<u32> = (0..100).map(|i| packet(&mut packets, i % 7, 100 + i)).collect();
        for at in &all {
            queue.push(*at, u64::MAX, &mut packets, |_, _| unreachable!());
        }
        let bytes = queue.bytes();
        queue.set_discipline(Discipline::Drr, &mut packets);
        assert_eq!((queue.packets(), queue.bytes()), (100, bytes));
        queue.set_discipline(Discipline::Fifo, &mut packets);
        let mut left = served(&mut queue, &packets);
        left.sort_unstable();
        assert_eq!(left, all);
        assert_eq!((queue.packets(), queue.bytes()), (0, 0));
    }

    proptest! {
        /// Every packet comes out exactly once, sent or dropped; within a flow in order; the bound holds always.
        #[test]
        fn nothing_is_lost_and_the_bound_holds(
            fifo: bool,
            limit in 1000u64..8000,
            steps in prop::collection::vec(prop::option::weighted(0.6, (0u32..6, 20u32..1500)), 1..400),
        ) {
            let discipline = if fifo { Discipline::Fifo } else { Discipline::Drr };
            let (mut packets, mut queue) = (Slab::default(), PacketQueue::new(discipline, 1500));
            let (mut pushed, mut gone) = (Vec::new(), Vec::new());
            let mut sent = Vec::new();
            for step in steps {
                if let Some((flow, len)) = step {
                    let at = packet(&mut packets, flow, len);
                    pushed.push(at);
                    queue.push(at, limit, &mut packets, |at, _| gone.push(at));
                } else if let Some(at) = queue.pop(&packets) {
                    sent.push(at);
                }
                prop_assert!(queue.bytes() <= limit);
            }
            sent.extend(served(&mut queue, &packets));
            for flow in 0..6 {
                let order: Vec<_> = sent.iter().filter(|at| packets[**at].flow == flow).collect();
                prop_assert!(order.is_sorted());
            }
            gone.extend(sent);
            gone.sort_unstable();
            prop_assert_eq!(gone, pushed);
            prop_assert_eq!((queue.bytes(), queue.packets()), (0, 0));
        }
    }
}
