//! What stands above a flame graph.

use stepscope_profiler::{Point, Record, StepKind, quantity};

/// The title of the flame graph of `kind` steps: model, data type, kind and, for one point, its sizes and the mean time of a
/// step.
pub fn title_for(record: &Record, kind: StepKind, point: Option<usize>) -> String {
    let mut title = format!(
        "{}, {}: {} step",
        model_name(&record.run.model.name),
        record.run.dtype,
        kind.name()
    );
    if let Some(point) = shown_point(record, point) {
        title += &format!(", {}", point.label());
        if let Some(ns) = mean_ns(point, kind) {
            title += &format!(", {}", quantity::duration(ns));
        }
    }
    title
}

/// The subtitle: device, how many steps the means are over, version and date.
pub fn subtitle_for(record: &Record, kind: StepKind, point: Option<usize>) -> String {
    let mut parts = vec![format!(
        "{}: {}, {}",
        record.run.device,
        record.environment.cpu.name.trim(),
        match record.run.threads {
            1 => "1 thread".to_owned(),
            n => format!("{n} threads"),
        }
    )];
    parts.push(match shown_point(record, point) {
        Some(point) => match point.total(kind).map_or(0, |total| total.steps) {
            1 => "1 step".to_owned(),
            n => format!("mean of {n} steps"),
        },
        None => "mean step of each point".to_owned(),
    });
    parts.push(format!(
        "{} {}",
        record.program.name, record.program.version
    ));
    parts.push(record.started.chars().take("2026-02-03".len()).collect());
    parts.join(" · ")
}

/// The point that the graph is of: the selected one, or the only one.
fn shown_point(record: &Record, point: Option<usize>) -> Option<&Point> {
    match (point, record.points.as_slice()) {
        (Some(index), points) => points.get(index),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

fn mean_ns(point: &Point, kind: StepKind) -> Option<f64> {
    let total = point.total(kind).filter(|total| total.steps > 0)?;
    Some(total.wall_ns as f64 / total.steps as f64)
}

/// The last part of a model's path; a named shape as it is.
fn model_name(name: &str) -> &str {
    let name = name.trim_end_matches('/');
    name.rsplit('/').next().unwrap_or(name)
}
