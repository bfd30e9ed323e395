//! A comparison as text, Markdown, CSV and JSON.

use serde_json::{Value, json};

use super::alike;
use super::tables::{self, Grid};
use super::{Comparison, Source};
use crate::report::{fold_line, fold_line_under};
use crate::results::{Latency, Length, Load, ResultRow};

pub(super) fn text(comparison: &Comparison<'_>) -> String {
    let mut sections: Vec<String> = tables::grids(comparison).iter().map(Grid::text).collect();
    if sections.is_empty() {
        sections.push(NOTHING.to_owned());
    }
    sections.extend(computed(comparison).map(|note| format!("* {note}")));
    let common = common_notes(comparison);
    let sentences = |notes: &[&str]| {
        let lines: Vec<String> = notes.iter().map(|note| fold_line(note)).collect();
        lines.join("\n")
    };
    for group in &comparison.groups {
        sections.extend(tables::ranking_grid(comparison, group).map(|grid| grid.text()));
        let own = own_notes(&group.notes, &common);
        if !own.is_empty() {
            sections.push(sentences(&own));
        }
    }
    if !common.is_empty() {
        sections.push(format!("{IN_SEVERAL}\n{}", sentences(&common)));
    }
    let indented = |lines: Vec<String>| -> String {
        let lines = lines
            .iter()
            .map(|line| format!("\n  {}", fold_line_under(line, 4)));
        lines.collect()
    };
    let differences = differences(comparison);
    if !differences.is_empty() {
        sections.push(format!("{NOT_RANKED}{}", indented(differences)));
    }
    let remarks = remarks(comparison);
    if !remarks.is_empty() {
        sections.push(format!("Remarks{}", indented(remarks)));
    }
    sections.join("\n\n") + "\n"
}

const NOTHING: &str = "No file holds a result.";
const NOT_RANKED: &str = "Not ranked against each other, since they did not measure the same work:";
const IN_SEVERAL: &str = "Of more than one ranking:";

pub(super) fn markdown(comparison: &Comparison<'_>) -> String {
    let mut sections: Vec<String> = tables::grids(comparison)
        .iter()
        .map(Grid::markdown)
        .collect();
    if sections.is_empty() {
        sections.push(NOTHING.to_owned());
    }
    sections.extend(computed(comparison).map(|note| format!("\\* {note}")));
    let list = |lines: &[&str]| {
        let lines: Vec<String> = lines.iter().map(|line| format!("- {line}")).collect();
        lines.join("\n")
    };
    let borrowed = |lines: &[String]| list(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let common = common_notes(comparison);
    for group in &comparison.groups {
        sections.extend(tables::ranking_grid(comparison, group).map(|grid| grid.markdown()));
        let own = own_notes(&group.notes, &common);
        if !own.is_empty() {
            sections.push(list(&own));
        }
    }
    if !common.is_empty() {
        sections.push(format!("{IN_SEVERAL}\n\n{}", list(&common)));
    }
    let differences = differences(comparison);
    if !differences.is_empty() {
        sections.push(format!("{NOT_RANKED}\n\n{}", borrowed(&differences)));
    }
    let remarks = remarks(comparison);
    if !remarks.is_empty() {
        sections.push(format!("## Remarks\n\n{}", borrowed(&remarks)));
    }
    sections.join("\n\n") + "\n"
}

fn computed(comparison: &Comparison<'_>) -> Option<&'static str> {
    let any = comparison
        .entries
        .iter()
        .any(|entry| !entry.row.derived.is_empty());
    any.then_some("computed from the file's other figures")
}

fn differences(comparison: &Comparison<'_>) -> Vec<String> {
    let differences = comparison.differences.iter();
    differences
        .map(|d| format!("{}: {}", d.dimension, alike::shown(&d.values)))
        .collect()
}

/// The notes that more than one group has word for word.
fn common_notes<'a>(comparison: &'a Comparison<'_>) -> Vec<&'a str> {
    let notes: Vec<&str> = comparison
        .groups
        .iter()
        .flat_map(|group| &group.notes)
        .map(String::as_str)
        .collect();
    let mut common = Vec::new();
    for note in &notes {
        if !common.contains(note) && notes.iter().filter(|other| *other == note).count() > 1 {
            common.push(*note);
        }
    }
    common
}

fn own_notes<'a>(notes: &'a [String], common: &[&str]) -> Vec<&'a str> {
    notes
        .iter()
        .map(String::as_str)
        .filter(|note| !common.contains(note))
        .collect()
}

