//! `stepscope device` on the emulated device, and what `explain` makes of a sheet.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use serde_json::{Value, json};
use support::{Stepscope, has_compiler};

#[test]
fn a_sheet_of_the_emulated_device_is_right_and_has_no_time() {
    if !has_compiler() {
        return;
    }
    let stepscope = Stepscope::new();
    let ran = stepscope
        .run(&[
            "device",
            "--device",
            "emulated",
            "--json",
            "--html",
            "sheet.html",
            "--svg",
            "sheet.svg",
            "--out",
            "device.json",
        ])
        .success();
    let sheet: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(sheet, stepscope.json("device.json"));
    assert_eq!(sheet["schema"], "stepscope.device/1");
    assert_eq!(sheet["device"], "emulated");
    let rows = sheet["rows"].as_array().unwrap();
    assert!(rows.len() > 60, "{}", rows.len());
    for row in rows {
        let expected = if row["group"] == "energy" || row["name"] == "peer_copy" {
            "skipped"
        } else {
            "no_time"
        };
        assert_eq!(row["status"], expected, "{row}");
        assert!(
            row["value"].is_null() && row["samples"] == json!([]),
            "{row}"
        );
        assert_eq!(row["timer"], "none");
        for claim in row["claims"].as_array().unwrap() {
            assert_eq!(claim["claimed"], claim["counted"], "{row}");
        }
    }
    let page = std::fs::read_to_string(stepscope.path("sheet.html")).unwrap();
    assert!(page.contains("An emulated device has no time"), "{page}");
    let picture = std::fs::read_to_string(stepscope.path("sheet.svg")).unwrap();
    assert!(picture.contains("nothing to plot"), "{picture}");
}

#[test]
fn groups_are_chosen_and_read_as_a_table() {
    if !has_compiler() {
        return;
    }
    let stepscope = Stepscope::new();
    let ran = stepscope
        .run(&[
            "device",
            "--device",
            "emulated",
            "--only",
            "timers,shared",
            "--quick",
        ])
        .success();
    for part in [
        "Shared memory",
        "Timers",
        "wavefronts of shared memory",
        "no time",
        "5 rows right, without times",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("Tensor cores"), "{}", ran.stdout);
}

#[test]
fn the_cpu_has_no_sheet_and_groups_have_names() {
    let stepscope = Stepscope::new();
    stepscope
        .run(&["device", "--device", "cpu"])
        .error(2, &["--device cpu", "--device cuda", "--device emulated"]);
    stepscope
        .run(&["device", "--only", "caches"])
        .error(2, &["caches", "memory", "energy"]);
    let mut command = stepscope.command(&["device"]);
    command.env("STEPSCOPE_LIBCUDA", "/nowhere");
    support::Ran::from(command.output().unwrap()).error(1, &["/nowhere"]);
}

/// A row that was measured. All numbers of these sheets are made up.
fn row(group: &str, name: &str, unit: &str, value: f64) -> Value {
    json!({
        "group": group, "name": name, "title": name, "at": null, "claim": "", "unit": unit, "timer": "event", "status": "measured",
        "note": null, "value": value, "quartiles": [value, value], "samples": [{ "value": value, "sm_clock_hz": 1.5e9 }],
        "set_aside": [], "claims": [], "expected": null, "ratio": null,
    })
}

fn gpu(name: &str, uuid: &str) -> Value {
    json!({
        "name": name, "uuid": uuid, "compute_capability": [9, 0], "multiprocessors": 132, "l2_bytes": 52_428_800,
        "memory_bytes": 85_899_345_920_u64, "clocks_khz": [1_980_000, 2_619_000], "driver": "13.0", "nvrtc": "13.0",
    })
}

fn sheet(name: &str, uuid: &str, created: &str) -> String {
    json!({
        "schema": "stepscope.device/1", "summary": "", "created": created, "device": "cuda", "gpu": gpu(name, uuid),
        "program": { "name": "stepscope", "version": "0", "commit": null, "command": [] },
        "watch": null, "no_watch": null, "quick": false,
        "rows": [
            row("tensor", "wgmma_bf16", "FLOP/s", 7e14),
            row("memory", "dram_read", "B/s", 3e12),
            row("memory", "l2_read", "B/s", 5e12),
        ],
    })
    .to_string()
}

const CARD: &str = "NVIDIA H100 80GB HBM3";

