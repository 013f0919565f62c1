//! A model as it travels: a header, and the parameters as 32-bit floats, 16-bit floats or 8-bit integers.
//!
//! ```text
//! "DTWM" version:u8 format:u8 0:u16 parameters:u32   little-endian, 12 bytes
//! f32    4 bytes each, little-endian
//! f16    2 bytes each, IEEE 754 binary16
//! int8   for every 1,024 parameters (fewer in the last block) a scale:f32, then one byte each; value = scale·byte
//! ```
//!
//! What a smaller format rounds off need not be lost: an [`Encoder`] adds it to the next model that it sends (error
//! feedback: Seide et al. 2014, "1-Bit Stochastic Gradient Descent").
//!
//! Parameters that are not finite are written such that [`decode`] refuses the model, in every format, and leave nothing over for the
//! next one.

use dtwn_model::topology::ModelFormat;
use half::f16;

const MAGIC: [u8; 4] = *b"DTWM";
const VERSION: u8 = 1;
/// Bytes before the parameters.
pub const HEADER_BYTES: usize = 12;
/// Parameters that share a scale.
const BLOCK: usize = 1024;

/// How a parameter is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// As it is.
    #[default]
    F32,
    /// Rounded to binary16.
    F16,
    /// Rounded to 255 steps between ± the largest of its block.
    Int8,
}

impl Format {
    /// Bytes of a message with this many parameters.
    #[must_use]
    pub fn bytes(self, parameters: usize) -> usize {
        HEADER_BYTES
            + match self {
                Self::F32 => 4 * parameters,
                Self::F16 => 2 * parameters,
                Self::Int8 => parameters + 4 * parameters.div_ceil(BLOCK),
            }
    }

    fn tag(self) -> u8 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Int8 => 2,
        }
    }

    fn of(tag: u8) -> Option<Self> {
        [Self::F32, Self::F16, Self::Int8].into_iter().find(|format| format.tag() == tag)
    }
}

impl From<ModelFormat> for Format {
    fn from(format: ModelFormat) -> Self {
        match format {
            ModelFormat::F32 => Self::F32,
            ModelFormat::F16 => Self::F16,
            ModelFormat::Int8 => Self::Int8,
        }
    }
}

/// Why a body is no model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WireError {
    /// It is too short for a header, or begins with another.
    #[error("not a model: its first bytes are not those of one")]
    Header,
    /// Of a version that is not known here.
    #[error("a model of version {0} of the format; this program reads version {VERSION}")]
    Version(u8),
    /// Written in a way that is not known here.
    #[error("a model in format {0}, which is none of 0 (f32), 1 (f16), 2 (int8)")]
    Format(u8),
    /// Of another shape.
    #[error("a model of {found} parameters where {expected} are expected")]
    Parameters {
        /// Of the model that is trained here.
        expected: usize,
        /// Announced.
        found: usize,
    },
    /// Longer or shorter than its header says.
    #[error("a model of {found} bytes where its header announces {expected}")]
    Length {
        /// By the header.
        expected: usize,
        /// Of the body.
        found: usize,
    },
    /// A parameter that is NaN or infinite.
    #[error("parameter {0} of the model is not a finite number")]
    NotFinite(usize),
}

/// Writes models in one format, and carries over what it rounds off.
#[derive(Debug, Clone, Default)]
pub struct Encoder {
    format: Format,
    /// What was rounded off so far; empty before the first model and with [`Format::F32`].
    residual: Vec<f32>,
}

impl Encoder {
    /// For this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, residual: Vec::new() }
    }

    /// What it has rounded off so far.
    #[must_use]
    pub fn residual(&self) -> &[f32] {
        &self.residual
    }

    /// Goes on from what an encoder of the same format had rounded off.
    pub fn restore(&mut self, residual: Vec<f32>) {
        self.residual = residual;
    }

    /// Whether there is anything to round off.
    #[must_use]
    pub fn rounds(&self) -> bool {
        self.format != Format::F32
    }

    /// A message with these parameters, as near as the format allows with what earlier ones left over.
    #[must_use]
    pub fn encode(&mut self, parameters: &[f32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.format.bytes(parameters.len()));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.format.tag(), 0, 0]);
        out.extend_from_slice(&u32::try_from(parameters.len()).unwrap_or(u32::MAX).to_le_bytes());
        if self.format == Format::F32 {
            parameters.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
            return out;
        }
        self.residual.resize(parameters.len(), 0.0);
        for (values, residual) in parameters.chunks(BLOCK).zip(self.residual.chunks_mut(BLOCK)) {
            let wanted: Vec<f32> =
                values.iter().zip(residual.iter()).map(|(v, r)| finite_or(v + r, *v)).collect();
            let sent = match self.format {
                Format::Int8 => put_int8(&mut out, &wanted),
                _ => put_f16(&mut out, &wanted),
            };
            for ((residual, wanted), sent) in residual.iter_mut().zip(&wanted).zip(&sent) {
                // A bad model must not spoil those that come after it.
                *residual = finite_or(wanted - sent, 0.0);
            }
        }
        out
    }
}