/// What rows and files have to say, in order; the same sentence about several rows once.
fn remarks(comparison: &Comparison<'_>) -> Vec<String> {
    let mut by_text: Vec<(String, Vec<usize>)> = Vec::new();
    for entry in &comparison.entries {
        for remark in entry.row.remarks.iter().cloned().chain(missing(entry.row)) {
            match by_text.iter_mut().find(|(text, _)| *text == remark) {
                Some((_, numbers)) => numbers.push(entry.number),
                None => by_text.push((remark, vec![entry.number])),
            }
        }
    }
    let mut lines: Vec<String> = by_text
        .into_iter()
        .map(|(text, numbers)| format!("{}: {text}", alike::list(&numbers)))
        .collect();
    for source in comparison.sources {
        let name = tables::file_name(&source.name);
        lines.extend(warmup(source).map(|line| format!("{name}: {line}")));
        lines.extend(
            source
                .import
                .remarks
                .iter()
                .map(|remark| format!("{name}: {remark}")),
        );
        const SHOWN: usize = 5;
        for rejected in source.import.rejected.iter().take(SHOWN) {
            lines.push(format!(
                "{name}: line {} was not read: {}.",
                rejected.line, rejected.reason
            ));
        }
        if let Some(more @ 1..) = source.import.rejected.len().checked_sub(SHOWN) {
            lines.push(format!("{name}: {more} more could not be read."));
        }
    }
    lines
}

/// What the file would have to say for the row to be ranked at all.
fn missing(row: &ResultRow) -> Option<String> {
    let missing: Vec<&str> = [
        (row.load == Load::Unknown, "batch"),
        (row.input_len.is_none(), "input-len"),
        (row.output_len.is_none(), "output-len"),
    ]
    .into_iter()
    .filter_map(|(is_missing, key)| is_missing.then_some(key))
    .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "Ranked against nothing, since the file does not say its {}; --set FILE:{}=… says it.",
            missing.join(", ").replace("-len", " length"),
            missing.join("=…, ")
        )
    })
}

fn warmup(source: &Source) -> Option<String> {
    let first = source.import.warmup.first()?;
    let ms = |s: f64| crate::quantity::duration(s * 1e9);
    let prefill = first
        .ttft
        .as_ref()
        .and_then(Latency::typical_s)
        .map(|s| format!("prefill {}", ms(s)));
    let step = first
        .first_decode_steps_s
        .first()
        .map(|&s| format!("first decode step {}", ms(s)));
    let figures: Vec<String> = prefill.into_iter().chain(step).collect();
    Some(format!(
        "The warm-up is no result and is in no table ({}).",
        figures.join(", ")
    ))
}

pub(super) fn csv(comparison: &Comparison<'_>) -> String {
    let mut lines = String::new();
    for (index, entry) in comparison.entries.iter().enumerate() {
        let cells = cells(entry.number, entry.source, entry.row);
        let line = |texts: Vec<String>| texts.join(",") + "\r\n";
        if index == 0 {
            lines += &line(cells.iter().map(|(name, _)| name.clone()).collect());
        }
        lines += &line(cells.into_iter().map(|(_, value)| quoted(&value)).collect());
    }
    lines
}

/// RFC 4180: quotes only where they are needed.
fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

