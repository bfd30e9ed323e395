//! What came out of a comparison, for people: as plain text and as Markdown.

use super::compare::processes_for;
use super::{Interval, Observation, Outcome, Row, Verdict, chance_of_gap};
use crate::quantity::significant;
use crate::recorder::StepKind;
use crate::report::Table;

/// The verdict in a sentence, a table per step, the controls, and what a reader should know.
pub fn text(outcome: &Outcome) -> String {
    let mut sections = vec![sentence(outcome), basis(outcome)];
    for group in groups(outcome) {
        let unit = Unit::of(group);
        let mut table = Table::new("lrrrrrll", header(&unit, "\n"));
        for row in group {
            table.row(cells(row, &unit));
        }
        sections.push(format!("{}\n{}", title(&group[0]), table.render()));
    }
    sections.push(controls(outcome).join("\n"));
    if !outcome.notes.is_empty() {
        sections.push(outcome.notes.join("\n"));
    }
    sections.join("\n\n") + "\n"
}

/// The same for a comment under a change: Markdown.
pub fn markdown(outcome: &Outcome) -> String {
    let mut sections = vec![
        format!("**{}**", escape(&sentence(outcome))),
        escape(&basis(outcome)),
    ];
    for group in groups(outcome) {
        let unit = Unit::of(group);
        let mut lines = vec![
            format!("| {} |", header(&unit, " ").join(" | ")),
            "|:--|--:|--:|--:|--:|--:|:--|:--|".to_owned(),
        ];
        for row in group {
            let cells: Vec<String> = cells(row, &unit).iter().map(|c| escape(c)).collect();
            lines.push(format!("| {} |", cells.join(" | ")));
        }
        sections.push(format!("{}\n\n{}", title(&group[0]), lines.join("\n")));
    }
    let list = controls(outcome);
    let list = list.iter().chain(&outcome.notes);
    let list: Vec<String> = list.map(|line| format!("- {}", escape(line))).collect();
    sections.push(list.join("\n"));
    sections.join("\n\n") + "\n"
}

/// Rows of one point and one kind of step.
fn groups(outcome: &Outcome) -> impl Iterator<Item = &[Row]> {
    let same_step = |a: &Row, b: &Row| (a.point, a.kind) == (b.point, b.kind);
    outcome.rows.chunk_by(same_step)
}

/// `SLOW: decode step +4.1 %, qkv_proj of the decode step +9.8 %.` and how many rows came out otherwise.
pub(super) fn sentence(outcome: &Outcome) -> String {
    let verdict = outcome.verdict();
    let rows = |verdict: Verdict| {
        let of = move |row: &&Row| row.judgement.verdict == verdict;
        outcome.rows.iter().filter(of)
    };
    let several_points = outcome
        .rows
        .iter()
        .any(|r| r.point != outcome.rows[0].point);
    let named = |row: &Row| {
        let point = if several_points {
            format!(" ({})", row.shape)
        } else {
            String::new()
        };
        match row.judgement.ratio {
            Some(ratio) => format!("{}{point} {} %", printable(&row.label()), change(ratio)),
            None => format!("{}{point}", printable(&row.label())),
        }
    };
    const NAMED: usize = 4;
    let mut steps_first: Vec<&Row> = rows(verdict).collect();
    steps_first.sort_by_key(|row| row.operation.is_some());
    let named_rows = steps_first.into_iter().take(NAMED);
    let mut names: Vec<String> = named_rows.map(named).collect();
    let more = rows(verdict).count().saturating_sub(NAMED);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    let all = outcome.rows.len();
    let main = match verdict {
        Verdict::Same if all == 1 => format!("SAME: {}.", names.join(", ")),
        Verdict::Same => format!("SAME: all {all} rows agree."),
        _ => format!("{}: {}.", verdict.name(), names.join(", ")),
    };
    let others: Vec<String> = [
        Verdict::Unusable,
        Verdict::Fast,
        Verdict::Ambiguous,
        Verdict::Same,
    ]
    .into_iter()
    .filter(|&other| other != verdict)
    .filter_map(|other| match rows(other).count() {
        0 => None,
        count => Some(format!("{count} {}", other.name())),
    })
    .collect();
    if others.is_empty() {
        main
    } else {
        format!("{main} The rest: {}.", others.join(", "))
    }
}

/// What was held against what, and how far that carries.
fn basis(outcome: &Outcome) -> String {
    let [base, head] = outcome.processes;
    match outcome.observation {
        Observation::Step => "One process against one process; each step is a sample, the first decode step of each repetition \
            left out. The difference between two processes of one build shows as a change here: give several records a side, \
            or a null control, before you believe SLOW or FAST."
            .to_owned(),
        Observation::Process => {
            let mut chance = 0.0;
            let mut too_few = Vec::new();
            for (name, operations) in [("steps", false), ("operations", true)] {
                let of_class = |row: &&Row| row.operation.is_some() == operations;
                let rows = outcome.rows.iter().filter(of_class).count();
                let needed = processes_for(rows, &outcome.thresholds);
                if rows > 0 && base.min(head) < needed {
                    too_few.push(format!("{rows} {name} need {needed} processes a side to decide."));
                } else {
                    chance += rows as f64 * chance_of_gap(base, head);
                }
            }
            let chance = format!(
                "If nothing changed, chance makes a row SLOW in at most {} % of comparisons.",
                significant(100.0 * chance, 2)
            );
            too_few.insert(0, chance);
            let chance = too_few.join(" ");
            format!(
                "{base} processes against {head}; each is one sample, the median of its steps, the first decode step of each \
                 repetition left out. {chance}"
            )
        }
    }
}

