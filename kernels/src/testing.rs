//! What the tests of several operations need.

use crate::philox::{philox4x32_10, unit_f32};

/// `len` numbers in [-1, 1), the same for the same seed.
pub(crate) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    (0..len.div_ceil(4))
        .flat_map(|i| philox4x32_10([i as u32, 0, 0, 0], seed))
        .take(len)
        .map(|word| unit_f32(word) * 2.0 - 1.0)
        .collect()
}
