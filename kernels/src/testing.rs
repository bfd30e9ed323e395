//! What the tests of several operations need.

use half::{bf16, f16};
use proptest::prelude::*;

use crate::cpu::KvLayerMut;
pub(crate) use crate::philox::numbers;
use crate::{AttentionBatch, Cpu, CpuKvPool, DType, Error, Kernel, QkvLayout};

/// The best code of this processor and the portable code.
pub(crate) fn cpus() -> [Cpu; 2] {
    [Cpu::new(Some(2)).unwrap(), Cpu::portable(Some(2)).unwrap()]
}

pub(crate) fn dtypes() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::F32, DType::F16, DType::BF16])
}

/// Checks `len` results against `truth`, float64 values each with the largest error that may be, and that what follows them
/// is still the poison it was.
pub(crate) fn assert_close(what: &str, got: &[f32], truth: &[(f64, f64)]) {
    for (i, (&got, &(truth, tolerance))) in got.iter().zip(truth).enumerate() {
        let error = (f64::from(got) - truth).abs();
        assert!(
            error <= tolerance,
            "{what}: element {i} is {got}, should be {truth} within {tolerance:e}"
        );
    }
    assert!(got.len() > truth.len(), "{what}: the test left no guard");
    assert!(
        got[truth.len()..].iter().all(|x| x.is_nan()),
        "{what} wrote past the end"
    );
}

/// `len` poisoned floats and a guard behind them.
pub(crate) fn poisoned(len: usize) -> Vec<f32> {
    vec![f32::NAN; len + 16]
}

/// An attention problem whose slots lie scattered in a pool that is NaN everywhere else.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    pub(crate) layout: QkvLayout,
    /// `(query_len, kv_len)`.
    pub(crate) requests: Vec<(usize, usize)>,
    pub(crate) page_size: usize,
    pub(crate) dtype: DType,
    pub(crate) seed: u64,
    /// Multiplies queries and keys: large scores make softmax choose, small ones make it average.
    pub(crate) scale: f32,
}

pub(crate) fn layouts() -> impl Strategy<Value = QkvLayout> {
    let head_dims = prop::sample::select(vec![1, 3, 8, 16, 40, 64, 80, 96, 128, 256]);
    (1_usize..5, 1_usize..8, head_dims).prop_map(|(kv_heads, group, head_dim)| QkvLayout {
        heads: kv_heads * group,
        kv_heads,
        head_dim,
    })
}

/// Problems with up to `most_queries` query rows for each request.
pub(crate) fn attentions(most_queries: usize) -> impl Strategy<Value = Attention> {
    let request = (1..=most_queries, 0_usize..300).prop_map(|(q, cached)| (q, q + cached));
    (
        layouts(),
        prop::collection::vec(request, 1..4),
        prop::sample::select(vec![1_usize, 3, 16]),
        dtypes(),
        any::<u32>(),
        prop::sample::select(vec![0.1_f32, 1.0, 4.0]),
    )
        .prop_map(
            |(layout, requests, page_size, dtype, seed, scale)| Attention {
                layout,
                requests,
                page_size,
                dtype,
                seed: u64::from(seed),
                scale,
            },
        )
}

type Reference = fn(
    &[f32],
    QkvLayout,
    &AttentionBatch<'_, Vec<i32>>,
    &CpuKvPool,
    usize,
    &mut [f32],
) -> Result<Kernel, Error>;

