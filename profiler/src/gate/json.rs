//! What came out of a comparison, for programs.

use serde_json::{Value, json};

use super::text::sentence;
use super::{Interval, Observation, Outcome, Row};

/// The outcome as JSON: times in nanoseconds, thresholds as fractions.
pub fn json(outcome: &Outcome) -> Value {
    let rows = |rows: &[Row]| rows.iter().map(row).collect::<Vec<_>>();
    let thresholds = &outcome.thresholds;
    json!({
        "verdict": outcome.verdict().name(),
        "summary": sentence(outcome),
        "observation": match outcome.observation {
            Observation::Step => "step",
            Observation::Process => "process",
        },
        "processes": {"base": outcome.processes[0], "head": outcome.processes[1]},
        "thresholds": {
            "gap": thresholds.gap,
            "same": thresholds.same,
            "same_overlap": thresholds.same_overlap,
            "sample_coverage": thresholds.sample_coverage,
            "support_coverage": thresholds.support_coverage,
            "min_steps": thresholds.min_steps,
            "min_processes": thresholds.min_processes,
            "false_alarms": thresholds.false_alarms,
        },
        "rows": rows(&outcome.rows),
        "null": outcome.null.as_deref().map(rows),
        "split_half": outcome.split_half.as_deref().map(rows),
        "notes": outcome.notes,
    })
}

fn row(row: &Row) -> Value {
    let judgement = &row.judgement;
    let side = |interval: Option<Interval>, samples: usize| {
        interval.map(
            |i| json!({"median_ns": i.median, "min_ns": i.min, "q3_ns": i.q3, "samples": samples}),
        )
    };
    json!({
        "point": row.point,
        "shape": row.shape,
        "step": row.kind.name(),
        "operation": row.operation,
        "verdict": judgement.verdict.name(),
        "reason": judgement.reason.code(),
        "why": judgement.reason.phrase(),
        "base": side(judgement.base, judgement.samples[0]),
        "head": side(judgement.head, judgement.samples[1]),
        "ratio": judgement.ratio,
    })
}
