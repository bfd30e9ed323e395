//! `stepscope doctor`: useful on a machine with nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use serde_json::Value;
use support::Stepscope;

#[test]
fn every_machine_gets_a_page() {
    let stepscope = Stepscope::new();
    let ran = stepscope.run(&["doctor"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for heading in [
        "Libraries",
        "Driver",
        "GPUs",
        "Hardware counters",
        "Compiler",
        "Compiled kernels",
    ] {
        assert!(
            ran.stdout.contains(&format!("{heading}\n")),
            "{}",
            ran.stdout
        );
    }
}

#[test]
fn a_library_that_was_chosen_wrongly_is_named_with_its_variable() {
    let stepscope = Stepscope::new();
    let mut command = stepscope.command(&["doctor", "--json"]);
    let output = command.env("STEPSCOPE_CUPTI", "/nowhere").output().unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let libraries = report["libraries"].as_array().unwrap();
    let cupti = libraries
        .iter()
        .find(|library| library["library"] == "cupti")
        .unwrap();
    let problem = cupti["problem"].as_str().unwrap();
    assert!(
        problem.starts_with("STEPSCOPE_CUPTI=/nowhere cannot be used"),
        "{problem}"
    );
    assert!(
        report["missing"]
            .as_array()
            .unwrap()
            .iter()
            .any(|missing| missing["way_out"] == problem)
    );
}
