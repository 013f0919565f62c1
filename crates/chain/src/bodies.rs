//! Large bodies beside the chain: offered, pulled in chunks from whoever holds them, checked chunk by chunk.
//!
//! A body is named by its BLAKE3 digest. BLAKE3 is a hash tree, so the chaining values of its 64 KiB subtrees, the
//! *manifest*, can be checked against the digest, and each chunk against its chaining value: a faulty peer can
//! waste the airtime of one chunk, never poison a body or make anyone hold bytes that nobody asked for. Whoever
//! completes a body offers it in turn, so bodies spread over the base stations without loading their owner alone.
//!
//! Sans-io like the core: [`Bodies::step`] takes time and an input and returns effects. Only bodies that the
//! application wants (because a transaction names them) are fetched; memory is bounded by [`BodyLimits`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use blake3::hazmat::{HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use crate::codec::{Decode, Encode, Reader, put_bytes, put_count, unknown_tag};
use crate::error::{Error, Result};
use crate::types::{Digest, Micros, ReplicaId};

/// Length of every chunk of a body but the last.
pub const CHUNK_BYTES: usize = 65_536;
/// Most chunks in a body: 1 GiB.
pub const MAX_CHUNKS: usize = 16_384;
/// Most chunks that one message may ask for.
pub const MAX_PULL: u32 = 16;

type ChainingValue = [u8; 32];

/// What replicas say about bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyMessage {
    /// The sender holds the body.
    Offer(Digest),
    /// Asks for the manifest, and thereby whether the receiver holds the body.
    Ask(Digest),
    /// The chaining values of the body's chunks and its length; also an offer.
    Manifest {
        /// The body.
        digest: Digest,
        /// Its length.
        size_bytes: u64,
        /// A chaining value for each chunk.
        chunks: Vec<ChainingValue>,
    },
    /// Asks for some chunks.
    Pull {
        /// The body.
        digest: Digest,
        /// The first chunk wanted.
        first: u32,
        /// How many, at most [`MAX_PULL`].
        count: u32,
    },
    /// A chunk.
    Chunk {
        /// The body.
        digest: Digest,
        /// The chunk's position.
        index: u32,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

impl Encode for BodyMessage {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Offer(digest) | Self::Ask(digest) => {
                u8::from(matches!(self, Self::Ask(_))).encode(out);
                digest.encode(out);
            }
            Self::Manifest { digest, size_bytes, chunks } => {
                2u8.encode(out);
                digest.encode(out);
                size_bytes.encode(out);
                put_count(out, chunks.len());
                chunks.iter().for_each(|chunk| out.extend_from_slice(chunk));
            }
            Self::Pull { digest, first, count } => {
                3u8.encode(out);
                digest.encode(out);
                first.encode(out);
                count.encode(out);
            }
            Self::Chunk { digest, index, bytes } => {
                4u8.encode(out);
                digest.encode(out);
                index.encode(out);
                put_bytes(out, bytes);
            }
        }
    }
}

impl Decode for BodyMessage {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let tag = u8::decode(reader)?;
        let digest = Digest::decode(reader)?;
        Ok(match tag {
            0 => Self::Offer(digest),
            1 => Self::Ask(digest),
            2 => {
                let size_bytes = u64::decode(reader)?;
                let count = reader.count(MAX_CHUNKS, "body manifest")?;
                let chunks = (0..count).map(|_| reader.array("chaining value")).collect::<Result<_>>()?;
                Self::Manifest { digest, size_bytes, chunks }
            }
            3 => Self::Pull { digest, first: u32::decode(reader)?, count: u32::decode(reader)? },
            4 => {
                let index = u32::decode(reader)?;
                Self::Chunk { digest, index, bytes: reader.bytes(CHUNK_BYTES, "body chunk")? }
            }
            tag => return Err(unknown_tag("body message", tag)),
        })
    }
}

