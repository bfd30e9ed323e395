//! The catalogue's entry: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::{ReadClocks, SOURCE, SmClock, expression, geometry};
use crate::cuda::catalog::{Counted, Family, Plan, Promises, dimension, whole_sectors};
use crate::sm_clock::cost;

pub(crate) static FAMILIES: &[Family] = &[Family {
    name: "sm_clock",
    operation: "sm_clock",
    summary: "cycles of each multiprocessor, and the GPU's timer: two give the clock",
    source: &SOURCE,
    arguments: ReadClocks::PARAMETERS,
    dimensions: &[dimension(
        "blocks",
        132,
        "blocks, one for each multiprocessor",
    )],
    instructions: &[],
    promises: Promises::ALL,
    instances: |_| vec![expression()],
    plan: |shape, _| {
        let blocks = shape.get("blocks");
        let cost = cost(blocks);
        let bytes = 3 * blocks as u64 * 8;
        // The three rows lie behind one another, and begin within sectors.
        let counted = whole_sectors(bytes as usize);
        Ok(Plan {
            expression: expression(),
            launch: geometry(blocks),
            cost,
            counted: Counted {
                bytes: counted,
                left_out: counted - bytes,
                scattered_sectors: Some(0),
                because: "the last sector is not whole",
                ..Counted::default()
            },
        })
    },
    run: |cuda, shape| SmClock::of_blocks(cuda, 1, shape.get("blocks"))?.read_at(0),
}];