fn finite_or(value: f32, other: f32) -> f32 {
    if value.is_finite() { value } else { other }
}

fn put_f16(out: &mut Vec<u8>, values: &[f32]) -> Vec<f32> {
    let round = |value: &f32| {
        // What is too large for binary16 becomes its largest, not an infinity that the receiver would refuse; what was one stays one.
        let near = if value.is_finite() { value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()) } else { *value };
        let rounded = f16::from_f32(near);
        out.extend_from_slice(&rounded.to_le_bytes());
        rounded.to_f32()
    };
    values.iter().map(round).collect()
}

fn put_int8(out: &mut Vec<u8>, values: &[f32]) -> Vec<f32> {
    // A byte cannot say that a value is not finite, the scale can. `max` alone would pass over a NaN.
    let wider = |largest: f32, value: &f32| largest.max(finite_or(value.abs(), f32::INFINITY));
    let largest = values.iter().fold(0.0, wider);
    let scale = if largest.is_finite() { largest / 127.0 } else { f32::NAN };
    out.extend_from_slice(&scale.to_le_bytes());
    let round = |value: &f32| {
        let steps = if scale > 0.0 { (value / scale).round().clamp(-127.0, 127.0) } else { 0.0 };
        out.extend_from_slice(&(steps as i8).to_le_bytes());
        scale * steps
    };
    values.iter().map(round).collect()
}

/// Reads a message that must hold `expected` parameters, all finite.
///
/// # Errors
/// [`WireError`].
pub fn decode(message: &[u8], expected: usize) -> Result<Vec<f32>, WireError> {
    let (format, found, body) = open(message)?;
    if found != expected {
        return Err(WireError::Parameters { expected, found });
    }
    if message.len() != format.bytes(expected) {
        return Err(WireError::Length { expected: format.bytes(expected), found: message.len() });
    }
    let values: Vec<f32> = match format {
        Format::F32 => body.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Format::F16 => {
            body.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
        }
        Format::Int8 => body.chunks(4 + BLOCK).flat_map(int8).collect(),
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(WireError::NotFinite(index)),
        None => Ok(values),
    }
}

/// Whether a message is in this format and as long as its own header says, whatever its parameters are.
#[must_use]
pub fn is_whole(message: &[u8], format: Format) -> bool {
    open(message).is_ok_and(|(of, parameters, _)| of == format && message.len() == format.bytes(parameters))
}

/// The format, the number of parameters, and the bytes that should hold them.
fn open(message: &[u8]) -> Result<(Format, usize, &[u8]), WireError> {
    let (header, body) = message.split_at_checked(HEADER_BYTES).ok_or(WireError::Header)?;
    if header[..4] != MAGIC || header[6..8] != [0, 0] {
        return Err(WireError::Header);
    }
    if header[4] != VERSION {
        return Err(WireError::Version(header[4]));
    }
    let format = Format::of(header[5]).ok_or(WireError::Format(header[5]))?;
    let parameters = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    Ok((format, parameters, body))
}

