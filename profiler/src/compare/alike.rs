//! Which rows measured the same work, and in what the others differ.

use serde::Serialize;

use super::Entry;
use super::ranking::{self, Ranking};
use crate::results::{Length, Load, ResultRow};

/// Lengths and concurrencies that differ by less are the same.
const SAME: f64 = 0.01;

/// Rows of the same work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Their numbers.
    pub rows: Vec<usize>,
    /// What is ranked among them; empty for a group of one.
    pub rankings: Vec<Ranking>,
    /// What to know of the ranking: what is not ranked and why, what was taken as equal, what differs, one sentence each.
    pub notes: Vec<String>,
}

/// A dimension in which rows differ that are not ranked against each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The dimension.
    pub dimension: String,
    /// Its values, each with the numbers of its rows.
    pub values: Vec<(String, Vec<usize>)>,
}

/// One thing that must be equal for rows to be ranked.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    /// No file says it: rows are ranked all the same, and a note tells so.
    NotSaid,
    /// Not said, and without it the work is not known.
    Missing,
    Text(String),
    Number {
        value: f64,
        shown: String,
    },
}

impl Value {
    fn text(text: Option<&str>) -> Value {
        text.map_or(Value::NotSaid, |text| Value::Text(text.to_owned()))
    }

    fn length(length: Option<Length>) -> Value {
        match length {
            None => Value::Missing,
            // What was asked for is another thing than what was counted.
            Some(Length {
                tokens,
                realised: false,
            }) => Value::Text(format!("{} asked for", whole(tokens))),
            Some(length) => Value::Number {
                value: length.tokens,
                shown: whole(length.tokens),
            },
        }
    }

    fn agrees(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Missing, _) | (_, Value::Missing) => false,
            (Value::NotSaid, _) | (_, Value::NotSaid) => true,
            (Value::Number { value: a, .. }, Value::Number { value: b, .. }) => {
                (a - b).abs() <= SAME * a.abs().max(b.abs())
            }
            (a, b) => a == b,
        }
    }

    fn shown(&self) -> &str {
        match self {
            Value::NotSaid | Value::Missing => "not said",
            Value::Text(shown) | Value::Number { shown, .. } => shown,
        }
    }
}

/// What must be equal, by name.
fn work(row: &ResultRow) -> Vec<(String, Value)> {
    let model = row.model.as_deref().map(model_name);
    let mut work = vec![
        ("model".to_owned(), Value::text(model.as_deref())),
        ("GPU".to_owned(), Value::text(hardware(row))),
        (
            "batch or concurrency".to_owned(),
            load(row.load).map_or(Value::Missing, |shown| match row.load {
                Load::Concurrency {
                    limit: None,
                    mean: Some(mean),
                } => Value::Number { value: mean, shown },
                _ => Value::Text(shown),
            }),
        ),
        ("input tokens".to_owned(), Value::length(row.input_len)),
        ("output tokens".to_owned(), Value::length(row.output_len)),
        (
            "tokens cached before".to_owned(),
            row.kv_depth
                .map_or(Value::NotSaid, |depth| Value::Text(whole(depth))),
        ),
    ];
    let others = row.workload.iter();
    work.extend(others.map(|(name, value)| (name.replace('_', " "), Value::Text(plain(value)))));
    work
}

/// The same rate is written `4`, `4.0`, `inf` and `Infinity`.
fn plain(value: &str) -> String {
    value
        .parse::<f64>()
        .map_or_else(|_| value.to_owned(), |number| number.to_string())
}

/// Folders, organisations and capitals are no part of a model's name.
fn model_name(model: &str) -> String {
    let name = model
        .trim_end_matches(['/', '\\'])
        .rsplit(['/', '\\'])
        .next();
    name.unwrap_or(model).to_lowercase()
}

/// The GPU, or the processor where a back end says that it ran there.
pub(super) fn hardware(row: &ResultRow) -> Option<&str> {
    let on_cpu = row
        .backend
        .as_deref()
        .is_some_and(|b| b.eq_ignore_ascii_case("cpu") || b.eq_ignore_ascii_case("blas"));
    let cpu = row
        .settings
        .get("cpu_info")
        .map(String::as_str)
        .filter(|_| on_cpu);
    row.gpu.as_deref().or(cpu)
}

/// A load in words.
pub(super) fn load(load: Load) -> Option<String> {
    match load {
        Load::StaticBatch(size) => Some(format!("batch {size}")),
        Load::Concurrency {
            limit: Some(limit), ..
        } => Some(format!("≤ {} in flight", whole(limit))),
        Load::Concurrency {
            mean: Some(mean), ..
        } => Some(format!(
            "{} in flight",
            crate::quantity::significant(mean, 3)
        )),
        Load::Concurrency { .. } => Some("no limit".to_owned()),
        Load::Unknown => None,
    }
}

/// A number of tokens, with a decimal where a mean has one.
pub(super) fn whole(tokens: f64) -> String {
    if tokens.fract() == 0.0 {
        format!("{tokens:.0}")
    } else {
        format!("{tokens:.1}")
    }
}

fn alike(a: &ResultRow, b: &ResultRow) -> bool {
    let (a, b) = (work(a), work(b));
    let of = |name: &str| {
        b.iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value)
    };
    a.iter()
        .all(|(name, value)| of(name).is_none_or(|other| value.agrees(other)))
}

