//! The CUDA kernel's launcher.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use crate::cuda::{Cuda, CudaBuffer, Source};
use crate::{Error, Kernel};

static SOURCE: Source = Source {
    name: "silu_mul.cu",
    text: include_str!("silu_mul.cu"),
};

/// Threads of a block.
const THREADS: u32 = 256;

arguments! {
    struct SiluMul {
        gate_up: DevicePointer,
        out: DevicePointer,
        rows: u32,
        width: u32,
    }
}

/// `out = silu(gate) * up`: `gate_up` `[rows, 2 * width]`, `out` `[rows, width]`.
pub(crate) fn silu_mul(
    cuda: &Cuda,
    gate_up: &CudaBuffer,
    rows: usize,
    width: usize,
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    let vector = vector(width);
    let element = cuda.element();
    let kernel = cuda.kernel::<SiluMul>(&SOURCE, [vector as u32, 0, 0, 0], || {
        expression(element, vector)
    })?;
    let launch = geometry(rows, width);
    let arguments = SiluMul {
        gate_up: gate_up.pointer(),
        out: out.pointer(),
        rows: rows as u32,
        width: width as u32,
    };
    // SAFETY: the buffers hold as many elements as the shapes say, which is the contract of `Backend`.
    unsafe { cuda.launch(&kernel, &launch, &arguments)? };
    Ok("silu_mul")
}

/// Elements of a thread. Rows that are whole vectors begin at multiples of 16 bytes, gates and ups alike.
fn vector(width: usize) -> usize {
    if width.is_multiple_of(8) { 8 } else { 1 }
}

fn expression(element: &str, vector: usize) -> String {
    format!("silu_mul<{element}, {vector}>")
}

fn geometry(rows: usize, width: usize) -> Launch {
    let items = rows * width / vector(width);
    Launch::of_blocks(items.div_ceil(THREADS as usize) as u32, THREADS)
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::cuda::testing::{emulated, rounded, widened};
    use crate::testing::numbers;
    use crate::{Backend, DType};

    fn check(dtype: DType, rows: usize, width: usize) -> Result<(), TestCaseError> {
        let Some(cuda) = emulated(dtype) else {
            return Ok(());
        };
        let gate_up: Vec<f32> = numbers(1, rows * 2 * width)
            .iter()
            .map(|x| x * 8.0)
            .collect();
        let x = cuda.upload(&rounded(&gate_up, dtype));
        let mut out = cuda.poisoned(rows * width);
        cuda.silu_mul(&x, rows, width, &mut out).unwrap();
        let got = cuda.download(&out);
        for row in 0..rows {
            for column in 0..width {
                let value = |at: usize| f64::from(widened(gate_up[row * 2 * width + at], dtype));
                let (gate, up) = (value(column), value(width + column));
                let truth = gate / (1.0 + (-gate).exp()) * up;
                cuda.assert_rounded("silu_mul", got[row * width + column], truth, 4e-6)?;
            }
        }
        cuda.assert_clean(&out, rows * width);
        Ok(())
    }

    #[test]
    fn agrees_with_float64_and_is_clean() {
        for dtype in [DType::BF16, DType::F16] {
            for (rows, width) in [(1, 8), (3, 40), (2, 7), (5, 4864), (1, 1)] {
                check(dtype, rows, width).unwrap();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn any_shape(rows in 1_usize..6, width in 1_usize..300) {
            check(DType::BF16, rows, width)?;
        }
    }
}
