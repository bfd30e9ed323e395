//! How a file writes numbers: plain, or in quantised blocks.

use half::{bf16, f16};
use stepscope_kernels::DType;

use super::quantized;

/// How the numbers of a stored tensor are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    /// One number after the other.
    Plain(DType),
    /// 32 signed bytes with a scale.
    Q8_0,
    /// 32 nibbles, -8 to 7, with a scale.
    Q4_0,
    /// 32 nibbles with a scale and a minimum.
    Q4_1,
    /// 256 nibbles in eight groups, whose scales and minimums have six bits.
    Q4K,
    /// 256 six-bit numbers, -32 to 31, in sixteen groups, whose scales have eight bits.
    Q6K,
}

impl Encoding {
    /// Numbers that are written together.
    pub(crate) const fn block_len(self) -> usize {
        match self {
            Encoding::Plain(_) => 1,
            Encoding::Q8_0 | Encoding::Q4_0 | Encoding::Q4_1 => 32,
            Encoding::Q4K | Encoding::Q6K => 256,
        }
    }

    /// Bytes that such a block takes.
    pub(crate) const fn block_bytes(self) -> usize {
        match self {
            Encoding::Plain(dtype) => dtype.size(),
            Encoding::Q8_0 => quantized::Q8_0_BYTES,
            Encoding::Q4_0 => quantized::Q4_0_BYTES,
            Encoding::Q4_1 => quantized::Q4_1_BYTES,
            Encoding::Q4K => quantized::Q4_K_BYTES,
            Encoding::Q6K => quantized::Q6_K_BYTES,
        }
    }

    /// Bytes of `len` numbers, which must be whole blocks; `None` where they are not or would not fit into memory.
    pub(crate) fn bytes_of(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Reads whole blocks from `raw` into `out`, as many as both hold.
    pub(crate) fn decode(self, raw: &[u8], out: &mut [f32]) {
        match self {
            Encoding::Plain(DType::F32) => {
                for (out, raw) in out.iter_mut().zip(raw.as_chunks().0) {
                    *out = f32::from_le_bytes(*raw);
                }
            }
            Encoding::Plain(DType::F16) => {
                for (out, raw) in out.iter_mut().zip(raw.as_chunks().0) {
                    *out = f16::from_le_bytes(*raw).to_f32();
                }
            }
            Encoding::Plain(DType::BF16) => {
                for (out, raw) in out.iter_mut().zip(raw.as_chunks().0) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(*raw)) << 16);
                }
            }
            Encoding::Q8_0 => by_block(raw, out, quantized::q8_0),
            Encoding::Q4_0 => by_block(raw, out, quantized::q4_0),
            Encoding::Q4_1 => by_block(raw, out, quantized::q4_1),
            Encoding::Q4K => by_block(raw, out, quantized::q4_k),
            Encoding::Q6K => by_block(raw, out, quantized::q6_k),
        }
    }
}

fn by_block<const BYTES: usize, const LEN: usize>(
    raw: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (raw, out) in raw.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(raw, out);
    }
}

/// A number as a weight is held.
pub(crate) trait Element: Copy + Default + Send + Sync {
    /// Rounds to nearest even.
    fn narrow(values: &[f32], out: &mut [Self]);
}

impl Element for f32 {
    fn narrow(values: &[f32], out: &mut [f32]) {
        out.copy_from_slice(values);
    }
}

impl Element for f16 {
    fn narrow(values: &[f32], out: &mut [f16]) {
        for (out, &value) in out.iter_mut().zip(values) {
            *out = f16::from_f32(value);
        }
    }
}

impl Element for bf16 {
    fn narrow(values: &[f32], out: &mut [bf16]) {
        for (out, &value) in out.iter_mut().zip(values) {
            *out = bf16::from_f32(value);
        }
    }
}
