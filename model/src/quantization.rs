//! Storage types of GGUF tensors and their values as `f32`.
//!
//! Block layouts: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>. The arithmetic is ggml's, operation
//! by operation in `f32`, so that the result is the same to the bit. Blocks are arrays and loops count, so that the
//! compiler makes SIMD of them wherever they are inlined into a kernel.

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantization {
    F32,
    F16,
    Bf16,
    /// 32 signed bytes and a scale.
    Q8_0,
    /// 32 nibbles around 8 and a scale.
    Q4_0,
    /// 32 nibbles, a scale and a minimum.
    Q4_1,
    /// 32 five-bit values around 16 and a scale.
    Q5_0,
    /// 32 five-bit values, a scale and a minimum.
    Q5_1,
    /// 16 sub-blocks of 16 two-bit values, each with a 4-bit scale and minimum.
    Q2K,
    /// 16 sub-blocks of 16 three-bit values, each with a 6-bit scale.
    Q3K,
    /// 8 sub-blocks of 32 nibbles, each with a 6-bit scale and minimum.
    Q4K,
    /// 8 sub-blocks of 32 five-bit values, each with a 6-bit scale and minimum.
    Q5K,
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
    /// The types that can be read, for messages.
    pub(crate) const SUPPORTED: &'static str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K";

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// A name for any type, known or not.
    pub(crate) fn describe(code: u32) -> String {
        let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
        name.map_or_else(|| format!("type {code}"), |name| (*name).to_owned())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Elements that are stored together.
    pub(crate) fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of as many elements, which are whole blocks.
    pub(crate) fn bytes_of(self, elements: usize) -> usize {
        elements / self.block_elements() * self.block_bytes()
    }

    /// Sets `out` to the values of as many whole blocks. What is left over on either side is left alone; callers leave
    /// nothing.
    #[inline(always)]
    pub(crate) fn widen(self, bytes: &[u8], out: &mut [f32]) {
        // A function that takes these as arguments would call them as they are compiled outside of kernels.
        macro_rules! each {
            ($widen:ident) => {
                for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                    $widen(block, out);
                }
            };
        }
        match self {
            Self::F32 => each!(f32),
            Self::F16 => each!(f16),
            Self::Bf16 => each!(bf16),
            Self::Q8_0 => each!(q8_0),
            Self::Q4_0 => each!(q4_0),
            Self::Q4_1 => each!(q4_1),
            Self::Q5_0 => each!(q5_0),
            Self::Q5_1 => each!(q5_1),
            Self::Q2K => each!(q2_k),
            Self::Q3K => each!(q3_k),
            Self::Q4K => each!(q4_k),
            Self::Q5K => each!(q5_k),
            Self::Q6K => each!(q6_k),
        }
    }
}

/// The IEEE 754 half at `at`, exactly, without asking at every block what the CPU can do.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes([block[at], block[at + 1]]));
    // 2^112 moves the exponent from a half's bias to that of f32, and subnormals to where they belong.
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
}

#[inline(always)]
fn signed(byte: u8) -> f32 {
    f32::from(byte.cast_signed())
}

#[inline(always)]
fn f32(bytes: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*bytes);
}

#[inline(always)]
fn f16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = half_at(bytes, 0);
}

#[inline(always)]
fn bf16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
}

/// `d: f16, qs: [i8; 32]`
#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for lane in 0..32 {
        out[lane] = signed(block[2 + lane]) * scale;
    }
}

/// Low nibbles are the first half of a block, high ones the second.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let mut quants = [0; 32];
    for lane in 0..16 {
        quants[lane] = bytes[lane] & 15;
        quants[16 + lane] = bytes[lane] >> 4;
    }
    // Unrolled together with what is made of it, this becomes a fifth as fast: no SIMD comes of it.
    std::hint::black_box(quants)
}

/// The fifth bits of 32 values, from four bytes, in their place.
#[inline(always)]
fn fifth_bits(bytes: &[u8]) -> [u8; 32] {
    let mut bits = [0; 32];
    for lane in 0..32 {
        bits[lane] = (bytes[lane / 8] >> (lane % 8) & 1) << 4;
    }
    bits
}

/// `d: f16, qs: [u8; 16]`
#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    let quants = nibbles(&block[2..18]);
    for lane in 0..32 {
        out[lane] = (f32::from(quants[lane]) - 8.0) * scale;
    }
}

/// `d: f16, m: f16, qs: [u8; 16]`
#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let quants = nibbles(&block[4..20]);
    for lane in 0..32 {
        out[lane] = f32::from(quants[lane]) * scale + minimum;
    }
}

