//! Rotary embedding and KV write.

use half::{bf16, f16};

use crate::cpu::KvLayerMut;
use crate::{Cost, CpuKvPool, DType, Error, Kernel, QkvLayout};

/// Cosines and sines of every position.
#[derive(Debug, Clone)]
pub struct CpuRopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
    positions: usize,
}

impl CpuRopeTable {
    /// The rotation of position `p` and pair `i` is `p * inverse_frequencies[i]`.
    pub fn new(inverse_frequencies: &[f64], positions: usize) -> Result<CpuRopeTable, Error> {
        let pairs = inverse_frequencies.len();
        let bytes = pairs as u128 * positions as u128 * 8;
        let refused = || Error::out_of_memory("the rope table", bytes);
        let len = pairs.checked_mul(positions).ok_or_else(refused)?;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        cos.try_reserve_exact(len).map_err(|_| refused())?;
        sin.try_reserve_exact(len).map_err(|_| refused())?;
        for p in 0..positions {
            for f in inverse_frequencies {
                let (s, c) = (p as f64 * f).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        Ok(CpuRopeTable {
            cos,
            sin,
            pairs,
            positions,
        })
    }
}

/// Rotates queries and keys in place and writes keys and values to their slots.
pub fn reference(
    qkv: &mut [f32],
    layout: QkvLayout,
    positions: &[i32],
    slots: &[i32],
    rope: &CpuRopeTable,
    kv: &mut CpuKvPool,
    layer: usize,
) -> Result<Kernel, Error> {
    let d = layout.head_dim;
    let half = rope.pairs;
    let pool_slots = kv.slots();
    let mut layer = kv.layer_mut(layer);
    for ((row, &position), &slot) in qkv
        .chunks_exact_mut(layout.width())
        .zip(positions)
        .zip(slots)
    {
        let p = usize::try_from(position)
            .ok()
            .filter(|&p| p < rope.positions)
            .ok_or_else(|| {
                Error::shape(format!(
                    "position {position} is outside the rope table of {}",
                    rope.positions
                ))
            })?;
        let slot = usize::try_from(slot)
            .ok()
            .filter(|&s| s < pool_slots)
            .ok_or_else(|| {
                Error::shape(format!(
                    "slot {slot} is outside the KV pool of {pool_slots}"
                ))
            })?;
        let cos = &rope.cos[p * half..(p + 1) * half];
        let sin = &rope.sin[p * half..(p + 1) * half];
        for head in row.chunks_exact_mut(d).take(layout.heads + layout.kv_heads) {
            for i in 0..half {
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos[i] - b * sin[i];
                head[i + half] = b * cos[i] + a * sin[i];
            }
        }
        let width = layout.kv_width();
        let at = slot * width..(slot + 1) * width;
        let (keys, values) = row[layout.q_width()..].split_at(width);
        match &mut layer {
            KvLayerMut::F32(k, v) => {
                k[at.clone()].copy_from_slice(keys);
                v[at].copy_from_slice(values);
            }
            KvLayerMut::F16(k, v) => {
                k[at.clone()]
                    .iter_mut()
                    .zip(keys)
                    .for_each(|(o, &x)| *o = f16::from_f32(x));
                v[at]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(o, &x)| *o = f16::from_f32(x));
            }
            KvLayerMut::BF16(k, v) => {
                k[at.clone()]
                    .iter_mut()
                    .zip(keys)
                    .for_each(|(o, &x)| *o = bf16::from_f32(x));
                v[at]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(o, &x)| *o = bf16::from_f32(x));
            }
        }
    }
    Ok("rope_kv")
}

/// Work of `tokens` rows.
pub fn cost(tokens: usize, layout: QkvLayout, activation: DType, kv: DType) -> Cost {
    let t = tokens as u64;
    let rotated = (layout.q_width() + layout.kv_width()) as u64;
    Cost {
        flops: 3 * t * rotated,
        weight_bytes: 0,
        kv_bytes: 2 * t * layout.kv_width() as u64 * kv.size() as u64,
        activation_bytes: t * (layout.width() as u64 + rotated) * activation.size() as u64 + 8 * t,
    }
}
