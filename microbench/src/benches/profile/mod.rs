//! `--profile-time`: what ran, beside criterion's files.
//!
//! A step has the engine's own record. Of everything else there are the stacks of the host's threads, sampled ([`stacks`]), and what
//! ran over time ([`batches`]): batches of iterations, and the kernels where CUPTI times them, which then are the flame graph.

mod batches;
mod files;
mod stacks;
mod steps;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use criterion::profiler::Profiler;
use stepscope_flamegraphs::SvgOptions;
use stepscope_profiler::{Record, Step};

pub(super) use batches::KernelSpan;
use batches::Timeline;
use stacks::Sampler;

use crate::Error;

/// As many steps are kept: a trace of more is slow to open, and their mean does not change.
const MOST_STEPS: usize = 200;

/// What runs while a benchmark is profiled.
#[derive(Default)]
pub(super) struct Profile {
    running: Option<Running>,
}

struct Running {
    /// Everything of a run of steps but its points.
    record: Option<Record>,
    /// Requests and prompt tokens of each.
    shape: [usize; 2],
    steps: Vec<Step>,
    timeline: Timeline,
    /// What times the batches.
    timer: &'static str,
    sampler: Result<Sampler, Error>,
}

impl Profile {
    /// Keeps a step of a batch of `shape`, if anybody wants it; `record` is asked once.
    pub(super) fn keep(&mut self, step: Step, shape: [usize; 2], record: impl FnOnce() -> Record) {
        if let Some(running) = &mut self.running
            && running.steps.len() < MOST_STEPS
        {
            running.shape = shape;
            running.record.get_or_insert_with(record);
            running.steps.push(step);
        }
    }

    /// Keeps a batch of iterations that began at `start` and ends now, if anybody wants it; its time is 0 where it failed.
    pub(super) fn keep_batch(
        &mut self,
        start: Instant,
        iterations: u64,
        measured_ns: f64,
        timer: &'static str,
    ) {
        if let Some(running) = &mut self.running {
            running.timer = timer;
            running.timeline.add_batch(start, iterations, measured_ns);
        }
    }

    /// Keeps kernels that ran, if anybody wants them.
    pub(super) fn keep_kernels(&mut self, kernels: impl Iterator<Item = KernelSpan>) {
        if let Some(running) = &mut self.running {
            running.timeline.add_kernels(kernels);
        }
    }
}

/// Writes what a [`Profile`] kept.
pub(super) struct FileProfiler(pub(super) Rc<RefCell<Profile>>);

impl Profiler for FileProfiler {
    fn start_profiling(&mut self, _id: &str, _folder: &Path) {
        self.0.borrow_mut().running = Some(Running {
            record: None,
            shape: [0; 2],
            steps: Vec::new(),
            timeline: Timeline::begin(),
            timer: "",
            sampler: Sampler::start(),
        });
    }

    fn stop_profiling(&mut self, id: &str, folder: &Path) {
        let Some(running) = self.0.borrow_mut().running.take() else {
            return;
        };
        match write(running, id, folder) {
            Ok(paths) => {
                for path in paths {
                    println!("wrote {}", path.display());
                }
            }
            Err(error) => println!("no profile of {id}: {error}"),
        }
    }
}

fn write(running: Running, id: &str, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if let Some(mut record) = running.record {
        record.points = vec![steps::point(running.shape, running.steps)];
        record.complete = true;
        return steps::write(&record, folder);
    }
    let timeline = running.timeline;
    if timeline.batches().is_empty() {
        return Err(Error::Unusable("nothing of it ran".to_owned()));
    }
    let trace = files::create(folder, "trace.json", |file| {
        timeline.write_trace(id, running.timer, file)
    })?;
    let kernels = timeline.kernel_stacks(id);
    let (stacks, count_name, subtitle) = match kernels.is_empty() {
        false => (
            kernels,
            "ns",
            "time of kernels on the GPU, by CUPTI's records".to_owned(),
        ),
        true => {
            let (stacks, samples) = running.sampler?.stop()?;
            let what = format!("processor time of all threads, {samples} samples");
            (stacks, "samples", what)
        }
    };
    if stacks.is_empty() {
        println!("no flame graph of {id}: no sample was taken; profile for longer");
        return Ok(vec![trace]);
    }
    let options = SvgOptions {
        title: id.to_owned(),
        subtitle: Some(subtitle),
        count_name: count_name.to_owned(),
        ..SvgOptions::default()
    };
    let mut written = files::flame_graph(folder, &stacks, &options)?;
    written.push(trace);
    Ok(written)
}
