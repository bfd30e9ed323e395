//! Attention over the paged pool: of a ragged prefill, and of a decode step.

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Dimension, Shape, dimension};
use stepscope_kernels::{
    AttentionBatch, Error, Kernel, QkvLayout, attention_decode, attention_prefill,
};

use super::inputs::{Inputs, scattered_pages};
use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role, heads_are_groups, layout};

const HEADS: Dimension = dimension("heads", 4, "query heads");
const KV_HEADS: Dimension = dimension("kv_heads", 2, "key and value heads; divides heads");
const HEAD_DIM: Dimension = dimension("head_dim", 64, "elements of a head: 64, 80, 96, 128 or 256");
const KV_LEN: Dimension = dimension(
    "kv_len",
    160,
    "positions of the longest request, those of this step included; the others have a few less",
);
const PAGE_SIZE: Dimension = dimension("page_size", 16, "slots of a page");

const QKV: Argument = Argument::new(
    "qkv",
    Kind::Storage,
    "[tokens, heads + 2 * kv_heads, head_dim]",
    Role::In,
    "queries of each token; its keys and values are NaN, since they are in the pool",
);
const KEYS: Argument = Argument::new(
    "keys",
    Kind::Storage,
    "[slots, kv_heads, head_dim]",
    Role::In,
    "the pool's keys; slots of nobody are NaN",
);
const VALUES: Argument = Argument::new(
    "values",
    Kind::Storage,
    "[slots, kv_heads, head_dim]",
    Role::In,
    "the pool's values",
);
const KV_LENS: Argument = Argument::new(
    "kv_len",
    Kind::Integers,
    "[requests]",
    Role::In,
    "positions of each request",
);
const PAGE_TABLE: Argument = Argument::new(
    "page_table",
    Kind::Integers,
    "[requests, max_pages]",
    Role::In,
    "position p of request r lies in slot page_table[r, p / page_size] * page_size + p % page_size; entries past the last page are no pages",
);
const OUT: Argument = Argument::new(
    "out",
    Kind::Storage,
    "[tokens, heads, head_dim]",
    Role::Out,
    "what each query head gets",
);
const SCALE: Argument = Argument::float("scale", "of the scores: 1 / sqrt(head_dim)");

