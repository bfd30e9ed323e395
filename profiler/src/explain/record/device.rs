//! What the records of a GPU's kernels say of an explained step, and what they do not carry.

use serde::Serialize;

use super::parts::PartKind;
use super::{StepExplanation, part_ns};
use crate::activity::{Cause, DeviceActivity, Grade, Trust};
use crate::explain::statement::{Figure, Statement};
use crate::quantity::{duration, percent, significant};
use crate::record::Record;
use crate::recorder::Timer;

/// What a GPU did during a step, by its own clock; means where several steps are explained as one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceExplanation {
    /// Steps that the figures are the mean of.
    pub steps: u64,
    /// From the step's beginning to its end, nanoseconds.
    pub window_ns: f64,
    /// Time in which at least one kernel or transfer ran: the union of their times.
    pub busy_ns: f64,
    /// Time that a second kernel or transfer ran beside a first.
    pub overlap_ns: f64,
    /// What it waited for; with `busy_ns` they add up to `window_ns`.
    pub gaps: Vec<Gaps>,
    /// Kernels that the program launched.
    pub launched: f64,
    /// Kernels that were recorded.
    pub kernels: f64,
    /// Those that ran inside graphs.
    pub graph_kernels: f64,
}

/// Gaps of one cause.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gaps {
    /// What the GPU waited for.
    pub cause: Cause,
    /// How many.
    pub count: f64,
    /// How long, together.
    pub ns: f64,
}

impl DeviceExplanation {
    /// Of recorded steps; nothing if the records do not carry it.
    pub(super) fn new(activity: &DeviceActivity, trust: &Trust) -> Option<DeviceExplanation> {
        if trust.grade == Grade::Unusable || activity.untraced > 0 || activity.steps == 0 {
            return None;
        }
        let per_step = |sum: u64| sum as f64 / activity.steps as f64;
        let gaps = activity.gaps.iter().map(|gap| Gaps {
            cause: gap.cause,
            count: per_step(gap.count),
            ns: per_step(gap.ns),
        });
        Some(DeviceExplanation {
            steps: activity.steps,
            window_ns: per_step(activity.window_ns),
            busy_ns: per_step(activity.busy_ns),
            overlap_ns: per_step(activity.overlap_ns),
            gaps: gaps.collect(),
            launched: per_step(activity.launched),
            kernels: per_step(activity.kernels),
            graph_kernels: per_step(activity.graph_kernels),
        })
    }

    /// Time of the gaps of a cause, nanoseconds.
    pub fn gap_ns(&self, cause: Cause) -> f64 {
        let of_cause = self.gaps.iter().filter(|gap| gap.cause == cause);
        of_cause.map(|gap| gap.ns).sum()
    }
}

/// Waiting that takes less of a step is not called its bound.
const BOUND_SHARE: f64 = 0.1;

/// Busy time, what the GPU waited for, and what ran at once; or why none of it is stated.
pub(super) fn statements(record: &Record, step: &StepExplanation) -> Vec<Statement> {
    let Some(device) = &step.device else {
        return refusal(record, step).into_iter().collect();
    };
    let mut statements = vec![busy(device)];
    statements.extend(waited(record, step, device));
    if device.overlap_ns > 0.0 {
        statements.push(Statement::new(
            format!(
                "Kernels ran beside one another for {}, by programmatic dependent launch or in several streams: their times add up to more \
                 than the GPU was busy.",
                duration(device.overlap_ns)
            ),
            vec![Figure::new(
                "overlap",
                device.overlap_ns / 1e9,
                "s",
                "sum of the times of all kernels and transfers − time in which anything ran",
            )],
        ));
    }
    statements
}

