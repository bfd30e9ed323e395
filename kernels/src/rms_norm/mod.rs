//! RMS normalisation: `out = x / sqrt(mean(x²) + eps) * weight`, row by row (Zhang and Sennrich, 2019).
//!
//! Shapes: `x` and `out` `[rows, width]`, `weight` `[width]`. Three forms, which models use at different places:
//! - [`reference`] normalises rows;
//! - [`add_reference`] first adds `x` to the residual stream, `residual += x`, and normalises that: the two
//!   read and write the same rows, so that one pass saves a reading of them;
//! - [`qk_reference`] normalises each query and key head of a QKV buffer in place (QK norm).
//!
//! ```text
//!            row: width elements, 8 at a time
//!   task 0   [ ........ | ........ | … ]   1. sum of squares  ->  scale = 1 / sqrt(sum / width + eps)
//!            [ ........ | ........ | … ]   2. x * scale * weight, from the cache
//!   task 1   [ ........ | ........ | … ]   tasks are rows that lie together, some 8 Ki elements of them
//! ```
//!
//! What bounds it: memory. Four operations for each element that is read and written; a row stays in the first-level cache
//! between the sum of its squares and its scaling.

pub(crate) mod launch;

use crate::cpu::{self, Op, Shared, Simd};
use crate::{Cost, DType, Kernel, QkvLayout};

/// Bytes of an element of a weight.
const WEIGHT_BYTES: u64 = DType::F32.size() as u64;

/// `out = x / rms(x) * weight`, rows of `weight`'s length.
///
/// # Panics
/// When `x` and `out` differ in length.
pub fn reference(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Kernel {
    assert_eq!(x.len(), out.len(), "rms_norm: x and out differ in length");
    let width = weight.len();
    let level = cpu::level();
    let rows = x.len() / width.max(1);
    let out = Shared::new(out);
    cpu::parallel_rows(rows, width, |rows| {
        let range = rows.start * width..rows.end * width;
        // SAFETY: each task has rows of its own.
        let out = unsafe { out.slice(range.clone()) };
        level.run(Normalize {
            x: &x[range],
            weight,
            eps,
            out,
        });
    });
    level.pick("rms_norm_avx2", "rms_norm_portable")
}

/// `residual += x`, then `out = residual / rms(residual) * weight`, rows of `weight`'s length.
///
/// # Panics
/// When `x`, `residual` and `out` differ in length.
pub fn add_reference(
    x: &[f32],
    residual: &mut [f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Kernel {
    assert_eq!(
        x.len(),
        out.len(),
        "add_rms_norm: x and out differ in length"
    );
    assert_eq!(
        x.len(),
        residual.len(),
        "add_rms_norm: x and residual differ in length"
    );
    let width = weight.len();
    let level = cpu::level();
    let rows = x.len() / width.max(1);
    let (residual, out) = (Shared::new(residual), Shared::new(out));
    cpu::parallel_rows(rows, width, |rows| {
        let range = rows.start * width..rows.end * width;
        // SAFETY: each task has rows of its own.
        let (residual, out) = unsafe { (residual.slice(range.clone()), out.slice(range.clone())) };
        level.run(AddNormalize {
            x: &x[range],
            residual,
            weight,
            eps,
            out,
        });
    });
    level.pick("add_rms_norm_avx2", "add_rms_norm_portable")
}

/// Normalises each query head of `qkv` `[tokens, (heads + 2 * kv_heads) * head_dim]` with `q_weight` `[head_dim]` and each key head
/// with `k_weight`, in place.
///
/// # Panics
/// When a weight is not `head_dim` long.
pub fn qk_reference(
    qkv: &mut [f32],
    layout: QkvLayout,
    q_weight: &[f32],
    k_weight: &[f32],
    eps: f32,
) -> Kernel {
    assert_eq!(
        q_weight.len(),
        layout.head_dim,
        "qk_norm: the query weight is not one head long"
    );
    assert_eq!(
        k_weight.len(),
        layout.head_dim,
        "qk_norm: the key weight is not one head long"
    );
    let level = cpu::level();
    let width = layout.width();
    let tokens = qkv.len() / width.max(1);
    let qkv = Shared::new(qkv);
    cpu::parallel_rows(tokens, width, |tokens| {
        // SAFETY: each task has tokens of its own.
        let qkv = unsafe { qkv.slice(tokens.start * width..tokens.end * width) };
        level.run(NormalizeHeads {
            qkv,
            layout,
            q_weight,
            k_weight,
            eps,
        });
    });
    level.pick("qk_norm_avx2", "qk_norm_portable")
}

struct Normalize<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Op for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        for (x, out) in self
            .x
            .chunks_exact(width)
            .zip(self.out.chunks_exact_mut(width))
        {
            out.copy_from_slice(x);
            let squares = sum_of_squares(s, x);
            scale_row(s, out, inverse_rms(squares, width, self.eps), self.weight);
        }
    }
}

struct AddNormalize<'a> {
    x: &'a [f32],
    residual: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Op for AddNormalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        let rows = self
            .residual
            .chunks_exact_mut(width)
            .zip(self.out.chunks_exact_mut(width));
        for (x, (residual, out)) in self.x.chunks_exact(width).zip(rows) {
            for (residual, x) in residual.iter_mut().zip(x) {
                *residual += x;
            }
            out.copy_from_slice(residual);
            let squares = sum_of_squares(s, residual);
            scale_row(s, out, inverse_rms(squares, width, self.eps), self.weight);
        }
    }
}

