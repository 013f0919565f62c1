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
            self.head = at
        } else {
            packets[self.tail].next = at
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

    pub(super) fn is_empty(&self) -> bool {
        self.packets == 0
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
