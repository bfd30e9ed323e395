//! Record files: what is written is read, and what is no record is refused in one line.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use stepscope_profiler::{Record, report};
use support::{arbitrary, sample};

/// A record as version 1 of the schema writes it. A change of this file that old readers cannot read needs a new number.
const SAMPLE: &str = "tests/sample/record.json";

#[test]
fn the_sample_reads_and_is_what_is_written_today() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.json");
    let record = sample::record(2);
    record.write(&path).unwrap();
    let written = fs::read_to_string(&path).unwrap();
    if std::env::var_os("UPDATE_SAMPLE").is_some() {
        fs::write(SAMPLE, &written).unwrap();
    }
    assert!(
        written == fs::read_to_string(SAMPLE).unwrap(),
        "the format changed; UPDATE_SAMPLE=1 cargo test rewrites {SAMPLE}"
    );
    assert_eq!(Record::read(Path::new(SAMPLE)).unwrap(), record);
    // The folder of a run will do.
    assert_eq!(Record::read(folder.path()).unwrap(), record);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "a temporary file was left");
}

/// Reads a file of `content`; `expected` is the error after the path.
#[track_caller]
fn check_refused(content: &[u8], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.json");
    fs::write(&path, content).unwrap();
    let error = Record::read(&path).unwrap_err();
    assert!(error.is_input());
    let message = error.to_string();
    assert_eq!(
        message.strip_prefix(&format!("{} is not a stepscope record: ", path.display())),
        Some(expected),
        "{message}"
    );
}

#[test]
fn what_is_no_record_is_refused() {
    check_refused(b"", "it is empty");
    check_refused(b"PK\x03\x04\xff", "expected value at line 1 column 1");
    check_refused(b"{}", "it has no \"schema\"");
    check_refused(b"[]", "it is JSON, but not an object");
    check_refused(
        br#"{"schema": "stepscope.record/9"}"#,
        "its schema is \"stepscope.record/9\"; this program reads \"stepscope.record/1\"",
    );
    check_refused(
        br#"{"schema": 1}"#,
        "invalid type: integer `1`, expected a string at line 1 column 12",
    );
    check_refused(
        br#"{"schema": "stepscope.record/1"}"#,
        "missing field `program` at line 1 column 32",
    );
    check_refused(
        "[".repeat(100_000).as_bytes(),
        "it is JSON, but not an object",
    );
}

#[test]
fn a_truncated_record_says_so() {
    let text = fs::read(SAMPLE).unwrap();
    for length in [1, 30, text.len() / 2, text.len() - 3] {
        check_refused(
            &text[..length],
            "it ends early; was the run or the copy of it interrupted?",
        );
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.json");
    let error = Record::read(&missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot read {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
    // A folder without a record names the file that was looked for.
    let error = Record::read(folder.path()).unwrap_err();
    assert!(error.to_string().contains("record.json"), "{error}");
    assert!(error.is_input());

    let error = sample::record(0).write(&folder.path().join("no/such/folder/record.json"));
    let error = error.unwrap_err();
    assert!(!error.is_input());
    assert!(error.to_string().starts_with("cannot write "), "{error}");
}

#[test]
fn numbers_that_are_none_stay_readable() {
    let mut record = sample::record(1);
    record.points[0].repetitions[0].total_latency_s = f64::NAN;
    record.environment.roofs.as_mut().unwrap().flops_per_s = f64::INFINITY;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.json");
    record.write(&path).unwrap();
    let read = Record::read(&path).unwrap();
    assert!(read.points[0].repetitions[0].total_latency_s.is_nan());
    assert!(report::text(&read).contains("n/a"));
}

proptest! {
    #[test]
    fn any_record_reads_back(record in arbitrary::record()) {
        let text = serde_json::to_vec(&record).unwrap();
        let read: Record = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(read, record);
    }

    #[test]
    fn any_record_has_a_report(record in arbitrary::record()) {
        let text = report::text(&record);
        prop_assert!(!text.contains("NaN") && !text.contains("inf "), "{}", text);
        report::json(&record);
        report::point_text(&record, 3);
    }
}
