//! Attention problems on the emulated device, for the tests of both CUDA attention kernels.

use crate::cuda::testing::{Emulated, rounded, widened};
use crate::cuda::{CudaBuffer, CudaIndices};
use crate::testing::{Attention, numbers};
use crate::{AttentionBatch, DType, QkvLayout};
use stepscope_device::driver::DevicePointer;

/// What no kernel may multiply: NaN in either type.
const POISON: u16 = 0xffff;

/// A problem in the device's memory, its slots scattered in pools that are NaN everywhere else, and its answer.
pub(crate) struct OnDevice {
    layout: QkvLayout,
    page_size: usize,
    requests: Vec<(usize, usize)>,
    max_pages: usize,
    query_start: CudaIndices,
    kv_len: CudaIndices,
    page_table: CudaIndices,
    keys: CudaBuffer,
    values: CudaBuffer,
    pub(crate) qkv: CudaBuffer,
    /// Each value with the largest error that may be.
    truth: Vec<(f64, f64)>,
}

impl OnDevice {
    pub(crate) fn new(cuda: &Emulated, problem: &Attention) -> OnDevice {
        let (layout, page_size) = (problem.layout, problem.page_size);
        let tokens: usize = problem.requests.iter().map(|r| r.0).sum();
        let positions: usize = problem.requests.iter().map(|r| r.1).sum();
        let random = |seed, len, scale: f32| -> Vec<f32> {
            numbers(seed, len)
                .iter()
                .map(|x| widened(x * scale, problem.dtype))
                .collect()
        };
        let queries = random(problem.seed, tokens * layout.q_width(), problem.scale);
        let keys = random(
            problem.seed + 1,
            positions * layout.kv_width(),
            problem.scale,
        );
        let values = random(problem.seed + 2, positions * layout.kv_width(), 1.0);

        // Keys and values of the step are read from the pool, never from the fused buffer.
        let mut qkv = vec![POISON; tokens * layout.width()];
        for (row, queries) in qkv
            .chunks_exact_mut(layout.width())
            .zip(queries.chunks_exact(layout.q_width()))
        {
            row[..layout.q_width()].copy_from_slice(&rounded(queries, problem.dtype));
        }
        let pages_of = |len: usize| len.div_ceil(page_size);
        let max_pages = problem
            .requests
            .iter()
            .map(|r| pages_of(r.1))
            .max()
            .unwrap_or(0)
            + 1;
        let used: usize = problem.requests.iter().map(|r| pages_of(r.1)).sum();
        // A pool with twice the pages; page i of the batch lies at a place that the multiplier scatters.
        let pages = (2 * used).next_power_of_two();
        let width = layout.kv_width();
        let mut pools = [(); 2].map(|()| vec![POISON; pages * page_size * width]);
        let mut page_table = vec![i32::MAX; problem.requests.len() * max_pages];
        let (mut query_start, mut kv_len) = (vec![0], Vec::new());
        let (mut page, mut position) = (0, 0);
        for (r, &(queries, len)) in problem.requests.iter().enumerate() {
            query_start.push(query_start[r] + queries as i32);
            kv_len.push(len as i32);
            for p in 0..len {
                let place = ((page + p / page_size) * 5 + 3) % pages;
                page_table[r * max_pages + p / page_size] = place as i32;
                let slot = place * page_size + p % page_size;
                for (pool, from) in pools.iter_mut().zip([&keys, &values]) {
                    let row = rounded(&from[(position + p) * width..][..width], problem.dtype);
                    pool[slot * width..][..width].copy_from_slice(&row);
                }
            }
            page += pages_of(len);
            position += len;
        }
        OnDevice {
            layout,
            page_size,
            requests: problem.requests.clone(),
            max_pages,
            query_start: cuda.upload_indices(&query_start),
            kv_len: cuda.upload_indices(&kv_len),
            page_table: cuda.upload_indices(&page_table),
            keys: cuda.upload(&pools[0]),
            values: cuda.upload(&pools[1]),
            qkv: cuda.upload(&qkv),
            truth: truth(problem, &queries, &keys, &values),
        }
    }

