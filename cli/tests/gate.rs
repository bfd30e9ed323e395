//! `stepscope gate` as a person and a CI job run it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use serde_json::{Value, json};
use support::Stepscope;

/// A run's record, its times replaced by steady ones: what is judged must not depend on this machine.
fn record(stepscope: &Stepscope) -> Value {
    let run = ["--input", "8", "--output", "4", "--repetitions", "12"];
    let rest = ["--record-all-steps", "--out", "recorded", "-q"];
    stepscope.one_batch(&[&run[..], &rest].concat()).success();
    let mut record = stepscope.json("recorded/record.json");
    record["environment"]["load_average"] = Value::Null;
    record
}

/// Gives `record` times around a millisecond, times `factor`, and writes it.
fn write(stepscope: &Stepscope, name: &str, record: &Value, factor: f64) {
    let mut record = record.clone();
    let repetitions = record["points"][0]["repetitions"].as_array_mut().unwrap();
    for (r, repetition) in repetitions.iter_mut().enumerate() {
        for (s, step) in repetition["steps"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .enumerate()
        {
            let spread = 1.0 + 0.0004 * ((r + s) * 7 % 11) as f64;
            let time = |base: f64| json!((base * factor * spread) as u64);
            step["wall_ns"] = time(1e6);
            for operation in step["operations"].as_array_mut().unwrap() {
                operation["duration_ns"] = time(2e4);
            }
        }
    }
    let path = stepscope.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, record.to_string()).unwrap();
}

