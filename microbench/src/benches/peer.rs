//! cuBLASLt beside our products, in the same run.

use std::rc::Rc;
use std::sync::Arc;

use half::bf16;
use stepscope_device::cublaslt::{CublasLt, Element, Handle, Matmul, Problem};
use stepscope_device::driver::DeviceBuffer;
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::microbench::{Peer as Row, Series, Status};

use crate::measure::Subject;
use crate::operations::Case;
use crate::{Error, Work};

/// Scratch memory that cuBLASLt may use: what NVIDIA's documentation of `cublasSetWorkspace` recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Elements of a result that are computed again in float64, along each side.
const CHECKED: usize = 5;

/// Which peers there are.
pub(super) struct Peers {
    cuda: Rc<Cuda>,
    handle: Option<Arc<Handle>>,
}

impl Peers {
    /// Says once why there is none on a GPU.
    pub(super) fn open(cuda: &Rc<Cuda>) -> Peers {
        let is_emulated = cuda.context().device().is_emulated();
        let handle = match is_emulated {
            true => None,
            false => match CublasLt::open().and_then(|library| Handle::new(&library, cuda.context())) {
                Ok(handle) => Some(Arc::new(handle)),
                Err(error) => {
                    println!("skipped: cublaslt beside gemm and gemv: {error}");
                    None
                }
            },
        };
        Peers {
            cuda: Rc::clone(cuda),
            handle,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        "cublaslt"
    }

    /// Whether there is one for this operation.
    pub(super) fn know(&self, operation: &str) -> bool {
        self.handle.is_some() && matches!(operation, "gemm" | "gemv")
    }

    pub(super) fn subject(&self, case: &Case, copies: usize) -> Result<Box<dyn Subject>, Error> {
        let handle = self.handle.as_ref();
        let handle = handle.ok_or_else(|| Error::Unusable("there is no cuBLASLt".to_owned()))?;
        let [m, n, k] = ["M", "N", "K"].map(|name| case.shape().get(name));
        let product = Product::new(&self.cuda, handle, [m, n, k], copies, case.work())?;
        Ok(Box::new(product))
    }

    /// As it stands in the row of ours.
    pub(super) fn row(&self, series: Series) -> Row {
        let library = self.handle.as_ref().map(|handle| handle.library());
        Row {
            name: "cuBLASLt".to_owned(),
            version: library.map(|library| library.version().to_string()),
            kernel: None,
            in_turn: true,
            status: Status::Ok,
            reason: None,
            series: Some(series),
        }
    }
}

struct Copy {
    x: DeviceBuffer<u16>,
    weight: DeviceBuffer<u16>,
    out: DeviceBuffer<u16>,
}

/// `out[m, n] = x[m, k] · weight[n, k]ᵀ` in bfloat16.
struct Product {
    cuda: Rc<Cuda>,
    plan: Matmul,
    copies: Vec<Copy>,
    shape: [usize; 3],
    work: Work,
}

/// From -0.5 to 0.5, different from their neighbours, and no multiples of anything.
fn numbers(len: usize, seed: u32) -> Vec<u16> {
    let mut state = 0x9E37_79B9_u32.wrapping_mul(2 * seed + 1);
    let numbers = (0..len).map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bf16::from_f32(state as f32 / u32::MAX as f32 - 0.5).to_bits()
    });
    numbers.collect()
}

impl Product {
    fn new(
        cuda: &Rc<Cuda>,
        handle: &Arc<Handle>,
        [m, n, k]: [usize; 3],
        copies: usize,
        work: Work,
    ) -> Result<Product, Error> {
        let problem = Problem {
            m,
            n,
            k,
            element: Element::Bf16,
            bias: None,
        };
        let buffer = |what, len, seed| -> Result<_, Error> {
            let mut buffer = DeviceBuffer::new(cuda.context(), what, len)?;
            buffer.write(cuda.stream(), 0, &numbers(len, seed))?;
            Ok(buffer)
        };
        let copy = |index: usize| {
            let seed = 2 * index as u32;
            Ok(Copy {
                x: buffer("cuBLASLt's activations", m * k, seed)?,
                weight: buffer("cuBLASLt's weight", n * k, seed + 1)?,
                out: DeviceBuffer::new(cuda.context(), "cuBLASLt's result", m * n)?,
            })
        };
        Ok(Product {
            plan: Matmul::new(handle, &problem, WORKSPACE_BYTES)?,
            copies: (0..copies.max(1)).map(copy).collect::<Result<_, Error>>()?,
            cuda: Rc::clone(cuda),
            shape: [m, n, k],
            work,
        })
    }
}

/// A few of `0..len`, the ends among them.
fn spread(len: usize) -> Vec<usize> {
    let last = len.saturating_sub(1);
    let mut places: Vec<usize> = (0..CHECKED).map(|i| last * i / (CHECKED - 1)).collect();
    places.dedup();
    places
}

impl Subject for Product {
    fn copies(&self) -> usize {
        self.copies.len()
    }

    fn launch(&mut self, copy: usize) -> Result<(), Error> {
        let Copy { x, weight, out } = &self.copies[copy];
        // SAFETY: the buffers hold as many elements as the plan's problem, live as long as this, and are used in this stream alone.
        unsafe {
            self.plan.run(self.cuda.stream(), x.pointer(), weight.pointer(), out.pointer())?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        let [m, n, k] = self.shape;
        let stream = self.cuda.stream();
        let read = |buffer: &DeviceBuffer<u16>, at, len| -> Result<Vec<f64>, Error> {
            let mut bits = vec![0; len];
            buffer.read(stream, at, &mut bits)?;
            Ok(bits.into_iter().map(|bits| bf16::from_bits(bits).to_f64()).collect())
        };
        for copy in &self.copies {
            for row in spread(m) {
                let x = read(&copy.x, row * k, k)?;
                for column in spread(n) {
                    let weight = read(&copy.weight, column * k, k)?;
                    let expected: f64 = x.iter().zip(&weight).map(|(x, w)| x * w).sum();
                    let got = read(&copy.out, row * n + column, 1)?[0];
                    // Terms of ±1/12 on average: the rounding of the result, and that of sums of float32 on the way.
                    let allowed = expected.abs() / 128.0 + 1e-6 * k as f64;
                    if (got - expected).is_nan() || (got - expected).abs() > allowed {
                        return Err(Error::Wrong(format!(
                            "cuBLASLt's element ({row}, {column}) of {m}x{n}x{k} is {got}, not {expected}"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn work(&self) -> Work {
        self.work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_spread_and_differ() {
        let first = numbers(1000, 0);
        let values: Vec<f32> = first.iter().map(|&bits| bf16::from_bits(bits).to_f32()).collect();
        assert!(values.iter().all(|x| (-0.5..=0.5).contains(x)));
        let mean = values.iter().sum::<f32>() / 1000.0;
        assert!(mean.abs() < 0.05, "{mean}");
        assert_ne!(first, numbers(1000, 1));
    }

    #[test]
    fn the_ends_are_checked_too() {
        assert_eq!(spread(4096), [0, 1023, 2047, 3071, 4095]);
        assert_eq!(spread(1), [0]);
        assert_eq!(spread(3), [0, 1, 2]);
    }
}
