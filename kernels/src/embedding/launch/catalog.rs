//! The catalogue's entry: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::{GatherRows, ROWS, SOURCE, embedding, expression, geometry, vector};
use crate::Error;
use crate::cuda::catalog::{Counted, Family, Plan, Promises, dimension, whole_sectors};
use crate::embedding::cost;

pub(crate) static FAMILIES: &[Family] = &[Family {
    name: "gather_rows",
    operation: "embedding",
    summary: "rows of a matrix, by index",
    source: &SOURCE,
    arguments: GatherRows::PARAMETERS,
    dimensions: &[
        dimension("tokens", 64, "rows of the result"),
        dimension("width", 1024, "elements of a row"),
    ],
    instructions: &[],
    promises: Promises::ALL,
    instances: |_| [8, 1].map(expression).to_vec(),
    plan: |shape, _| {
        let (tokens, width) = (shape.get("tokens"), shape.get("width"));
        if tokens > ROWS {
            return Err(Error::shape(format!(
                "gather_rows: tokens={tokens}, but a launch has {ROWS} at most"
            )));
        }
        Ok(Plan {
            expression: expression(vector(width)),
            launch: geometry(tokens, width),
            cost: cost(tokens, width, shape.dtype(), shape.dtype()),
            counted: Counted {
                bytes: 2 * whole_sectors(2 * tokens * width) + whole_sectors(4 * tokens),
                scattered_sectors: width.is_multiple_of(16).then_some(0),
                ..Counted::default()
            },
        })
    },
    run: |cuda, shape| {
        let (tokens, width) = (shape.get("tokens"), shape.get("width"));
        // Each row once: two tokens of one id would share what they read.
        let ids: Vec<i32> = (0..tokens as i32).rev().collect();
        let table = cuda.example_matrix(tokens, width)?;
        let mut out = cuda.example(tokens * width)?;
        embedding(cuda, &cuda.upload_integers(&ids)?, tokens, &table, &mut out)?;
        Ok(())
    },
}];
