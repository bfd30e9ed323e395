//! The catalogue's entries: see [`crate::cuda::catalog`].

use stepscope_device::driver::{Arguments as _, Launch};

use super::{
    QkNorm, RmsNorm, SOURCE, expression, launch, per_thread, qk_expression, qk_geometry, qk_norm,
    spread,
};
use crate::cuda::catalog::{
    Counted, Family, Plan, Promises, Shape, Target, dimension, distinct_sectors, option,
    whole_sectors,
};
use crate::rms_norm::{add_cost, cost, qk_cost};
use crate::{Error, QkvLayout};

const EPS: f32 = 1e-6;

pub(crate) static FAMILIES: &[Family] = &[
    Family {
        name: "rms_norm",
        operation: "rms_norm",
        summary: "RMS normalisation of rows, after adding them to the residual stream or not",
        source: &SOURCE,
        arguments: RmsNorm::PARAMETERS,
        dimensions: &[
            dimension("rows", 16, "tokens"),
            dimension("width", 1024, "elements of a row"),
            option("add", 1, "1 to add x to the residual stream first"),
        ],
        instructions: &[],
        // Weights are floats: each of a lane's two loads has half of every sector.
        promises: Promises {
            coalesced: false,
            conflict_free: true,
        },
        instances: |element| {
            let spreads =
                [8, 1].map(|vector| per_thread(vector).iter().map(move |&per| (vector, per)));
            let of = |(vector, per)| [false, true].map(|add| expression(element, vector, per, add));
            spreads.into_iter().flatten().flat_map(of).collect()
        },
        plan,
        run: |cuda, shape| {
            let (rows, width) = (shape.get("rows"), shape.get("width"));
            let x = cuda.example(rows * width)?;
            let mut residual = cuda.example(rows * width)?;
            let mut out = cuda.example(rows * width)?;
            let residual = (shape.get("add") > 0).then_some(&mut residual);
            let weight = cuda.example_vector(width)?;
            launch(cuda, &x, residual, rows, &weight, EPS, &mut out)
        },
    },
    Family {
        name: "qk_norm",
        operation: "rms_norm",
        summary: "RMS normalisation of each query and key head, in place",
        source: &SOURCE,
        arguments: QkNorm::PARAMETERS,
        dimensions: &[
            dimension("tokens", 16, "rows of QKV"),
            dimension("heads", 8, "query heads"),
            dimension("kv_heads", 2, "key and value heads"),
            dimension("head_dim", 128, "elements of a head, even, up to 512"),
        ],
        instructions: &[],
        promises: Promises::ALL,
        instances: |element| (1..=8).map(|pairs| qk_expression(element, pairs)).collect(),
        plan: qk_plan,
        run: |cuda, shape| {
            let (layout, tokens) = (layout(shape), shape.get("tokens"));
            let mut qkv = cuda.example(tokens * layout.width())?;
            let weight = cuda.example_vector(layout.head_dim)?;
            let k_weight = cuda.example_vector(layout.head_dim)?;
            qk_norm(cuda, &mut qkv, tokens, layout, &weight, &k_weight, EPS)?;
            Ok(())
        },
    },
];

fn plan(shape: &Shape, _: Target) -> Result<Plan, Error> {
    let (rows, width, add) = (shape.get("rows"), shape.get("width"), shape.get("add") > 0);
    let (vector, per, threads) = spread(width)?;
    let elements = (rows * width) as u64;
    let work = if add { add_cost } else { cost };
    let cost = work(rows, width, shape.dtype());
    // The sums of lanes, then of warps: five rounds in each thread, twice; and the mean, eps, the root and its reciprocal in each
    // that has something to scale.
    let scaling = threads.min(width.div_ceil(vector));
    let sums_and_roots = (rows * (10 * threads + 4 * scaling)) as u64;
    let buffers = if add { 4 } else { 2 };
    Ok(Plan {
        expression: expression(shape.element(), vector, per, add),
        launch: Launch::of_blocks(rows as u32, threads as u32),
        cost,
        counted: Counted {
            float_flops: cost.flops + sums_and_roots,
            overhead: sums_and_roots,
            bytes: buffers * whole_sectors(2 * elements as usize) + whole_sectors(4 * width),
            scattered_sectors: width
                .is_multiple_of(16)
                .then(|| rows as u64 * weight_sectors(width)),
            because: "lanes and warps add up their sums, and each thread takes the root",
            ..Counted::default()
        },
    })
}

/// Sectors beyond the fewest that a row's weights take: a lane's 32 bytes are one sector, of which it asks for a half twice.
fn weight_sectors(width: usize) -> u64 {
    let vectors = (width / 8) as u64;
    let beyond = |lanes: u64| 2 * (lanes - lanes.div_ceil(2));
    vectors / 32 * beyond(32) + beyond(vectors % 32)
}

fn layout(shape: &Shape) -> QkvLayout {
    QkvLayout {
        heads: shape.get("heads"),
        kv_heads: shape.get("kv_heads"),
        head_dim: shape.get("head_dim"),
    }
}

fn qk_plan(shape: &Shape, _: Target) -> Result<Plan, Error> {
    let (tokens, layout) = (shape.get("tokens"), layout(shape));
    let head_dim = layout.head_dim;
    if !head_dim.is_multiple_of(2) || head_dim > 512 {
        return Err(Error::shape(format!(
            "qk_norm: head_dim={head_dim}; the kernel takes even numbers up to 512"
        )));
    }
    let cost = qk_cost(tokens, layout, shape.dtype());
    let warps = tokens * (layout.heads + layout.kv_heads);
    // Five rounds of the sum in each lane; mean, eps, root, reciprocal.
    let sums_and_roots = 32 * (5 + 4) * warps as u64;
    let touched = 2 * (layout.q_width() + layout.kv_width());
    let rows = distinct_sectors((0..tokens).map(|t| (2 * t * layout.width(), touched)));
    Ok(Plan {
        expression: qk_expression(shape.element(), head_dim.div_ceil(64)),
        launch: qk_geometry(tokens, layout),
        cost,
        counted: Counted {
            float_flops: cost.flops + sums_and_roots,
            overhead: sums_and_roots,
            bytes: 2 * rows + 2 * whole_sectors(4 * head_dim),
            scattered_sectors: head_dim.is_multiple_of(16).then_some(0),
            because: "lanes add up their sums, and each takes the root",
            ..Counted::default()
        },
    })
}
