//! Rotation of queries and keys, and keys and values into the pool.

use std::rc::Rc;

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Shape, dimension};
use stepscope_kernels::{Error, Kernel, QkvLayout, rope_kv};

use super::inputs::{Inputs, rope_frequencies};
use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role, heads_are_groups, is_even, layout};

/// Positions that the table has.
const POSITIONS: usize = 4096;

pub(super) static ROPE_KV: Operation = Operation {
    name: "rope_kv",
    summary: "rotates queries and keys by their positions, and writes keys and values to the paged pool",
    formula: "(a, b) becomes (a cos - b sin, b cos + a sin) for elements i and i + head_dim / 2 of each query and key head, with cosine and sine table[positions[t], i]; then the rotated keys go to keys[slots[t]], the values to values[slots[t]]",
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
            "positions",
            Kind::Integers,
            "[tokens]",
            Role::In,
            "the position of each token, a row of the table",
        ),
        Argument::new(
            "slots",
            Kind::Integers,
            "[tokens]",
            Role::In,
            "where each token's key and value go",
        ),
        Argument::new(
            "table",
            Kind::Floats,
            "[positions, head_dim / 2, 2]",
            Role::In,
            "cosine and sine",
        ),
        Argument::new(
            "keys",
            Kind::Storage,
            "[slots, kv_heads, head_dim]",
            Role::Out,
            "the pool's keys; other slots must stay as they are",
        ),
        Argument::new(
            "values",
            Kind::Storage,
            "[slots, kv_heads, head_dim]",
            Role::Out,
            "the pool's values",
        ),
        Argument::count("tokens", "tokens"),
        Argument::count("heads", "query heads"),
        Argument::count("kv_heads", "key and value heads"),
        Argument::count("head_dim", "elements of a head"),
    ],
    check: |shape| {
        heads_are_groups(shape)?;
        is_even(shape, "head_dim")
    },
    cost: |shape| {
        rope_kv::cost(
            shape.get("tokens"),
            layout(shape),
            shape.dtype(),
            shape.dtype(),
        )
    },
    roundings: Some(1.0),
    on_cuda: |cuda, shape, inputs| Ok(Box::new(RopeKv::new(cuda, shape, inputs)?)),
    on_cpu: |cpu, shape, inputs| Ok(Box::new(RopeKv::new(cpu, shape, inputs)?)),
};

struct RopeKv<B: Probe> {
    qkv: B::Buffer,
    at_first: Rc<Vec<f32>>,
    positions: B::Indices,
    slots: B::Indices,
    slot_numbers: Vec<i32>,
    table: B::RopeTable,
    pool: B::KvPool,
    tokens: usize,
    layout: QkvLayout,
}

impl<B: Probe> RopeKv<B> {
    fn new(b: &B, shape: &Shape, inputs: &Inputs) -> Result<Self, Error> {
        let (tokens, layout) = (shape.get("tokens"), layout(shape));
        let at_first = inputs.activations(0, tokens * layout.width());
        // Factors without a common divisor with the counts: no two tokens share a slot.
        let positions: Vec<i32> = (0..tokens).map(|t| (t * 97 % POSITIONS) as i32).collect();
        let slots = (2 * tokens).next_power_of_two();
        let slot_numbers: Vec<i32> = (0..tokens).map(|t| ((t * 5 + 3) % slots) as i32).collect();
        Ok(RopeKv {
            qkv: b.filled(&at_first)?,
            at_first,
            positions: b.loaded(&positions)?,
            slots: b.loaded(&slot_numbers)?,
            slot_numbers,
            table: b.rope_table(&rope_frequencies(layout.head_dim), POSITIONS)?,
            pool: b.pool(layout, slots, shape.dtype(), &[], [&[], &[]])?,
            tokens,
            layout,
        })
    }

    /// The part of each token's row from the element `from` on.
    fn columns(&self, rows: &[f32], from: usize) -> Vec<f32> {
        rows.chunks_exact(self.layout.width())
            .flat_map(|row| row[from..from + self.layout.kv_width()].iter().copied())
            .collect()
    }
}

impl<B: Probe> Problem<B> for RopeKv<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        b.rope_kv(
            &mut self.qkv,
            self.tokens,
            self.layout,
            &self.positions,
            &self.slots,
            &self.table,
            &mut self.pool,
            0,
        )
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        b.refill(&mut self.qkv, &self.at_first)?;
        b.poison(&mut self.pool)
    }

    /// The buffer, and of the pool the tokens' slots. What lies in them is what stands in the buffer: where the pool cannot be read,
    /// that is taken.
    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        let layout = self.layout;
        let shape = [
            self.tokens,
            layout.heads + 2 * layout.kv_heads,
            layout.head_dim,
        ];
        let qkv = b.output("qkv", &shape, &self.qkv)?;
        let width = layout.kv_width();
        let mut is_rest_whole = true;
        let both = match b.read_pool(&self.pool)? {
            Some(both) => both.map(|mut slots| {
                let mut rows = Vec::new();
                for &slot in &self.slot_numbers {
                    let row = &mut slots[slot as usize * width..][..width];
                    rows.extend_from_slice(row);
                    row.fill(-f32::NAN);
                }
                is_rest_whole &= slots.iter().all(|&x| b.is_poison(x));
                rows
            }),
            None => [
                self.columns(&qkv.values, layout.q_width()),
                self.columns(&qkv.values, layout.q_width() + width),
            ],
        };
        let [keys, values] = both;
        let output = |name, values| Output {
            name,
            shape: vec![self.tokens, layout.kv_heads, layout.head_dim],
            values,
            is_guard_whole: is_rest_whole,
        };
        Ok(vec![qkv, output("keys", keys), output("values", values)])
    }
}

impl OnCuda for RopeKv<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        let [keys, values] = self.pool.layer(0)?;
        let layout = self.layout;
        Ok(vec![
            Value::buffer(&self.qkv),
            Value::indices(&self.positions),
            Value::indices(&self.slots),
            Value::Pointer(self.table.pointer()),
            Value::Pointer(keys),
            Value::Pointer(values),
            Value::count(self.tokens),
            Value::count(layout.heads),
            Value::count(layout.kv_heads),
            Value::count(layout.head_dim),
        ])
    }
}