struct NormalizeHeads<'a> {
    qkv: &'a mut [f32],
    layout: QkvLayout,
    q_weight: &'a [f32],
    k_weight: &'a [f32],
    eps: f32,
}

impl Op for NormalizeHeads<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let QkvLayout {
            heads,
            kv_heads,
            head_dim,
        } = self.layout;
        for row in self.qkv.chunks_exact_mut(self.layout.width()) {
            let normalized = row.chunks_exact_mut(head_dim).take(heads + kv_heads);
            for (i, head) in normalized.enumerate() {
                let weight = if i < heads {
                    self.q_weight
                } else {
                    self.k_weight
                };
                let squares = sum_of_squares(s, head);
                scale_row(s, head, inverse_rms(squares, head_dim, self.eps), weight);
            }
        }
    }
}

fn inverse_rms(squares: f32, width: usize, eps: f32) -> f32 {
    1.0 / (squares / width as f32 + eps).sqrt()
}

#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, x: &[f32]) -> f32 {
    // Four sums: one would wait four cycles for each addition.
    let (chunks, rest) = x.as_chunks::<32>();
    let mut sums = [s.splat(0.0); 4];
    for chunk in chunks {
        for (sum, v) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            let v = s.load_array(v);
            *sum = s.fma(v, v, *sum);
        }
    }
    let [a, b, c, d] = sums;
    let vectors = s.sum(s.add(s.add(a, b), s.add(c, d)));
    vectors + rest.iter().map(|x| x * x).sum::<f32>()
}

/// `x *= scale * weight`.
#[inline(always)]
fn scale_row<S: Simd>(s: S, x: &mut [f32], scale: f32, weight: &[f32]) {
    let (chunks, rest) = x.as_chunks_mut::<8>();
    let (weights, weight_rest) = weight.as_chunks::<8>();
    let vector = s.splat(scale);
    for (x, w) in chunks.iter_mut().zip(weights) {
        let scaled = s.mul(s.mul(s.load_array(x), vector), s.load_array(w));
        s.store_array(x, scaled);
    }
    for (x, w) in rest.iter_mut().zip(weight_rest) {
        *x = *x * scale * w;
    }
}

/// The work of [`reference`]: per element a multiply-add for the square, and two multiplications. Every device keeps the
/// weight in float.
pub fn cost(rows: usize, width: usize, activation: DType) -> Cost {
    let (elements, size) = ((rows * width) as u64, activation.size() as u64);
    Cost {
        flops: 4 * elements,
        weight_bytes: width as u64 * WEIGHT_BYTES,
        kv_bytes: 0,
        activation_bytes: 2 * elements * size,
    }
}

/// The work of [`add_reference`]: one addition more, and the residual read and written too.
pub fn add_cost(rows: usize, width: usize, activation: DType) -> Cost {
    let (elements, size) = ((rows * width) as u64, activation.size() as u64);
    Cost {
        flops: 5 * elements,
        weight_bytes: width as u64 * WEIGHT_BYTES,
        kv_bytes: 0,
        activation_bytes: 4 * elements * size,
    }
}

