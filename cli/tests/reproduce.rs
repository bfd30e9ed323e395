//! `stepscope reproduce`: a result file, run again here.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use support::{Stepscope, TINY};

/// Our own result file, of the tiny model.
fn result(stepscope: &Stepscope) {
    let args = [
        "--batch", "1", "2", "--input", "8", "--output", "1", "4", "--quiet",
    ];
    let ran = stepscope.one_batch(&args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

const OPTIONS: [&str; 5] = ["--", "--json-model-override-args", TINY, "--threads", "2"];

#[test]
fn every_row_runs_again() {
    let stepscope = Stepscope::new();
    result(&stepscope);
    let mut args = vec![
        "reproduce",
        "result.jsonl",
        "--model-path",
        "smollm2-135m",
        "--json",
    ];
    args.extend(OPTIONS);
    let ran = stepscope.run(&args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let pairs = json["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 4);
    for pair in pairs {
        let both = |key: &str| {
            let times = pair[key].as_array().unwrap();
            times.iter().filter(|t| t.is_number()).count()
        };
        assert_eq!(both("prefill_s"), 2, "{pair}");
        assert_eq!(
            both("decode_s"),
            if pair["output_len"] == 1 { 0 } else { 2 }
        );
        assert!(!pair["prefill_parts"].as_array().unwrap().is_empty());
    }
    assert!(
        stepscope
            .path("runs/reproduce/batch2-in8-out4/record.json")
            .exists()
    );
    args.retain(|a| *a != "--json");
    let text = stepscope.run(&args).stdout;
    for part in [
        "theirs: sglang bench_one_batch",
        "batch 2, 8 in, 4 out: ",
        "ours /",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn what_cannot_run_is_told() {
    let stepscope = Stepscope::new();
    let data = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../profiler/tests/data/results/"
    );
    let serving = format!("{data}sglang-bench_serving.jsonl");
    let ran = stepscope.run(&["reproduce", &serving, "--model-path", "smollm2-135m"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("no row is a static batch"),
        "{}",
        ran.stderr
    );

    result(&stepscope);
    let ran = stepscope.run(&["reproduce", "result.jsonl"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("--model-path PATH does"),
        "{}",
        ran.stderr
    );

    let mut args = vec!["reproduce", "result.jsonl", "--model-path", "no-such-model"];
    args.extend(OPTIONS);
    let ran = stepscope.run(&args);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no row could be run"), "{}", ran.stderr);
}
