//! Length-prefixed frames over a byte stream: a big-endian `u32` of the body's bytes, then the body in MessagePack.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// The most bytes that a frame's body may have. A peer that announces more is refused before anything is allocated.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer has closed the stream between two frames.
    #[error("the peer has closed the connection")]
    Closed,
    /// The stream failed, or ended inside a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The announced body is larger than [`BODY_BYTES_MAX`].
    #[error("a frame of {0} bytes is over the limit of {BODY_BYTES_MAX}")]
    TooLarge(usize),
    /// The body is not what was expected.
    #[error("a frame that does not decode: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// The message cannot be encoded.
    #[error("a message that does not encode: {0}")]
    Unencodable(#[from] rmp_serde::encode::Error),
}

/// Encodes a message as one frame, length first.
///
/// # Errors
/// [`FrameError::Unencodable`] and [`FrameError::TooLarge`].
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    rmp_serde::encode::write_named(&mut bytes, message)?;
    let length = checked_length(bytes.len() - 4)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// The body's length that a frame's first four bytes announce.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn body_length(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix) as usize;
    checked_length(length).map(|_| length)
}

/// Decodes a frame's body.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(rmp_serde::from_slice(body)?)
}

/// Writes one frame to a blocking stream.
///
/// # Errors
/// As [`encode`], and the stream's.
pub fn write(stream: &mut impl Write, message: &impl Serialize) -> Result<(), FrameError> {
    stream.write_all(&encode(message)?)?;
    Ok(())
}

/// Reads one frame from a blocking stream.
///
/// # Errors
/// [`FrameError::Closed`] at the end of the stream; otherwise as the variants say.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, FrameError> {
    let mut prefix = [0; 4];
    match stream.read(&mut prefix)? {
        0 => return Err(FrameError::Closed),
        got => stream.read_exact(&mut prefix[got..])?,
    }
    let mut body = vec![0; body_length(prefix)?];
    stream.read_exact(&mut body)?;
    decode(&body)
}

fn checked_length(length: usize) -> Result<u32, FrameError> {
    match u32::try_from(length) {
        Ok(short) if length <= BODY_BYTES_MAX => Ok(short),
        _ => Err(FrameError::TooLarge(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let mut stream = Vec::new();
        write(&mut stream, &("bs1", 7_u64)).unwrap();
        write(&mut stream, &("bs2", 8_u64)).unwrap();
        let mut reader = stream.as_slice();
        assert_eq!(read::<(String, u64)>(&mut reader).unwrap(), ("bs1".to_owned(), 7));
        assert_eq!(read::<(String, u64)>(&mut reader).unwrap(), ("bs2".to_owned(), 8));
        assert!(matches!(read::<(String, u64)>(&mut reader), Err(FrameError::Closed)));
    }

    #[test]
    fn a_frame_that_announces_too_much_is_refused_before_it_is_read() {
        let mut reader = [0xff, 0xff, 0xff, 0xff, 1].as_slice();
        assert!(matches!(read::<String>(&mut reader), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn a_torn_frame_is_an_error_and_not_the_end() {
        let bytes = encode(&"hello").unwrap();
        let mut reader = &bytes[..bytes.len() - 1];
        assert!(matches!(read::<String>(&mut reader), Err(FrameError::Io(_))));
    }
}
