//! Philox4x32-10, the counter-based random number generator of Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3" (SC 2011), which PyTorch and cuRAND use on GPUs.
//!
//! Block `c` of the stream with key `k` is a pure function of both, so that any thread makes any part of the stream.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The four 32-bit words at `counter` of the stream with key `seed`.
pub fn philox4x32_10(counter: [u32; 4], seed: u64) -> [u32; 4] {
    let mut c = counter;
    let mut key = [seed as u32, (seed >> 32) as u32];
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let a = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [
            (b >> 32) as u32 ^ c[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ c[3] ^ key[1],
            a as u32,
        ];
    }
    c
}

/// Blocks that [`blocks`] makes at once.
pub(crate) const BLOCKS: usize = 8;

/// Word `w` of block `first + i` at `[w][i]`: eight blocks side by side, which the compiler keeps in vectors.
#[inline(always)]
pub(crate) fn blocks(first: u64, seed: u64) -> [[u32; BLOCKS]; 4] {
    let counter: [u64; BLOCKS] = std::array::from_fn(|i| first + i as u64);
    let mut c = [
        counter.map(|c| c as u32),
        counter.map(|c| (c >> 32) as u32),
        [0; BLOCKS],
        [0; BLOCKS],
    ];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..ROUNDS {
        let a = c[0].map(|c| u64::from(MULTIPLIERS[0]) * u64::from(c));
        let b = c[2].map(|c| u64::from(MULTIPLIERS[1]) * u64::from(c));
        c = [
            std::array::from_fn(|i| (b[i] >> 32) as u32 ^ c[1][i] ^ key[0]),
            b.map(|b| b as u32),
            std::array::from_fn(|i| (a[i] >> 32) as u32 ^ c[3][i] ^ key[1]),
            a.map(|a| a as u32),
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c
}

/// A number in `[0, 1)` with 24 random bits, each of which a float32 can hold.
pub fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// A number in `[0, 1)` with 53 random bits.
pub fn unit_f64(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    bits as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// `len` numbers in [-1, 1), the same for the same seed.
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    (0..len.div_ceil(4))
        .flat_map(|i| philox4x32_10([i as u32, 0, 0, 0], seed))
        .take(len)
        .map(|word| unit_f32(word) * 2.0 - 1.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123's `kat_vectors`.
    #[test]
    fn known_answers() {
        let check = |counter, seed, expected| assert_eq!(philox4x32_10(counter, seed), expected);
        check(
            [0; 4],
            0,
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
        );
        check(
            [u32::MAX; 4],
            u64::MAX,
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        );
        check(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            0x299f_31d0_a409_3822,
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        );
    }

    #[test]
    fn blocks_side_by_side_are_those_of_the_stream() {
        for first in [0, 5, u64::from(u32::MAX) - 3] {
            let words = blocks(first, 0x1234_5678_9abc_def0);
            for i in 0..BLOCKS {
                let counter = first + i as u64;
                let block = philox4x32_10(
                    [counter as u32, (counter >> 32) as u32, 0, 0],
                    0x1234_5678_9abc_def0,
                );
                assert_eq!(words.map(|w| w[i]), block);
            }
        }
    }

    #[test]
    fn units_stay_below_one() {
        assert_eq!((unit_f32(0), unit_f64(0, 0)), (0.0, 0.0));
        assert!(unit_f32(u32::MAX) < 1.0 && unit_f64(u32::MAX, u32::MAX) < 1.0);
    }
}
