//! The catalogue's entries: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::super::choose::{self, GEMV_WARPS, PLAIN_TILE, Plan, SKINNY_STEP, Split, TILES, WIDTHS};
use super::{
    GEMV, Gemv, MMA, Product, REDUCE, Reduce, SKINNY, Tiled, gemv_instance, gemv_launch,
    mma_instance, mma_launch, reduce_instance, reduce_launch, skinny_instance, skinny_launch,
};
use crate::cuda::Cuda;
use crate::cuda::catalog::{
    self, Counted, Dimension, Family, Promises, Shape, Target, dimension, option, whole_sectors,
};
use crate::gemm::{MOST_SKINNY_ROWS, cost};
use crate::{Cost, Error};

const N: Dimension = dimension("N", 1024, "rows of the weight");
const K: Dimension = dimension("K", 1024, "columns of x and of the weight");
const BIAS: Dimension = option("bias", 0, "1 with a bias");
const SPLITS: Dimension = option(
    "splits",
    0,
    "pieces of the columns; 0 as the chooser has it",
);

pub(crate) static FAMILIES: &[Family] = &[
    Family {
        name: "gemm_mma",
        operation: "gemm",
        summary: "product with a weight, in tiles for tensor cores",
        source: &MMA,
        arguments: Tiled::PARAMETERS,
        dimensions: &[dimension("M", 256, "rows of x"), N, K, BIAS, SPLITS],
        instructions: &["HMMA", "LDSM", "LDGSTS"],
        promises: Promises::ALL,
        instances: |element| {
            let aligned = TILES.map(|tile| mma_instance(element, tile, true));
            let any = mma_instance(element, PLAIN_TILE, false);
            aligned.into_iter().chain([any]).collect()
        },
        plan: |shape, target| plan(shape, tiled(shape, target)?),
        run: |cuda, shape| run(cuda, shape, tiled(shape, cuda.target())?),
    },
    Family {
        name: "gemm_skinny",
        operation: "gemm",
        summary: "product of up to 32 rows with a weight, which streams by once",
        source: &SKINNY,
        arguments: Tiled::PARAMETERS,
        dimensions: &[
            dimension("M", 16, "rows of x, up to 32"),
            N,
            K,
            BIAS,
            SPLITS,
        ],
        instructions: &["HMMA"],
        promises: Promises::ALL,
        instances: |element| {
            let aligned = WIDTHS.map(|width| skinny_instance(element, width, true));
            let any = skinny_instance(element, WIDTHS[3], false);
            aligned.into_iter().chain([any]).collect()
        },
        plan: |shape, target| plan(shape, skinny(shape, target)?),
        run: |cuda, shape| run(cuda, shape, skinny(shape, cuda.target())?),
    },
    Family {
        name: "gemv",
        operation: "gemm",
        summary: "product of one row with a weight",
        source: &GEMV,
        arguments: Gemv::PARAMETERS,
        dimensions: &[N, K, BIAS],
        instructions: &[],
        promises: Promises::ALL,
        instances: |element| {
            let kinds = [(1, true), (2, true), (1, false), (2, false)];
            kinds
                .map(|(rows, aligned)| gemv_instance(element, rows, aligned))
                .to_vec()
        },
        plan: |shape, target| plan(shape, gemv(shape, target)),
        run: |cuda, shape| run(cuda, shape, gemv(shape, cuda.target())),
    },
    Family {
        name: "gemm_reduce",
        operation: "gemm",
        summary: "adds up the partial sums of a product whose columns were split",
        source: &REDUCE,
        arguments: Reduce::PARAMETERS,
        dimensions: &[
            dimension("M", 64, "rows of x"),
            N,
            dimension("splits", 4, "pieces of the columns"),
            BIAS,
        ],
        instructions: &[],
        promises: Promises::ALL,
        instances: |element| {
            [4, 1]
                .map(|vector| reduce_instance(element, vector))
                .to_vec()
        },
        plan: reduce_plan,
        run: |cuda, shape| {
            let splits = shape.get("splits").max(2);
            let split = Split {
                splits: splits as u32,
                k_per_split: PLAIN_TILE.k,
            };
            let plan = Plan::Mma {
                tile: PLAIN_TILE,
                split,
            };
            let [m, n, k] = [
                shape.get("M"),
                shape.get("N"),
                splits * PLAIN_TILE.k as usize,
            ];
            run_product(cuda, [m, n, k], shape.get("bias") > 0, plan)
        },
    },
];

