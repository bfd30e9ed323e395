use crate::{DType, Error, HostTensor};

/// A weight matrix `[rows, cols]`: blocks of rows, one under the other, each a tensor that is kept where it is. A fused
/// QKV matrix is three blocks of a mapped file, and copies none of them.
#[derive(Debug, Clone)]
pub struct CpuMatrix {
    blocks: Vec<HostTensor>,
    rows: usize,
    cols: usize,
    dtype: DType,
}

impl CpuMatrix {
    /// The matrix of `blocks`.
    ///
    /// # Errors
    /// When there is no block, one is not two-dimensional, or columns or data types differ.
    pub fn new(blocks: &[HostTensor]) -> Result<CpuMatrix, Error> {
        let first = blocks
            .first()
            .ok_or_else(|| Error::shape("a matrix needs at least one block of rows"))?;
        let dtype = first.dtype();
        let mut rows = 0;
        for block in blocks {
            match (block.shape(), first.shape()) {
                (&[r, cols], &[_, first_cols]) if cols == first_cols => rows += r,
                (shape, first_shape) => {
                    return Err(Error::shape(format!(
                        "the blocks of a matrix need two dimensions and equal columns, \
                         not {shape:?} under {first_shape:?}"
                    )));
                }
            }
            if block.dtype() != dtype {
                return Err(Error::shape(format!(
                    "the blocks of a matrix need one data type, not {} under {dtype}",
                    block.dtype()
                )));
            }
        }
        Ok(CpuMatrix {
            rows,
            cols: first.shape()[1],
            dtype,
            blocks: blocks.to_vec(),
        })
    }

    /// Outputs of `x @ W^T`.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of `x @ W^T`.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the weights are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The row blocks, top down.
    pub fn blocks(&self) -> &[HostTensor] {
        &self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> HostTensor {
        HostTensor::from_f32(shape, vec![0.0; shape.iter().product()]).unwrap()
    }

    #[test]
    fn blocks_are_kept_without_copying() {
        let (a, b) = (tensor(&[2, 3]), tensor(&[1, 3]));
        let matrix = CpuMatrix::new(&[a.clone(), b]).unwrap();
        assert_eq!((matrix.rows(), matrix.cols()), (3, 3));
        assert_eq!(matrix.blocks()[0].bytes().as_ptr(), a.bytes().as_ptr());
    }

    #[test]
    fn blocks_that_do_not_fit_together_are_named() {
        let check = |blocks: &[HostTensor], expected: &str| {
            assert_eq!(CpuMatrix::new(blocks).unwrap_err().to_string(), expected);
        };
        check(&[], "a matrix needs at least one block of rows");
        check(
            &[tensor(&[2, 3]), tensor(&[2, 4])],
            "the blocks of a matrix need two dimensions and equal columns, not [2, 4] under [2, 3]",
        );
        check(
            &[
                tensor(&[2, 3]),
                tensor(&[2, 3]).to_dtype(DType::F16).unwrap(),
            ],
            "the blocks of a matrix need one data type, not float16 under float32",
        );
    }
}