    pub(crate) fn batch(&self) -> AttentionBatch<'_, CudaIndices> {
        AttentionBatch {
            requests: self.requests.len(),
            tokens: self.requests.iter().map(|r| r.0).sum(),
            max_query_len: self.requests.iter().map(|r| r.0).max().unwrap_or(0),
            max_kv_len: self.requests.iter().map(|r| r.1).max().unwrap_or(0),
            query_start: &self.query_start,
            kv_len: &self.kv_len,
            page_table: &self.page_table,
            max_pages: self.max_pages,
            page_size: self.page_size,
        }
    }

    /// Where the keys begin, and where the values do.
    pub(crate) fn pools(&self) -> [DevicePointer; 2] {
        [self.keys.pointer(), self.values.pointer()]
    }

    /// Elements of the result.
    pub(crate) fn len(&self) -> usize {
        self.truth.len()
    }

    /// Holds a result against the truth.
    pub(crate) fn assert_close(&self, what: &str, got: &[f32]) {
        let width = self.layout.q_width();
        for (i, (&got, &(truth, tolerance))) in got.iter().zip(&self.truth).enumerate() {
            let error = (f64::from(got) - truth).abs();
            assert!(
                error <= tolerance,
                "{what}: row {}, head {}, column {} is {got}, should be {truth} within {tolerance:e}",
                i / width,
                i % width / self.layout.head_dim,
                i % self.layout.head_dim
            );
        }
    }
}

/// Attention as its formula says, in float64 on the rounded inputs, and the largest error of each output. With `size` the sum
/// of weight * |value| and `u` half a unit in the last place of the storage type, relative:
///
/// - the output is rounded once: `u * |truth|`;
/// - weights are rounded before they multiply the values, but not for their sum: `u * size`. They are at most 1, so in float16
///   the small ones are subnormal: at most 2^-25 for each value;
/// - a tensor core adds 16 products to a sum, each cut off at the 24th bit of the largest: `head_dim / 16` such steps err by
///   `17 / 16 * head_dim * 2^-24` of `reach`, the sum of |q k| / sqrt(head_dim); scaling adds 4 roundings more. An error of
///   a score is a relative error of its weight, and may be one of their sum. Sums over `seen` positions err alike, by `17 / 16 * seen * 2^-24` of `size`;
/// - exp2, which is within 2^-22, rescaling and dividing: 2^-20 of `size`.
fn truth(problem: &Attention, queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<(f64, f64)> {
    let QkvLayout {
        heads,
        kv_heads,
        head_dim,
    } = problem.layout;
    let (u, subnormal) = match problem.dtype {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        _ => (2f64.powi(-8), 0.0),
    };
    let cut = 17.0 / 16.0 * 2f64.powi(-24);
    let root = (head_dim as f64).sqrt();
    let mut out = Vec::new();
    let (mut row, mut position) = (0, 0);
    for &(count, len) in &problem.requests {
        for i in 0..count {
            let seen = len - count + i + 1;
            for head in 0..heads {
                let q = &queries[(row * heads + head) * head_dim..][..head_dim];
                let at =
                    |p: usize| ((position + p) * kv_heads + head / (heads / kv_heads)) * head_dim;
                let (mut scores, mut reach) = (Vec::new(), 0.0_f64);
                for p in 0..seen {
                    let (mut sum, mut size) = (0.0, 0.0);
                    for (a, b) in q.iter().zip(&keys[at(p)..]) {
                        let term = f64::from(*a) * f64::from(*b) / root;
                        sum += term;
                        size += term.abs();
                    }
                    scores.push(sum);
                    reach = reach.max(size);
                }
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                let arithmetic = 2.0 * reach * (cut * head_dim as f64 + 4.0 * 2f64.powi(-24))
                    + cut * seen as f64
                    + 2f64.powi(-20);
                for d in 0..head_dim {
                    let (mut sum, mut size, mut least) = (0.0, 0.0, 0.0);
                    for (p, weight) in weights.iter().enumerate() {
                        let value = f64::from(values[at(p) + d]);
                        sum += weight / total * value;
                        size += weight / total * value.abs();
                        least += subnormal / total * value.abs();
                    }
                    let tolerance = u * sum.abs() + (u + arithmetic) * size * 1.01 + least;
                    out.push((sum, tolerance + subnormal));
                }
            }
            row += 1;
        }
        position += len;
    }
    out
}