/// Bounds on bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Longest body fetched.
    pub max_body_bytes: u64,
    /// Most bytes of bodies being fetched at a time; further ones wait.
    pub max_fetching_bytes: u64,
    /// Most bodies wanted at a time.
    pub max_wanted: usize,
    /// Complete bodies kept in memory for others, in bytes.
    pub max_cached_bytes: u64,
    /// Chunks asked for and not yet here, for each body.
    pub window: u32,
    /// After this long a chunk or manifest is asked for again, from somebody else.
    pub timeout_us: Micros,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            max_fetching_bytes: 128 << 20,
            max_wanted: 1024,
            max_cached_bytes: 64 << 20,
            window: 16,
            timeout_us: 1_000_000,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum BodyInput {
    /// The application wants a body of this length.
    Want(Digest, u64),
    /// The application no longer wants a body.
    Forget(Digest),
    /// The application has a body, made here or loaded from the store.
    Insert(Arc<[u8]>),
    /// A message from another replica.
    Receive(ReplicaId, BodyMessage),
    /// Time has passed; due at [`Bodies::deadline`].
    Tick,
}

/// Something for the driver to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyEffect {
    /// Send a message to one replica, or with `None` to all.
    Send(Option<ReplicaId>, BodyMessage),
    /// A wanted body is complete and matches its digest: store it.
    Complete(Digest, Arc<[u8]>),
    /// Somebody asks for a body that is not in memory: if the store has it, insert it.
    Load(Digest),
}

/// A body being fetched.
#[derive(Debug, Default)]
struct Fetch {
    size_bytes: u64,
    manifest: Vec<ChainingValue>,
    chunks: Vec<Option<Vec<u8>>>,
    held: usize,
    holders: BTreeSet<ReplicaId>,
    /// Chunks asked for: from whom, and when to give up.
    asked: BTreeMap<u32, (ReplicaId, Micros)>,
    /// When to ask everybody again who holds the body.
    ask_at: Micros,
    /// Rotates the peers asked.
    turn: usize,
}

/// The bodies that one replica fetches, holds and serves.
#[derive(Debug, Default)]
pub struct Bodies {
    limits: BodyLimits,
    now: Micros,
    fetching: BTreeMap<Digest, Fetch>,
    fetching_bytes: u64,
    /// Wanted, with no room to fetch yet.
    waiting: VecDeque<(Digest, u64)>,
    cached: BTreeMap<Digest, Arc<[u8]>>,
    cached_bytes: u64,
    /// Cached bodies, oldest first.
    order: VecDeque<Digest>,
    effects: Vec<BodyEffect>,
}

