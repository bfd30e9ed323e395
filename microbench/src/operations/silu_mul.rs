//! The gate of an MLP.

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Shape, dimension};
use stepscope_kernels::{Error, Kernel, silu_mul};

use super::inputs::Inputs;
use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role, any_shape};

pub(super) static SILU_MUL: Operation = Operation {
    name: "silu_mul",
    summary: "the gate of an MLP",
    formula: "out[r, i] = silu(gate_up[r, i]) * gate_up[r, width + i], with silu(x) = x / (1 + exp(-x)), in float32",
    dimensions: &[
        dimension("rows", 32, "rows"),
        dimension(
            "width",
            1024,
            "elements of a row of out; gate_up has twice as many",
        ),
    ],
    arguments: &[
        Argument::new(
            "gate_up",
            Kind::Storage,
            "[rows, 2 * width]",
            Role::In,
            "of each row the gate, then what it gates",
        ),
        Argument::new(
            "out",
            Kind::Storage,
            "[rows, width]",
            Role::Out,
            "the gated rows",
        ),
        Argument::count("rows", "rows"),
        Argument::count("width", "elements of a row of out"),
    ],
    check: any_shape,
    cost: |shape| silu_mul::cost(shape.get("rows"), shape.get("width"), shape.dtype()),
    roundings: Some(1.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(SiluMul::new(cuda, shape, inputs)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(SiluMul::new(cpu, shape, inputs)?)),
};

struct SiluMul<B: Probe> {
    gate_up: B::Buffer,
    out: B::Buffer,
    rows: usize,
    width: usize,
}

impl<B: Probe> SiluMul<B> {
    fn new(b: &B, shape: &Shape, inputs: &Inputs) -> Result<Self, Error> {
        let [rows, width] = ["rows", "width"].map(|name| shape.get(name));
        Ok(SiluMul {
            gate_up: b.filled(&inputs.activations(0, 2 * rows * width))?,
            out: b.poisoned(rows * width)?,
            rows,
            width,
        })
    }
}

impl<B: Probe> Problem<B> for SiluMul<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        b.silu_mul(&self.gate_up, self.rows, self.width, &mut self.out)
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        b.refill(&mut self.out, &[])
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        Ok(vec![b.output(
            "out",
            &[self.rows, self.width],
            &self.out,
        )?])
    }
}

impl OnCuda for SiluMul<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        Ok(vec![
            Value::buffer(&self.gate_up),
            Value::buffer(&self.out),
            Value::count(self.rows),
            Value::count(self.width),
        ])
    }
}
