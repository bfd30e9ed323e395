//! Attention of one query row per request over the paged KV pool: `out = softmax(q kᵀ / sqrt(head_dim)) v`, head by head.
//!
//! Shapes: queries are the front of each row of `qkv` `[requests, (heads + 2 * kv_heads) * head_dim]`; keys and values lie in the
//! pool, `kv_len` of them for each request; `out` is `[requests, heads * head_dim]`. `heads / kv_heads` query heads share a key
//! head (GQA).
//!
//! ```text
//!   a task: one request, one KV head, a part of its positions (all of them, unless tasks would be fewer than threads)
//!     for each 128 positions:
//!       scores  [group, 128] = q kᵀ              4 keys x 1 or 2 heads at a time, keys as they are stored
//!       weights = exp(scores - max so far)
//!       sums   += weights v                      16 columns x 1 to 3 heads at a time, values as they are stored
//!   the parts of a request are then merged by their largest scores
//! ```
//!
//! What bounds it: reading keys and values, each once for the whole group, and used for `4 * group` operations.

pub(crate) mod launch;
mod split;

pub(crate) use launch::variants;

use half::{bf16, f16};

use crate::attention_prefill::{self, scale_all, softmax_step};
use crate::cpu::paging;
use crate::cpu::{self, DOT_ROWS, DOT_STEP, KvElement, Op, Shared, Simd, arrange, dots};
use crate::{AttentionBatch, Cost, CpuKvPool, DType, Error, Kernel, QkvLayout};

/// Positions between two looks at the largest score.
const BLOCK_POSITIONS: usize = 128;
/// Positions that are worth a task of their own: 32 KB of keys and values of 64 in bfloat16.
const LEAST_PART: usize = 128;
/// Elements that a thread reads while another wakes up; attention over fewer stays on the calling thread.
const INLINE_ELEMENTS: usize = 16 << 10;

/// Attention of one query row per request over all its positions.
///
/// # Errors
/// When `batch` does not fit the pool, or a request has another number of query rows.
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
    for r in 0..batch.requests {
        let queries = paging::request(batch, r).query_len;
        if queries != 1 {
            return Err(Error::shape(format!(
                "request {r} of the batch: decode attention takes one query row, not {queries}"
            )));
        }
    }
    let qkv = &qkv[..batch.requests * layout.width()];
    let out = &mut out[..batch.requests * layout.q_width()];
    match kv.dtype() {
        DType::F32 => run::<f32>(qkv, layout, batch, kv.typed(layer), out),
        DType::F16 => run::<f16>(qkv, layout, batch, kv.typed(layer), out),
        DType::BF16 => run::<bf16>(qkv, layout, batch, kv.typed(layer), out),
    }
    Ok(cpu::level().pick("attention_decode_avx2", "attention_decode_portable"))
}

/// Into how many parts the positions of each request are cut, so that `heads` pairs of request and KV head keep `threads`
/// busy.
fn parts(heads: usize, longest: usize, threads: usize) -> usize {
    if threads == 1 || heads >= 2 * threads {
        return 1;
    }
    // Four tasks for each thread even out what a thread loses to its neighbours.
    (4 * threads)
        .div_ceil(heads.max(1))
        .min(longest / LEAST_PART)
        .max(1)
}

