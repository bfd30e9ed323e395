//! RMS normalisation.

use crate::{Cost, DType, Kernel, QkvLayout};

/// `out = x / sqrt(mean(x²) + eps) * weight`, row by row.
pub fn reference(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Kernel {
    let width = weight.len().max(1);
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let squares: f32 = x.iter().map(|x| x * x).sum();
        let scale = 1.0 / (squares / width as f32 + eps).sqrt();
        for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
            *o = x * scale * w;
        }
    }
    "rms_norm"
}

/// `residual += x`, then `out = rms_norm(residual)`.
pub fn add_reference(
    x: &[f32],
    residual: &mut [f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Kernel {
    residual.iter_mut().zip(x).for_each(|(r, x)| *r += x);
    reference(residual, weight, eps, out);
    "add_rms_norm"
}

/// Each query head and key head of `qkv` normalised in place.
pub fn qk_reference(
    qkv: &mut [f32],
    layout: QkvLayout,
    q_weight: &[f32],
    k_weight: &[f32],
    eps: f32,
) -> Kernel {
    let mut head_out = vec![0.0; layout.head_dim];
    for row in qkv.chunks_exact_mut(layout.width()) {
        for (h, head) in row
            .chunks_exact_mut(layout.head_dim)
            .take(layout.heads + layout.kv_heads)
            .enumerate()
        {
            let weight = if h < layout.heads { q_weight } else { k_weight };
            reference(head, weight, eps, &mut head_out);
            head.copy_from_slice(&head_out);
        }
    }
    "qk_norm"
}

/// Work of [`reference`].
pub fn cost(rows: usize, width: usize, activation: DType) -> Cost {
    let (elements, size) = ((rows * width) as u64, activation.size() as u64);
    Cost {
        flops: 4 * elements,
        weight_bytes: width as u64 * size,
        kv_bytes: 0,
        activation_bytes: 2 * elements * size,
    }
}

/// Work of [`add_reference`].
pub fn add_cost(rows: usize, width: usize, activation: DType) -> Cost {
    let (elements, size) = ((rows * width) as u64, activation.size() as u64);
    Cost {
        flops: 5 * elements,
        weight_bytes: width as u64 * size,
        kv_bytes: 0,
        activation_bytes: 4 * elements * size,
    }
}

/// Work of [`qk_reference`].
pub fn qk_cost(tokens: usize, layout: QkvLayout, activation: DType) -> Cost {
    let elements = (tokens * (layout.q_width() + layout.kv_width())) as u64;
    let size = activation.size() as u64;
    Cost {
        flops: 4 * elements,
        weight_bytes: 2 * layout.head_dim as u64 * size,
        kv_bytes: 0,
        activation_bytes: 2 * elements * size,
    }
}
