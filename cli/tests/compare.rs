//! `stepscope compare`: files of several frameworks, whole and broken.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use support::Stepscope;

const FOLDER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../profiler/tests/data/results"
);

fn fixture(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

#[test]
fn frameworks_side_by_side() {
    let stepscope = Stepscope::new();
    let ran = stepscope.run(&[
        "compare",
        &fixture("vllm-bench-serve.json"),
        &fixture("sglang-bench_serving.jsonl"),
    ]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for part in [
        "1   vllm-bench-serve.json        vLLM bench serve",
        "Not ranked against each other, since they did not measure the same work:",
        "batch or concurrency: ≤ 8 in flight (#1) · ≤ 16 in flight (#2)",
    ] {
        assert!(ran.stdout.contains(part), "{}", ran.stdout);
    }
    assert!(
        ran.stdout.lines().all(|line| line.chars().count() <= 120),
        "{}",
        ran.stdout
    );
}

/// Our own result file and the record of the same run measured the same, and are ranked.
#[test]
fn a_run_of_our_own_beside_its_result_file() {
    let stepscope = Stepscope::new();
    let ran = stepscope.one_batch(&["--batch", "2", "--input", "8", "--output", "4", "--quiet"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = stepscope.run(&["compare", "result.jsonl", "runs/default", "--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let rankings = json["groups"][0]["rankings"].as_array().unwrap();
    assert_eq!(json["groups"][0]["rows"], serde_json::json!([1, 2]));
    assert_eq!(rankings.len(), 3);
    for ranking in rankings {
        assert_eq!(ranking["places"][1]["times_best"], 1.0, "{ranking}");
    }
    // And the record becomes the file, byte for byte.
    let ran = stepscope.run(&["compare", "runs/default", "--to", "sglang"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        std::fs::read_to_string(stepscope.path("result.jsonl")).unwrap()
    );
}

#[test]
fn one_bad_file_costs_no_other() {
    let stepscope = Stepscope::new();
    stepscope.write("empty.json", "");
    stepscope.write("notes.txt", "hello\n");
    let ran = stepscope.run(&[
        "compare",
        "empty.json",
        &fixture("trtllm-bench-throughput.json"),
        "notes.txt",
        "missing.json",
        "--csv",
    ]);
    assert_eq!(ran.code, 2);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    let errors: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(errors[0], "error: empty.json holds no result: it is empty");
    assert!(errors[1].starts_with("error: notes.txt is in no form that is known; these are: "));
    assert!(errors[2].starts_with("error: cannot read missing.json: "));
    assert_eq!(errors.len(), 3);
}

#[test]
fn what_a_person_knows_of_a_file() {
    let stepscope = Stepscope::new();
    let file = fixture("sglang-bench_serving.jsonl");
    let ran = stepscope.run(&[
        "compare",
        &file,
        "--markdown",
        "--set",
        "sglang-bench_serving.jsonl:gpu=NVIDIA H100",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("| NVIDIA H100 |"), "{}", ran.stdout);
    let ran = stepscope.run(&["compare", &file, "--set", "other.jsonl:gpu=H100"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert_eq!(
        ran.stderr,
        "error: --set other.jsonl: no file of that name was given\n"
    );
    let ran = stepscope.run(&["compare", &file, "--set", "gpu=H100"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr
            .contains("is no FILE:key=value; the keys are model, gpu"),
        "{}",
        ran.stderr
    );
}

#[test]
fn other_programs_forms() {
    let stepscope = Stepscope::new();
    let file = fixture("sglang-0.5.11-cpu-smollm2.jsonl");
    let ran = stepscope.run(&[
        "compare",
        &file,
        &fixture("vllm-bench-serve.json"),
        "--to",
        "sglang",
    ]);
    assert_eq!(ran.code, 0);
    assert_eq!(ran.stdout, std::fs::read_to_string(&file).unwrap());
    assert!(
        ran.stderr.ends_with(
            "vllm-bench-serve.json:1: bench_one_batch is of one static batch, and this is not\n"
        ),
        "{}",
        ran.stderr
    );
    let ran = stepscope.run(&["compare", &file, "--to", "llama-bench-md"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(
        ran.stderr
            .ends_with("error: no result can be written in that form\n"),
        "{}",
        ran.stderr
    );
}