/// Every dimension of a row, by name; what is not known is empty.
fn cells(number: usize, source: &str, row: &ResultRow) -> Vec<(String, String)> {
    let mut cells = Vec::new();
    let mut put = |name: &str, value: Option<String>| {
        cells.push((name.to_owned(), value.unwrap_or_default()))
    };
    let figure = |value: Option<f64>| value.map(|value| value.to_string());
    let (batch, limit, mean) = match row.load {
        Load::StaticBatch(size) => (Some(size), None, None),
        Load::Concurrency { limit, mean } => (None, limit, mean),
        Load::Unknown => (None, None, None),
    };
    put("number", Some(number.to_string()));
    put("file", Some(source.to_owned()));
    put("line", row.line.map(|line| line.to_string()));
    put("framework", Some(row.framework.name().to_owned()));
    put("program", Some(row.program.to_owned()));
    put("version", row.version.clone());
    put("run", row.label.clone());
    put("backend", row.backend.clone());
    put("model", row.model.clone());
    put("gpu", row.gpu.clone());
    put("tp", row.tp.map(|n| n.to_string()));
    put("pp", row.pp.map(|n| n.to_string()));
    put("dtype", row.dtype.clone());
    put("batch_size", batch.map(|n| n.to_string()));
    put("concurrency_limit", figure(limit));
    put("concurrency_mean", figure(mean));
    put("requests", row.requests.map(|n| n.to_string()));
    for (name, length) in [("input", row.input_len), ("output", row.output_len)] {
        put(
            &format!("{name}_len"),
            figure(length.map(|l: Length| l.tokens)),
        );
        put(
            &format!("{name}_len_is_counted"),
            length.map(|l| l.realised.to_string()),
        );
    }
    put("kv_depth", figure(row.kv_depth));
    put("total_input_tokens", figure(row.total_input_tokens));
    put("total_output_tokens", figure(row.total_output_tokens));
    put("duration_s", figure(row.duration_s));
    for (name, latency) in [
        ("ttft", &row.ttft),
        ("tpot", &row.tpot),
        ("itl", &row.itl),
        ("e2e", &row.e2e),
    ] {
        let of =
            |statistic: fn(&Latency) -> Option<f64>| figure(latency.as_ref().and_then(statistic));
        put(
            &format!("{name}_basis"),
            latency.as_ref().map(|l| l.basis.name().to_owned()),
        );
        put(&format!("{name}_mean_s"), of(|l| l.mean_s));
        put(&format!("{name}_median_s"), of(|l| l.median_s));
        put(&format!("{name}_p99_s"), of(|l| l.p99_s));
        put(&format!("{name}_std_s"), of(|l| l.std_s));
        put(
            &format!("{name}_percentiles"),
            latency
                .as_ref()
                .and_then(|l| l.percentiles)
                .map(|p| p.name().to_owned()),
        );
    }
    let rates = &row.rates;
    put("prefill_tokens_per_s", figure(rates.prefill_tokens_per_s));
    put("decode_tokens_per_s", figure(rates.decode_tokens_per_s));
    put("input_tokens_per_s", figure(rates.input_tokens_per_s));
    put("output_tokens_per_s", figure(rates.output_tokens_per_s));
    put("total_tokens_per_s", figure(rates.total_tokens_per_s));
    put("requests_per_s", figure(rates.requests_per_s));
    put(
        "output_tokens_per_s_per_user",
        figure(rates.output_tokens_per_s_per_user),
    );
    put(
        "output_tokens_per_s_per_gpu",
        figure(rates.output_tokens_per_s_per_gpu),
    );
    put("computed", Some(row.derived.join(" ")));
    put("remarks", Some(row.remarks.join(" ")));
    cells
}

pub(super) fn json(comparison: &Comparison<'_>) -> Value {
    let results: Vec<Value> = comparison
        .entries
        .iter()
        .map(|entry| json!({ "number": entry.number, "file": entry.source, "result": entry.row }))
        .collect();
    let files: Vec<Value> = comparison
        .sources
        .iter()
        .map(|source| {
            json!({
                "file": source.name,
                "format": source.import.format,
                "warmup": source.import.warmup,
                "rejected": source.import.rejected,
                "remarks": source.import.remarks,
            })
        })
        .collect();
    let differences: Vec<Value> = comparison
        .differences
        .iter()
        .map(|difference| {
            let values: Vec<Value> = difference
                .values
                .iter()
                .map(|(value, rows)| json!({ "value": value, "rows": rows }))
                .collect();
            json!({ "dimension": difference.dimension, "values": values })
        })
        .collect();
    json!({
        "results": results,
        "files": files,
        "groups": comparison.groups,
        "differences": differences,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_commas_and_quotes_are_quoted() {
        assert_eq!(quoted("a"), "a");
        assert_eq!(quoted("a, b"), "\"a, b\"");
        assert_eq!(quoted("say \"x\""), "\"say \"\"x\"\"\"");
    }
}
