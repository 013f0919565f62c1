//! Envelopes of the bus between nodes, and their encoding.
//!
//! An envelope is the only frame of one ZeroMQ message. All numbers are big-endian; `name` is a length byte and that many
//! bytes; the signature or tag behind each envelope is the bus's own business and not part of it.
//!
//! | envelope | after the version and the kind (one byte each) |
//! | --- | --- |
//! | hello (1) | class `u8`, from `name`, to `name`, boot `u64`, dial `u64`, share `[u8; 32]` |
//! | welcome (2) | boot `u64`, share `[u8; 32]`, stored `u64`, delivered `u64` |
//! | frame (3) | counter `u64`, stored `u64`, delivered `u64`, stamp `u64`, echo `u64`, held `u32`, units `u16`, units |
//! | unit | sequence `u64`, part `u8` (0 continues, 1 begins), if it begins: total `u32` and sent `u64`, length `u32`, data |
//!
//! The node that dials says *hello*, the other answers *welcome*, and from then on both send *frames*; one without units
//! is a heartbeat. A message travels as units of at most [`UNIT_BYTES`], numbered without gaps by its sender while they
//! are sent, so that a broken transfer goes on where it stopped.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Version of this encoding; the first byte of every envelope.
pub const BUS_VERSION: u8 = 1;

/// Most bytes of a message that one unit carries.
pub const UNIT_BYTES: usize = 64 * 1024;

/// Most bytes of unit data in one frame: small messages share a frame, and with it a signature.
pub const FRAME_DATA_BYTES: usize = UNIT_BYTES;

/// Most units in one frame.
pub const FRAME_UNITS: usize = 512;

/// Longest encoding of an envelope, without its signature.
pub const ENVELOPE_BYTES: usize = 2 + 5 * 8 + 4 + 2 + FRAME_UNITS * UNIT_HEADER_BYTES + FRAME_DATA_BYTES;

const UNIT_HEADER_BYTES: usize = 8 + 1 + 4 + 8 + 4;
const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const FRAME: u8 = 3;

/// Name by which nodes and users know each other on the bus: 1 to 63 bytes of `a-z A-Z 0-9 - _ . /`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 63;

    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<Self, BusDecodeError> {
        let fits = (1..=Self::BYTES_MAX).contains(&name.len());
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if fits && plain { Ok(Self(name.into())) } else { Err(BusDecodeError::Name(name.into())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = BusDecodeError;

    fn try_from(name: String) -> Result<Self, BusDecodeError> {
        Self::new(&name)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0.as_ref().to_owned()
    }
}

/// The two kinds of traffic, each with connections and queues of its own so that neither waits for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Small and urgent: votes, proposals, requests.
    Control,
    /// Large and patient: models, blocks' bodies, twin data.
    Bulk,
}

impl Class {
    /// Both classes.
    pub const ALL: [Class; 2] = [Class::Control, Class::Bulk];

    /// Position in [`Class::ALL`].
    pub fn index(self) -> usize {
        match self {
            Class::Control => 0,
            Class::Bulk => 1,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Control => "control",
            Class::Bulk => "bulk",
        })
    }
}

/// First envelope of a connection, from the node that dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the connection is for.
    pub class: Class,
    /// Who dials.
    pub from: NodeName,
    /// Who is meant to answer, so that a hello cannot be used against somebody else.
    pub to: NodeName,
    /// Incarnation of the dialling process; grows with each restart.
    pub boot: u64,
    /// Number of this dial within the incarnation; grows with each.
    pub dial: u64,
    /// Fresh X25519 public key (RFC 7748).
    pub share: [u8; 32],
}

/// Answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Incarnation of the answering process.
    pub boot: u64,
    /// Fresh X25519 public key; with the hello's it makes the keys of this connection's frames.
    pub share: [u8; 32],
    /// What the answering node holds of the dialling node's units.
    pub received: Received,
}

/// What a node has received of its peer's units, by their sequence. 0: nothing yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// All units up to this one are held; they need not be sent again to the same incarnation.
    pub stored: u64,
    /// All messages up to this unit's have been handed to the application.
    pub delivered: u64,
}

/// Any later envelope: acknowledgements, a sample for the round-trip time, and units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Number of this frame on its connection and in its direction, from 1 without gaps.
    pub counter: u64,
    /// Acknowledges the peer's units.
    pub received: Received,
    /// Sender's own clock, in microseconds from an origin of its choice.
    pub stamp_us: u64,
    /// Last stamp seen from the peer; 0: none yet.
    pub echo_us: u64,
    /// How long the sender has held that stamp, in microseconds.
    pub held_us: u32,
    /// Message parts, in ascending sequence.
    pub units: Vec<Unit>,
}

