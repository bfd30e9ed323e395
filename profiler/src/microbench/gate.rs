//! Two files of microbenchmarks against each other, row by row, by the rule of [`crate::gate`].

use serde_json::{Value, json};

use super::{Microbench, Row, Series, Status};
use crate::Error;
use crate::gate::{
    Interval, Judgement, Reason, Thresholds, Verdict, change, escape, judge, printable,
};
use crate::quantity::significant;
use crate::report::Table;

/// What came out of a comparison.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was judged, in the order of the base.
    pub rows: Vec<Judged>,
    /// What a reader should know. Whole sentences.
    pub notes: Vec<String>,
}

/// One kernel at one shape, judged.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The group.
    pub group: String,
    /// Operation, shape, element type and state of the cache; the kernel too where several compute the same.
    pub label: String,
    /// What came out.
    pub judgement: Judgement,
    /// Why there is nothing to judge, where it is in the row and not in its times.
    pub why: Option<String>,
}

impl Outcome {
    /// The verdict on the whole: SLOW if any row is, else UNUSABLE if any is; without either FAST if any is, SAME if all are,
    /// and AMBIGUOUS otherwise.
    pub fn verdict(&self) -> Verdict {
        let any = |verdict| self.rows.iter().any(|r| r.judgement.verdict == verdict);
        let order = [
            Verdict::Slow,
            Verdict::Unusable,
            Verdict::Fast,
            Verdict::Ambiguous,
        ];
        let first = order.into_iter().find(|&verdict| any(verdict));
        first.unwrap_or(Verdict::Same)
    }

    /// `SLOW: 1 of 12 rows; 10 SAME, 1 AMBIGUOUS.`
    pub fn sentence(&self) -> String {
        let count = |verdict| {
            let of = |row: &&Judged| row.judgement.verdict == verdict;
            self.rows.iter().filter(of).count()
        };
        let verdict = self.verdict();
        let others: Vec<String> = [
            Verdict::Slow,
            Verdict::Unusable,
            Verdict::Fast,
            Verdict::Ambiguous,
            Verdict::Same,
        ]
        .into_iter()
        .filter(|&other| other != verdict && count(other) > 0)
        .map(|other| format!("{} {}", count(other), other.name()))
        .collect();
        let main = format!(
            "{}: {} of {} rows",
            verdict.name(),
            count(verdict),
            self.rows.len()
        );
        match others.is_empty() {
            true => format!("{main}."),
            false => format!("{main}; {}.", others.join(", ")),
        }
    }

    /// The sentence, a table, and what a reader should know.
    pub fn text(&self) -> String {
        let mut table = Table::new("llrrrrrll", header("\n"));
        for row in &self.rows {
            table.row(row.cells());
        }
        let mut sections = vec![self.sentence(), BASIS.to_owned(), table.render()];
        if !self.notes.is_empty() {
            sections.push(self.notes.join("\n"));
        }
        sections.join("\n\n") + "\n"
    }