/// `d: f16, qh: u32, qs: [u8; 16]`
#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    let (low, fifth) = (nibbles(&block[6..22]), fifth_bits(&block[2..6]));
    for lane in 0..32 {
        out[lane] = (f32::from(low[lane] | fifth[lane]) - 16.0) * scale;
    }
}

/// `d: f16, m: f16, qh: u32, qs: [u8; 16]`
#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (low, fifth) = (nibbles(&block[8..24]), fifth_bits(&block[4..8]));
    for lane in 0..32 {
        out[lane] = f32::from(low[lane] | fifth[lane]) * scale + minimum;
    }
}

/// `scales: [u8; 16], qs: [u8; 64], d: f16, dmin: f16`. Halves of 128 elements, each four runs of 32.
#[inline(always)]
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    for run in 0..8 {
        let mut quants = [0; 32];
        for lane in 0..32 {
            quants[lane] = block[16 + run / 4 * 32 + lane] >> (2 * (run % 4)) & 3;
        }
        let (first, second) = (block[2 * run], block[2 * run + 1]);
        for lane in 0..32 {
            let scales = if lane < 16 { first } else { second };
            let (d, m) = (scale * f32::from(scales & 15), minimum * f32::from(scales >> 4));
            out[run * 32 + lane] = d * f32::from(quants[lane]) - m;
        }
    }
}

/// `hmask: [u8; 32], qs: [u8; 64], scales: [u8; 12], d: f16`: as [`q2_k`], and a third bit, which is stored inverted.
#[inline(always)]
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let scale = half_at(block, 108);
    let scales = &block[96..108];
    for part in 0..16 {
        let (half, run, first) = (part / 8, part / 2 % 4, part % 2 * 16);
        // Six bits: low ones in nibbles of the first eight bytes, high ones in pairs of the last four.
        let low = scales[part % 8] >> (4 * (part / 8)) & 15;
        let high = scales[8 + part % 4] >> (2 * (part / 4)) & 3;
        let d = scale * (f32::from(low | high << 4) - 32.0);
        for lane in 0..16 {
            let low = block[32 + half * 32 + first + lane] >> (2 * run) & 3;
            let third = block[first + lane] >> (4 * half + run) & 1;
            out[part * 16 + lane] = d * (f32::from(low | third << 2) - 4.0);
        }
    }
}

/// `d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128]`
#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for part in 0..8 {
        let (d, m) = six_bit_scales(&block[4..16], part);
        let (d, m) = (scale * d, minimum * m);
        for lane in 0..32 {
            let quant = block[16 + part / 2 * 32 + lane] >> (4 * (part % 2)) & 15;
            out[part * 32 + lane] = d * f32::from(quant) - m;
        }
    }
}

/// `d: f16, dmin: f16, scales: [u8; 12], qh: [u8; 32], qs: [u8; 128]`
#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for part in 0..8 {
        let (d, m) = six_bit_scales(&block[4..16], part);
        let (d, m) = (scale * d, minimum * m);
        for lane in 0..32 {
            let low = block[48 + part / 2 * 32 + lane] >> (4 * (part % 2)) & 15;
            let fifth = block[16 + lane] >> part & 1;
            out[part * 32 + lane] = d * f32::from(low | fifth << 4) - m;
        }
    }
}

/// Scale and minimum of a sub-block: 6 bits each, the first four in the low bits of bytes 0-3 and 4-7, the others'
/// low nibbles in bytes 8-11 and their two high bits on top of the first four.
#[inline(always)]
fn six_bit_scales(scales: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = if index < 4 {
        (scales[index] & 63, scales[index + 4] & 63)
    } else {
        let low = scales[index + 4];
        ((low & 15) | ((scales[index - 4] >> 6) << 4), (low >> 4) | ((scales[index] >> 6) << 4))
    };
    (f32::from(scale), f32::from(minimum))
}

/// `ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16`
#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let scale = half_at(block, 208);
    // Halves of 128 elements, each four runs of 32.
    for run in 0..8 {
        let (half, within) = (run / 4, run % 4);
        let mut quants = [0; 32];
        for lane in 0..32 {
            let low = block[half * 64 + within % 2 * 32 + lane] >> (4 * (within / 2)) & 15;
            let high = block[128 + half * 32 + lane] >> (2 * within) & 3;
            quants[lane] = low | high << 4;
        }
        for part in 0..2 {
            let d = scale * signed(block[192 + 2 * run + part]);
            for lane in part * 16..part * 16 + 16 {
                out[run * 32 + lane] = d * (f32::from(quants[lane]) - 32.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_what_the_half_crate_says() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half_at(&bits.to_le_bytes(), 0), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#06x}");
        }
    }
}
