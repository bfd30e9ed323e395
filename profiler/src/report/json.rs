//! The figures of the report for programs.

use serde_json::{Value, json};

use super::latency::Latencies;
use super::phases::ShownSteps;
use crate::breakdown::{Breakdown, share};
use crate::record::{Point, Record, Step};
use crate::recorder::StepKind;
use crate::{activity, roofline, stats};

/// The report's figures: those of [`text`](super::text), in nanoseconds, bytes and fractions. A figure that there is not is
/// `null`.
pub fn json(record: &Record) -> Value {
    json!({
        "schema": "stepscope.report/1",
        "run": {
            "name": record.run.name,
            "model": record.run.model.name,
            "dtype": record.run.dtype,
            "kv_cache_dtype": record.run.kv_cache_dtype,
            "device": record.run.device,
            "cpu": record.environment.cpu.name,
            "threads": record.run.threads,
            "started": record.started,
        },
        "complete": record.complete,
        "points": (0..record.points.len()).map(|index| point(record, index)).collect::<Vec<_>>(),
        "memory": record.memory,
        "skipped": record.skipped,
    })
}

fn point(record: &Record, index: usize) -> Value {
    let point = &record.points[index];
    let latencies = Latencies::of(point);
    let rates = latencies.tokens_per_s(point);
    let shown = ShownSteps::of(point);
    json!({
        "batch_size": point.batch_size,
        "input_len": point.input_len,
        "output_len": point.output_len,
        "latency_ns": {
            "prefill": distribution(&latencies.prefill),
            "first_decode": distribution(&latencies.first_decode),
            "decode": distribution(&latencies.decode),
            "total": distribution(&latencies.total),
        },
        "tokens_per_s": {
            "prefill": rates.prefill,
            "decode": rates.decode,
            "total": rates.total,
        },
        "phases": {
            "prefill": shown.prefill.map(phases),
            "decode": shown.decode.map(phases),
            "first_decode": shown.first_decode.map(phases),
        },
        "prefill": mean_step(record, index, point, StepKind::Prefill),
        "decode": mean_step(record, index, point, StepKind::Decode),
        "gpu": point.gpu,
        "counted": point.counted,
        "replayed": point.replayed.iter().map(|operation| json!({
            "name": operation.name,
            "kernel": operation.kernel,
            "calls": operation.calls,
            "call_ns": operation.call_ns(),
            "step_ns": operation.step_ns(),
            "flops": operation.work.flops.saturating_mul(operation.calls),
            "bytes": operation.work.bytes().saturating_mul(operation.calls),
            "samples": operation.samples_ns.len(),
            "timer": operation.timer,
        })).collect::<Vec<_>>(),
    })
}

fn distribution(samples: &[f64]) -> Value {
    json!({
        "samples": samples.len(),
        "mean": stats::mean(samples),
        "stddev": stats::stddev(samples),
        "min": stats::percentile(samples, 0.0),
        "p50": stats::percentile(samples, 50.0),
        "p90": stats::percentile(samples, 90.0),
        "p99": stats::percentile(samples, 99.0),
        "max": stats::percentile(samples, 100.0),
    })
}

fn phases(step: &Step) -> Value {
    json!({
        "index": step.index,
        "wall_ns": step.wall_ns,
        "sm_clock_mhz": step.sm_clock_mhz,
        "phases": step.phases.iter().map(|phase| json!({
            "name": phase.name,
            "host_ns": phase.host_ns,
            "gpu_ns": phase.gpu_ns,
            "share": share(phase.host_ns as f64, step.wall_ns as f64),
        })).collect::<Vec<_>>(),
    })
}

fn mean_step(record: &Record, index: usize, point: &Point, kind: StepKind) -> Option<Value> {
    let step = Breakdown::new(point.total(kind)?, record.environment.roofs.as_ref())?;
    let operations: Vec<Value> = step
        .operations
        .iter()
        .map(|o| {
            json!({
                "name": o.name,
                "kernel": o.kernel,
                "phase": o.phase,
                "calls": o.calls,
                "ns": o.ns,
                "timer": o.timer,
                "share": share(o.ns, step.wall_ns),
                "flops": o.work.flops,
                "bytes": o.work.bytes(),
                "floor_ns": (o.floor_ns > 0.0).then_some(o.floor_ns),
                "roof_share": o.roof_share(),
                "bound_by": o.bound.as_ref().map(roofline::Bound::name),
                "above_roof": o.is_above_roof(),
            })
        })
        .collect();
    Some(json!({
        "steps": step.steps,
        "wall_ns": step.wall_ns,
        "floor_ns": Some(step.floors.total_ns()).filter(|ns| *ns > 0.0),
        "operations": operations,
        "between_operations_ns": step.between_operations_ns(),
        "outside_operations_ns": step.outside_operations_ns(),
        "explanation": roofline::sentence(record, index, kind),
        "device": point.total(kind).and_then(|total| total.device.as_ref()),
        "trust": point
            .total(kind)
            .and_then(|total| total.device.as_ref())
            .map(|device| activity::trust(Some(device), point.gpu.as_ref())),
    }))
}
