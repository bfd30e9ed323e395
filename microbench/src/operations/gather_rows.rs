//! The rows whose logits are wanted.

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Shape, dimension};
use stepscope_kernels::{Error, Kernel, logits};

use super::inputs::Inputs;
use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role};

pub(super) static GATHER_ROWS: Operation = Operation {
    name: "gather_rows",
    summary: "the last row of each request of a prefill, of which logits are wanted",
    formula: "out[r] = x[rows[r]]",
    dimensions: &[
        dimension(
            "requests",
            8,
            "requests, each with a row in out; at most as many as tokens",
        ),
        dimension("tokens", 128, "rows of x"),
        dimension("width", 1024, "elements of a row"),
    ],
    arguments: &[
        Argument::new(
            "x",
            Kind::Storage,
            "[tokens, width]",
            Role::In,
            "activations",
        ),
        Argument::new(
            "rows",
            Kind::Integers,
            "[requests]",
            Role::In,
            "the row of x that is wanted of each request, in ascending order",
        ),
        Argument::new(
            "out",
            Kind::Storage,
            "[requests, width]",
            Role::Out,
            "the rows",
        ),
        Argument::count("requests", "requests"),
        Argument::count("width", "elements of a row"),
    ],
    check: |shape| {
        let [requests, tokens] = ["requests", "tokens"].map(|name| shape.get(name));
        match requests <= tokens {
            true => Ok(()),
            false => Err(crate::Error::Unusable(format!(
                "requests={requests},tokens={tokens}: each request has a row of its own among the tokens"
            ))),
        }
    },
    cost: |shape| logits::cost(shape.get("requests"), shape.get("width"), shape.dtype()),
    roundings: Some(1.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(GatherRows::new(cuda, shape, inputs)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(GatherRows::new(cpu, shape, inputs)?)),
};

struct GatherRows<B: Probe> {
    x: B::Buffer,
    rows: B::Indices,
    out: B::Buffer,
    requests: usize,
    width: usize,
}

impl<B: Probe> GatherRows<B> {
    fn new(b: &B, shape: &Shape, inputs: &Inputs) -> Result<Self, Error> {
        let [requests, tokens, width] = ["requests", "tokens", "width"].map(|name| shape.get(name));
        // The tokens are those of requests of about the same length.
        let last = |request: usize| ((request + 1) * tokens / requests - 1) as i32;
        let rows: Vec<i32> = (0..requests).map(last).collect();
        Ok(GatherRows {
            x: b.filled(&inputs.activations(0, tokens * width))?,
            rows: b.loaded(&rows)?,
            out: b.poisoned(requests * width)?,
            requests,
            width,
        })
    }
}

impl<B: Probe> Problem<B> for GatherRows<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        let (requests, width) = (self.requests, self.width);
        b.gather_rows(&self.x, &self.rows, requests, width, 0, &mut self.out)
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        b.refill(&mut self.out, &[])
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        let shape = [self.requests, self.width];
        Ok(vec![b.output("out", &shape, &self.out)?])
    }
}

impl OnCuda for GatherRows<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        Ok(vec![
            Value::buffer(&self.x),
            Value::indices(&self.rows),
            Value::buffer(&self.out),
            Value::count(self.requests),
            Value::count(self.width),
        ])
    }
}