/// M, N and K.
fn sizes(shape: &Shape) -> [usize; 3] {
    let is_gemv = shape.values().iter().all(|(name, _)| *name != "M");
    let m = if is_gemv { 1 } else { shape.get("M") };
    [m, shape.get("N"), shape.get("K")]
}

fn tiled(shape: &Shape, target: Target) -> Result<Plan, Error> {
    let size @ [_, _, k] = sizes(shape);
    let mut plan = choose::tiled(size, target.multiprocessors, target.capability);
    if let Plan::Mma { tile, split } = &mut plan {
        // The instance that is wanted, whole.
        if let Some(wanted) = shape.instance() {
            let is_wanted =
                |tile| mma_instance(shape.element(), tile, k.is_multiple_of(8)) == wanted;
            if let Some(wanted) = TILES.into_iter().find(|&tile| is_wanted(tile)) {
                *tile = wanted;
                *split = choose::cut(k, 1, tile.k);
            }
        }
        cut_as_asked(shape, split, tile.k)?;
    }
    Ok(plan)
}

fn skinny(shape: &Shape, target: Target) -> Result<Plan, Error> {
    let size @ [m, _, _] = sizes(shape);
    if m > MOST_SKINNY_ROWS {
        return Err(Error::shape(format!(
            "gemm_skinny: M={m}, but it takes {MOST_SKINNY_ROWS} rows at most; gemm_mma takes more"
        )));
    }
    let mut plan = choose::skinny(size, target.multiprocessors, target.capability);
    if let Plan::Skinny { width, split } = &mut plan {
        cut_as_asked(shape, split, SKINNY_STEP * width.warps_k)?;
    }
    Ok(plan)
}

fn gemv(shape: &Shape, target: Target) -> Plan {
    choose::gemv(shape.get("N"), shape.get("K"), target.multiprocessors)
}

fn cut_as_asked(shape: &Shape, split: &mut Split, granule: u32) -> Result<(), Error> {
    let (asked, k) = (shape.get("splits"), shape.get("K"));
    if asked > 0 {
        *split = choose::cut(k, asked, granule);
        if split.splits as usize != asked {
            return Err(Error::shape(format!(
                "splits={asked}: {k} columns in steps of {granule} cannot be cut into as many pieces"
            )));
        }
    }
    Ok(())
}

fn plan(shape: &Shape, plan: Plan) -> Result<catalog::Plan, Error> {
    let size @ [m, n, k] = sizes(shape);
    let [m32, n32, k32] = size.map(|size| size as u32);
    let (aligned, bias, dtype) = (k.is_multiple_of(8), shape.get("bias") > 0, shape.dtype());
    let whole = |size: usize, tile: u32| size.next_multiple_of(tile as usize);
    // Sums that start from what a tile holds, each of which gets a bias, or zero; those of other pieces of a product are added later.
    let (expression, launch, split, padded, sums) = match plan {
        Plan::Mma { tile, split } => (
            mma_instance(shape.element(), tile, aligned),
            mma_launch(m32, n32, tile, split)?,
            split,
            whole(m, tile.m) * whole(n, tile.n) * columns(k, split, tile.k),
            if split.splits == 1 {
                whole(m, tile.m) * whole(n, tile.n)
            } else {
                0
            },
        ),
        Plan::Skinny { width, split } => (
            skinny_instance(shape.element(), width, aligned),
            skinny_launch(n32, width, split),
            split,
            8 * width.token_tiles as usize
                * whole(n, 16 * width.warps_n)
                * columns(k, split, SKINNY_STEP),
            split.splits as usize
                * (width.warps_k as usize - 1)
                * 8
                * width.token_tiles as usize
                * whole(n, 16 * width.warps_n)
                + if bias && split.splits == 1 { m * n } else { 0 },
        ),
        Plan::Gemv { rows, warps } => {
            let launch = gemv_launch(n32, k32, rows, warps);
            return Ok(catalog::Plan {
                expression: gemv_instance(shape.element(), rows, aligned),
                launch,
                cost: cost(1, n, k, bias, dtype, dtype),
                counted: gemv_counted([n, k], bias, [rows, warps], launch.grid[0]),
            });
        }
    };
    let cost = if split.splits == 1 {
        cost(m, n, k, bias, dtype, dtype)
    } else {
        // The bias is added with the partial sums, which are written in float.
        Cost {
            activation_bytes: (2 * m * k + 4 * split.splits as usize * m * n) as u64,
            ..cost(m, n, k, false, dtype, dtype)
        }
    };
    let written = if split.splits == 1 {
        2
    } else {
        4 * split.splits as usize
    };
    let bias_bytes = if bias && split.splits == 1 {
        whole_sectors(4 * n)
    } else {
        0
    };
    let added_bias = if bias && split.splits == 1 { m * n } else { 0 };
    Ok(catalog::Plan {
        expression,
        launch,
        cost,
        counted: Counted {
            tensor_flops: 2 * padded as u64,
            padding: 2 * (padded - m * n * k) as u64,
            float_flops: sums as u64,
            overhead: (sums - added_bias) as u64,
            bytes: whole_sectors(2 * m * k)
                + whole_sectors(2 * n * k)
                + whole_sectors(written * m * n)
                + bias_bytes,
            scattered_sectors: is_whole([n, k]).then_some(0),
            because: "tensor cores multiply whole tiles; other units add the bias, or zero, and the sums of warps",
            ..Counted::default()
        },
    })
}

