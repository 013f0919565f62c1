//! Signatures on envelopes.
//!
//! A sealed envelope is its encoding and behind it the signer's ed25519 signature over a BLAKE3 hash of the encoding, keyed
//! by the context. The hello's context is fixed, the welcome's is the sealed hello, and the frames' is both together: that
//! binds frames to one connection. Hashing first spares ed25519 from reading each 64 KiB frame twice with SHA-512.

use super::stats::Reject;
use bytes::{BufMut, Bytes, BytesMut};
use dtwn_proto::bus::{ENVELOPE_BYTES, Envelope};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

const SIGNATURE_BYTES: usize = Signature::BYTE_SIZE;

/// Longest sealed envelope, and so the longest ZMTP frame that the guard lets through.
pub(crate) const SEALED_BYTES: usize = ENVELOPE_BYTES + SIGNATURE_BYTES;

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

    /// For the frames of a connection opened by these two sealed envelopes.
    pub(crate) fn frames(hello: &[u8], welcome: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("dtwn bus 1 frames");
        hasher.update(&(hello.len() as u64).to_be_bytes()).update(hello).update(welcome);
        Self(*hasher.finalize().as_bytes())
    }

    fn digest(&self, encoding: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, encoding).as_bytes()
    }
}

/// Encodes and signs.
pub(crate) fn seal(envelope: &Envelope, context: &Context, key: &SigningKey) -> Bytes {
    let data_bytes = match envelope {
        Envelope::Frame(frame) => frame.units.iter().map(|unit| unit.encoded_bytes()).sum(),
        Envelope::Hello(_) | Envelope::Welcome(_) => 0,
    };
    let mut out = BytesMut::with_capacity(data_bytes + 256);
    envelope.encode(&mut out);
    let signature = key.sign(&context.digest(&out));
    out.put_slice(&signature.to_bytes());
    out.freeze()
}

/// Reads an envelope whose sender is not yet known; it must be [verified](verify) before anything in it is believed.
pub(crate) fn peek(sealed: &Bytes) -> Result<Envelope, Reject> {
    let length = sealed.len().checked_sub(SIGNATURE_BYTES).ok_or(Reject::Malformed)?;
    Envelope::decode(sealed.slice(..length)).map_err(|_| Reject::Malformed)
}

/// Checks the signature.
pub(crate) fn verify(sealed: &[u8], context: &Context, key: &VerifyingKey) -> Result<(), Reject> {
    let (encoding, signature) = sealed.split_last_chunk::<SIGNATURE_BYTES>().ok_or(Reject::Malformed)?;
    let signature = Signature::from_bytes(signature);
    key.verify_strict(&context.digest(encoding), &signature).map_err(|_| Reject::BadSignature)
}

/// Checks the signature, then reads.
pub(crate) fn open(sealed: &Bytes, context: &Context, key: &VerifyingKey) -> Result<Envelope, Reject> {
    verify(sealed, context, key)?;
    peek(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtwn_proto::bus::{Received, Welcome};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn envelope() -> Envelope {
        Envelope::Welcome(Welcome { boot: 1, nonce: [0; 16], received: Received::default() })
    }

    #[test]
    fn opens_with_the_same_key_and_context_only() {
        let context = Context::welcome(b"hello");
        let sealed = seal(&envelope(), &context, &key(1));
        assert_eq!(open(&sealed, &context, &key(1).verifying_key()), Ok(envelope()));
        assert_eq!(open(&sealed, &context, &key(2).verifying_key()), Err(Reject::BadSignature));
        for other in [Context::hello(), Context::welcome(b"other"), Context::frames(b"hello", b"")] {
            assert_eq!(open(&sealed, &other, &key(1).verifying_key()), Err(Reject::BadSignature));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
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
}
