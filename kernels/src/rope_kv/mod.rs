//! Rotary position embedding and the KV write, in one pass over a QKV buffer.
//!
//! `[a, b] -> [a cos t - b sin t, b cos t + a sin t]` for each pair `(a, b) = (x[i], x[i + pairs])` of each query and key head, at
//! angle `t = position * inverse_frequencies[i]` (Su et al., 2021, with the pairs as GPT-NeoX, Llama and Qwen lay them out).
//! Elements past `2 * pairs` stay. Keys, rotated, and values then go to slot `slots[t]` of the pool, rounded to its type.
//!
//! Shapes: `qkv` `[tokens, (heads + 2 * kv_heads) * head_dim]`, `positions` and `slots` `[tokens]`, per layer of the pool keys and
//! values `[slots, kv_heads, head_dim]`.
//!
//! ```text
//!   a token's row   [ q heads           | k heads           | v heads ]
//!                     a..a b..b           a..a b..b                       a head's halves, 8 pairs at a time
//!                      rotate, in place    rotate, in place
//!                                         |                   |
//!                     keys[slots[t]]   <--+                   |
//!                     values[slots[t]] <----------------------+           rounded to the pool's type
//! ```
//!
//! Tasks are tokens that lie together: first all rotate, then all are written.
//!
//! What bounds it: memory. Three operations for each element of queries and keys that is read and written; the cosines and sines of
//! a position serve all its heads from the first-level cache.

pub(crate) mod launch;

use half::{bf16, f16};

use crate::cpu::{self, Element, KvLayerMut, Op, Shared, Simd, narrow};
use crate::{Cost, CpuKvPool, DType, Error, Kernel, QkvLayout};

/// Cosines and sines of all pairs of every position.
#[derive(Debug, Clone)]
pub struct CpuRopeTable {
    /// `[positions, 2, pairs]`: the cosines of a position, then its sines.
    values: Vec<f32>,
    pairs: usize,
    positions: usize,
}

impl CpuRopeTable {
    /// The table for `positions` positions, computed in float64.
    ///
    /// # Errors
    /// When the machine does not grant the memory.
    pub fn new(inverse_frequencies: &[f64], positions: usize) -> Result<CpuRopeTable, Error> {
        let pairs = inverse_frequencies.len();
        let refused = || {
            let bytes = (8 * pairs as u128).saturating_mul(positions as u128);
            Error::out_of_memory(format!("the rope table of {positions} positions"), bytes)
        };
        let len = pairs
            .checked_mul(2)
            .and_then(|n| n.checked_mul(positions))
            .ok_or_else(refused)?;
        let mut values = Vec::new();
        values.try_reserve_exact(len).map_err(|_| refused())?;
        for position in 0..positions {
            let angles = inverse_frequencies.iter().map(|f| position as f64 * f);
            values.extend(angles.clone().map(|t| t.cos() as f32));
            values.extend(angles.map(|t| t.sin() as f32));
        }
        Ok(CpuRopeTable {
            values,
            pairs,
            positions,
        })
    }

    /// The positions that the table has.
    pub fn positions(&self) -> usize {
        self.positions
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        self.values[position * 2 * self.pairs..][..2 * self.pairs].split_at(self.pairs)
    }
}

/// Rotates queries and keys of `qkv` in place by their `positions`, and writes keys and values to their `slots` of `layer`. Where a
/// slot comes twice, the later token stays.
///
/// # Errors
/// When a position is not in the table, a slot not in the pool, or the heads are not those of the pool.
///
/// # Panics
/// When a slice is shorter than its shape, or the pool has no such layer.
pub fn reference(
    qkv: &mut [f32],
    layout: QkvLayout,
    positions: &[i32],
    slots: &[i32],
    rope: &CpuRopeTable,
    kv: &mut CpuKvPool,
    layer: usize,
) -> Result<Kernel, Error> {
    check(layout, positions, slots, rope, kv)?;
    let level = cpu::level();
    let (tokens, width) = (positions.len(), layout.width());
    let qkv = &mut qkv[..tokens * width];
    let shared = Shared::new(&mut *qkv);
    cpu::parallel_rows(tokens, width, |tokens| {
        // SAFETY: each task has tokens of its own.
        let qkv = unsafe { shared.slice(tokens.start * width..tokens.end * width) };
        level.run(Rotate {
            qkv,
            layout,
            positions: &positions[tokens],
            rope,
        });
    });
    match kv.layer_mut(layer) {
        KvLayerMut::F32(keys, values) => write(qkv, layout, slots, keys, values),
        KvLayerMut::F16(keys, values) => write::<f16>(qkv, layout, slots, keys, values),
        KvLayerMut::BF16(keys, values) => write::<bf16>(qkv, layout, slots, keys, values),
    }
    Ok(level.pick("rope_kv_avx2", "rope_kv_portable"))
}

