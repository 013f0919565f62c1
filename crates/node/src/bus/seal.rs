//! Signatures on handshakes and on what goes on from node to node, and tags on frames.
//!
//! Hello and welcome are signed with their senders' ed25519 keys: over a BLAKE3 hash of the encoding, keyed by a context that
//! is fixed for the hello and is the sealed hello for the welcome. Both carry a fresh X25519 share (RFC 7748), so only the two
//! that signed know the secret from which each direction's frame key is derived, together with both sealed envelopes. A
//! frame's tag is its BLAKE3 hash under that key: it proves the sender as a signature would, between these two and for this
//! connection, at a hundredth of the cost, which thousands of frames and heartbeats a second make worth having.

use super::stats::Reject;
use bytes::{BufMut, Bytes, BytesMut};
use dtwn_proto::bus::{ENVELOPE_BYTES, Envelope, Frame};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand::RngExt;
use x25519_dalek::{PublicKey, StaticSecret};

const SIGNATURE_BYTES: usize = Signature::BYTE_SIZE;
const TAG_BYTES: usize = blake3::OUT_LEN;

/// Longest sealed envelope, and so the longest ZMTP frame that the guard lets through.
pub(crate) const SEALED_BYTES: usize = ENVELOPE_BYTES + TAG_BYTES;

/// What a signature is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context([u8; 32]);

impl Context {
    /// For hellos.
    pub(crate) fn hello() -> Self {
        Self(blake3::derive_key("dtwn bus 1 hello", &[]))
    }

    /// For the welcome that answers a sealed hello.
    pub(crate) fn welcome(hello: &[u8]) -> Self {
        Self(blake3::derive_key("dtwn bus 1 welcome", hello))
    }

    /// For the headers of models, which others than their origin bring.
    pub(crate) fn model() -> Self {
        Self(blake3::derive_key("dtwn model 1 header", &[]))
    }

    /// Signs an encoding.
    pub(crate) fn sign(&self, encoding: &[u8], key: &SigningKey) -> [u8; SIGNATURE_BYTES] {
        key.sign(&self.digest(encoding)).to_bytes()
    }

    /// Whether this is the key's signature on the encoding.
    pub(crate) fn is_signed(
        &self,
        encoding: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
        key: &VerifyingKey,
    ) -> bool {
        key.verify_strict(&self.digest(encoding), &Signature::from_bytes(signature)).is_ok()
    }

    fn digest(&self, encoding: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, encoding).as_bytes()
    }
}

/// Encodes and signs a hello or a welcome.
pub(crate) fn seal(envelope: &Envelope, context: &Context, key: &SigningKey) -> Bytes {
    let mut out = BytesMut::new();
    envelope.encode(&mut out);
    let signature = context.sign(&out, key);
    out.put_slice(&signature);
    out.freeze()
}

/// Reads a signed envelope whose sender is not yet known; it must be [verified](verify) before anything in it is believed.
pub(crate) fn peek(sealed: &Bytes) -> Result<Envelope, Reject> {
    let length = sealed.len().checked_sub(SIGNATURE_BYTES).ok_or(Reject::Malformed)?;
    Envelope::decode(sealed.slice(..length)).map_err(|_| Reject::Malformed)
}

/// Checks the signature.
pub(crate) fn verify(sealed: &[u8], context: &Context, key: &VerifyingKey) -> Result<(), Reject> {
    let (encoding, signature) = sealed.split_last_chunk::<SIGNATURE_BYTES>().ok_or(Reject::Malformed)?;
    if context.is_signed(encoding, signature, key) { Ok(()) } else { Err(Reject::BadSignature) }
}

/// Checks the signature, then reads.
pub(crate) fn open(sealed: &Bytes, context: &Context, key: &VerifyingKey) -> Result<Envelope, Reject> {
    verify(sealed, context, key)?;
    peek(sealed)
}

/// This node's half of a key agreement, fresh for each connection.
pub(crate) struct Share(StaticSecret);

impl Share {
    /// From the operating system's randomness: a predictable one would let old frames be used again.
    pub(crate) fn fresh() -> Self {
        Self(StaticSecret::from(rand::rng().random::<[u8; 32]>()))
    }

    /// What the peer gets to see.
    pub(crate) fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }
}

/// Which end of a connection this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Dialled,
    Accepted,
}

/// Makes the tags of one direction of one connection.
#[derive(Clone)]
pub(crate) struct FrameKey([u8; 32]);

/// The keys of a connection's frames.
pub(crate) struct FrameKeys {
    pub(crate) send: FrameKey,
    pub(crate) receive: FrameKey,
}

