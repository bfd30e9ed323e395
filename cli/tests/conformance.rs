//! The micro-kernels through the driver's C functions, against the emulated device without them.
#![allow(clippy::unwrap_used)] // a test

use std::process::Command;

#[test]
fn the_emulated_driver_changes_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_stepscope"))
        .args(["conformance", "--device", "emulated", "--json"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{stderr}\n{document:#}");
    assert_eq!(document["schema"], "stepscope.conformance/1");
    assert_eq!(
        (&document["different"], &document["not_run"]),
        (&0.into(), &0.into()),
        "{document:#}"
    );
    assert!(document["same"].as_u64().unwrap() >= 25);
}