fn run<T: KvElement>(
    qkv: &[f32],
    layout: QkvLayout,
    batch: &AttentionBatch<'_, Vec<i32>>,
    (keys, values): (&[T], &[T]),
    out: &mut [f32],
) {
    let level = cpu::level();
    let lengths = (0..batch.requests).map(|r| paging::request(batch, r).kv_len);
    let (longest, total) = lengths.fold((0, 0), |(max, sum), len| (len.max(max), sum + len));
    let heads = batch.requests * layout.kv_heads;
    let parts = parts(heads, longest, cpu::threads());
    let group = layout.heads / layout.kv_heads;
    let sizes = Sizes::new(group, layout.head_dim);
    let out = Shared::new(out);
    // Of each part: its sums, largest scores and sums of weights.
    let partial = group * (sizes.padded + 2);
    cpu::with_scratch(heads * parts * partial, |partials| {
        let shared = Shared::new(partials);
        let task = |task: usize| {
            let (r, kv_head, part) = (
                task / parts / layout.kv_heads,
                task / parts % layout.kv_heads,
                task % parts,
            );
            let kv_len = paging::request(batch, r).kv_len;
            // SAFETY: each task writes its own part.
            let partial = unsafe { shared.slice(task * partial..(task + 1) * partial) };
            cpu::with_scratch(sizes.total(), |scratch| {
                level.run(Part {
                    qkv,
                    layout,
                    batch,
                    keys,
                    values,
                    r,
                    kv_head,
                    positions: part * kv_len / parts..(part + 1) * kv_len / parts,
                    sizes,
                    scratch,
                    partial: &mut *partial,
                });
            });
            if parts == 1 {
                // SAFETY: each task writes the heads of its own group.
                let out = unsafe { shared_heads(&out, layout, r, kv_head) };
                merge::<T>(partial, sizes, 1, out);
            }
        };
        if total * 2 * layout.kv_width() <= INLINE_ELEMENTS {
            (0..heads * parts).for_each(task);
        } else {
            cpu::parallel(heads * parts, task);
        }
        if parts > 1 {
            for (head, partials) in partials.chunks_exact(partial * parts).enumerate() {
                // SAFETY: all tasks are done, and nobody else writes `out`.
                let out = unsafe {
                    shared_heads(&out, layout, head / layout.kv_heads, head % layout.kv_heads)
                };
                merge::<T>(partials, sizes, parts, out);
            }
        }
    });
}

/// The outputs of a group of heads.
///
/// # Safety
/// Nobody else uses them while the result lives.
#[allow(clippy::mut_from_ref)] // as `Shared::slice`, which it calls
unsafe fn shared_heads<'a>(
    out: &'a Shared<'_, f32>,
    layout: QkvLayout,
    r: usize,
    kv_head: usize,
) -> &'a mut [f32] {
    let width = layout.heads / layout.kv_heads * layout.head_dim;
    let at = r * layout.q_width() + kv_head * width;
    // SAFETY: the caller's.
    unsafe { out.slice(at..at + width) }
}

/// The parts of a task's scratch memory, in floats.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    group: usize,
    head_dim: usize,
    /// `head_dim` rounded up to whole steps.
    padded: usize,
}

impl Sizes {
    fn new(group: usize, head_dim: usize) -> Sizes {
        Sizes {
            group,
            head_dim,
            padded: head_dim.next_multiple_of(DOT_STEP),
        }
    }

    /// Queries and scores.
    fn total(self) -> usize {
        self.group * (self.padded + BLOCK_POSITIONS)
    }
}

/// Some positions of one request, for the heads of one group.
struct Part<'a, T> {
    qkv: &'a [f32],
    layout: QkvLayout,
    batch: &'a AttentionBatch<'a, Vec<i32>>,
    keys: &'a [T],
    values: &'a [T],
    r: usize,
    kv_head: usize,
    positions: std::ops::Range<usize>,
    sizes: Sizes,
    scratch: &'a mut [f32],
    /// `[group, padded]` sums in the order of [`KvElement::load_16`], `[group]` largest scores, `[group]` sums of weights.
    partial: &'a mut [f32],
}

