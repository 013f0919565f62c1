//! What nodes say to each other, inside the signed envelopes of the bus.
//!
//! A message is a header in MessagePack and, for bodies, the raw bytes behind it:
//!
//! ```text
//! length:u32be header body…
//! ```
//!
//! Headers come from other processes: every reader checks lengths and digests before it uses them.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The longest header: all of them are small and of bounded size.
const HEADER_BYTES_MAX: usize = 4096;

/// Why a message was refused.
#[derive(Debug, thiserror::Error)]
pub enum NodeMessageError {
    /// The message ends before its header does, or announces a header that is too long.
    #[error("a message whose header is cut off or too long")]
    Length,
    /// The header is not what was expected.
    #[error("a header that does not decode: {0}")]
    Header(#[from] rmp_serde::decode::Error),
    /// The header cannot be encoded.
    #[error("a header that does not encode: {0}")]
    Unencodable(#[from] rmp_serde::encode::Error),
    /// The body is not the one that the header describes.
    #[error("a body whose digest is not the one announced")]
    Digest,
}

/// The header of a message between nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    /// A model, as the body behind the header.
    Model(ModelHeader),
    /// From a BS to the MBS: I was started again; send me what opened the round.
    Join,
    /// From a BS to the MBS: whether a model of it is to come in a round. Told where none of its twins has something to be trained on, or
    /// training has failed, and when that changes.
    Trains {
        /// Which round.
        round: u64,
        /// Whether one is to come.
        anything: bool,
    },
    /// From a BS to another: send me this model of a BS, which is on record and has not come.
    WantModel {
        /// BLAKE3 of its body.
        digest: [u8; 32],
    },
    /// What keeps digital twins with their users, and moves them; samples and models stand behind the header.
    Twin(TwinMessage),
    /// A message of the chain, as the body behind the header.
    Chain(ChainHeader),
    /// The MBS asks the BSs to record their states, and to act on them.
    Decide(Decide),
    /// What the finalized actions come to, as an [`Announced`] behind the header.
    Association(AssociationHeader),
}

/// The call for a round's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decide {
    /// The round that is decided on, from 1.
    pub round: u64,
    /// The coherence slot whose state is recorded.
    pub slot: u64,
    /// The BSs that are there, by position: nobody waits for the records of others.
    pub present: Vec<u16>,
}

/// Names the finalized records that an association rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssociationHeader {
    /// The first round that it holds for.
    pub round: u64,
    /// The height of the finalized chain up to which records count.
    pub height: u64,
    /// The digest of the block at that height; zeros for height 0.
    pub block: [u8; 32],
}

/// An association, as those take it over who hold no chain. Whoever holds one finds the same from the records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Announced {
    /// The BS of each user, by position.
    pub serving: Vec<u16>,
    /// b_i of each BS.
    pub b: Vec<f64>,
    /// τ, BS by BS.
    pub tau: Vec<f64>,
}

impl Announced {
    /// As the body behind an [`AssociationHeader`].
    ///
    /// # Errors
    /// [`NodeMessageError::Unencodable`].
    pub fn encode(&self) -> Result<Vec<u8>, NodeMessageError> {
        Ok(rmp_serde::to_vec_named(self)?)
    }

    /// Reads a body; whether it fits the network is the reader's to check.
    ///
    /// # Errors
    /// [`NodeMessageError::Header`].
    pub fn decode(body: &[u8]) -> Result<Self, NodeMessageError> {
        Ok(rmp_serde::from_slice(body)?)
    }
}

/// Describes a message of the chain on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHeader {
    /// The BS, by its position among the BSs, whose message is spread over the overlay; `None` for one that is for the
    /// receiver alone.
    pub spread: Option<u16>,
}

/// Describes a model on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelHeader {
    /// The round that it belongs to, from 1.
    pub round: u64,
    /// The node whose model it is: the MBS for the global model, a BS for its aggregate.
    pub origin: String,
    /// Emulated nanoseconds at which the origin began to send.
    pub sent_at_ns: u64,
    /// BLAKE3 of the body.
    pub digest: [u8; 32],
    /// The origin's Ed25519 signature on all of the above, in its two halves. Whoever passes the model on proves only itself.
    pub signature: [[u8; 32]; 2],
}

/// The state s_t of a user, which its twin follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TwinState {
    /// The user's index over all groups.
    pub user: u32,
    /// Counts this user's states; a twin never goes back.
    pub sequence: u64,
    /// Emulated nanoseconds at which the state was taken.
    pub taken_at_ns: u64,
    /// Position in metres, relative to the MBS.
    pub position_m: [f32; 2],
    /// Charge of the battery, 0 to 1.
    pub battery: f32,
    /// Load of the processor, 0 to 1.
    pub load: f32,
}

