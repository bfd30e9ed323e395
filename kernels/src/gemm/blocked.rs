//! Many rows of `x`: weights are converted and rearranged once per block, and used from the caches.
//!
//! ```text
//!   a task: rows of x  x  columns of out (rows of the weight)
//!     for each block of up to 320 of k:
//!       pack   weight [columns, block]  ->  panels [columns / 16][block][16] in float32   (second-level cache)
//!       for each 6 rows of x:                                                             (first-level cache)
//!         for each panel: one tile, 6 x 16 of out
//! ```
//!
//! `x` needs no packing: the 6 rows of a block are 7.5 KB, and a tile reads an element of each at a time.

use crate::CpuMatrix;
use crate::cpu::{self, Op, Shared, Simd, TILE_COLS, TILE_ROWS, Tile, ZEROES, pack_rows, run_tile};

use super::Weight;

/// Most columns of `k` in a block.
const BLOCK_K: usize = 320;
/// Most columns of `out` in a task: with [`BLOCK_K`], 160 KB of panels, a third of the second-level cache of Zen 3.
const BLOCK_N: usize = 128;
/// Fewest rows of `x` in a task. Packing a weight costs about as much as 12 multiply-adds with it.
const LEAST_BLOCK_M: usize = 96;

/// How a product is cut into tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Rows of `x` of a task, a multiple of the tile's.
    rows: usize,
    /// Columns of `out` of a task, a multiple of the tile's.
    cols: usize,
}

/// Tasks for `[m, n]` on `threads`: the largest whose count is still four for each thread, since threads take
/// tasks as they finish others, and the last one decides.
fn plan(m: usize, n: usize, threads: usize) -> Plan {
    let panels = n.div_ceil(TILE_COLS);
    let wanted = 4 * threads;
    // Columns first: narrower tasks repeat no packing.
    let col_tasks = n.div_ceil(BLOCK_N).max(wanted.min(panels)).max(1);
    let cols = panels.div_ceil(col_tasks).max(1) * TILE_COLS;
    let col_tasks = n.div_ceil(cols).max(1);
    let row_tasks = wanted
        .div_ceil(col_tasks)
        .clamp(1, (m / LEAST_BLOCK_M).max(1));
    let rows = m.div_ceil(TILE_ROWS).div_ceil(row_tasks).max(1) * TILE_ROWS;
    Plan { rows, cols }
}

pub(super) fn run<T: Weight>(
    x: &[f32],
    m: usize,
    weight: &CpuMatrix,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let (n, k) = (weight.rows(), weight.cols());
    let level = cpu::level();
    let plan = plan(m, n, cpu::threads());
    let row_tasks = m.div_ceil(plan.rows);
    let out = Shared::new(out);
    cpu::parallel(row_tasks * n.div_ceil(plan.cols), |task| {
        let (row, col) = (task % row_tasks * plan.rows, task / row_tasks * plan.cols);
        let block_k = k
            .div_ceil(k.div_ceil(BLOCK_K).max(1))
            .next_multiple_of(16)
            .min(k);
        cpu::with_scratch(plan.cols * block_k, |panels| {
            level.run(Block::<T> {
                x,
                weight,
                bias,
                out,
                rows: row..m.min(row + plan.rows),
                cols: col..n.min(col + plan.cols),
                block_k,
                panels,
                element: std::marker::PhantomData,
            });
        });
    });
}

/// `rows` x `cols` of the product.
struct Block<'a, T> {
    x: &'a [f32],
    weight: &'a CpuMatrix,
    bias: Option<&'a [f32]>,
    out: Shared<'a, f32>,
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
    block_k: usize,
    panels: &'a mut [f32],
    element: std::marker::PhantomData<T>,
}

