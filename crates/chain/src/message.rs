//! What replicas send each other.

use std::sync::Arc;

use crate::block::SharedBlock;
use crate::bodies::BodyMessage;
use crate::codec::{Decode, Encode, Reader, VERSION, put_sequence, unknown_tag};
use crate::crypto::Signature;
use crate::error::{Error, Result};
use crate::tx::SharedTransaction;
use crate::types::{Digest, Epoch, Height, ReplicaId, View};
use crate::vote::{Proposal, SharedCertificate, Statement, Vote};

/// Most bytes in a message.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Most certificates that justify a proposal.
pub const MAX_JUSTIFICATION: usize = 16;
/// Most blocks in a segment of the chain.
pub const MAX_SEGMENT_BLOCKS: usize = 1024;
/// Most blocks that one request may name.
pub const MAX_REQUEST_BLOCKS: usize = 8;
/// Most views whose certificates one request may ask for.
pub const MAX_REQUEST_VIEWS: u64 = 32;
/// Most transactions in a gossip message.
pub const MAX_GOSSIP: usize = 1024;

/// A leader's block with what a voter needs to accept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalMessage {
    /// The proposal.
    pub proposal: Proposal,
    /// The block that it names.
    pub block: SharedBlock,
    /// The leader's notarize vote for the proposal.
    pub signature: Signature,
    /// The parent's certificate and nullifications of the views between, as many as fit.
    pub justification: Vec<SharedCertificate>,
}

impl ProposalMessage {
    /// The leader's vote that the message carries.
    #[must_use]
    pub fn vote(&self, leader: ReplicaId) -> Vote {
        Vote { statement: Statement::Notarize(self.proposal), signer: leader, signature: self.signature }
    }
}

impl Encode for ProposalMessage {
    fn encode(&self, out: &mut Vec<u8>) {
        self.proposal.encode(out);
        self.block.encode(out);
        self.signature.encode(out);
        put_sequence(out, &self.justification);
    }
}

impl Decode for ProposalMessage {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            proposal: Proposal::decode(reader)?,
            block: Arc::decode(reader)?,
            signature: Signature::decode(reader)?,
            justification: reader.sequence(MAX_JUSTIFICATION, "justification")?,
        })
    }
}

/// Asks for what the sender lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The sender's finalized height.
    pub finalized: Height,
    /// Blocks wanted by digest.
    pub blocks: Vec<Digest>,
    /// Certificates wanted: those of the first view and following ones of `epoch`.
    pub views: Option<(View, View)>,
}

impl Encode for (View, View) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
}

impl Decode for (View, View) {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok((u64::decode(reader)?, u64::decode(reader)?))
    }
}

impl Encode for Request {
    fn encode(&self, out: &mut Vec<u8>) {
        self.epoch.encode(out);
        self.finalized.encode(out);
        put_sequence(out, &self.blocks);
        self.views.encode(out);
    }
}

impl Decode for Request {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let request = Self {
            epoch: u64::decode(reader)?,
            finalized: u64::decode(reader)?,
            blocks: reader.sequence(MAX_REQUEST_BLOCKS, "requested blocks")?,
            views: Option::decode(reader)?,
        };
        match request.views {
            Some((first, last)) if last < first || last - first >= MAX_REQUEST_VIEWS => {
                let detail =
                    format!("views {first} to {last}; at most {MAX_REQUEST_VIEWS} in ascending order");
                Err(Error::Malformed { what: "request", detail })
            }
            _ => Ok(request),
        }
    }
}

/// Consecutive blocks of one epoch of the finalized chain and the certificate that finalizes the last of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Blocks by ascending height.
    pub blocks: Vec<SharedBlock>,
    /// Finalizes the last block.
    pub certificate: SharedCertificate,
}

impl Encode for Segment {
    fn encode(&self, out: &mut Vec<u8>) {
        put_sequence(out, &self.blocks);
        self.certificate.encode(out);
    }
}

impl Decode for Segment {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let blocks = reader.sequence(MAX_SEGMENT_BLOCKS, "segment blocks")?;
        Ok(Self { blocks, certificate: Arc::decode(reader)? })
    }
}

/// Transactions passed on to whoever may propose them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip(pub Vec<SharedTransaction>);

impl Encode for Gossip {
    fn encode(&self, out: &mut Vec<u8>) {
        put_sequence(out, &self.0);
    }
}

impl Decode for Gossip {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        reader.sequence(MAX_GOSSIP, "gossiped transactions").map(Self)
    }
}

/// A one-off block, sent on request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery(pub SharedBlock);
impl Encode for Delivery {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for Delivery {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Arc::decode(reader).map(Self)
    }
}