#[test]
fn the_exit_code_is_1_for_slow_alone() {
    let stepscope = Stepscope::new();
    let record = record(&stepscope);
    write(&stepscope, "base/record.json", &record, 1.0);
    write(&stepscope, "same.json", &record, 1.0);
    write(&stepscope, "slow.json", &record, 1.041);
    let gate = |args: &[&str]| stepscope.run(&[&["gate"], args].concat());

    let ran = gate(&["base", "slow.json"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with("SLOW: prefill step +4.1 %"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("clear gap in time; no clock known"));
    assert_eq!(ran.stderr, "");
    assert!(
        gate(&["slow.json", "base"])
            .success()
            .stdout
            .starts_with("FAST: ")
    );
    assert!(
        gate(&["base", "same.json"])
            .success()
            .stdout
            .starts_with("SAME: all ")
    );
    // A gap of 5 % is asked for: what lies between is not clear.
    let ran = gate(&["base", "slow.json", "--gap", "5"]).success();
    assert!(ran.stdout.starts_with("AMBIGUOUS: "), "{}", ran.stdout);
    // The build against itself shows the same change.
    write(&stepscope, "null.json", &record, 1.05);
    let ran = gate(&["base", "slow.json", "--null", "null.json"]).success();
    assert!(
        ran.stdout.contains("but so does the null control"),
        "{}",
        ran.stdout
    );

    let ran = gate(&["base", "slow.json", "--json", "--only", "steps"]);
    assert_eq!(ran.code, 1);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["verdict"], "SLOW");
    let steps: Vec<&Value> = json["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["step"])
        .collect();
    assert_eq!(steps, ["prefill", "decode"]);
    let ran = gate(&["base", "slow.json", "--markdown"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.starts_with("**SLOW: "), "{}", ran.stdout);
}

#[test]
fn several_records_are_as_many_observations() {
    let stepscope = Stepscope::new();
    let record = record(&stepscope);
    for process in 0..6 {
        let factor = 1.0 + 0.0005 * f64::from(process);
        write(
            &stepscope,
            &format!("a/run{process}/record.json"),
            &record,
            factor,
        );
        write(
            &stepscope,
            &format!("b/{process}.json"),
            &record,
            factor * 1.03,
        );
    }
    let ran = stepscope.run(&["gate", "a", "b"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("6 processes against 6"),
        "{}",
        ran.stdout
    );
    let files = [
        "--base", "a/run0", "a/run1", "--head", "b/0.json", "b/1.json",
    ];
    let ran = stepscope.run(&[&["gate"], &files[..]].concat()).success();
    assert!(
        ran.stdout.contains("2 and 2 samples; 6 each needed"),
        "{}",
        ran.stdout
    );
    stepscope
        .run(&[
            "gate",
            "--base",
            "a/run0",
            "a/run0/record.json",
            "--head",
            "b",
        ])
        .error(2, &["a/run0/record.json", "given twice"]);
}

#[test]
fn a_null_run_repeats_the_recorded_command_and_writes_nothing_here() {
    let stepscope = Stepscope::new();
    let record = record(&stepscope);
    write(&stepscope, "base.json", &record, 1.0);
    write(&stepscope, "head.json", &record, 1.0);
    let before = std::fs::read_dir(stepscope.folder.path()).unwrap().count();
    let ran = stepscope
        .run(&["gate", "base.json", "head.json", "--null-run"])
        .success();
    assert!(
        ran.stdout
            .contains("Null control (one build against itself): ")
    );
    let runs: Vec<&str> = ran
        .stderr
        .lines()
        .map(|l| l.split(':').next().unwrap())
        .collect();
    assert_eq!(runs, ["null A 1", "null B 1"]);
    assert!(ran.stderr.contains("one-batch --json-model-override-args"));
    let after = std::fs::read_dir(stepscope.folder.path()).unwrap().count();
    assert_eq!(before, after);

    let mut other = record.clone();
    other["program"]["command"] = json!(["stepscope", "generate"]);
    write(&stepscope, "other.json", &other, 1.0);
    stepscope
        .run(&["gate", "other.json", "head.json", "--null-run"])
        .error(2, &["other.json", "no one-batch"]);
    other["program"]["command"] = json!(["stepscope", "one-batch", "--model", "no-such-model"]);
    write(&stepscope, "failing.json", &other, 1.0);
    stepscope
        .run(&["gate", "failing.json", "head.json", "--null-run"])
        .error(2, &["BASE's command failed here", "no-such-model"]);
    other["program"]["version"] = json!("0.0.1");
    write(&stepscope, "older.json", &other, 1.0);
    stepscope
        .run(&["gate", "older.json", "head.json", "--null-run"])
        .error(2, &["version 0.0.1", "--null-run=PROGRAM"]);
    stepscope
        .run(&["gate", "base.json", "head.json", "--null", "older.json"])
        .error(2, &["older.json", "version 0.0.1", "BASE's own build"]);
}

#[test]
fn data_that_cannot_be_used_is_exit_code_2_and_one_line() {
    let stepscope = Stepscope::new();
    let record = record(&stepscope);
    write(&stepscope, "good.json", &record, 1.0);
    write(&stepscope, "zero.json", &record, 0.0);
    let with = |name: &str, change: fn(&mut Value)| {
        let mut record = record.clone();
        change(&mut record);
        stepscope.write(name, record.to_string());
    };
    with("emulated.json", |r| r["run"]["device"] = json!("emulated"));
    with("partial.json", |r| r["complete"] = json!(false));
    with("half.json", |r| r["run"]["dtype"] = json!("float16"));
    with("null-time.json", |r| {
        r["points"][0]["repetitions"][0]["steps"][0]["wall_ns"] = Value::Null;
    });
    stepscope.write("nan.json", "{\"schema\": NaN}");
    stepscope.write("cut.json", &record.to_string()[..200]);
    std::fs::create_dir(stepscope.path("empty")).unwrap();
    let huge = std::fs::File::create(stepscope.path("huge.json")).unwrap();
    huge.set_len(5 << 30).unwrap(); // holds nothing: it takes no room on the disk

    for (head, parts) in [
        ("missing.json", vec!["cannot read missing.json"]),
        ("emulated.json", vec!["emulated.json", "has no time"]),
        ("partial.json", vec!["partial.json", "interrupted"]),
        ("half.json", vec!["data type", "float16"]),
        (
            "null-time.json",
            vec!["null-time.json", "not a stepscope record"],
        ),
        ("nan.json", vec!["nan.json", "not a stepscope record"]),
        ("cut.json", vec!["cut.json", "ends early"]),
        ("empty", vec!["empty holds no record"]),
        (
            "huge.json",
            vec!["huge.json", "5.4 GB", "--record-all-steps"],
        ),
        ("good.json", vec!["good.json is given twice"]),
    ] {
        stepscope.run(&["gate", "good.json", head]).error(2, &parts);
    }
    let ran = stepscope.run(&["gate", "good.json", "zero.json"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stdout.starts_with("UNUSABLE: "), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("samples are no times"),
        "{}",
        ran.stdout
    );
    stepscope
        .run(&["gate", "good.json", "zero.json", "--point", "3"])
        .error(2, &["--point 3", "1 points"]);
    for (option, value) in [
        ("--gap", "-1"),
        ("--gap", "nan"),
        ("--sample-coverage", "101"),
    ] {
        let value = format!("{option}={value}");
        stepscope
            .run(&["gate", "good.json", "zero.json", &value])
            .error(2, &[option, "percent"]);
    }
    stepscope.run(&["gate", "good.json"]).error(2, &["HEAD"]);
}
