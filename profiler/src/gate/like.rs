//! Whether two runs may be held against each other at all.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Observed;
use crate::Error;
use crate::record::Record;

/// Checks that `b` ran what `a` ran, where it ran, and returns what differs without making the comparison void.
///
/// # Errors
/// Names the first thing in which the two differ so that their times say nothing about the program.
pub(super) fn check(a: &Observed, b: &Observed, across_cards: bool) -> Result<Vec<String>, Error> {
    for (what, of) in VOID {
        let (left, right) = (of(&a.about), of(&b.about));
        if left != right {
            return Err(differ(a, b, what, &left, &right));
        }
    }
    let keys = config_keys(&a.about.run.model.config, &b.about.run.model.config);
    if !keys.is_empty() {
        return Err(Error::content(format!(
            "{} and {} cannot be compared: the models' configs differ in {keys}",
            a.name, b.name
        )));
    }
    let uuid = |record: &Record| record.environment.gpu.as_ref().map(|g| g.uuid.clone());
    let (left, right) = (uuid(&a.about), uuid(&b.about));
    let mut notes = Vec::new();
    if left != right {
        let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
        if !across_cards {
            return Err(Error::content(format!(
                "{} and {} cannot be compared: they ran on two cards ({left} and {right}); record both on one, or give --across-cards",
                a.name, b.name
            )));
        }
        notes.push(format!("Two cards: {left} and {right}."));
    }
    for (what, of) in NOTED {
        let (left, right) = (of(&a.about), of(&b.about));
        if left != right {
            notes.push(format!(
                "{what}: {left} in {}, {right} in {}.",
                a.name, b.name
            ));
        }
    }
    Ok(notes)
}

/// Checks that two records hold the same points.
///
/// # Errors
/// Names the first point that differs.
pub(super) fn check_shapes(a: &Observed, b: &Observed) -> Result<(), Error> {
    if let Some((left, right)) = a.shapes.iter().zip(&b.shapes).find(|(l, r)| l != r) {
        return Err(differ(a, b, "the shape of a point", left, right));
    }
    if a.shapes.len() != b.shapes.len() {
        let count = |o: &Observed| o.shapes.len().to_string();
        return Err(differ(a, b, "the number of points", &count(a), &count(b)));
    }
    Ok(())
}

/// Checks that two records hold the same point at one place of their sweeps.
///
/// # Errors
/// When one has fewer points, or the two have different shapes.
pub(super) fn check_point(a: &Observed, b: &Observed, point: usize) -> Result<(), Error> {
    let shape = |observed: &Observed| {
        let shape = observed.shapes.get(point).cloned();
        shape.ok_or_else(|| {
            Error::content(format!(
                "--point {point}: {} has {} points, counted from 0",
                observed.name,
                observed.shapes.len()
            ))
        })
    };
    let (left, right) = (shape(a)?, shape(b)?);
    if left == right {
        return Ok(());
    }
    Err(differ(a, b, "the shape of the point", &left, &right))
}

fn differ(a: &Observed, b: &Observed, what: &str, left: &str, right: &str) -> Error {
    Error::content(format!(
        "{} and {} cannot be compared: {what} is {left} in the one, {right} in the other",
        a.name, b.name
    ))
}

/// A property of a run, as text.
type Property = (&'static str, fn(&Record) -> String);

/// What makes a comparison void where it differs.
const VOID: [Property; 11] = [
    ("the device", |r| r.run.device.clone()),
    ("the GPU", |r| {
        let gpu = r.environment.gpu.as_ref();
        gpu.map_or_else(|| "none".to_owned(), |g| g.name.clone())
    }),
    ("the processor", |r| {
        let cpu = &r.environment.cpu;
        // Beside a GPU the host's processor still lays out the batches.
        format!("{} with {}", cpu.name, cpu.simd)
    }),
    ("the number of threads", |r| r.run.threads.to_string()),
    ("the model's architecture", |r| {
        r.run.model.architecture.clone()
    }),
    ("the number of weights", |r| {
        r.run.model.parameters.to_string()
    }),
    // Random weights are no zeros and no real ones: the power that a GPU draws depends on the values.
    ("the kind of weights", |r| r.run.model.load_format.clone()),
    ("the data type", |r| r.run.dtype.clone()),
    ("the KV cache's data type", |r| r.run.kv_cache_dtype.clone()),
    ("the number of ranks", |r| r.run.tp.to_string()),
    ("the version of sglang that is followed", |r| {
        r.run.compat.clone()
    }),
];

/// What may be the change that is judged, or explain a difference.
const NOTED: [Property; 6] = [
    ("CUDA graphs", |r| match r.run.cuda_graph {
        None => "not known".to_owned(),
        Some(true) => "on".to_owned(),
        Some(false) => "off".to_owned(),
    }),
    ("Page size", |r| r.run.page_size.to_string()),
    ("Sampling", |r| {
        let s = &r.run.sampling;
        format!(
            "temperature {} top_k {} top_p {} min_p {}",
            s.temperature, s.top_k, s.top_p, s.min_p
        )
    }),
    ("Host", |r| {
        let host = r.environment.host.clone();
        host.unwrap_or_else(|| "unknown".to_owned())
    }),
    ("Driver", |r| {
        let gpu = r.environment.gpu.as_ref();
        gpu.map_or_else(|| "none".to_owned(), |g| g.driver.clone())
    }),
    ("NVRTC", |r| {
        let gpu = r.environment.gpu.as_ref();
        gpu.map_or_else(|| "none".to_owned(), |g| g.nvrtc.clone())
    }),
];

/// The keys in which two configs differ, but for the one that says where the model lay.
fn config_keys(a: &Value, b: &Value) -> String {
    let (Some(left), Some(right)) = (a.as_object(), b.as_object()) else {
        return if a == b { "" } else { "everything" }.to_owned();
    };
    let keys: BTreeSet<&str> = left
        .keys()
        .chain(right.keys())
        .filter(|key| *key != "_name_or_path" && left.get(*key) != right.get(*key))
        .map(String::as_str)
        .collect();
    keys.into_iter().collect::<Vec<_>>().join(", ")
}
