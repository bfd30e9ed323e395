//! Dot products of stored rows with float32 rows: the inner loop of what reads each weight or key once.

use super::element::Element;
use super::simd::Simd;

/// Stored rows that share the loads of the float32 rows.
pub(crate) const DOT_ROWS: usize = 4;
/// Elements of a step; the float32 rows are filled up to a multiple of it.
pub(crate) const DOT_STEP: usize = 16;

/// Copies a row in the order in which `T` loads its elements, filled up with zeroes to `arranged`'s length, a multiple of
/// [`DOT_STEP`]. `scale` multiplies every element.
pub(crate) fn arrange<T: Element>(x: &[f32], scale: f32, arranged: &mut [f32]) {
    let (steps, tail) = x.as_chunks::<DOT_STEP>();
    let (to, _) = arranged.as_chunks_mut::<DOT_STEP>();
    for (to, from) in to.iter_mut().zip(steps) {
        for (lane, to) in to.iter_mut().enumerate() {
            *to = from[T::element_of_lane(lane)] * scale;
        }
    }
    if !tail.is_empty() {
        for (lane, to) in to[steps.len()].iter_mut().enumerate() {
            *to = tail
                .get(T::element_of_lane(lane))
                .map_or(0.0, |x| x * scale);
        }
    }
}

/// Products of four stored rows of `k` elements with `M` arranged rows, 1 or 2: `[j][r]` is that of row `j` of `x` with
/// `rows[r]`. If `next` is not null, what lies there, `4 * k` elements, is fetched into the cache meanwhile.
///
/// Reading four rows side by side shares the loads of `x`, but memory gives its best to addresses in order: on Zen 3, with rows
/// of 576 to 4864 bfloat16, one core gets 11 GB/s of 16 to 18 with each row prefetched on its own, and 14 to 16 when the
/// prefetches run through the next four rows in order. With two rows of `x` it is still 14 to 15, with three 12.5.
///
/// # Safety
/// Each stored row is valid for reads of `k` elements; `x` for `M` rows of `k` rounded up to [`DOT_STEP`], `stride` apart.
#[inline(always)]
pub(crate) unsafe fn dots<S: Simd, T: Element, const M: usize>(
    s: S,
    rows: &[*const T; DOT_ROWS],
    k: usize,
    x: *const f32,
    stride: usize,
    next: *const T,
) -> [[f32; DOT_ROWS]; M] {
    const { assert!(M == 1 || M == 2) };
    let mut sums = [[s.splat(0.0); DOT_ROWS]; M];
    let whole = k / DOT_STEP * DOT_STEP;
    // SAFETY: below `whole` the rows hold 16 elements more, and `x` holds them for each of its `M` rows; what is left is copied.
    unsafe {
        if next.is_null() {
            for p in (0..whole).step_by(DOT_STEP) {
                step(s, &mut sums, rows.map(|row| row.add(p)), x.add(p), stride);
            }
        } else {
            for p in (0..whole).step_by(DOT_STEP) {
                let ahead = next.wrapping_add(p * DOT_ROWS).cast::<u8>();
                for line in (0..DOT_ROWS * DOT_STEP * size_of::<T>()).step_by(64) {
                    s.prefetch(ahead.wrapping_add(line));
                }
                step(s, &mut sums, rows.map(|row| row.add(p)), x.add(p), stride);
            }
        }
        if whole < k {
            let mut copies = [[T::zeroed(); DOT_STEP]; DOT_ROWS];
            for (copy, row) in copies.iter_mut().zip(rows) {
                std::ptr::copy_nonoverlapping(row.add(whole), copy.as_mut_ptr(), k - whole);
            }
            step(
                s,
                &mut sums,
                std::array::from_fn(|r| copies[r].as_ptr()),
                x.add(whole),
                stride,
            );
        }
    }
    let (v, w) = (
        sums[0],
        if M == 2 {
            sums[M - 1]
        } else {
            [s.splat(0.0); DOT_ROWS]
        },
    );
    let totals = s.to_array(s.sum_each([v[0], v[1], v[2], v[3], w[0], w[1], w[2], w[3]]));
    std::array::from_fn(|j| std::array::from_fn(|r| totals[j * DOT_ROWS + r]))
}

/// Adds the products of 16 elements.
///
/// # Safety
/// Each row is valid for reads of 16 elements; `x` for 16 in each of `M` rows, `stride` apart.
#[inline(always)]
unsafe fn step<S: Simd, T: Element, const M: usize>(
    s: S,
    sums: &mut [[S::F; DOT_ROWS]; M],
    rows: [*const T; DOT_ROWS],
    x: *const f32,
    stride: usize,
) {
    for (r, row) in rows.into_iter().enumerate() {
        // SAFETY: the caller's.
        let (a, b) = unsafe { T::load_16(s, row) };
        for (j, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's.
            let (x0, x1) = unsafe {
                let x = x.add(j * stride);
                (s.load(x), s.load(x.add(8)))
            };
            sums[r] = s.fma(b, x1, s.fma(a, x0, sums[r]));
        }
    }
}
