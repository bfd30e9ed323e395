//! Integer matrix products.

use super::eight::Eight;
use super::fragment::{self, Accumulators, Columns, Rows};

/// The even and the odd bytes of words, as halves.
#[inline(always)]
fn halves<E: Eight>(words: &[u32; 8], is_signed: bool) -> [[i32; 8]; 2] {
    let words = E::load_words(words);
    let [even, odd] = if is_signed {
        let even = E::sar_halves::<8>(E::shl_halves::<8>(words));
        [even, E::sar_halves::<8>(words)]
    } else {
        let even = E::and(words, E::splat_halves(0xff));
        [even, E::shr_halves::<8>(words)]
    };
    [bytemuck::cast(even), bytemuck::cast(odd)]
}

/// `d = a × b + c`. Words of K that are zero do no harm.
#[inline(always)]
pub(super) fn multiply<E: Eight>(
    saturate: bool,
    (a, a_signed): (&Rows, bool),
    (b, b_signed): (&Columns, bool),
    c: &Accumulators<'_>,
    d: &mut [[u32; 32]],
) {
    let b: [_; 8] = std::array::from_fn(|w| halves::<E>(&b[w], b_signed));
    for (row, a) in a.iter().enumerate() {
        let [even, odd] = halves::<E>(a, a_signed);
        let mut sums = E::splat(0);
        for w in 0..8 {
            let [b_even, b_odd] = &b[w];
            sums = E::add(sums, E::dot_halves(E::splat(even[w]), E::load(b_even)));
            sums = E::add(sums, E::dot_halves(E::splat(odd[w]), E::load(b_odd)));
        }
        let mut values = fragment::row::<E>(c, row);
        if saturate {
            let (c, sums): ([i32; 8], [i32; 8]) = (bytemuck::cast(values), bytemuck::cast(sums));
            let sums: [i32; 8] = std::array::from_fn(|i| c[i].saturating_add(sums[i]));
            values = E::load(&sums);
        } else {
            values = E::add(values, sums);
        }
        fragment::store_row::<E>(d, row, values);
    }
}