/// States of a user in one message at most: those that its BS has not acknowledged, the newest last.
pub const STATES_MAX: usize = 8;

/// What users and BSs say to each other of digital twins. `twin` is the index of its user over all groups, and an `epoch` counts
/// the owners that a twin has had, from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TwinMessage {
    /// A user to its BS: 1 to [`STATES_MAX`] states, sequences ascending.
    States {
        /// The states.
        states: Vec<TwinState>,
    },
    /// A BS to a user.
    Ack {
        /// The user.
        twin: u32,
        /// All states up to this one are here, or too old to matter; 0 for none.
        sequence: u64,
        /// The BS, by its position, that has the twin as far as this one knows.
        serving: u16,
        /// Since when.
        epoch: u64,
    },
    /// A BS to a user or to another BS: asks for a part of what a twin consists of.
    Want {
        /// The twin.
        twin: u32,
        /// For which owner; 0 where a user is asked.
        epoch: u64,
        /// First byte.
        offset: u64,
        /// How many, at most [`PIECE_BYTES`].
        bytes: u32,
    },
    /// The answer, with the bytes behind the header.
    Piece {
        /// The twin.
        twin: u32,
        /// As asked.
        epoch: u64,
        /// As asked.
        offset: u64,
    },
    /// The owner to the BS that is to be the next.
    Offer {
        /// The twin.
        twin: u32,
        /// That of the new owner.
        epoch: u64,
        /// What is to be fetched.
        manifest: Manifest,
    },
    /// The next owner: all of it is here.
    Have {
        /// The twin.
        twin: u32,
        /// As offered.
        epoch: u64,
        /// Of the manifest's data.
        data: [u8; 32],
    },
    /// The owner has let go of it for good.
    Grant {
        /// The twin.
        twin: u32,
        /// That of the new owner.
        epoch: u64,
        /// The first round in which the old owner does not train it.
        from_round: u64,
        /// What was to be fetched.
        manifest: Manifest,
        /// The last state that the old owner knew.
        state: Option<TwinState>,
    },
    /// The new owner has it, for good.
    Taken {
        /// The twin.
        twin: u32,
        /// As granted.
        epoch: u64,
    },
}

/// Most bytes of a [`TwinMessage::Piece`].
pub const PIECE_BYTES: u32 = 32 * 1024;

/// What a twin consists of, less its state: first its data, then its behaviour model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Bytes of data, in whole records.
    pub data_bytes: u64,
    /// BLAKE3 of the data.
    pub data: [u8; 32],
    /// Bytes of the behaviour model as models travel; 0 for a twin that was never trained.
    pub model_bytes: u64,
    /// BLAKE3 of the model.
    pub model: [u8; 32],
}

/// Puts a header before a body.
///
/// # Errors
/// [`NodeMessageError::Unencodable`].
pub fn encode(header: &Header, body: &[u8]) -> Result<Bytes, NodeMessageError> {
    let header = rmp_serde::to_vec_named(header)?;
    let mut bytes = BytesMut::with_capacity(4 + header.len() + body.len());
    bytes.put_u32(header.len() as u32);
    bytes.put_slice(&header);
    bytes.put_slice(body);
    Ok(bytes.freeze())
}

/// Takes a message apart; the body shares the message's memory.
///
/// # Errors
/// [`NodeMessageError::Length`], [`NodeMessageError::Header`].
pub fn decode(message: &Bytes) -> Result<(Header, Bytes), NodeMessageError> {
    let prefix = message.first_chunk::<4>().ok_or(NodeMessageError::Length)?;
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > HEADER_BYTES_MAX || message.len() < 4 + length {
        return Err(NodeMessageError::Length);
    }
    let header = rmp_serde::from_slice(&message[4..4 + length])?;
    Ok((header, message.slice(4 + length..)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model() -> Header {
        let (origin, signature) = ("bs1".into(), [[8; 32], [7; 32]]);
        Header::Model(ModelHeader { round: 3, origin, sent_at_ns: 7, digest: [9; 32], signature })
    }

    #[test]
    fn header_and_body_come_back() {
        let message = encode(&model(), b"weights").unwrap();
        let (header, body) = decode(&message).unwrap();
        assert_eq!(header, model());
        assert_eq!(&body[..], b"weights");
    }

    #[test]
    fn a_header_that_announces_too_much_is_refused() {
        for message in [&b""[..], b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x09abc"] {
            assert!(decode(&Bytes::copy_from_slice(message)).is_err(), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
