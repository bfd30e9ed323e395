//! The product with a weight: of many rows, and of one.

use std::rc::Rc;

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Dimension, Shape, dimension, option};
use stepscope_kernels::{Cost, Error, Kernel, gemm};

use super::inputs::Inputs;
use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role, any_shape};

const N: Dimension = dimension("N", 128, "rows of the weight");
const K: Dimension = dimension("K", 256, "columns of x and of the weight");
const BIAS: Dimension = option("bias", 0, "1 with a bias");

const ARGUMENTS: &[Argument] = &[
    Argument::new("x", Kind::Storage, "[M, K]", Role::In, "activations"),
    Argument::new(
        "weight",
        Kind::Storage,
        "[N, K]",
        Role::In,
        "a linear layer's weight, as checkpoints have it",
    ),
    Argument::new(
        "bias",
        Kind::Floats,
        "[N]",
        Role::In,
        "added to every row; a null pointer without one",
    ),
    Argument::new(
        "out",
        Kind::Storage,
        "[M, N]",
        Role::Out,
        "x @ weight^T + bias",
    ),
    Argument::count("M", "rows of x"),
    Argument::count("N", "rows of the weight"),
    Argument::count("K", "columns of both"),
];

pub(super) static GEMM: Operation = Operation {
    name: "gemm",
    summary: "product with a weight",
    formula: "out[m, n] = sum over k of x[m, k] * weight[n, k] (+ bias[n]), added up in float32",
    dimensions: &[dimension("M", 64, "rows of x"), N, K, BIAS],
    arguments: ARGUMENTS,
    check: any_shape,
    cost: |shape| cost(shape, shape.get("M")),
    roundings: Some(1.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(Gemm::new(cuda, shape, shape.get("M"), inputs)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(Gemm::new(cpu, shape, shape.get("M"), inputs)?)),
};

pub(super) static GEMV: Operation = Operation {
    name: "gemv",
    summary: "product of one row with a weight: a linear layer of a decode step",
    formula: "out[0, n] = sum over k of x[0, k] * weight[n, k] (+ bias[n]), added up in float32; M is 1",
    dimensions: &[N, K, BIAS],
    arguments: ARGUMENTS,
    check: any_shape,
    cost: |shape| cost(shape, 1),
    roundings: Some(1.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(Gemm::new(cuda, shape, 1, inputs)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(Gemm::new(cpu, shape, 1, inputs)?)),
};

fn cost(shape: &Shape, m: usize) -> Cost {
    let [n, k, bias] = ["N", "K", "bias"].map(|name| shape.get(name));
    let dtype = shape.dtype();
    gemm::cost(m, n, k, bias > 0, dtype, dtype)
}

struct Gemm<B: Probe> {
    x: B::Buffer,
    weight: B::Matrix,
    bias: Option<B::Vector>,
    out: B::Buffer,
    m: usize,
    n: usize,
    k: usize,
}

impl<B: Probe> Gemm<B> {
    fn new(b: &B, shape: &Shape, m: usize, inputs: &Inputs) -> Result<Self, Error> {
        let [n, k, bias] = ["N", "K", "bias"].map(|name| shape.get(name));
        let bias: Option<Rc<Vec<f32>>> = (bias > 0).then(|| inputs.activations(2, n));
        Ok(Gemm {
            x: b.filled(&inputs.activations(0, m * k))?,
            weight: b.weights(&inputs.weights(1, n, k), n, k, shape.dtype())?,
            bias: bias.map(|bias| b.floats(&bias)).transpose()?,
            out: b.poisoned(m * n)?,
            m,
            n,
            k,
        })
    }
}

impl<B: Probe> Problem<B> for Gemm<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        b.gemm(
            &self.x,
            self.m,
            &self.weight,
            self.bias.as_ref(),
            &mut self.out,
        )
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        b.refill(&mut self.out, &[])
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        Ok(vec![b.output("out", &[self.m, self.n], &self.out)?])
    }
}

impl OnCuda for Gemm<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        let bias = self.bias.as_ref().map(Value::vector);
        Ok(vec![
            Value::buffer(&self.x),
            Value::matrix(&self.weight),
            bias.unwrap_or(Value::Pointer(Default::default())),
            Value::buffer(&self.out),
            Value::count(self.m),
            Value::count(self.n),
            Value::count(self.k),
        ])
    }
}
