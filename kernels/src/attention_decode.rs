//! Attention of one query row per request over the paged pool.

use crate::{AttentionBatch, Cost, CpuKvPool, DType, Error, Kernel, QkvLayout, attention_prefill};

/// Attention of one row per request.
pub fn reference(
    qkv: &[f32],
    layout: QkvLayout,
    batch: &AttentionBatch<'_, Vec<i32>>,
    kv: &CpuKvPool,
    layer: usize,
    out: &mut [f32],
) -> Result<Kernel, Error> {
    attention_prefill::reference(qkv, layout, batch, kv, layer, out)?;
    Ok("attention_decode")
}

/// Work of one query row per request, of these lengths.
pub fn cost(kv_lens: &[usize], layout: QkvLayout, activation: DType, kv: DType) -> Cost {
    let mut cost = Cost::default();
    for &kv_len in kv_lens {
        cost += attention_prefill::cost(&[(1, kv_len)], layout, activation, kv);
    }
    cost
}
