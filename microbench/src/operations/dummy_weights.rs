//! Random weights for runs without a checkpoint.

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Shape, dimension};
use stepscope_kernels::{DType, Error, Kernel, dummy_weights};

use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role, any_shape};

pub(super) static DUMMY_WEIGHTS: Operation = Operation {
    name: "dummy_weights",
    summary: "random weights for runs without a checkpoint, those of the CPU",
    formula: "out[i] = ((word >> 8) / 2^23 - 1) / 1000, with word i % 4 of the four that Philox4x32-10 makes of the counter i / 4 and the key seed",
    dimensions: &[dimension("elements", 16_384, "weights of a parameter")],
    arguments: &[
        Argument::new("out", Kind::Storage, "[elements]", Role::Out, "the weights"),
        Argument::count("elements", "weights of a parameter"),
        Argument::count("seed", "the key, whose high half is 0"),
    ],
    check: any_shape,
    cost: |shape| dummy_weights::cost(shape.get("elements"), shape.dtype()),
    roundings: Some(1.0),
    on_cuda: |cuda, shape, _| Ok(Box::new(DummyWeights::new(cuda, shape)?)),
    on_cpu: |cpu, shape, _| Ok(Box::new(DummyWeights::new(cpu, shape)?)),
};

/// What is made depends on nothing but its size and type: there are no inputs.
struct DummyWeights<B: Probe> {
    out: B::Buffer,
    elements: usize,
    dtype: DType,
}

impl<B: Probe> DummyWeights<B> {
    fn new(b: &B, shape: &Shape) -> Result<Self, Error> {
        let elements = shape.get("elements");
        Ok(DummyWeights {
            out: b.poisoned(elements)?,
            elements,
            dtype: shape.dtype(),
        })
    }
}

impl<B: Probe> Problem<B> for DummyWeights<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        b.dummy_weights(&mut self.out, self.elements, self.dtype)
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        b.refill(&mut self.out, &[])
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        Ok(vec![b.output("out", &[self.elements], &self.out)?])
    }
}

impl OnCuda for DummyWeights<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        Ok(vec![
            Value::buffer(&self.out),
            Value::count(self.elements),
            Value::Count(dummy_weights::SEED as u32),
        ])
    }
}
