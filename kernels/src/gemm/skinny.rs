//! Few rows of `x`: every weight row is streamed once, for all of them.
//!
//! ```text
//!   weight rows r .. r + 4     row r      ------------------------->  k      the next four are prefetched, in order
//!                              row r + 3  ------------------------->
//!   x rows (in cache)          2 at a time: 8 sums of 8 lanes
//! ```
//!
//! Four weight rows share the loads of `x`. When `x` has more than two rows, the four are read again from the first-level
//! cache, where they just came to.

use crate::CpuMatrix;
use crate::cpu::{self, DOT_ROWS, DOT_STEP, Op, Shared, Simd, arrange, dots};

use super::Weight;

/// What a task reads: 30 tasks for the smallest matrix of a 135M model, so that a thread which lost its core
/// for a moment delays the rest little; long enough that taking a task (20 ns) does not count.
const TASK_BYTES: usize = 48 << 10;
/// Products smaller than this stay on the calling thread: waking the team costs about a microsecond, in which one
/// thread reads this much.
const INLINE_BYTES: usize = 16 << 10;

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
    let padded = k.next_multiple_of(DOT_STEP);
    cpu::with_scratch(m * padded, |scratch| {
        for (x, arranged) in x
            .chunks_exact(k.max(1))
            .zip(scratch.chunks_exact_mut(padded.max(1)))
        {
            arrange::<T>(x, 1.0, arranged);
        }
        let x = &*scratch;
        let out = Shared::new(out);
        let row_bytes = k.max(1) * size_of::<T>();
        let rows_of = |bytes: usize| (bytes / row_bytes).max(1).next_multiple_of(DOT_ROWS);
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
            let mut rows: [*const T; DOT_ROWS] = T::rows(self.weight, row, self.end);
            let count = DOT_ROWS.min(self.end - row);
            // The last block may have fewer: it computes its first row more than once.
            for i in count..DOT_ROWS {
                rows[i] = rows[0];
            }
            let next = if row + 2 * DOT_ROWS <= self.end {
                rows[0].wrapping_add(DOT_ROWS * self.k)
            } else {
                std::ptr::null()
            };
            let mut i = 0;
            while i < self.m {
                let next = if i == 0 { next } else { std::ptr::null() };
                // SAFETY: the rows hold `k` weights each, and `x` has one or two rows more.
                unsafe {
                    if i + 1 < self.m {
                        self.block::<S, 2>(s, &rows, row, count, i, next);
                    } else {
                        self.block::<S, 1>(s, &rows, row, count, i, next);
                    }
                }
                i += 2;
            }
            row += DOT_ROWS;
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
        rows: &[*const T; DOT_ROWS],
        row: usize,
        count: usize,
        i: usize,
        next: *const T,
    ) {
        let x = self.x[i * self.padded..(i + M) * self.padded].as_ptr();
        // SAFETY: the rows are the caller's; `x` holds `M` rows of `padded`.
        let sums = unsafe { dots::<S, T, M>(s, rows, self.k, x, self.padded, next) };
        for (j, sums) in sums.iter().enumerate() {
            let n = self.weight.rows();
            let at = (i + j) * n + row;
            // SAFETY: this task alone writes columns `first .. end`.
            let out = unsafe { self.out.slice(at..at + count) };
            for (r, out) in out.iter_mut().enumerate() {
                *out = sums[r] + self.bias.map_or(0.0, |b| b[row + r]);
            }
        }
    }
}
