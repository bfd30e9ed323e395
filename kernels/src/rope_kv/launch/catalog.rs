//! The catalogue's entry: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::{RopeKv, SOURCE, expression, geometry, rope_kv, vector};
use crate::cuda::Cuda;
use crate::cuda::catalog::{
    Counted, Family, Plan, Promises, Shape, Target, dimension, distinct_sectors, whole_sectors,
};
use crate::rope_kv::cost;
use crate::{Backend as _, Error, QkvLayout};

pub(crate) static FAMILIES: &[Family] = &[Family {
    name: "rope_kv",
    operation: "rope_kv",
    summary: "rotates queries and keys, and writes keys and values to the paged pool",
    source: &SOURCE,
    arguments: RopeKv::PARAMETERS,
    dimensions: &[
        dimension("tokens", 16, "rows of QKV"),
        dimension("heads", 8, "query heads"),
        dimension("kv_heads", 2, "key and value heads"),
        dimension(
            "head_dim",
            128,
            "elements of a head, even: all of them rotate",
        ),
    ],
    instructions: &[],
    promises: Promises::ALL,
    instances: |element| [8, 1].map(|vector| expression(element, vector)).to_vec(),
    plan,
    run,
}];

fn layout(shape: &Shape) -> QkvLayout {
    QkvLayout {
        heads: shape.get("heads"),
        kv_heads: shape.get("kv_heads"),
        head_dim: shape.get("head_dim"),
    }
}

fn plan(shape: &Shape, _: Target) -> Result<Plan, Error> {
    let (tokens, layout) = (shape.get("tokens"), layout(shape));
    let pairs = layout.head_dim / 2;
    if !layout.head_dim.is_multiple_of(2) {
        return Err(Error::shape(format!(
            "rope_kv: head_dim={}, but pairs need an even number",
            layout.head_dim
        )));
    }
    let cost = cost(tokens, layout, shape.dtype(), shape.dtype());
    let rotated = 2 * (layout.q_width() + layout.kv_width());
    let written = distinct_sectors((0..tokens).map(|t| (2 * t * layout.width(), rotated)));
    Ok(Plan {
        expression: expression(shape.element(), vector(layout.head_dim, pairs)),
        launch: geometry(tokens),
        cost,
        counted: Counted {
            float_flops: cost.flops,
            bytes: whole_sectors(2 * tokens * layout.width())
                + written
                + 2 * whole_sectors(2 * tokens * layout.kv_width())
                + 2 * whole_sectors(4 * tokens)
                + whole_sectors(8 * tokens * pairs),
            left_out: whole_sectors(8 * tokens * pairs),
            scattered_sectors: pairs
                .is_multiple_of(16)
                .then(|| tokens as u64 * table_sectors(layout)),
            because: "the cost leaves the table of sines and cosines to the caches",
            ..Counted::default()
        },
    })
}

/// Sectors beyond the fewest that a token's cosines and sines take. A lane has 64 bytes of them, in four loads of a piece of
/// each; heads have the same, so that the lanes of two heads need no more sectors than their bytes. A warp of one head does.
fn table_sectors(layout: QkvLayout) -> u64 {
    let per_head = layout.head_dim / 16;
    let items = (layout.heads + layout.kv_heads) * per_head;
    let beyond = |lanes: usize| 4 * lanes.min(per_head).saturating_sub(lanes.div_ceil(2));
    ((items / 32) * beyond(32) + beyond(items % 32)) as u64
}

/// Positions and slots from 0 on, in reverse.
fn run(cuda: &Cuda, shape: &Shape) -> Result<(), Error> {
    let (tokens, layout) = (shape.get("tokens"), layout(shape));
    let frequencies = vec![0.25; layout.head_dim / 2];
    let rope = cuda.rope_table(&frequencies, tokens)?;
    let mut pool = cuda.kv_pool(1, tokens, layout, cuda.dtype())?;
    let mut qkv = cuda.example(tokens * layout.width())?;
    let places: Vec<i32> = (0..tokens as i32).rev().collect();
    let (positions, slots) = (
        cuda.upload_integers(&places)?,
        cuda.upload_integers(&places)?,
    );
    rope_kv(
        cuda, &mut qkv, tokens, layout, &positions, &slots, &rope, &mut pool, 0,
    )?;
    Ok(())
}
