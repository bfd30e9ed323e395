//! Few rows of `x`: every weight row is streamed once, for all of them.
//!
//! ```text
//!   weight rows r .. r + 4     row r      ------------------------->  k      prefetched a block ahead
//!                              row r + 3  ------------------------->
//!   x rows (in cache)          1, 2 or 3 at a time; 4 x 3 sums of 8 lanes fill 12 of 16 registers
//! ```
//!
//! Four rows of weights at a time share the loads of `x`. When `x` has more than three rows, the four weight rows are read
//! again from the first-level cache, where they just came to.

use crate::CpuMatrix;
use crate::cpu::{self, Op, Shared, Simd};

use super::Weight;

/// Weight rows that share the loads of `x`.
const ROWS: usize = 4;
/// Elements of a step.
const STEP: usize = 16;
/// What a task reads: 30 tasks for the smallest matrix of a 135M model, so that a thread which lost its core
/// for a moment delays the rest little; long enough that taking a task (20 ns) does not count.
const TASK_BYTES: usize = 48 << 10;
/// Products smaller than this stay on the calling thread: waking the team costs about a microsecond, in which one
/// thread reads this much.
const INLINE_BYTES: usize = 16 << 10;
/// How far ahead weights are fetched.
const PREFETCH_BYTES: usize = 8 << 10;

pub(super) fn run<T: Weight>(
    x: &[f32],
    m: usize,
    weight: &CpuMatrix,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let (n, k) = (weight.rows(), weight.cols());
    if m == 0 || n == 0 {
        return;
    }
    let level = cpu::level();
    let padded = k.next_multiple_of(STEP);
    cpu::with_scratch(m * padded, |scratch| {
        arrange::<T>(x, k, padded, scratch);
        let x = &*scratch;
        let out = Shared::new(out);
        let row_bytes = k.max(1) * size_of::<T>();
        let rows_of = |bytes: usize| (bytes / row_bytes).max(1).next_multiple_of(ROWS);
        let rows_per_task = if n * row_bytes <= INLINE_BYTES {
            n
        } else {
            rows_of(TASK_BYTES)
        };
        cpu::parallel(n.div_ceil(rows_per_task), |task| {
            let first = task * rows_per_task;
            level.run(Rows::<T> {
                x,
                m,
                k,
                padded,
                weight,
                first,
                end: n.min(first + rows_per_task),
                bias,
                out,
                element: std::marker::PhantomData,
            });
        });
    });
}

/// Copies the rows of `x` in the order in which `T` loads its elements, filled up with zeroes.
fn arrange<T: Weight>(x: &[f32], k: usize, padded: usize, arranged: &mut [f32]) {
    if k == 0 {
        return;
    }
    for (x, arranged) in x.chunks_exact(k).zip(arranged.chunks_exact_mut(padded)) {
        let (steps, tail) = x.as_chunks::<STEP>();
        let (to, _) = arranged.as_chunks_mut::<STEP>();
        for (to, from) in to.iter_mut().zip(steps) {
            for (lane, to) in to.iter_mut().enumerate() {
                *to = from[T::element_of_lane(lane)];
            }
        }
        if !tail.is_empty() {
            for (lane, to) in to[steps.len()].iter_mut().enumerate() {
                *to = tail.get(T::element_of_lane(lane)).copied().unwrap_or(0.0);
            }
        }
    }
}

/// Columns `first .. end` of the product.
struct Rows<'a, T> {
    x: &'a [f32],
    m: usize,
    k: usize,
    padded: usize,
    weight: &'a CpuMatrix,
    first: usize,
    end: usize,
    bias: Option<&'a [f32]>,
    out: Shared<'a, f32>,
    element: std::marker::PhantomData<T>,
}

