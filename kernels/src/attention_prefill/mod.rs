//! Causal attention of a ragged batch over the paged KV pool: `out = softmax(q kᵀ / sqrt(head_dim)) v`, head by head.
//!
//! Shapes: queries are the front of each row of `qkv` `[tokens, (heads + 2 * kv_heads) * head_dim]`; keys and values lie in the
//! pool, those of this step included; `out` is `[tokens, heads * head_dim]`. The `query_len` rows of a request are the last of
//! its `kv_len` positions, and each sees the positions up to its own. `heads / kv_heads` query heads share a key head (GQA).
//!
//! ```text
//!   a task: one request, one KV head, up to 96 rows = positions x the query heads of the group
//!     for each 128 positions of the cache, up to the last row's own:
//!       pack   keys -> panels [positions / 16][head_dim][16],  values -> [positions][head_dim], in float32
//!       for each 6 rows:
//!         scores  6 x 128 = q kᵀ                  tiles of 6 x 16, those past the diagonal left out
//!         weights = exp(scores - max so far)      rows before are scaled down where the max rose
//!         sums   += weights v                     tiles of 6 x 16
//!   out = sums / (sum of weights)
//! ```
//!
//! What bounds it: multiply-adds. 96 rows share each key and value, and the scores of 6 rows (3 KB) stay in the first-level
//! cache; the exponentials are one for every `2 * head_dim` multiply-adds.

pub(crate) mod launch;
#[cfg(test)]
pub(crate) mod testing;

use half::{bf16, f16};

use crate::cpu::paging::{self, Request};
use crate::cpu::{
    self, KvElement, Op, Shared, Simd, TILE_COLS, TILE_ROWS, Tile, ZEROES, exp, pack_rows,
    run_tile, widen,
};
use crate::{AttentionBatch, Cost, CpuKvPool, DType, Error, Kernel, QkvLayout};

/// Rows of a task, if the group of query heads divides it: enough that packing keys and values costs little.
const BLOCK_ROWS: usize = 192;
/// Positions whose keys and values are packed at once: with 96 rows of 64, 136 KB of the second-level cache.
const BLOCK_POSITIONS: usize = 256;

/// Attention of every query row over the positions that it sees.
///
/// # Errors
/// When `batch` does not fit the pool; see [`AttentionBatch`].
///
/// # Panics
/// When a slice is shorter than its shape.
pub fn reference(
    qkv: &[f32],
    layout: QkvLayout,
    batch: &AttentionBatch<'_, Vec<i32>>,
    kv: &CpuKvPool,
    layer: usize,
    out: &mut [f32],
) -> Result<Kernel, Error> {
    paging::check(batch, layout, kv)?;
    let qkv = &qkv[..batch.tokens * layout.width()];
    let out = &mut out[..batch.tokens * layout.q_width()];
    match kv.dtype() {
        DType::F32 => run::<f32>(qkv, layout, batch, kv.typed(layer), out),
        DType::F16 => run::<f16>(qkv, layout, batch, kv.typed(layer), out),
        DType::BF16 => run::<bf16>(qkv, layout, batch, kv.typed(layer), out),
    }
    Ok(cpu::level().pick("attention_prefill_avx2", "attention_prefill_portable"))
}

fn run<T: KvElement>(
    qkv: &[f32],
    layout: QkvLayout,
    batch: &AttentionBatch<'_, Vec<i32>>,
    (keys, values): (&[T], &[T]),
    out: &mut [f32],
) {
    let level = cpu::level();
    let group = layout.heads / layout.kv_heads;
    let block = (BLOCK_ROWS / group).clamp(1, 128);
    let longest = (0..batch.requests)
        .map(|r| paging::request(batch, r).query_len)
        .max()
        .unwrap_or(0);
    let blocks = longest.div_ceil(block);
    let out = Shared::new(out);
    let heads = batch.requests * layout.kv_heads;
    cpu::parallel(blocks * heads, |task| {
        // Late blocks see more positions: first the long tasks, so that no thread starts one last.
        let first = (blocks - 1 - task / heads) * block;
        let (r, kv_head) = (task % heads / layout.kv_heads, task % layout.kv_heads);
        let request = paging::request(batch, r);
        if first >= request.query_len {
            return;
        }
        let queries = block.min(request.query_len - first);
        let sizes = Sizes::new(queries * group, layout.head_dim);
        cpu::with_scratch(sizes.total(), |scratch| {
            level.run(Block {
                qkv,
                layout,
                batch,
                keys,
                values,
                out,
                r,
                request,
                kv_head,
                first,
                queries,
                sizes,
                scratch,
            });
        });
    });
}