impl Bodies {
    /// Nothing held and nothing wanted.
    #[must_use]
    pub fn new(limits: BodyLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Handles one input at time `now` and returns what to do, in order.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Body`] when the application wants more than the limits allow.
    pub fn step(&mut self, now: Micros, input: BodyInput) -> Result<Vec<BodyEffect>> {
        self.now = self.now.max(now);
        match input {
            BodyInput::Want(digest, size_bytes) => self.want(digest, size_bytes)?,
            BodyInput::Forget(digest) => self.forget(&digest),
            BodyInput::Insert(bytes) => self.insert(bytes),
            BodyInput::Receive(from, message) => self.receive(from, message),
            BodyInput::Tick => self.tick(),
        }
        Ok(std::mem::take(&mut self.effects))
    }

    /// When the next [`BodyInput::Tick`] is due, if anything is being fetched.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        let fetches = self.fetching.values();
        fetches.flat_map(|fetch| fetch.asked.values().map(|asked| asked.1).chain([fetch.ask_at])).min()
    }

    /// A complete body, if it is in memory.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Arc<[u8]>> {
        self.cached.get(digest)
    }

    /// Bytes set aside for bodies being fetched.
    #[must_use]
    pub fn fetching_bytes(&self) -> u64 {
        self.fetching_bytes
    }

    fn want(&mut self, digest: Digest, size_bytes: u64) -> Result<()> {
        if self.cached.contains_key(&digest)
            || self.fetching.contains_key(&digest)
            || self.waiting.iter().any(|(waiting, _)| *waiting == digest)
        {
            return Ok(());
        }
        let most = self.limits.max_body_bytes.min((MAX_CHUNKS * CHUNK_BYTES) as u64);
        if size_bytes > most {
            return Err(Error::Body {
                digest,
                reason: format!("{size_bytes} bytes, at most {most} are fetched"),
            });
        }
        if self.fetching.len() + self.waiting.len() >= self.limits.max_wanted {
            return Err(Error::Full {
                queue: "body queue",
                detail: format!("{} bodies", self.limits.max_wanted),
            });
        }
        self.waiting.push_back((digest, size_bytes));
        self.start_waiting();
        Ok(())
    }

    /// Starts fetching what has waited longest, as far as there is room.
    fn start_waiting(&mut self) {
        while let Some(&(digest, size_bytes)) = self.waiting.front() {
            if !self.fetching.is_empty() && self.fetching_bytes + size_bytes > self.limits.max_fetching_bytes
            {
                return;
            }
            self.waiting.pop_front();
            self.fetching_bytes += size_bytes;
            let ask_at = self.now + self.limits.timeout_us;
            self.fetching.insert(digest, Fetch { size_bytes, ask_at, ..Fetch::default() });
            self.effects.push(BodyEffect::Send(None, BodyMessage::Ask(digest)));
        }
    }

    fn forget(&mut self, digest: &Digest) {
        self.waiting.retain(|(waiting, _)| waiting != digest);
        if let Some(fetch) = self.fetching.remove(digest) {
            self.fetching_bytes -= fetch.size_bytes;
        }
        self.start_waiting();
    }

    fn insert(&mut self, bytes: Arc<[u8]>) {
        let digest = Digest::of_body(&bytes);
        self.forget(&digest);
        self.cache(digest, bytes);
        self.effects.push(BodyEffect::Send(None, BodyMessage::Offer(digest)));
    }

    fn cache(&mut self, digest: Digest, bytes: Arc<[u8]>) {
        let size_bytes = bytes.len() as u64;
        if size_bytes > self.limits.max_cached_bytes || self.cached.insert(digest, bytes).is_some() {
            return;
        }
        self.cached_bytes += size_bytes;
        self.order.push_back(digest);
        while self.cached_bytes > self.limits.max_cached_bytes {
            let Some(oldest) = self.order.pop_front() else { return };
            self.cached_bytes -= self.cached.remove(&oldest).map_or(0, |bytes| bytes.len() as u64);
        }
    }

    fn receive(&mut self, from: ReplicaId, message: BodyMessage) {
        match message {
            BodyMessage::Offer(digest) => self.offered(from, &digest),
            BodyMessage::Ask(digest) => self.asked(from, digest),
            BodyMessage::Manifest { digest, size_bytes, chunks } => {
                self.manifest(from, digest, size_bytes, &chunks);
            }
            BodyMessage::Pull { digest, first, count } => self.pulled(from, digest, first, count),
            BodyMessage::Chunk { digest, index, bytes } => self.chunk(from, digest, index, bytes),
        }
    }

    fn offered(&mut self, from: ReplicaId, digest: &Digest) {
        let Some(fetch) = self.fetching.get_mut(digest) else { return };
        fetch.holders.insert(from);
        if fetch.manifest.is_empty() {
            self.effects.push(BodyEffect::Send(Some(from), BodyMessage::Ask(*digest)));
        } else {
            self.pull(digest);
        }
    }

    fn asked(&mut self, from: ReplicaId, digest: Digest) {
        match self.cached.get(&digest) {
            Some(bytes) => {
                let (size_bytes, chunks) = (bytes.len() as u64, manifest_of(bytes));
                let message = BodyMessage::Manifest { digest, size_bytes, chunks };
                self.effects.push(BodyEffect::Send(Some(from), message));
            }
            None if self.fetching.contains_key(&digest) => {}
            None => self.effects.push(BodyEffect::Load(digest)),
        }
    }

    fn manifest(&mut self, from: ReplicaId, digest: Digest, size_bytes: u64, chunks: &[ChainingValue]) {
        let Some(fetch) = self.fetching.get_mut(&digest) else { return };
        if fetch.manifest.is_empty() {
            // A body whose real length differs from the recorded one is never taken.
            if size_bytes != fetch.size_bytes || root_of(chunks, size_bytes) != Some(digest) {
                return;
            }
            fetch.chunks = vec![None; chunks.len()];
            fetch.manifest = chunks.to_vec();
        }
        fetch.holders.insert(from);
        self.pull(&digest);
    }

    /// Asks the holders in turn for runs of missing chunks, as far as the window allows.
    fn pull(&mut self, digest: &Digest) {
        let Some(fetch) = self.fetching.get_mut(digest) else { return };
        let holders: Vec<ReplicaId> = fetch.holders.iter().copied().collect();
        if holders.is_empty() || fetch.manifest.is_empty() {
            return;
        }
        let missing = |index: &u32| fetch.chunks.get(*index as usize).is_some_and(Option::is_none);
        let total = u32::try_from(fetch.chunks.len()).unwrap_or(u32::MAX);
        let room =
            self.limits.window.saturating_sub(u32::try_from(fetch.asked.len()).unwrap_or(u32::MAX)) as usize;
        let wanted: Vec<u32> =
            (0..total).filter(|index| !fetch.asked.contains_key(index)).filter(missing).take(room).collect();
        for run in wanted.chunk_by(|a, b| a + 1 == *b).flat_map(|run| run.chunks(4)) {
            let holder = holders[fetch.turn % holders.len()];
            fetch.turn += 1;
            for index in run {
                fetch.asked.insert(*index, (holder, self.now + self.limits.timeout_us));
            }
            let count = u32::try_from(run.len()).unwrap_or(MAX_PULL);
            let message = BodyMessage::Pull { digest: *digest, first: run[0], count };
            self.effects.push(BodyEffect::Send(Some(holder), message));
        }
    }

    fn pulled(&mut self, from: ReplicaId, digest: Digest, first: u32, count: u32) {
        let Some(bytes) = self.cached.get(&digest) else {
            if !self.fetching.contains_key(&digest) {
                self.effects.push(BodyEffect::Load(digest));
            }
            return;
        };
        let chunks =
            bytes.chunks(CHUNK_BYTES).enumerate().skip(first as usize).take(count.min(MAX_PULL) as usize);
        let messages: Vec<_> = chunks
            .filter_map(|(index, chunk)| Some((u32::try_from(index).ok()?, chunk.to_vec())))
            .map(|(index, bytes)| BodyEffect::Send(Some(from), BodyMessage::Chunk { digest, index, bytes }))
            .collect();
        self.effects.extend(messages);
    }

    fn chunk(&mut self, from: ReplicaId, digest: Digest, index: u32, bytes: Vec<u8>) {
        let Some(fetch) = self.fetching.get_mut(&digest) else { return };
        let position = index as usize;
        if fetch.chunks.get(position).is_none_or(Option::is_some) || !fetch.asked.contains_key(&index) {
            return;
        }
        let last = position + 1 == fetch.chunks.len();
        let expected = if last { fetch.size_bytes as usize - position * CHUNK_BYTES } else { CHUNK_BYTES };
        if bytes.len() != expected
            || chaining_value(&bytes, position, fetch.chunks.len()) != fetch.manifest[position]
        {
            // A holder that sends other bytes is no holder.
            fetch.holders.remove(&from);
            fetch.asked.retain(|_, (holder, _)| *holder != from);
            self.pull(&digest);
            return;
        }
        fetch.asked.remove(&index);
        fetch.chunks[position] = Some(bytes);
        fetch.held += 1;
        if fetch.held == fetch.chunks.len() {
            self.complete(digest);
        } else {
            self.pull(&digest);
        }
    }

    fn complete(&mut self, digest: Digest) {
        let Some(fetch) = self.fetching.remove(&digest) else { return };
        self.fetching_bytes -= fetch.size_bytes;
        let bytes: Arc<[u8]> = fetch.chunks.into_iter().flatten().flatten().collect();
        self.cache(digest, bytes.clone());
        self.effects.push(BodyEffect::Complete(digest, bytes));
        self.effects.push(BodyEffect::Send(None, BodyMessage::Offer(digest)));
        self.start_waiting();
    }

    fn tick(&mut self) {
        let digests: Vec<Digest> = self.fetching.keys().copied().collect();
        for digest in digests {
            let Some(fetch) = self.fetching.get_mut(&digest) else { continue };
            let late: BTreeSet<ReplicaId> =
                fetch.asked.values().filter(|(_, at)| *at <= self.now).map(|(holder, _)| *holder).collect();
            fetch.asked.retain(|_, (_, at)| *at > self.now);
            // Others first; but a slow holder is better than none.
            if fetch.holders.len() > late.len() {
                fetch.holders.retain(|holder| !late.contains(holder));
            }
            if fetch.ask_at <= self.now {
                fetch.ask_at = self.now + self.limits.timeout_us;
                if fetch.held == 0 || fetch.holders.is_empty() || !late.is_empty() {
                    self.effects.push(BodyEffect::Send(None, BodyMessage::Ask(digest)));
                }
            }
            self.pull(&digest);
        }
    }
}

/// The chaining value of a chunk, or the whole digest when the body has only one.
fn chaining_value(bytes: &[u8], position: usize, chunks: usize) -> ChainingValue {
    if chunks == 1 {
        return *blake3::hash(bytes).as_bytes();
    }
    blake3::Hasher::new().set_input_offset((position * CHUNK_BYTES) as u64).update(bytes).finalize_non_root()
}

/// The manifest of a body; an empty body has one empty chunk.
fn manifest_of(bytes: &[u8]) -> Vec<ChainingValue> {
    let count = bytes.len().div_ceil(CHUNK_BYTES).max(1);
    if count == 1 {
        return vec![chaining_value(bytes, 0, 1)];
    }
    bytes.chunks(CHUNK_BYTES).enumerate().map(|(index, chunk)| chaining_value(chunk, index, count)).collect()
}

/// The digest that a manifest implies; `None` when it does not fit the length.
fn root_of(manifest: &[ChainingValue], size_bytes: u64) -> Option<Digest> {
    if manifest.len() as u64 != size_bytes.div_ceil(CHUNK_BYTES as u64).max(1) {
        return None;
    }
    if let [only] = manifest {
        return Some(Digest(*only));
    }
    let (left, right) = halves(manifest, size_bytes)?;
    Some(Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
}

/// The chaining values of the two subtrees below a node.
fn halves(manifest: &[ChainingValue], size_bytes: u64) -> Option<(ChainingValue, ChainingValue)> {
    let left_bytes = left_subtree_len(size_bytes);
    let (left, right) = manifest.split_at_checked(usize::try_from(left_bytes / CHUNK_BYTES as u64).ok()?)?;
    Some((subtree(left, left_bytes)?, subtree(right, size_bytes - left_bytes)?))
}

fn subtree(manifest: &[ChainingValue], size_bytes: u64) -> Option<ChainingValue> {
    if let [only] = manifest {
        return Some(*only);
    }
    let (left, right) = halves(manifest, size_bytes)?;
    Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

#[cfg(test)]
mod tests;
