//! A record's steps, explained.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use stepscope_profiler::explain::record::{Explanation, PartKind, explain};
use stepscope_profiler::{Gpu, Record, StepKind, gpus};
use support::{arbitrary, sample};

fn part(explanation: &Explanation, kind: StepKind, part: PartKind) -> f64 {
    let step = explanation.steps.iter().find(|s| s.kind == kind).unwrap();
    step.parts.iter().find(|p| p.kind == part).unwrap().ns
}

/// Text without its line breaks.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn sentences_come_first_and_the_parts_add_up() {
    let record = sample::record(30);
    insta::assert_snapshot!(explain(&record, None).text(false));
}

#[test]
fn every_figure_can_be_traced() {
    let explanation = explain(&sample::record(30), None);
    let text = explanation.text(true);
    let figures = explanation.steps.iter().flat_map(|s| &s.statements);
    for figure in figures.flat_map(|s| &s.figures) {
        assert!(text.contains(&figure.from), "{figure:?}");
    }
    insta::assert_snapshot!(text.lines().take(24).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_step_without_ceilings_still_has_its_parts() {
    let mut record = sample::record(2);
    record.environment.roofs = None;
    let explanation = explain(&record, None);
    assert_eq!(part(&explanation, StepKind::Decode, PartKind::Weights), 0.0);
    assert!(part(&explanation, StepKind::Decode, PartKind::AboveFloors) > 0.0);
    let text = words(&explanation.text(false));
    assert!(text.contains("without ceilings of this device"), "{text}");
    assert!(text.contains("--gpu NAME"), "{text}");
}

/// The table of GPUs stands in where nothing was measured, and only for the card that ran.
#[test]
fn ceilings_come_from_the_data_sheet_of_the_card_that_ran() {
    let mut record = sample::record(2);
    record.environment.roofs = None;
    record.environment.gpu = Some(Gpu {
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        uuid: String::new(),
        compute_capability: [9, 0],
        multiprocessors: 132,
        l2_bytes: 50 << 20,
        memory_bytes: 80 << 30,
        clocks_khz: [1_980_000, 2_619_000],
        driver: "13.0".to_owned(),
        nvrtc: "13.0".to_owned(),
    });
    assert!(explain(&record, None).ceilings.is_none(), "the CPU ran it");
    record.run.device = "cuda".to_owned();
    let ceilings = explain(&record, None).ceilings.unwrap();
    assert_eq!(ceilings.flops_per_s, 989.4e12);
    let other = explain(&record, Some(gpus::find("l4").unwrap())).ceilings;
    assert_eq!(other.unwrap().flops_per_s, 121e12);
}

#[test]
fn an_emulated_device_has_nothing_to_explain() {
    let mut record = sample::record(2);
    record.run.device = "emulated".to_owned();
    let explanation = explain(&record, None);
    assert!(explanation.steps.is_empty());
    assert!(explanation.text(false).contains("it has no time"));
}

fn check_sums(record: &Record) {
    for step in explain(record, None).steps {
        let sum: f64 = step.parts.iter().map(|p| p.ns).sum();
        let largest = step.parts.iter().map(|p| p.ns.abs()).fold(1.0, f64::max);
        let off = (sum - step.wall_ns).abs();
        assert!(
            !off.is_finite() || off <= 1e-9 * largest,
            "{} {}: parts {sum} of {}",
            step.label,
            step.kind.title(),
            step.wall_ns
        );
        let by_saving: Vec<f64> = step.operations.iter().map(|o| o.saving_ns).collect();
        assert!(by_saving.is_sorted_by(|a, b| a >= b), "{by_saving:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a record holds, its parts add up to its wall time, and nothing panics.
    #[test]
    fn parts_add_up_to_the_wall_time(record in arbitrary::record()) {
        check_sums(&record);
        let _ = explain(&record, None).text(true);
    }
}
