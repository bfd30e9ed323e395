//! `stepscope report` and `stepscope gate` on records of microbenchmarks, as a person and a CI job run them.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use serde_json::{Value, json};
use support::Stepscope;

/// A record of one product, 33.6 MB in `ns`, with cuBLASLt beside it.
fn record(ns: f64) -> Value {
    let samples = |ns: f64| -> Vec<Value> {
        let sample =
            |i: i32| json!({ "time_ns": ns * (1.0 + 1e-4 * f64::from(i)), "sm_clock_hz": 1.755e9 });
        (0..40).map(sample).collect()
    };
    let series = |ns: f64| {
        json!({
            "timer": "event", "launches_per_sample": 1, "l2": "rotated", "launch_hidden": true,
            "samples": samples(ns), "stopped": "low_noise",
        })
    };
    json!({
        "schema": "stepscope.microbench/1",
        "program": { "name": "stepscope", "version": "0.1.0", "commit": null, "command": ["stepscope"] },
        "started": "2026-02-03T04:05:06Z",
        "environment": {
            "host": null, "os": "Linux", "cpu": { "name": "a CPU", "threads": 16, "simd": "avx2" },
            "memory_bytes": 0, "load_average": null, "roofs": null,
            "gpu": {
                "name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1", "compute_capability": [9, 0],
                "multiprocessors": 132, "l2_bytes": 52_428_800, "memory_bytes": 85_899_345_920_u64,
                "clocks_khz": [1_980_000, 2_619_000], "driver": "13.0", "nvrtc": "13.0",
            },
        },
        "rows": [{
            "group": "gemv", "operation": "gemm", "kernel": "gemm_mma", "shape": "m=1 n=4096 k=4096",
            "dtype": "bf16", "status": "ok", "flops": 33_554_432, "bytes": 33_570_816,
            "roof": { "flops_per_s": 989.4e12, "bytes_per_s": 3.35e12, "source": "data sheet of H100" },
            "series": series(ns),
            "peers": [{ "name": "cuBLASLt", "in_turn": true, "status": "ok", "series": series(16_000.0) }],
        }],
    })
}

#[test]
fn a_report_has_ours_theirs_ratio_and_roof() {
    let stepscope = Stepscope::new();
    std::fs::write(
        stepscope.path("microbench.json"),
        record(20_000.0).to_string(),
    )
    .unwrap();
    let ran = stepscope.run(&["report", "microbench.json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for part in [
        "gemm_mma",
        "20.04",
        "· cuBLASLt",
        "1.25",
        "50.0",
        "cold, rotated",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let ran = stepscope.run(&["report", "--json", "."]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["rows"][0]["peers"][0]["ours_by_peer"], 1.25);
}

#[test]
fn a_gate_judges_two_row_by_row() {
    let stepscope = Stepscope::new();
    let write = |name: &str, record: Value| {
        std::fs::write(stepscope.path(name), record.to_string()).unwrap();
    };
    write("base.json", record(20_000.0));
    write("same.json", record(20_000.0));
    write("slow.json", record(20_600.0));
    let gate = |args: &[&str]| stepscope.run(&[&["gate"], args].concat());

    let ran = gate(&["base.json", "slow.json"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with("SLOW: 1 of 1 rows."),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("+3.0"), "{}", ran.stdout);
    let ran = gate(&["base.json", "same.json", "--markdown"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with("**SAME: 1 of 1 rows.**"),
        "{}",
        ran.stdout
    );
    let ran = gate(&["slow.json", "base.json", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["verdict"], "FAST");

    gate(&["base.json", "base.json"]).error(2, &["base.json is given twice"]);
    gate(&["base.json", "same.json", "--point", "1"])
        .error(2, &["--point is for records of steps"]);
    gate(&["--base", "base.json", "same.json", "--head", "slow.json"])
        .error(2, &["BASE has several files"]);
    std::fs::write(
        stepscope.path("other.json"),
        r#"{"schema": "stepscope.record/1"}"#,
    )
    .unwrap();
    gate(&["base.json", "other.json"]).error(2, &["its schema is \"stepscope.record/1\""]);
}
