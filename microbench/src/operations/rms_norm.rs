//! RMS norm: plain, with the residual added first, and of each query and key head.

use std::rc::Rc;

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Dimension, Shape, dimension};
use stepscope_kernels::{Error, Kernel, QkvLayout, rms_norm};

use super::inputs::Inputs;
use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role, any_shape, heads_are_groups, layout};

const EPS: f32 = 1e-5;
const ROWS: Dimension = dimension("rows", 32, "rows of x");
const WIDTH: Dimension = dimension("width", 1024, "elements of a row");
const EPS_ARGUMENT: Argument = Argument::float("eps", "added to the mean of squares");

pub(super) static RMS_NORM: Operation = Operation {
    name: "rms_norm",
    summary: "RMS norm of each row",
    formula: "out = x / sqrt(mean(x * x) + eps) * weight, row by row, in float32",
    dimensions: &[ROWS, WIDTH],
    arguments: &[
        Argument::new("x", Kind::Storage, "[rows, width]", Role::In, "activations"),
        Argument::new(
            "weight",
            Kind::Floats,
            "[width]",
            Role::In,
            "the norm's weight",
        ),
        Argument::new(
            "out",
            Kind::Storage,
            "[rows, width]",
            Role::Out,
            "the normalised rows",
        ),
        Argument::count("rows", "rows"),
        Argument::count("width", "elements of a row"),
        EPS_ARGUMENT,
    ],
    check: any_shape,
    cost: |shape| rms_norm::cost(shape.get("rows"), shape.get("width"), shape.dtype()),
    roundings: Some(1.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(RmsNorm::new(cuda, shape, inputs, false)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(RmsNorm::new(cpu, shape, inputs, false)?)),
};

pub(super) static ADD_RMS_NORM: Operation = Operation {
    name: "add_rms_norm",
    summary: "adds a layer's output to the residual stream, and takes the RMS norm of that",
    formula: "residual += x, then out = residual / sqrt(mean(residual * residual) + eps) * weight, row by row, in float32",
    dimensions: &[ROWS, WIDTH],
    arguments: &[
        Argument::new(
            "x",
            Kind::Storage,
            "[rows, width]",
            Role::In,
            "a layer's output",
        ),
        Argument::new(
            "residual",
            Kind::Storage,
            "[rows, width]",
            Role::InOut,
            "the residual stream",
        ),
        Argument::new(
            "weight",
            Kind::Floats,
            "[width]",
            Role::In,
            "the norm's weight",
        ),
        Argument::new(
            "out",
            Kind::Storage,
            "[rows, width]",
            Role::Out,
            "the normalised rows",
        ),
        Argument::count("rows", "rows"),
        Argument::count("width", "elements of a row"),
        EPS_ARGUMENT,
    ],
    check: any_shape,
    cost: |shape| rms_norm::add_cost(shape.get("rows"), shape.get("width"), shape.dtype()),
    roundings: Some(1.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(RmsNorm::new(cuda, shape, inputs, true)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(RmsNorm::new(cpu, shape, inputs, true)?)),
};

pub(super) static QK_NORM: Operation = Operation {
    name: "qk_norm",
    summary: "RMS norm of each query and key head, in place",
    formula: "head = head / sqrt(mean(head * head) + eps) * weight for each query head (q_weight) and key head (k_weight) of a row [q heads, k heads, v heads]; values stay",
    dimensions: &[
        dimension("tokens", 16, "tokens"),
        dimension("heads", 8, "query heads"),
        dimension("kv_heads", 2, "key and value heads; divides heads"),
        dimension("head_dim", 128, "elements of a head, an even number"),
    ],
    arguments: &[
        Argument::new(
            "qkv",
            Kind::Storage,
            "[tokens, heads + 2 * kv_heads, head_dim]",
            Role::InOut,
            "queries, keys and values of each token",
        ),
        Argument::new(
            "q_weight",
            Kind::Floats,
            "[head_dim]",
            Role::In,
            "the weight of query heads",
        ),
        Argument::new(
            "k_weight",
            Kind::Floats,
            "[head_dim]",
            Role::In,
            "the weight of key heads",
        ),
        Argument::count("tokens", "tokens"),
        Argument::count("heads", "query heads"),
        Argument::count("kv_heads", "key and value heads"),
        Argument::count("head_dim", "elements of a head"),
        EPS_ARGUMENT,
    ],
    check: |shape| {
        heads_are_groups(shape)?;
        super::is_even(shape, "head_dim")
    },
    cost: |shape| rms_norm::qk_cost(shape.get("tokens"), layout(shape), shape.dtype()),
    roundings: Some(1.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(QkNorm::new(cuda, shape, inputs)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(QkNorm::new(cpu, shape, inputs)?)),
};

struct RmsNorm<B: Probe> {
    x: B::Buffer,
    residual: Option<(B::Buffer, Rc<Vec<f32>>)>,
    weight: B::Vector,
    out: B::Buffer,
    rows: usize,
    width: usize,
}

impl<B: Probe> RmsNorm<B> {
    fn new(b: &B, shape: &Shape, inputs: &Inputs, adds: bool) -> Result<Self, Error> {
        let [rows, width] = ["rows", "width"].map(|name| shape.get(name));
        let residual = match adds {
            true => {
                let at_first = inputs.activations(2, rows * width);
                Some((b.filled(&at_first)?, at_first))
            }
            false => None,
        };
        Ok(RmsNorm {
            x: b.filled(&inputs.activations(0, rows * width))?,
            residual,
            weight: b.floats(&inputs.norm_weights(1, width))?,
            out: b.poisoned(rows * width)?,
            rows,
            width,
        })
    }
}

impl<B: Probe> Problem<B> for RmsNorm<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        let RmsNorm {
            x,
            residual,
            weight,
            out,
            rows,
            ..
        } = self;
        match residual {
            None => b.rms_norm(x, *rows, weight, EPS, out),
            Some((residual, _)) => b.add_rms_norm(x, residual, *rows, weight, EPS, out),
        }
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        if let Some((residual, at_first)) = &mut self.residual {
            b.refill(residual, at_first)?;
        }
        b.refill(&mut self.out, &[])
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        let shape = [self.rows, self.width];
        let mut outputs = vec![b.output("out", &shape, &self.out)?];
        if let Some((residual, _)) = &self.residual {
            outputs.push(b.output("residual", &shape, residual)?);
        }
        Ok(outputs)
    }
}

impl OnCuda for RmsNorm<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        let mut values = vec![Value::buffer(&self.x)];
        values.extend(
            self.residual
                .as_ref()
                .map(|(buffer, _)| Value::buffer(buffer)),
        );
        values.extend([
            Value::vector(&self.weight),
            Value::buffer(&self.out),
            Value::count(self.rows),
            Value::count(self.width),
            Value::Float(EPS),
        ]);
        Ok(values)
    }
}

