//! Two builds against each other, row by row, and the controls that may take a verdict back.

use super::rule::{chance_of_gap, judge, rank};
use super::{Judgement, Observation, Observed, Reason, Samples, Series, Thresholds, Verdict, like};
use crate::Error;
use crate::recorder::StepKind;

/// How to compare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The rule's.
    pub thresholds: Thresholds,
    /// Which rows to show and to go by.
    pub select: Select,
    /// One point of the sweep, from 0; all if none is given.
    pub point: Option<usize>,
    /// Compare although the two ran on two cards of one kind.
    pub across_cards: bool,
}

/// Which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Select {
    /// All of them.
    #[default]
    All,
    /// Steps alone.
    Steps,
    /// Operations alone.
    Operations,
}

/// One thing that was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The point of the sweep, from 0.
    pub point: usize,
    /// `batch=1 in=32 out=16`.
    pub shape: String,
    /// Prefill or decode.
    pub kind: StepKind,
    /// The operation, all layers of a step together; none of the step itself.
    pub operation: Option<String>,
    /// What came out.
    pub judgement: Judgement,
}

/// What came out of a comparison.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The rule's thresholds.
    pub thresholds: Thresholds,
    /// What one sample is.
    pub observation: Observation,
    /// How many records either side has.
    pub processes: [usize; 2],
    /// Steps, each followed by its operations.
    pub rows: Vec<Row>,
    /// A build against itself, recorded twice, by the same rule.
    pub null: Option<Vec<Row>>,
    /// Every other repetition of the base against the rest (or every other process), by the same rule.
    pub split_half: Option<Vec<Row>>,
    /// What a reader should know: what differs, what is missing and how to get it. Whole sentences.
    pub notes: Vec<String>,
}

impl Row {
    /// `decode step`, `qkv_proj of the decode step`.
    pub fn label(&self) -> String {
        let kind = self.kind.name();
        match &self.operation {
            None => format!("{kind} step"),
            Some(operation) => format!("{operation} of the {kind} step"),
        }
    }

    fn is(&self, other: &Row) -> bool {
        self.point == other.point && self.kind == other.kind && self.operation == other.operation
    }
}

impl Outcome {
    /// The verdict on the whole: SLOW if any row is, else UNUSABLE if any is; without either FAST if any is, SAME if all are,
    /// and AMBIGUOUS otherwise.
    pub fn verdict(&self) -> Verdict {
        let any = |verdict| self.rows.iter().any(|r| r.judgement.verdict == verdict);
        let first = [
            Verdict::Slow,
            Verdict::Unusable,
            Verdict::Fast,
            Verdict::Ambiguous,
        ]
        .into_iter()
        .find(|&verdict| any(verdict));
        first.unwrap_or(Verdict::Same)
    }
}

/// Holds `head` against `base`: one or several processes of each. `null` is a build against itself, recorded twice.
///
/// # Errors
/// When a side is empty, or records differ in what makes their times comparable, or nothing is left to judge.
pub fn compare(
    base: &[Observed],
    head: &[Observed],
    null: Option<(&[Observed], &[Observed])>,
    options: &Options,
) -> Result<Outcome, Error> {
    let (null_a, null_b) = null.unwrap_or_default();
    let (Some(first), Some(first_head)) = (base.first(), head.first()) else {
        return Err(Error::content("a side has no records"));
    };
    let mut notes = Vec::new();
    for other in base.iter().chain(head).chain(null_a).chain(null_b) {
        notes.extend(like::check(first, other, options.across_cards)?);
        match options.point {
            None => like::check_shapes(first, other)?,
            Some(point) => like::check_point(first, other, point)?,
        }
    }
    let observation = if base.len() > 1 || head.len() > 1 {
        Observation::Process
    } else {
        Observation::Step
    };
    let all = |side: &[Observed]| {
        let processes: Vec<&Observed> = side.iter().collect();
        collect(&processes, observation, |_| true, options.point)
    };
    let judged =
        |base: &[Item], head: &[Item]| judge_items(base, head, &first.shapes, observation, options);
    let mut rows = judged(&all(base), &all(head));
    let null = null.map(|(a, b)| judged(&all(a), &all(b)));
    let split_half =
        halves(base, observation, options.point).map(|[even, odd]| judged(&even, &odd));
    take_back(&mut rows, null.as_deref(), Reason::NullAlarmed);
    take_back(&mut rows, split_half.as_deref(), Reason::SplitHalfAlarmed);

    if options.select != Select::Steps {
        let missing = first.missing.iter().chain(&first_head.missing);
        notes.extend(missing.cloned());
    }
    notes.extend(other_work(base.iter().chain(head)));
    let mut seen = Vec::new();
    notes.retain(|note| {
        let is_new = !seen.contains(note);
        seen.push(note.clone());
        is_new
    });
    rows.retain(|row| match options.select {
        Select::All => true,
        Select::Steps => row.operation.is_none(),
        Select::Operations => row.operation.is_some(),
    });
    if rows.is_empty() {
        let why = match notes.as_slice() {
            [] => "the records hold no such times".to_owned(),
            notes => notes.join("; "),
        };
        return Err(Error::content(format!("nothing to judge: {why}")));
    }
    Ok(Outcome {
        thresholds: options.thresholds,
        observation,
        processes: [base.len(), head.len()],
        rows,
        null,
        split_half,
        notes,
    })
}

