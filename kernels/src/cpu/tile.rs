//! The inner loop of every large matrix product here: GEMM, and both products of prefill attention.
//!
//! ```text
//!             b: k rows of 16
//!             +--------------+
//!             |   2 vectors  |        12 accumulators, 2 vectors of b and a broadcast element of a
//!             +--------------+        fill 15 of the 16 registers of AVX2.
//!  a: 6 rows  +--------------+
//!  of k       |  6 x 2 sums  |  c
//!             +--------------+
//! ```

use super::element::Element;
use super::simd::Simd;

/// Rows of a tile. 12 accumulators hide the latency of 2 multiply-adds a cycle, 4 cycles each.
pub(crate) const TILE_ROWS: usize = 6;
/// Columns of a tile: two vectors.
pub(crate) const TILE_COLS: usize = 16;

/// `c = init + a @ b` for up to 6 rows and 16 columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    /// `[rows, k]`, rows `a_stride` apart.
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    /// `[k, 16]`, rows `b_stride` apart.
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    /// `[rows, 16]`, rows `init_stride` apart, which may be 0; may be `c` itself.
    pub(crate) init: *const f32,
    pub(crate) init_stride: usize,
    /// `[rows, 16]`, rows `c_stride` apart.
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    pub(crate) k: usize,
}

/// Where a product without bias starts.
pub(crate) static ZEROES: [f32; TILE_COLS] = [0.0; TILE_COLS];

/// Computes a tile of `rows` from 1 to 6.
///
/// # Safety
/// The pointers of `t` are valid for the shapes that its fields document, with `rows` rows, and nobody else writes `c`.
#[inline(always)]
pub(crate) unsafe fn run_tile<S: Simd>(s: S, rows: usize, t: &Tile) {
    // SAFETY: the caller's, row by row.
    unsafe {
        match rows {
            6 => tile_of::<S, 6>(s, t),
            5 => tile_of::<S, 5>(s, t),
            4 => tile_of::<S, 4>(s, t),
            3 => tile_of::<S, 3>(s, t),
            2 => tile_of::<S, 2>(s, t),
            _ => tile_of::<S, 1>(s, t),
        }
    }
}

#[inline(always)]
unsafe fn tile_of<S: Simd, const ROWS: usize>(s: S, t: &Tile) {
    let mut sums = [[s.splat(0.0); 2]; ROWS];
    // SAFETY: `run_tile`'s caller gave valid pointers for `ROWS` rows.
    unsafe {
        for (i, sums) in sums.iter_mut().enumerate() {
            let init = t.init.add(i * t.init_stride);
            *sums = [s.load(init), s.load(init.add(8))];
        }
        let mut b = t.b;
        for p in 0..t.k {
            let columns = [s.load(b), s.load(b.add(8))];
            b = b.add(t.b_stride);
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = s.splat(*t.a.add(i * t.a_stride + p));
                sums[0] = s.fma(a, columns[0], sums[0]);
                sums[1] = s.fma(a, columns[1], sums[1]);
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let c = t.c.add(i * t.c_stride);
            s.store(c, sums[0]);
            s.store(c.add(8), sums[1]);
        }
    }
}

/// Sixteen rows of elements, `rows[i][0..k]` each, become `[k, 16]` float32: the `b` of a tile. Null rows give zeroes.
///
/// # Safety
/// Every row is null or valid for reads of `k` elements, and `panel` holds `16 * k`.
#[inline(always)]
pub(crate) unsafe fn pack_rows<S: Simd, T: Element>(
    s: S,
    rows: &[*const T; TILE_COLS],
    k: usize,
    panel: &mut [f32],
) {
    assert!(panel.len() >= k * TILE_COLS);
    let panel = panel.as_mut_ptr();
    let mut at = 0;
    while at < k {
        let count = (k - at).min(16);
        for side in 0..2 {
            let mut first = [s.splat(0.0); 8];
            let mut second = [s.splat(0.0); 8];
            for i in 0..8 {
                let row = rows[side * 8 + i];
                if row.is_null() {
                    continue;
                }
                // SAFETY: `at + count <= k` elements of the row are valid; the copy has 16.
                unsafe {
                    (first[i], second[i]) = if count == 16 {
                        T::load_16(s, row.add(at))
                    } else {
                        let mut copy = [T::zeroed(); 16];
                        std::ptr::copy_nonoverlapping(row.add(at), copy.as_mut_ptr(), count);
                        T::load_16(s, copy.as_ptr())
                    };
                }
            }
            let (first, second) = (s.transpose(first), s.transpose(second));
            for i in 0..8 {
                for (lane, vector) in [(i, first[i]), (8 + i, second[i])] {
                    let p = T::element_of_lane(lane);
                    if p < count {
                        // SAFETY: `at + p < k`, and `panel` holds 16 floats for each.
                        unsafe { s.store(panel.add((at + p) * TILE_COLS + side * 8), vector) };
                    }
                }
            }
        }
        at += 16;
    }
}
