//! An operation at a shape: its inputs, and what must come out.

use std::cell::OnceCell;
use std::rc::Rc;

use stepscope_kernels::Cpu;
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::Shape;

use super::inputs::Inputs;
use super::probe::Output;
use super::subject::{Blas, Builtin, Foreign, ForeignLaunch};
use super::{Comparison, Operation};
use crate::{Error, Work};

/// An operation at a shape.
#[derive(Debug)]
pub struct Case {
    operation: &'static Operation,
    shape: Shape,
    pub(super) inputs: Inputs,
    reference: OnceCell<Vec<Output>>,
}

impl Case {
    /// `operation` at `shape`, with inputs that `seed` decides.
    ///
    /// # Errors
    /// The operation is not made for this shape.
    pub fn new(operation: &'static Operation, shape: &Shape, seed: u64) -> Result<Rc<Case>, Error> {
        (operation.check)(shape)?;
        Ok(Rc::new(Case {
            operation,
            shape: shape.clone(),
            inputs: Inputs::new(seed, shape.dtype()),
            reference: OnceCell::new(),
        }))
    }

    /// What it computes.
    pub fn operation(&self) -> &'static Operation {
        self.operation
    }

    /// Its numbers.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What a launch does.
    pub fn work(&self) -> Work {
        self.operation.work(&self.shape)
    }

    /// The kernel that this program has for it, on `copies` copies of the inputs.
    ///
    /// # Errors
    /// There is no memory, or `cuda` stores numbers in another type than the shape says.
    pub fn builtin<'a>(
        self: &Rc<Case>,
        cuda: &'a Cuda,
        copies: usize,
    ) -> Result<Builtin<'a>, Error> {
        Builtin::new(Rc::clone(self), cuda, copies)
    }

    /// A kernel that this program does not have, or a row of them.
    ///
    /// # Errors
    /// As [`Case::builtin`]; and the kernels do not take the arguments of the operation.
    pub fn foreign<'a>(
        self: &Rc<Case>,
        cuda: &'a Cuda,
        copies: usize,
        launches: Vec<ForeignLaunch>,
        scratch_bytes: usize,
    ) -> Result<Foreign<'a>, Error> {
        Foreign::new(Rc::clone(self), cuda, copies, launches, scratch_bytes)
    }

    /// cuBLASLt's product, of a `gemm` or `gemv` without a bias.
    ///
    /// # Errors
    /// It is another operation, there is no cuBLASLt or no memory, or the device is emulated.
    pub fn cublaslt<'a>(self: &Rc<Case>, cuda: &'a Cuda, copies: usize) -> Result<Blas<'a>, Error> {
        Blas::new(Rc::clone(self), cuda, copies)
    }

    /// What must come out: computed once, by the CPU device in float32.
    fn reference(&self) -> Result<&[Output], Error> {
        if let Some(known) = self.reference.get() {
            return Ok(known);
        }
        let cpu = Cpu::new(None)?;
        let mut problem = (self.operation.on_cpu)(&cpu, &self.shape, &self.inputs)?;
        cpu.run(|| problem.launch(&cpu))?;
        let outputs = problem.outputs(&cpu)?;
        Ok(self.reference.get_or_init(|| outputs))
    }

    /// Holds outputs of this case against the reference.
    pub(super) fn compare(&self, got: &[Output]) -> Result<Vec<Comparison>, Error> {
        let truth = self.reference()?;
        let (dtype, roundings) = (self.shape.dtype(), self.operation.roundings);
        Ok(got
            .iter()
            .zip(truth)
            .map(|(got, truth)| Comparison::of(got, truth, dtype, roundings))
            .collect())
    }
}

/// Copies of `case` that together are three times the second-level cache, so that by the time a copy's turn comes again nothing of it
/// is left there; 64 at most, and one where there are no times.
pub fn copies_for_cold_cache(cuda: &Cuda, case: &Case) -> usize {
    let device = cuda.context().device();
    if device.is_emulated() {
        return 1;
    }
    let bytes = case.work().bytes.max(1);
    let wanted = (3 * device.limits.l2_bytes).div_ceil(bytes);
    wanted.clamp(1, 64) as usize
}