/// The parts of a task's scratch memory, in floats.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    head_dim: usize,
    /// `head_dim` rounded up to whole tiles.
    padded: usize,
}

impl Sizes {
    fn new(rows: usize, head_dim: usize) -> Sizes {
        Sizes {
            rows,
            head_dim,
            padded: head_dim.next_multiple_of(TILE_COLS),
        }
    }

    fn parts(self) -> [usize; 6] {
        [
            // Queries, keys, values, scores, sums, and of each row the largest score and the sum of weights.
            (self.rows * self.head_dim).next_multiple_of(16),
            BLOCK_POSITIONS * self.head_dim,
            BLOCK_POSITIONS * self.padded,
            TILE_ROWS * BLOCK_POSITIONS,
            self.rows * self.padded,
            2 * self.rows,
        ]
    }

    fn total(self) -> usize {
        self.parts().iter().sum()
    }

    fn split(self, scratch: &mut [f32]) -> [&mut [f32]; 6] {
        let mut rest = scratch;
        self.parts().map(|len| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part
        })
    }
}

/// Query positions `first .. first + queries` of a request, for the heads of one group.
struct Block<'a, T> {
    qkv: &'a [f32],
    layout: QkvLayout,
    batch: &'a AttentionBatch<'a, Vec<i32>>,
    keys: &'a [T],
    values: &'a [T],
    out: Shared<'a, f32>,
    r: usize,
    request: Request,
    kv_head: usize,
    first: usize,
    queries: usize,
    sizes: Sizes,
    scratch: &'a mut [f32],
}

impl<T: KvElement> Op for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let Sizes {
            rows,
            head_dim,
            padded,
        } = self.sizes;
        let [q, keys, values, scores, sums, state] =
            self.sizes.split(std::mem::take(&mut self.scratch));
        let (highest, weight_sums) = state.split_at_mut(rows);
        self.gather_queries(q);
        sums.fill(0.0);
        highest.fill(f32::NEG_INFINITY);
        weight_sums.fill(0.0);

        let last_seen = self.seen(self.queries - 1);
        for from in (0..last_seen).step_by(BLOCK_POSITIONS) {
            let to = last_seen.min(from + BLOCK_POSITIONS);
            self.pack(s, from, to, keys, values);
            for row in (0..rows).step_by(TILE_ROWS) {
                let count = TILE_ROWS.min(rows - row);
                // The last row of the tile sees most.
                let seen = self
                    .seen_by_row(row + count - 1)
                    .min(to)
                    .saturating_sub(from);
                if seen == 0 {
                    continue;
                }
                let computed = seen.next_multiple_of(TILE_COLS);
                for col in (0..computed).step_by(TILE_COLS) {
                    let tile = Tile {
                        a: q[row * head_dim..].as_ptr(),
                        a_stride: head_dim,
                        b: keys[col * head_dim..].as_ptr(),
                        b_stride: TILE_COLS,
                        init: ZEROES.as_ptr(),
                        init_stride: 0,
                        c: scores[col..].as_mut_ptr(),
                        c_stride: BLOCK_POSITIONS,
                        k: head_dim,
                    };
                    // SAFETY: `q` has `count` rows from `row` on, `keys` a panel at `col`, `scores` 6 rows of 128.
                    unsafe { run_tile(s, count, &tile) };
                }
                for i in 0..count {
                    let scores = &mut scores[i * BLOCK_POSITIONS..][..computed];
                    let row = row + i;
                    let own = self.seen_by_row(row).min(to).saturating_sub(from);
                    scores[own..].fill(f32::NEG_INFINITY);
                    let (scale, sum) = softmax_step(s, scores, &mut highest[row]);
                    weight_sums[row] = weight_sums[row] * scale + sum;
                    if scale != 1.0 {
                        scale_all(s, &mut sums[row * padded..][..padded], scale);
                    }
                }
                for col in (0..padded).step_by(TILE_COLS) {
                    let sums = sums[row * padded + col..].as_mut_ptr();
                    let tile = Tile {
                        a: scores.as_ptr(),
                        a_stride: BLOCK_POSITIONS,
                        b: values[col..].as_ptr(),
                        b_stride: padded,
                        init: sums,
                        init_stride: padded,
                        c: sums,
                        c_stride: padded,
                        k: seen,
                    };
                    // SAFETY: `scores` has `count` rows, `values` has `seen` rows, `sums` has `count` rows from `row` on.
                    unsafe { run_tile(s, count, &tile) };
                }
            }
        }
        self.write(sums, weight_sums);
    }
}