/// The work of [`qk_reference`], which leaves values alone.
pub fn qk_cost(tokens: usize, layout: QkvLayout, activation: DType) -> Cost {
    let elements = (tokens * (layout.q_width() + layout.kv_width())) as u64;
    let size = activation.size() as u64;
    Cost {
        flops: 4 * elements,
        weight_bytes: 2 * layout.head_dim as u64 * WEIGHT_BYTES,
        kv_bytes: 0,
        activation_bytes: 2 * elements * size,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, cpus, layouts, numbers, poisoned};

    /// In float64. A float32 result may be 8 roundings off: the root of the sum counts half, the products one each.
    fn naive(x: &[f32], weight: &[f32], eps: f32) -> Vec<(f64, f64)> {
        x.chunks_exact(weight.len())
            .flat_map(|x| {
                let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
                let scale = 1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt();
                x.iter().zip(weight).map(move |(x, w)| {
                    let y = f64::from(*x) * scale * f64::from(*w);
                    (y, y.abs() * 8.0 * 6e-8 + 1e-12)
                })
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_shape_is_right(rows in 1_usize..60, width in 1_usize..700, seed in any::<u32>()) {
            let seed = u64::from(seed);
            let (x, weight) = (numbers(seed, rows * width), numbers(seed + 1, width));
            let residual = numbers(seed + 2, rows * width);
            let sum: Vec<f32> = x.iter().zip(&residual).map(|(a, b)| a + b).collect();
            for cpu in cpus() {
                let mut out = poisoned(x.len());
                let kernel = cpu.run(|| reference(&x, &weight, 1e-5, &mut out[..x.len()]));
                assert_close(kernel, &out, &naive(&x, &weight, 1e-5));

                let (mut out, mut residual) = (poisoned(x.len()), residual.clone());
                let kernel = cpu.run(|| add_reference(&x, &mut residual, &weight, 1e-5, &mut out[..x.len()]));
                prop_assert_eq!(&residual, &sum);
                assert_close(kernel, &out, &naive(&sum, &weight, 1e-5));
            }
        }

        #[test]
        fn query_and_key_heads_are_normalized_alone(layout in layouts(), tokens in 1_usize..9, seed in any::<u32>()) {
            let seed = u64::from(seed);
            let qkv = numbers(seed, tokens * layout.width());
            let (q_weight, k_weight) = (numbers(seed + 1, layout.head_dim), numbers(seed + 2, layout.head_dim));
            let mut truth = Vec::new();
            for row in qkv.chunks_exact(layout.width()) {
                let (q, kv) = row.split_at(layout.q_width());
                let (k, v) = kv.split_at(layout.kv_width());
                truth.extend(naive(q, &q_weight, 1e-6));
                truth.extend(naive(k, &k_weight, 1e-6));
                truth.extend(v.iter().map(|v| (f64::from(*v), 0.0)));
            }
            for cpu in cpus() {
                let mut out = poisoned(qkv.len());
                out[..qkv.len()].copy_from_slice(&qkv);
                let kernel = cpu.run(|| qk_reference(&mut out[..qkv.len()], layout, &q_weight, &k_weight, 1e-6));
                assert_close(kernel, &out, &truth);
            }
        }
    }

    #[test]
    fn a_row_of_zeroes_stays_zero() {
        let mut out = [1.0; 4];
        reference(&[0.0; 4], &[1.0; 4], 1e-6, &mut out);
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    fn costs() {
        // 3 rows of 5 elements of 2 bytes, and a weight of 5 of 4 bytes.
        let expected = Cost {
            flops: 60,
            weight_bytes: 20,
            kv_bytes: 0,
            activation_bytes: 60,
        };
        assert_eq!(cost(3, 5, DType::BF16), expected);
        let expected = Cost {
            flops: 75,
            weight_bytes: 20,
            kv_bytes: 0,
            activation_bytes: 120,
        };
        assert_eq!(add_cost(3, 5, DType::F16), expected);
        // 2 tokens of 4 + 2 heads of 8 elements of 4 bytes.
        let layout = QkvLayout {
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
        };
        let expected = Cost {
            flops: 384,
            weight_bytes: 64,
            kv_bytes: 0,
            activation_bytes: 768,
        };
        assert_eq!(qk_cost(2, layout, DType::F32), expected);
    }
}
