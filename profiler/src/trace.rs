//! The steps of a run as a Chrome trace, which <https://ui.perfetto.dev> and `chrome://tracing` open.
//!
//! A process is a point of the sweep. Its lane holds the steps one after another, from time 0, each with its phases, layers
//! and operations inside: step > phase > layer > operation.
//!
//! **Invariant:** of two events of a lane that overlap, one lies within the other, as the viewers require; what would cross
//! another event goes to a lane of its own.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::Error;
use crate::record::{Operation, Point, Record, Step};
use crate::recorder::{Phase, StepKind, Timer};

/// Which steps of a record go into a trace; the default is all of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection {
    /// Only the point with this index.
    pub point: Option<usize>,
    /// Only steps of this kind.
    pub kind: Option<StepKind>,
}

/// Writes the selected steps to `out` as Chrome trace events, one per line.
///
/// # Errors
/// When the record has no such point, or `out` cannot be written.
pub fn write(record: &Record, selection: &Selection, out: &mut dyn Write) -> Result<(), Error> {
    if let Some(index) = selection.point
        && index >= record.points.len()
    {
        return Err(Error::content(format!(
            "there is no point {index}: the record has {} (counted from 0)",
            record.points.len()
        )));
    }
    write_events(record, selection, out).map_err(|e| Error::write(Path::new("the trace"), e))
}

fn write_events(record: &Record, selection: &Selection, out: &mut dyn Write) -> io::Result<()> {
    let about = json!({
        "run": record.run.name,
        "model": record.run.model.name,
        "dtype": record.run.dtype,
        "device": record.run.device,
        "cpu": record.environment.cpu.name,
        "started": record.started,
    });
    write!(
        out,
        "{{\"displayTimeUnit\":\"ns\",\"otherData\":{about},\"traceEvents\":["
    )?;
    let mut separator = "\n";
    let mut emit = |value: Value| -> io::Result<()> {
        out.write_all(separator.as_bytes())?;
        separator = ",\n";
        serde_json::to_writer(&mut *out, &value)?;
        Ok(())
    };
    for (index, point) in record.points.iter().enumerate() {
        if selection.point.is_some_and(|selected| selected != index) {
            continue;
        }
        let process = index + 1;
        emit(metadata("process_name", process, 0, &point.label()))?;
        let (events, lanes) = with_lanes(events_of(point, selection.kind));
        for lane in 0..lanes {
            let name = match lane {
                0 => "steps".to_owned(),
                lane => format!("steps, overlapping ({lane})"),
            };
            emit(metadata("thread_name", process, lane + 1, &name))?;
        }
        for (event, lane) in events {
            emit(event.to_json(process, lane + 1))?;
        }
    }
    out.write_all(b"\n]}\n")?;
    out.flush()
}