impl<T: KvElement> Block<'_, T> {
    /// Positions that the query `i` of this block sees, its own the last.
    fn seen(&self, i: usize) -> usize {
        self.request.kv_len - self.request.query_len + self.first + i + 1
    }

    fn seen_by_row(&self, row: usize) -> usize {
        self.seen(row / (self.layout.heads / self.layout.kv_heads))
    }

    /// The head of row `row`, and its row in the buffers.
    fn place(&self, row: usize) -> (usize, usize) {
        let group = self.layout.heads / self.layout.kv_heads;
        let token = self.request.first_row + self.first + row / group;
        (self.kv_head * group + row % group, token)
    }

    /// The queries of all rows, one after the other, scaled.
    #[inline(always)]
    fn gather_queries(&self, q: &mut [f32]) {
        let d = self.layout.head_dim;
        let scale = 1.0 / (d as f32).sqrt();
        for (row, q) in q
            .chunks_exact_mut(d.max(1))
            .take(self.sizes.rows)
            .enumerate()
        {
            let (head, token) = self.place(row);
            let from = &self.qkv[token * self.layout.width() + head * d..][..d];
            for (q, x) in q.iter_mut().zip(from) {
                *q = x * scale;
            }
        }
    }

    /// Keys of positions `from .. to` into panels of 16, values into rows.
    #[inline(always)]
    fn pack<S: Simd>(&self, s: S, from: usize, to: usize, keys: &mut [f32], values: &mut [f32]) {
        let Sizes {
            head_dim, padded, ..
        } = self.sizes;
        for at in (from..to).step_by(TILE_COLS) {
            let count = TILE_COLS.min(to - at);
            let mut offsets = [0; TILE_COLS];
            paging::offsets(
                self.batch,
                self.layout,
                self.r,
                self.kv_head,
                at..at + count,
                &mut offsets,
            );
            let row = |stored: &[T], i: usize| stored[offsets[i]..][..head_dim].as_ptr();
            let rows = std::array::from_fn(|i| {
                if i < count {
                    row(self.keys, i)
                } else {
                    std::ptr::null()
                }
            });
            let panel = &mut keys[(at - from) * head_dim..][..TILE_COLS * head_dim];
            // SAFETY: each row holds `head_dim` elements, and the panel 16 of each.
            unsafe { pack_rows(s, &rows, head_dim, panel) };
            let values = values[(at - from) * padded..].chunks_exact_mut(padded);
            for (&offset, values) in offsets[..count].iter().zip(values) {
                let (values, filling) = values.split_at_mut(head_dim);
                widen(s, &self.values[offset..offset + head_dim], values);
                filling.fill(0.0);
            }
        }
    }

    fn write(&self, sums: &[f32], weight_sums: &[f32]) {
        let Sizes {
            head_dim, padded, ..
        } = self.sizes;
        for (row, (sums, weights)) in sums
            .chunks_exact(padded.max(1))
            .zip(weight_sums)
            .enumerate()
        {
            let (head, token) = self.place(row);
            let at = token * self.layout.q_width() + head * head_dim;
            // SAFETY: this task alone writes these heads of these tokens.
            let out = unsafe { self.out.slice(at..at + head_dim) };
            let scale = 1.0 / weights;
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum * scale;
            }
        }
    }
}

/// Turns `scores`, whole vectors of them, into `exp(score - max)`, where `max` is the largest score of the row so far. Returns
/// what the sums so far must be multiplied with, and the sum of the new weights.
#[inline(always)]
pub(crate) fn softmax_step<S: Simd>(s: S, scores: &mut [f32], highest: &mut f32) -> (f32, f32) {
    debug_assert!(scores.len().is_multiple_of(8));
    let mut max = s.splat(*highest);
    for chunk in scores.chunks_exact(8) {
        // SAFETY: a chunk holds eight.
        max = s.max(unsafe { s.load(chunk.as_ptr()) }, max);
    }
    let max = s.max_lane(max);
    let scale = if *highest == max {
        1.0
    } else {
        s.to_array(exp(s, s.splat(*highest - max)))[0]
    };
    *highest = max;
    let (max, mut sum) = (s.splat(max), s.splat(0.0));
    for chunk in scores.chunks_exact_mut(8) {
        // SAFETY: a chunk holds eight.
        unsafe {
            let weights = exp(s, s.sub(s.load(chunk.as_ptr()), max));
            sum = s.add(sum, weights);
            s.store(chunk.as_mut_ptr(), weights);
        }
    }
    (scale, s.sum(sum))
}