/// Whether rows of x, of the weight and of the result are whole sectors.
fn is_whole([n, k]: [usize; 2]) -> bool {
    n.is_multiple_of(16) && k.is_multiple_of(16)
}

/// Columns that are multiplied: whole steps of each piece.
fn columns(k: usize, split: Split, step: u32) -> usize {
    let per_split = split.k_per_split as usize;
    (0..split.splits as usize)
        .map(|s| {
            (k - s * per_split)
                .min(per_split)
                .next_multiple_of(step as usize)
        })
        .sum()
}

/// Every block has whole groups of rows, the last one's repeated: a multiply-add for each element, five rounds of each warp's sum
/// over its 32 lanes, and a sum over the warps, and of the bias or zero, of each row that is stored.
fn gemv_counted([n, k]: [usize; 2], bias: bool, [rows, warps]: [u32; 2], blocks: u32) -> Counted {
    let [rows, warps, blocks] = [rows, warps, blocks].map(u64::from);
    let block_rows = u64::from(GEMV_WARPS) / warps * rows;
    let lanes = blocks * u64::from(GEMV_WARPS) * 32;
    let (n64, k64) = (n as u64, k as u64);
    let float_flops = 2 * blocks * block_rows * k64 + 5 * lanes * rows + n64 * (warps + 1);
    Counted {
        float_flops,
        overhead: float_flops - n64 * (2 * k64 + u64::from(bias)),
        bytes: whole_sectors(2 * k)
            + whole_sectors(2 * n * k)
            + whole_sectors(2 * n)
            + if bias { whole_sectors(4 * n) } else { 0 },
        scattered_sectors: is_whole([n, k]).then_some(0),
        because: "lanes and warps add up their sums; the last block has whole groups of rows",
        ..Counted::default()
    }
}

fn reduce_plan(shape: &Shape, _: Target) -> Result<catalog::Plan, Error> {
    let (m, n, splits) = (shape.get("M"), shape.get("N"), shape.get("splits"));
    if splits < 2 {
        return Err(Error::shape(
            "gemm_reduce: splits=1, but there is nothing to add up before 2",
        ));
    }
    let bias = shape.get("bias");
    let (vector, launch) = reduce_launch(m as u32, n as u32);
    let cost = Cost {
        flops: (m * n * (splits - 1 + bias.min(1))) as u64,
        weight_bytes: if bias > 0 { 4 * n as u64 } else { 0 },
        kv_bytes: 0,
        activation_bytes: (m * n * (4 * splits + 2)) as u64,
    };
    Ok(catalog::Plan {
        expression: reduce_instance(shape.element(), vector),
        launch,
        cost,
        counted: Counted {
            // Without a bias zero is added.
            float_flops: (m * n * splits) as u64,
            overhead: if bias > 0 { 0 } else { (m * n) as u64 },
            bytes: whole_sectors(4 * splits * m * n)
                + whole_sectors(2 * m * n)
                + if bias > 0 { whole_sectors(4 * n) } else { 0 },
            scattered_sectors: n.is_multiple_of(16).then_some(0),
            because: "where there is no bias, zero is added",
            ..Counted::default()
        },
    })
}

fn run(cuda: &Cuda, shape: &Shape, plan: Plan) -> Result<(), Error> {
    run_product(cuda, sizes(shape), shape.get("bias") > 0, plan)
}

fn run_product(cuda: &Cuda, [m, n, k]: [usize; 3], bias: bool, plan: Plan) -> Result<(), Error> {
    let x = cuda.example(m * k)?;
    let weight = cuda.example_matrix(n, k)?;
    let bias = if bias {
        Some(cuda.example_vector(n)?)
    } else {
        None
    };
    let mut out = cuda.example(m * n)?;
    Product::new(&x, m, &weight, bias.as_ref(), &mut out)?.run(cuda, plan)?;
    Ok(())
}
