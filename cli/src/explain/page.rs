//! Explanations as pages.

use std::path::Path;

use stepscope_flamegraphs::{FoldOptions, SvgOptions, folded, subtitle_for, svg, title_for};
use stepscope_profiler::explain::page::{PageOptions, page};
use stepscope_profiler::explain::record::Explanation;
use stepscope_profiler::gpus::{self, Gpu};
use stepscope_profiler::{Record, StepKind};

use crate::output::{Failure, print_stderr};

/// Writes the page of a record, flame graphs and data sheet included.
pub(super) fn write_record(
    record: &Record,
    explanation: &Explanation,
    gpu: Option<&'static Gpu>,
    path: &Path,
) -> Result<(), Failure> {
    let ran_on_gpu = record.run.device == "cuda";
    let named = record.environment.gpu.as_ref().filter(|_| ran_on_gpu);
    let datasheet = gpu
        .or_else(|| gpus::find(&named?.name).ok())
        .map(|gpu| gpu.roofs(None));
    let page = page(
        record,
        explanation,
        &PageOptions {
            flame_graphs: flame_graphs(record)?,
            datasheet: datasheet.as_ref(),
        },
    );
    write(path, &page)
}

/// Writes a page and says where it is.
pub(super) fn write(path: &Path, page: &str) -> Result<(), Failure> {
    std::fs::write(path, page)
        .map_err(|e| Failure::run(format!("cannot write {}: {e}", path.display())))?;
    print_stderr(&format!("wrote {}", path.display()));
    Ok(())
}

/// A picture per point and kind of step; a record without times has none.
fn flame_graphs(record: &Record) -> Result<Vec<(String, String)>, Failure> {
    let mut graphs = Vec::new();
    if !record.has_times() {
        return Ok(graphs);
    }
    for (index, point) in record.points.iter().enumerate() {
        for kind in [StepKind::Prefill, StepKind::Decode] {
            if point.total(kind).is_none_or(|total| total.steps == 0) {
                continue;
            }
            let options = FoldOptions {
                point: Some(index),
                by_layer: false,
            };
            let title = title_for(record, kind, Some(index));
            let graph = svg(
                &folded(record, kind, &options),
                &SvgOptions {
                    title: title.clone(),
                    subtitle: Some(subtitle_for(record, kind, Some(index))),
                    ..SvgOptions::default()
                },
            )?;
            graphs.push((title, graph));
        }
    }
    Ok(graphs)
}