impl<T: KvElement> Op for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sizes {
            group,
            head_dim,
            padded,
        } = self.sizes;
        let (q, scores) = self.scratch.split_at_mut(group * padded);
        let (sums, state) = self.partial.split_at_mut(group * padded);
        let (highest, weight_sums) = state.split_at_mut(group);
        sums.fill(0.0);
        highest.fill(f32::NEG_INFINITY);
        weight_sums.fill(0.0);
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (i, q) in q.chunks_exact_mut(padded.max(1)).enumerate() {
            let at = self.r * self.layout.width() + (self.kv_head * group + i) * head_dim;
            arrange::<T>(&self.qkv[at..at + head_dim], scale, q);
        }

        for from in self.positions.clone().step_by(BLOCK_POSITIONS) {
            let positions = from..self.positions.end.min(from + BLOCK_POSITIONS);
            let count = positions.len();
            let mut offsets = [0; BLOCK_POSITIONS];
            paging::offsets(
                self.batch,
                self.layout,
                self.r,
                self.kv_head,
                positions,
                &mut offsets,
            );
            let offsets = &offsets[..count];
            for at in (0..count).step_by(DOT_ROWS) {
                let have = DOT_ROWS.min(count - at);
                // Of less than four the last comes again; what that gives is masked below.
                let rows = std::array::from_fn(|i| {
                    let offset = offsets[at + i.min(have - 1)];
                    self.keys[offset..offset + head_dim].as_ptr()
                });
                for &offset in &offsets[at..at + have] {
                    // Values are next, and no pattern of addresses tells the processor so.
                    let value = self.values.as_ptr().wrapping_add(offset).cast::<u8>();
                    for line in (0..head_dim * size_of::<T>()).step_by(64) {
                        s.prefetch(value.wrapping_add(line));
                    }
                }
                let mut head = 0;
                while head < group {
                    let many = (group - head).min(2);
                    let q = q[head * padded..(head + many) * padded].as_ptr();
                    let scores = &mut scores[head * BLOCK_POSITIONS + at..];
                    let none = std::ptr::null();
                    // SAFETY: the rows hold `head_dim` elements, `q` has `many` rows of `padded`.
                    unsafe {
                        if many == 2 {
                            put(scores, dots::<S, T, 2>(s, &rows, head_dim, q, padded, none));
                        } else {
                            put(scores, dots::<S, T, 1>(s, &rows, head_dim, q, padded, none));
                        }
                    }
                    head += many;
                }
            }
            for head in 0..group {
                let scores = &mut scores[head * BLOCK_POSITIONS..][..count.next_multiple_of(8)];
                scores[count..].fill(f32::NEG_INFINITY);
                let (scale, sum) = softmax_step(s, scores, &mut highest[head]);
                weight_sums[head] = weight_sums[head] * scale + sum;
                if scale != 1.0 {
                    scale_all(s, &mut sums[head * padded..][..padded], scale);
                }
            }
            let mut head = 0;
            while head < group {
                let many = (group - head).min(3);
                let weights = &scores[head * BLOCK_POSITIONS..];
                let sums = &mut sums[head * padded..(head + many) * padded];
                match many {
                    1 => add_values::<S, T, 1>(s, weights, self.values, offsets, self.sizes, sums),
                    2 => add_values::<S, T, 2>(s, weights, self.values, offsets, self.sizes, sums),
                    _ => add_values::<S, T, 3>(s, weights, self.values, offsets, self.sizes, sums),
                }
                head += many;
            }
        }
    }
}

/// The products of each row of `dots` to the front of its row of `scores`.
#[inline(always)]
fn put<const M: usize>(scores: &mut [f32], dots: [[f32; DOT_ROWS]; M]) {
    for (j, dots) in dots.iter().enumerate() {
        scores[j * BLOCK_POSITIONS..][..DOT_ROWS].copy_from_slice(dots);
    }
}

/// `sums[j] += sum over positions of weights[j] * value`, for `M` heads. At each of `offsets`, `values` holds a head.
#[inline(always)]
fn add_values<S: Simd, T: KvElement, const M: usize>(
    s: S,
    weights: &[f32],
    values: &[T],
    offsets: &[usize],
    sizes: Sizes,
    sums: &mut [f32],
) {
    let Sizes {
        head_dim, padded, ..
    } = sizes;
    let last = offsets.iter().max().map_or(0, |offset| offset + head_dim);
    assert!(last <= values.len());
    assert!(weights.len() >= (M - 1) * BLOCK_POSITIONS + offsets.len() && sums.len() >= M * padded);
    for col in (0..padded).step_by(DOT_STEP) {
        let whole = col + DOT_STEP <= head_dim;
        // SAFETY: all are as long as just checked; where less than 16 elements of a value are left, a copy is read.
        unsafe {
            let mut totals: [[S::F; 2]; M] = std::array::from_fn(|j| {
                let sums = sums.as_ptr().add(j * padded + col);
                [s.load(sums), s.load(sums.add(8))]
            });
            for (p, &offset) in offsets.iter().enumerate() {
                let value = values.as_ptr().add(offset);
                let (a, b) = if whole {
                    T::load_16(s, value.add(col))
                } else {
                    let mut copy = [T::zeroed(); DOT_STEP];
                    std::ptr::copy_nonoverlapping(
                        value.add(col),
                        copy.as_mut_ptr(),
                        head_dim - col,
                    );
                    T::load_16(s, copy.as_ptr())
                };
                for (j, totals) in totals.iter_mut().enumerate() {
                    let weight = s.splat(*weights.as_ptr().add(j * BLOCK_POSITIONS + p));
                    totals[0] = s.fma(weight, a, totals[0]);
                    totals[1] = s.fma(weight, b, totals[1]);
                }
            }
            for (j, totals) in totals.iter().enumerate() {
                let sums = sums.as_mut_ptr().add(j * padded + col);
                s.store(sums, totals[0]);
                s.store(sums.add(8), totals[1]);
            }
        }
    }
}

