//! Records of a GPU, explained: what the GPU waited for, how far that holds, the clock held, and what ranks tell each other. The records
//! are made up (`support/gpu.rs`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use stepscope_profiler::activity::{Cause, GapTotal, Grade};
use stepscope_profiler::explain::page::{PageOptions, page};
use stepscope_profiler::explain::record::{Explanation, PartKind, StepExplanation, explain};
use stepscope_profiler::{Record, RecordingCost, StepKind, Timer, gpus};
use support::gpu::{self, Setup};

fn decode(explanation: &Explanation) -> &StepExplanation {
    let mut steps = explanation.steps.iter();
    steps.find(|s| s.kind == StepKind::Decode).unwrap()
}

fn part(step: &StepExplanation, kind: PartKind) -> f64 {
    step.parts
        .iter()
        .filter(|p| p.kind == kind)
        .map(|p| p.ns)
        .sum()
}

/// All that is said of a step, on one line.
fn said(step: &StepExplanation) -> String {
    step.statements
        .iter()
        .map(|s| s.text.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

#[track_caller]
fn check_says(step: &StepExplanation, expected: &[&str]) {
    let said = said(step);
    for part in expected {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

/// Changes the activity of every decode step, in the sums too.
fn change(record: &mut Record, change: impl Fn(&mut stepscope_profiler::activity::DeviceActivity)) {
    for point in &mut record.points {
        let steps = point.repetitions.iter_mut().flat_map(|r| &mut r.steps);
        for step in steps.filter(|s| s.kind == StepKind::Decode) {
            change(step.device.as_mut().unwrap());
        }
        change(point.decode.as_mut().unwrap().device.as_mut().unwrap());
    }
}

#[test]
fn a_step_under_a_graph() {
    let record = gpu::record(Setup::GRAPH);
    let explanation = explain(&record, None);
    let step = decode(&explanation);
    assert_eq!(step.trust.grade, Grade::Good);
    let sum: f64 = step.parts.iter().map(|p| p.ns).sum();
    assert!((sum - step.wall_ns).abs() < 1e-6 * step.wall_ns);
    // 292 kernels have 291 gaps of 900 ns between them; the wait for the first launch holds the host's phases.
    assert_eq!(part(step, PartKind::Dependency), 291.0 * 900.0);
    assert_eq!(part(step, PartKind::Host), 7_000.0);
    assert_eq!(part(step, PartKind::LaunchLate), 6_000.0);
    assert_eq!(part(step, PartKind::AfterLast), 9_000.0);
    assert!((part(step, PartKind::Unexplained) - 400.0).abs() < 1e-3);
    insta::assert_snapshot!(explanation.text(false));
    let mut json = serde_json::json!(step);
    let operations = json["operations"].as_array_mut().unwrap();
    operations.truncate(1);
    insta::assert_snapshot!(format!("{json:#}"));
}

#[test]
fn a_host_that_launches_late_is_named() {
    let record = gpu::record(Setup {
        graph: false,
        ..Setup::GRAPH
    });
    let explanation = explain(&record, None);
    let step = decode(&explanation);
    assert_eq!(part(step, PartKind::LaunchLate), 291.0 * 2_500.0 + 6_000.0);
    assert_eq!(part(step, PartKind::Dependency), 0.0);
    check_says(
        step,
        &[
            "the host launched late: 740 µs in 292 gaps, 7.00 µs of it the host's phases before the first kernel",
            "The host is what this step waits for.",
            "--disable-cuda-graph turned off",
        ],
    );
}

#[test]
fn what_the_records_do_not_carry_is_refused() {
    let mut record = gpu::record(Setup::GRAPH);
    change(&mut record, |activity| activity.kernels -= 12);
    let explanation = explain(&record, None);
    let step = decode(&explanation);
    assert_eq!(step.trust.grade, Grade::Unusable);
    assert_eq!(step.device, None);
    assert!(part(step, PartKind::Gaps) > 0.0);
    assert_eq!(part(step, PartKind::LaunchLate), 0.0);
    check_says(
        step,
        &["is not stated: 12 of 292 kernels launched were not recorded"],
    );
    assert!(!said(step).contains("It waited for"), "{}", said(step));
    let text = explanation.text(false);
    assert!(
        text.contains("Trust: unusable. 12 of 292 kernels"),
        "{text}"
    );
}

/// Without CUPTI there is a grade all the same, and the way to get the causes.
#[test]
fn a_run_that_events_timed_says_what_it_lacks() {
    let mut record = gpu::record(Setup::GRAPH);
    record.timing.as_mut().unwrap().timer = Timer::Event;
    for point in &mut record.points {
        point.gpu = None;
        let steps = point.repetitions.iter_mut().flat_map(|r| &mut r.steps);
        steps.for_each(|step| step.device = None);
        point.prefill.device = None;
        point.decode.as_mut().unwrap().device = None;
    }
    let explanation = explain(&record, None);
    let step = decode(&explanation);
    assert_eq!(step.trust.grade, Grade::Limited);
    check_says(
        step,
        &["kernels were not recorded, which --timer cupti does"],
    );
    assert!(
        explanation
            .text(false)
            .contains("Nobody watched the GPU's clocks")
    );
}

#[test]
fn kernels_that_ran_at_once_are_not_counted_twice() {
    let mut record = gpu::record(Setup::GRAPH);
    change(&mut record, |activity| {
        activity.busy_ns -= 50_000 * activity.steps;
        activity.overlap_ns = 50_000 * activity.steps;
        activity.gaps.push(GapTotal {
            cause: Cause::Unknown,
            count: 20 * activity.steps,
            ns: 50_000 * activity.steps,
        });
    });
    let explanation = explain(&record, None);
    let step = decode(&explanation);
    assert_eq!(part(step, PartKind::Overlap), -50_000.0);
    assert_eq!(part(step, PartKind::UnknownGap), 50_000.0);
    check_says(
        step,
        &[
            "Kernels ran beside one another for 50.0 µs",
            "not known for what: 50.0 µs in 20 gaps",
        ],
    );
}

/// A card that held nine tenths of its clock has nine tenths of the arithmetic, and all of its memory.
#[test]
fn ceilings_are_scaled_to_the_clock_that_was_held() {
    let rated = explain(&gpu::record(Setup::GRAPH), None);
    let held = Setup {
        clock_mhz: 1647,
        ..Setup::GRAPH
    };
    let slow = explain(&gpu::record(held), None);
    let prefill = |e: &Explanation| part(&e.steps[0], PartKind::Compute);
    let longer = prefill(&slow) / prefill(&rated);
    assert!((1.10..1.12).contains(&longer), "{longer}");
    let weights = |e: &Explanation| part(decode(e), PartKind::Weights);
    assert!((weights(&slow) / weights(&rated) - 1.0).abs() < 1e-9);
    assert_eq!(decode(&slow).held_clock_mhz, Some(1647.0));
    let text = slow.text(false);
    assert!(
        text.contains("scaled to the 1647 MHz held, of 1830 rated"),
        "{text}"
    );
    // Another card's clock is not known.
    let l4 = explain(&gpu::record(held), Some(gpus::find("l4").unwrap()));
    assert_eq!(l4.ceilings.unwrap().flops_per_s, 121e12);
}

#[test]
fn a_costly_recording_lowers_the_grade() {
    let mut record = gpu::record(Setup::GRAPH);
    record.timing.as_mut().unwrap().overhead = vec![RecordingCost {
        what: "operations".to_owned(),
        with_ns: 1_120_000,
        without_ns: 1_000_000,
        steps: 48,
    }];
    let explanation = explain(&record, None);
    assert_eq!(
        explanation.steps[0].trust.grade,
        Grade::Good,
        "of decode steps alone it is known"
    );
    assert_eq!(
        decode(&explanation).trust.reasons,
        ["recording operations makes a decode step 12 % longer"]
    );
}

/// 64 sums of 4 × 4096 values of two bytes on two ranks: each sends 2 × 1 / 2 of 32,768 bytes, 2.10 MB in all, in 64 × 12 µs.
#[test]
fn communication_is_told_by_number_bytes_and_rate() {
    let setup = Setup {
        tp: 2,
        ..Setup::GRAPH
    };
    let explanation = explain(&gpu::record(setup), None);
    let step = decode(&explanation);
    assert_eq!(part(step, PartKind::Communication), 64.0 * 12_000.0);
    check_says(
        step,
        &[
            "Communication between the 2 ranks takes 768 µs",
            "64 calls of 12.0 µs each",
            "Each rank sends at least 2.10 MB, so 2.73 GB/s, 0.6 % of the 450 GB/s of NVLink",
            "the number of calls costs, not their bytes",
        ],
    );
    let all_reduce = step
        .operations
        .iter()
        .find(|o| o.name == "all_reduce")
        .unwrap();
    assert_eq!(all_reduce.bound.as_deref(), Some("NVLink"));
    assert!((all_reduce.floor_ns - 64.0 * 32_768.0 / 450.0).abs() < 1e-6);
    assert!((all_reduce.saving_ns - (768_000.0 - all_reduce.floor_ns)).abs() < 1e-6);
    let sum: f64 = step.parts.iter().map(|p| p.ns).sum();
    assert!((sum - step.wall_ns).abs() < 1e-6 * step.wall_ns);
    // In the prefill the same sums have 512 times the bytes: 1.07 GB in 768 µs would be 1.4 TB/s, more than the link has.
    check_says(
        &explanation.steps[0],
        &["more than such links have been seen to reach"],
    );
    assert_eq!(explanation.steps[0].trust.grade, Grade::Limited);
}

#[test]
fn the_page_shows_what_the_gpu_waited_for_and_the_grade() {
    let record = gpu::record(Setup {
        graph: false,
        ..Setup::GRAPH
    });
    let html = page(&record, &explain(&record, None), &PageOptions::default());
    for part in [
        "Trust: good.",
        "class=\"part launch-late\"",
        "GPU waiting for launches",
        "the host launched late",
        "scaled to the 1830 MHz held",
    ] {
        assert!(html.contains(part), "no {part:?}");
    }
}