/// Everything that replicas send each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A leader's proposal.
    Proposal(ProposalMessage),
    /// A vote.
    Vote(Vote),
    /// A certificate.
    Certificate(SharedCertificate),
    /// A request.
    Request(Request),
    /// A block that was requested.
    Block(Delivery),
    /// A part of the finalized chain.
    Segment(Segment),
    /// Transactions.
    Gossip(Gossip),
    /// About large bodies; handled by [`crate::bodies::Bodies`].
    Body(BodyMessage),
}

macro_rules! message_codec {
    ($($tag:literal => $variant:ident),*) => {
        impl Encode for Message {
            fn encode(&self, out: &mut Vec<u8>) {
                VERSION.encode(out);
                match self {
                    $(Self::$variant(value) => {
                        let tag: u8 = $tag;
                        tag.encode(out);
                        value.encode(out);
                    })*
                }
            }
        }
        impl Decode for Message {
            fn decode(reader: &mut Reader<'_>) -> Result<Self> {
                if reader.remaining() > MAX_MESSAGE_BYTES {
                    let detail = format!("{} bytes, at most {MAX_MESSAGE_BYTES}", reader.remaining());
                    return Err(Error::Malformed { what: "message", detail });
                }
                let version = u8::decode(reader)?;
                if version != VERSION {
                    let detail = format!("version {version}, this program speaks {VERSION}");
                    return Err(Error::Malformed { what: "message", detail });
                }
                match u8::decode(reader)? {
                    $($tag => Decode::decode(reader).map(Self::$variant),)*
                    tag => Err(unknown_tag("message", tag)),
                }
            }
        }
    };
}
message_codec!(0 => Proposal, 1 => Vote, 2 => Certificate, 3 => Request, 4 => Block, 5 => Segment, 6 => Gossip, 7 => Body);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::State;
    use crate::testing::{certificate, registry, transaction, vote};
    use crate::tx::Payload;

    /// One message of every kind but those about bodies.
    fn samples() -> Vec<Message> {
        let registry = registry(4);
        let tx = transaction(&registry, 1, 1, Payload::Action { round: 3, content: vec![1; 20] });
        let (block, _) = State::genesis(&registry).build(&registry, 1, [tx.clone()]);
        let block = Arc::new(block);
        let proposal = Proposal { epoch: 0, view: 1, parent_view: 0, height: 1, block: block.digest() };
        let held = certificate(&registry, &[0, 1, 2], Statement::Finalize(proposal));
        let leader = vote(&registry, 1, Statement::Notarize(proposal));
        let justification = vec![held.clone(); 2];
        vec![
            Message::Proposal(ProposalMessage {
                proposal,
                block: block.clone(),
                signature: leader.signature,
                justification,
            }),
            Message::Vote(leader),
            Message::Certificate(held.clone()),
            Message::Request(Request {
                epoch: 1,
                finalized: 2,
                blocks: vec![block.digest()],
                views: Some((3, 9)),
            }),
            Message::Block(Delivery(block.clone())),
            Message::Segment(Segment { blocks: vec![block], certificate: held }),
            Message::Gossip(Gossip(vec![tx])),
        ]
    }

    #[test]
    fn every_kind_survives_its_encoding_and_no_part_of_it_passes_for_it() {
        for message in samples() {
            let bytes = message.to_bytes();
            assert_eq!(Message::from_bytes(&bytes), Ok(message));
            assert!((0..bytes.len()).all(|length| Message::from_bytes(&bytes[..length]).is_err()));
        }
    }

    #[test]
    fn other_versions_and_immodest_requests_are_refused() {
        let mut bytes = samples()[1].to_bytes();
        bytes[0] = VERSION + 1;
        assert!(Message::from_bytes(&bytes).unwrap_err().to_string().contains("version"));
        for views in [(5, 4), (1, 1 + MAX_REQUEST_VIEWS), (0, u64::MAX)] {
            let request = Request { views: Some(views), ..Request::default() };
            assert!(Message::from_bytes(&Message::Request(request).to_bytes()).is_err());
        }
    }

    proptest! {
        /// Whatever decodes is canonical: it encodes to the very bytes that it came from.
        #[test]
        fn altered_messages_decode_to_themselves_or_not_at_all(
            index in 0usize..7, position: prop::sample::Index, flip in 1u8..
        ) {
            let mut bytes = samples()[index].to_bytes();
            let position = position.index(bytes.len());
            bytes[position] ^= flip;
            if let Ok(message) = Message::from_bytes(&bytes) {
                prop_assert_eq!(message.to_bytes(), bytes);
            }
        }
    }
}