/// The samples of one row on one side, or why there are none.
struct Item {
    point: usize,
    kind: StepKind,
    operation: Option<String>,
    samples: Result<Samples, Reason>,
}

/// The samples of each row that any of `processes` has, of the repetitions that `keep` chooses by their index.
fn collect(
    processes: &[&Observed],
    observation: Observation,
    keep: impl Fn(usize) -> bool,
    point: Option<usize>,
) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let is_chosen = |series: &&Series| point.is_none_or(|point| series.point == point);
    for process in processes {
        for series in process.series.iter().filter(is_chosen) {
            let (times, clocks) = samples_of(series, observation, &keep);
            let is_same = |item: &&mut Item| {
                (item.point, item.kind, &item.operation)
                    == (series.point, series.kind, &series.operation)
            };
            let Some(item) = items.iter_mut().find(is_same) else {
                items.push(Item {
                    point: series.point,
                    kind: series.kind,
                    operation: series.operation.clone(),
                    samples: Ok(Samples {
                        times_ns: times,
                        clocks_hz: clocks,
                        timer: series.timer,
                        observation,
                    }),
                });
                continue;
            };
            match &mut item.samples {
                Ok(samples) if samples.timer == series.timer => {
                    samples.times_ns.extend(times);
                    // A process whose steps have no clocks leaves all of them without.
                    samples.clocks_hz =
                        samples.clocks_hz.take().zip(clocks).map(|(mut all, more)| {
                            all.extend(more);
                            all
                        });
                }
                Ok(samples) => {
                    item.samples = Err(Reason::TimersDiffer {
                        base: samples.timer,
                        head: series.timer,
                    });
                }
                Err(_) => {}
            }
        }
    }
    items
}

/// The times of a series, of the repetitions that `keep` chooses, and the clock of each in Hz where all of them have one.
fn samples_of(
    series: &Series,
    observation: Observation,
    keep: impl Fn(usize) -> bool,
) -> (Vec<f64>, Option<Vec<f64>>) {
    let kept = |index: &usize| keep(*index);
    let indices = || (0..series.repetitions.len()).filter(kept);
    let times: Vec<f64> = indices()
        .flat_map(|index| &series.repetitions[index])
        .map(|&ns| ns as f64)
        .collect();
    let clocks = indices().filter_map(|index| series.clocks_mhz.get(index));
    let clocks: Vec<f64> = clocks.flatten().map(|mhz| mhz * 1e6).collect();
    let has_clocks = !times.is_empty() && clocks.len() == times.len();
    match observation {
        Observation::Step => (times, has_clocks.then_some(clocks)),
        Observation::Process => {
            let Some(middle) = process_median(&times) else {
                return (Vec::new(), None);
            };
            match middle {
                None => (vec![0.0], None),
                Some(index) => (vec![times[index]], has_clocks.then(|| vec![clocks[index]])),
            }
        }
    }
}

/// Which of its steps is what one process observed, the median; none of them, which is no time, where one of its steps took none.
fn process_median(times: &[f64]) -> Option<Option<usize>> {
    if times.is_empty() {
        return None;
    }
    if times.iter().any(|&time| time <= 0.0) {
        return Some(None);
    }
    let mut order: Vec<usize> = (0..times.len()).collect();
    let middle = rank(50, times.len());
    let (_, median, _) =
        order.select_nth_unstable_by(middle, |&a, &b| times[a].total_cmp(&times[b]));
    Some(Some(*median))
}

/// Base against itself at no cost: every other repetition, or every other process, against the rest. Nothing where there are
/// fewer than four.
fn halves(
    base: &[Observed],
    observation: Observation,
    point: Option<usize>,
) -> Option<[Vec<Item>; 2]> {
    match observation {
        Observation::Step => {
            let repetitions = base.iter().flat_map(|o| &o.series);
            let fewest = repetitions.map(|series| series.repetitions.len()).min()?;
            let processes: Vec<&Observed> = base.iter().collect();
            (fewest >= 4).then(|| {
                [0, 1].map(|odd| collect(&processes, observation, |i| i % 2 == odd, point))
            })
        }
        Observation::Process => (base.len() >= 4).then(|| {
            [0, 1].map(|odd| {
                let half: Vec<&Observed> = base.iter().skip(odd).step_by(2).collect();
                collect(&half, observation, |_| true, point)
            })
        }),
    }
}

