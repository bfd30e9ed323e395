//! The tables of a page: the figures behind its plots.

use super::html::Table;
use super::limiters::shown;
use crate::explain::candidates::Candidate;
use crate::explain::limiters::{Limiter, Suspect};
use crate::explain::record::StepExplanation;
use crate::explain::results::{JobExplanation, StepsExplanation};
use crate::quantity::{self, duration, percent, significant};
use crate::record::Record;
use crate::recorder::StepKind;
use crate::report::{TimeUnit, calls, none, percentage};

/// Every step in a line: time, floor, rate, and the largest part above the floor.
pub(super) fn glance(record: &Record, steps: &[StepExplanation]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let mut table = Table::new(
        "llrrrrl",
        &[
            "step",
            "point",
            "time",
            "floor",
            "time /\nfloor",
            "token/s",
            "most of the rest",
        ],
    );
    for step in steps {
        let floors = step.parts.iter().filter(|p| p.kind.is_floor());
        let floor_ns: f64 = floors.map(|p| p.ns).sum();
        let point = record.points.get(step.point);
        let tokens = point.map(|point| {
            let each = match step.kind {
                StepKind::Prefill => point.input_len as f64,
                StepKind::Decode => 1.0,
            };
            point.batch_size as f64 * each
        });
        let rest = step.parts.iter().filter(|p| !p.kind.is_floor());
        let largest = rest
            .max_by(|a, b| a.ns.total_cmp(&b.ns))
            .filter(|p| p.ns > 0.0);
        let has_time = step.wall_ns > 0.0;
        let times = (floor_ns > 0.0 && has_time).then(|| step.wall_ns / floor_ns);
        table.row([
            step.kind.title().to_owned(),
            step.label.clone(),
            duration(step.wall_ns),
            if floor_ns > 0.0 {
                duration(floor_ns)
            } else {
                none()
            },
            times.map_or_else(none, |t| significant(t, 3)),
            tokens
                .filter(|_| has_time)
                .map_or_else(none, |t| significant(t / (step.wall_ns / 1e9), 4)),
            largest.map_or_else(none, |part| {
                format!(
                    "{}: {} ({} of the step)",
                    part.kind.title(),
                    duration(part.ns),
                    percent(part.ns / step.wall_ns)
                )
            }),
        ]);
    }
    table.finish()
}

/// The operations of a step, by what they could save.
pub(super) fn operations(step: &StepExplanation) -> String {
    let unit = TimeUnit::for_largest(step.wall_ns);
    let mut table = Table::new(
        "llrrrrrrrrl",
        &[
            "operation".to_owned(),
            "kernel".to_owned(),
            "calls".to_owned(),
            format!("time\n{}", unit.name),
            format!("floor\n{}", unit.name),
            "floor /\ntime, %".to_owned(),
            format!("saving\n{}", unit.name),
            "saving,\n% of step".to_owned(),
            "arithmetic\nFLOP".to_owned(),
            "moved\nbytes".to_owned(),
            "bound by".to_owned(),
        ],
    );
    for operation in &step.operations {
        let has_floor = operation.floor_ns > 0.0;
        let can_save = has_floor && operation.ns.is_some();
        let above = if operation.is_above_roof { " !" } else { "" };
        let share = (can_save && step.wall_ns > 0.0).then(|| operation.saving_ns / step.wall_ns);
        table.row([
            operation.name.clone(),
            operation.kernel.clone(),
            calls(operation.calls),
            unit.optional(operation.ns),
            unit.optional(has_floor.then_some(operation.floor_ns)),
            percentage(operation.efficiency) + above,
            unit.optional(can_save.then_some(operation.saving_ns)),
            percentage(share),
            quantity::with_prefix(operation.flops, ""),
            quantity::with_prefix(operation.bytes, ""),
            operation.bound.clone().unwrap_or_else(none),
        ]);
    }
    let note = if step.operations.iter().any(|o| o.is_above_roof) {
        "<p class=\"note\">! faster than its floor: the cost model or a ceiling is wrong.</p>\n"
    } else {
        ""
    };
    table.finish() + note
}

