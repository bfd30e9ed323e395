//! The report of a record, as people see it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use stepscope_profiler::{BandwidthRoof, Record, StepTotal, report};
use support::sample;

#[test]
fn whole_report() {
    insta::assert_snapshot!(report::text(&sample::record(30)));
}

#[test]
fn figures_for_programs() {
    let mut record = sample::record(1);
    record.points.truncate(1);
    let json = serde_json::to_string_pretty(&report::json(&record)).unwrap();
    insta::assert_snapshot!(json);
}

#[test]
fn one_repetition_without_decode() {
    let mut record = sample::record(2);
    record.points.truncate(1);
    let point = &mut record.points[0];
    point.output_len = 1;
    point.repetitions.truncate(1);
    let repetition = &mut point.repetitions[0];
    repetition.steps.truncate(1);
    repetition.first_decode_latency_s = None;
    repetition.median_decode_latency_s = None;
    repetition.total_latency_s = repetition.prefill_latency_s;
    point.prefill = StepTotal::empty();
    point.prefill.add(&point.repetitions[0].steps[0]);
    point.decode = None;
    insta::assert_snapshot!(report::point_text(&record, 0));
}

#[test]
fn gpu_times_have_a_column() {
    let mut record = sample::record(2);
    let prefill = &mut record.points[0].repetitions[0].steps[0];
    for phase in &mut prefill.phases {
        phase.gpu_ns = Some(phase.host_ns / 2);
    }
    let text = report::point_text(&record, 0);
    insta::assert_snapshot!(text.split("\n\n").nth(2).unwrap());
}

#[test]
fn an_interrupted_run_without_points_says_so() {
    let mut record = sample::record(2);
    record.points.clear();
    record.skipped.clear();
    record.complete = false;
    record.environment.roofs = None;
    record.environment.host = None;
    record.environment.load_average = None;
    record.program.commit = None;
    record.memory.peak_rss = None;
    insta::assert_snapshot!(report::text(&record));
}

#[test]
fn an_operation_above_its_roof_is_an_error_report() {
    let mut record = sample::record(2);
    // As if the cache had been taken for DRAM: everything is faster than this.
    let roofs = record.environment.roofs.as_mut().unwrap();
    roofs.bandwidth = vec![BandwidthRoof {
        name: "DRAM".to_owned(),
        up_to_bytes: None,
        bytes_per_s: 12e9,
    }];
    let text = report::point_text(&record, 0);
    let decode = text.split("Decode operations").nth(1).unwrap();
    insta::assert_snapshot!(decode);
}

#[test]
fn there_is_no_text_for_a_point_there_is_not() {
    assert_eq!(report::point_text(&sample::record(1), 2), "");
}

/// Every share column of the sample adds up to 100 %.
#[test]
fn shares_add_up() {
    let record: Record = sample::record(30);
    let json = report::json(&record);
    for point in json["points"].as_array().unwrap() {
        for kind in ["prefill", "decode"] {
            let step = &point[kind];
            let operations = step["operations"].as_array().unwrap();
            let sum = operations
                .iter()
                .map(|o| o["ns"].as_f64().unwrap())
                .sum::<f64>()
                + step["between_operations_ns"].as_f64().unwrap()
                + step["outside_operations_ns"].as_f64().unwrap();
            let wall = step["wall_ns"].as_f64().unwrap();
            assert!((sum - wall).abs() < 1e-6 * wall, "{sum} instead of {wall}");
        }
    }
}
