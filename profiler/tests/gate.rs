//! The gate on records: what it takes, what it refuses, what it says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use stepscope_profiler::gate::{
    Observed, Options, Outcome, Row, Select, Verdict, compare, json, markdown, observe, text,
};
use stepscope_profiler::{Gpu, Operation, Record, StepKind, Timer};
use support::arbitrary;
use support::steps::{observed, processes, record, steady};

fn one(name: &str, record: &Record) -> Vec<Observed> {
    vec![observed(name, record)]
}

fn judged(base: &Record, head: &Record) -> Outcome {
    let (base, head) = (one("base", base), one("head", head));
    compare(&base, &head, None, &Options::default()).unwrap()
}

#[track_caller]
fn row<'a>(outcome: &'a Outcome, kind: StepKind, operation: Option<&str>) -> &'a Row {
    let found = |r: &&Row| r.kind == kind && r.operation.as_deref() == operation;
    outcome.rows.iter().find(found).unwrap()
}

#[test]
fn a_slower_build_is_slow_in_steps_and_operations() {
    let outcome = judged(&steady(1.0), &steady(1.05));
    assert_eq!(outcome.verdict(), Verdict::Slow);
    for kind in [StepKind::Prefill, StepKind::Decode] {
        for operation in [None, Some("qkv_proj"), Some("lm_head")] {
            let judgement = &row(&outcome, kind, operation).judgement;
            assert_eq!(judgement.verdict, Verdict::Slow, "{kind:?} {operation:?}");
            assert!((judgement.ratio.unwrap() - 1.05).abs() < 1e-3);
        }
    }
    assert_eq!(judged(&steady(1.05), &steady(1.0)).verdict(), Verdict::Fast);
    assert_eq!(judged(&steady(1.0), &steady(1.0)).verdict(), Verdict::Same);
}

#[test]
fn the_first_decode_step_is_left_out_and_layers_are_added_up() {
    let outcome = judged(&steady(1.0), &steady(1.0));
    let step = &row(&outcome, StepKind::Decode, None).judgement;
    assert_eq!(step.samples, [12 * 7, 12 * 7]);
    // The first steps are half as long again; none of them is in the interval.
    assert!(step.base.unwrap().q3 < 1.01e6);
    let qkv = &row(&outcome, StepKind::Decode, Some("qkv_proj")).judgement;
    assert!((qkv.base.unwrap().median - 0.501e6).abs() < 0.002e6);
}

#[test]
fn only_what_is_asked_for_decides() {
    let base = steady(1.0);
    let mut head = steady(1.0);
    for step in head.points[0]
        .repetitions
        .iter_mut()
        .flat_map(|r| &mut r.steps)
    {
        step.operations[2].duration_ns *= 2;
    }
    let verdict = |select| {
        let options = Options {
            select,
            ..Options::default()
        };
        compare(&one("a", &base), &one("b", &head), None, &options)
            .unwrap()
            .verdict()
    };
    assert_eq!(verdict(Select::Steps), Verdict::Same);
    assert_eq!(verdict(Select::Operations), Verdict::Slow);
    assert_eq!(verdict(Select::All), Verdict::Slow);
}

#[test]
fn an_operation_that_one_build_lacks_is_left_to_its_step() {
    let mut head = steady(1.0);
    for step in head.points[0]
        .repetitions
        .iter_mut()
        .flat_map(|r| &mut r.steps)
    {
        step.operations[2].name = "logits".into();
    }
    let outcome = judged(&steady(1.0), &head);
    assert_eq!(outcome.verdict(), Verdict::Ambiguous);
    let code = |name| {
        row(&outcome, StepKind::Decode, Some(name))
            .judgement
            .reason
            .code()
    };
    assert_eq!(code("lm_head"), "only_in_base");
    assert_eq!(code("logits"), "only_in_head");
}

#[test]
fn without_all_operations_steps_are_judged_and_the_way_out_is_told() {
    let mut base = steady(1.0);
    for step in base.points[0]
        .repetitions
        .iter_mut()
        .flat_map(|r| &mut r.steps)
    {
        if step.kind == StepKind::Decode && step.index != 3 {
            step.operations.clear();
        }
    }
    let outcome = judged(&base, &base.clone());
    assert!(
        outcome
            .notes
            .iter()
            .any(|n| n.contains("--record-all-steps --repetitions N"))
    );
    assert!(
        outcome
            .rows
            .iter()
            .all(|r| r.kind == StepKind::Prefill || r.operation.is_none())
    );
    let options = Options {
        select: Select::Operations,
        ..Options::default()
    };
    for step in base.points[0]
        .repetitions
        .iter_mut()
        .flat_map(|r| &mut r.steps)
    {
        step.operations.clear();
    }
    let error = compare(&one("a", &base), &one("b", &base), None, &options).unwrap_err();
    assert!(error.to_string().contains("--record-all-steps"), "{error}");
}