impl FrameKeys {
    /// From this node's share and the peer's, and the sealed envelopes that carried them.
    ///
    /// # Errors
    /// The peer's share is one of the few that make the secret known to everybody.
    pub(crate) fn agree(
        end: End,
        mine: &Share,
        theirs: [u8; 32],
        hello: &[u8],
        welcome: &[u8],
    ) -> Result<Self, Reject> {
        let secret = mine.0.diffie_hellman(&PublicKey::from(theirs));
        if !secret.was_contributory() {
            return Err(Reject::Malformed);
        }
        let key = |context| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(secret.as_bytes()).update(&(hello.len() as u64).to_be_bytes());
            FrameKey(*hasher.update(hello).update(welcome).finalize().as_bytes())
        };
        let (forth, back) =
            (key("dtwn bus 1 frames of the dialler"), key("dtwn bus 1 frames of the acceptor"));
        Ok(match end {
            End::Dialled => Self { send: forth, receive: back },
            End::Accepted => Self { send: back, receive: forth },
        })
    }
}

impl FrameKey {
    /// Encodes a frame and puts its tag behind it.
    pub(crate) fn seal(&self, frame: Frame) -> Bytes {
        let units: usize = frame.units.iter().map(|unit| unit.encoded_bytes()).sum();
        let mut out = BytesMut::with_capacity(units + 128);
        Envelope::Frame(frame).encode(&mut out);
        let tag = blake3::keyed_hash(&self.0, &out);
        out.put_slice(tag.as_bytes());
        out.freeze()
    }

    /// Checks the tag, then reads.
    pub(crate) fn open(&self, sealed: &Bytes) -> Result<Frame, Reject> {
        let (encoding, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Reject::Malformed)?;
        // `blake3::Hash` compares in constant time.
        if blake3::keyed_hash(&self.0, encoding) != blake3::Hash::from_bytes(*tag) {
            return Err(Reject::BadSignature);
        }
        match Envelope::decode(sealed.slice(..encoding.len())) {
            Ok(Envelope::Frame(frame)) => Ok(frame),
            Ok(Envelope::Hello(_) | Envelope::Welcome(_)) | Err(_) => Err(Reject::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtwn_proto::bus::{Received, Welcome};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn envelope() -> Envelope {
        Envelope::Welcome(Welcome { boot: 1, share: [0; 32], received: Received::default() })
    }

    #[test]
    fn opens_with_the_same_key_and_context_only() {
        let context = Context::welcome(b"hello");
        let sealed = seal(&envelope(), &context, &key(1));
        assert_eq!(open(&sealed, &context, &key(1).verifying_key()), Ok(envelope()));
        assert_eq!(open(&sealed, &context, &key(2).verifying_key()), Err(Reject::BadSignature));
        for other in [Context::hello(), Context::welcome(b"other"), Context::model()] {
            assert_eq!(open(&sealed, &other, &key(1).verifying_key()), Err(Reject::BadSignature));
        }
    }

    #[test]
    fn every_changed_byte_of_a_handshake_is_noticed() {
        let context = Context::hello();
        let sealed = seal(&envelope(), &context, &key(1));
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(open(&Bytes::from(changed), &context, &key(1).verifying_key()).is_err(), "byte {at}");
        }
        assert_eq!(
            open(&Bytes::from_static(b"short"), &context, &key(1).verifying_key()),
            Err(Reject::Malformed)
        );
    }

    fn frame() -> Frame {
        Frame {
            counter: 1,
            received: Received::default(),
            stamp_us: 1,
            echo_us: 0,
            held_us: 0,
            units: Vec::new(),
        }
    }

    fn agreed(hello: &[u8]) -> (FrameKeys, FrameKeys) {
        let (dialler, acceptor) = (Share::fresh(), Share::fresh());
        let agree = |end, mine: &Share, theirs: &Share| {
            FrameKeys::agree(end, mine, theirs.public(), hello, b"welcome").ok().unwrap()
        };
        (agree(End::Dialled, &dialler, &acceptor), agree(End::Accepted, &acceptor, &dialler))
    }

    #[test]
    fn frames_open_at_the_other_end_of_the_same_connection_only() {
        let (dialler, acceptor) = agreed(b"hello");
        for (from, to) in [(&dialler, &acceptor), (&acceptor, &dialler)] {
            let sealed = from.send.seal(frame());
            assert_eq!(to.receive.open(&sealed), Ok(frame()));
            assert_eq!(from.receive.open(&sealed), Err(Reject::BadSignature), "sent back to its sender");
            assert_eq!(
                agreed(b"hello").1.receive.open(&sealed),
                Err(Reject::BadSignature),
                "on another connection"
            );
            for at in 0..sealed.len() {
                let mut changed = sealed.to_vec();
                changed[at] ^= 1;
                assert_eq!(to.receive.open(&Bytes::from(changed)), Err(Reject::BadSignature), "byte {at}");
            }
        }
    }

    #[test]
    fn a_share_that_fixes_the_secret_is_refused() {
        let agreed = FrameKeys::agree(End::Dialled, &Share::fresh(), [0; 32], b"", b"");
        assert_eq!(agreed.err(), Some(Reject::Malformed));
    }
}
