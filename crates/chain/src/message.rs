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