/// The output of a group of heads from the partial results of its parts.
fn merge<T: KvElement>(partials: &[f32], sizes: Sizes, parts: usize, out: &mut [f32]) {
    let Sizes {
        group,
        head_dim,
        padded,
    } = sizes;
    let partial = group * (padded + 2);
    let sums = |part: usize, head: usize| &partials[part * partial + head * padded..][..padded];
    let highest = |part: usize, head: usize| partials[part * partial + group * padded + head];
    let weight_sum =
        |part: usize, head: usize| partials[part * partial + group * padded + group + head];
    for (head, out) in out.chunks_exact_mut(head_dim.max(1)).enumerate() {
        let max = (0..parts)
            .map(|p| highest(p, head))
            .fold(f32::NEG_INFINITY, f32::max);
        let scale = |part: usize| {
            if highest(part, head) == max {
                1.0
            } else {
                (highest(part, head) - max).exp()
            }
        };
        let total: f32 = (0..parts).map(|p| scale(p) * weight_sum(p, head)).sum();
        out.fill(0.0);
        for part in 0..parts {
            let scale = scale(part) / total;
            for (step, sums) in sums(part, head)
                .as_chunks::<DOT_STEP>()
                .0
                .iter()
                .enumerate()
            {
                for (lane, sum) in sums.iter().enumerate() {
                    if let Some(out) = out.get_mut(step * DOT_STEP + T::element_of_lane(lane)) {
                        *out += sum * scale;
                    }
                }
            }
        }
    }
}

/// The work of one query row per request, of these numbers of positions: [`attention_prefill::cost`] of single rows.
pub fn cost(kv_lens: &[usize], layout: QkvLayout, activation: DType, kv: DType) -> Cost {
    kv_lens
        .iter()
        .map(|&len| attention_prefill::cost(&[(1, len)], layout, activation, kv))
        .fold(Cost::default(), |sum, cost| sum + cost)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Attention, attentions};

    const LAYOUT: QkvLayout = QkvLayout {
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn any_batch_is_right(problem in attentions(1)) {
            problem.check(reference);
        }
    }

    #[test]
    fn long_contexts_are_cut_into_parts() {
        for len in [127, 128, 129, 1000, 2049] {
            for requests in [vec![(1, len)], vec![(1, len), (1, 1)]] {
                let problem = Attention {
                    layout: QkvLayout {
                        heads: 3,
                        kv_heads: 1,
                        head_dim: 64,
                    },
                    requests,
                    page_size: 16,
                    dtype: DType::F16,
                    seed: 5,
                    scale: 3.0,
                };
                problem.check(reference);
            }
        }
    }

    #[test]
    fn parts_keep_threads_busy_but_stay_long() {
        let check = |heads, longest, threads, expected| {
            assert_eq!(parts(heads, longest, threads), expected)
        };
        check(3, 4096, 1, 1); // one thread
        check(3, 100, 2, 1); // too short
        check(3, 4096, 2, 3); // 9 tasks for 2 threads
        check(4, 4096, 2, 1); // tasks enough
        check(3, 300, 16, 2); // no part below 128
        check(8, 100_000, 64, 32);
    }

    #[test]
    fn more_than_one_query_is_refused() {
        let kv = CpuKvPool::new(1, 2, LAYOUT, DType::F32).unwrap();
        let batch = AttentionBatch {
            requests: 1,
            tokens: 2,
            max_query_len: 2,
            max_kv_len: 2,
            query_start: &vec![0, 2],
            kv_len: &vec![2],
            page_table: &vec![0, 1],
            max_pages: 2,
            page_size: 1,
        };
        let mut out = vec![0.0; 2 * LAYOUT.q_width()];
        let error = reference(
            &vec![0.0; 2 * LAYOUT.width()],
            LAYOUT,
            &batch,
            &kv,
            0,
            &mut out,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "request 0 of the batch: decode attention takes one query row, not 2"
        );
    }

    #[test]
    fn cost_is_that_of_single_rows() {
        // 7 and 2 positions: 4 * 9 * 14 * 64 operations; keys and values of 9 positions of 2 heads.
        let expected = Cost {
            flops: 4 * 9 * 14 * 64,
            weight_bytes: 0,
            kv_bytes: 2 * 9 * 2 * 64 * 2,
            activation_bytes: 2 * 2 * 14 * 64 * 4,
        };
        assert_eq!(cost(&[7, 2], LAYOUT, DType::F32, DType::F16), expected);
    }
}
