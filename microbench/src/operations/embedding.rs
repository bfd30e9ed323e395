//! Rows of a table.

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Shape, dimension};
use stepscope_kernels::{Error, Kernel, embedding};

use super::inputs::Inputs;
use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role, any_shape};

pub(super) static EMBEDDING: Operation = Operation {
    name: "embedding",
    summary: "a row of the embedding table for each token",
    formula: "out[t] = table[ids[t]]",
    dimensions: &[
        dimension("tokens", 32, "tokens"),
        dimension("width", 1024, "elements of a row"),
        dimension("vocab", 512, "rows of the table"),
    ],
    arguments: &[
        Argument::new(
            "ids",
            Kind::Integers,
            "[tokens]",
            Role::In,
            "a row of the table each",
        ),
        Argument::new(
            "table",
            Kind::Storage,
            "[vocab, width]",
            Role::In,
            "the embedding table",
        ),
        Argument::new(
            "out",
            Kind::Storage,
            "[tokens, width]",
            Role::Out,
            "the rows",
        ),
        Argument::count("tokens", "tokens"),
        Argument::count("width", "elements of a row"),
    ],
    check: any_shape,
    cost: |shape| {
        let dtype = shape.dtype();
        embedding::cost(shape.get("tokens"), shape.get("width"), dtype, dtype)
    },
    roundings: Some(1.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(Embedding::new(cuda, shape, inputs)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(Embedding::new(cpu, shape, inputs)?)),
};

struct Embedding<B: Probe> {
    ids: B::Indices,
    table: B::Matrix,
    out: B::Buffer,
    tokens: usize,
    width: usize,
}

impl<B: Probe> Embedding<B> {
    fn new(b: &B, shape: &Shape, inputs: &Inputs) -> Result<Self, Error> {
        let [tokens, width, vocab] = ["tokens", "width", "vocab"].map(|name| shape.get(name));
        let ids: Vec<i32> = (0..tokens).map(|t| (t * 7919 % vocab) as i32).collect();
        Ok(Embedding {
            ids: b.loaded(&ids)?,
            table: b.weights(
                &inputs.weights(0, vocab, width),
                vocab,
                width,
                shape.dtype(),
            )?,
            out: b.poisoned(tokens * width)?,
            tokens,
            width,
        })
    }
}

impl<B: Probe> Problem<B> for Embedding<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        b.embedding(&self.ids, self.tokens, &self.table, &mut self.out)
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        b.refill(&mut self.out, &[])
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        Ok(vec![b.output(
            "out",
            &[self.tokens, self.width],
            &self.out,
        )?])
    }
}

impl OnCuda for Embedding<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        Ok(vec![
            Value::indices(&self.ids),
            Value::matrix(&self.table),
            Value::buffer(&self.out),
            Value::count(self.tokens),
            Value::count(self.width),
        ])
    }
}