/// Part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Number of this unit within the sender's incarnation and class.
    pub sequence: u64,
    /// Set on a message's first unit.
    pub begin: Option<Begin>,
    /// The bytes.
    pub data: Bytes,
}

/// What a message's first unit says of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// Length of the message in bytes.
    pub total_bytes: u32,
    /// Emulated time at which the application sent it, in nanoseconds.
    pub sent_at_ns: u64,
}

impl Unit {
    /// Bytes that the unit takes in a frame.
    pub fn encoded_bytes(&self) -> usize {
        UNIT_HEADER_BYTES + self.data.len()
    }
}

/// Everything that travels over a bus connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope {
    /// Opens a connection.
    Hello(Hello),
    /// Accepts it.
    Welcome(Welcome),
    /// Carries messages.
    Frame(Frame),
}

/// Why bytes are not an envelope, or a text not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusDecodeError {
    /// The bytes end inside a field.
    #[error("the envelope ends inside its {0}")]
    Truncated(&'static str),
    /// Bytes are left over.
    #[error("{0} bytes follow the envelope's end")]
    Trailing(usize),
    /// Another version of this encoding.
    #[error("bus version {0}, this program speaks {BUS_VERSION}")]
    Version(u8),
    /// A field has a value that no sender writes.
    #[error("the envelope's {0} has no valid value")]
    Value(&'static str),
    /// More than a frame may hold.
    #[error("the frame's {0} exceed the limit")]
    Limit(&'static str),
    /// Not a name.
    #[error("{0:?} is not a node's name; it takes 1 to 63 of a-z A-Z 0-9 - _ . /")]
    Name(String),
}

impl Envelope {
    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(BUS_VERSION);
        match self {
            Envelope::Hello(hello) => {
                out.put_u8(HELLO);
                out.put_u8(hello.class.index() as u8);
                put_name(out, &hello.from);
                put_name(out, &hello.to);
                out.put_u64(hello.boot);
                out.put_u64(hello.dial);
                out.put_slice(&hello.share);
            }
            Envelope::Welcome(welcome) => {
                out.put_u8(WELCOME);
                out.put_u64(welcome.boot);
                out.put_slice(&welcome.share);
                out.put_u64(welcome.received.stored);
                out.put_u64(welcome.received.delivered);
            }
            Envelope::Frame(frame) => {
                out.put_u8(FRAME);
                encode_frame(frame, out);
            }
        }
    }

    /// Reads one envelope that fills `bytes`. Unit data share its memory.
    ///
    /// # Errors
    /// Any deviation from the encoding, including left-over bytes and more units or data than a frame may hold.
    pub fn decode(mut bytes: Bytes) -> Result<Self, BusDecodeError> {
        let version = take_u8(&mut bytes, "version")?;
        if version != BUS_VERSION {
            return Err(BusDecodeError::Version(version));
        }
        let envelope = match take_u8(&mut bytes, "kind")? {
            HELLO => Envelope::Hello(decode_hello(&mut bytes)?),
            WELCOME => Envelope::Welcome(Welcome {
                boot: take_u64(&mut bytes, "boot")?,
                share: take_share(&mut bytes)?,
                received: decode_received(&mut bytes)?,
            }),
            FRAME => Envelope::Frame(decode_frame(&mut bytes)?),
            _ => return Err(BusDecodeError::Value("kind")),
        };
        if bytes.is_empty() { Ok(envelope) } else { Err(BusDecodeError::Trailing(bytes.len())) }
    }
}

fn encode_frame(frame: &Frame, out: &mut BytesMut) {
    out.put_u64(frame.counter);
    out.put_u64(frame.received.stored);
    out.put_u64(frame.received.delivered);
    out.put_u64(frame.stamp_us);
    out.put_u64(frame.echo_us);
    out.put_u32(frame.held_us);
    debug_assert!(frame.units.len() <= FRAME_UNITS, "the packer keeps to the limit");
    out.put_u16(frame.units.len() as u16);
    for unit in &frame.units {
        out.put_u64(unit.sequence);
        match unit.begin {
            None => out.put_u8(0),
            Some(begin) => {
                out.put_u8(1);
                out.put_u32(begin.total_bytes);
                out.put_u64(begin.sent_at_ns);
            }
        }
        out.put_u32(unit.data.len() as u32);
        out.put_slice(&unit.data);
    }
}

fn decode_hello(bytes: &mut Bytes) -> Result<Hello, BusDecodeError> {
    Ok(Hello {
        class: match take_u8(bytes, "class")? {
            0 => Class::Control,
            1 => Class::Bulk,
            _ => return Err(BusDecodeError::Value("class")),
        },
        from: take_name(bytes)?,
        to: take_name(bytes)?,
        boot: take_u64(bytes, "boot")?,
        dial: take_u64(bytes, "dial")?,
        share: take_share(bytes)?,
    })
}

fn decode_frame(bytes: &mut Bytes) -> Result<Frame, BusDecodeError> {
    let mut frame = Frame {
        counter: take_u64(bytes, "counter")?,
        received: decode_received(bytes)?,
        stamp_us: take_u64(bytes, "stamp")?,
        echo_us: take_u64(bytes, "echo")?,
        held_us: take_u32(bytes, "held")?,
        units: Vec::new(),
    };
    let count = usize::from(take_u16(bytes, "units")?);
    if count > FRAME_UNITS {
        return Err(BusDecodeError::Limit("units"));
    }
    let mut data_bytes = 0;
    for _ in 0..count {
        let unit = decode_unit(bytes)?;
        data_bytes += unit.data.len();
        if data_bytes > FRAME_DATA_BYTES {
            return Err(BusDecodeError::Limit("data"));
        }
        if frame.units.last().is_some_and(|last: &Unit| last.sequence >= unit.sequence) {
            return Err(BusDecodeError::Value("unit sequence"));
        }
        frame.units.push(unit);
    }
    Ok(frame)
}

fn decode_unit(bytes: &mut Bytes) -> Result<Unit, BusDecodeError> {
    let sequence = take_u64(bytes, "unit sequence")?;
    let begin = match take_u8(bytes, "unit part")? {
        0 => None,
        1 => Some(Begin {
            total_bytes: take_u32(bytes, "unit total")?,
            sent_at_ns: take_u64(bytes, "unit time")?,
        }),
        _ => return Err(BusDecodeError::Value("unit part")),
    };
    let length = take_u32(bytes, "unit length")? as usize;
    if length > bytes.len() {
        return Err(BusDecodeError::Truncated("unit data"));
    }
    let data = bytes.split_to(length);
    if sequence == 0 {
        return Err(BusDecodeError::Value("unit sequence"));
    }
    // A unit without bytes would let a peer fill memory for nothing; only an empty message has one.
    let empty_allowed = begin.is_some_and(|begin| begin.total_bytes == 0);
    if data.is_empty() != empty_allowed
        || begin.is_some_and(|begin| (begin.total_bytes as usize) < data.len())
    {
        return Err(BusDecodeError::Value("unit length"));
    }
    Ok(Unit { sequence, begin, data })
}

fn decode_received(bytes: &mut Bytes) -> Result<Received, BusDecodeError> {
    Ok(Received { stored: take_u64(bytes, "stored")?, delivered: take_u64(bytes, "delivered")? })
}

fn put_name(out: &mut BytesMut, name: &NodeName) {
    out.put_u8(name.as_str().len() as u8);
    out.put_slice(name.as_str().as_bytes());
}

fn take_name(bytes: &mut Bytes) -> Result<NodeName, BusDecodeError> {
    let length = usize::from(take_u8(bytes, "name")?);
    if length > bytes.len() {
        return Err(BusDecodeError::Truncated("name"));
    }
    let raw = bytes.split_to(length);
    let name = std::str::from_utf8(&raw).map_err(|_| BusDecodeError::Value("name"))?;
    NodeName::new(name)
}

fn take_share(bytes: &mut Bytes) -> Result<[u8; 32], BusDecodeError> {
    let mut share = [0; 32];
    bytes.try_copy_to_slice(&mut share).map_err(|_| BusDecodeError::Truncated("share"))?;
    Ok(share)
}

fn take_u8(bytes: &mut Bytes, field: &'static str) -> Result<u8, BusDecodeError> {
    bytes.try_get_u8().map_err(|_| BusDecodeError::Truncated(field))
}

fn take_u16(bytes: &mut Bytes, field: &'static str) -> Result<u16, BusDecodeError> {
    bytes.try_get_u16().map_err(|_| BusDecodeError::Truncated(field))
}

fn take_u32(bytes: &mut Bytes, field: &'static str) -> Result<u32, BusDecodeError> {
    bytes.try_get_u32().map_err(|_| BusDecodeError::Truncated(field))
}

fn take_u64(bytes: &mut Bytes, field: &'static str) -> Result<u64, BusDecodeError> {
    bytes.try_get_u64().map_err(|_| BusDecodeError::Truncated(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(envelope: &Envelope) -> Bytes {
        let mut out = BytesMut::new();
        envelope.encode(&mut out);
        out.freeze()
    }

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn samples() -> Vec<Envelope> {
        let begin = Begin { total_bytes: 70_000, sent_at_ns: 5 };
        let unit =
            |sequence, begin, data: &'static [u8]| Unit { sequence, begin, data: Bytes::from_static(data) };
        vec![
            Envelope::Hello(Hello {
                class: Class::Bulk,
                from: name("bs1"),
                to: name("mbs"),
                boot: 3,
                dial: 9,
                share: [7; 32],
            }),
            Envelope::Welcome(Welcome {
                boot: 1,
                share: [2; 32],
                received: Received { stored: 4, delivered: 3 },
            }),
            Envelope::Frame(Frame {
                counter: 1,
                received: Received::default(),
                stamp_us: 10,
                echo_us: 0,
                held_us: 0,
                units: vec![
                    unit(1, Some(Begin { total_bytes: 0, sent_at_ns: 1 }), b""),
                    unit(2, Some(Begin { total_bytes: 3, sent_at_ns: 1 }), b"abc"),
                    unit(5, Some(begin), b"part one"),
                    unit(6, None, b"part two"),
                ],
            }),
        ]
    }

    #[test]
    fn every_envelope_reads_back() {
        for envelope in samples() {
            assert_eq!(Envelope::decode(encoded(&envelope)), Ok(envelope));
        }
    }

    #[test]
    fn every_truncation_and_every_extra_byte_is_refused() {
        for envelope in samples() {
            let bytes = encoded(&envelope);
            for end in 0..bytes.len() {
                assert!(Envelope::decode(bytes.slice(..end)).is_err(), "{envelope:?} cut at {end}");
            }
            let mut longer = BytesMut::from(&bytes[..]);
            longer.put_u8(0);
            assert_eq!(Envelope::decode(longer.freeze()), Err(BusDecodeError::Trailing(1)));
        }
    }

    #[test]
    fn limits_of_a_frame_hold() {
        let unit = |sequence| Unit {
            sequence,
            begin: Some(Begin { total_bytes: 1, sent_at_ns: 0 }),
            data: Bytes::from_static(b"x"),
        };
        let frame = |units: Vec<Unit>| {
            let mut out = BytesMut::new();
            out.put_slice(&[BUS_VERSION, FRAME]);
            out.put_slice(&[0; 44]);
            out.put_u16(units.len() as u16);
            for unit in units {
                out.put_u64(unit.sequence);
                out.put_u8(1);
                out.put_u32(unit.begin.map_or(0, |begin| begin.total_bytes));
                out.put_u64(0);
                out.put_u32(unit.data.len() as u32);
                out.put_slice(&unit.data);
            }
            Envelope::decode(out.freeze())
        };
        assert!(frame((1..=FRAME_UNITS as u64).map(unit).collect()).is_ok());
        assert_eq!(
            frame((1..=FRAME_UNITS as u64 + 1).map(unit).collect()),
            Err(BusDecodeError::Limit("units"))
        );
        let half = Bytes::from(vec![0; FRAME_DATA_BYTES / 2 + 1]);
        let big = |sequence| Unit {
            sequence,
            begin: Some(Begin { total_bytes: half.len() as u32, sent_at_ns: 0 }),
            data: half.clone(),
        };
        assert_eq!(frame(vec![big(1), big(2)]), Err(BusDecodeError::Limit("data")));
        assert_eq!(frame(vec![unit(2), unit(2)]), Err(BusDecodeError::Value("unit sequence")));
        assert_eq!(frame(vec![unit(0)]), Err(BusDecodeError::Value("unit sequence")));
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "a b", "ä", "a\0", &"x".repeat(64)] {
            assert_eq!(NodeName::new(bad), Err(BusDecodeError::Name(bad.into())));
        }
        assert_eq!(name("ug1/user7").as_str(), "ug1/user7");
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 1u8..=3) {
            let mut bytes = bytes;
            if bytes.len() > 1 {
                bytes[0] = BUS_VERSION;
                bytes[1] = kind;
            }
            let _ = Envelope::decode(Bytes::from(bytes));
        }
    }
}
