//! `stepscope bench`: criterion's flags reach the groups, and results lie where they belong.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use support::Stepscope;

#[test]
fn names_are_listed_by_group() {
    let ran = Stepscope::new().run(&["bench", "--list"]).success();
    let groups = [
        "launch",
        "memory",
        "gemm",
        "gemv",
        "attention",
        "norm",
        "rope_kv",
        "sampling",
        "token_pool",
        "kv_alloc",
        "prefill",
        "decode",
        "host",
    ];
    for group in groups {
        let start = format!("{group}/");
        let of_group = |line: &str| line.starts_with(&start) && line.ends_with(": benchmark");
        assert!(ran.stdout.lines().any(of_group), "{group}: {}", ran.stdout);
    }
    let ran = Stepscope::new()
        .run(&["bench", "--list", "^kv_alloc/.*/64 requests$"])
        .success();
    let names: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|line| line.ends_with(": benchmark"))
        .collect();
    assert!(names.iter().all(|name| name.contains("64 requests: ")));
    assert_eq!(names.len(), 2, "{}", ran.stdout);
}

#[test]
fn a_test_runs_once_and_measures_nothing() {
    let stepscope = Stepscope::new();
    let ran = stepscope.run(&["bench", "--test", "token_pool"]).success();
    let result = "test result: ok. 6 passed; 0 failed";
    assert!(ran.stdout.contains(result), "{}", ran.stdout);
    assert!(!ran.stdout.contains("time:"), "{}", ran.stdout);
    assert!(!stepscope.path("runs").exists());
}

#[test]
fn what_is_measured_lies_in_a_record_beside_criterions_files() {
    let stepscope = Stepscope::new();
    let words = [
        "bench",
        "--quick",
        "--measurement-time",
        "0.1",
        "kv_alloc/a page each/1 ",
    ];
    stepscope
        .run(&[&words[..], &["--save-baseline", "main"]].concat())
        .success();
    let record = stepscope.json("runs/bench/kv_alloc/microbench.main.json");
    assert_eq!(record["schema"], "stepscope.microbench/1");
    let rows = record["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{record}");
    assert_eq!(rows[0]["status"], "ok");
    let samples = rows[0]["series"]["samples"].as_array().unwrap();
    assert!(!samples.is_empty() && samples.iter().all(|s| s["time_ns"].as_f64() > Some(0.0)));
    let ran = stepscope
        .run(&[&words[..], &["--baseline", "main"]].concat())
        .success();
    assert!(ran.stdout.contains("change:"), "{}", ran.stdout);
    // It ends with a table and with where to look on.
    let (_, end) = ran.stdout.split_once("\nMicrobenchmarks of ").unwrap();
    assert!(
        end.contains("\nkv_alloc\n") && end.contains("kernel or peer"),
        "{end}"
    );
    assert!(
        end.trim_end()
            .ends_with("every sample: runs/bench/kv_alloc/microbench.json"),
        "{end}"
    );
}

#[test]
fn steps_leave_a_flame_graph_and_a_trace() {
    let stepscope = Stepscope::new();
    let words = [
        "bench",
        "--profile-time",
        "1",
        "decode/cpu/smollm2-135m 1x256",
    ];
    stepscope.run(&words).success();
    let folder = "runs/bench/decode/cpu/smollm2-135m 1x256 in the cache/profile";
    let read = |name: &str| std::fs::read_to_string(stepscope.path(folder).join(name)).unwrap();
    assert!(read("flamegraph.svg").contains("lm_head"));
    assert!(
        read("flamegraph.folded")
            .lines()
            .all(|line| line.starts_with("decode;"))
    );
    let record = stepscope.json(&format!("{folder}/record.json"));
    assert!(record["points"][0]["decode"]["steps"].as_u64() > Some(1));
    let trace: serde_json::Value = serde_json::from_str(&read("trace.json")).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > 100);
    // The record is one like any other.
    let path = stepscope.path(folder).join("record.json");
    stepscope.run(&["report", path.to_str().unwrap()]).success();
}

#[test]
fn a_filter_that_is_none_is_wrong_usage() {
    let ran = Stepscope::new().run(&["bench", "gemm("]);
    ran.error(2, &["`gemm(` is no regular expression", "--exact"]);
}

/// What is no step leaves the stacks of the threads that worked on it.
#[test]
fn other_benchmarks_leave_sampled_stacks_and_their_batches() {
    let stepscope = Stepscope::new();
    let cases = [
        ("host/flame graph drawn/record", "stepscope_flamegraphs"),
        ("gemm/cpu/smollm2-135m qkv 64x960x576", "gemm"),
    ];
    for (name, function) in cases {
        let ran = stepscope
            .run(&["bench", "--profile-time", "1", name])
            .success();
        let line = ran.stdout.lines().find(|line| line.starts_with("wrote "));
        let path = line.unwrap_or_else(|| panic!("{}", ran.stdout));
        let folder = std::path::Path::new(&path["wrote ".len()..]);
        let folder = folder.parent().unwrap();
        let read = |name: &str| {
            std::fs::read_to_string(stepscope.path(folder.to_str().unwrap()).join(name)).unwrap()
        };
        let folded = read("flamegraph.folded");
        assert!(
            folded.lines().any(|line| line.contains(function)),
            "{folded}"
        );
        assert!(!folded.contains("criterion::"), "{folded}");
        assert!(read("flamegraph.svg").contains("processor time of all threads"));
        let trace: serde_json::Value = serde_json::from_str(&read("trace.json")).unwrap();
        let batch = &trace["traceEvents"][1];
        assert_eq!(batch["ph"], "X");
        assert!(batch["name"].as_str().unwrap().starts_with(name), "{batch}");
        assert!(
            batch["args"]["ns per iteration"].as_f64() > Some(0.0),
            "{batch}"
        );
    }
}
