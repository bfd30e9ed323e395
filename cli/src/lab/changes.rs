//! In what two runs of the laboratory differ.

use serde_json::Value;
use stepscope_profiler::report::Table;

/// The groups of figures that are looked at.
const GROUPS: [&str; 4] = ["results", "resources", "instructions", "counters"];

/// The figures of the new kernel that are not what they were, as a table; `None` where all are.
pub(super) fn since(before: &Value, now: &Value) -> Option<String> {
    let mut rows = Vec::new();
    for group in GROUPS {
        let figures = |document: &Value| document["mine"][group].as_object().cloned();
        let (old, new) = (
            figures(before).unwrap_or_default(),
            figures(now).unwrap_or_default(),
        );
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        for name in new.keys().chain(gone) {
            let [a, b] =
                [&old, &new].map(|figures| figures.get(name).map_or("–".to_owned(), shown));
            if a != b {
                rows.push([name.clone(), a, b]);
            }
        }
    }
    let median = |document: &Value| {
        let samples = document["times"]["mine"]["samples"].as_array()?;
        let times = samples
            .iter()
            .filter_map(|sample| sample["time_ns"].as_f64());
        let times: Vec<f64> = times.collect();
        stepscope_profiler::stats::median(&times)
    };
    if let (Some(a), Some(b)) = (median(before), median(now)) {
        let us = |ns: f64| format!("{:.2}", ns / 1e3);
        rows.push(["median time (µs)".to_owned(), us(a), us(b)]);
    }
    if rows.is_empty() {
        return None;
    }
    let mut table = Table::new(
        "lrr",
        ["Since the last run", "before", "now"].map(str::to_owned),
    );
    for row in rows {
        table.row(row);
    }
    Some(table.render())
}

fn shown(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 => format!("{number:.0}"),
        Some(number) => format!("{number:.2}"),
        None => value.as_str().unwrap_or("–").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_changed_is_shown() {
        let document = |wrong: u32, conflicts: u32| {
            json!({ "mine": {
                "results": { "wrong elements": wrong, "findings": 0 },
                "resources": { "registers of a thread": 32 },
                "counters": { "bank conflicts": conflicts, "sectors of a load": 4.5 },
            } })
        };
        assert_eq!(since(&document(3, 8), &document(3, 8)), None);
        let table = since(&document(3, 8), &document(0, 1024)).unwrap();
        let words: Vec<Vec<&str>> = table
            .lines()
            .skip(2)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words,
            [
                ["wrong", "elements", "3", "0"],
                ["bank", "conflicts", "8", "1024"]
            ]
        );
    }
}