fn metadata(what: &str, process: usize, thread: usize, name: &str) -> Value {
    json!({"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}})
}

/// Something that took a time.
struct Event {
    name: String,
    category: &'static str,
    start_ns: u64,
    end_ns: u64,
    args: Value,
}

impl Event {
    fn to_json(&self, process: usize, thread: usize) -> Value {
        // Nanoseconds stay exact: a double holds 2⁵³ of them, and its shortest decimal form in µs has three decimals.
        let microseconds = |ns: u64| ns as f64 / 1e3;
        json!({
            "ph": "X",
            "name": self.name,
            "cat": self.category,
            "pid": process,
            "tid": thread,
            "ts": microseconds(self.start_ns),
            "dur": microseconds(self.end_ns - self.start_ns),
            "args": self.args,
        })
    }

    fn encloses(&self, other: &Event) -> bool {
        self.start_ns <= other.start_ns && other.end_ns <= self.end_ns
    }
}

/// All events of a point, each after those that enclose it.
fn events_of(point: &Point, kind: Option<StepKind>) -> Vec<Event> {
    let mut events = Vec::new();
    let mut now_ns = 0;
    for (index, repetition) in point.repetitions.iter().enumerate() {
        let start_ns = now_ns;
        let place = events.len();
        for step in &repetition.steps {
            if kind.is_none_or(|kind| kind == step.kind) {
                now_ns = push_step(&mut events, step, now_ns);
            }
        }
        if point.repetitions.len() > 1 && events.len() > place {
            let event = Event {
                name: format!("repetition {}", index + 1),
                category: "repetition",
                start_ns,
                end_ns: now_ns,
                args: json!({"output_ids": repetition.output_ids}),
            };
            events.insert(place, event);
        }
    }
    events
}

/// Appends a step that starts at `start_ns`, and what is inside; returns its end.
fn push_step(events: &mut Vec<Event>, step: &Step, start_ns: u64) -> u64 {
    let end_ns = start_ns.saturating_add(step.wall_ns);
    let within = |ns: u64| start_ns.saturating_add(ns).min(end_ns);
    events.push(Event {
        name: match step.kind {
            StepKind::Prefill => "prefill".to_owned(),
            StepKind::Decode => format!("decode {}", step.index),
        },
        category: "step",
        start_ns,
        end_ns,
        args: json!({"batch_size": step.batch_size, "operations_recorded": !step.operations.is_empty()}),
    });

    let mut phases: Vec<(Phase, u64, u64, Option<u64>)> = step
        .phases
        .iter()
        .filter(|p| p.name != Phase::Other)
        .map(|p| {
            (
                p.name,
                within(p.start_ns),
                within(p.start_ns.saturating_add(p.host_ns)),
                p.gpu_ns,
            )
        })
        .collect();
    phases.sort_by_key(|&(_, start, _, _)| start);
    // `other` is what no phase covers: it lies in the gaps.
    let mut covered_to = start_ns;
    for (phase, phase_start, phase_end, gpu_ns) in phases {
        push_other(events, covered_to, phase_start);
        events.push(Event {
            name: phase.name().to_owned(),
            category: "phase",
            start_ns: phase_start,
            end_ns: phase_end,
            args: gpu_ns.map_or_else(
                || json!({}),
                |gpu_ns| json!({"gpu_us": gpu_ns as f64 / 1e3}),
            ),
        });
        covered_to = covered_to.max(phase_end);
        let operations: Vec<&Operation> = step
            .operations
            .iter()
            .filter(|o| o.phase == phase && o.timer != Timer::None)
            .collect();
        push_operations(events, &operations, start_ns);
    }
    push_other(events, covered_to, end_ns);
    let outside: Vec<&Operation> = step
        .operations
        .iter()
        .filter(|o| {
            let is_outside = !step
                .phases
                .iter()
                .any(|p| p.name == o.phase && p.name != Phase::Other);
            is_outside && o.timer != Timer::None
        })
        .collect();
    push_operations(events, &outside, start_ns);
    end_ns
}

fn push_other(events: &mut Vec<Event>, start_ns: u64, end_ns: u64) {
    if start_ns < end_ns {
        events.push(Event {
            name: Phase::Other.name().to_owned(),
            category: "phase",
            start_ns,
            end_ns,
            args: json!({}),
        });
    }
}

/// Appends operations, those of one layer that follow each other under an event for the layer.
fn push_operations(events: &mut Vec<Event>, operations: &[&Operation], step_start_ns: u64) {
    let start_of = |o: &Operation| step_start_ns.saturating_add(o.start_ns);
    let end_of = |o: &Operation| start_of(o).saturating_add(o.duration_ns);
    for same_layer in operations.chunk_by(|a, b| a.layer == b.layer) {
        if let Some(layer) = same_layer[0].layer {
            let ends = same_layer.iter().map(|o| end_of(o));
            let starts = same_layer.iter().map(|o| start_of(o));
            events.push(Event {
                name: format!("layer {layer}"),
                category: "layer",
                start_ns: starts.min().unwrap_or(0),
                end_ns: ends.max().unwrap_or(0),
                args: json!({"layer": layer}),
            });
        }
        events.extend(same_layer.iter().map(|o| Event {
            name: o.name.to_string(),
            category: "operation",
            start_ns: start_of(o),
            end_ns: end_of(o),
            args: operation_args(o),
        }));
    }
}

fn operation_args(operation: &Operation) -> Value {
    // An amount per nanosecond is 10⁹ of it per second.
    let giga_per_s = |amount: u64| match operation.duration_ns {
        0 => Value::Null,
        ns => json!(amount as f64 / ns as f64),
    };
    json!({
        "kernel": operation.kernel,
        "layer": operation.layer,
        "flops": operation.work.flops,
        "bytes": operation.work.bytes(),
        "weight_bytes": operation.work.weight_bytes,
        "kv_bytes": operation.work.kv_bytes,
        "activation_bytes": operation.work.activation_bytes,
        "gflop_per_s": giga_per_s(operation.work.flops),
        "gb_per_s": giga_per_s(operation.work.bytes()),
        "timer": operation.timer.name(),
    })
}

/// Orders events by time, the enclosing one first, and gives each the first lane on which it nests; and how many lanes.
fn with_lanes(mut events: Vec<Event>) -> (Vec<(Event, usize)>, usize) {
    // Stable: of two events over the same time, the one that was first encloses the other.
    events.sort_by(|a, b| a.start_ns.cmp(&b.start_ns).then(b.end_ns.cmp(&a.end_ns)));
    // Per lane, the events that are open at the current time, as indices.
    let mut open: Vec<Vec<usize>> = Vec::new();
    let mut lanes = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        let lane = open.iter_mut().position(|stack| {
            while let Some(&top) = stack.last()
                && events[top].end_ns <= event.start_ns
                && !events[top].encloses(event)
            {
                stack.pop();
            }
            stack.last().is_none_or(|&top| events[top].encloses(event))
        });
        let lane = lane.unwrap_or_else(|| {
            open.push(Vec::new());
            open.len() - 1
        });
        open[lane].push(index);
        lanes.push(lane);
    }
    (events.into_iter().zip(lanes).collect(), open.len())
}
