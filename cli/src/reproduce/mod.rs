//! `stepscope reproduce`: the rows of a result file, run here.

mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;
use stepscope_profiler::explain::record::{self, Part};
use stepscope_profiler::results::{self, Load, ResultRow};
use stepscope_profiler::{Record, StepKind};

use crate::args::reproduce::Reproduce;
use crate::output::{Failure, print_stderr, write_stdout};

/// Batch size, prompt tokens, generated tokens.
type Shape = [u64; 3];

/// A row of the file and what the same took here.
#[derive(Debug, Serialize)]
struct Pair {
    batch_size: u64,
    input_len: u64,
    output_len: u64,
    /// Seconds, theirs and ours.
    prefill_s: [Option<f64>; 2],
    /// Seconds of the median decode step, theirs and ours.
    decode_s: [Option<f64>; 2],
    /// What our prefill is made of.
    prefill_parts: Vec<Part>,
    /// What our median decode step is made of.
    decode_parts: Vec<Part>,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Reproduction {
    /// Whose result it is.
    theirs: String,
    /// What ran ours.
    ours: String,
    pairs: Vec<Pair>,
    /// Rows that were not run, and why.
    left_out: Vec<String>,
}

pub(crate) fn run(args: &Reproduce) -> Result<(), Failure> {
    let import = results::read(&args.result)?;
    let (shapes, left_out) = shapes(&import.rows);
    if shapes.is_empty() {
        return Err(Failure::input(format!(
            "{}: no row is a static batch of known lengths, so nothing can be repeated: {}",
            args.result.display(),
            left_out.join("; ")
        )));
    }
    let model = match &args.model_path {
        Some(model) => model.clone(),
        None => import
            .rows
            .iter()
            .find_map(|row| row.model.clone())
            .ok_or_else(|| {
                Failure::input(format!(
                    "{} does not name its model: --model-path PATH does",
                    args.result.display()
                ))
            })?,
    };
    let mut reproduction = Reproduction {
        theirs: import.rows.first().map_or_else(String::new, |row| {
            format!("{} {}", row.framework.name(), row.program)
        }),
        ours: String::new(),
        pairs: Vec::new(),
        left_out,
    };
    for (shape, rows) in &shapes {
        let folder = args
            .out
            .join(format!("batch{}-in{}-out{}", shape[0], shape[1], shape[2]));
        match measure(&model, *shape, &folder, &args.one_batch) {
            Ok(record) => {
                reproduction.ours = described(&record);
                reproduction.pairs.extend(pair(*shape, rows, &record));
            }
            // What was measured before stays.
            Err(reason) => reproduction.left_out.push(reason),
        }
    }
    if reproduction.pairs.is_empty() {
        return Err(Failure::run(format!(
            "no row could be run: {}",
            reproduction.left_out.join("; ")
        )));
    }
    let text = if args.json {
        format!("{:#}\n", serde_json::json!(reproduction))
    } else {
        table::text(&reproduction)
    };
    write_stdout(text.as_bytes())
}

/// The shapes to run with the rows that they are from, and the rows that cannot be run.
fn shapes(rows: &[ResultRow]) -> (BTreeMap<Shape, Vec<&ResultRow>>, Vec<String>) {
    let mut shapes: BTreeMap<Shape, Vec<&ResultRow>> = BTreeMap::new();
    let mut left_out = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let number = index + 1;
        let Load::StaticBatch(batch) = row.load else {
            left_out.push(format!("row {number} is not of a static batch"));
            continue;
        };
        let tokens = |length: Option<results::Length>| {
            length.map(|l| l.tokens.round()).filter(|t| *t >= 1.0)
        };
        let Some(input) = tokens(row.input_len) else {
            left_out.push(format!("row {number} has no prompt to process"));
            continue;
        };
        let output = tokens(row.output_len).unwrap_or(1.0);
        let shape = [batch, input as u64, output as u64];
        shapes.entry(shape).or_default().push(row);
    }
    (shapes, left_out)
}

/// Runs `one-batch` on a shape, in a process of its own: one that fails takes no other with it.
fn measure(
    model: &str,
    [batch, input, output]: Shape,
    folder: &Path,
    options: &[String],
) -> Result<Record, String> {
    let what = format!("batch {batch}, {input} in, {output} out");
    print_stderr(&format!("running {what}"));
    let program = std::env::current_exe().map_err(|e| format!("{what}: {e}"))?;
    let status = Command::new(program)
        .args(["one-batch", "--quiet", "--result-filename", ""])
        .args(["--model-path", model])
        .args(["--batch-size", &batch.to_string()])
        .args(["--input-len", &input.to_string()])
        .args(["--output-len", &output.to_string()])
        .arg("--out")
        .arg(folder)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| format!("{what}: {e}"))?;
    if !status.success() {
        return Err(format!(
            "{what}: one-batch ended with {status}; its error stands above"
        ));
    }
    let record = Record::read(folder).map_err(|e| format!("{what}: {e}"))?;
    match record.skipped.first() {
        Some(skipped) if record.points.is_empty() => {
            Err(format!("{what}: does not fit: {}", skipped.reason))
        }
        _ if record.points.is_empty() => Err(format!("{what}: nothing was measured")),
        _ => Ok(record),
    }
}

/// Our point beside the fastest of their rows of its shape.
fn pair(
    [batch_size, input_len, output_len]: Shape,
    rows: &[&ResultRow],
    record: &Record,
) -> Option<Pair> {
    let point = record.points.first()?;
    let least = |times: &mut dyn Iterator<Item = f64>| times.min_by(f64::total_cmp);
    let prefill = |row: &&ResultRow| row.ttft.as_ref()?.typical_s();
    let decode = |row: &&ResultRow| row.tpot.as_ref()?.typical_s();
    let explained = record::explain(record, None);
    let parts = |kind: StepKind| {
        let step = explained.steps.iter().find(|s| s.kind == kind);
        step.map_or_else(Vec::new, |s| s.parts.clone())
    };
    let repetitions = || point.repetitions.iter();
    Some(Pair {
        batch_size,
        input_len,
        output_len,
        prefill_s: [
            least(&mut rows.iter().filter_map(prefill)),
            least(&mut repetitions().map(|r| r.prefill_latency_s)),
        ],
        decode_s: [
            least(&mut rows.iter().filter_map(decode)),
            least(&mut repetitions().filter_map(|r| r.median_decode_latency_s)),
        ],
        prefill_parts: parts(StepKind::Prefill),
        decode_parts: parts(StepKind::Decode),
    })
}

/// `smollm2-135m, bf16, cpu (AMD EPYC)`.
fn described(record: &Record) -> String {
    let environment = &record.environment;
    let device = match &environment.gpu {
        Some(gpu) if record.run.device != "cpu" => &gpu.name,
        _ => &environment.cpu.name,
    };
    format!(
        "{}, {}, {} ({device})",
        record.run.model.name, record.run.dtype, record.run.device
    )
}
