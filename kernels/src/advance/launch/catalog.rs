//! The catalogue's entry: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::{Advance, SOURCE, advance, expression, geometry};
use crate::Error;
use crate::advance::{Tables, cost};
use crate::cuda::Cuda;
use crate::cuda::catalog::{
    Counted, Family, Plan, Promises, Shape, Target, dimension, distinct_sectors, option,
    whole_sectors,
};

pub(crate) static FAMILIES: &[Family] = &[Family {
    name: "advance",
    operation: "advance",
    summary: "a position more for each request of a decode batch: slots, lengths, page tables",
    source: &SOURCE,
    arguments: Advance::PARAMETERS,
    dimensions: &[
        dimension("requests", 64, "requests of the batch, all alike"),
        option("kv_len", 512, "positions that each request has before"),
        dimension("page_size", 16, "slots of a page"),
    ],
    instructions: &[],
    // Each request's entry lies in a row of its own.
    promises: Promises {
        coalesced: false,
        conflict_free: true,
    },
    instances: |_| vec![expression()],
    plan,
    run,
}];

/// Pages of a request after the step.
fn pages(shape: &Shape) -> usize {
    shape.get("kv_len") / shape.get("page_size") + 1
}

fn plan(shape: &Shape, _: Target) -> Result<Plan, Error> {
    let (requests, pages) = (shape.get("requests"), pages(shape));
    let begins = shape.get("kv_len").is_multiple_of(shape.get("page_size"));
    let begin = if begins { requests } else { 0 };
    let cost = cost(requests, begin);
    let entries = distinct_sectors((0..requests).map(|r| (4 * ((r + 1) * pages - 1), 4)));
    Ok(Plan {
        expression: expression(),
        launch: geometry(requests),
        cost,
        counted: Counted {
            bytes: 4 * whole_sectors(4 * requests) + entries + whole_sectors(4 * begin),
            // Of each entry's sector, what is not the entry.
            left_out: entries - 4 * requests as u64,
            scattered_sectors: Some(entry_sectors(requests, pages)),
            because: "entries of page tables lie in sectors of their own",
            ..Counted::default()
        },
    })
}

/// Sectors beyond the fewest of the entries of page tables: those of a warp's requests are a row apart.
fn entry_sectors(requests: usize, pages: usize) -> u64 {
    let beyond = |first: usize| {
        let lanes = 32.min(requests - first);
        let entries = (first..first + lanes).map(|r| (4 * ((r + 1) * pages - 1), 4));
        let sectors = distinct_sectors(entries) / 32;
        sectors.saturating_sub((4 * lanes as u64).div_ceil(32))
    };
    (0..requests).step_by(32).map(beyond).sum()
}

fn run(cuda: &Cuda, shape: &Shape) -> Result<(), Error> {
    let (requests, pages) = (shape.get("requests"), pages(shape));
    let lengths = vec![shape.get("kv_len") as i32; requests];
    let table: Vec<i32> = (0..(requests * pages) as i32).collect();
    let tables = Tables {
        kv_len: &mut cuda.upload_integers(&lengths)?,
        page_table: &mut cuda.upload_integers(&table)?,
        positions: &mut cuda.upload_integers(&lengths)?,
        slots: &mut cuda.upload_integers(&lengths)?,
        new_pages: &cuda.upload_integers(&lengths)?,
        requests,
        max_pages: pages,
        page_size: shape.get("page_size"),
    };
    advance(cuda, tables)?;
    Ok(())
}
