//! `stepscope gpu-check`, all of it, on the emulated device; and `stepscope kernel prebuild`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use support::{Stepscope, fixture, has_compiler};

#[test]
fn every_stage_works_and_leaves_its_result() {
    if !has_compiler() {
        return;
    }
    let stepscope = Stepscope::new();
    let fixtures = fixture("");
    let ran = stepscope
        .run(&[
            "gpu-check",
            "--device",
            "emulated",
            "--small",
            "--fixtures",
            &fixtures,
        ])
        .success();
    let results = stepscope.json("gpu-check/results.json");
    assert_eq!(results["schema"], "stepscope.gpu-check/1");
    let stages = results["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "doctor",
            "micro-kernels",
            "kernels",
            "fixtures",
            "steps smollm2-135m"
        ]
    );
    for stage in stages {
        assert_eq!(stage["status"], "ok", "{stage}");
        assert!(
            ran.stdout.contains(stage["name"].as_str().unwrap()),
            "{}",
            ran.stdout
        );
    }
    let kernels = stages[2]["result"]["cases"].as_array().unwrap();
    assert!(kernels.len() > 80, "{}", kernels.len());
    assert!(kernels.iter().all(|case| case["right"] == true));
    let models = stages[3]["result"]["models"].as_array().unwrap();
    assert_eq!(models.len(), 6); // three, with and without graphs
    // An emulated device has no time: its steps leave none.
    assert_eq!(stages[4]["detail"], "");
}

#[test]
fn a_stage_that_fails_is_named_and_costs_no_other() {
    let stepscope = Stepscope::new();
    std::fs::create_dir(stepscope.path("empty")).unwrap();
    let mut command = stepscope.command(&["gpu-check", "--small", "--fixtures", "empty"]);
    // No driver: the doctor says so, and everything after it fails.
    command.env("STEPSCOPE_LIBCUDA", "/nowhere");
    let ran = support::Ran::from(command.output().unwrap());
    ran.error(
        1,
        &["4 of 5 stages failed", "gpu-check has what each printed"],
    );
    let results = stepscope.json("gpu-check/results.json");
    let stages = results["stages"].as_array().unwrap();
    assert_eq!(stages[0]["status"], "ok");
    for stage in &stages[1..] {
        assert_eq!(stage["status"], "failed", "{stage}");
        let detail = stage["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("error: STEPSCOPE_LIBCUDA=/nowhere cannot be used"),
            "{detail}"
        );
    }
}

#[test]
fn prebuilt_kernels_need_an_architecture_with_machine_code() {
    let stepscope = Stepscope::new();
    stepscope
        .run(&["kernel", "prebuild", "--arch", "compute_90"])
        .error(2, &["--arch compute_90", "use one such as sm_90a"]);
    stepscope
        .run(&["kernel", "prebuild", "--arch", "gfx90a"])
        .error(2, &["--arch gfx90a"]);
}