/// Multiplies every element; `values` is whole vectors.
#[inline(always)]
pub(crate) fn scale_all<S: Simd>(s: S, values: &mut [f32], scale: f32) {
    let scale = s.splat(scale);
    for chunk in values.chunks_exact_mut(8) {
        // SAFETY: a chunk holds eight.
        unsafe { s.store(chunk.as_mut_ptr(), s.mul(s.load(chunk.as_ptr()), scale)) };
    }
}

/// The work of requests of `(query_len, kv_len)`. A query row that sees `p` positions takes `4 * p * head_dim` operations for
/// each head: a multiply and an add for each element of key and value. Keys and values of a request cross memory once.
pub fn cost(requests: &[(usize, usize)], layout: QkvLayout, activation: DType, kv: DType) -> Cost {
    let mut cost = Cost::default();
    for &(query_len, kv_len) in requests {
        let (queries, positions) = (query_len as u64, kv_len as u64);
        // Query i of q sees kv_len - q + i + 1 positions.
        let pairs = queries * (positions - queries) + queries * (queries + 1) / 2;
        cost += Cost {
            flops: 4 * pairs * layout.q_width() as u64,
            weight_bytes: 0,
            kv_bytes: 2 * positions * layout.kv_width() as u64 * kv.size() as u64,
            activation_bytes: 2 * queries * layout.q_width() as u64 * activation.size() as u64,
        };
    }
    cost
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Attention, attentions};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_ragged_batch_is_right(problem in attentions(70)) {
            problem.check(reference);
        }
    }

    const LAYOUT: QkvLayout = QkvLayout {
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
    };

    #[test]
    fn lengths_at_the_edges_of_tiles_and_blocks() {
        for requests in [
            vec![(1, 1), (5, 5), (6, 6)],
            vec![(31, 127), (32, 128), (33, 129)],
            vec![(16, 16), (17, 17), (200, 200)],
            vec![(1, 257), (70, 600)],
        ] {
            let problem = Attention {
                layout: LAYOUT,
                requests,
                page_size: 16,
                dtype: DType::BF16,
                seed: 3,
                scale: 2.0,
            };
            problem.check(reference);
        }
    }

    #[test]
    fn a_row_that_only_sees_itself_returns_its_value() {
        let kv = CpuKvPool::new(1, 1, LAYOUT, DType::F32).unwrap();
        let batch = AttentionBatch {
            requests: 1,
            tokens: 1,
            max_query_len: 1,
            max_kv_len: 1,
            query_start: &vec![0, 1],
            kv_len: &vec![1],
            page_table: &vec![0],
            max_pages: 1,
            page_size: 1,
        };
        let mut out = [1.0; 9 * 64];
        reference(&[5.0; 15 * 64], LAYOUT, &batch, &kv, 0, &mut out).unwrap();
        assert_eq!(out, [0.0; 9 * 64]);
    }

    #[test]
    fn cost_counts_what_causal_rows_see() {
        // 3 queries behind 2 cached positions see 3, 4 and 5 positions: 12 pairs of 9 heads of 64.
        let expected = Cost {
            flops: 4 * 12 * 9 * 64,
            weight_bytes: 0,
            kv_bytes: 2 * 5 * 3 * 64 * 2,
            activation_bytes: 2 * 3 * 9 * 64 * 4,
        };
        let cost = |requests: &[_]| super::cost(requests, LAYOUT, DType::F32, DType::BF16);
        assert_eq!(cost(&[(3, 5)]), expected);
        assert_eq!(cost(&[(3, 5), (3, 5)]), expected + expected);
        // All of a prompt: half of the square, and the diagonal.
        assert_eq!(cost(&[(512, 512)]).flops, 4 * (512 * 513 / 2) * 9 * 64);
        assert_eq!(cost(&[]), Cost::default());
    }
}
