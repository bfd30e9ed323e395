//! How a file writes numbers: plain, or in quantised blocks.

use half::slice::HalfFloatSliceExt;
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
                for (out, raw) in out.chunks_mut(64).zip(raw.chunks(2 * 64)) {
                    let mut halves = [f16::ZERO; 64];
                    for (half, raw) in halves.iter_mut().zip(raw.as_chunks().0) {
                        *half = f16::from_le_bytes(*raw);
                    }
                    halves[..out.len()].convert_to_f32_slice(out);
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
        out.convert_from_f32_slice(values);
    }
}

impl Element for bf16 {
    // Not `convert_from_f32_slice`: half's branch on NaN keeps the loop from being vectorised.
    fn narrow(values: &[f32], out: &mut [bf16]) {
        for (out, &value) in out.iter_mut().zip(values) {
            let bits = value.to_bits();
            let even = bits >> 16 & 1;
            let rounded = bits.wrapping_add(0x7fff + even) >> 16;
            let quiet = bits >> 16 | 0x40;
            let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
            *out = bf16::from_bits(if is_nan { quiet } else { rounded } as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_is_rounded_as_half_rounds_it() {
        let special = [
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-45,
        ];
        let signalling = [0x7f80_0001, 0xff80_0001, 0x7fff_ffff].map(f32::from_bits);
        let many =
            (0..1 << 20).map(|i: u32| f32::from_bits(i.wrapping_mul(0x1001).wrapping_add(0x7000)));
        let values: Vec<f32> = special.into_iter().chain(signalling).chain(many).collect();
        let mut found = vec![bf16::ZERO; values.len()];
        bf16::narrow(&values, &mut found);
        for (value, found) in values.iter().zip(found) {
            let expected = bf16::from_f32(*value);
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{value} ({:#x})",
                value.to_bits()
            );
        }
    }

    #[test]
    fn plain_numbers_come_back() {
        let numbers = [1.5, -2.25, 0.0, 1024.0, -0.000_976_562_5].repeat(50);
        let check = |dtype: DType, raw: Vec<u8>| {
            let mut found = vec![f32::NAN; numbers.len()];
            Encoding::Plain(dtype).decode(&raw, &mut found);
            assert_eq!(found, numbers, "{dtype}");
        };
        let bytes = |f: &dyn Fn(f32) -> Vec<u8>| numbers.iter().flat_map(|n| f(*n)).collect();
        check(DType::F32, bytes(&|n| n.to_le_bytes().to_vec()));
        check(
            DType::F16,
            bytes(&|n| f16::from_f32(n).to_le_bytes().to_vec()),
        );
        check(
            DType::BF16,
            bytes(&|n| bf16::from_f32(n).to_le_bytes().to_vec()),
        );
    }
}
