//! The catalogue's entry: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::{SOURCE, SiluMul, expression, geometry, silu_mul, vector};
use crate::cuda::catalog::{Counted, Family, Plan, Promises, dimension, whole_sectors};
use crate::silu_mul::cost;

pub(crate) static FAMILIES: &[Family] = &[Family {
    name: "silu_mul",
    operation: "silu_mul",
    summary: "the gated activation of the feed-forward layer",
    source: &SOURCE,
    arguments: SiluMul::PARAMETERS,
    dimensions: &[
        dimension("rows", 64, "tokens"),
        dimension("width", 1024, "elements of a row of the result"),
    ],
    instructions: &[],
    promises: Promises::ALL,
    instances: |element| [8, 1].map(|vector| expression(element, vector)).to_vec(),
    plan: |shape, _| {
        let (rows, width) = (shape.get("rows"), shape.get("width"));
        let elements = (rows * width) as u64;
        Ok(Plan {
            expression: expression(shape.element(), vector(width)),
            launch: geometry(rows, width),
            cost: cost(rows, width, shape.dtype()),
            counted: Counted {
                float_flops: 5 * elements,
                bytes: whole_sectors(4 * rows * width) + whole_sectors(2 * rows * width),
                scattered_sectors: width.is_multiple_of(16).then_some(0),
                ..Counted::default()
            },
        })
    },
    run: |cuda, shape| {
        let (rows, width) = (shape.get("rows"), shape.get("width"));
        let mut out = cuda.example(rows * width)?;
        silu_mul(
            cuda,
            &cuda.example(2 * rows * width)?,
            rows,
            width,
            &mut out,
        )?;
        Ok(())
    },
}];
