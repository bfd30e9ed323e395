//! The catalogue's entries: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::{
    ArgmaxParts, ArgmaxRows, SOURCE, SampleFiltered, filtered_expression, filtered_geometry,
    parts_expression, parts_geometry, parts_of_row, rows_expression, rows_geometry, sample,
};
use crate::cuda::Cuda;
use crate::cuda::catalog::{
    Counted, Dimension, Family, Plan, Promises, beyond_fewest_of, dimension, whole_sectors,
};
use crate::sample::{SamplingParams, cost};
use crate::{Cost, Error};

const DIMENSIONS: &[Dimension] = &[
    dimension("requests", 8, "rows of logits"),
    dimension("vocab", 32_768, "logits of a row"),
];

pub(crate) static FAMILIES: &[Family] = &[
    Family {
        name: "argmax_parts",
        operation: "sample",
        summary: "greedy: the likeliest token of each part of a row",
        source: &SOURCE,
        arguments: ArgmaxParts::PARAMETERS,
        dimensions: DIMENSIONS,
        instructions: &[],
        promises: Promises::ALL,
        instances: |element| vec![parts_expression(element)],
        plan: |shape, _| {
            let (requests, vocab) = (shape.get("requests"), shape.get("vocab"));
            let parts = 8 * requests * parts_of_row(vocab);
            let whole = cost(requests, vocab, shape.dtype());
            Ok(Plan {
                expression: parts_expression(shape.element()),
                launch: parts_geometry(requests, vocab),
                cost: Cost {
                    activation_bytes: (2 * requests * vocab + parts) as u64,
                    ..whole
                },
                counted: Counted {
                    comparisons: whole.flops,
                    bytes: whole_sectors(2 * requests * vocab) + whole_sectors(parts),
                    scattered_sectors: vocab.is_multiple_of(16).then_some(0),
                    because: "a comparison, an operation of the cost, is one of integers here",
                    ..Counted::default()
                },
            })
        },
        run: |cuda, shape| {
            run(
                cuda,
                shape.get("requests"),
                shape.get("vocab"),
                &SamplingParams::greedy(),
            )
        },
    },
    Family {
        name: "argmax_rows",
        operation: "sample",
        summary: "greedy: the likeliest token of a row, from its parts",
        source: &SOURCE,
        arguments: ArgmaxRows::PARAMETERS,
        dimensions: DIMENSIONS,
        instructions: &[],
        promises: Promises::ALL,
        instances: |_| vec![rows_expression()],
        plan: |shape, _| {
            let (requests, vocab) = (shape.get("requests"), shape.get("vocab"));
            let of_row = parts_of_row(vocab);
            let parts = requests * of_row;
            Ok(Plan {
                expression: rows_expression(),
                launch: rows_geometry(requests),
                cost: Cost {
                    flops: parts as u64,
                    activation_bytes: (8 * parts + 4 * requests) as u64,
                    ..Cost::default()
                },
                counted: Counted {
                    comparisons: parts as u64,
                    bytes: whole_sectors(8 * parts) + whole_sectors(4 * requests),
                    scattered_sectors: Some(
                        (0..requests)
                            .map(|r| beyond_fewest_of(8 * r * of_row, 8 * of_row, 8))
                            .sum(),
                    ),
                    because: "a comparison, an operation of the cost, is one of integers here",
                    ..Counted::default()
                },
            })
        },
        run: |cuda, shape| {
            run(
                cuda,
                shape.get("requests"),
                shape.get("vocab"),
                &SamplingParams::greedy(),
            )
        },
    },
    Family {
        name: "sample_filtered",
        operation: "sample",
        summary: "a token drawn from those that top-k, top-p and min-p keep",
        source: &SOURCE,
        arguments: SampleFiltered::PARAMETERS,
        dimensions: DIMENSIONS,
        instructions: &[],
        promises: Promises::ALL,
        instances: |element| vec![filtered_expression(element)],
        plan: |shape, _| {
            let (requests, vocab) = (shape.get("requests"), shape.get("vocab"));
            let cost = cost(requests, vocab, shape.dtype());
            // Without filters each token is weighed once, and the first 32, one of which is drawn, twice.
            let float_flops = (WEIGHING * (vocab + vocab.min(32)) * requests) as u64;
            Ok(Plan {
                expression: filtered_expression(shape.element()),
                launch: filtered_geometry(requests),
                cost,
                counted: Counted {
                    float_flops,
                    overhead: float_flops - cost.flops,
                    bytes: whole_sectors(2 * requests * vocab) + whole_sectors(4 * requests),
                    scattered_sectors: vocab.is_multiple_of(16).then_some(0),
                    because: "weighing a token takes five operations, which the cost counts as one; those around the one that is drawn are weighed again",
                    ..Counted::default()
                },
            })
        },
        run: |cuda, shape| {
            let params = SamplingParams {
                temperature: 1.0,
                seed: 7,
                ..SamplingParams::greedy()
            };
            run(cuda, shape.get("requests"), shape.get("vocab"), &params)
        },
    },
];

/// A difference, a quotient, a product and an exponential; and a product for the mass.
const WEIGHING: usize = 5;

/// Token 0 of each row is certain.
fn run(cuda: &Cuda, requests: usize, vocab: usize, params: &SamplingParams) -> Result<(), Error> {
    let logits = (0..requests * vocab).map(|i| if i % vocab == 0 { 200.0 } else { -200.0 });
    let logits = cuda.upload_values(logits)?;
    let mut out = cuda.upload_integers(&vec![0; requests])?;
    sample(cuda, &logits, requests, vocab, params, 0, &mut out)?;
    Ok(())
}