/// A record as if that card had made it, in `run/record.json`.
fn record(stepscope: &Stepscope) {
    stepscope
        .one_batch(&[
            "--batch",
            "1",
            "--input",
            "8",
            "--output",
            "3",
            "--out",
            "run",
            "--result-filename",
            "",
        ])
        .success();
    let mut record = stepscope.json("run/record.json");
    record["run"]["device"] = json!("cuda");
    record["environment"]["gpu"] = gpu(CARD, "GPU-1");
    record["environment"]["roofs"] = Value::Null;
    stepscope.write("run/record.json", record.to_string());
}

fn explain(stepscope: &Stepscope, args: &[&str]) -> support::Ran {
    let mut command = stepscope.command(&[&["explain", "run"], args].concat());
    command.env("STEPSCOPE_CACHE", stepscope.path("cache"));
    command.output().unwrap().into()
}

/// What an explanation says, its lines made one.
fn told(ran: &support::Ran) -> String {
    ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn explain_takes_its_ceilings_from_a_sheet_of_the_card() {
    let stepscope = Stepscope::new();
    record(&stepscope);
    // Without a sheet: the data sheet.
    let ran = explain(&stepscope, &[]).success();
    assert!(
        told(&ran).contains("Ceilings: data sheet of NVIDIA H100 SXM"),
        "{}",
        ran.stdout
    );

    // The last sheet of this card, from the cache folder.
    std::fs::create_dir_all(stepscope.path("cache/devices")).unwrap();
    stepscope.write(
        "cache/devices/GPU-1.json",
        sheet(CARD, "GPU-1", "2026-01-01T00:00:00Z"),
    );
    let expected = "Ceilings: measured on NVIDIA H100 80GB HBM3 by `stepscope device` on 2026-01-01T00:00:00Z at 1500 MHz, times by events: \
                700 TFLOP/s (wgmma_bf16), 3.00 TB/s from DRAM, 5.00 TB/s from L2.";
    let ran = explain(&stepscope, &[]).success();
    assert!(told(&ran).contains(expected), "{}", ran.stdout);
    let ran = explain(&stepscope, &["--json"]).success();
    let explanation: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(explanation["ceilings"]["flops_per_s"], 7e14);

    // One beside the record counts before, and one of another card is named and left.
    stepscope.write("device.json", sheet(CARD, "GPU-1", "2026-02-02T00:00:00Z"));
    stepscope.write(
        "run/device.json",
        sheet(CARD, "GPU-2", "2026-03-03T00:00:00Z"),
    );
    let ran = explain(&stepscope, &[]).success();
    assert!(told(&ran).contains("2026-02-02"), "{}", ran.stdout);
    assert!(ran.stderr.contains("run/device.json"), "{}", ran.stderr);
    assert!(ran.stderr.contains("GPU-2"), "{}", ran.stderr);

    // One that is named counts first, even of another card of the name.
    let ran = explain(&stepscope, &["--ceilings", "run/device.json"]).success();
    assert!(told(&ran).contains("2026-03-03"), "{}", ran.stdout);
    assert!(
        told(&ran).contains("another card of the same name"),
        "{}",
        ran.stdout
    );
    let ran = explain(&stepscope, &["--gpu", "h100-sxm"]).success();
    assert!(
        told(&ran).contains("Ceilings: data sheet"),
        "{}",
        ran.stdout
    );
}

#[test]
fn ceilings_that_do_not_fit_are_refused() {
    let stepscope = Stepscope::new();
    record(&stepscope);
    explain(&stepscope, &["--ceilings", "none.json"]).error(2, &["--ceilings", "none.json"]);
    stepscope.write(
        "other.json",
        sheet("NVIDIA L4", "GPU-3", "2026-01-01T00:00:00Z"),
    );
    explain(&stepscope, &["--ceilings", "other.json"]).error(2, &["NVIDIA L4", CARD]);
    explain(&stepscope, &["--ceilings", "run/record.json"])
        .error(2, &["stepscope.record/1", "stepscope.device/1"]);
    let mut empty: Value =
        serde_json::from_str(&sheet(CARD, "GPU-1", "2026-01-01T00:00:00Z")).unwrap();
    empty["rows"] = json!([]);
    stepscope.write("empty.json", empty.to_string());
    explain(&stepscope, &["--ceilings", "empty.json"]).error(2, &["memory and tensor"]);
    stepscope.write("result.jsonl", "{}\n");
    stepscope
        .run(&["explain", "result.jsonl", "--ceilings", "other.json"])
        .error(2, &["--ceilings is for records"]);
}
