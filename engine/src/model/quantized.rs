//! GGML's quantised blocks, back to numbers.
//!
//! Layouts are those of `ggml-common.h` (`block_q8_0` and so on), the order of multiplications that of ggml's
//! `dequantize_row_*`, so that results agree with theirs to the last bit. Scales are binary16, little endian.

use half::f16;

pub(crate) const Q8_0_BYTES: usize = 2 + 32;
pub(crate) const Q4_0_BYTES: usize = 2 + 16;
pub(crate) const Q4_1_BYTES: usize = 2 + 2 + 16;
pub(crate) const Q4_K_BYTES: usize = 2 + 2 + 12 + 128;
pub(crate) const Q6_K_BYTES: usize = 128 + 64 + 16 + 2;

/// `scale, q[32]`: `x = scale * q`.
pub(crate) fn q8_0(raw: &[u8; Q8_0_BYTES], out: &mut [f32; 32]) {
    let scale = half_at(raw, 0);
    for (out, &q) in out.iter_mut().zip(&raw[2..]) {
        *out = scale * f32::from(q as i8);
    }
}

/// `scale, nibbles[16]`: the low nibbles are the first half; `x = scale * (q - 8)`.
pub(crate) fn q4_0(raw: &[u8; Q4_0_BYTES], out: &mut [f32; 32]) {
    let scale = half_at(raw, 0);
    for (i, &pair) in raw[2..].iter().enumerate() {
        out[i] = scale * (f32::from(pair & 15) - 8.0);
        out[i + 16] = scale * (f32::from(pair >> 4) - 8.0);
    }
}

/// `scale, minimum, nibbles[16]`: the low nibbles are the first half; `x = scale * q + minimum`.
pub(crate) fn q4_1(raw: &[u8; Q4_1_BYTES], out: &mut [f32; 32]) {
    let (scale, minimum) = (half_at(raw, 0), half_at(raw, 2));
    for (i, &pair) in raw[4..].iter().enumerate() {
        out[i] = scale * f32::from(pair & 15) + minimum;
        out[i + 16] = scale * f32::from(pair >> 4) + minimum;
    }
}

/// `scale, minimum, packed[12], nibbles[128]`: eight groups of 32, whose own six-bit scales and minimums `packed`
/// holds ([`six_bits`]). Each run of 32 bytes holds two groups: low nibbles, then high ones. `x = scale * s * q -
/// minimum * m`.
pub(crate) fn q4_k(raw: &[u8; Q4_K_BYTES], out: &mut [f32; 256]) {
    let (scale, minimum) = (half_at(raw, 0), half_at(raw, 2));
    let (packed, nibbles) = raw[4..].split_at(12);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = six_bits(packed, group);
        let (s, m) = (scale * f32::from(s), minimum * f32::from(m));
        let shift = 4 * (group % 2);
        for (out, &pair) in out.iter_mut().zip(&nibbles[group / 2 * 32..]) {
            *out = s * f32::from(pair >> shift & 15) - m;
        }
    }
}

/// Scale and minimum of `group` (0 to 7). Bytes 0 to 3 hold the first four scales and 4 to 7 the first four minimums
/// in their low six bits; the others have their low four bits in bytes 8 to 11 (scale low, minimum high) and their
/// upper two in the upper two of bytes 0 to 7.
fn six_bits(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (
            low & 15 | packed[group - 4] >> 6 << 4,
            low >> 4 | packed[group] >> 6 << 4,
        )
    }
}

/// `low[128], high[64], scales[16], scale`: sixteen groups of 16 with signed scales; `x = scale * s * (q - 32)`. Each
/// half of 128 numbers has 64 bytes of low nibbles and 32 bytes of upper bit pairs: number `32 k + i` of it takes the
/// low (`k < 2`) or high nibble of byte `32 (k % 2) + i`, and the `k`-th bit pair of byte `i`.
pub(crate) fn q6_k(raw: &[u8; Q6_K_BYTES], out: &mut [f32; 256]) {
    let (low, rest) = raw.split_at(128);
    let (high, rest) = rest.split_at(64);
    let scale = half_at(raw, Q6_K_BYTES - 2);
    for (half, out) in out.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&low[64 * half..], &high[32 * half..]);
        for (k, out) in out.chunks_exact_mut(32).enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                let nibble = low[32 * (k % 2) + i] >> (4 * (k / 2)) & 15;
                let q = nibble | (high[i] >> (2 * k) & 3) << 4;
                let s = rest[8 * half + 2 * k + i / 16] as i8;
                *out = scale * f32::from(s) * (f32::from(q) - 32.0);
            }
        }
    }
}

fn half_at(raw: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([raw[at], raw[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::super::encoding::Encoding;

    /// `fixture` holds blocks and then their numbers by gguf-py (see `tests/fixtures/quantized/make.py`).
    fn check(encoding: Encoding, fixture: &[u8]) {
        let bytes_per_block = encoding.block_bytes() + 4 * encoding.block_len();
        assert!(fixture.len().is_multiple_of(bytes_per_block));
        let (blocks, numbers) =
            fixture.split_at(fixture.len() / bytes_per_block * encoding.block_bytes());
        let numbers: Vec<f32> = numbers
            .as_chunks()
            .0
            .iter()
            .map(|raw| f32::from_le_bytes(*raw))
            .collect();
        let mut found = vec![f32::NAN; numbers.len()];
        encoding.decode(blocks, &mut found);
        for (i, (found, expected)) in found.iter().zip(&numbers).enumerate() {
            assert_eq!(found, expected, "{encoding:?}, number {i}");
        }
    }

    #[test]
    fn blocks_hold_what_gguf_py_finds_in_them() {
        check(
            Encoding::Q8_0,
            include_bytes!("../../tests/fixtures/quantized/q8_0.bin"),
        );
        check(
            Encoding::Q4_0,
            include_bytes!("../../tests/fixtures/quantized/q4_0.bin"),
        );
        check(
            Encoding::Q4_1,
            include_bytes!("../../tests/fixtures/quantized/q4_1.bin"),
        );
        check(
            Encoding::Q4K,
            include_bytes!("../../tests/fixtures/quantized/q4_k.bin"),
        );
        check(
            Encoding::Q6K,
            include_bytes!("../../tests/fixtures/quantized/q6_k.bin"),
        );
    }
}
