//! Packet memory: recycled buffers in two sizes, bounded in all, and the slab of packets that hold them.

use crate::spec::StationId;

/// A packet's bytes; longer than the packet itself.
pub type Buffer = Box<[u8]>;

/// Most packets are either acknowledgements and control messages, or full; a short one in a full-size buffer
/// would waste twenty times its length when it waits in a queue.
const SMALL: usize = 256;

/// Idle buffers beyond this many bytes go back to the allocator.
const IDLE_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct Pool {
    small: Vec<Buffer>,
    large: Vec<Buffer>,
    large_len: usize,
    held_bytes: u64,
    idle_bytes: u64,
    bytes_max: u64,
}

impl Pool {
    pub(super) fn new(large_len: usize, bytes_max: u64) -> Self {
        let large_len = large_len.max(SMALL + 1);
        Self { small: Vec::new(), large: Vec::new(), large_len, held_bytes: 0, idle_bytes: 0, bytes_max }
    }

    /// The least bound that works: a buffer to read into and one to keep.
    pub(super) fn bytes_min(&self) -> u64 {
        2 * self.large_len as u64
    }

    /// Bytes held in buffers, in use or idle.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// A buffer for `len` bytes (at most the large size), or `None` when memory is used up.
    pub(super) fn take(&mut self, len: usize) -> Option<Buffer> {
        let (list, size) =
            if len <= SMALL { (&mut self.small, SMALL) } else { (&mut self.large, self.large_len) };
        if let Some(buffer) = list.pop() {
            self.idle_bytes -= size as u64;
            return Some(buffer);
        }
        while self.held_bytes + size as u64 > self.bytes_max {
            let idle = self.large.pop().or_else(|| self.small.pop())?;
            self.held_bytes -= idle.len() as u64;
            self.idle_bytes -= idle.len() as u64;
        }
        self.held_bytes += size as u64;
        Some(vec![0; size].into_boxed_slice())
    }

    pub(super) fn take_large(&mut self) -> Option<Buffer> {
        self.take(self.large_len)
    }

    pub(super) fn is_small(len: usize) -> bool {
        len <= SMALL
    }

    pub(super) fn give(&mut self, buffer: Buffer) {
        let size = buffer.len() as u64;
        if self.idle_bytes + size > IDLE_BYTES_MAX {
            self.held_bytes -= size;
            return;
        }
        self.idle_bytes += size;
        if buffer.len() == SMALL { self.small.push(buffer) } else { self.large.push(buffer) }
    }
}

/// Names no packet: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// A packet inside the medium.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) buffer: Buffer,
    pub(super) len: u32,
    pub(super) flow: u32,
    pub(super) source: StationId,
    pub(super) destination: StationId,
    /// The station whose up or down link the packet is in.
    pub(super) station: StationId,
    pub(super) way: Way,
    /// The link it is in, or was in last.
    pub(super) link: u32,
    /// Transmissions by the present link so far.
    pub(super) attempts: u8,
    /// When the medium read it.
    pub(super) read_ns: u64,
    /// For how long before that it is known to have been waiting in its TUN.
    pub(super) waited_ns: u64,
    /// When it came to the present link.
    pub(super) entered_ns: u64,
    /// The next packet of the queue it is in.
    pub(super) next: u32,
}

/// Which of a station's links a packet is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
    /// The virtual link at the end of the path.
    Override,
}

impl Packet {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len as usize]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len as usize]
    }
}

/// Packets by index, so that queues are lists of indices and moving a packet moves four bytes.
#[derive(Debug, Default)]
pub(super) struct Slab {
    packets: Vec<Packet>,
    free: Vec<u32>,
}

impl Slab {
    pub(super) fn insert(&mut self, packet: Packet) -> u32 {
        if let Some(at) = self.free.pop() {
            self.packets[at as usize] = packet;
            return at;
        }
        self.packets.push(packet);
        (self.packets.len() - 1) as u32
    }

    /// Frees the packet's place and gives its buffer back.
    pub(super) fn remove(&mut self, at: u32) -> Buffer {
        self.free.push(at);
        std::mem::take(&mut self.packets[at as usize].buffer)
    }

    pub(super) fn len(&self) -> u64 {
        (self.packets.len() - self.free.len()) as u64
    }
}

impl std::ops::Index<u32> for Slab {
    type Output = Packet;

    fn index(&self, at: u32) -> &Packet {
        &self.packets[at as usize]
    }
}

impl std::ops::IndexMut<u32> for Slab {
    fn index_mut(&mut self, at: u32) -> &mut Packet {
        &mut self.packets[at as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_reused() {
        let mut pool = Pool::new(1501, 4096);
        let a = pool.take(1500).unwrap();
        let b = pool.take(1500).unwrap();
        assert_eq!((a.len(), pool.held_bytes()), (1501, 3002));
        assert!(pool.take(1500).is_none());
        let small = pool.take(40).unwrap();
        assert_eq!(small.len(), 256);
        pool.give(small);
        pool.give(a);
        assert_eq!(pool.held_bytes(), 3258);
        assert!(pool.take_large().is_some());
        // With the last large buffer in use, only giving up the idle small one could make room, and that is too
        // little.
        assert!(pool.take(1500).is_none());
        pool.give(b);
        assert_eq!(pool.held_bytes(), 3002);
        assert!(pool.take(1000).is_some());
    }

    #[test]
    fn idle_memory_goes_back() {
        let mut pool = Pool::new(65_536, 1 << 30);
        let all: Vec<_> = (0..1000).map(|_| pool.take(2000).unwrap()).collect();
        assert_eq!(pool.held_bytes(), 1000 * 65_536);
        for buffer in all {
            pool.give(buffer);
        }
        assert!(pool.held_bytes() <= IDLE_BYTES_MAX);
    }
}
