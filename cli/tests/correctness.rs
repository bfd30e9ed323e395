//! `one-batch --correctness-test` beside the output of the real sglang 0.5.11 on the same model.
//!
//! Its first-half logits agree with transformers to bfloat16 rounding. Its final ones do not: that version reads a cached
//! prefix wrongly on the CPU. Ours are held against transformers there.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use support::{Stepscope, smollm2};

/// The numbers of the `row`-th line of the tensor after `title`.
fn logits(output: &str, title: &str, row: usize) -> Vec<f64> {
    let tensor = output
        .split(title)
        .nth(1)
        .unwrap()
        .split(")")
        .next()
        .unwrap();
    let line = tensor.lines().nth(row).unwrap();
    line.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'))
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[track_caller]
fn check_close(ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len());
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= tolerance, "{ours:?}\n{theirs:?}");
    }
}

#[test]
fn it_prints_what_sglang_prints_with_the_right_final_logits() {
    let Some(model) = smollm2() else { return };
    let theirs = include_str!("fixtures/sglang-0.5.11-cpu-smollm2-correctness.txt");
    let stepscope = Stepscope::new();
    let ours = stepscope
        .run(&[
            "one-batch",
            "--model-path",
            &model,
            "--correct",
            "--output",
            "16",
            "--quiet",
        ])
        .success()
        .stdout;

    // The same lines in the same places, up to the generated text.
    let shape = |output: &str| -> Vec<String> {
        let head = output.split("========== Prompt 0").next().unwrap();
        head.lines()
            .map(|line| match line.split_once("tensor(") {
                Some((title, _)) => title.to_owned(),
                None if line.starts_with("max_total") => "max_total_num_tokens=".to_owned(),
                None if line.trim_start().starts_with('[') => {
                    format!("row{}", &line[line.trim_end_matches(' ').len()..])
                }
                None => line.to_owned(),
            })
            .collect()
    };
    assert_eq!(shape(&ours), shape(theirs));
    for line in [
        ") \n\nprefill logits (final): tensor([[",
        ") \n\n========== Prompt 0 ==========",
    ] {
        assert!(ours.contains(line) && theirs.contains(line), "{ours}");
    }

    for row in 0..3 {
        let title = "prefill logits (first half): ";
        // sglang computes in bfloat16: 8 bits of mantissa, and the error of 30 layers.
        check_close(
            &logits(&ours, title, row),
            &logits(theirs, title, row),
            0.35,
        );
    }
    let expected: serde_json::Value = serde_json::from_str(include_str!(
        "../../engine/tests/fixtures/smollm2/expected.json"
    ))
    .unwrap();
    for row in 0..3 {
        let edge = |key: &str, range: std::ops::Range<usize>| -> Vec<f64> {
            serde_json::from_value::<Vec<f64>>(expected["rows"][row][key].clone()).unwrap()[range]
                .to_vec()
        };
        let right = [edge("first8_logits", 0..3), edge("last8_logits", 5..8)].concat();
        check_close(&logits(&ours, "prefill logits (final): ", row), &right, 0.1);
    }
    assert!(
        ours.contains("========== Prompt 0 ==========\nThe capital of France is Paris.\n"),
        "{ours}"
    );
    assert!(ours.ends_with(" \n\n"), "{ours}");
}

#[test]
fn without_a_cut_there_is_no_first_half() {
    let Some(model) = smollm2() else { return };
    let stepscope = Stepscope::new();
    let run = |cut: &str| {
        let args = [
            "one-batch",
            "--model-path",
            &model,
            "--correct",
            "--output",
            "4",
            "--cut-len",
            cut,
        ];
        stepscope.run(&args).success().stdout
    };
    let (whole, cut) = (run("0"), run("4"));
    assert!(!whole.contains("first half"));
    let title = "prefill logits (final): ";
    for row in 0..3 {
        check_close(&logits(&whole, title, row), &logits(&cut, title, row), 0.05);
    }
    let text = |output: &str| {
        output
            .split("========== Prompt 0")
            .nth(1)
            .unwrap()
            .to_owned()
    };
    assert_eq!(text(&whole), text(&cut));
}

#[test]
fn prompts_must_be_longer_than_the_cut() {
    let Some(model) = smollm2() else { return };
    let stepscope = Stepscope::new();
    stepscope
        .run(&[
            "one-batch",
            "--model-path",
            &model,
            "--correct",
            "--cut-len",
            "5",
        ])
        .error(
            2,
            &["The capital of France is", "has 5 tokens", "--cut-len 5"],
        );
    stepscope.write(
        "prompts.txt",
        "Once upon a time there was\nIn the beginning was the word\nA third one of many words\n",
    );
    let args = [
        "one-batch",
        "--model-path",
        &model,
        "--correct",
        "--prompt-filename",
        "prompts.txt",
        "--batch",
        "2",
        "--output",
        "2",
    ];
    let ran = stepscope.run(&args).success();
    assert!(
        ran.stderr.contains("Using the first 2 prompts"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout
            .contains("========== Prompt 1 ==========\nIn the beginning was the word")
    );
    assert!(!ran.stdout.contains("Prompt 2"));
}
