//! Storage types of GGUF tensors and their values as `f32`.
//!
//! Block layouts: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>. The arithmetic is ggml's, operation
//! by operation in `f32`, so that the result is the same to the bit.

use half::{bf16, f16};

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quantization {
    F32,
    F16,
    Bf16,
    /// 32 signed bytes and a scale.
    Q8_0,
    /// 32 nibbles around 8 and a scale.
    Q4_0,
    /// 32 nibbles, a scale and a minimum.
    Q4_1,
    /// 8 sub-blocks of 32 nibbles, each with a 6-bit scale and minimum.
    Q4K,
    /// 16 sub-blocks of 16 six-bit values, each with an 8-bit scale.
    Q6K,
}

/// Names of ggml's types by their numbers, for messages.
const NAMES: [&str; 31] = [
    "F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32",
    "I64", "F64", "IQ1_M", "BF16",
];

impl Quantization {
    /// The types that can be imported, for messages.
    pub(super) const SUPPORTED: &'static str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K";

    pub(super) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// A name for any type, known or not.
    pub(super) fn describe(code: u32) -> String {
        let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
        name.map_or_else(|| format!("type {code}"), |name| (*name).to_owned())
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Elements that are stored together.
    pub(super) fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub(super) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Appends the values of whole blocks. Bytes after the last whole block are ignored; callers pass none.
    pub(super) fn dequantize(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::F32 => out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Self::F16 => out.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
            Self::Bf16 => out.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
            Self::Q8_0 => bytes.as_chunks::<34>().0.iter().for_each(|block| q8_0(block, out)),
            Self::Q4_0 => bytes.as_chunks::<18>().0.iter().for_each(|block| q4_0(block, out)),
            Self::Q4_1 => bytes.as_chunks::<20>().0.iter().for_each(|block| q4_1(block, out)),
            Self::Q4K => bytes.as_chunks::<144>().0.iter().for_each(|block| q4_k(block, out)),
            Self::Q6K => bytes.as_chunks::<210>().0.iter().for_each(|block| q6_k(block, out)),
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn signed(byte: u8) -> f32 {
    f32::from(i8::from_le_bytes([byte]))
}

/// `d: f16, qs: [i8; 32]`
fn q8_0(block: &[u8; 34], out: &mut Vec<f32>) {
    let scale = half_at(block, 0);
    out.extend(block[2..].iter().map(|quant| signed(*quant) * scale));
}

/// `d: f16, qs: [u8; 16]`: low nibbles are the first half of the block, high ones the second.
fn q4_0(block: &[u8; 18], out: &mut Vec<f32>) {
    let scale = half_at(block, 0);
    let value = |nibble: u8| (f32::from(nibble) - 8.0) * scale;
    out.extend(block[2..].iter().map(|byte| value(byte & 15)));
    out.extend(block[2..].iter().map(|byte| value(byte >> 4)));
}

/// `d: f16, m: f16, qs: [u8; 16]`
fn q4_1(block: &[u8; 20], out: &mut Vec<f32>) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let value = |nibble: u8| f32::from(nibble) * scale + minimum;
    out.extend(block[4..].iter().map(|byte| value(byte & 15)));
    out.extend(block[4..].iter().map(|byte| value(byte >> 4)));
}

/// `d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128]`
fn q4_k(block: &[u8; 144], out: &mut Vec<f32>) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (pair, quants) in block[16..].chunks_exact(32).enumerate() {
        let (low_scale, low_minimum) = q4_k_scale(&block[4..16], 2 * pair);
        let (high_scale, high_minimum) = q4_k_scale(&block[4..16], 2 * pair + 1);
        let (d, m) = (scale * low_scale, minimum * low_minimum);
        out.extend(quants.iter().map(|byte| d * f32::from(byte & 15) - m));
        let (d, m) = (scale * high_scale, minimum * high_minimum);
        out.extend(quants.iter().map(|byte| d * f32::from(byte >> 4) - m));
    }
}

/// Scale and minimum of a sub-block: 6 bits each, the first four in the low bits of bytes 0-3 and 4-7, the others'
/// low nibbles in bytes 8-11 and their two high bits on top of the first four.
fn q4_k_scale(scales: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = if index < 4 {
        (scales[index] & 63, scales[index + 4] & 63)
    } else {
        let low = scales[index + 4];
        ((low & 15) | ((scales[index - 4] >> 6) << 4), (low >> 4) | ((scales[index] >> 6) << 4))
    };
    (f32::from(scale), f32::from(minimum))
}

/// `ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16`
fn q6_k(block: &[u8; 210], out: &mut Vec<f32>) {
    let scale = half_at(block, 208);
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    // Halves of 128 elements, each four runs of 32.
    for index in 0..256 {
        let (half, run, lane) = (index / 128, index / 32 % 4, index % 32);
        let byte = low[half * 64 + (run % 2) * 32 + lane];
        let nibble = if run < 2 { byte & 15 } else { byte >> 4 };
        let top = (high[half * 32 + lane] >> (2 * run)) & 3;
        let quant = f32::from(nibble | (top << 4)) - 32.0;
        out.push(scale * signed(scales[index / 16]) * quant);
    }
}