    /// The same for a comment under a change: Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = vec![
            format!("| {} |", header(" ").join(" | ")),
            "|:--|:--|--:|--:|--:|--:|--:|:--|:--|".to_owned(),
        ];
        for row in &self.rows {
            let cells: Vec<String> = row.cells().iter().map(|cell| escape(cell)).collect();
            lines.push(format!("| {} |", cells.join(" | ")));
        }
        let mut sections = vec![
            format!("**{}**", escape(&self.sentence())),
            BASIS.to_owned(),
            lines.join("\n"),
        ];
        let notes = self.notes.iter().map(|note| format!("- {}", escape(note)));
        let notes: Vec<String> = notes.collect();
        if !notes.is_empty() {
            sections.push(notes.join("\n"));
        }
        sections.join("\n\n") + "\n"
    }

    /// The same for a program.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(Judged::json);
        json!({
            "verdict": self.verdict().name(),
            "sentence": self.sentence(),
            "rows": rows.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

/// How far such a comparison carries.
const BASIS: &str = "One process against one process; each sample of a kernel is an observation. Where both sides know the clock of \
    every sample, SLOW and FAST hold in cycles too. Two processes of one build may differ by what this cannot see: repeat before \
    you believe a small change.";

fn header(separator: &str) -> [String; 9] {
    let with = |what: &str, unit: &str| format!("{what}{separator}{unit}");
    [
        "group".to_owned(),
        "row".to_owned(),
        with("BASE median", "µs"),
        with("min to Q3", "µs"),
        with("HEAD median", "µs"),
        with("min to Q3", "µs"),
        with("change", "% of BASE"),
        "verdict".to_owned(),
        "why".to_owned(),
    ]
}

impl Judged {
    fn cells(&self) -> [String; 9] {
        let none = || "–".to_owned();
        let us = |ns: f64| significant(ns / 1e3, 4);
        let judgement = &self.judgement;
        let median = |interval: Option<Interval>| interval.map_or_else(none, |i| us(i.median));
        let range = |interval: Option<Interval>| {
            interval.map_or_else(none, |i| format!("{} to {}", us(i.min), us(i.q3)))
        };
        let why = self.why.clone();
        [
            printable(&self.group),
            printable(&self.label),
            median(judgement.base),
            range(judgement.base),
            median(judgement.head),
            range(judgement.head),
            judgement.ratio.map_or_else(none, change),
            judgement.verdict.name().to_owned(),
            printable(&why.unwrap_or_else(|| judgement.reason.phrase())),
        ]
    }

    fn json(&self) -> Value {
        let judgement = &self.judgement;
        let interval = |interval: Option<Interval>| {
            interval.map(|i| json!({ "min_ns": i.min, "median_ns": i.median, "q3_ns": i.q3 }))
        };
        json!({
            "group": self.group,
            "row": self.label,
            "verdict": judgement.verdict.name(),
            "reason": judgement.reason.code(),
            "why": self.why.clone().unwrap_or_else(|| judgement.reason.phrase()),
            "base": interval(judgement.base),
            "head": interval(judgement.head),
            "samples": judgement.samples,
            "ratio": judgement.ratio,
        })
    }
}

/// Holds `head` against `base`, each with the name that messages give it.
///
/// # Errors
/// When the two were measured on different GPUs or processors, or share no row. Two cards of one kind are compared with
/// `across_cards` alone.
pub fn compare(
    (base_name, base): (&str, &Microbench),
    (head_name, head): (&str, &Microbench),
    thresholds: &Thresholds,
    across_cards: bool,
) -> Result<Outcome, Error> {
    let mut notes = check((base_name, base), (head_name, head), across_cards)?;
    let mut rows = Vec::new();
    let mut untimed = 0;
    let (base_keys, head_keys) = (keys(&base.rows), keys(&head.rows));
    for (row, key) in base.rows.iter().zip(&base_keys) {
        let other = key.find(&head_keys).and_then(|index| head.rows.get(index));
        let key = &key.whole();
        let Some(other) = other else {
            let (verdict, reason) = (Verdict::Ambiguous, Reason::OnlyInBase);
            rows.push(judged(row, key, verdict, reason, None));
            continue;
        };
        if let (Some(base), Some(head)) = (&row.series, &other.series)
            && [row.status, other.status] == [Status::Ok; 2]
        {
            let judgement = judge(&base.to_gate(), &head.to_gate(), thresholds);
            rows.push(Judged {
                group: row.group.clone(),
                label: key.clone(),
                judgement,
                why: none_counts(base, head),
            });
            notes.extend(other_batches(key, base, head));
        } else if row.has_nothing_to_time() && other.has_nothing_to_time() {
            untimed += 1;
        } else {
            let (verdict, reason) = (Verdict::Unusable, Reason::NoSamples);
            let why = untimed_because("BASE", row).or_else(|| untimed_because("HEAD", other));
            rows.push(judged(row, key, verdict, reason, why));
        }
    }
    for (row, key) in head.rows.iter().zip(&head_keys) {
        if key.find(&base_keys).is_none() {
            let (verdict, reason) = (Verdict::Ambiguous, Reason::OnlyInHead);
            rows.push(judged(row, &key.whole(), verdict, reason, None));
        }
    }
    if untimed > 0 {
        notes.push(format!(
            "{untimed} rows have no time on either side: they were skipped, or an emulated device ran them."
        ));
    }
    let is_shared = |row: &Judged| {
        !matches!(
            row.judgement.reason,
            Reason::OnlyInBase | Reason::OnlyInHead
        )
    };
    if !rows.iter().any(is_shared) {
        return Err(Error::content(format!(
            "{base_name} and {head_name} have no timed row in common; run the same benches for both"
        )));
    }
    Ok(Outcome { rows, notes })
}

fn judged(row: &Row, key: &str, verdict: Verdict, reason: Reason, why: Option<String>) -> Judged {
    Judged {
        group: row.group.clone(),
        label: key.to_owned(),
        judgement: Judgement::without_times(verdict, reason),
        why,
    }
}

impl Row {
    fn has_nothing_to_time(&self) -> bool {
        self.series.is_none() && self.status != Status::Wrong
    }
}

fn untimed_because(side: &str, row: &Row) -> Option<String> {
    let because = row.reason.as_deref();
    match (row.status, &row.series) {
        (Status::Ok, Some(_)) => None,
        (Status::Ok, None) => Some(format!(
            "{side} has no time: {}",
            because.unwrap_or("untimed")
        )),
        (Status::Wrong, _) => Some(format!(
            "{side} is WRONG: {}",
            because.unwrap_or("wrong results")
        )),
        (Status::Skipped, _) => Some(format!(
            "{side} was skipped: {}",
            because.unwrap_or("no reason given")
        )),
    }
}

/// Why a side has no sample, if all of its were set aside.
fn none_counts(base: &Series, head: &Series) -> Option<String> {
    let all_aside = |series: &Series| series.samples.is_empty() && !series.set_aside.is_empty();
    let side = match (all_aside(base), all_aside(head)) {
        (false, false) => return None,
        (true, false) => "of BASE",
        (false, true) => "of HEAD",
        (true, true) => "of either side",
    };
    Some(format!(
        "every sample {side} was taken while the clock was held down"
    ))
}

fn other_batches(key: &str, base: &Series, head: &Series) -> Option<String> {
    let [a, b] = [base, head].map(|series| series.launches_per_sample);
    ((a == 1) != (b == 1)).then(|| {
        format!("{key}: {a} launches per sample in BASE, {b} in HEAD; a launch by itself and one of many in a graph differ.")
    })
}

/// What rows are matched by. The kernel is what a change may replace, so it counts only where several compute the same.
struct Key {
    /// Operation, shape and element type.
    work: String,
    /// `cold` or `warm`; none of a row without times.
    cache: Option<&'static str>,
}

impl Key {
    fn whole(&self) -> String {
        match self.cache {
            Some(cache) => format!("{} {cache}", self.work),
            None => self.work.clone(),
        }
    }

    /// The same row among others: that of the same state of the cache, or one without times, which has none.
    fn find(&self, others: &[Key]) -> Option<usize> {
        let of_work = |is_same: &dyn Fn(&Key) -> bool| {
            let mut others = others.iter();
            others.position(|other| other.work == self.work && is_same(other))
        };
        of_work(&|other| other.cache == self.cache)
            .or_else(|| of_work(&|other| other.cache.is_none() || self.cache.is_none()))
    }
}

fn keys(rows: &[Row]) -> Vec<Key> {
    let cache = |row: &Row| {
        let l2 = row.series.as_ref()?.l2?;
        Some(if l2.is_cold() { "cold" } else { "warm" })
    };
    let plain = |row: &Row| {
        let mut parts = vec![row.operation.clone(), row.shape.clone(), row.dtype.clone()];
        parts.retain(|part| !part.is_empty());
        (row.group.clone(), parts.join(" "), cache(row))
    };
    let all: Vec<_> = rows.iter().map(plain).collect();
    let mut keys: Vec<Key> = Vec::with_capacity(rows.len());
    for (row, own) in rows.iter().zip(&all) {
        let is_alone = all.iter().filter(|other| *other == own).count() == 1;
        let mut work = match is_alone {
            true => own.1.clone(),
            false => format!("{} by {}", own.1, row.kernel),
        };
        let is_taken = |work: &str, keys: &[Key]| {
            keys.iter()
                .any(|key| key.work == work && key.cache == own.2)
        };
        // One name in two groups, or the same kernel twice.
        if is_taken(&work, &keys) {
            work = format!("{}: {work}", own.0);
        }
        let numbers = 2..=rows.len();
        let mut numbered = numbers.map(|number| format!("{work} ({number})"));
        if is_taken(&work, &keys)
            && let Some(free) = numbered.find(|work| !is_taken(work, &keys))
        {
            work = free;
        }
        keys.push(Key { work, cache: own.2 });
    }
    keys
}

/// What makes the two comparable, and what differs without making it void.
fn check(
    (base_name, base): (&str, &Microbench),
    (head_name, head): (&str, &Microbench),
    across_cards: bool,
) -> Result<Vec<String>, Error> {
    let gpu = |bench: &Microbench| bench.environment.gpu.clone();
    let gpu_name = |bench: &Microbench| gpu(bench).map_or_else(|| "none".to_owned(), |g| g.name);
    let cpu = |bench: &Microbench| bench.environment.cpu.name.clone();
    for (what, a, b) in [
        ("the GPU", gpu_name(base), gpu_name(head)),
        ("the processor", cpu(base), cpu(head)),
    ] {
        if a != b {
            return Err(Error::content(format!(
                "{base_name} and {head_name} cannot be compared: {what} is {a} in the one, {b} in the other"
            )));
        }
    }
    let uuid = |bench: &Microbench| gpu(bench).map_or_else(String::new, |g| g.uuid);
    let mut notes = Vec::new();
    let (a, b) = (uuid(base), uuid(head));
    if a != b {
        if !across_cards {
            return Err(Error::content(format!(
                "{base_name} and {head_name} cannot be compared: they ran on two cards ({a} and {b}); measure both on one, or give --across-cards"
            )));
        }
        notes.push(format!("Two cards: {a} and {b}."));
    }
    let driver = |bench: &Microbench| gpu(bench).map_or_else(String::new, |g| g.driver);
    let nvrtc = |bench: &Microbench| gpu(bench).map_or_else(String::new, |g| g.nvrtc);
    for (what, a, b) in [
        ("Driver", driver(base), driver(head)),
        ("NVRTC", nvrtc(base), nvrtc(head)),
    ] {
        if a != b {
            notes.push(format!("{what}: {a} in {base_name}, {b} in {head_name}."));
        }
    }
    Ok(notes)
}