struct QkNorm<B: Probe> {
    qkv: B::Buffer,
    at_first: Rc<Vec<f32>>,
    q_weight: B::Vector,
    k_weight: B::Vector,
    tokens: usize,
    layout: QkvLayout,
}

impl<B: Probe> QkNorm<B> {
    fn new(b: &B, shape: &Shape, inputs: &Inputs) -> Result<Self, Error> {
        let (tokens, layout) = (shape.get("tokens"), layout(shape));
        let at_first = inputs.activations(0, tokens * layout.width());
        Ok(QkNorm {
            qkv: b.filled(&at_first)?,
            at_first,
            q_weight: b.floats(&inputs.norm_weights(1, layout.head_dim))?,
            k_weight: b.floats(&inputs.norm_weights(2, layout.head_dim))?,
            tokens,
            layout,
        })
    }
}

impl<B: Probe> Problem<B> for QkNorm<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        b.qk_norm(
            &mut self.qkv,
            self.tokens,
            self.layout,
            &self.q_weight,
            &self.k_weight,
            EPS,
        )
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        b.refill(&mut self.qkv, &self.at_first)
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        let layout = self.layout;
        let shape = [
            self.tokens,
            layout.heads + 2 * layout.kv_heads,
            layout.head_dim,
        ];
        Ok(vec![b.output("qkv", &shape, &self.qkv)?])
    }
}

impl OnCuda for QkNorm<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        let layout = self.layout;
        Ok(vec![
            Value::buffer(&self.qkv),
            Value::vector(&self.q_weight),
            Value::vector(&self.k_weight),
            Value::count(self.tokens),
            Value::count(layout.heads),
            Value::count(layout.kv_heads),
            Value::count(layout.head_dim),
            Value::Float(EPS),
        ])
    }
}
