//! The trace of a record, as a viewer reads it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;
use stepscope_profiler::trace::{self, Selection};
use stepscope_profiler::{Record, StepKind};
use support::{arbitrary, sample};

fn text(record: &Record, selection: &Selection) -> String {
    let mut out = Vec::new();
    trace::write(record, selection, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn events(trace: &str) -> Vec<Value> {
    let trace: Value = serde_json::from_str(trace).unwrap();
    trace["traceEvents"].as_array().unwrap().clone()
}

fn of_category<'a>(events: &'a [Value], category: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |e| e["cat"] == category)
}

/// Start and end in nanoseconds; exact as long as a double holds them.
fn interval(event: &Value) -> (u64, u64) {
    let ns = |key: &str| (event[key].as_f64().unwrap() * 1e3).round() as u64;
    (ns("ts"), ns("ts") + ns("dur"))
}

/// On every lane, of two events that overlap one lies within the other.
fn assert_lanes_nest(events: &[Value]) {
    let mut lanes: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for event in events.iter().filter(|e| e["ph"] == "X") {
        let lane = (
            event["pid"].as_u64().unwrap(),
            event["tid"].as_u64().unwrap(),
        );
        lanes.entry(lane).or_default().push(interval(event));
    }
    for (lane, mut intervals) in lanes {
        intervals.sort_by_key(|&(start, end)| (start, std::cmp::Reverse(end)));
        let mut open: Vec<u64> = Vec::new();
        for (start, end) in intervals {
            while open.last().is_some_and(|&open_end| open_end <= start) {
                open.pop();
            }
            if let Some(&open_end) = open.last() {
                assert!(
                    end <= open_end,
                    "lane {lane:?}: {start}..{end} crosses {open_end}"
                );
            }
            open.push(end);
        }
    }
}

#[test]
fn small_trace() {
    let mut record = sample::record(1);
    record.points.truncate(1);
    record.points[0].repetitions.truncate(1);
    record.points[0].repetitions[0].steps.truncate(3);
    insta::assert_snapshot!(text(&record, &Selection::default()));
}

#[test]
fn steps_lie_end_to_end_on_one_lane() {
    let record = sample::record(3);
    let events = events(&text(&record, &Selection::default()));
    assert_lanes_nest(&events);
    assert!(events.iter().all(|e| e["tid"].as_u64() <= Some(1)));
    for (index, point) in record.points.iter().enumerate() {
        let steps: Vec<_> = of_category(&events, "step")
            .filter(|e| e["pid"] == index + 1)
            .map(interval)
            .collect();
        let expected: usize = point.repetitions.iter().map(|r| r.steps.len()).sum();
        assert_eq!(steps.len(), expected);
        assert_eq!(steps[0].0, 0);
        assert!(steps.windows(2).all(|pair| pair[0].1 == pair[1].0));
        let wall: u64 = point
            .repetitions
            .iter()
            .flat_map(|r| &r.steps)
            .map(|s| s.wall_ns)
            .sum();
        assert_eq!(steps.last().unwrap().1, wall);
    }
}

#[test]
fn phases_and_gaps_fill_a_step() {
    let record = sample::record(2);
    let events = events(&text(&record, &Selection::default()));
    let covered: u64 = of_category(&events, "phase")
        .map(interval)
        .map(|(a, b)| b - a)
        .sum();
    let wall: u64 = of_category(&events, "step")
        .map(interval)
        .map(|(a, b)| b - a)
        .sum();
    assert_eq!(covered, wall);
}

#[test]
fn selection() {
    let record = sample::record(1);
    let selection = Selection {
        point: Some(1),
        kind: Some(StepKind::Decode),
    };
    let events = events(&text(&record, &selection));
    assert!(events.iter().all(|e| e["pid"] == 2));
    assert_eq!(of_category(&events, "step").count(), 14);
    assert!(
        of_category(&events, "step").all(|e| e["name"].as_str().unwrap().starts_with("decode"))
    );

    let selection = Selection {
        point: Some(2),
        kind: None,
    };
    let error = trace::write(&record, &selection, &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no point 2: the record has 2 (counted from 0)"
    );
}

#[test]
fn names_are_escaped() {
    let mut record = sample::record(1);
    let operation = &mut record.points[0].repetitions[0].steps[0].operations[0];
    operation.name = "\"<b>\u{1}\\".into();
    let events = events(&text(&record, &Selection::default()));
    assert!(events.iter().any(|e| e["name"] == "\"<b>\u{1}\\"));
}

#[test]
fn a_phase_that_ran_twice_around_another_goes_to_a_further_lane() {
    let mut record = sample::record(1);
    record.points.truncate(1);
    let step = &mut record.points[0].repetitions[0].steps[0];
    // First run before kv_alloc, second after it: its sum, laid out from its start, cuts through kv_alloc.
    step.phases[0].host_ns += step.phases[1].host_ns / 2;
    let events = events(&text(&record, &Selection::default()));
    assert_lanes_nest(&events);
    assert!(
        events
            .iter()
            .any(|e| e["args"]["name"] == "steps, overlapping (1)")
    );
}

/// Above 2⁵³ ns (104 days) a double no longer holds the times that the test compares.
fn is_exact(record: &Record) -> bool {
    let mut end = 0_u64;
    for step in record
        .points
        .iter()
        .flat_map(|p| &p.repetitions)
        .flat_map(|r| &r.steps)
    {
        let operations = step
            .operations
            .iter()
            .map(|o| o.start_ns.saturating_add(o.duration_ns));
        let last = operations.max().unwrap_or(0).max(step.wall_ns);
        end = end.saturating_add(last);
    }
    end < 1 << 53
}

proptest! {
    #[test]
    fn lanes_of_any_record_nest(record in arbitrary::record()) {
        let trace = text(&record, &Selection::default());
        if is_exact(&record) {
            assert_lanes_nest(&events(&trace));
        }
    }
}