impl<T: Weight> Op for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let k = self.weight.cols();
        let mut from = 0;
        // A product over no terms is still its bias.
        loop {
            let depth = self.block_k.min(k - from);
            for (i, panel) in self
                .panels
                .chunks_mut((TILE_COLS * depth).max(1))
                .enumerate()
            {
                let col = self.cols.start + i * TILE_COLS;
                if depth == 0 || col >= self.cols.end {
                    break;
                }
                let rows: [*const T; TILE_COLS] = T::rows(self.weight, col, self.cols.end);
                let rows = rows.map(|r| if r.is_null() { r } else { r.wrapping_add(from) });
                // SAFETY: each row holds `k` weights, of which `depth` from `from` on.
                unsafe { pack_rows(s, &rows, depth, panel) };
            }
            for row in self.rows.clone().step_by(TILE_ROWS) {
                let count = TILE_ROWS.min(self.rows.end - row);
                for (i, col) in self.cols.clone().step_by(TILE_COLS).enumerate() {
                    // SAFETY: the rows and columns are this task's; the panel was packed above.
                    unsafe { self.tile(s, row, count, col, from, depth, i * TILE_COLS * depth) };
                }
            }
            from += depth;
            if from >= k {
                break;
            }
        }
    }
}

impl<T: Weight> Block<'_, T> {
    /// Adds terms `from .. from + depth` to `count` rows of 16 columns.
    ///
    /// # Safety
    /// `count` rows from `row` on belong to this task, and the panel at `panel` holds the weights of `col`.
    #[allow(clippy::too_many_arguments)] // the position of one tile in three dimensions
    #[inline(always)]
    unsafe fn tile<S: Simd>(
        &self,
        s: S,
        row: usize,
        count: usize,
        col: usize,
        from: usize,
        depth: usize,
        panel: usize,
    ) {
        let (n, k) = (self.weight.rows(), self.weight.cols());
        let width = TILE_COLS.min(self.cols.end - col);
        // SAFETY: `row` and `col` lie in this task's part of `out`, and `row` in `x`; the panel holds `16 * depth`.
        unsafe {
            let out = self.out.as_ptr().add(row * n + col);
            let mut tile = Tile {
                a: self.x.as_ptr().add(row * k + from),
                a_stride: k,
                b: self.panels.as_ptr().add(panel),
                b_stride: TILE_COLS,
                init: ZEROES.as_ptr(),
                init_stride: 0,
                c: out,
                c_stride: n,
                k: depth,
            };
            if width == TILE_COLS {
                if from > 0 {
                    (tile.init, tile.init_stride) = (out, n);
                } else if let Some(bias) = self.bias {
                    tile.init = bias[col..col + TILE_COLS].as_ptr();
                }
                run_tile(s, count, &tile);
                return;
            }
            // The last columns go through a copy that has all 16.
            let mut copy = [0.0_f32; TILE_ROWS * TILE_COLS];
            for i in 0..count {
                let copy = &mut copy[i * TILE_COLS..][..width];
                if from > 0 {
                    copy.copy_from_slice(std::slice::from_raw_parts(out.add(i * n), width));
                } else if let Some(bias) = self.bias {
                    copy.copy_from_slice(&bias[col..col + width]);
                }
            }
            (tile.init, tile.init_stride) = (copy.as_ptr(), TILE_COLS);
            (tile.c, tile.c_stride) = (copy.as_mut_ptr(), TILE_COLS);
            run_tile(s, count, &tile);
            for i in 0..count {
                std::ptr::copy_nonoverlapping(
                    copy[i * TILE_COLS..].as_ptr(),
                    out.add(i * n),
                    width,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_use_all_threads_and_stay_in_the_cache() {
        for m in [13, 64, 100, 512, 2000] {
            for n in [1, 16, 576, 960, 3072, 49152] {
                for threads in [1, 2, 16, 64] {
                    let Plan { rows, cols } = plan(m, n, threads);
                    assert!(
                        rows % TILE_ROWS == 0
                            && cols % TILE_COLS == 0
                            && cols <= BLOCK_N.next_multiple_of(TILE_COLS)
                    );
                    let tasks = m.div_ceil(rows) * n.div_ceil(cols);
                    let most = m.div_ceil(TILE_ROWS) * n.div_ceil(TILE_COLS);
                    assert!(
                        tasks >= threads.min(most / 32),
                        "{m} x {n} on {threads}: {tasks} tasks"
                    );
                }
            }
        }
        assert_eq!(
            plan(512, 576, 2),
            Plan {
                rows: 516,
                cols: 80
            }
        );
        assert_eq!(
            plan(512, 3072, 2),
            Plan {
                rows: 516,
                cols: 128
            }
        );
    }
}