/// Why nothing is said of busy time and gaps; nothing where nobody would look for it, on a CPU.
fn refusal(record: &Record, step: &StepExplanation) -> Option<Statement> {
    if record.run.device != "cuda" {
        return None;
    }
    let why = if step.is_recorded {
        let reason = step.trust.reasons.first().map(String::as_str);
        reason.unwrap_or("some steps have no trace").to_owned()
    } else {
        match record.timing.as_ref().map(|timing| timing.timer) {
            Some(Timer::Cupti) => "no kernel of this step was recorded".to_owned(),
            _ => "kernels were not recorded, which --timer cupti does".to_owned(),
        }
    };
    Some(Statement::plain(format!(
        "When the GPU was busy, and what it waited for, is not stated: {why}. The time between operations stays one part."
    )))
}

fn busy(device: &DeviceExplanation) -> Statement {
    let share = device.busy_ns / device.window_ns;
    let mut text = format!(
        "The GPU was busy for {}, {} of the {} from the step's beginning to its end by its own clock; {} kernels ran",
        duration(device.busy_ns),
        percent(share),
        duration(device.window_ns),
        count(device.kernels),
    );
    if device.graph_kernels > 0.0 {
        text += &format!(", {} of them inside graphs", count(device.graph_kernels));
    }
    text += if device.kernels == device.launched {
        ", and all that were launched were recorded."
    } else {
        "."
    };
    Statement::new(
        text,
        vec![Figure::new(
            "busy",
            device.busy_ns / 1e9,
            "s",
            "union of the times of all kernels, copies and fills",
        )],
    )
}

fn waited(
    record: &Record,
    step: &StepExplanation,
    device: &DeviceExplanation,
) -> Option<Statement> {
    let idle_ns: f64 = device.gaps.iter().map(|gap| gap.ns).sum();
    if idle_ns <= 0.0 {
        return None;
    }
    let host_ns = part_ns(step, PartKind::Host);
    let mut parts = Vec::new();
    let mut figures = Vec::new();
    for gap in device.gaps.iter().filter(|gap| gap.ns > 0.0) {
        let time = duration(gap.ns);
        let n = count(gap.count);
        let gaps = if gap.count == 1.0 { "gap" } else { "gaps" };
        parts.push(match gap.cause {
            Cause::LaunchLate if host_ns > 0.0 => format!(
                "the host launched late: {time} in {n} {gaps}, {} of it the host's phases before the first kernel",
                duration(host_ns)
            ),
            Cause::LaunchLate => format!("the host launched late: {time} in {n} {gaps}"),
            Cause::Dependency => format!(
                "the next kernel was in the queue and waited for the one before: {time} in {n} {gaps}, {} each",
                duration(gap.ns / gap.count.max(1.0))
            ),
            Cause::AfterLast => format!("after the last kernel: {time}"),
            Cause::Unknown => format!("not known for what: {time} in {n} {gaps}"),
        });
        figures.push(Figure::new(
            gap.cause.words(),
            gap.ns / 1e9,
            "s",
            match gap.cause {
                Cause::LaunchLate => {
                    "gaps of which the next kernel's launch call returned after the gap had begun"
                }
                Cause::Dependency => {
                    "gaps of which the next kernel's launch call had returned before"
                }
                Cause::AfterLast => "end of the step − end of the last kernel",
                Cause::Unknown => "gaps before kernels whose launch call was not recorded",
            },
        ));
    }
    let mut text = format!(
        "It waited for {} ({} of the step): {}.",
        duration(idle_ns),
        percent(idle_ns / device.window_ns),
        parts.join("; ")
    );
    let late_ns = device.gap_ns(Cause::LaunchLate);
    if late_ns > 0.5 * idle_ns && late_ns > BOUND_SHARE * device.window_ns {
        text += " The host is what this step waits for.";
        if record.run.cuda_graph == Some(false) {
            text += " Replaying a CUDA graph, which --disable-cuda-graph turned off, takes one launch instead of all of them.";
        }
    }
    Some(Statement::new(text, figures))
}

/// A number of things, which is whole if every step had as many.
fn count(per_step: f64) -> String {
    match per_step.fract() == 0.0 {
        true => format!("{per_step}"),
        false => significant(per_step, 3),
    }
}
