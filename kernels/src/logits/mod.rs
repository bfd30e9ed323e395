//! The rows whose logits are wanted: row `rows[i]` of `x` becomes row `i` of `out`.
//!
//! A prefill needs the logits of the last token of each request only; gathering those rows first makes the product with the output
//! head, [`crate::gemm`], as small as that of a decode step.
//!
//! Shapes: `x` `[tokens, width]`, `rows` `[count]`, `out` `[count, width]`.
//!
//! ```text
//!   x     [ r0 r0 r0 | r1 r1 | r2 r2 r2 r2 ]        tokens of three requests
//!                 |         |            |
//!   out         [ r0,       r1,          r2 ]       one thread copies: a row of each request
//! ```
//!
//! What bounds it: memory; on the CUDA device, which gathers with the kernel of [`crate::embedding`], starting that kernel.

pub(crate) mod launch;

use crate::{Cost, DType, Error, Kernel};

/// Row `rows[i]` of `x` into row `i` of `out`. One thread: a batch has few requests.
///
/// # Errors
/// When a row is not in `x`.
///
/// # Panics
/// When `out` is shorter than its shape.
pub fn reference(x: &[f32], rows: &[i32], width: usize, out: &mut [f32]) -> Result<Kernel, Error> {
    let have = x.len() / width.max(1);
    for (i, &row) in rows.iter().enumerate() {
        let Some(row) = usize::try_from(row).ok().filter(|&r| r < have) else {
            return Err(Error::shape(format!(
                "the logits of row {row} are wanted, but the buffer has {have} rows of {width}"
            )));
        };
        out[i * width..(i + 1) * width].copy_from_slice(&x[row * width..(row + 1) * width]);
    }
    Ok("gather_rows")
}

/// The work of `rows` rows: read and written, with an index each.
pub fn cost(rows: usize, width: usize, activation: DType) -> Cost {
    Cost {
        flops: 0,
        weight_bytes: 0,
        kv_bytes: 0,
        activation_bytes: (2 * rows * width * activation.size() + rows * 4) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_gathered_in_order() {
        let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut out = [f32::NAN; 7];
        reference(&x, &[3, 0], 3, &mut out).unwrap();
        assert_eq!(out[..6], [9.0, 10.0, 11.0, 0.0, 1.0, 2.0]);
        assert!(out[6].is_nan());
    }

    #[test]
    fn a_row_outside_the_buffer_is_named() {
        for row in [4, -1] {
            let error = reference(&[0.0; 12], &[row], 3, &mut [0.0; 3]).unwrap_err();
            let expected =
                format!("the logits of row {row} are wanted, but the buffer has 4 rows of 3");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn costs() {
        let expected = Cost {
            flops: 0,
            weight_bytes: 0,
            kv_bytes: 0,
            activation_bytes: 2 * 2 * 5 * 2 + 8,
        };
        assert_eq!(cost(2, 5, DType::BF16), expected);
    }
}