impl<T: Weight> Op for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut row = self.first;
        while row < self.end {
            let mut rows: [*const T; ROWS] = T::rows(self.weight, row, self.end);
            let count = ROWS.min(self.end - row);
            // The last block may have fewer: it computes its first row more than once.
            for i in count..ROWS {
                rows[i] = rows[0];
            }
            let mut i = 0;
            while i < self.m {
                // Three rows of x at a time, but 2 + 2 rather than 3 + 1.
                let many = match self.m - i {
                    1 => 1,
                    2 | 4 => 2,
                    _ => 3,
                };
                // SAFETY: the rows hold `k` weights each, and `many` rows of `x` are left.
                unsafe {
                    match many {
                        1 => self.block::<S, 1>(s, &rows, row, count, i),
                        2 => self.block::<S, 2>(s, &rows, row, count, i),
                        _ => self.block::<S, 3>(s, &rows, row, count, i),
                    }
                }
                i += many;
            }
            row += ROWS;
        }
    }
}

impl<T: Weight> Rows<'_, T> {
    /// `count` columns from `row` on, for `M` rows of `x` from `i` on.
    ///
    /// # Safety
    /// The pointers are valid for `k` elements, and `x` has `M` rows from `i` on.
    #[inline(always)]
    unsafe fn block<S: Simd, const M: usize>(
        &self,
        s: S,
        rows: &[*const T; ROWS],
        row: usize,
        count: usize,
        i: usize,
    ) {
        debug_assert!((i + M) * self.padded <= self.x.len());
        // With one row of x, even and odd steps keep sums of their own: 4 chains would leave the units waiting.
        let mut sums = [[s.splat(0.0); ROWS]; M];
        let mut odd_sums = [s.splat(0.0); ROWS];
        // SAFETY: `x` holds `M` rows from `i` on.
        let x = unsafe { self.x.as_ptr().add(i * self.padded) };
        let steps = self.k / STEP;
        let ahead = PREFETCH_BYTES.min(ROWS * self.k * size_of::<T>());
        // SAFETY: step `p < steps` reads elements below `k` of each row, and below `padded` of `x`; the last reads a copy.
        unsafe {
            for p in 0..steps {
                for (r, &row) in rows.iter().enumerate() {
                    let w = row.add(p * STEP);
                    if i == 0 {
                        s.prefetch(w.cast::<u8>().wrapping_add(ahead));
                    }
                    let (a, b) = T::load_16(s, w);
                    for j in 0..M {
                        let x = x.add(j * self.padded + p * STEP);
                        sums[j][r] = s.fma(a, s.load(x), sums[j][r]);
                        let odd = if M == 1 {
                            &mut odd_sums[r]
                        } else {
                            &mut sums[j][r]
                        };
                        *odd = s.fma(b, s.load(x.add(8)), *odd);
                    }
                }
            }
            if steps * STEP < self.k {
                for (r, &row) in rows.iter().enumerate() {
                    let mut copy = [T::zeroed(); STEP];
                    std::ptr::copy_nonoverlapping(
                        row.add(steps * STEP),
                        copy.as_mut_ptr(),
                        self.k - steps * STEP,
                    );
                    let (a, b) = T::load_16(s, copy.as_ptr());
                    for j in 0..M {
                        let x = x.add(j * self.padded + steps * STEP);
                        sums[j][r] = s.fma(a, s.load(x), sums[j][r]);
                        sums[j][r] = s.fma(b, s.load(x.add(8)), sums[j][r]);
                    }
                }
            }
        }
        for j in 0..M {
            let v = sums[j];
            let zero = s.splat(0.0);
            let o = if M == 1 { odd_sums } else { [zero; ROWS] };
            let totals = s.to_array(s.sum_each([v[0], v[1], v[2], v[3], o[0], o[1], o[2], o[3]]));
            let n = self.weight.rows();
            let at = (i + j) * n + row;
            // SAFETY: this task alone writes columns `first .. end`.
            let out = unsafe { self.out.slice(at..at + count) };
            for (r, out) in out.iter_mut().enumerate() {
                *out = totals[r] + totals[r + 4] + self.bias.map_or(0.0, |b| b[row + r]);
            }
        }
    }
}
