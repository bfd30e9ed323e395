//! The catalogue's entries: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::{
    AttentionDecode, GROUP_ROWS, Merge, Ring, SOURCE, TILE, geometry, group_blocks, launch,
    merge_geometry, split,
};
use crate::attention_decode::cost;
use crate::attention_prefill::launch::HEAD_DIMS;
use crate::attention_prefill::launch::catalog::{
    HEAD_DIM, HEADS, KV_HEADS, KV_LEN, PAGE_SIZE, Problem, seen_flops, softmax_flops,
};
use crate::cuda::Cuda;
use crate::cuda::catalog::{
    Counted, Dimension, Family, Plan, Promises, Shape, Target, beyond_fewest_of, dimension,
    distinct_sectors, option, whole_sectors,
};
use crate::{Cost, Error};

const DIMENSIONS: &[Dimension] = &[
    dimension(
        "requests",
        4,
        "requests of the batch, all alike, one row each",
    ),
    HEADS,
    KV_HEADS,
    HEAD_DIM,
    KV_LEN,
    PAGE_SIZE,
    option(
        "splits",
        0,
        "ranges of the positions; 0 as the chooser has it",
    ),
];

pub(crate) static FAMILIES: &[Family] = &[
    Family {
        name: "attention_decode",
        operation: "attention_decode",
        summary: "attention of one row of each request over the paged pool",
        source: &SOURCE,
        arguments: AttentionDecode::PARAMETERS,
        dimensions: DIMENSIONS,
        instructions: &["HMMA", "LDSM", "LDGSTS"],
        promises: Promises::ALL,
        instances: |element| {
            HEAD_DIMS
                .map(|dim| Ring::of(dim).expression(element))
                .to_vec()
        },
        plan,
        run: |cuda, shape| {
            run(
                cuda,
                shape,
                splits(&Problem::of(shape)?, shape, cuda.target()),
            )
        },
    },
    Family {
        name: "attention_decode_merge",
        operation: "attention_decode",
        summary: "merges what the ranges of a request's positions gave",
        source: &SOURCE,
        arguments: Merge::PARAMETERS,
        dimensions: DIMENSIONS,
        instructions: &[],
        promises: Promises {
            // A row's maxima lie where the ones before end: within a sector.
            coalesced: false,
            conflict_free: true,
        },
        instances: |element| {
            let expression = |dim| Ring::of(dim).merge_expression(element);
            HEAD_DIMS.map(expression).to_vec()
        },
        plan: merge_plan,
        run: |cuda, shape| {
            let problem = Problem::of(shape)?;
            run(cuda, shape, splits(&problem, shape, cuda.target()).max(2))
        },
    },
];

fn run(cuda: &Cuda, shape: &Shape, splits: usize) -> Result<(), Error> {
    let problem = Problem::of(shape)?;
    problem.run(cuda, |batch, pool, qkv, out| {
        launch(
            cuda,
            splits,
            qkv,
            problem.layout,
            batch,
            pool.layer(0)?,
            out,
        )?;
        Ok(())
    })
}

fn splits(problem: &Problem, shape: &Shape, target: Target) -> usize {
    match shape.get("splits") {
        0 => {
            let blocks = problem.requests * group_blocks(problem.layout);
            split::splits(blocks, problem.kv_len, target.multiprocessors)
        }
        splits => splits,
    }
}

/// Positions of each range that has any: whole rounds of all warps.
fn ranges(ring: Ring, kv_len: usize, splits: usize) -> Vec<usize> {
    let round = ring.warps * TILE;
    let per_split = kv_len.div_ceil(round).div_ceil(splits) * round;
    (0..kv_len)
        .step_by(per_split)
        .map(|begin| per_split.min(kv_len - begin))
        .collect()
}

/// Sectors of partial results: sums, then maxima, then sums of weights, of the ranges that have positions.
fn partial_bytes(problem: &Problem, splits: usize, active: usize) -> u64 {
    let rows = problem.requests * problem.layout.heads;
    let row_bytes = 4 * problem.layout.head_dim;
    let sums = (0..rows).map(|row| (row * splits * row_bytes, active * row_bytes));
    // Maxima and sums of weights lie right behind all sums.
    let behind = rows * splits * row_bytes;
    let numbers = (0..2 * rows).map(|row| (behind + 4 * row * splits, 4 * active));
    distinct_sectors(sums.chain(numbers))
}

