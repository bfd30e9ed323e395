//! A profile of steps: the engine's own record of them.

use std::path::{Path, PathBuf};

use stepscope_flamegraphs::{FoldOptions, SvgOptions, folded, subtitle_for, title_for};
use stepscope_profiler::trace::{self, Selection};
use stepscope_profiler::{Point, Record, Repetition, Step, StepKind, StepTotal};

use super::files;
use crate::Error;

pub(super) fn point([batch_size, input_len]: [usize; 2], steps: Vec<Step>) -> Point {
    let (mut prefill, mut decode) = (StepTotal::empty(), StepTotal::empty());
    for step in &steps {
        match step.kind {
            StepKind::Prefill => prefill.add(step),
            StepKind::Decode => decode.add(step),
        }
    }
    let seconds = |total: &StepTotal| total.wall_ns as f64 * 1e-9;
    let mean = |total: &StepTotal| seconds(total) / total.steps.max(1) as f64;
    Point {
        counted: Vec::new(),
        replayed: Vec::new(),
        batch_size,
        input_len,
        output_len: 1 + decode.steps,
        repetitions: vec![Repetition {
            prefill_latency_s: mean(&prefill),
            first_decode_latency_s: None,
            median_decode_latency_s: (decode.steps > 0).then(|| mean(&decode)),
            total_latency_s: seconds(&prefill) + seconds(&decode),
            output_ids: Vec::new(),
            steps,
        }],
        prefill,
        decode: (decode.steps > 0).then_some(decode),
        gpu: None,
    }
}

/// Writes flame graph, stacks, trace and record into a folder.
pub(super) fn write(record: &Record, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let decode = record.points.iter().any(|point| point.decode.is_some());
    let kind = match decode {
        true => StepKind::Decode,
        false => StepKind::Prefill,
    };
    let stacks = folded(record, kind, &FoldOptions::default());
    let options = SvgOptions {
        title: title_for(record, kind, Some(0)),
        subtitle: Some(subtitle_for(record, kind, Some(0))),
        ..SvgOptions::default()
    };
    let mut written = files::flame_graph(folder, &stacks, &options)?;
    written.push(files::create(folder, "trace.json", |file| {
        trace::write(record, &Selection::default(), file).map_err(|error| error.to_string())
    })?);
    let path = folder.join("record.json");
    record
        .write(&path)
        .map_err(|error| files::failed(&path, &error))?;
    written.push(path);
    Ok(written)
}
