//! The next token of each request: the likeliest, or one drawn.

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Shape, dimension};
use stepscope_kernels::philox::{philox4x32_10, unit_f64};
use stepscope_kernels::sample::{self, SamplingParams};
use stepscope_kernels::{Error, Kernel};

use super::inputs::Inputs;
use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role, any_shape};

/// The step that tokens are drawn for.
const STEP: u64 = 3;

const LOGITS: Argument = Argument::new(
    "logits",
    Kind::Storage,
    "[requests, vocab]",
    Role::In,
    "of the next token",
);
const OUT: Argument = Argument::new("out", Kind::Integers, "[requests]", Role::Out, "token ids");

pub(super) static ARGMAX: Operation = Operation {
    name: "argmax",
    summary: "greedy sampling: the likeliest token of each request",
    formula: "out[r] = the lowest id of the largest of logits[r]",
    dimensions: &[
        dimension("requests", 4, "requests"),
        dimension("vocab", 4096, "tokens"),
    ],
    arguments: &[
        LOGITS,
        OUT,
        Argument::count("requests", "requests"),
        Argument::count("vocab", "tokens"),
    ],
    check: any_shape,
    cost: |shape| sample::cost(shape.get("requests"), shape.get("vocab"), shape.dtype()),
    roundings: None,
    on_cuda: |cuda, shape, inputs| Ok(Box::new(Sample::new(cuda, shape, inputs, None)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(Sample::new(cpu, shape, inputs, None)?)),
};

pub(super) static SAMPLE: Operation = Operation {
    name: "sample",
    summary: "top-k and top-p sampling: a token drawn for each request",
    formula: "weights exp((logit - largest) / temperature), sorted downwards, equal ones by id; kept are the first top_k, and of them those before which at most top_p of all weights has accumulated; out[r] = the id at which the kept weights, added up by id, pass uniform[r] of their sum",
    dimensions: &[
        dimension("requests", 2, "requests"),
        dimension("vocab", 1024, "tokens"),
        dimension("top_k", 20, "likeliest tokens that are kept"),
        dimension(
            "top_p_percent",
            90,
            "percent of all probability that is kept, up to 100",
        ),
    ],
    arguments: &[
        LOGITS,
        Argument::new(
            "uniform",
            Kind::Floats,
            "[requests]",
            Role::In,
            "a random number in [0, 1) for each request",
        ),
        OUT,
        Argument::count("requests", "requests"),
        Argument::count("vocab", "tokens"),
        Argument::float("temperature", "divides the logits"),
        Argument::count("top_k", "likeliest tokens that are kept"),
        Argument::float("top_p", "probability that is kept"),
    ],
    check: |shape| match shape.get("top_p_percent") {
        ..=100 => Ok(()),
        percent => Err(crate::Error::Unusable(format!(
            "top_p_percent={percent}: it must be at most 100"
        ))),
    },
    cost: |shape| sample::cost(shape.get("requests"), shape.get("vocab"), shape.dtype()),
    roundings: None,
    on_cuda: |cuda, shape, inputs| {
        Ok(Box::new(Sample::new(
            cuda,
            shape,
            inputs,
            Some(drawn(shape, inputs)),
        )?))
    },
    on_cpu: |cpu, shape, inputs| {
        Ok(Box::new(Sample::new(
            cpu,
            shape,
            inputs,
            Some(drawn(shape, inputs)),
        )?))
    },
};

fn drawn(shape: &Shape, inputs: &Inputs) -> SamplingParams {
    SamplingParams {
        temperature: 0.7,
        top_k: shape.get("top_k") as u32,
        top_p: shape.get("top_p_percent") as f32 / 100.0,
        min_p: 0.0,
        seed: inputs.seed(),
    }
}

struct Sample<B: Probe> {
    logits: B::Buffer,
    out: B::Indices,
    /// Of a draw: the random numbers that the kernel of this program makes itself.
    uniform: Option<B::Vector>,
    params: SamplingParams,
    requests: usize,
    vocab: usize,
}

impl<B: Probe> Sample<B> {
    fn new(
        b: &B,
        shape: &Shape,
        inputs: &Inputs,
        params: Option<SamplingParams>,
    ) -> Result<Self, Error> {
        let [requests, vocab] = ["requests", "vocab"].map(|name| shape.get(name));
        let uniform = params.map(|params| {
            let number = |request| {
                let words = philox4x32_10([STEP as u32, 0, request as u32, 0], params.seed);
                // Rounding to float32 must not make 1 of it.
                (unit_f64(words[0], words[1]) as f32).min(1.0 - f32::EPSILON / 2.0)
            };
            b.floats(&(0..requests).map(number).collect::<Vec<_>>())
        });
        Ok(Sample {
            logits: b.filled(&inputs.logits(0, requests * vocab))?,
            out: b.no_tokens(requests)?,
            uniform: uniform.transpose()?,
            params: params.unwrap_or(SamplingParams::greedy()),
            requests,
            vocab,
        })
    }
}

impl<B: Probe> Problem<B> for Sample<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        b.sample(
            &self.logits,
            self.requests,
            self.vocab,
            &self.params,
            STEP,
            &mut self.out,
        )
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        b.guard(&mut self.out, &vec![-1; self.requests])
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        Ok(vec![b.tokens("out", self.requests, &self.out)?])
    }
}

impl OnCuda for Sample<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        let (logits, out) = (Value::buffer(&self.logits), Value::indices(&self.out));
        let sizes = [Value::count(self.requests), Value::count(self.vocab)];
        let Some(uniform) = &self.uniform else {
            return Ok([logits, out].into_iter().chain(sizes).collect());
        };
        let values = [logits, Value::vector(uniform), out].into_iter();
        Ok(values
            .chain(sizes)
            .chain([
                Value::Float(self.params.temperature),
                Value::Count(self.params.top_k),
                Value::Float(self.params.top_p),
            ])
            .collect())
    }
}