/// What the controls said, a sentence each.
fn controls(outcome: &Outcome) -> Vec<String> {
    let halves = match outcome.observation {
        Observation::Step => "every other repetition of BASE against the rest",
        Observation::Process => "every other process of BASE against the rest",
    };
    let null = match &outcome.null {
        None => "Null control: none; --null FILE… gives records of BASE's own build.".to_owned(),
        Some(rows) => format!("Null control (one build against itself): {}", said(rows)),
    };
    let split = match &outcome.split_half {
        None => {
            "Split-half control: none; it needs four repetitions (or processes) of BASE.".to_owned()
        }
        Some(rows) => format!("Split-half control ({halves}): {}", said(rows)),
    };
    vec![null, split]
}

fn said(rows: &[Row]) -> String {
    let alarms: Vec<String> = rows
        .iter()
        .filter(|row| row.judgement.verdict.is_change())
        .map(|row| {
            let label = printable(&row.label());
            format!("{label} {}", row.judgement.verdict.name())
        })
        .collect();
    let too_few = rows.iter().filter(|r| {
        matches!(r.judgement.verdict, Verdict::Unusable) || r.judgement.reason.code() == "too_few"
    });
    let judged = rows.len() - too_few.count();
    match (alarms.as_slice(), judged) {
        ([], 0) => "says nothing, it has too few samples.".to_owned(),
        ([], _) => format!("no false alarm in {judged} rows."),
        (alarms, _) => format!(
            "FALSE ALARM in {} of {judged} rows ({}); what it touches is AMBIGUOUS.",
            alarms.len(),
            alarms.join(", ")
        ),
    }
}

fn title(row: &Row) -> String {
    let kind = match row.kind {
        StepKind::Prefill => "Prefill",
        StepKind::Decode => "Decode",
    };
    format!("{kind}, {}", row.shape)
}

fn header(unit: &Unit, separator: &str) -> [String; 8] {
    let with_unit = |text: &str| format!("{text}{separator}{}", unit.name);
    [
        "step or operation".to_owned(),
        with_unit("BASE median"),
        with_unit("min to Q3"),
        with_unit("HEAD median"),
        with_unit("min to Q3"),
        format!("change{separator}% of BASE"),
        "verdict".to_owned(),
        "why".to_owned(),
    ]
}

fn cells(row: &Row, unit: &Unit) -> [String; 8] {
    let judgement = &row.judgement;
    let median = |interval: Option<Interval>| interval.map_or_else(none, |i| unit.cell(i.median));
    let range = |interval: Option<Interval>| {
        interval.map_or_else(none, |i| {
            format!("{} to {}", unit.cell(i.min), unit.cell(i.q3))
        })
    };
    let name = match &row.operation {
        None => "whole step".to_owned(),
        // Two spaces would vanish in Markdown.
        Some(operation) => format!("· {}", printable(operation)),
    };
    [
        name,
        median(judgement.base),
        range(judgement.base),
        median(judgement.head),
        range(judgement.head),
        judgement.ratio.map_or_else(none, change),
        judgement.verdict.name().to_owned(),
        judgement.reason.phrase(),
    ]
}

/// A name out of a file, which may hold anything, on one line.
pub(crate) fn printable(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What keeps text from being Markdown.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '|' | '_' | '*' | '`' | '<' | '[' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn none() -> String {
    "–".to_owned()
}

/// The change in percent, with its sign.
pub(crate) fn change(ratio: f64) -> String {
    if !ratio.is_finite() {
        return "n/a".to_owned();
    }
    let percent = (ratio - 1.0) * 100.0;
    // −0.04 is no change to speak of, in either direction.
    if percent.abs() < 0.05 {
        return "0.0".to_owned();
    }
    format!("{percent:+.1}")
}

/// The unit that all times of a table share.
struct Unit {
    name: &'static str,
    nanoseconds: f64,
}

impl Unit {
    fn of(rows: &[Row]) -> Unit {
        let times = rows
            .iter()
            .flat_map(|r| [r.judgement.base, r.judgement.head]);
        let largest = times.flatten().map(|i| i.median).fold(0.0, f64::max);
        let (name, nanoseconds) = match largest {
            // Operations of a microsecond stand under their step.
            ns if ns < 1e7 => ("µs", 1e3),
            ns if ns < 1e10 => ("ms", 1e6),
            _ => ("s", 1e9),
        };
        Unit { name, nanoseconds }
    }

    fn cell(&self, nanoseconds: f64) -> String {
        significant(nanoseconds / self.nanoseconds, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_have_a_sign() {
        assert_eq!(change(1.041), "+4.1");
        assert_eq!(change(0.9), "-10.0");
        assert_eq!(change(0.9999), "0.0");
        assert_eq!(change(f64::INFINITY), "n/a");
    }

    #[test]
    fn names_do_not_become_markdown() {
        assert_eq!(escape("gate_up|proj"), "gate\\_up\\|proj");
        assert_eq!(printable("a\nb"), "a b");
    }
}
