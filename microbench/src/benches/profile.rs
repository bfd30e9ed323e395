//! `--profile-time`: what the steps that ran consisted of, beside criterion's files.

use std::cell::RefCell;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use criterion::profiler::Profiler;
use stepscope_flamegraphs::{FoldOptions, SvgOptions, folded, subtitle_for, svg, title_for};
use stepscope_profiler::trace::{self, Selection};
use stepscope_profiler::{Point, Record, Repetition, Step, StepKind, StepTotal};

use crate::Error;

/// As many steps are kept: a trace of more is slow to open, and their mean does not change.
const MOST_STEPS: usize = 200;

/// What runs while a benchmark is profiled.
#[derive(Debug, Default)]
pub(super) struct Profile {
    is_on: bool,
    /// Everything of the run but its points.
    record: Option<Record>,
    /// Requests and prompt tokens of each.
    shape: [usize; 2],
    steps: Vec<Step>,
}

impl Profile {
    /// Keeps a step of a batch of `shape`, if anybody wants it; `record` is asked once.
    pub(super) fn keep(&mut self, step: Step, shape: [usize; 2], record: impl FnOnce() -> Record) {
        if !self.is_on || self.steps.len() >= MOST_STEPS {
            return;
        }
        self.shape = shape;
        self.record.get_or_insert_with(record);
        self.steps.push(step);
    }

    fn take(&mut self) -> Option<Record> {
        self.is_on = false;
        let steps = std::mem::take(&mut self.steps);
        let mut record = self.record.take()?;
        record.points = vec![point(self.shape, steps)];
        record.complete = true;
        Some(record)
    }
}

fn point([batch_size, input_len]: [usize; 2], steps: Vec<Step>) -> Point {
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

/// Writes what a [`Profile`] kept.
#[derive(Debug)]
pub(super) struct StepProfiler(pub(super) Rc<RefCell<Profile>>);

impl Profiler for StepProfiler {
    fn start_profiling(&mut self, _id: &str, _folder: &Path) {
        let mut profile = self.0.borrow_mut();
        *profile = Profile {
            is_on: true,
            ..Profile::default()
        };
    }

    fn stop_profiling(&mut self, id: &str, folder: &Path) {
        match self.0.borrow_mut().take() {
            Some(record) => match write(&record, folder) {
                Ok(paths) => {
                    for path in paths {
                        println!("wrote {}", path.display());
                    }
                }
                Err(error) => println!("no profile of {id}: {error}"),
            },
            None => println!(
                "no profile of {id}: it is no step; run it under a profiler of your choice now, or see what a kernel does with `stepscope kernel count`"
            ),
        }
    }
}

fn write(record: &Record, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| {
        Error::Unusable(format!("cannot write {}: {error}", path.display()))
    };
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    let decode = record.points.iter().any(|point| point.decode.is_some());
    let kind = match decode {
        true => StepKind::Decode,
        false => StepKind::Prefill,
    };
    let stacks = folded(record, kind, &FoldOptions::default());
    let picture = svg(
        &stacks,
        &SvgOptions {
            title: title_for(record, kind, Some(0)),
            subtitle: Some(subtitle_for(record, kind, Some(0))),
            ..SvgOptions::default()
        },
    );
    let picture = picture.map_err(|error| Error::Unusable(error.to_string()))?;
    let mut written = Vec::new();
    for (name, text) in [
        ("flamegraph.svg", picture),
        ("flamegraph.folded", stacks.join("\n") + "\n"),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| failed(&path, &error))?;
        written.push(path);
    }
    let path = folder.join("trace.json");
    let mut file = BufWriter::new(fs::File::create(&path).map_err(|error| failed(&path, &error))?);
    trace::write(record, &Selection::default(), &mut file)
        .map_err(|error| failed(&path, &error))?;
    file.flush().map_err(|error| failed(&path, &error))?;
    written.push(path);
    let path = folder.join("record.json");
    record.write(&path).map_err(|error| failed(&path, &error))?;
    written.push(path);
    Ok(written)
}
