//! Embedding lookup.

use crate::{Cost, CpuMatrix, DType, Error, Kernel, Values};

/// Row `ids[t]` of `table` into row `t` of `out`.
pub fn reference(ids: &[i32], table: &CpuMatrix, out: &mut [f32]) -> Result<Kernel, Error> {
    let width = table.cols();
    for (&id, out) in ids.iter().zip(out.chunks_exact_mut(width.max(1))) {
        let mut row = usize::try_from(id)
            .ok()
            .filter(|&r| r < table.rows())
            .ok_or_else(|| {
                Error::shape(format!(
                    "token id {id} is outside the vocabulary of {}",
                    table.rows()
                ))
            })?;
        for block in table.blocks() {
            let rows = block.shape()[0];
            if row >= rows {
                row -= rows;
                continue;
            }
            let at = row * width..(row + 1) * width;
            match block.values() {
                Values::F32(v) => out.copy_from_slice(&v[at]),
                Values::F16(v) => out
                    .iter_mut()
                    .zip(&v[at])
                    .for_each(|(o, x)| *o = x.to_f32()),
                Values::BF16(v) => out
                    .iter_mut()
                    .zip(&v[at])
                    .for_each(|(o, x)| *o = x.to_f32()),
            }
            break;
        }
    }
    Ok("embedding")
}

/// Work of `tokens` rows of `width`.
pub fn cost(tokens: usize, width: usize, weight: DType, activation: DType) -> Cost {
    let elements = (tokens * width) as u64;
    Cost {
        flops: 0,
        weight_bytes: elements * weight.size() as u64,
        kv_bytes: 0,
        activation_bytes: elements * activation.size() as u64 + tokens as u64 * 4,
    }
}
