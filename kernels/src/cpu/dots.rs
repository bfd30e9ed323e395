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

/// Products of four stored rows of `k` elements with `M` arranged rows, from 1 to 3: `[j][r]` is that of row `j` of `x` with
/// `rows[r]`. While it reads a stored row, it prefetches `ahead` bytes further on, if that is not 0.
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
    ahead: usize,
) -> [[f32; DOT_ROWS]; M] {
    let zero = s.splat(0.0);
    let mut sums = [[zero; DOT_ROWS]; M];
    // With one row of x, even and odd halves of a step have sums of their own: 4 chains would leave the units waiting.
    let mut halves = [zero; DOT_ROWS];
    let whole = k / DOT_STEP * DOT_STEP;
    let mut p = 0;
    while p < k {
        for (r, &row) in rows.iter().enumerate() {
            let w = row.wrapping_add(p);
            if ahead > 0 {
                s.prefetch(w.cast::<u8>().wrapping_add(ahead));
            }
            // SAFETY: elements `p .. min(p + 16, k)` of the row are valid; a shorter step reads a copy of 16.
            let (a, b) = unsafe {
                if p < whole {
                    T::load_16(s, w)
                } else {
                    let mut copy = [T::zeroed(); DOT_STEP];
                    std::ptr::copy_nonoverlapping(w, copy.as_mut_ptr(), k - p);
                    T::load_16(s, copy.as_ptr())
                }
            };
            for j in 0..M {
                // SAFETY: `p + 16` is at most `k` rounded up, which `x` has in each of its `M` rows.
                let (x0, x1) = unsafe {
                    let x = x.add(j * stride + p);
                    (s.load(x), s.load(x.add(8)))
                };
                sums[j][r] = s.fma(a, x0, sums[j][r]);
                if M == 1 {
                    halves[r] = s.fma(b, x1, halves[r]);
                } else {
                    sums[j][r] = s.fma(b, x1, sums[j][r]);
                }
            }
        }
        p += DOT_STEP;
    }
    let mut out = [[0.0; DOT_ROWS]; M];
    for (out, v) in out.iter_mut().zip(&sums) {
        let h = &halves;
        let totals = s.to_array(s.sum_each([v[0], v[1], v[2], v[3], h[0], h[1], h[2], h[3]]));
        for (r, out) in out.iter_mut().enumerate() {
            *out = totals[r] + totals[r + 4];
        }
    }
    out
}