fn plan(shape: &Shape, target: Target) -> Result<Plan, Error> {
    let problem = Problem::of(shape)?;
    let (layout, requests, kv_len) = (problem.layout, problem.requests, problem.kv_len);
    let ring = Ring::of(layout.head_dim);
    let splits = splits(&problem, shape, target);
    let ranges = ranges(ring, kv_len, splits);
    // A block multiplies 16 rows, whatever its group has, by whole tiles of positions: scores, then values.
    let positions: usize = ranges.iter().map(|len| len.next_multiple_of(TILE)).sum();
    let rows = requests * group_blocks(layout) * GROUP_ROWS;
    let cost = cost(
        &vec![kv_len; requests],
        layout,
        shape.dtype(),
        shape.dtype(),
    );
    let tensor_flops = (4 * rows * positions * layout.head_dim) as u64;
    let float_flops = decode_flops(&problem, ring, &ranges, splits == 1);
    let out = 2 * requests * layout.q_width();
    let (written, wasted) = if splits == 1 {
        (whole_sectors(out), 0)
    } else {
        let partial = partial_bytes(&problem, splits, ranges.len());
        (partial, partial - out as u64)
    };
    Ok(Plan {
        expression: ring.expression(shape.element()),
        launch: geometry(ring, splits, layout, requests),
        cost: Cost {
            activation_bytes: cost.activation_bytes + wasted,
            ..cost
        },
        counted: Counted {
            tensor_flops,
            padding: tensor_flops - seen_flops(&vec![(1, kv_len); requests], layout),
            float_flops,
            overhead: float_flops,
            bytes: problem.read_bytes() + written,
            left_out: problem.index_bytes(),
            scattered_sectors: Some(look_ups(&problem, &ranges)),
            because: "tensor cores multiply 16 rows for each group of heads; the cost leaves softmax, lengths and page tables out",
            ..Counted::default()
        },
    })
}

/// FLOPs of other units: softmax in each tile of a warp; then a warp's sums of lanes and its maxima, and the merge of a block's
/// warps.
fn decode_flops(problem: &Problem, ring: Ring, ranges: &[usize], is_whole: bool) -> u64 {
    let Ring {
        head_dim, warps, ..
    } = ring;
    let tiles: usize = ranges.iter().map(|len| len.div_ceil(TILE)).sum();
    let blocks = problem.requests * group_blocks(problem.layout);
    // Of each row of a tile two sums over four lanes, by each of them, and a product.
    let at_end = ranges.len() * warps * (32 * 2 * 2 + GROUP_ROWS);
    let of_blocks = blocks * (tiles * softmax_flops(TILE, head_dim) + at_end);
    // Each lane: of each warp that had positions a difference and an exponential, of each warp a multiply-add; a reciprocal.
    let active: usize = ranges.iter().map(|len| len.div_ceil(TILE).min(warps)).sum();
    let lanes = 32 * (2 * active + ranges.len() * (2 * warps + 1));
    let elements = ranges.len() * head_dim * (2 * warps + usize::from(is_whole));
    let of_rows = problem.requests * problem.layout.heads * (lanes + elements);
    (of_blocks + of_rows) as u64
}

/// Sectors beyond the fewest of all look-ups of a launch: a warp looks up the 16 positions of a tile, each in two lanes.
fn look_ups(problem: &Problem, ranges: &[usize]) -> u64 {
    let mut sectors = 0;
    for request in 0..problem.requests {
        let mut begin = 0;
        for len in ranges {
            for first in (begin..begin + len).step_by(TILE) {
                let end = (first + TILE).min(begin + len);
                sectors += problem.look_up_sectors(request, [first, end], 2 * (end - first));
            }
            begin += len;
        }
    }
    sectors * group_blocks(problem.layout) as u64
}

fn merge_plan(shape: &Shape, target: Target) -> Result<Plan, Error> {
    let problem = Problem::of(shape)?;
    let (layout, requests) = (problem.layout, problem.requests);
    let ring = Ring::of(layout.head_dim);
    let splits = splits(&problem, shape, target).max(2);
    let active = ranges(ring, problem.kv_len, splits).len();
    let rows = requests * layout.heads;
    let partial = partial_bytes(&problem, splits, active);
    let out = 2 * requests * layout.q_width();
    // A multiply-add for each sum and each sum of weights, a difference and an exponential for each range.
    let flops = rows * active * (2 * layout.head_dim + 4);
    Ok(Plan {
        expression: ring.merge_expression(shape.element()),
        launch: merge_geometry(layout, requests),
        cost: Cost {
            flops: flops as u64,
            weight_bytes: 0,
            kv_bytes: 0,
            activation_bytes: (rows * active * (4 * layout.head_dim + 8) + out) as u64,
        },
        counted: Counted {
            float_flops: merge_flops(rows, active, layout.head_dim),
            overhead: merge_flops(rows, active, layout.head_dim) - flops as u64,
            bytes: partial + whole_sectors(out) + whole_sectors(4 * requests),
            left_out: whole_sectors(4 * requests),
            scattered_sectors: Some(
                (0..rows)
                    .map(|row| beyond_fewest_of(4 * row * splits, 4 * active, 4))
                    .sum(),
            ),
            because: "every lane repeats what a range's maximum takes; the cost leaves lengths out",
            ..Counted::default()
        },
    })
}

/// Each of 32 lanes takes a difference, an exponential and a multiply-add for each range and one reciprocal; then a multiply-add
/// for each element and range, and a product for each element.
fn merge_flops(rows: usize, active: usize, head_dim: usize) -> u64 {
    (rows * (32 * (4 * active + 1) + head_dim * (2 * active + 1))) as u64
}