fn int8(block: &[u8]) -> Vec<f32> {
    let Some((scale, steps)) = block.split_first_chunk::<4>() else { return Vec::new() };
    let scale = f32::from_le_bytes(*scale);
    steps.iter().map(|step| scale * f32::from(i8::from_le_bytes([*step]))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [Format; 3] = [Format::F32, Format::F16, Format::Int8];

    fn model(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 700.0).collect()
    }

    #[test]
    fn each_format_keeps_what_it_can_and_is_as_long_as_it_says() {
        let parameters = model(2500);
        for (format, error_max) in FORMATS.into_iter().zip([0.0, 5e-5, 3e-4]) {
            let message = Encoder::new(format).encode(&parameters);
            assert_eq!(message.len(), format.bytes(2500));
            let back = decode(&message, 2500).unwrap();
            let error = back.iter().zip(&parameters).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error <= error_max, "{format:?}: {error}");
        }
    }

    #[test]
    fn what_is_rounded_off_comes_with_the_next_models() {
        // One large value per block makes the step 1/127; small values vanish unless they are carried over.
        let mut parameters = vec![0.001_f32; 64];
        parameters[0] = 1.0;
        for format in [Format::F16, Format::Int8] {
            let mut encoder = Encoder::new(format);
            let mut sum = vec![0.0_f64; 64];
            for _ in 0..200 {
                let back = decode(&encoder.encode(&parameters), 64).unwrap();
                sum.iter_mut().zip(back).for_each(|(sum, value)| *sum += f64::from(value));
            }
            // 200 models of 0.001 are 0.2; without feedback int8 would have brought nothing.
            assert!(sum[1..].iter().all(|sum| (sum - 0.2).abs() < 0.01), "{format:?}: {}", sum[1]);
        }
    }

    #[test]
    fn what_is_no_model_is_refused() {
        let good = Encoder::new(Format::F32).encode(&model(10));
        let refuse = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut message = good.clone();
            change(&mut message);
            decode(&message, 10).unwrap_err()
        };
        assert_eq!(refuse(&|m| m.truncate(11)), WireError::Header);
        assert_eq!(refuse(&|m| m[0] = 0), WireError::Header);
        assert_eq!(refuse(&|m| m[4] = 2), WireError::Version(2));
        assert_eq!(refuse(&|m| m[5] = 3), WireError::Format(3));
        assert_eq!(refuse(&|m| m[8] = 11), WireError::Parameters { expected: 10, found: 11 });
        assert!(matches!(refuse(&|m| m.push(0)), WireError::Length { .. }));
        let nan = refuse(&|m| m[12 + 12..12 + 16].copy_from_slice(&f32::NAN.to_le_bytes()));
        assert_eq!(nan, WireError::NotFinite(3));
        let mut scaled = Encoder::new(Format::Int8).encode(&model(10));
        scaled[12..16].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert!(matches!(decode(&scaled, 10), Err(WireError::NotFinite(_))));
    }

    #[test]
    fn a_message_is_whole_when_it_is_as_long_as_it_says_and_in_the_format() {
        for format in FORMATS {
            let message = Encoder::new(format).encode(&model(2500));
            assert_eq!(FORMATS.map(|other| is_whole(&message, other)), FORMATS.map(|other| other == format));
            assert!(!is_whole(&message[..message.len() - 1], format));
            assert!(!is_whole(&[&message[..], &[0]].concat(), format));
        }
        assert!(!is_whole(b"DTWM", Format::F32));
    }

    #[test]
    fn a_value_too_large_for_f16_stays_finite() {
        let back = decode(&Encoder::new(Format::F16).encode(&[1e6, -1e6]), 2).unwrap();
        assert_eq!(back, [65504.0, -65504.0]);
    }

    #[test]
    fn a_model_that_is_not_finite_is_refused_and_the_next_one_is_as_it_was() {
        let good = model(3000);
        for format in FORMATS {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut encoder = Encoder::new(format);
                let mut spoilt = good.clone();
                spoilt[2000] = bad;
                let refused = decode(&encoder.encode(&spoilt), 3000);
                assert!(matches!(refused, Err(WireError::NotFinite(_))), "{format:?}, {bad}: {refused:?}");
                assert!(encoder.residual().iter().all(|value| value.is_finite()), "{format:?}, {bad}");
                let back = decode(&encoder.encode(&good), 3000).unwrap();
                let error = back.iter().zip(&good).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(error <= 6e-4, "{format:?}, {bad}: {error}");
            }
        }
    }

    #[test]
    fn what_is_left_over_of_huge_values_does_not_grow_beyond_all_numbers() {
        let mut encoder = Encoder::new(Format::F16);
        for _ in 0..3 {
            assert_eq!(decode(&encoder.encode(&[f32::MAX, 1.0]), 2).unwrap(), [65504.0, 1.0]);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), expected in 0usize..60) {
            let _ = decode(&bytes, expected);
        }

        #[test]
        fn any_model_comes_back(values in proptest::collection::vec(-10.0f32..10.0, 0..3000)) {
            for format in FORMATS {
                let back = decode(&Encoder::new(format).encode(&values), values.len()).unwrap();
                prop_assert!(back.iter().zip(&values).all(|(a, b)| (a - b).abs() <= 0.05));
            }
        }
    }
}