impl Attention {
    /// Runs `reference` on all instruction sets and compares with [`Attention::naive`].
    pub(crate) fn check(&self, reference: Reference) {
        let layout = self.layout;
        let tokens: usize = self.requests.iter().map(|r| r.0).sum();
        let positions: usize = self.requests.iter().map(|r| r.1).sum();
        let mut qkv = numbers(self.seed, tokens * layout.width());
        // Keys and values of the step are read from the pool, never from here.
        for row in qkv.chunks_exact_mut(layout.width()) {
            row[..layout.q_width()]
                .iter_mut()
                .for_each(|x| *x *= self.scale);
            row[layout.q_width()..].fill(f32::NAN);
        }
        let mut keys = numbers(self.seed + 1, positions * layout.kv_width());
        keys.iter_mut().for_each(|x| *x *= self.scale);
        let values = numbers(self.seed + 2, positions * layout.kv_width());
        let [keys, values] = [keys, values].map(|v| narrowed(self.dtype, &v));

        let pages_of = |len: usize| len.div_ceil(self.page_size);
        let max_pages = self
            .requests
            .iter()
            .map(|r| pages_of(r.1))
            .max()
            .unwrap_or(0)
            + 1;
        let used: usize = self.requests.iter().map(|r| pages_of(r.1)).sum();
        // A pool with twice the pages; page i of the batch lies at a place that the multiplier scatters.
        let pages = (2 * used).next_power_of_two();
        let mut kv = CpuKvPool::new(2, pages * self.page_size, layout, self.dtype).unwrap();
        kv.poison();
        let mut page_table = vec![i32::MAX; self.requests.len() * max_pages];
        let (mut query_start, mut kv_len) = (vec![0], Vec::new());
        let (mut page, mut position) = (0, 0);
        for (r, &(queries, len)) in self.requests.iter().enumerate() {
            query_start.push(query_start[r] + queries as i32);
            kv_len.push(len as i32);
            for p in 0..len {
                let at = page + p / self.page_size;
                let place = (at * 5 + 3) % pages;
                page_table[r * max_pages + p / self.page_size] = place as i32;
                let slot = place * self.page_size + p % self.page_size;
                put(&mut kv, slot, &keys, &values, position + p);
            }
            page += pages_of(len);
            position += len;
        }
        let batch = AttentionBatch {
            requests: self.requests.len(),
            tokens,
            max_query_len: self.requests.iter().map(|r| r.0).max().unwrap_or(0),
            max_kv_len: self.requests.iter().map(|r| r.1).max().unwrap_or(0),
            query_start: &query_start,
            kv_len: &kv_len,
            page_table: &page_table,
            max_pages,
            page_size: self.page_size,
        };
        let truth = self.naive(&qkv, &keys, &values);
        for cpu in cpus() {
            let mut out = poisoned(tokens * layout.q_width());
            let kernel = cpu
                .run(|| reference(&qkv, layout, &batch, &kv, 1, &mut out))
                .unwrap();
            assert_close(&format!("{kernel} of {self:?}"), &out, &truth);
        }
    }

    /// Attention as its formula says, in float64. The tolerance of an output is 4 float32 roundings of the terms that add up to
    /// it, times how far the scores reach, since an error of a score is a relative error of its weight.
    fn naive(&self, qkv: &[f32], keys: &[f32], values: &[f32]) -> Vec<(f64, f64)> {
        let QkvLayout {
            heads,
            kv_heads,
            head_dim,
        } = self.layout;
        let mut out = Vec::new();
        let (mut row, mut position) = (0, 0);
        for &(queries, len) in &self.requests {
            for i in 0..queries {
                let seen = len - queries + i + 1;
                for head in 0..heads {
                    let q = &qkv[row * self.layout.width() + head * head_dim..][..head_dim];
                    let at = |p: usize| {
                        ((position + p) * kv_heads + head / (heads / kv_heads)) * head_dim
                    };
                    let dot = |p: usize| {
                        let terms = q
                            .iter()
                            .zip(&keys[at(p)..])
                            .map(|(a, b)| f64::from(*a) * f64::from(*b));
                        let root = (head_dim as f64).sqrt();
                        terms.fold((0.0, 0.0), |(sum, size), t| {
                            (sum + t / root, size + t.abs() / root)
                        })
                    };
                    let scores: Vec<(f64, f64)> = (0..seen).map(dot).collect();
                    let max = scores.iter().fold(f64::NEG_INFINITY, |a, s| a.max(s.0));
                    let reach = scores.iter().fold(1.0_f64, |a, s| a.max(s.1));
                    let weights: Vec<f64> = scores.iter().map(|s| (s.0 - max).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for d in 0..head_dim {
                        let terms =
                            (0..seen).map(|p| weights[p] / total * f64::from(values[at(p) + d]));
                        let (sum, size) = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
                        out.push((sum, 1e-7 + 4.0 * 1.2e-7 * size * (4.0 + reach)));
                    }
                }
                row += 1;
            }
            position += len;
        }
        out
    }
}

/// The values after rounding to `dtype`.
pub(crate) fn narrowed(dtype: DType, values: &[f32]) -> Vec<f32> {
    let round = |&x: &f32| match dtype {
        DType::F32 => x,
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
    };
    values.iter().map(round).collect()
}

/// Writes position `p` of `keys` and `values` into `slot` of layer 1.
fn put(kv: &mut CpuKvPool, slot: usize, keys: &[f32], values: &[f32], p: usize) {
    let width = kv.layout().kv_width();
    let (to, from) = (slot * width..(slot + 1) * width, p * width..(p + 1) * width);
    let pairs = to.zip(from);
    match kv.layer_mut(1) {
        KvLayerMut::F32(k, v) => pairs.for_each(|(t, f)| (k[t], v[t]) = (keys[f], values[f])),
        KvLayerMut::F16(k, v) => {
            pairs.for_each(|(t, f)| {
                (k[t], v[t]) = (f16::from_f32(keys[f]), f16::from_f32(values[f]))
            });
        }
        KvLayerMut::BF16(k, v) => {
            pairs.for_each(|(t, f)| {
                (k[t], v[t]) = (bf16::from_f32(keys[f]), bf16::from_f32(values[f]))
            });
        }
    }
}