#[test]
fn times_of_two_timers_are_not_compared() {
    let time_by = |timer| {
        let mut record = steady(1.0);
        let steps = record.points[0]
            .repetitions
            .iter_mut()
            .flat_map(|r| &mut r.steps);
        let operations = steps.flat_map(|s| &mut s.operations);
        operations.for_each(|o: &mut Operation| o.timer = timer);
        record
    };
    let outcome = judged(&time_by(Timer::Wall), &time_by(Timer::Event));
    assert_eq!(outcome.verdict(), Verdict::Unusable);
    let judgement = &row(&outcome, StepKind::Decode, Some("lm_head")).judgement;
    assert_eq!(judgement.reason.code(), "timers_differ");
    assert!(judgement.ratio.is_none());
    // Inside a replayed graph nothing is timed: no row, and a sentence.
    let graph = time_by(Timer::None);
    let outcome = judged(&graph, &graph);
    assert!(outcome.rows.iter().all(|r| r.operation.is_none()));
    assert!(outcome.notes.iter().any(|n| n.contains("replayed graph")));
}

/// A record whose steps held this clock.
fn at_clock(mut record: Record, mhz: f64) -> Record {
    for repetition in &mut record.points[0].repetitions {
        for step in &mut repetition.steps {
            step.sm_clock_mhz = Some(mhz);
        }
    }
    record
}

#[test]
fn a_slowdown_must_be_one_in_cycles_where_steps_have_clocks() {
    let check = |base: &[Record], head: &[Record], verdict: Verdict, reason: &str| {
        let observe = |records: &[Record]| -> Vec<Observed> {
            let each = records.iter().enumerate();
            each.map(|(i, record)| observed(&format!("{i}"), record))
                .collect()
        };
        let outcome = compare(&observe(base), &observe(head), None, &Options::default()).unwrap();
        for operation in [None, Some("qkv_proj")] {
            let judgement = &row(&outcome, StepKind::Decode, operation).judgement;
            assert_eq!(judgement.reason.code(), reason, "{operation:?}");
            assert_eq!(judgement.verdict, verdict);
        }
    };
    let at = |factor, mhz| [at_clock(steady(factor), mhz)];
    let slow = Verdict::Slow;
    check(
        &at(1.0, 1980.0),
        &at(1.05, 1980.0),
        slow,
        "gap_in_time_and_cycles",
    );
    // The clock fell by as much as the time grew: as many cycles as before.
    let unclear = Verdict::Ambiguous;
    check(
        &at(1.0, 1980.0),
        &at(1.05, 1980.0 / 1.05),
        unclear,
        "gap_not_in_cycles",
    );
    let same = Verdict::Same;
    check(
        &at(1.0, 1980.0),
        &at(1.0, 1980.0),
        same,
        "same_in_time_and_cycles",
    );
    check(
        &at(1.0, 1980.0),
        &at(1.0, 1780.0),
        unclear,
        "same_not_in_cycles",
    );
    // A single step without a clock leaves its side without: time alone decides.
    let mut one_missing = at(1.05, 1980.0);
    one_missing[0].points[0].repetitions[3].steps[4].sm_clock_mhz = None;
    check(&at(1.0, 1980.0), &one_missing, slow, "gap_in_time");
    // Processes are judged by the clock of the step that stands for them.
    let processes = |factor: f64, mhz: f64| -> Vec<Record> {
        (0..24)
            .map(|i| at_clock(steady(factor * (1.0 + 1e-4 * f64::from(i))), mhz))
            .collect()
    };
    check(
        &processes(1.0, 1980.0),
        &processes(1.05, 1980.0),
        slow,
        "gap_in_time_and_cycles",
    );
    check(
        &processes(1.0, 1980.0),
        &processes(1.05, 1885.0),
        unclear,
        "gap_not_in_cycles",
    );
}

