//! The canonical encoding: what is hashed, signed, sent and stored.
//!
//! Integers are little-endian at fixed width; a sequence is a `u32` count and its items; an enum is a `u8` tag and
//! its fields; structs are their fields in declaration order. A value has exactly one encoding and decoding refuses
//! everything else (unknown tags, counts above the field's bound, bytes left over), so that hashing or signing the
//! encoding is hashing or signing the value. [`VERSION`] is part of every signing domain and of every message.

use crate::error::{Error, Result};
use crate::types::{Digest, ReplicaId};

/// Version of the encoding and of the protocol that it carries.
pub const VERSION: u8 = 1;

/// A value with a canonical encoding.
pub trait Encode {
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// The encoding on its own.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

/// A value that can be read back from its canonical encoding.
pub trait Decode: Sized {
    /// Reads one value.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the bytes are not a canonical encoding.
    fn decode(reader: &mut Reader<'_>) -> Result<Self>;

    /// Reads one value that must take up all of `bytes`.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the bytes are not a canonical encoding or some are left over.
    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// Reads canonical encodings out of untrusted bytes.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes the next `count` bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] when fewer are left.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8]> {
        if self.rest.len() < count {
            return Err(Error::Malformed {
                what,
                detail: format!("needs {count} bytes, {} are left", self.rest.len()),
            });
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    /// Takes a fixed-size array.
    ///
    /// # Errors
    /// [`Error::Malformed`] when too few bytes are left.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    /// Reads a count and refuses one above `max`, before anything is allocated for it.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the count is above `max` or above what the bytes left could hold.
    pub fn count(&mut self, max: usize, what: &'static str) -> Result<usize> {
        let count = u32::decode(self)? as usize;
        if count > max || count > self.rest.len() {
            let detail = format!("count {count}, at most {max} with {} bytes left", self.rest.len());
            return Err(Error::Malformed { what, detail });
        }
        Ok(count)
    }

    /// Reads up to `max` values.
    ///
    /// # Errors
    /// [`Error::Malformed`] as for [`Reader::count`] and the values.
    pub fn sequence<T: Decode>(&mut self, max: usize, what: &'static str) -> Result<Vec<T>> {
        let count = self.count(max, what)?;
        // A lying count may still be as large as the bytes left; let the vector grow with what is really there.
        let mut values = Vec::with_capacity(count.min(256));
        for _ in 0..count {
            values.push(T::decode(self)?);
        }
        Ok(values)
    }

    /// Reads up to `max` raw bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] as for [`Reader::count`].
    pub fn bytes(&mut self, max: usize, what: &'static str) -> Result<Vec<u8>> {
        let count = self.count(max, what)?;
        Ok(self.take(count, what)?.to_vec())
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Refuses bytes left over.
    ///
    /// # Errors
    /// [`Error::Malformed`] when any are.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::Malformed { what: "encoding", detail: format!("{} bytes left over", self.rest.len()) })
    }
}

/// Appends a count; sequences in this crate are bounded far below `u32::MAX`.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    u32::try_from(count).unwrap_or(u32::MAX).encode(out);
}

/// Appends a counted sequence.
pub(crate) fn put_sequence<T: Encode>(out: &mut Vec<u8>, values: &[T]) {
    put_count(out, values.len());
    values.iter().for_each(|value| value.encode(out));
}

/// Appends counted raw bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// The error for a tag that no variant has.
pub(crate) fn unknown_tag(what: &'static str, tag: u8) -> Error {
    Error::Malformed { what, detail: format!("unknown tag {tag}") }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Encode for $integer {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
        impl Decode for $integer {
            fn decode(reader: &mut Reader<'_>) -> Result<Self> {
                Ok(Self::from_le_bytes(reader.array(stringify!($integer))?))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64);

impl Encode for Digest {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

impl Decode for Digest {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(reader.array("digest")?))
    }
}

impl Encode for ReplicaId {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for ReplicaId {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(u16::decode(reader)?))
    }
}

impl<T: Encode> Encode for std::sync::Arc<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_ref().encode(out);
    }
}

impl<T: Decode> Decode for std::sync::Arc<T> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        T::decode(reader).map(Self::new)
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            None => 0u8.encode(out),
            Some(value) => {
                1u8.encode(out);
                value.encode(out);
            }
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        match u8::decode(reader)? {
            0 => Ok(None),
            1 => T::decode(reader).map(Some),
            tag => Err(unknown_tag("option", tag)),
        }
    }
}

/// Implements the encoding of a struct as that of its fields in the order given.
macro_rules! encoded_fields {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::codec::Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$field.encode(out);)*
            }
        }
        impl $crate::codec::Decode for $name {
            fn decode(reader: &mut $crate::codec::Reader<'_>) -> $crate::error::Result<Self> {
                Ok(Self { $($field: $crate::codec::Decode::decode(reader)?),* })
            }
        }
    };
}
pub(crate) use encoded_fields;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_checked_before_allocation() {
        let mut bytes = Vec::new();
        u32::MAX.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        assert!(matches!(reader.sequence::<u8>(usize::MAX, "test"), Err(Error::Malformed { .. })));
        let mut reader = Reader::new(&[3, 0, 0, 0, 1, 2, 3]);
        assert!(matches!(reader.bytes(2, "test"), Err(Error::Malformed { .. })));
    }

    #[test]
    fn leftover_bytes_are_refused() {
        assert_eq!(u16::from_bytes(&[1, 0]), Ok(1));
        assert!(u16::from_bytes(&[1, 0, 0]).is_err());
        assert!(u16::from_bytes(&[1]).is_err());
    }

    #[test]
    fn options_have_one_encoding() {
        assert_eq!(Option::<u8>::from_bytes(&[1, 7]), Ok(Some(7)));
        assert_eq!(Option::<u8>::from_bytes(&[0]), Ok(None));
        assert!(Option::<u8>::from_bytes(&[2, 7]).is_err());
    }
}
