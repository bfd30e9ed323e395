//! Gather of the rows whose logits are wanted.

use crate::{Cost, DType, Error, Kernel};

/// Row `rows[i]` of `x` into row `i` of `out`.
pub fn reference(x: &[f32], rows: &[i32], width: usize, out: &mut [f32]) -> Result<Kernel, Error> {
    let available = x.len() / width.max(1);
    for (&row, out) in rows.iter().zip(out.chunks_exact_mut(width.max(1))) {
        let r = usize::try_from(row)
            .ok()
            .filter(|&r| r < available)
            .ok_or_else(|| {
                Error::shape(format!(
                    "row {row} is outside the {available} rows of the buffer"
                ))
            })?;
        out.copy_from_slice(&x[r * width..(r + 1) * width]);
    }
    Ok("gather_rows")
}

/// Work of `rows` rows.
pub fn cost(rows: usize, width: usize, activation: DType) -> Cost {
    Cost {
        flops: 0,
        weight_bytes: 0,
        kv_bytes: 0,
        activation_bytes: (2 * rows * width * activation.size() + rows * 4) as u64,
    }
}
