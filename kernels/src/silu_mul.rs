//! Gated activation.

use crate::{Cost, DType, Kernel};

/// `out = silu(gate) * up`, rows of `gate_up` being `[gate, up]`.
pub fn reference(gate_up: &[f32], width: usize, out: &mut [f32]) -> Kernel {
    for (row, out) in gate_up
        .chunks_exact(2 * width.max(1))
        .zip(out.chunks_exact_mut(width.max(1)))
    {
        let (gate, up) = row.split_at(width);
        for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
            *o = g / (1.0 + (-g).exp()) * u;
        }
    }
    "silu_mul"
}

/// Work of `rows` rows of `width` outputs.
pub fn cost(rows: usize, width: usize, activation: DType) -> Cost {
    let elements = (rows * width) as u64;
    Cost {
        flops: 5 * elements,
        weight_bytes: 0,
        kv_bytes: 0,
        activation_bytes: 3 * elements * activation.size() as u64,
    }
}
