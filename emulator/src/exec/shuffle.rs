//! Rows of four words against columns: how vectors of a lane each become registers of many lanes, and back.

use crate::memory::cells::Quad;

/// A function of vectors: with the processor's instructions where it is of the x86-64 family, all of which have SSE2.
macro_rules! shuffle {
    (
        $(#[$meta:meta])*
        fn $name:ident($($arg:ident),*) -> $result:ty { $vectors:block else $words:expr }
    ) => {
        $(#[$meta])*
        #[inline(always)]
        pub(super) fn $name($($arg: Quad),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            {
                #[allow(clippy::wildcard_imports, reason = "names of instructions")]
                use std::arch::x86_64::*;
                $(let $arg: __m128i = bytemuck::cast($arg);)*
                // SAFETY: every x86-64 processor has SSE2.
                bytemuck::cast(unsafe { $vectors })
            }
            #[cfg(not(target_arch = "x86_64"))]
            $words
        }
    };
}

shuffle! {
    /// The columns of four rows.
    fn columns(a, b, c, d) -> [Quad; 4] {
        {
            let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
            [
                _mm_unpacklo_epi64(ab, cd),
                _mm_unpackhi_epi64(ab, cd),
                _mm_unpacklo_epi64(ab_high, cd_high),
                _mm_unpackhi_epi64(ab_high, cd_high),
            ]
        } else [0, 1, 2, 3].map(|column| [a[column], b[column], c[column], d[column]])
    }
}

shuffle! {
    /// The first of every pair of words, and the second.
    fn unzip(a, b) -> [Quad; 2] {
        {
            let (a, b) = (_mm_castsi128_ps(a), _mm_castsi128_ps(b));
            [_mm_shuffle_ps::<0b10_00_10_00>(a, b), _mm_shuffle_ps::<0b11_01_11_01>(a, b)]
        } else [[a[0], a[2], b[0], b[2]], [a[1], a[3], b[1], b[3]]]
    }
}

shuffle! {
    /// Pairs of the words of both, in order.
    fn zip(a, b) -> [Quad; 2] {
        {
            [_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b)]
        } else [[a[0], b[0], a[1], b[1]], [a[2], b[2], a[3], b[3]]]
    }
}

shuffle! {
    /// As [`zip`], of halves of words.
    fn zip_halves_of_words(a, b) -> [Quad; 2] {
        {
            [_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b)]
        } else {
            let low = |i: usize| a[i] & 0xffff | b[i] << 16;
            let high = |i: usize| a[i] >> 16 | b[i] & 0xffff_0000;
            [[low(0), high(0), low(1), high(1)], [low(2), high(2), low(3), high(3)]]
        }
    }
}

shuffle! {
    /// The first halves of both, and the second ones.
    fn halves(a, b) -> [Quad; 2] {
        {
            [_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b)]
        } else [[a[0], a[1], b[0], b[1]], [a[2], a[3], b[2], b[3]]]
    }
}

/// Rows against columns.
#[inline(always)]
pub(super) fn transpose([a, b, c, d]: [Quad; 4]) -> [Quad; 4] {
    columns(a, b, c, d)
}

/// Rows against columns of eight by eight elements of 16 bits.
#[inline(always)]
pub(super) fn transpose_halves_of_words(rows: &[Quad; 8]) -> [Quad; 8] {
    let [a, e] = zip_halves_of_words(rows[0], rows[1]);
    let [b, f] = zip_halves_of_words(rows[2], rows[3]);
    let [c, g] = zip_halves_of_words(rows[4], rows[5]);
    let [d, h] = zip_halves_of_words(rows[6], rows[7]);
    bytemuck::cast([columns(a, b, c, d), columns(e, f, g, h)])
}

/// Four words as a vector. An array that is written word by word is read back as a vector only when it has reached the cache.
#[inline(always)]
pub(super) fn together(words: Quad) -> Quad {
    #[cfg(target_arch = "x86_64")]
    {
        let [a, b, c, d]: [i32; 4] = bytemuck::cast(words);
        // SAFETY: every x86-64 processor has SSE2.
        bytemuck::cast(unsafe { std::arch::x86_64::_mm_set_epi32(d, c, b, a) })
    }
    #[cfg(not(target_arch = "x86_64"))]
    words
}

/// As [`together`], of two pairs.
#[inline(always)]
pub(super) fn pairs_together(pairs: [u64; 2]) -> Quad {
    #[cfg(target_arch = "x86_64")]
    {
        let [a, b]: [i64; 2] = bytemuck::cast(pairs);
        // SAFETY: every x86-64 processor has SSE2.
        bytemuck::cast(unsafe { std::arch::x86_64::_mm_set_epi64x(b, a) })
    }
    #[cfg(not(target_arch = "x86_64"))]
    bytemuck::cast(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_where_the_names_say() {
        let [a, b, c, d] = [0, 10, 20, 30].map(|row| [row, row + 1, row + 2, row + 3]);
        let columns = [0, 1, 2, 3].map(|column| [column, 10 + column, 20 + column, 30 + column]);
        assert_eq!(transpose([a, b, c, d]), columns);
        assert_eq!(unzip(a, b), [[0, 2, 10, 12], [1, 3, 11, 13]]);
        assert_eq!(zip(a, b), [[0, 10, 1, 11], [2, 12, 3, 13]]);
        assert_eq!(halves(a, b), [[0, 1, 10, 11], [2, 3, 12, 13]]);
        let element = |row: usize, column: usize| (100 * row + column) as u16;
        let of = |element: &dyn Fn(usize, usize) -> u16| -> [Quad; 8] {
            bytemuck::cast(std::array::from_fn::<_, 64, _>(|i| element(i / 8, i % 8)))
        };
        let turned = transpose_halves_of_words(&of(&element));
        assert_eq!(turned, of(&|row, column| element(column, row)));
        assert_eq!(together(c), c);
        assert_eq!(pairs_together([1 | 2 << 32, 3 | 4 << 32]), [1, 2, 3, 4]);
    }
}
