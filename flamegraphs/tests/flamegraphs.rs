//! Folded stacks and pictures of the profiler's sample record.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../profiler/tests/support/mod.rs"]
mod support;

use proptest::prelude::*;
use stepscope_flamegraphs::{
    DiffGraph, FoldOptions, SvgOptions, diff_svg, folded, subtitle_for, svg, title_for,
};
use stepscope_profiler::{Phase, Record, StepKind};
use support::{arbitrary, sample};

const FIRST_POINT: FoldOptions = FoldOptions {
    point: Some(0),
    by_layer: false,
};

fn total_ns(stacks: &[String]) -> u64 {
    let counts = stacks.iter().map(|stack| stack.rsplit_once(' ').unwrap().1);
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

fn options(record: &Record, kind: StepKind) -> SvgOptions {
    SvgOptions {
        title: title_for(record, kind, Some(0)),
        subtitle: Some(subtitle_for(record, kind, Some(0))),
        ..SvgOptions::default()
    }
}

/// The picture without inferno's script.
fn without_script(svg: &str) -> String {
    let (start, rest) = svg.split_once("<script").unwrap();
    let (_, end) = rest.split_once("</script>").unwrap();
    format!("{start}<script/>{end}").replace("<g>", "\n<g>")
}

#[test]
fn stacks_of_a_decode_step() {
    let stacks = folded(&sample::record(30), StepKind::Decode, &FIRST_POINT);
    insta::assert_snapshot!(stacks.join("\n"));
}

#[test]
fn stacks_by_layer() {
    let options = FoldOptions {
        by_layer: true,
        ..FIRST_POINT
    };
    let stacks = folded(&sample::record(2), StepKind::Prefill, &options);
    insta::assert_snapshot!(stacks.join("\n"));
}

#[test]
fn stacks_of_all_points() {
    let stacks = folded(
        &sample::record(1),
        StepKind::Decode,
        &FoldOptions::default(),
    );
    insta::assert_snapshot!(stacks.join("\n"));
}

#[test]
fn the_root_is_the_mean_wall_time() {
    for layers in [0, 1, 30] {
        let record = sample::record(layers);
        for (index, point) in record.points.iter().enumerate() {
            for kind in [StepKind::Prefill, StepKind::Decode] {
                for by_layer in [false, true] {
                    let options = FoldOptions {
                        point: Some(index),
                        by_layer,
                    };
                    let total = point.total(kind).unwrap();
                    let mean = total.wall_ns as f64 / total.steps as f64;
                    let root = total_ns(&folded(&record, kind, &options)) as f64;
                    assert!((root - mean).abs() <= 0.5, "{root} instead of {mean}");
                }
            }
        }
    }
}

#[test]
fn unknown_operations_lie_directly_in_their_phase() {
    let mut record = sample::record(1);
    let operation = &mut record.points[0].prefill.operations[0];
    operation.name = "all reduce 2".to_owned();
    operation.phase = Phase::Prepare;
    let stacks = folded(&record, StepKind::Prefill, &FIRST_POINT);
    assert!(
        stacks
            .iter()
            .any(|s| s.starts_with("prefill;prepare;all reduce_2;embedding_rows "))
    );
}

#[test]
fn what_was_not_measured_has_no_stacks() {
    let mut record = sample::record(1);
    record.points[0].decode = None;
    assert!(folded(&record, StepKind::Decode, &FIRST_POINT).is_empty());
    let no_point = FoldOptions {
        point: Some(9),
        by_layer: false,
    };
    assert!(folded(&record, StepKind::Decode, &no_point).is_empty());
    let error = svg(&[], &SvgOptions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is nothing to draw: the stacks hold no time (were steps of this kind measured?)"
    );
}

#[test]
fn picture() {
    let record = sample::record(2);
    let stacks = folded(&record, StepKind::Decode, &FIRST_POINT);
    let options = options(&record, StepKind::Decode);
    let first = svg(&stacks, &options).unwrap();
    insta::assert_snapshot!(without_script(&first));
    assert_eq!(
        first,
        svg(&stacks, &options).unwrap(),
        "the bytes change from run to run"
    );
}

#[test]
fn icicle() {
    let record = sample::record(1);
    let stacks = folded(&record, StepKind::Prefill, &FIRST_POINT);
    let options = SvgOptions {
        icicle: true,
        ..options(&record, StepKind::Prefill)
    };
    insta::assert_snapshot!(without_script(&svg(&stacks, &options).unwrap()));
}

#[test]
fn titles_name_what_was_run() {
    let mut record = sample::record(30);
    record.run.model.name = "/models/HuggingFaceTB/SmolLM2-135M/".to_owned();
    let (decode, prefill) = (StepKind::Decode, StepKind::Prefill);
    assert_eq!(
        title_for(&record, decode, Some(0)),
        "SmolLM2-135M, bfloat16: decode step, batch=1 in=128 out=8, 15.4 ms"
    );
    assert_eq!(
        title_for(&record, prefill, None),
        "SmolLM2-135M, bfloat16: prefill step"
    );
    assert_eq!(
        subtitle_for(&record, decode, Some(0)),
        "cpu: AMD EPYC 9554 64-Core Processor, 2 threads · mean of 14 steps · stepscope 0.1.0 · 2026-02-03"
    );
    record.points.truncate(1);
    assert_eq!(
        title_for(&record, prefill, None),
        title_for(&record, prefill, Some(0))
    );
    assert!(title_for(&record, prefill, Some(7)).ends_with("prefill step"));
}

#[test]
fn long_titles_are_cut() {
    let stacks = ["decode 1".to_owned()];
    let options = SvgOptions {
        title: "x".repeat(200),
        subtitle: Some("y\u{1b}".repeat(200)),
        ..SvgOptions::default()
    };
    let picture = svg(&stacks, &options).unwrap();
    assert!(picture.contains(&format!("{}…", "x".repeat(95))));
    assert!(picture.contains("y y…") && !picture.contains('\u{1b}'));
}

fn diff(old: &[&str], new: &[&str]) -> DiffGraph {
    let owned = |lines: &[&str]| {
        lines
            .iter()
            .map(|&line| line.to_owned())
            .collect::<Vec<_>>()
    };
    diff_svg(&owned(old), &owned(new), &SvgOptions::default()).unwrap()
}

/// The tooltips of a picture, which carry every frame's figures.
fn tooltips(svg: &str) -> Vec<&str> {
    let titles = svg.split("<title>").skip(1);
    titles
        .map(|rest| rest.split("</title>").next().unwrap())
        .collect()
}

#[test]
fn a_difference_colours_the_frames_below_too() {
    let diff = diff(
        &[
            "decode;forward;mlp 100",
            "decode;forward;attention 300",
            "decode;sample 100",
        ],
        &[
            "decode;forward;mlp 200",
            "decode;forward;attention 100",
            "decode;sample 100",
        ],
    );
    let mut tooltips = tooltips(&diff.svg);
    tooltips.sort_unstable();
    assert_eq!(
        tooltips,
        [
            "all (400 ns, 100%)",
            "attention (100 ns, 25.00%; -50.00%)",
            "decode (400 ns, 100.00%; -25.00%)",
            "forward (300 ns, 75.00%; -25.00%)",
            "mlp (200 ns, 50.00%; +25.00%)",
            "sample (100 ns, 25.00%; 0.00%)",
        ]
    );
    assert!(diff.only_in_old.is_empty());
    assert!(diff.svg.contains("width: new · red: grew · blue: shrank"));
    insta::assert_snapshot!(without_script(&diff.svg));
}

#[test]
fn what_only_the_old_profile_has_is_named() {
    let diff = diff(
        &[
            "decode;forward;gemv;gemv_naive 300",
            "decode;other 5",
            "decode;gone;a 1",
        ],
        &["decode;forward;gemv;gemv_avx2 100", "decode;other 5"],
    );
    assert_eq!(
        diff.only_in_old,
        ["decode;forward;gemv;gemv_naive 300", "decode;gone;a 1"]
    );
    assert!(diff.svg.contains("2 stacks of the old profile are gone"));
    // The frame below the vanished one still carries its change.
    assert!(tooltips(&diff.svg).contains(&"gemv (100 ns, 95.24%; -190.48%)"));
}

#[test]
fn nothing_new_is_nothing_to_draw() {
    let error = diff_svg(&["decode 5".to_owned()], &[], &SvgOptions::default());
    assert!(error.is_err());
}

#[test]
fn times_that_overflow_the_arithmetic_of_the_picture_are_refused() {
    let stack = |ns: u64| vec![format!("decode {ns}")];
    let options = SvgOptions::default();
    assert!(svg(&stack(1 << 53), &options).is_ok());
    assert!(diff_svg(&stack(1 << 53), &stack(1), &options).is_ok());
    let error = svg(&stack(u64::MAX), &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the stacks add up to 18446744073709551615 ns, more than the 2⁵³ that a flame graph can show"
    );
    assert!(diff_svg(&stack(u64::MAX), &stack(1), &options).is_err());
    let twice = [stack(u64::MAX), stack(u64::MAX)].concat();
    assert!(svg(&twice, &options).is_err());
}

proptest! {
    #[test]
    fn any_record_folds_and_draws(record in arbitrary::record(), by_layer in any::<bool>(), icicle in any::<bool>()) {
        for kind in [StepKind::Prefill, StepKind::Decode] {
            for point in [None, Some(0)] {
                let stacks = folded(&record, kind, &FoldOptions { point, by_layer });
                let options = SvgOptions {
                    title: title_for(&record, kind, point),
                    subtitle: Some(subtitle_for(&record, kind, point)),
                    icicle,
                    ..SvgOptions::default()
                };
                if let Ok(picture) = svg(&stacks, &options) {
                    prop_assert!(!picture.contains(|c: char| c.is_control() && !c.is_whitespace()));
                    let frames = tooltips(&picture);
                    prop_assert!(frames.iter().any(|frame| frame.starts_with(kind.name())), "{:?}", frames);
                }
                let _ = diff_svg(&stacks, &["decode;forward 1000".to_owned()], &options);
            }
        }
    }

    /// The stacks of a record are read back, by the reader of folded stacks, as they were written.
    #[test]
    fn stacks_survive_reading(record in arbitrary::record()) {
        let stacks = folded(&record, StepKind::Decode, &FoldOptions::default());
        for stack in &stacks {
            let (frames, _) = stack.rsplit_once(' ').unwrap();
            let last_word = frames.rsplit(' ').next().unwrap();
            prop_assert!(frames == last_word || last_word.parse::<f64>().is_err(), "{}", stack);
            prop_assert!(!stack.contains('\n'));
        }
    }
}
