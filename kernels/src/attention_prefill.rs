//! Causal attention over the paged pool.

use crate::cpu::KvLayer;
use crate::{AttentionBatch, Cost, CpuKvPool, DType, Error, Kernel, QkvLayout};

/// Attention of every query row over its visible positions.
pub fn reference(
    qkv: &[f32],
    layout: QkvLayout,
    batch: &AttentionBatch<'_, Vec<i32>>,
    kv: &CpuKvPool,
    layer: usize,
    out: &mut [f32],
) -> Result<Kernel, Error> {
    let layer = kv.layer(layer);
    let d = layout.head_dim;
    let group = layout.heads / layout.kv_heads;
    let scale = 1.0 / (d as f32).sqrt();
    let widen = |values: bool, at: usize, to: &mut [f32]| {
        let at = at..at + d;
        match layer {
            KvLayer::F32(k, v) => to.copy_from_slice(&(if values { v } else { k })[at]),
            KvLayer::F16(k, v) => to
                .iter_mut()
                .zip(&(if values { v } else { k })[at])
                .for_each(|(o, x)| *o = x.to_f32()),
            KvLayer::BF16(k, v) => to
                .iter_mut()
                .zip(&(if values { v } else { k })[at])
                .for_each(|(o, x)| *o = x.to_f32()),
        }
    };
    let mut wide = vec![0.0; d];
    let mut scores = Vec::new();
    for r in 0..batch.requests {
        let (start, end) = (
            batch.query_start[r] as usize,
            batch.query_start[r + 1] as usize,
        );
        let kv_len = batch.kv_len[r] as usize;
        for t in start..end {
            let visible = kv_len + t + 1 - end;
            for h in 0..layout.heads {
                let q = &qkv[t * layout.width() + h * d..][..d];
                let at = |p: usize| {
                    let page = batch.page_table[r * batch.max_pages + p / batch.page_size] as usize;
                    let slot = page * batch.page_size + p % batch.page_size;
                    (slot * layout.kv_heads + h / group) * d
                };
                scores.clear();
                for p in 0..visible {
                    widen(false, at(p), &mut wide);
                    scores.push(scale * q.iter().zip(&wide).map(|(a, b)| a * b).sum::<f32>());
                }
                let max = scores.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
                scores.iter_mut().for_each(|s| *s = (*s - max).exp());
                let sum: f32 = scores.iter().sum();
                let out = &mut out[t * layout.q_width() + h * d..][..d];
                out.fill(0.0);
                for (p, s) in scores.iter().enumerate() {
                    widen(true, at(p), &mut wide);
                    out.iter_mut()
                        .zip(&wide)
                        .for_each(|(o, v)| *o += s / sum * v);
                }
            }
        }
    }
    Ok("attention_prefill")
}

/// Work of `requests` `(query_len, kv_len)`.
pub fn cost(requests: &[(usize, usize)], layout: QkvLayout, activation: DType, kv: DType) -> Cost {
    let mut cost = Cost::default();
    for &(query_len, kv_len) in requests {
        let (q, kv_len) = (query_len as u64, kv_len as u64);
        // Row i of q sees kv_len - q + i + 1 positions.
        let pairs = q * (kv_len - q) + q * (q + 1) / 2;
        cost += Cost {
            flops: 4 * pairs * layout.q_width() as u64,
            weight_bytes: 0,
            kv_bytes: 2 * kv_len * layout.kv_width() as u64 * kv.size() as u64,
            activation_bytes: 2 * q * layout.q_width() as u64 * activation.size() as u64,
        };
    }
    cost
}