/// The parts of a step.
pub(super) fn parts(step: &StepExplanation) -> String {
    let unit = TimeUnit::for_largest(step.wall_ns);
    let time = format!("time\n{}", unit.name);
    let mut table = Table::new("lrr", &["part of the step", &time, "% of\nstep"]);
    let cells = |name: &str, ns: f64| {
        let share = (step.wall_ns > 0.0).then(|| ns / step.wall_ns);
        [name.to_owned(), unit.cell(ns), percentage(share)]
    };
    for part in step.parts.iter().filter(|p| p.ns != 0.0) {
        table.row(cells(part.kind.title(), part.ns));
    }
    table.total(cells("step, wall time", step.wall_ns));
    table.finish()
}

/// The steps of a result beside their floors.
pub(super) fn steps(steps: &StepsExplanation) -> String {
    let mut table = Table::new(
        "lrrrrr",
        &[
            "step",
            "time\nms",
            "rate\ntoken/s",
            "floor\nms",
            "floor /\ntime, %",
            "good kernels\nms",
        ],
    );
    let milliseconds = |seconds: f64| significant(seconds * 1e3, 4);
    for step in &steps.steps {
        let seconds = step.observation.seconds;
        let floor = step.floor.as_ref();
        table.row([
            step.observation.shape.label(),
            milliseconds(seconds),
            significant(step.tokens_per_s, 4),
            floor.map_or_else(none, |f| milliseconds(f.total_s)),
            floor.map_or_else(none, |f| significant(100.0 * f.total_s / seconds, 3)),
            floor.map_or_else(none, |f| milliseconds(f.good_kernels_s)),
        ]);
    }
    table.finish()
}

/// A job: what each limiter would have to be, or what GPUs need at least.
pub(super) fn job(job: &JobExplanation) -> String {
    let mut content = limiters(&job.suspects, "in the job");
    if !job.on_gpus.is_empty() {
        let mut table = Table::new("lrr", &["GPU", "least time\ns", "% of the\ntime"]);
        for gpu in &job.on_gpus {
            table.row([
                gpu.gpu.to_owned(),
                gpu.floor_s.map_or_else(none, |s| significant(s, 4)),
                gpu.share.map_or_else(none, |s| significant(100.0 * s, 3)),
            ]);
        }
        content += &table.finish();
    }
    content
}

/// Every limiter as the whole story of the largest step.
pub(super) fn suspects(steps: &StepsExplanation) -> String {
    limiters(&steps.suspects, "in the step")
}

fn limiters(suspects: &[Suspect], amount: &str) -> String {
    if suspects.is_empty() {
        return String::new();
    }
    let mut table = Table::new(
        "lrrrrr",
        &[
            "limiter",
            amount,
            "it would need",
            "in practice",
            "off by",
            "grew",
        ],
    );
    for suspect in suspects {
        let limiter = suspect.limiter;
        let amount = match limiter {
            Limiter::Compute => quantity::with_prefix(suspect.amount, "FLOP"),
            _ if limiter.is_rate() => quantity::bytes(suspect.amount),
            _ => format!("{:.0}", suspect.amount),
        };
        let practice = |range: crate::explain::Range| {
            format!(
                "{} – {}",
                shown(limiter, range.from),
                shown(limiter, range.to)
            )
        };
        let off = |distance: f64| {
            if distance <= 1.0 {
                "within".to_owned()
            } else {
                format!("{}×", significant(distance, 2))
            }
        };
        table.row([
            limiter.title().to_owned(),
            amount,
            shown(limiter, suspect.needed),
            suspect.plausible.map_or_else(none, practice),
            suspect.distance.map_or_else(none, off),
            suspect
                .growth
                .map_or_else(none, |g| format!("{}×", significant(g, 3))),
        ]);
    }
    table.finish()
}

/// The GPUs that a result may be from, and those it cannot be from.
pub(super) fn candidates(candidates: &[Candidate]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let share = |value: Option<f64>| value.map_or_else(none, percent);
    let mut table = Table::new(
        "lrrrrl",
        &[
            "GPU",
            "weights + KV pool\nof its memory",
            "prefill's floor\nof the time",
            "decode's floor\nof the time",
            "link",
            "it cannot be",
        ],
    );
    for candidate in candidates {
        let link = candidate.gpu.link;
        let rate = quantity::with_prefix(link.bytes_per_s, "B/s");
        table.row([
            candidate.gpu.title.to_owned(),
            share(candidate.memory_share),
            share(candidate.prefill_share),
            share(candidate.decode_share),
            format!("{} {rate}", link.kind.title()),
            candidate.impossible.clone().unwrap_or_default(),
        ]);
    }
    table.finish()
}
