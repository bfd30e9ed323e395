//! The CUDA kernel's launcher.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Launch};

use super::SEED;
use crate::Error;
use crate::cuda::{Cuda, CudaMatrix, Source};

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

impl Cuda {
    /// A weight matrix `[rows, cols]` of the values that [`uniform`](super::uniform) makes, made on the device.
    ///
    /// # Errors
    /// It does not fit into the device's memory, or the device failed.
    pub fn dummy_matrix(&self, rows: usize, cols: usize) -> Result<CudaMatrix, Error> {
        let what = format!("a dummy weight matrix [{rows}, {cols}]");
        let elements = rows
            .checked_mul(cols)
            .ok_or_else(|| Error::out_of_memory(&*what, u128::MAX))?;
        let mut values = DeviceBuffer::new(self.context(), &what, elements)?;
        fill(self, &mut values, elements)?;
        Ok(CudaMatrix { values, rows, cols })
    }
}

/// Fills the first `elements` of a buffer.
fn fill(cuda: &Cuda, out: &mut DeviceBuffer<u16>, elements: usize) -> Result<(), Error> {
    if elements == 0 {
        return Ok(());
    }
    let kernel = cuda.kernel::<DummyWeights>(&SOURCE, [0; 4], || expression(cuda.element()))?;
    let arguments = DummyWeights {
        out: out.pointer(),
        elements: elements as u64,
        seed: SEED,
    };
    // SAFETY: the buffer holds as many elements.
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

    use super::*;
    use crate::cuda::testing::{emulated, rounded};
    use crate::dummy_weights::uniform;
    use crate::testing::cpus;
    use crate::{DType, HostTensor};

    fn check(dtype: DType, elements: usize) -> Result<(), TestCaseError> {
        let Some(cuda) = emulated(dtype) else {
            return Ok(());
        };
        let mut out = cuda.poisoned(elements);
        fill(&cuda, &mut out, elements).unwrap();
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
    fn a_matrix_has_its_shape() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let matrix = cuda.dummy_matrix(3, 40).unwrap();
        assert_eq!((matrix.rows(), matrix.cols()), (3, 40));
        cuda.reports();
        assert!(
            cuda.dummy_matrix(usize::MAX, 2)
                .unwrap_err()
                .is_out_of_memory()
        );
    }
}