/// Steps each followed by its operations; those that only one side has among them.
fn judge_items(
    base: &[Item],
    head: &[Item],
    shapes: &[String],
    observation: Observation,
    options: &Options,
) -> Vec<Row> {
    let is_same =
        |a: &Item, b: &Item| (a.point, a.kind, &a.operation) == (b.point, b.kind, &b.operation);
    let row = |item: &Item, judgement| Row {
        point: item.point,
        shape: shapes.get(item.point).cloned().unwrap_or_default(),
        kind: item.kind,
        operation: item.operation.clone(),
        judgement,
    };
    let mut rows: Vec<Row> = Vec::new();
    for item in base {
        let judgement = match head.iter().find(|other| is_same(item, other)) {
            None => one_sided(item, Reason::OnlyInBase),
            Some(other) => match (&item.samples, &other.samples) {
                (Ok(base), Ok(head)) => judge(base, head, &options.thresholds),
                (Err(reason), _) | (_, Err(reason)) => {
                    Judgement::without_times(Verdict::Unusable, reason.clone())
                }
            },
        };
        rows.push(row(item, judgement));
    }
    for item in head {
        if !base.iter().any(|other| is_same(item, other)) {
            rows.push(row(item, one_sided(item, Reason::OnlyInHead)));
        }
    }
    rows.sort_by_key(|row| {
        let is_decode = row.kind == StepKind::Decode;
        (row.point, is_decode, row.operation.is_some())
    });
    allow_for_many(&mut rows, observation, &options.thresholds);
    rows
}

/// The more rows, the more of them chance moves apart: takes a change back that so many rows would show too often if there were
/// none. Steps and operations are counted apart, so that steps do not pay for the many operations.
fn allow_for_many(rows: &mut [Row], observation: Observation, thresholds: &Thresholds) {
    if observation != Observation::Process {
        return;
    }
    let count = |operations: bool| {
        let of_class = |row: &&Row| row.operation.is_some() == operations;
        rows.iter().filter(of_class).count()
    };
    let counts = [count(false), count(true)];
    for row in rows {
        let judgement = &mut row.judgement;
        let [base, head] = judgement.samples;
        let chance = match judgement.verdict {
            Verdict::Slow => chance_of_gap(base, head),
            Verdict::Fast => chance_of_gap(head, base),
            _ => continue,
        };
        let rows = counts[usize::from(row.operation.is_some())];
        if chance * rows as f64 > thresholds.false_alarms / 2.0 {
            judgement.verdict = Verdict::Ambiguous;
            judgement.reason = Reason::TooFew {
                base,
                head,
                needed: processes_for(rows, thresholds),
            };
        }
    }
}

/// How many processes a side let so many rows decide.
pub(super) fn processes_for(rows: usize, thresholds: &Thresholds) -> usize {
    const MOST: usize = 1000;
    let is_enough =
        |&side: &usize| chance_of_gap(side, side) * rows as f64 <= thresholds.false_alarms / 2.0;
    (thresholds.min_processes..MOST)
        .find(is_enough)
        .unwrap_or(MOST)
}

/// An operation that one side lacks was fused, split or renamed: its step tells what that did. A step that one side lacks
/// cannot be judged.
fn one_sided(item: &Item, reason: Reason) -> Judgement {
    let verdict = match item.operation {
        Some(_) => Verdict::Ambiguous,
        None => Verdict::Unusable,
    };
    Judgement::without_times(verdict, reason)
}

/// Takes SLOW and FAST back where the control, in which nothing changed, shows a change: all of them if it does so in a step,
/// since the machine was another then; an operation's if it does so in that operation.
fn take_back(rows: &mut [Row], control: Option<&[Row]>, reason: fn(Verdict) -> Reason) {
    let control = control.unwrap_or_default();
    let alarms = || control.iter().filter(|r| r.judgement.verdict.is_change());
    let step_alarmed = alarms().any(|row| row.operation.is_none());
    for row in rows {
        let verdict = row.judgement.verdict;
        if verdict.is_change() && (step_alarmed || alarms().any(|alarm| alarm.is(row))) {
            row.judgement.verdict = Verdict::Ambiguous;
            row.judgement.reason = reason(verdict);
        }
    }
}

/// A sentence where other work was on the machine.
fn other_work<'a>(records: impl Iterator<Item = &'a Observed>) -> Option<String> {
    let load = |observed: &Observed| {
        let environment = &observed.about.environment;
        let load = environment.load_average?;
        Some((load, environment.cpu.threads, observed.name.clone()))
    };
    let (load, threads, name) = records
        .filter_map(load)
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (load > threads as f64 / 2.0).then(|| {
        format!(
            "The machine had other work: a load average of {load:.1} on {threads} threads when {name} started. Times of a busy machine are rarely clear."
        )
    })
}
