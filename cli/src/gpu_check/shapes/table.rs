//! The rows as people read them.

use std::fmt::Write as _;

use stepscope_profiler::quantity::significant;
use stepscope_profiler::report::Table;

use super::list::Phase;
use super::{Conditions, Fate, Row};

pub(super) fn render(rows: &[Row], conditions: &Conditions) -> String {
    let mut text = String::new();
    if !conditions.is_emulated {
        // Writing to a string does not fail.
        let _ = write!(text, "{}", timed(rows, conditions));
    } else {
        let _ = write!(text, "{}", untimed(rows));
    }
    for line in remarks(conditions) {
        let _ = write!(text, "\n{line}");
    }
    text
}

/// Of a device that has no time.
fn untimed(rows: &[Row]) -> String {
    let header = ["model", "phase", "operation", "shape", "kernel", "", ""];
    let mut table = Table::new("lllllll", header.map(str::to_owned));
    for row in rows {
        let [model, phase, operation, shape, kernel] = named(row);
        let verdict = if row.is_good() { "right" } else { "" };
        let note = row.note(None).unwrap_or_default();
        table.row([
            model,
            phase,
            operation,
            shape,
            kernel,
            verdict.to_owned(),
            note,
        ]);
    }
    table.render()
}

fn timed(rows: &[Row], conditions: &Conditions) -> String {
    let header = [
        "model",
        "phase",
        "operation",
        "shape",
        "kernel",
        "ours\nµs",
        "peer\nµs",
        "ours\nby peer",
        "\nTFLOP/s",
        "\nGB/s",
        "of the data\nsheet, %",
        "",
    ];
    let mut table = Table::new("lllllrrrrrrl", header.map(str::to_owned));
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| significant(value, 3));
    for row in rows {
        let [model, phase, operation, shape, kernel] = named(row);
        let share = row.share_of_limit(conditions.data_sheet);
        table.row([
            model,
            phase,
            operation,
            shape,
            kernel,
            number(row.ours_us()),
            number(row.theirs_us()),
            number(row.ratio()),
            number(row.tflops()),
            number(row.gb_per_s()),
            number(share.map(|share| 100.0 * share)),
            row.note(conditions.data_sheet).unwrap_or_default(),
        ]);
    }
    table.render()
}

fn named(row: &Row) -> [String; 5] {
    let kernel = row.outcome().map(|outcome| outcome.checked.kernel.clone());
    [
        row.shape.model.clone(),
        row.shape.phase.name().to_owned(),
        row.shape.work.name().to_owned(),
        row.shape.dimensions(),
        kernel.unwrap_or_default(),
    ]
}

/// What is to be known of the columns, and what is not in them.
fn remarks(conditions: &Conditions) -> Vec<String> {
    let mut lines = Vec::new();
    if conditions.is_emulated {
        lines.push("no times: the device is emulated".to_owned());
    }
    match &conditions.cublaslt {
        Ok(handle) => lines.push(format!(
            "peer of the GEMMs: cuBLASLt {}, the first algorithm that its heuristic suggests",
            handle.library().version()
        )),
        Err(why) => lines.push(format!("no cuBLASLt: {why}")),
    }
    if let Some(torch) = &conditions.sdpa.torch {
        lines.push(format!(
            "peer of attention: scaled_dot_product_attention of torch {torch}, in a process of its own after ours"
        ));
    }
    if let Some(why) = &conditions.sdpa.missing {
        lines.push(format!("no torch, or not all of it: {why}"));
    }
    if let Some(copy) = conditions.copy_gb_per_s {
        lines.push(format!(
            "copies within the device's memory: {} GB/s read and written",
            significant(copy, 3)
        ));
    }
    lines
}

/// One line for the table of stages.
pub(super) fn summary(rows: &[Row], conditions: &Conditions) -> String {
    let looked_at = |row: &&Row| !matches!(row.fate, Fate::NotMeasured(_));
    let all = rows.iter().filter(looked_at).count();
    let good = rows
        .iter()
        .filter(looked_at)
        .filter(|row| row.is_good())
        .count();
    let mut parts = vec![format!("{good} of {all} shapes right")];
    match rows.len() - all {
        0 => {}
        left => parts.push(format!("{left} not measured")),
    }
    if conditions.is_emulated {
        parts.push("no times: the device is emulated".to_owned());
        return parts.join("; ");
    }
    let missing = [
        ("cuBLASLt", conditions.cublaslt.is_err()),
        ("SDPA", conditions.sdpa.missing.is_some()),
    ];
    for (peer, is_missing) in missing {
        let of_phase = |phase: Phase| {
            let ratios = rows
                .iter()
                .filter(|row| row.peer() == peer && row.shape.phase == phase)
                .filter(|row| row.is_plausible(conditions.data_sheet));
            let mean = geometric_mean(ratios.filter_map(Row::ratio))?;
            Some(format!("{} {}", phase.name(), significant(mean, 3)))
        };
        let phases: Vec<String> = [Phase::Decode, Phase::Prefill]
            .into_iter()
            .filter_map(of_phase)
            .collect();
        if !phases.is_empty() {
            parts.push(format!("time by {peer}'s: {}", phases.join(", ")));
        } else if is_missing {
            parts.push(format!("no {peer}"));
        }
    }
    parts.join("; ")
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let logarithms: Vec<f64> = values.map(f64::ln).collect();
    stepscope_profiler::stats::mean(&logarithms).map(f64::exp)
}