/// Rows of the same work, each with its rankings. A row joins the first group with all of whose rows it is alike.
pub(super) fn groups(entries: &[Entry<'_>]) -> Vec<Group> {
    let mut groups: Vec<Vec<Entry<'_>>> = Vec::new();
    for entry in entries {
        let fitting = groups
            .iter_mut()
            .find(|group| group.iter().all(|other| alike(other.row, entry.row)));
        match fitting {
            Some(group) => group.push(*entry),
            None => groups.push(vec![*entry]),
        }
    }
    groups
        .into_iter()
        .map(|members| {
            let (rankings, mut notes) = match members.len() {
                1 => (Vec::new(), Vec::new()),
                _ => ranking::rankings(&members),
            };
            if members.len() > 1 {
                notes.extend(not_said(&members));
                notes.extend(other_settings(&members));
            }
            Group {
                rows: members.iter().map(|entry| entry.number).collect(),
                rankings,
                notes,
            }
        })
        .collect()
}

/// What was taken as equal because a file does not say it.
fn not_said(members: &[Entry<'_>]) -> Vec<String> {
    let mut of_none = Vec::new();
    let mut sentences = Vec::new();
    for dimension in ["model", "GPU"] {
        let is_missing = |entry: &&Entry<'_>| {
            work(entry.row)
                .iter()
                .any(|(name, value)| name == dimension && *value == Value::NotSaid)
        };
        let missing: Vec<usize> = members
            .iter()
            .filter(is_missing)
            .map(|entry| entry.number)
            .collect();
        if missing.len() == members.len() {
            of_none.push(dimension);
        } else if !missing.is_empty() {
            sentences.push(format!(
                "The {dimension} of {} is not said and was taken as that of the others; --set FILE:{}=… says it.",
                list(&missing),
                dimension.to_lowercase()
            ));
        }
    }
    if !of_none.is_empty() {
        sentences.push(format!(
            "No file says the {}, so they were taken as equal; --set FILE:model=… and gpu=… say them.",
            of_none.join(" and the ")
        ));
    }
    sentences
}

/// What differs and is compared all the same: ranks, types, numbers of requests, settings.
fn other_settings(members: &[Entry<'_>]) -> Vec<String> {
    let mut names = vec!["tp", "pp", "dtype", "requests"];
    for entry in members {
        for name in entry.row.settings.keys().map(String::as_str) {
            // Each of them stands in a table, or says what ran rather than how.
            if !names.contains(&name) && !matches!(name, "cpu_info" | "model_type") {
                names.push(name);
            }
        }
    }
    let mut sentences = Vec::new();
    for name in names {
        let mut values: Vec<(String, Vec<usize>)> = Vec::new();
        for entry in members {
            let row = entry.row;
            let value = match name {
                "tp" => row.tp.map(|n| n.to_string()),
                "pp" => row.pp.map(|n| n.to_string()),
                "dtype" => row.dtype.clone(),
                "requests" => row.requests.map(|n| n.to_string()),
                _ => row.settings.get(name).cloned(),
            };
            if let Some(value) = value {
                add(&mut values, &value, entry.number);
            }
        }
        if values.len() > 1 {
            sentences.push(format!("They differ in {name}: {}.", shown(&values)));
        }
    }
    sentences
}

/// In what rows of different groups differ.
pub(super) fn differences(entries: &[Entry<'_>], groups: &[Group]) -> Vec<Difference> {
    if groups.len() < 2 {
        return Vec::new();
    }
    let works: Vec<_> = entries
        .iter()
        .map(|entry| (entry.number, work(entry.row)))
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in works.iter().flat_map(|(_, work)| work) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut found = Vec::new();
    for name in names {
        let mut values: Vec<(String, Vec<usize>)> = Vec::new();
        let mut separates = false;
        for (number, work) in &works {
            let value = work
                .iter()
                .find(|(other, _)| other == name)
                .map_or(&Value::NotSaid, |(_, value)| value);
            separates |= *value == Value::Missing;
            add(&mut values, value.shown(), *number);
        }
        let said = values
            .iter()
            .filter(|(value, _)| value != "not said")
            .count();
        if said > 1 || separates {
            found.push(Difference {
                dimension: name.to_owned(),
                values,
            });
        }
    }
    found
}

fn add(values: &mut Vec<(String, Vec<usize>)>, value: &str, number: usize) {
    match values.iter_mut().find(|(other, _)| other == value) {
        Some((_, numbers)) => numbers.push(number),
        None => values.push((value.to_owned(), vec![number])),
    }
}

/// `1024 (1–4, 7) · 256 (5)`.
pub(super) fn shown(values: &[(String, Vec<usize>)]) -> String {
    let parts: Vec<String> = values
        .iter()
        .map(|(value, numbers)| format!("{value} ({})", list(numbers)))
        .collect();
    parts.join(" · ")
}

/// `#1–#4, #7`.
pub(super) fn list(numbers: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let parts: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| match last - first {
            0 => format!("#{first}"),
            1 => format!("#{first}, #{last}"),
            _ => format!("#{first}–#{last}"),
        })
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_a_range() {
        assert_eq!(list(&[1]), "#1");
        assert_eq!(list(&[1, 2]), "#1, #2");
        assert_eq!(list(&[1, 2, 3, 4, 7]), "#1–#4, #7");
    }

    #[test]
    fn names_of_models_without_folder_and_organisation() {
        assert_eq!(
            model_name("Qwen/Qwen2.5-7B-Instruct"),
            "qwen2.5-7b-instruct"
        );
        assert_eq!(
            model_name("C:\\models\\Qwen2.5-7B-Instruct\\"),
            "qwen2.5-7b-instruct"
        );
    }

    #[test]
    fn a_rate_has_several_spellings() {
        assert_eq!(plain("4.0"), plain("4"));
        assert_eq!(plain("Infinity"), plain("inf"));
        assert_eq!(plain("random"), "random");
    }
}