fn check(
    layout: QkvLayout,
    positions: &[i32],
    slots: &[i32],
    rope: &CpuRopeTable,
    kv: &CpuKvPool,
) -> Result<(), Error> {
    let pool = kv.layout();
    if (layout.kv_heads, layout.head_dim) != (pool.kv_heads, pool.head_dim) {
        return Err(Error::shape(format!(
            "keys of {layout:?} do not fit a KV pool of {pool:?}"
        )));
    }
    if 2 * rope.pairs > layout.head_dim {
        let (pairs, head_dim) = (rope.pairs, layout.head_dim);
        return Err(Error::shape(format!(
            "a rotation of {pairs} pairs needs more than heads of {head_dim}"
        )));
    }
    let outside = |values: &[i32], end: usize| {
        let inside = |v: &i32| usize::try_from(*v).is_ok_and(|v| v < end);
        values.iter().position(|v| !inside(v))
    };
    if let Some(t) = outside(positions, rope.positions) {
        let (position, end) = (positions[t], rope.positions);
        return Err(Error::shape(format!(
            "token {t} is at position {position}, but the rope table has {end} positions"
        )));
    }
    if let Some(t) = outside(slots, kv.slots()) {
        let (slot, end) = (slots[t], kv.slots());
        return Err(Error::shape(format!(
            "token {t} goes to slot {slot}, but the KV pool has {end} slots"
        )));
    }
    Ok(())
}

struct Rotate<'a> {
    qkv: &'a mut [f32],
    layout: QkvLayout,
    positions: &'a [i32],
    rope: &'a CpuRopeTable,
}

impl Op for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let QkvLayout {
            heads,
            kv_heads,
            head_dim,
        } = self.layout;
        if head_dim == 0 {
            return;
        }
        for (row, &position) in self
            .qkv
            .chunks_exact_mut(self.layout.width())
            .zip(self.positions)
        {
            let (cos, sin) = self.rope.at(position as usize);
            for head in row.chunks_exact_mut(head_dim).take(heads + kv_heads) {
                let (a, b) = head[..2 * cos.len()].split_at_mut(cos.len());
                rotate(s, a, b, cos, sin);
            }
        }
    }
}

/// Rotates each pair `(a[i], b[i])`.
#[inline(always)]
fn rotate<S: Simd>(s: S, a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a, a_rest) = a.as_chunks_mut::<8>();
    let (b, b_rest) = b.as_chunks_mut::<8>();
    let (cos, cos_rest) = cos.as_chunks::<8>();
    let (sin, sin_rest) = sin.as_chunks::<8>();
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
        let (cos, sin) = (s.load_array(cos), s.load_array(sin));
        let (x, y) = (s.load_array(a), s.load_array(b));
        s.store_array(a, s.sub(s.mul(x, cos), s.mul(y, sin)));
        s.store_array(b, s.add(s.mul(y, cos), s.mul(x, sin)));
    }
    for ((a, b), (cos, sin)) in a_rest
        .iter_mut()
        .zip(b_rest)
        .zip(cos_rest.iter().zip(sin_rest))
    {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// Rounds keys and values of all tokens into their slots.
fn write<T: Element>(
    qkv: &[f32],
    layout: QkvLayout,
    slots: &[i32],
    keys: &mut [T],
    values: &mut [T],
) {
    let level = cpu::level();
    let (keys, values) = (Shared::new(keys), Shared::new(values));
    let (width, d) = (layout.kv_width(), layout.head_dim);
    // A task has a range of heads of all tokens, and not of tokens: two tokens may have the same slot.
    cpu::parallel_rows(layout.kv_heads, slots.len() * d, |heads| {
        let part = heads.start * d..heads.end * d;
        for (row, &slot) in qkv.chunks_exact(layout.width().max(1)).zip(slots) {
            let (row_keys, row_values) = row[layout.q_width()..].split_at(width);
            let at = slot as usize * width;
            // SAFETY: each task has heads of its own.
            let (keys, values) = unsafe {
                let at = at + part.start..at + part.end;
                (keys.slice(at.clone()), values.slice(at))
            };
            level.run(Narrow {
                from: &row_keys[part.clone()],
                to: keys,
            });
            level.run(Narrow {
                from: &row_values[part.clone()],
                to: values,
            });
        }
    });
}

struct Narrow<'a, T> {
    from: &'a [f32],
    to: &'a mut [T],
}

