//! The catalogue's entry: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::{DummyWeights, SOURCE, expression, geometry, matrix};
use crate::cuda::catalog::{Counted, Family, Plan, Promises, dimension, whole_sectors};
use crate::dummy_weights::cost;

pub(crate) static FAMILIES: &[Family] = &[Family {
    name: "dummy_weights",
    operation: "dummy_weights",
    summary: "random weights, those of the CPU",
    source: &SOURCE,
    arguments: DummyWeights::PARAMETERS,
    dimensions: &[
        dimension("rows", 64, "rows of the matrix"),
        dimension("cols", 1024, "columns"),
    ],
    instructions: &[],
    promises: Promises::ALL,
    instances: |element| vec![expression(element)],
    plan: |shape, _| {
        let elements = shape.get("rows") * shape.get("cols");
        // The last thread makes all of its 8.
        let made = elements.next_multiple_of(super::VECTOR) as u64;
        Ok(Plan {
            expression: expression(shape.element()),
            launch: geometry(elements)?,
            cost: cost(elements, shape.dtype()),
            counted: Counted {
                float_flops: 3 * made,
                overhead: 3 * (made - elements as u64),
                bytes: whole_sectors(2 * elements),
                scattered_sectors: elements.is_multiple_of(super::VECTOR).then_some(0),
                because: "the last thread makes all of its 8 values",
                ..Counted::default()
            },
        })
    },
    run: |cuda, shape| {
        matrix(cuda, &[shape.get("rows")], shape.get("cols"))?;
        Ok(())
    },
}];