/// `change` makes two records incomparable; the error names what differs and both values.
#[track_caller]
fn refused(change: impl Fn(&mut Record), parts: &[&str]) {
    let mut head = steady(1.0);
    change(&mut head);
    let (base, head) = (one("base.json", &steady(1.0)), one("head.json", &head));
    let error = compare(&base, &head, None, &Options::default()).unwrap_err();
    let message = error.to_string();
    assert!(error.is_input() && !message.contains('\n'), "{message}");
    for part in ["base.json", "head.json"].iter().chain(parts) {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

fn gpu(name: &str, uuid: &str) -> Gpu {
    Gpu {
        name: name.to_owned(),
        uuid: uuid.to_owned(),
        compute_capability: [9, 0],
        multiprocessors: 132,
        l2_bytes: 52_428_800,
        memory_bytes: 85_000_000_000,
        clocks_khz: [1_980_000, 2_619_000],
        driver: "13.0".to_owned(),
        nvrtc: "13.0".to_owned(),
    }
}

#[test]
fn what_cannot_be_compared_is_named() {
    refused(
        |r| r.run.device = "cuda".to_owned(),
        &["the device", "cpu", "cuda"],
    );
    refused(
        |r| r.run.dtype = "float16".to_owned(),
        &["data type", "bfloat16", "float16"],
    );
    refused(|r| r.run.threads = 8, &["threads", "2", "8"]);
    refused(|r| r.run.model.parameters = 7, &["number of weights", "7"]);
    refused(
        |r| r.run.model.load_format = "gguf".to_owned(),
        &["kind of weights", "dummy", "gguf"],
    );
    refused(
        |r| r.environment.cpu.name = "Xeon".to_owned(),
        &["processor", "Xeon"],
    );
    refused(
        |r| r.environment.gpu = Some(gpu("H100", "GPU-1")),
        &["the GPU", "none", "H100"],
    );
    refused(
        |r| r.run.model.config["num_hidden_layers"] = 7.into(),
        &["configs differ in num_hidden_layers"],
    );
    refused(
        |r| r.points[0].batch_size = 4,
        &["shape", "batch=1 in=32", "batch=4 in=32"],
    );
    refused(
        |r| r.points.push(r.points[0].clone()),
        &["number of points", "1", "2"],
    );
}

#[test]
fn two_cards_need_to_be_allowed() {
    let on = |uuid: &str| {
        let mut record = steady(1.0);
        record.environment.gpu = Some(gpu("H100", uuid));
        one(uuid, &record)
    };
    let error = compare(&on("GPU-1"), &on("GPU-2"), None, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("--across-cards"), "{error}");
    let options = Options {
        across_cards: true,
        ..Options::default()
    };
    let outcome = compare(&on("GPU-1"), &on("GPU-2"), None, &options).unwrap();
    assert!(
        outcome
            .notes
            .contains(&"Two cards: GPU-1 and GPU-2.".to_owned())
    );
}

#[test]
fn one_point_of_a_sweep() {
    let two = |second: f64| {
        let mut record = steady(1.0);
        let mut point = steady(second).points[0].clone();
        point.batch_size = 4;
        record.points.push(point);
        record
    };
    let at = |point| {
        let options = Options {
            point: Some(point),
            ..Options::default()
        };
        compare(&one("a", &two(1.0)), &one("b", &two(1.2)), None, &options)
    };
    assert_eq!(at(0).unwrap().verdict(), Verdict::Same);
    assert_eq!(at(1).unwrap().verdict(), Verdict::Slow);
    assert_eq!(at(1).unwrap().rows[0].shape, "batch=4 in=32 out=9");
    let message = at(2).unwrap_err().to_string();
    assert!(
        message.contains("--point 2") && message.contains("2 points"),
        "{message}"
    );
    assert_eq!(judged(&two(1.0), &two(1.2)).rows.len(), 12);
}

#[test]
fn what_is_no_measurement_is_refused() {
    let message = |change: fn(&mut Record)| {
        let mut record = steady(1.0);
        change(&mut record);
        observe("x.json", &record).unwrap_err().to_string()
    };
    for (message, part) in [
        (
            message(|r| r.run.device = "emulated".to_owned()),
            "has no time",
        ),
        (message(|r| r.complete = false), "interrupted"),
        (message(|r| r.points.clear()), "no point"),
    ] {
        assert!(
            message.starts_with("x.json: ") && message.contains(part),
            "{message}"
        );
    }
}

#[test]
fn times_of_zero_one_sample_and_few_samples() {
    let mut broken = steady(1.0);
    broken.points[0].repetitions[3].steps[4].wall_ns = 0;
    let outcome = judged(&steady(1.0), &broken);
    let decode = &row(&outcome, StepKind::Decode, None).judgement;
    assert_eq!(decode.reason.code(), "not_times");
    assert_eq!(outcome.verdict(), Verdict::Unusable);

    let single = record(&[vec![2_000_000]]);
    let outcome = judged(&single, &single);
    assert_eq!(outcome.rows[0].judgement.reason.code(), "one_sample");
    assert_eq!(outcome.verdict(), Verdict::Unusable);

    let few = record(&[
        vec![2_000_000, 900_000, 900_000],
        vec![2_100_000, 900_000, 950_000],
    ]);
    let outcome = judged(&few, &few);
    assert_eq!(outcome.verdict(), Verdict::Ambiguous);
    assert!(
        outcome
            .rows
            .iter()
            .all(|r| r.judgement.reason.code() == "too_few")
    );

    // Two tokens: the only decode step is the first one.
    let short = record(&vec![vec![2_000_000, 900_000]; 12]);
    let outcome = judged(&short, &short);
    assert!(outcome.rows.iter().all(|r| r.kind == StepKind::Prefill));
    assert!(outcome.notes.iter().any(|n| n.contains("--output 3")));
}

const EQUAL: [f64; 6] = [1.0, 1.001, 1.002, 1.0005, 1.0015, 1.001];

#[test]
fn a_process_is_one_observation() {
    let slow = EQUAL.map(|f| f * 1.03);
    let (base, head) = (processes("base", &EQUAL), processes("head", &slow));
    let outcome = compare(&base, &head, None, &Options::default()).unwrap();
    assert_eq!(outcome.verdict(), Verdict::Slow);
    assert_eq!(outcome.rows[0].judgement.samples, [6, 6]);
    // Five processes have hundreds of steps, and are five observations.
    let outcome = compare(&base[..5], &head[..5], None, &Options::default()).unwrap();
    assert_eq!(outcome.verdict(), Verdict::Ambiguous);
    assert_eq!(outcome.rows[0].judgement.reason.code(), "too_few");
    let outcome = compare(&base, &head[..1], None, &Options::default()).unwrap();
    assert_eq!(outcome.verdict(), Verdict::Unusable);
    // A step of no time is not hidden by its process's median.
    let mut broken = steady(1.0);
    broken.points[0].repetitions[0].steps[3].wall_ns = 0;
    let mut with_broken = head.clone();
    with_broken[2] = observed("broken", &broken);
    let outcome = compare(&base, &with_broken, None, &Options::default()).unwrap();
    assert_eq!(
        row(&outcome, StepKind::Decode, None)
            .judgement
            .reason
            .code(),
        "not_times"
    );
}

#[test]
fn many_operations_need_more_processes_than_a_few_steps() {
    let verdicts = |count: usize| {
        let factors: Vec<f64> = (0..count).map(|i| 1.0 + 0.0002 * i as f64).collect();
        let slow: Vec<f64> = factors.iter().map(|f| f * 1.03).collect();
        let (base, head) = (processes("base", &factors), processes("head", &slow));
        let outcome = compare(&base, &head, None, &Options::default()).unwrap();
        let of = |name| row(&outcome, StepKind::Decode, name).judgement.clone();
        (of(None), of(Some("lm_head")))
    };
    // Two steps, four operations: at 6 a side 4 × 0.76 % is above 2.5 %.
    let (step, operation) = verdicts(6);
    assert_eq!(step.verdict, Verdict::Slow);
    assert_eq!(operation.verdict, Verdict::Ambiguous);
    assert_eq!(operation.reason.phrase(), "6 and 6 samples; 7 each needed");
    let (step, operation) = verdicts(7);
    assert_eq!(
        (step.verdict, operation.verdict),
        (Verdict::Slow, Verdict::Slow)
    );
}

#[test]
fn a_null_control_that_alarms_takes_the_verdict_back() {
    let (base, head) = (one("base", &steady(1.0)), one("head", &steady(1.05)));
    let with_null = |null: &Record| {
        let null = one("null", null);
        compare(&base, &head, Some((&base, &null)), &Options::default()).unwrap()
    };
    assert_eq!(with_null(&steady(1.0)).verdict(), Verdict::Slow);
    let outcome = with_null(&steady(1.04));
    assert_eq!(outcome.verdict(), Verdict::Ambiguous);
    let judgement = &row(&outcome, StepKind::Decode, None).judgement;
    assert_eq!(judgement.reason.code(), "null_alarmed");
    assert!(text(&outcome).contains("FALSE ALARM"));

    // An operation's false alarm takes back that operation alone.
    let mut null = steady(1.0);
    for step in null.points[0]
        .repetitions
        .iter_mut()
        .flat_map(|r| &mut r.steps)
    {
        step.operations[2].duration_ns /= 2;
    }
    let outcome = with_null(&null);
    assert_eq!(outcome.verdict(), Verdict::Slow);
    let verdict = |name| row(&outcome, StepKind::Decode, name).judgement.verdict;
    assert_eq!(verdict(None), Verdict::Slow);
    assert_eq!(verdict(Some("qkv_proj")), Verdict::Slow);
    assert_eq!(verdict(Some("lm_head")), Verdict::Ambiguous);
}

#[test]
fn halves_of_the_base_that_differ_take_the_verdict_back() {
    let mut base = steady(1.0);
    for repetition in base.points[0].repetitions.iter_mut().step_by(2) {
        repetition
            .steps
            .iter_mut()
            .for_each(|s| s.wall_ns = s.wall_ns * 9 / 10);
    }
    // Twenty prefills, so that halves have enough samples to alarm.
    let more = base.points[0].repetitions.clone();
    base.points[0].repetitions.extend(more);
    let outcome = judged(&base, &steady(1.5));
    assert_eq!(
        row(&outcome, StepKind::Decode, None)
            .judgement
            .reason
            .code(),
        "split_half_alarmed"
    );
    assert_eq!(judged(&steady(1.0), &steady(1.5)).verdict(), Verdict::Slow);
}

proptest! {
    /// Whatever a record holds, the gate says something about it or refuses it; it never panics, and a name never starts a line.
    #[test]
    fn any_record_is_judged_or_refused(record in arbitrary::record(), other in arbitrary::record()) {
        let observe = |name: &str, record: &Record| {
            let record = Record { complete: true, ..record.clone() };
            observe(name, &record)
        };
        let (Ok(base), Ok(again), Ok(head)) =
            (observe("a", &record), observe("b", &record), observe("c", &other))
        else {
            return Ok(());
        };
        let options = Options::default();
        for (base, head) in [(&base, &again), (&base, &head), (&head, &base)] {
            let sides = [vec![base.clone()], vec![head.clone(), head.clone()]];
            for head in [&sides[1][..1], &sides[1]] {
                let null = Some((sides[0].as_slice(), head));
                let Ok(outcome) = compare(&sides[0], head, null, &options) else {
                    continue;
                };
                let first = text(&outcome).lines().next().unwrap_or_default().to_owned();
                prop_assert!(first.starts_with(outcome.verdict().name()), "{}", first);
                markdown(&outcome);
                json(&outcome);
            }
        }
    }
}

#[test]
fn what_people_and_programs_read() {
    let mut head = steady(1.041);
    head.environment.host = Some("bench-2".to_owned());
    for step in head.points[0]
        .repetitions
        .iter_mut()
        .flat_map(|r| &mut r.steps)
    {
        step.operations[2].duration_ns = step.operations[2].duration_ns * 9 / 10;
    }
    let base = one("base", &steady(1.0));
    let null = one("null", &steady(1.0));
    let head = one("head", &head);
    let options = Options::default();
    let outcome = compare(&base, &head, Some((&base, &null)), &options).unwrap();
    insta::assert_snapshot!("text", text(&outcome));
    insta::assert_snapshot!("markdown", markdown(&outcome));
    let mut json = json(&outcome);
    json["rows"].as_array_mut().unwrap().truncate(2);
    json["null"].as_array_mut().unwrap().truncate(1);
    json["split_half"] = serde_json::Value::Null;
    insta::assert_snapshot!("json", format!("{json:#}"));
    let processes = compare(
        &processes("base", &EQUAL),
        &processes("head", &EQUAL),
        None,
        &options,
    );
    insta::assert_snapshot!("processes", text(&processes.unwrap()));
}
