//! The CUDA kernel's launcher.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Launch};

use super::SEED;
use crate::cuda::{Cuda, CudaBuffer, CudaMatrix, Source};
use crate::{Error, Kernel};

static SOURCE: Source = Source {
    name: "dummy_weights.cu",
    text: include_str!("dummy_weights.cu"),
};

/// Threads of a block.
const THREADS: usize = 256;
/// Elements of a thread.
const VECTOR: usize = 8;

arguments! {
    struct DummyWeights {
        out: DevicePointer,
        elements: u64,
        seed: u64,
    }
}

/// A matrix of parameters of `cols` columns and these rows, made on the device; nothing where a parameter does not begin at a whole
/// vector.
///
/// # Errors
/// It does not fit into the device's memory, or the device failed.
pub(crate) fn matrix(
    cuda: &Cuda,
    rows: &[usize],
    cols: usize,
) -> Result<Option<CudaMatrix>, Error> {
    let all = rows
        .iter()
        .try_fold(0_usize, |all, rows| all.checked_add(*rows));
    let elements = all.and_then(|all| all.checked_mul(cols));
    let too_large = || Error::out_of_memory("a dummy weight matrix", u128::MAX);
    let (all, elements) = all.zip(elements).ok_or_else(too_large)?;
    let (last, before) = match rows.split_last() {
        Some((last, before)) => (*last, before),
        None => (0, rows),
    };
    if before
        .iter()
        .any(|rows| !(rows * cols).is_multiple_of(VECTOR))
    {
        return Ok(None);
    }
    let what = format!("a dummy weight matrix [{all}, {cols}]");
    let values = DeviceBuffer::new(cuda.context(), &what, elements)?;
    let mut at = 0;
    for rows in before.iter().copied().chain([last]) {
        if rows * cols > 0 {
            // SAFETY: the parameter lies within the buffer, and begins at a multiple of 16 bytes.
            unsafe { fill(cuda, values.pointer_to(at)?, rows * cols)? };
        }
        at += rows * cols;
    }
    Ok(Some(CudaMatrix {
        values,
        rows: all,
        cols,
    }))
}

impl Cuda {
    /// Fills the first `elements` of a buffer with [`crate::dummy_weights`].
    ///
    /// # Errors
    /// The buffer has fewer, or the device refused.
    pub fn fill_dummy_weights(
        &self,
        out: &mut CudaBuffer,
        elements: usize,
    ) -> Result<Kernel, Error> {
        if elements > out.len() {
            return Err(Error::shape(format!(
                "dummy_weights: {elements} elements, but the buffer holds {}",
                out.len()
            )));
        }
        if elements > 0 {
            // SAFETY: there are as many, and memory of the device's begins at a multiple of 256 bytes.
            unsafe { fill(self, out.pointer(), elements)? };
        }
        Ok("dummy_weights")
    }
}

/// Fills `elements`, one or more, from `out` on.
///
/// # Safety
/// There are as many, and `out` is a multiple of 16 bytes.
unsafe fn fill(cuda: &Cuda, out: DevicePointer, elements: usize) -> Result<(), Error> {
    let kernel = cuda.kernel::<DummyWeights>(&SOURCE, [0; 4], || expression(cuda.element()))?;
    let arguments = DummyWeights {
        out,
        elements: elements as u64,
        seed: SEED,
    };
    // SAFETY: the caller's promise.
    unsafe { cuda.launch(&kernel, &geometry(elements)?, &arguments) }
}

fn expression(element: &str) -> String {
    format!("dummy_weights<{element}>")
}

fn geometry(elements: usize) -> Result<Launch, Error> {
    let blocks = elements.div_ceil(THREADS * VECTOR);
    // A grid has fewer blocks than 2^31 along x: that is 8 TiB.
    let blocks = u32::try_from(blocks)
        .ok()
        .filter(|&blocks| blocks < 1 << 31);
    let blocks = blocks.ok_or_else(|| {
        Error::shape(format!(
            "dummy_weights: {elements} elements of one parameter"
        ))
    })?;
    Ok(Launch::of_blocks(blocks, THREADS as u32))
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::cuda::testing::{emulated, rounded};
    use crate::dummy_weights::{uniform, uniform_here};
    use crate::testing::cpus;
    use crate::{Backend as _, DType, HostTensor};

    fn check(dtype: DType, elements: usize) -> Result<(), TestCaseError> {
        let Some(cuda) = emulated(dtype) else {
            return Ok(());
        };
        let mut out = cuda.poisoned(elements);
        cuda.fill_dummy_weights(&mut out, elements).unwrap();
        let [cpu, _] = cpus();
        let expected: HostTensor = uniform(&cpu, dtype, &[elements]).unwrap();
        let got = cuda.download_bits(&out);
        prop_assert_eq!(&got[..elements], &rounded(&expected.to_f32(), dtype)[..]);
        cuda.assert_clean(&out, elements);
        Ok(())
    }

    #[test]
    fn values_are_those_of_the_cpu_bit_for_bit() {
        proptest!(ProptestConfig::with_cases(12), |(elements in 1_usize..5000, f16 in any::<bool>())| {
            check(if f16 { DType::F16 } else { DType::BF16 }, elements)?;
        });
        check(DType::BF16, 256 * 8).unwrap();
        check(DType::F16, 256 * 8 + 1).unwrap();
    }

    #[test]
    fn a_short_buffer_is_refused() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let mut out = cuda.upload(&[0; 8]);
        assert_eq!(
            cuda.fill_dummy_weights(&mut out, 0).unwrap(),
            "dummy_weights"
        );
        let len = out.len();
        let error = cuda.fill_dummy_weights(&mut out, len + 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "dummy_weights: {} elements, but the buffer holds {len}",
                len + 1
            )
        );
    }

    /// Parameters under one another are those of the CPU, also where they do not begin at whole vectors or are stored in another
    /// type, and the host makes them.
    #[test]
    fn a_matrix_is_the_host_s() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let check = |dtype, blocks: &[[usize; 2]], launches: usize| {
            cuda.reports();
            let matrix = cuda.dummy_matrix(dtype, blocks).unwrap();
            assert_eq!(cuda.reports().len(), launches);
            let host: Vec<HostTensor> = blocks
                .iter()
                .map(|shape| uniform_here(dtype, shape).unwrap())
                .collect();
            let expected = cuda.matrix(&host).unwrap();
            assert_eq!(
                (matrix.rows(), matrix.cols()),
                (expected.rows(), expected.cols())
            );
            let [got, expected] =
                [&matrix, &expected].map(|matrix| cuda.download_bits(&matrix.values));
            assert_eq!(got, expected);
        };
        check(DType::BF16, &[[3, 40]], 1);
        check(DType::BF16, &[[7, 40], [2, 40], [3, 40]], 3);
        check(DType::BF16, &[[2, 12], [1, 12]], 2);
        check(DType::BF16, &[[3, 12], [1, 12]], 0);
        check(DType::F32, &[[3, 40]], 0);
        let error = cuda.dummy_matrix(DType::BF16, &[[usize::MAX, 2]]);
        assert!(error.unwrap_err().is_out_of_memory());
    }
}
