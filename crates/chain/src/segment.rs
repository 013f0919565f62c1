//! Cutting the finalized chain into segments that fit into messages and prove themselves.

use crate::block::SharedBlock;
use crate::codec::Encode as _;
use crate::message::{MAX_MESSAGE_BYTES, MAX_SEGMENT_BLOCKS, Segment};
use crate::vote::SharedCertificate;

/// A segment ends with the first certificate past this many bytes.
const ENOUGH_BYTES: usize = 1 << 20;

/// The longest useful segment of `chain`, consecutive committed blocks each with its certificate if it has one: of
/// one epoch, ending with a certificate, and within a message. `None` when there is none.
#[must_use]
pub fn cut(chain: impl IntoIterator<Item = (SharedBlock, Option<SharedCertificate>)>) -> Option<Segment> {
    let mut blocks: Vec<SharedBlock> = Vec::new();
    let mut end: Option<(usize, SharedCertificate)> = None;
    let mut bytes = 0;
    for (block, certificate) in chain.into_iter().take(MAX_SEGMENT_BLOCKS) {
        if blocks.first().is_some_and(|first| first.header().epoch != block.header().epoch) {
            break;
        }
        bytes += block.body_bytes() + block.header().to_bytes().len() + 8;
        if bytes > MAX_MESSAGE_BYTES - (MAX_MESSAGE_BYTES >> 3) || (bytes > ENOUGH_BYTES && end.is_some()) {
            break;
        }
        blocks.push(block);
        if let Some(certificate) = certificate {
            end = Some((blocks.len(), certificate));
        }
    }
    let (count, certificate) = end?;
    blocks.truncate(count);
    Some(Segment { blocks, certificate })
}