impl<T: Element> Op for Narrow<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        narrow(s, self.from, self.to);
    }
}

/// The work of `tokens` rows, all of whose elements rotate: two multiplications and an addition for each. Cosines and sines are not
/// counted: all heads of all layers share them.
pub fn cost(tokens: usize, layout: QkvLayout, activation: DType, kv: DType) -> Cost {
    let tokens = tokens as u64;
    let rotated = (layout.q_width() + layout.kv_width()) as u64;
    Cost {
        flops: 3 * tokens * rotated,
        weight_bytes: 0,
        kv_bytes: 2 * tokens * layout.kv_width() as u64 * kv.size() as u64,
        // All is read, what rotates is written, and a position and a slot come with each token.
        activation_bytes: tokens * (layout.width() as u64 + rotated) * activation.size() as u64
            + tokens * 8,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::KvLayer;
    use crate::testing::{assert_close, cpus, dtypes, layouts, narrowed, numbers, poisoned};

    fn widened(layer: KvLayer<'_>) -> [Vec<f32>; 2] {
        match layer {
            KvLayer::F32(k, v) => [k, v].map(<[f32]>::to_vec),
            KvLayer::F16(k, v) => [k, v].map(|x| x.iter().map(|x| x.to_f32()).collect()),
            KvLayer::BF16(k, v) => [k, v].map(|x| x.iter().map(|x| x.to_f32()).collect()),
        }
    }

    /// Rotated in float64; a float32 result takes 3 roundings of either term, and the table one.
    fn naive(
        qkv: &[f32],
        layout: QkvLayout,
        positions: &[i32],
        frequencies: &[f64],
    ) -> Vec<(f64, f64)> {
        let mut truth: Vec<(f64, f64)> = qkv.iter().map(|&x| (f64::from(x), 0.0)).collect();
        for (row, &position) in truth.chunks_exact_mut(layout.width()).zip(positions) {
            for head in row
                .chunks_exact_mut(layout.head_dim)
                .take(layout.heads + layout.kv_heads)
            {
                for (i, frequency) in frequencies.iter().enumerate() {
                    let (sin, cos) = (f64::from(position) * frequency).sin_cos();
                    let (a, b) = (head[i].0, head[i + frequencies.len()].0);
                    let tolerance = 4.0 * 6e-8 * (a.abs() + b.abs());
                    head[i] = (a * cos - b * sin, tolerance);
                    head[i + frequencies.len()] = (b * cos + a * sin, tolerance);
                }
            }
        }
        truth
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_shape_is_right(
            layout in layouts(),
            tokens in 1_usize..60,
            partial in any::<bool>(),
            dtype in dtypes(),
            seed in any::<u32>(),
        ) {
            let seed = u64::from(seed);
            let qkv = numbers(seed, tokens * layout.width());
            // Some models rotate only the front of each head.
            let pairs = layout.head_dim / if partial { 4 } else { 2 };
            let frequencies: Vec<f64> = (0..pairs).map(|i| 10_000_f64.powf(-(i as f64) / pairs as f64)).collect();
            let rope = CpuRopeTable::new(&frequencies, 200).unwrap();
            let positions: Vec<i32> = (0..tokens).map(|t| ((t * 37 + seed as usize) % 200) as i32).collect();
            let slots: Vec<i32> = (0..tokens).map(|t| ((t * 3) % 64) as i32).collect();
            let truth = naive(&qkv, layout, &positions, &frequencies);
            for cpu in cpus() {
                let mut out = poisoned(qkv.len());
                out[..qkv.len()].copy_from_slice(&qkv);
                let mut kv = CpuKvPool::new(2, 64, layout, dtype).unwrap();
                kv.poison();
                let rotated = &mut out[..qkv.len()];
                let kernel = cpu
                    .run(|| reference(rotated, layout, &positions, &slots, &rope, &mut kv, 1))
                    .unwrap();
                assert_close(kernel, &out, &truth);
                // The pool holds just what the buffer now holds, rounded; other slots and layers are untouched.
                let [mut keys, mut values] = widened(kv.layer(1));
                for (row, &slot) in out.chunks_exact(layout.width()).zip(&slots) {
                    let (k, v) = row[layout.q_width()..].split_at(layout.kv_width());
                    let at = slot as usize * layout.kv_width()..(slot as usize + 1) * layout.kv_width();
                    prop_assert_eq!(&keys[at.clone()], &narrowed(dtype, k));
                    prop_assert_eq!(&values[at], &narrowed(dtype, v));
                }
                for &slot in &slots {
                    let at = slot as usize * layout.kv_width()..(slot as usize + 1) * layout.kv_width();
                    keys[at.clone()].fill(f32::NAN);
                    values[at].fill(f32::NAN);
                }
                prop_assert!(keys.iter().chain(&values).all(|x| x.is_nan()));
                prop_assert!(widened(kv.layer(0)).iter().flatten().all(|x| x.is_nan()));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let layout = QkvLayout {
            heads: 1,
            kv_heads: 1,
            head_dim: 4,
        };
        let rope = CpuRopeTable::new(&[1.0, 0.1], 8).unwrap();
        let check = |layout, positions: &[i32], slots: &[i32], expected: &str| {
            let mut kv = CpuKvPool::new(
                1,
                4,
                QkvLayout {
                    heads: 1,
                    kv_heads: 1,
                    head_dim: 4,
                },
                DType::F32,
            )
            .unwrap();
            let error =
                reference(&mut [0.0; 24], layout, positions, slots, &rope, &mut kv, 0).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(
            layout,
            &[0, 8],
            &[0, 1],
            "token 1 is at position 8, but the rope table has 8 positions",
        );
        check(
            layout,
            &[-1, 0],
            &[0, 1],
            "token 0 is at position -1, but the rope table has 8 positions",
        );
        check(
            layout,
            &[0, 1],
            &[0, 4],
            "token 1 goes to slot 4, but the KV pool has 4 slots",
        );
        let error = CpuRopeTable::new(&[1.0; 8], usize::MAX).unwrap_err();
        assert!(error.is_out_of_memory(), "{error}");
    }

    #[test]
    fn of_two_tokens_in_one_slot_the_later_stays() {
        let layout = QkvLayout {
            heads: 1,
            kv_heads: 1,
            head_dim: 1,
        };
        let rope = CpuRopeTable::new(&[], 1).unwrap();
        let mut kv = CpuKvPool::new(1, 1, layout, DType::F32).unwrap();
        let mut qkv = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        reference(&mut qkv, layout, &[0, 0], &[0, 0], &rope, &mut kv, 0).unwrap();
        assert_eq!(widened(kv.layer(0)), [[5.0], [6.0]]);
    }

    #[test]
    fn costs() {
        // 2 tokens of 9 query heads, 3 key heads and 3 value heads of 64.
        let layout = QkvLayout {
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
        };
        let expected = Cost {
            flops: 2 * 3 * 12 * 64,
            weight_bytes: 0,
            kv_bytes: 2 * 2 * 3 * 64 * 2,
            activation_bytes: 2 * (15 + 12) * 64 * 4 + 2 * 8,
        };
        assert_eq!(cost(2, layout, DType::F32, DType::BF16), expected);
    }
}
