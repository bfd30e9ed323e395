//! cuBLASLt's matrix multiplications, without `unsafe` for whoever compares with them.

use std::sync::Arc;

use stepscope_device::cublaslt::{CublasLt, Element, Handle, Matmul, Problem};
use stepscope_kernels::DType;
use stepscope_kernels::cuda::{Cuda, CudaBuffer, CudaMatrix};

use crate::Error;

/// Scratch memory that cuBLASLt may use: what NVIDIA's documentation of `cublasSetWorkspace` recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// cuBLASLt on the device of `cuda`.
///
/// # Errors
/// The library is missing, or the device is an emulated one, whose memory it cannot reach.
pub fn open(cuda: &Cuda) -> Result<Arc<Handle>, Error> {
    let device = cuda.context().device();
    if device.is_emulated() {
        return Err(Error::Unusable(
            "cuBLASLt runs on NVIDIA's GPUs only, and this device is emulated".to_owned(),
        ));
    }
    let library = CublasLt::open()?;
    Ok(Arc::new(Handle::new(&library, cuda.context())?))
}

/// `out[m, n] = x[m, k] · weight[n, k]ᵀ`, by the first algorithm that cuBLASLt's heuristic suggests.
#[derive(Debug)]
pub struct Product {
    plan: Matmul,
}

impl Product {
    /// Plans it for matrices of the storage type of `cuda`, the device of `handle`.
    ///
    /// # Errors
    /// cuBLASLt has no algorithm for it, or memory ran out.
    pub fn new(cuda: &Cuda, handle: &Arc<Handle>, [m, n, k]: [usize; 3]) -> Result<Product, Error> {
        let problem = Problem {
            m,
            n,
            k,
            element: match cuda.dtype() {
                DType::F16 => Element::F16,
                _ => Element::Bf16,
            },
            bias: None,
        };
        Ok(Product {
            plan: Matmul::new(handle, &problem, WORKSPACE_BYTES)?,
        })
    }

    /// Puts it into the stream of `cuda`, and does not wait.
    ///
    /// # Errors
    /// A matrix is of another size, or cuBLASLt refused.
    pub fn launch(
        &self,
        cuda: &Cuda,
        x: &CudaBuffer,
        weight: &CudaMatrix,
        out: &mut CudaBuffer,
    ) -> Result<(), Error> {
        let Problem { m, n, k, .. } = *self.plan.problem();
        check(m, n, k, x.len(), [weight.rows(), weight.cols()], out.len())?;
        let weight = weight.values().pointer();
        // SAFETY: the matrices are of the sizes of the plan, as was just checked; they and the plan's workspace are plain memory,
        // which is freed behind everything in flight, and all that uses them is in this one stream.
        let queued = unsafe {
            self.plan
                .run(cuda.stream(), x.pointer(), weight, out.pointer())
        };
        Ok(queued?)
    }
}

/// That matrices of these sizes are those of an `m × n × k` product.
fn check(
    m: usize,
    n: usize,
    k: usize,
    x: usize,
    weight: [usize; 2],
    out: usize,
) -> Result<(), Error> {
    if x >= m * k && weight == [n, k] && out >= m * n {
        return Ok(());
    }
    let [rows, cols] = weight;
    Err(Error::Unusable(format!(
        "a product of {m} × {n} × {k} takes activations of {} elements, weights [{n}, {k}] and results of {}, not {x}, [{rows}, {cols}] and {out}",
        m * k,
        m * n
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_product() {
        assert!(check(2, 3, 4, 8, [3, 4], 6).is_ok());
        // Buffers may be longer than what is used of them.
        assert!(check(2, 3, 4, 9, [3, 4], 7).is_ok());
        for (x, weight, out) in [(7, [3, 4], 6), (8, [4, 3], 6), (8, [3, 4], 5)] {
            let error = check(2, 3, 4, x, weight, out).unwrap_err().to_string();
            assert!(error.starts_with("a product of 2 × 3 × 4 takes"), "{error}");
        }
    }
}
