//! How far an explained step can be believed.

use super::StepExplanation;
use crate::activity::{DeviceActivity, Grade, Trust, trust};
use crate::quantity::percent;
use crate::record::{Point, Record};
use crate::recorder::StepKind;

/// Recording that makes a decode step this much longer is named: the share that a trace of kernels is allowed to cost.
const RECORDING_COST: f64 = 0.05;

/// The grade of the measurement: what the GPU's records and its watch say, and what speaks against any measurement.
pub(super) fn of_measurement(
    record: &Record,
    point: &Point,
    kind: StepKind,
    activity: Option<&DeviceActivity>,
) -> Trust {
    let mut found = if record.run.device == "cuda" {
        trust(activity, point.gpu.as_ref())
    } else {
        Trust {
            grade: Grade::Good,
            reasons: Vec::new(),
        }
    };
    let threads = record.environment.cpu.threads.max(1) as f64;
    if let Some(load) = record.environment.load_average
        && load > 0.5 * threads
    {
        limit(
            &mut found,
            format!(
                "other work ran on the machine when the run began (load {load:.1} on {threads} threads)"
            ),
        );
    }
    if kind == StepKind::Prefill && point.repetitions.len() < 2 {
        limit(
            &mut found,
            "the prefill was measured once (--repetitions N)".to_owned(),
        );
    }
    if kind == StepKind::Decode
        && let Some(cost) = record
            .timing
            .iter()
            .flat_map(|timing| &timing.overhead)
            .last()
    {
        let share = cost.with_ns as f64 / cost.without_ns.max(1) as f64 - 1.0;
        if share > RECORDING_COST {
            limit(
                &mut found,
                format!(
                    "recording {} makes a decode step {} longer",
                    cost.what,
                    percent(share)
                ),
            );
        }
    }
    found
}

/// Adds what the explanation itself found.
pub(super) fn add_contradictions(step: &mut StepExplanation) {
    let above = step.operations.iter().filter(|o| o.is_above_roof).count();
    if above > 0 {
        let what = match above {
            1 => "1 operation is".to_owned(),
            n => format!("{n} operations are"),
        };
        limit(
            &mut step.trust,
            format!(
                "{what} faster than possible at these ceilings: the cost model or a ceiling is wrong"
            ),
        );
    }
}

fn limit(trust: &mut Trust, reason: String) {
    trust.grade = trust.grade.max(Grade::Limited);
    trust.reasons.push(reason);
}
