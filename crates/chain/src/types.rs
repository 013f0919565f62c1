//! Identifiers, digests and units.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A view within an epoch. View 0 stands for the epoch's starting block; the first proposal is in view 1.
pub type View = u64;

/// An epoch, counted from 0.
pub type Epoch = u64;

/// A block's distance from the genesis block, which has height 0.
pub type Height = u64;

/// A point in time or a duration in microseconds, on whatever monotonic clock the driver uses.
pub type Micros = u64;

/// Training coins in millionths of a coin.
pub type MicroCoins = u64;

/// A base station as the chain knows it: its index in the genesis list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub u16);

impl ReplicaId {
    /// The index in the genesis list.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// A BLAKE3 digest (32 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes` within `domain`: equal bytes in different roles have different digests.
    #[must_use]
    pub fn in_domain(domain: &'static str, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        // The length prefix keeps (domain, bytes) unambiguous.
        hasher.update(&(domain.len() as u64).to_le_bytes());
        hasher.update(domain.as_bytes());
        hasher.update(bytes);
        Self(*hasher.finalize().as_bytes())
    }

    /// The plain BLAKE3 digest of a body, as `b3sum` prints it.
    #[must_use]
    pub fn of_body(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

/// The first twelve hexadecimal digits; enough to tell digests apart in a log line.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