pub(super) static ATTENTION_PREFILL: Operation = Operation {
    name: "attention_prefill",
    summary: "causal attention of the rows of a ragged batch over the paged pool",
    formula: "out[t, h] = sum over positions p of softmax(scale * q[t, h] . key[p])[p] * value[p], where the row t = query_start[r] + i of request r sees the positions p <= kv_len[r] - query_len[r] + i, and head h reads the key head h / (heads / kv_heads)",
    dimensions: &[
        dimension("requests", 2, "requests of the batch"),
        HEADS,
        KV_HEADS,
        HEAD_DIM,
        dimension(
            "query_len",
            40,
            "rows of the longest request; the others have a few less",
        ),
        KV_LEN,
        PAGE_SIZE,
    ],
    arguments: &[
        QKV,
        KEYS,
        VALUES,
        Argument::new(
            "query_start",
            Kind::Integers,
            "[requests + 1]",
            Role::In,
            "the first row of each request, and the end",
        ),
        KV_LENS,
        PAGE_TABLE,
        OUT,
        Argument::count("requests", "requests"),
        Argument::count("heads", "query heads"),
        Argument::count("kv_heads", "key and value heads"),
        Argument::count("head_dim", "elements of a head"),
        Argument::count("query_len", "rows of the longest request"),
        Argument::count("max_pages", "entries of a row of the page table"),
        Argument::count("page_size", "slots of a page"),
        SCALE,
    ],
    check: |shape| {
        check(shape)?;
        let [rows, positions] = ["query_len", "kv_len"].map(|name| shape.get(name));
        if rows > positions {
            return Err(crate::Error::Unusable(format!(
                "query_len={rows},kv_len={positions}: a request's rows are the last of its positions"
            )));
        }
        Ok(())
    },
    cost: |shape| {
        let dtype = shape.dtype();
        attention_prefill::cost(&requests(shape, false), layout(shape), dtype, dtype)
    },
    roundings: Some(3.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(Attention::new(cuda, shape, inputs, false)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(Attention::new(cpu, shape, inputs, false)?)),
};

pub(super) static ATTENTION_DECODE: Operation = Operation {
    name: "attention_decode",
    summary: "attention of one row of each request over the paged pool",
    formula: "out[r, h] = sum over positions p < kv_len[r] of softmax(scale * q[r, h] . key[p])[p] * value[p], where head h reads the key head h / (heads / kv_heads)",
    dimensions: &[
        dimension("requests", 3, "requests of the batch, one row each"),
        HEADS,
        KV_HEADS,
        HEAD_DIM,
        KV_LEN,
        PAGE_SIZE,
    ],
    arguments: &[
        QKV,
        KEYS,
        VALUES,
        KV_LENS,
        PAGE_TABLE,
        OUT,
        Argument::count("requests", "requests, as many as tokens"),
        Argument::count("heads", "query heads"),
        Argument::count("kv_heads", "key and value heads"),
        Argument::count("head_dim", "elements of a head"),
        Argument::count("max_pages", "entries of a row of the page table"),
        Argument::count("page_size", "slots of a page"),
        SCALE,
    ],
    check,
    cost: |shape| {
        let lens: Vec<usize> = requests(shape, true).iter().map(|r| r.1).collect();
        attention_decode::cost(&lens, layout(shape), shape.dtype(), shape.dtype())
    },
    roundings: Some(3.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(Attention::new(cuda, shape, inputs, true)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(Attention::new(cpu, shape, inputs, true)?)),
};

fn check(shape: &Shape) -> Result<(), crate::Error> {
    heads_are_groups(shape)?;
    let head_dim = shape.get("head_dim");
    if ![64, 80, 96, 128, 256].contains(&head_dim) {
        return Err(crate::Error::Unusable(format!(
            "head_dim={head_dim}: the attention kernels have 64, 80, 96, 128 and 256"
        )));
    }
    Ok(())
}

/// Rows and positions of each request: the first has as many as the shape says, those behind it a few less, so that lengths of a batch
/// are no multiples of anything.
fn requests(shape: &Shape, is_decode: bool) -> Vec<(usize, usize)> {
    let longest = shape.get("kv_len");
    let rows = match is_decode {
        true => 1,
        false => shape.get("query_len"),
    };
    (0..shape.get("requests"))
        .map(|request| {
            let less = request * 3 % 8;
            let rows = rows.saturating_sub(less).max(1);
            (rows, longest.saturating_sub(less).max(rows))
        })
        .collect()
}

struct Attention<B: Probe> {
    qkv: B::Buffer,
    pool: B::KvPool,
    query_start: B::Indices,
    kv_len: B::Indices,
    page_table: B::Indices,
    out: B::Buffer,
    requests: Vec<(usize, usize)>,
    max_pages: usize,
    page_size: usize,
    layout: QkvLayout,
    is_decode: bool,
}

impl<B: Probe> Attention<B> {
    fn new(b: &B, shape: &Shape, inputs: &Inputs, is_decode: bool) -> Result<Self, Error> {
        let (layout, page_size) = (layout(shape), shape.get("page_size"));
        let requests = requests(shape, is_decode);
        let lens: Vec<usize> = requests.iter().map(|r| r.1).collect();
        let pages = scattered_pages(&lens, page_size);
        let positions: usize = lens.iter().sum();
        let tokens: usize = requests.iter().map(|r| r.0).sum();
        let keys = inputs.activations(1, positions * layout.kv_width());
        let values = inputs.activations(2, positions * layout.kv_width());
        let mut qkv = inputs.activations(0, tokens * layout.width()).to_vec();
        for row in qkv.chunks_exact_mut(layout.width()) {
            row[layout.q_width()..].fill(f32::NAN);
        }
        let starts = requests.iter().scan(0, |start, r| {
            *start += r.0 as i32;
            Some(*start)
        });
        let starts: Vec<i32> = std::iter::once(0).chain(starts).collect();
        let lens: Vec<i32> = lens.iter().map(|&len| len as i32).collect();
        Ok(Attention {
            qkv: b.filled(&qkv)?,
            pool: b.pool(
                layout,
                pages.pages * page_size,
                shape.dtype(),
                &pages.slots,
                [&keys, &values],
            )?,
            query_start: b.loaded(&starts)?,
            kv_len: b.loaded(&lens)?,
            page_table: b.loaded(&pages.table)?,
            out: b.poisoned(tokens * layout.q_width())?,
            max_pages: pages.max_pages,
            requests,
            page_size,
            layout,
            is_decode,
        })
    }

    fn tokens(&self) -> usize {
        self.requests.iter().map(|r| r.0).sum()
    }

    /// Rows of the longest request.
    fn query_len(&self) -> usize {
        self.requests.iter().map(|r| r.0).max().unwrap_or(0)
    }
}

impl<B: Probe> Problem<B> for Attention<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        let batch = AttentionBatch {
            requests: self.requests.len(),
            tokens: self.tokens(),
            max_query_len: self.query_len(),
            max_kv_len: self.requests.iter().map(|r| r.1).max().unwrap_or(0),
            query_start: &self.query_start,
            kv_len: &self.kv_len,
            page_table: &self.page_table,
            max_pages: self.max_pages,
            page_size: self.page_size,
        };
        let (qkv, pool, out) = (&self.qkv, &self.pool, &mut self.out);
        match self.is_decode {
            true => b.attention_decode(qkv, self.layout, &batch, pool, 0, out),
            false => b.attention_prefill(qkv, self.layout, &batch, pool, 0, out),
        }
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        b.refill(&mut self.out, &[])
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        let shape = [self.tokens(), self.layout.heads, self.layout.head_dim];
        Ok(vec![b.output("out", &shape, &self.out)?])
    }
}

impl OnCuda for Attention<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        let layout = self.layout;
        let [keys, values] = self.pool.layer(0)?;
        let mut all = vec![
            Value::buffer(&self.qkv),
            Value::Pointer(keys),
            Value::Pointer(values),
        ];
        all.extend((!self.is_decode).then(|| Value::indices(&self.query_start)));
        all.extend([
            Value::indices(&self.kv_len),
            Value::indices(&self.page_table),
            Value::buffer(&self.out),
            Value::count(self.requests.len()),
            Value::count(layout.heads),
            Value::count(layout.kv_heads),
            Value::count(layout.head_dim),
        ]);
        all.extend((!self.is_decode).then(|| Value::count(self.query_len())));
        all.extend([
            Value::count(self.max_pages),
            Value::count(self.page_size),
            Value::Float((1.0 / (layout.head_dim as f64).sqrt()) as f32),
        ]);
        Ok(all)
    }
}
