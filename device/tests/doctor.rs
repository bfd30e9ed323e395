//! The examination of a machine, with libraries chosen by environment variables.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use stepscope_device::doctor;

/// Names the file that a process which a test starts writes its report to.
const REPORT: &str = "STEPSCOPE_TEST_REPORT";

/// The report of a process of its own with these variables; the libraries it opens stay out of this one.
fn report_with(variables: &[(&str, &Path)]) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_a_report_when_asked"])
        .env(REPORT, file.path())
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .status();
    assert!(child.unwrap().success());
    serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap()
}

#[test]
fn writes_a_report_when_asked() {
    if let Some(file) = std::env::var_os(REPORT) {
        std::fs::write(file, serde_json::to_vec(&doctor::examine()).unwrap()).unwrap();
    }
}

#[test]
fn a_driver_and_its_gpus_are_described() {
    let library = support::library();
    let report = report_with(&[
        ("STEPSCOPE_LIBCUDA", &library),
        ("STEPSCOPE_EMULATED_DEVICES", Path::new("2")),
        ("STEPSCOPE_EMULATED_CAPABILITY", Path::new("8.9")),
    ]);
    let driver = &report["libraries"][0];
    assert_eq!(driver["library"], "driver");
    assert_eq!(driver["path"], library.to_str().unwrap());
    assert_eq!(driver["origin"], "chosen");
    assert_eq!(driver["version"], "CUDA 13.0");
    assert_eq!(report["driver"]["cuda"], "13.0");
    assert_eq!(report["gpus"].as_array().unwrap().len(), 2);
    let name = "Emulated sm_89 (functional, no timing)";
    assert_eq!(report["gpus"][0]["name"], name);
    assert_eq!(report["gpus"][0]["limits"]["multiprocessors"], 128);
    assert_eq!(report["driver_problem"], Value::Null);
}

#[test]
fn a_driver_that_sees_no_gpu_is_missing_something() {
    let report = report_with(&[
        ("STEPSCOPE_LIBCUDA", &support::library()),
        ("STEPSCOPE_EMULATED_DEVICES", Path::new("0")),
    ]);
    assert_eq!(report["driver"], Value::Null);
    let missing = report["missing"].as_array().unwrap();
    let driver = missing
        .iter()
        .find(|missing| missing["what"] == "a driver that works")
        .unwrap();
    assert!(
        driver["way_out"]
            .as_str()
            .unwrap()
            .contains("sees no device"),
        "{driver}"
    );
}

#[test]
fn a_variable_that_names_no_library_is_told() {
    let report = report_with(&[("STEPSCOPE_NCCL", Path::new("/nowhere/libnccl.so.2"))]);
    let missing = report["missing"].as_array().unwrap();
    let nccl = missing
        .iter()
        .find(|missing| missing["what"] == "NVIDIA's NCCL")
        .unwrap();
    assert_eq!(
        nccl["way_out"],
        "STEPSCOPE_NCCL=/nowhere/libnccl.so.2 cannot be used: there is no libnccl.so.2"
    );
}
