//! Which timer a run has, and what recording costs.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use support::Stepscope;

#[test]
fn overhead_is_measured_printed_and_recorded() {
    let stepscope = Stepscope::new();
    let arguments = [
        "--overhead",
        "--out",
        "run",
        "--input",
        "4",
        "--output",
        "9",
    ];
    let ran = stepscope.one_batch(&arguments).success();
    let line = ran.stderr.lines().find(|l| l.starts_with("recording "));
    let line = line.unwrap_or_else(|| panic!("{}", ran.stderr));
    for part in [
        "phases",
        "operations",
        "medians of 48 decode steps",
        "% (",
        "of a decode step",
    ] {
        assert!(line.contains(part), "{line}");
    }
    // Standard output is sglang's.
    assert!(!ran.stdout.contains("recording"));
    let record = stepscope.json("run/record.json");
    let costs = record["timing"]["overhead"].as_array().unwrap();
    let names: Vec<_> = costs.iter().map(|c| c["what"].as_str().unwrap()).collect();
    assert_eq!(names, ["phases", "phases and operations"]);
    for cost in costs {
        assert_eq!(cost["steps"], 48);
        assert!(cost["with_ns"].as_u64().unwrap() > 0);
        assert!(cost["without_ns"].as_u64().unwrap() > 0);
    }
    // What was measured afterwards is recorded in full, and the report says what it cost.
    let decode = &record["points"][0]["decode"];
    assert_eq!(decode["steps"], 8);
    assert!(!decode["operations"].as_array().unwrap().is_empty());
    let report = stepscope.run(&["report", "run"]).success().stdout;
    assert!(report.contains("timer    the host's clock"), "{report}");
    assert!(report.contains("cost     recording phases"), "{report}");
}

#[test]
fn a_record_without_a_gpu_names_no_other_timer() {
    let stepscope = Stepscope::new();
    let arguments = [
        "--timer", "wall", "--out", "run", "--input", "4", "--output", "2",
    ];
    stepscope.one_batch(&arguments).success();
    let record = stepscope.json("run/record.json");
    assert!(record.get("timing").is_none());
    assert!(record["points"][0].get("gpu").is_none());
    assert_eq!(
        record["points"][0]["decode"]["operations"][0]["timer"],
        "wall"
    );
}

#[test]
fn hardware_counters_where_there_is_no_gpu_are_one_line_and_no_failure() {
    let stepscope = Stepscope::new();
    let lengths = ["--out", "run", "--input", "4", "--output", "2"];
    for counters in [
        "--counters",
        "--counters=dram__bytes_read.sum,lts__t_sectors.sum",
    ] {
        let arguments = [&lengths[..], &[counters]].concat();
        let ran = stepscope.one_batch(&arguments).success();
        let lines: Vec<&str> = ran
            .stderr
            .lines()
            .filter(|l| l.contains("--counters:"))
            .collect();
        assert_eq!(lines.len(), 1, "{}", ran.stderr);
        assert!(
            lines[0].contains("the CPU device runs these steps; use --device cuda"),
            "{}",
            lines[0]
        );
        assert!(
            stepscope.json("run/record.json")["points"][0]
                .get("counted")
                .is_none()
        );
    }
    let quiet = [&lengths[..], &["--counters", "--quiet"]].concat();
    assert_eq!(stepscope.one_batch(&quiet).success().stderr, "");
}

#[test]
fn timers_that_cannot_be_had_are_refused_in_one_line() {
    let stepscope = Stepscope::new();
    let check = |arguments: &[&str], code: i32, parts: &[&str]| {
        stepscope.one_batch(arguments).error(code, parts);
    };
    check(
        &["--timer", "cupti", "--device", "cpu"],
        2,
        &["--timer cupti", "on a GPU", "--timer wall"],
    );
    check(
        &["--timer", "events", "--device", "cpu"],
        2,
        &["--timer events"],
    );
    check(
        &["--timer", "graph", "--device", "cpu"],
        2,
        &["--timer graph times kernels on a GPU"],
    );
    check(
        &["--timer", "graph", "--device", "emulated"],
        2,
        &["--timer graph", "an emulated device has no time"],
    );
    check(
        &["--timer", "cupti", "--device", "emulated"],
        2,
        &["--timer cupti", "an emulated device has no time"],
    );
    check(
        &[
            "--overhead",
            "--device",
            "cpu",
            "--input",
            "4",
            "--output",
            "2",
        ],
        2,
        &["--output-len 2", "use 3 or more"],
    );
}
