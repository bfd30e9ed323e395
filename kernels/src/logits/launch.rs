//! The CUDA launcher: the kernel is that of the embedding.

use stepscope_device::driver::DevicePointer;

use crate::cuda::{Cuda, CudaBuffer, CudaIndices};
use crate::{Error, Kernel, embedding};

/// Row `rows[i]` of `x` into row `first + i` of `out`, `count` rows of `width`.
pub(crate) fn gather_rows(
    cuda: &Cuda,
    x: &CudaBuffer,
    rows: &CudaIndices,
    count: usize,
    width: usize,
    first: usize,
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    let to: DevicePointer = out.pointer_to(first * width)?;
    embedding::launch::gather(cuda, rows, count, x.pointer(), width, to)?;
    Ok("gather_rows")
}
