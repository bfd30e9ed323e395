//! The times of one process, out of its record.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::record::{Point, Record, Step};
use crate::recorder::{StepKind, Timer};

/// What the gate takes from one record: what ran, and its times.
#[derive(Debug, Clone)]
pub struct Observed {
    /// What people call the record: its path.
    pub name: String,
    /// The record without its points: what ran where.
    pub(super) about: Arc<Record>,
    /// `batch=1 in=32 out=16` of each point, in order.
    pub shapes: Vec<String>,
    /// Step by step, operation by operation.
    pub series: Vec<Series>,
    /// What could not be taken, and how to get it.
    pub missing: Vec<String>,
}

/// The times of one kind of step, or of one operation within it, in one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The point of the sweep, from 0.
    pub point: usize,
    /// Prefill or decode.
    pub kind: StepKind,
    /// The operation, all its layers of a step together; none of the step itself.
    pub operation: Option<String>,
    /// What took the times.
    pub timer: Timer,
    /// Nanoseconds, step by step, of each repetition. A decode step's repetitions begin with the second step.
    pub repetitions: Vec<Vec<u64>>,
    /// The clock of the multiprocessors in the step that each of these times is of, MHz; empty where not every step has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clocks_mhz: Vec<Vec<f64>>,
}

/// Takes the times out of a record, which `name` names in messages.
///
/// # Errors
/// When the record holds no times, no points, or only part of a run.
pub fn observe(name: &str, record: &Record) -> Result<Observed, Error> {
    if !record.has_times() {
        return Err(Error::content(format!(
            "{name}: an emulated device ran these steps, which has no time to judge; record a run on cpu or cuda"
        )));
    }
    if record.points.is_empty() {
        return Err(Error::content(format!(
            "{name}: no point was measured; record a run that ends"
        )));
    }
    if !record.complete {
        return Err(Error::content(format!(
            "{name}: the run was interrupted or failed before its end; record it again"
        )));
    }
    let mut series = Vec::new();
    let mut missing = Vec::new();
    for (index, point) in record.points.iter().enumerate() {
        for kind in [StepKind::Prefill, StepKind::Decode] {
            take(index, point, kind, &mut series, &mut missing);
        }
    }
    Ok(Observed {
        name: name.to_owned(),
        about: Arc::new(without_points(record)),
        shapes: record.points.iter().map(Point::label).collect(),
        series,
        missing,
    })
}

fn without_points(record: &Record) -> Record {
    Record {
        schema: record.schema.clone(),
        program: record.program.clone(),
        started: record.started.clone(),
        environment: record.environment.clone(),
        run: record.run.clone(),
        memory: record.memory.clone(),
        timing: record.timing.clone(),
        points: Vec::new(),
        skipped: Vec::new(),
        complete: record.complete,
    }
}

fn take(
    point_index: usize,
    point: &Point,
    kind: StepKind,
    series: &mut Vec<Series>,
    missing: &mut Vec<String>,
) {
    // The first decode step of a repetition meets what the prefill left in the caches, and may make a graph.
    let is_judged =
        |step: &&Step| step.kind == kind && (kind != StepKind::Decode || step.index > 0);
    let steps: Vec<Vec<&Step>> = point
        .repetitions
        .iter()
        .map(|repetition| repetition.steps.iter().filter(is_judged).collect())
        .collect();
    let all = || steps.iter().flatten();
    if all().next().is_none() {
        if kind == StepKind::Decode && point.output_len > 1 {
            missing.push(format!(
                "{}: no decode step but each repetition's first, which is left out; give --output 3 or more",
                point.label()
            ));
        }
        return;
    }
    series.push(Series {
        point: point_index,
        kind,
        operation: None,
        timer: Timer::Wall,
        repetitions: steps
            .iter()
            .map(|steps| steps.iter().map(|step| step.wall_ns).collect())
            .collect(),
        clocks_mhz: clocks(&steps, |_| true),
    });
    if all().any(|step| step.operations.is_empty()) {
        missing.push(format!(
            "{}: operations of {} steps are not judged, since not every step kept them; record with --record-all-steps --repetitions N",
            point.label(),
            kind.name()
        ));
        return;
    }
    // Steps of one kind run the same operations; the order of the first one is theirs.
    let mut names: Vec<&str> = Vec::new();
    for operation in all().flat_map(|step| &step.operations) {
        if !names.contains(&operation.name.as_ref()) {
            names.push(&operation.name);
        }
    }
    for name in names {
        let mut timers: Vec<Timer> = all()
            .flat_map(|step| &step.operations)
            .filter(|operation| operation.name == name)
            .map(|operation| operation.timer)
            .collect();
        timers.dedup();
        let why = match timers.as_slice() {
            [Timer::None] => "has no times (inside a replayed graph there are none)",
            [timer] => {
                series.push(Series {
                    point: point_index,
                    kind,
                    operation: Some(name.to_owned()),
                    timer: *timer,
                    repetitions: steps.iter().map(|s| per_step(s, name)).collect(),
                    clocks_mhz: clocks(&steps, |step| has(step, name)),
                });
                continue;
            }
            _ => "was timed in two ways",
        };
        missing.push(format!(
            "{}: {name} of {} steps {why}",
            point.label(),
            kind.name()
        ));
    }
}

/// The clock of each step that `is_taken`; nothing where one of them has none.
fn clocks(steps: &[Vec<&Step>], is_taken: impl Fn(&Step) -> bool) -> Vec<Vec<f64>> {
    let of_repetition = |steps: &Vec<&Step>| -> Option<Vec<f64>> {
        let taken = steps.iter().filter(|step| is_taken(step));
        taken.map(|step| step.sm_clock_mhz).collect()
    };
    let all: Option<_> = steps.iter().map(of_repetition).collect();
    all.unwrap_or_default()
}

fn has(step: &Step, name: &str) -> bool {
    step.operations.iter().any(|o| o.name == name)
}

/// The time of an operation in each step that has it, its layers together.
fn per_step(steps: &[&Step], name: &str) -> Vec<u64> {
    let of_step = |step: &&Step| {
        let times = step.operations.iter().filter(|o| o.name == name);
        times.map(|o| o.duration_ns).reduce(u64::saturating_add)
    };
    steps.iter().filter_map(of_step).collect()
}
